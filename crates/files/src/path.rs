//! What is said of a path without asking the disk: the kinds of what it may lead to, and the directory it is in.

use std::fmt;
use std::fs::FileType;
use std::path::Path;

/// What there is at a path, where it is not a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaceKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A device such as `/dev/zero`.
    Device,
    /// Anything else.
    Other,
}

impl PlaceKind {
    /// What a kind of file is called here.
    #[must_use]
    pub fn of(kind: FileType) -> Self {
        if kind.is_file() {
            return Self::File;
        } else if kind.is_dir() {
            return Self::Folder;
        } else if kind.is_symlink() {
            return Self::Link;
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::FileTypeExt;
            if kind.is_fifo() {
                return Self::Pipe;
            } else if kind.is_socket() {
                return Self::Socket;
            } else if kind.is_char_device() || kind.is_block_device() {
                return Self::Device;
            }
        }
        Self::Other
    }
}

impl fmt::Display for PlaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a regular file",
            Self::Folder => "a folder",
            Self::Link => "a symbolic link",
            Self::Pipe => "a named pipe",
            Self::Socket => "a socket",
            Self::Device => "a device",
            Self::Other => "a special file",
        })
    }
}

/// The directory a file is in: "." for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// What becomes of a file or folder that has the name already.
///
/// ```
/// use causalcone_files::IfExists;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("cells.csv");
/// IfExists::Refuse.write(&path, |w| w.write_all(b"1"))?;
/// assert!(IfExists::Refuse.write(&path, |w| w.write_all(b"2")).is_err());
/// IfExists::Replace.write(&path, |w| w.write_all(b"3"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// It stays, and nothing is written.
    Refuse,
    /// What is written takes its place.
    Replace,
}

impl IfExists {
    /// [`IfExists::Replace`] where a user insists.
    #[must_use]
    pub fn forced(force: bool) -> Self {
        if force { Self::Replace } else { Self::Refuse }
    }
}
