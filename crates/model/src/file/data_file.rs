//! A regular file, read by position.

use crate::{Error, Result};
use causalcone_files::{fault, open_regular};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A regular file opened for reading by position.
#[derive(Debug)]
pub struct DataFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) len: u64,
}

impl DataFile {
    /// Opens a regular file; pipes, devices and folders are refused before they could block.
    ///
    /// # Errors
    /// When the file is missing, unreadable or not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, metadata) = open_regular(path).map_err(|error| match error {
            causalcone_files::Error::File { source, .. } => Error::io(path, "open", source),
            other => other.into(),
        })?;
        Ok(Self { path: path.into(), file, len: metadata.len() })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// When the file ends before: it was cut short after it was opened.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = fault::before_read(&self.path).and_then(|()| read_exact_at(&self.file, buffer, offset));
        read.map_err(|source| Error::io(&self.path, "read", source))
    }

    /// The whole file, if it is no longer than `cap` bytes.
    ///
    /// # Errors
    /// When it is longer, or cannot be read.
    pub fn read_all(&self, cap: u64) -> Result<Vec<u8>> {
        if self.len > cap {
            let problem = format!("{} bytes are more than the {cap} such a file may have", self.len);
            return Err(self.bad("size", problem));
        }
        self.bytes_at(0, self.len)
    }

    /// So many bytes from `offset` on. The caller has bounded their number.
    pub(crate) fn bytes_at(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// An error about a part of this file.
    pub(crate) fn bad(&self, field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::file(&self.path, field, problem)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}
