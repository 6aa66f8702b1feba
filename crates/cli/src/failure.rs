//! Errors on their way to the user: a message, a hint, an exit code.

use crate::interrupt;
use causalcone::jobs::{FolderError, LeftOut};
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

impl<E: Into<causalcone::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if error.is_interrupted() {
            let kept = if let causalcone::Error::Interrupted { kept } = error { kept } else { "" };
            return Self::interrupted(kept);
        }
        let hint = match &error {
            causalcone::Error::Folder(folder) => with_options(folder),
            other => other.hint(),
        };
        Self { message: error.to_string(), hint, why: Why::of(error.is_bad_input()) }
    }
}

/// What to do about a folder that is refused, by the options of the command.
fn with_options(error: &FolderError) -> Option<String> {
    let hint = match error {
        FolderError::Occupied { is_unfinished: true, .. } => {
            "--resume completes what was interrupted, --force starts over"
        }
        FolderError::Occupied { .. } | FolderError::NotResumable { .. } => {
            "--force replaces them, or choose another --out"
        }
        FolderError::Foreign { .. } => "move it elsewhere, or choose another --out",
        FolderError::Different { field: "weights", earlier, .. } if earlier != "none" => {
            return Some(format!("--weights {earlier} resumes it"));
        }
        FolderError::Different { field: "date", .. } => return error.hint(),
        FolderError::Different { .. } => "--force starts over, or choose another --out",
        FolderError::Identity { .. } => "start over with --force",
        other => return other.hint(),
    };
    Some(hint.into())
}

/// The failure to write one file or folder that the command was asked for.
pub(crate) fn taken(error: causalcone_files::Error) -> Failure {
    match &error {
        causalcone_files::Error::Exists { .. } => {
            Failure::from(error).hint("--force replaces it, or choose another name")
        }
        _ => error.into(),
    }
}

/// The end of a command: a failure if its results are without some of the examples.
pub(crate) fn all_fit(left_out: &LeftOut) -> Result<(), Failure> {
    let (bad, total) = (left_out.refused.len(), left_out.total.unwrap_or_default());
    if bad == 0 {
        return Ok(());
    }
    Err(Failure::input(format!("{bad} of {total} examples could not be used; the results are of the others")))
}
