//! The one error type for whoever uses the library: what was refused or failed, and what would help.
//!
//! ```
//! use causalcone_jobs::{Again, Folder, Results};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("lens.json"), "{}")?;
//! let error = Folder::claim(folder.path(), Results::Lens, Again::Refuse).err().ok_or("was claimed")?;
//! assert!(error.is_bad_input() && error.to_string().ends_with("already holds results: lens.json"));
//! assert_eq!(error.hint().as_deref(), Some("replace them, or choose another folder"));
//! # Ok(())
//! # }
//! ```

use causalcone_engine::Refused;
use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why work was refused, failed or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine refused an experiment, or could not run it.
    #[error(transparent)]
    Engine(#[from] causalcone_engine::Error),
    /// A model, a prompt or an address was refused.
    #[error(transparent)]
    Model(#[from] causalcone_model::Error),
    /// A table or a figure could not be made.
    #[error(transparent)]
    Report(#[from] causalcone_report::Error),
    /// A file or folder could not be written.
    #[error(transparent)]
    Write(#[from] causalcone_files::Error),
    /// Results cannot go to a folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// No example of a data set fits the experiment.
    #[error("no example can be used")]
    NoExample {
        /// All of them, and why.
        refused: Vec<Refused>,
    },
    /// What was asked for cannot be done.
    #[error("{message}")]
    Refused {
        /// What is wrong, and what would fit.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The input was accepted, and the work failed.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The caller asked the work to stop.
    #[error("interrupted{kept}")]
    Interrupted {
        /// What is left of the work, as the end of a sentence: "; finished shards are kept".
        kept: &'static str,
    },
}

impl Error {
    /// What the user could do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(source) => source.hint(),
            Self::Model(source) => source.hint(),
            Self::Report(source) => source.hint(),
            Self::Write(source) => source.hint(),
            Self::Folder(source) => source.hint(),
            Self::Refused { hint, .. } | Self::Failed { hint, .. } => hint.clone(),
            Self::NoExample { .. } | Self::Interrupted { .. } => None,
        }
    }

    /// Whether the input was at fault (true) or the run failed (false).
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Engine(source) => source.is_bad_input(),
            Self::Model(source) => source.is_bad_input(),
            Self::Report(source) => source.is_bad_input(),
            Self::Write(source) => source.is_bad_input(),
            Self::Folder(_) | Self::NoExample { .. } | Self::Refused { .. } => true,
            Self::Failed { .. } | Self::Interrupted { .. } => false,
        }
    }

    /// Whether the library itself is at fault.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Engine(source) => source.is_internal(),
            Self::Model(source) => source.is_internal(),
            Self::Report(_)
            | Self::Write(_)
            | Self::Folder(_)
            | Self::NoExample { .. }
            | Self::Refused { .. }
            | Self::Failed { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// Whether the caller asked the work to stop.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        use causalcone_engine::Error as EngineError;
        use causalcone_model::Error as ModelError;
        matches!(
            self,
            Self::Interrupted { .. }
                | Self::Engine(EngineError::Interrupted | EngineError::Model(ModelError::Cancelled))
                | Self::Model(ModelError::Cancelled)
        )
    }

    /// The same, with what is kept of the work if the caller asked it to stop.
    pub(crate) fn keeping(error: causalcone_engine::Error, kept: &'static str) -> Self {
        match error {
            causalcone_engine::Error::Interrupted => Self::Interrupted { kept },
            other => other.into(),
        }
    }

    pub(crate) fn refused(message: impl Into<String>, hint: &str) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "`map_err` takes it as it is")]
    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::Failed { message: message.to_string(), hint: None }
    }
}

/// Why results cannot go to a folder. All are faults of the input: the same call fails again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It cannot be created or locked.
    #[error(transparent)]
    Locked(causalcone_files::Error),
    /// It already holds results.
    #[error("{} already holds results: {}", folder.display(), listed(held))]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// The names of the files.
        held: Vec<String>,
        /// Whether they are of work that was interrupted and can be resumed.
        is_unfinished: bool,
    },
    /// It holds results that no work can resume.
    #[error("{} contains results that cannot be resumed: {}", folder.display(), listed(held))]
    NotResumable {
        /// The folder.
        folder: PathBuf,
        /// The names of the files.
        held: Vec<String>,
    },
    /// Something in it has the name of a result, and is something else.
    #[error("{} is not a folder that causalcone wrote", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
    },
    /// It holds results of other work than that which is to resume them.
    #[error("cannot resume {}: {field} differs: {earlier} there, {now} now", folder.display())]
    Different {
        /// The folder.
        folder: PathBuf,
        /// What differs, by its name in `resume.json`.
        field: &'static str,
        /// What it was when the work began; "none" for nothing.
        earlier: String,
        /// What it is now.
        now: String,
    },
    /// What says which work its results are of cannot be read.
    #[error("{}: {problem}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It was claimed for results of another kind.
    #[error("{} was claimed for {claimed}, which are not {wanted}", folder.display())]
    Kind {
        /// The folder.
        folder: PathBuf,
        /// The results that it was claimed for.
        claimed: &'static str,
        /// The results that were to be written.
        wanted: &'static str,
    },
}

impl FolderError {
    /// What the user could do about it, if there is something to say beyond the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Locked(source) => return source.hint(),
            Self::Occupied { is_unfinished: true, .. } => {
                "resume what was interrupted, replace it, or choose another folder".into()
            }
            Self::Occupied { .. } | Self::NotResumable { .. } => {
                "replace them, or choose another folder".into()
            }
            Self::Foreign { .. } => "move it elsewhere, or choose another folder".into(),
            Self::Different { field: "weights", earlier, .. } if earlier != "none" => {
                format!("keep the weights as {earlier}")
            }
            Self::Different { field: "date", .. } => {
                "leave `date` out of the file, and the work resumes with the date it began with".into()
            }
            Self::Different { .. } | Self::Identity { .. } => {
                "replace what is there, or choose another folder".into()
            }
            Self::Kind { .. } => "claim it for the results that are to be written".into(),
        })
    }
}

/// Some names, for people.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 11;
    match names.len() {
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}
