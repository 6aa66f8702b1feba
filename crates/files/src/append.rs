//! Files that grow by whole records, such as a journal.

use crate::disk::{self, DiskFile};
use crate::path::directory_of;
use crate::place::check_target;
use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A file to whose end records are written.
///
/// ```
/// use causalcone_files::Appended;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("journal.jsonl");
/// let mut file = Appended::open(&path)?;
/// file.append(b"{}\n")?;
/// file.sync()?;
/// assert_eq!(std::fs::read(&path)?, b"{}\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Appended {
    file: DiskFile,
    path: PathBuf,
}

impl Appended {
    /// Opens a file, or creates it.
    ///
    /// # Errors
    /// [`Error::Special`] when the path leads to something else than a regular file; [`Error::File`].
    pub fn open(path: &Path) -> Result<Self> {
        check_target(path)?;
        let is_new = !path.exists();
        let file = DiskFile::open(path, OpenOptions::new().read(true).append(true).create(true));
        let file = file.map_err(Error::of(path, "open"))?;
        if is_new {
            disk::sync_folder(directory_of(path)).map_err(Error::of(path, "sync the directory of"))?;
        }
        Ok(Self { file, path: path.into() })
    }

    /// The file, to be read and locked.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.file()
    }

    /// Cuts off what follows the first `length` bytes.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn truncate(&self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(Error::of(&self.path, "shorten"))
    }

    /// Writes a record whole, or cuts off again what was written of it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        let failed = |e| Error::of(&self.path, "write")(e);
        let before = self.file.file().metadata().map_err(failed)?.len();
        self.file.write_all(record).map_err(|e| {
            // If that fails too, whoever reads it finds a torn last line.
            let _ = self.file.set_len(before);
            failed(e)
        })
    }

    /// Waits until all records are on the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sync(&self) -> Result<()> {
        self.file.sync().map_err(Error::of(&self.path, "sync"))
    }
}
