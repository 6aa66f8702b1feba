//! Errors as Python exceptions: the messages and hints of the command, in few named types.

use causalcone::jobs::FolderError;
use causalcone_model::{LONGEST_MESSAGE, shortened};
use pyo3::prelude::*;

/// What goes wrong in here.
pub(crate) enum Failure {
    /// Something in the library, and what is at fault.
    Library { message: String, hint: Option<String>, why: Why },
    /// An exception that was raised in Python code called from here, or by Ctrl-C.
    Python(PyErr),
    /// The model was closed.
    Closed,
}

/// What is at fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Why {
    /// The input.
    Input,
    /// The run.
    Run,
    /// The library itself.
    Internal,
}

impl Why {
    fn of(is_bad_input: bool) -> Self {
        if is_bad_input { Self::Input } else { Self::Run }
    }
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// The input is at fault.
    pub(crate) fn input(message: impl Into<String>, hint: Option<&str>) -> Self {
        Self::Library { message: message.into(), hint: hint.map(Into::into), why: Why::Input }
    }
}

impl Failure {
    /// The failure to read a document that the package has written: a line and a column in it help nobody.
    pub(crate) fn of_document(error: causalcone::EngineError) -> Self {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let failure = Self::from(causalcone::Error::from(error));
        let Self::Library { mut message, hint, why } = failure else { return failure };
        if let Some((before, (line, column))) = message
            .rsplit_once(" at line ")
            .and_then(|(before, at)| Some((before, at.split_once(" column ")?)))
            && is_number(line)
            && is_number(column)
        {
            message = before.to_owned();
        }
        Self::Library { message, hint, why }
    }
}

impl From<causalcone::Error> for Failure {
    fn from(error: causalcone::Error) -> Self {
        let why = if error.is_internal() { Why::Internal } else { Why::of(error.is_bad_input()) };
        let hint = match &error {
            causalcone::Error::Folder(folder) => with_arguments(folder),
            other => other.hint(),
        };
        Self::Library { message: error.to_string(), hint, why }
    }
}

/// What to do about a folder that is refused, by the arguments of Python's methods.
fn with_arguments(error: &FolderError) -> Option<String> {
    let hint = match error {
        FolderError::Occupied { is_unfinished: true, .. } => {
            "resume=True continues what was interrupted, or choose another folder"
        }
        FolderError::Occupied { .. } | FolderError::NotResumable { .. } => {
            "remove them, or choose another folder"
        }
        other => return other.hint(),
    };
    Some(hint.into())
}

/// What the library's parts return is an error of the library.
macro_rules! from_parts {
    ($($part:ty),*) => {
        $(impl From<$part> for Failure {
            fn from(error: $part) -> Self {
                causalcone::Error::from(error).into()
            }
        })*
    };
}

from_parts!(
    causalcone::EngineError,
    causalcone::ModelError,
    causalcone::report::Error,
    causalcone::files::Error
);

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        Self::Library { message: error.to_string(), hint: None, why: Why::Run }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::input(error.to_string(), None)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let (class, message, hint) = match failure {
            Failure::Python(error) => return error,
            Failure::Closed => {
                ("ClosedError", "the model is closed".to_owned(), Some("load it again".to_owned()))
            }
            Failure::Library { message, hint, why } => {
                let class = match why {
                    Why::Input => "InputError",
                    Why::Run => "RunError",
                    Why::Internal => "InternalError",
                };
                (class, message, hint)
            }
        };
        let short = |text: &str| shortened(text, LONGEST_MESSAGE).into_owned();
        let (message, hint) = (short(&message), hint.as_deref().map(short));
        let made = Python::attach(|py| -> PyResult<PyErr> {
            let class = py.import("causalcone._errors")?.getattr(class)?;
            Ok(PyErr::from_value(class.call1((message, hint))?))
        });
        made.unwrap_or_else(|error| error)
    }
}
