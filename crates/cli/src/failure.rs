//! Errors on their way to the user: a message, a hint, an exit code.

use crate::interrupt;
use causalcone_model::{LONGEST_MESSAGE, shortened};

/// Why the command stops.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    why: Why,
}

/// What is at fault.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// The input: exit code 2.
    Input,
    /// The run: exit code 1.
    Run,
    /// A signal: exit code 128 plus its number.
    Signal,
}

impl Why {
    fn of(is_bad_input: bool) -> Self {
        if is_bad_input { Self::Input } else { Self::Run }
    }
}

impl Failure {
    /// The input is at fault: exit code 2.
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, why: Why::Input }
    }

    /// The run failed: exit code 1.
    pub(crate) fn run(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, why: Why::Run }
    }

    /// A signal ended the work: exit code 128 plus its number. `kept` says what is left of the work.
    pub(crate) fn interrupted(kept: &str) -> Self {
        let message = format!("interrupted{}{kept}", interrupt::by());
        Self { message, hint: interrupt::how_to_resume(), why: Why::Signal }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with the hint that an error has, if any.
    pub(crate) fn maybe_hint(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }

    pub(crate) fn code(&self) -> u8 {
        match self.why {
            Why::Input => 2,
            Why::Run => 1,
            Why::Signal => interrupt::code(),
        }
    }

    /// What is printed on stderr. Texts from files may hold anything and be of any length, so nothing in them may
    /// reach a terminal as a command, and a message is never longer than a screen.
    pub(crate) fn rendered(&self) -> String {
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

impl From<causalcone::Error> for Failure {
    fn from(error: causalcone::Error) -> Self {
        if matches!(
            error,
            causalcone::Error::Interrupted | causalcone::Error::Model(causalcone::ModelError::Cancelled)
        ) {
            return Self::interrupted("");
        }
        Self { message: error.to_string(), hint: error.hint(), why: Why::of(error.is_bad_input()) }
    }
}

impl From<causalcone::ModelError> for Failure {
    fn from(error: causalcone::ModelError) -> Self {
        if matches!(error, causalcone::ModelError::Cancelled) {
            return Self::interrupted("");
        }
        Self { message: error.to_string(), hint: error.hint(), why: Why::of(error.is_bad_input()) }
    }
}

impl From<causalcone_files::Error> for Failure {
    fn from(error: causalcone_files::Error) -> Self {
        Self { message: error.to_string(), hint: error.hint(), why: Why::of(error.is_bad_input()) }
    }
}

impl From<causalcone_report::Error> for Failure {
    fn from(error: causalcone_report::Error) -> Self {
        // What is drawn was checked before any work: what fails now is the run.
        Self { message: error.to_string(), hint: error.hint(), why: Why::Run }
    }
}
