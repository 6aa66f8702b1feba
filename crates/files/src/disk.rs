//! The calls to the operating system that change the disk. Each can be made to fail ([`crate::fault`]), and is made again
//! when a signal interrupts it.

use crate::fault::{self, Effect};
use crate::unfinished::stop_if_ended;
use crate::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Makes a call, until no signal interrupts it.
fn call<T>(name: &'static str, path: &Path, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        stop_if_ended();
        match fault::before_write(name, path).and_then(|_| make()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A file that is written.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
}

impl DiskFile {
    /// Creates a file; there must be none of that name.
    pub(crate) fn create_new(path: &Path) -> io::Result<Self> {
        let file = call("create", path, || File::create_new(path))?;
        Ok(Self { file, path: path.into() })
    }

    /// Opens a file as `how` says.
    pub(crate) fn open(path: &Path, how: &OpenOptions) -> io::Result<Self> {
        let file = call("open", path, || how.open(path))?;
        Ok(Self { file, path: path.into() })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Waits until all of it is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        call("sync", &self.path, || self.file.sync_all())
    }

    /// Makes it so long.
    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        call("truncate", &self.path, || self.file.set_len(length))
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stop_if_ended();
        match fault::before_write("write", &self.path)? {
            Effect::None => self.file.write(bytes),
            Effect::Short => self.file.write(&bytes[..bytes.len().div_ceil(2)]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Renames a file or folder. A file of the new name is replaced by a file, an empty folder by a folder, nothing else.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    call("rename", to, || fs::rename(from, to))
}

/// Renames a file; fails with [`io::ErrorKind::AlreadyExists`] where the new name is taken.
pub(crate) fn rename_file_new(from: &Path, to: &Path) -> io::Result<()> {
    match flagged(from, to, Flag::NoReplace) {
        Err(e) if is_unsupported(&e) => {
            // Elsewhere a second name is given, which fails where there is one, and the first is taken away. A file system
            // without second names cannot do it in one step.
            match call("link", to, || fs::hard_link(from, to)) {
                Ok(()) => remove_file_quietly(from),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
                Err(_) if fs::symlink_metadata(to).is_ok() => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Err(_) => return rename(from, to),
            }
            Ok(())
        }
        done => done,
    }
}

/// Exchanges the contents of two names in one step; `false` where the file system cannot.
pub(crate) fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    match flagged(one, other, Flag::Exchange) {
        Ok(()) => Ok(true),
        Err(e) if is_unsupported(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[derive(Debug, Clone, Copy)]
enum Flag {
    NoReplace,
    Exchange,
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn flagged(from: &Path, to: &Path, flag: Flag) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = match flag {
        Flag::NoReplace => RenameFlags::NOREPLACE,
        Flag::Exchange => RenameFlags::EXCHANGE,
    };
    call("rename", to, || Ok(renameat_with(CWD, from, CWD, to, flags)?))
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn flagged(_: &Path, _: &Path, _: Flag) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// What file systems answer that do not know the flags of a rename.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// Removes a file.
///
/// # Errors
/// [`Error::File`] when there is none or it cannot be removed.
pub fn remove_file(path: &Path) -> Result<()> {
    call("remove", path, || fs::remove_file(path)).map_err(Error::of(path, "remove"))
}

/// Removes a file that may be gone already, and whose staying does no harm.
pub(crate) fn remove_file_quietly(path: &Path) {
    let _ = call("remove", path, || fs::remove_file(path));
}

/// Removes a folder with all that is in it. Links in it are removed, not followed.
///
/// # Errors
/// [`Error::File`] when there is none or something in it cannot be removed.
pub fn remove_folder(path: &Path) -> Result<()> {
    call("remove", path, || fs::remove_dir_all(path)).map_err(Error::of(path, "remove"))
}

/// Removes a folder if nothing is in it.
pub(crate) fn remove_empty_folder(path: &Path) -> io::Result<()> {
    call("remove", path, || fs::remove_dir(path))
}

/// Creates a folder, whose parent must exist.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    call("create", path, || fs::create_dir(path))
}

/// Creates a folder and those it is in, as far as they are missing; returns the paths of those created, outermost first.
///
/// # Errors
/// [`Error::File`] when one cannot be created; those created before are removed again.
pub fn create_folders(path: &Path) -> Result<Vec<PathBuf>> {
    let missing = path.ancestors().take_while(|part| *part != Path::new("") && !part.exists());
    let missing: Vec<&Path> = missing.collect();
    let mut made = Vec::new();
    for part in missing.into_iter().rev() {
        match create_folder(part) {
            Ok(()) => made.push(part.to_path_buf()),
            // Somebody was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && part.is_dir() => {}
            Err(e) => {
                made.iter().rev().for_each(|part| drop(remove_empty_folder(part)));
                return Err(Error::of(path, "create")(e));
            }
        }
    }
    Ok(made)
}

/// Makes a rename in the directory last; elsewhere than on Unix a directory cannot be opened, nor need it be.
pub(crate) fn sync_folder(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = File::open(directory)?;
        call("sync", directory, || folder.sync_all())?;
    }
    Ok(())
}
