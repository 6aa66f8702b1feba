//! Errors on their way to the user: a message, a hint, an exit code.

use causalcone_model::{LONGEST_MESSAGE, shortened};

/// Why the command stops.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    hint: Option<String>,
    bad_input: bool,
}

impl Failure {
    /// The input is at fault: exit code 2.
    pub(super) fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, bad_input: true }
    }

    /// The run failed: exit code 1.
    pub(super) fn run(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, bad_input: false }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn code(&self) -> u8 {
        if self.bad_input { 2 } else { 1 }
    }

    /// What is printed on stderr. Texts from files may hold anything and be of any length, so nothing in them may
    /// reach a terminal as a command, and a message is never longer than a screen.
    pub(super) fn rendered(&self) -> String {
        let safe = |text: &str| -> String {
            let escaped: String = shortened(text, LONGEST_MESSAGE)
                .chars()
                .map(|c| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.into() })
                .collect();
            shortened(&escaped, LONGEST_MESSAGE).into_owned()
        };
        match &self.hint {
            Some(hint) => format!("error: {}\n  hint: {}", safe(&self.message), safe(hint)),
            None => format!("error: {}", safe(&self.message)),
        }
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self { message: error.to_string(), hint: error.hint(), bad_input: error.is_bad_input() }
    }
}

impl From<crate::ModelError> for Failure {
    fn from(error: crate::ModelError) -> Self {
        Self { message: error.to_string(), hint: error.hint(), bad_input: error.is_bad_input() }
    }
}

impl From<causalcone_report::Error> for Failure {
    fn from(error: causalcone_report::Error) -> Self {
        // The folder was tried before any work: what fails now is the run.
        Self { message: error.to_string(), hint: error.hint(), bad_input: false }
    }
}
