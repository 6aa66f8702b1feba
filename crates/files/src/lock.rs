//! At most one process writes results to a folder.
//!
//! The lock is a file in the folder that the process holds locked. The operating system releases it when the process ends,
//! however it ends; what the file says is for people, and for file systems that know no locks.

use crate::disk::{self, DiskFile};
use crate::place::number_of;
use crate::process::{Process, State};
use crate::temporary::remove_leftovers;
use crate::unfinished::{What, unfinished};
use crate::{Error, PlaceKind, Result};
use std::fs::{OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// What the lock is called in the folder.
pub const LOCK_NAME: &str = ".causalcone-lock";

/// How often a folder is created again that another process removes.
const TRIES: usize = 100;

/// The longest description of a process that is read.
const LONGEST: u64 = 500;

/// A folder that this process alone writes to, until this is dropped.
///
/// Dropping it removes the lock's file, and those folders that were created for it if nothing is in them: work that is
/// refused leaves nothing.
#[derive(Debug)]
pub struct FolderLock {
    file: DiskFile,
    path: PathBuf,
    /// Folders that were created, outermost first.
    made: Vec<PathBuf>,
}

impl FolderLock {
    /// Creates the folder where it is missing, locks it, and removes what dead processes left unfinished in it.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::NotAFolder`] when `folder` is something else,
    /// [`Error::File`] when it cannot be created or written to.
    pub fn take(folder: &Path) -> Result<Self> {
        if folder.exists() && !folder.is_dir() {
            return Err(Error::NotAFolder { path: folder.into() });
        }
        let path = folder.join(LOCK_NAME);
        let mut unfinished = unfinished();
        let mut made = Vec::new();
        let mut tries = 0..TRIES;
        let file = loop {
            made.extend(disk::create_folders(folder)?);
            match locked(&path, folder) {
                Ok(file) => break file,
                // Whoever had it before has removed the folder, since nothing was in it.
                Err(_) if !folder.exists() && tries.next().is_some() => {}
                Err(error) => {
                    made.iter().rev().for_each(|made| drop(disk::remove_empty_folder(made)));
                    return Err(error);
                }
            }
        };
        made.iter().for_each(|made| unfinished.add(made, What::EmptyFolder));
        unfinished.add(&path, What::File);
        drop(unfinished);
        let lock = Self { file, path, made };
        // On a full disk the lock holds all the same.
        let _ = lock.describe();
        remove_leftovers(folder);
        Ok(lock)
    }

    /// Writes which process has it.
    fn describe(&self) -> io::Result<()> {
        let this = Process::this();
        let text = format!("{this}\nprocess {} of causalcone {}\n", this.id(), env!("CARGO_PKG_VERSION"));
        self.file.set_len(0)?;
        let mut file = self.file.file();
        file.rewind()?;
        file.write_all(text.as_bytes())
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        let mut unfinished = unfinished();
        // Removed while it is still locked: whoever opens it now finds that it has no name any more, and asks again.
        let _ = disk::remove_file(&self.path);
        unfinished.remove(&self.path);
        for folder in self.made.iter().rev() {
            // Results stay.
            let _ = disk::remove_empty_folder(folder);
            unfinished.remove(folder);
        }
    }
}

/// Opens the lock's file and locks it.
fn locked(path: &Path, folder: &Path) -> Result<DiskFile> {
    let failed = |e| Error::of(folder, "lock")(e);
    loop {
        if let Some(kind) = PlaceKind::at(path)?.filter(|kind| *kind != PlaceKind::File) {
            return Err(Error::Special { path: path.into(), kind });
        }
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            how.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
        }
        let file = DiskFile::open(path, &how).map_err(failed)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(folder, &file)),
            // A file system without locks: what the file says has to do.
            Err(TryLockError::Error(_)) if !may_be_taken(&file) => return Err(held(folder, &file)),
            Err(TryLockError::Error(_)) => {}
        }
        // Its last owner may have removed it after it was opened here: then it locks nothing.
        let is_named = match (file.file().metadata(), std::fs::symlink_metadata(path)) {
            (Ok(opened), Ok(named)) => number_of(&opened) == number_of(&named),
            _ => false,
        };
        if is_named {
            return Ok(file);
        }
    }
}

/// The error that names who has it.
fn held(folder: &Path, file: &DiskFile) -> Error {
    let by = description(file).and_then(|text| {
        let line = text.lines().nth(1)?.trim();
        (!line.is_empty() && line.chars().all(|c| c.is_ascii_graphic() || c == ' ')).then(|| line.to_owned())
    });
    Error::Locked { folder: folder.into(), by }
}

/// Whether the process that wrote the file has ended.
fn may_be_taken(file: &DiskFile) -> bool {
    let text = description(file).unwrap_or_default();
    match text.lines().next().map(str::parse::<Process>) {
        None => true,
        Some(process) => process.is_ok_and(|process| process.state() == State::Ended),
    }
}

fn description(file: &DiskFile) -> Option<String> {
    let mut text = String::new();
    file.file().rewind().ok()?;
    file.file().take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_is_locked_once_and_left_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a/b");
        let lock = FolderLock::take(&folder).unwrap();
        let error = FolderLock::take(&folder).unwrap_err();
        let expected = format!(
            "another process is writing to {} (process {} of causalcone {})",
            folder.display(),
            std::process::id(),
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(error.to_string(), expected);
        drop(lock);
        // Nothing was written: the folders go, too.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let lock = FolderLock::take(&folder).unwrap();
        fs::write(folder.join("cells.csv"), "").unwrap();
        drop(lock);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_dead_process_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOCK_NAME);
        for text in ["", "nonsense", "00000000-00000000-1-1\nprocess 1 of causalcone 0.1.0\n"] {
            fs::write(&path, text).unwrap();
            drop(FolderLock::take(directory.path()).unwrap());
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = FolderLock::take(&file).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not a folder", file.display()));
        assert!(FolderLock::take(&file.join("below")).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    /// What is read and written on file systems that know no locks.
    #[test]
    fn the_description_is_read_and_written_from_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(directory.path()).unwrap();
        let written = format!("{}\n", Process::this());
        for _ in 0..2 {
            assert!(!may_be_taken(&lock.file));
            assert!(held(directory.path(), &lock.file).to_string().contains("(process "));
            lock.describe().unwrap();
            assert!(fs::read_to_string(&lock.path).unwrap().starts_with(&written));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let folder = directory.path().join("results");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&precious, folder.join(LOCK_NAME)).unwrap();
        assert!(matches!(FolderLock::take(&folder), Err(Error::Special { .. })));
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn of_many_threads_one_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(_lock) = FolderLock::take(directory.path()) {
                            use std::sync::atomic::Ordering;
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
