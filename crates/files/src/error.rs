//! The error type of the crate: what was being done, to which path, and what would help.

use crate::path::{PlaceKind, directory_of};
use std::io;
use std::path::{Path, PathBuf};

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong while files and folders are written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the operating system failed. An earlier file of that name is as it was, unless `doing` is "sync
    /// the directory of": then the new one is there, but perhaps not after a loss of power.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The final name of the file or folder.
        path: PathBuf,
        /// What failed, as a verb: "create", "write", "sync", "rename into place" …
        doing: &'static str,
        /// What the operating system or the writing closure returned.
        source: io::Error,
    },
    /// Another process writes to the folder.
    #[error("another process is writing to {}{}", folder.display(), by.as_ref().map(|by| format!(" ({by})")).unwrap_or_default())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Which process, as its lock file describes it.
        by: Option<String>,
    },
    /// A folder was expected.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// Something is there that must not be replaced.
    #[error("{} already exists", path.display())]
    Exists {
        /// The name that is taken.
        path: PathBuf,
    },
    /// The path leads to something that is not a regular file.
    #[error("{} is not a regular file but {kind}", path.display())]
    Special {
        /// The path.
        path: PathBuf,
        /// What it leads to.
        kind: PlaceKind,
    },
    /// A folder that should be replaced holds files that causalcone did not write.
    #[error("{} contains files that causalcone did not write: {}", folder.display(), listed(names))]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// The names of these files, sorted.
        names: Vec<String>,
    },
}

impl Error {
    /// What the user might do about it, as a phrase to print after the error; `None` where the error says it all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File { path, source, .. } => file_hint(path, source.kind()),
            Self::Locked { .. } => Some("wait until it has finished, or write to another folder".into()),
            Self::NotAFolder { .. } | Self::Exists { .. } => Some("choose another name".into()),
            Self::Special { .. } => Some("give the name of a regular file".into()),
            Self::Foreign { .. } => {
                Some("move these files elsewhere, or give the name of another folder".into())
            }
        }
    }

    /// Whether the user asked for something that cannot be done, so that the same call fails again.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        match self {
            // What could be opened and fails later is no matter of what was asked for.
            Self::File { doing: "write" | "sync" | "shorten", .. } => false,
            Self::File { source, .. } => matches!(
                source.kind(),
                NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem | InvalidFilename
            ),
            Self::Locked { .. }
            | Self::NotAFolder { .. }
            | Self::Exists { .. }
            | Self::Special { .. }
            | Self::Foreign { .. } => true,
        }
    }

    /// A failed call as an error.
    pub(crate) fn of(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), doing, source }
    }
}

fn file_hint(path: &Path, kind: io::ErrorKind) -> Option<String> {
    let directory = directory_of(path).display();
    match kind {
        io::ErrorKind::NotFound => Some(format!("check that the directory {directory} exists")),
        io::ErrorKind::PermissionDenied => Some(format!("check write permission on {directory}")),
        io::ErrorKind::StorageFull => Some(format!("free some space on the disk of {directory}")),
        _ => None,
    }
}

/// Some names, for people.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    match names.len() {
        n if n <= SHOWN => shown.join(", "),
        n => format!("{} and {} more", shown.join(", "), n - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files_that_would_be_lost() {
        let names = (0..10).map(|i| format!("n{i}")).collect();
        let error = Error::Foreign { folder: "d".into(), names };
        assert!(error.to_string().ends_with("\"n7\" and 2 more"), "{error}");
    }

    #[test]
    fn a_full_disk_has_a_hint() {
        let error = Error::of(Path::new("a/b"), "write")(io::ErrorKind::StorageFull.into());
        assert_eq!(error.hint().unwrap(), "free some space on the disk of a");
        assert!(!error.is_bad_input());
    }
}
