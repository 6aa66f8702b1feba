//! Names of files and folders that are not finished.
//!
//! A name is `.causalcone-MACHINE-BOOT-PROCESS-START-NUMBER`: it says which process writes the file, so that another one
//! knows when nobody will finish it.

use crate::disk::{self, DiskFile};
use crate::process::{Process, State};
use crate::unfinished::{What, remove, unfinished};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How names of unfinished files begin.
const PREFIX: &str = ".causalcone-";

/// After this time what another machine left is taken for abandoned: whether its process still runs cannot be asked here.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A file or folder that vanishes unless it gets its final name.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    what: What,
}

impl Temporary {
    /// A new folder in `directory`, empty. What dead processes left in that directory is removed first.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub(crate) fn folder(directory: &Path) -> Result<Self> {
        let (new, ()) = Self::create(directory, What::Folder, |path| {
            disk::create_folder(path).map_err(Error::of(path, "create"))
        })?;
        Ok(new)
    }

    /// A new file in `directory`, for the final name `path`, which errors tell.
    pub(crate) fn file(directory: &Path, path: &Path) -> Result<(Self, DiskFile)> {
        Self::create(directory, What::File, |new| {
            DiskFile::create_new(new).map_err(Error::of(path, "create"))
        })
    }

    /// Creates it under a name that no other process and no other call takes.
    fn create<T>(directory: &Path, what: What, create: impl FnOnce(&Path) -> Result<T>) -> Result<(Self, T)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        if is_first_time(directory) {
            remove_leftovers(directory);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{PREFIX}{}-{number}", Process::this()));
        let mut unfinished = unfinished();
        let made = create(&path)?;
        unfinished.add(&path, what);
        Ok((Self { path, what }, made))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    /// Removes what is still under the temporary name.
    fn drop(&mut self) {
        let mut unfinished = unfinished();
        let _ = remove(&self.path, self.what);
        unfinished.remove(&self.path);
    }
}

/// Whether this process has not asked for this directory before.
fn is_first_time(directory: &Path) -> bool {
    static ASKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.into());
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).insert(directory)
}

/// Removes unfinished files and folders in `directory` whose process has ended; returns how many. Those of other machines
/// stay for seven days. Names that tell no process are not ours. What cannot be removed stays and does no harm.
pub(crate) fn remove_leftovers(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let left = entries.filter(|entry| {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { return false };
        is_leftover(rest, || entry.metadata().and_then(|metadata| metadata.modified()))
    });
    let removed = left.filter(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        remove(&entry.path(), if is_folder { What::Folder } else { What::File }).is_ok()
    });
    removed.count()
}

/// Whether nobody will finish a file, by what follows the prefix of its name.
fn is_leftover(name: &str, modified: impl FnOnce() -> io::Result<SystemTime>) -> bool {
    let process = name.rsplit_once('-').and_then(|(process, _)| process.parse::<Process>().ok());
    let Some(process) = process else { return false };
    match process.state() {
        State::Running => false,
        State::Ended => true,
        State::Elsewhere => {
            let age = modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
            age.is_some_and(|age| age > ABANDONED_AFTER)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn vanishes_unless_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Temporary::folder(directory.path()).unwrap();
        fs::write(folder.path().join("x"), "").unwrap();
        drop(folder);
        assert!(names(directory.path()).is_empty());
        let folder = Temporary::folder(directory.path()).unwrap();
        fs::rename(folder.path(), directory.path().join("final")).unwrap();
        drop(folder);
        assert_eq!(names(directory.path()), ["final"]);
    }

    #[test]
    fn only_what_nobody_will_finish_is_a_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let this = Process::this().to_string();
        let old = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        let make = |name: &str, is_old: bool| {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        };
        let mut parts: Vec<&str> = this.split('-').collect();
        make(&format!("{PREFIX}{this}-1000"), true); // this process, however long it takes
        parts[0] = "00000000"; // another machine
        make(&format!("{PREFIX}{}-1", parts.join("-")), false);
        make(&format!("{PREFIX}{}-2", parts.join("-")), true);
        make(".causalcone-cache", true); // somebody else's
        make(crate::LOCK_NAME, true);
        make(".other", true);
        let removed = remove_leftovers(directory.path());
        assert_eq!(removed, 1, "{:?}", names(directory.path()));
        assert_eq!(names(directory.path()).len(), 5);
        assert!(!directory.path().join(format!("{PREFIX}{}-2", parts.join("-"))).exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn leftovers_of_dead_processes_go_before_anything_new_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let this = Process::this().to_string();
        let mut parts: Vec<&str> = this.split('-').collect();
        let id = u32::MAX / 2; // no process has such a number
        let id = id.to_string();
        parts[2] = &id;
        let left = directory.path().join(format!("{PREFIX}{}-0", parts.join("-")));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "half").unwrap();
        let new = Temporary::folder(directory.path()).unwrap();
        assert!(!left.exists());
        drop(new);
    }
}
