//! What this process has not finished, and its removal when the process ends without returning from its work.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Folder,
    /// A folder, if nothing is in it.
    EmptyFolder,
}

/// What this process has not finished, in the order of creation.
pub(crate) struct Unfinished(Vec<(PathBuf, What)>);

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished(Vec::new()));

/// Whether the process is about to end, so that nothing may be created or changed any more.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// While this is held, [`abandon`] waits: whoever creates something and adds it here is never interrupted between the two.
pub(crate) fn unfinished() -> MutexGuard<'static, Unfinished> {
    let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    stop_if_ended();
    unfinished
}

impl Unfinished {
    /// Notes what [`abandon`] has to remove.
    pub(crate) fn add(&mut self, path: &Path, what: What) {
        self.0.push((path.into(), what));
    }

    /// Notes that a path is finished, or gone.
    pub(crate) fn remove(&mut self, path: &Path) {
        self.0.retain(|(other, _)| other != path);
    }
}

/// Does not return if the process is about to end.
pub(crate) fn stop_if_ended() {
    while HAS_ENDED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Removes everything that this process has not finished, its locks last. From then on every thread that would write anything
/// through this crate waits forever. To be called right before the process ends without returning from its work, as on a
/// signal.
pub fn abandon() {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    HAS_ENDED.store(true, Ordering::SeqCst);
    for (path, what) in std::mem::take(&mut unfinished.0).into_iter().rev() {
        // A call that had begun may still add a file to a folder.
        for _ in 0..100 {
            match remove(&path, what) {
                Err(e) if what == What::Folder && e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
    }
    // Nobody gets to change anything: the process ends.
    std::mem::forget(unfinished);
}

pub(crate) fn remove(path: &Path, what: What) -> io::Result<()> {
    match what {
        What::File => std::fs::remove_file(path),
        What::Folder => std::fs::remove_dir_all(path),
        What::EmptyFolder => std::fs::remove_dir(path),
    }
}
