//! Files that appear whole or not at all.
//!
//! A reader, or a run that is resumed after a crash, never sees half a file under its final name.

use crate::disk;
use crate::path::{IfExists, directory_of};
use crate::place::check_target;
use crate::temporary::Temporary;
use crate::{Error, Result};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the file `path` whole or not at all, in place of a file of that name.
///
/// `fill` writes (buffered) to a temporary file in the same directory, which must exist. That file is synced to the
/// disk and renamed to `path`, and then the directory is synced. `fill` may return any error that [`io::Error::other`]
/// can wrap.
///
/// ```
/// use causalcone_files::write_whole;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("cells.csv");
/// write_whole(&path, |w| w.write_all(b"layer,value\n0,0.5\n"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "layer,value\n0,0.5\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Special`], if `path` is something else than a regular file: a folder, a link, a pipe, a device.
/// [`Error::File`], if `fill` or any step fails. The temporary file is removed then, and `path` is as it was (only if
/// the last step fails, syncing the directory, is the new file there, but perhaps not after a loss of power).
pub fn write_whole(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<()> {
    write(path.as_ref(), fill, disk::rename)
}

/// Writes the file `path` whole or not at all, as [`write_whole`] does, where nothing of that name is there.
///
/// # Errors
/// [`Error::Exists`] if there is, also if it appears while the file is written; those of [`write_whole`].
pub fn write_new(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists { path: path.into() });
    }
    write(path, fill, disk::rename_file_new)
}

impl IfExists {
    /// Writes the file `path` whole or not at all, with [`write_new`] or [`write_whole`].
    ///
    /// # Errors
    /// Those of the function that writes it.
    pub fn write(
        self,
        path: impl AsRef<Path>,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
    ) -> Result<()> {
        match self {
            Self::Refuse => write_new(path, fill),
            Self::Replace => write_whole(path, fill),
        }
    }
}

fn write(
    path: &Path,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Result<()> {
    check_target(path)?;
    let failed = |doing| Error::of(path, doing);
    let directory = directory_of(path);
    let (temporary, file) = Temporary::file(directory, path)?;
    let mut writer = BufWriter::new(file);
    fill(&mut writer).map_err(failed("write"))?;
    let file = writer.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    file.sync().map_err(failed("sync"))?;
    rename(temporary.path(), path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => failed("rename into place")(error),
    })?;
    disk::sync_folder(directory).map_err(failed("sync the directory of"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_whole(&path, |w| w.write_all(b"old, and longer")).unwrap();
        write_whole(&path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["f"]);
    }

    #[test]
    fn nothing_shows_until_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_whole(&path, |w| {
            w.write_all(&[7; 100_000])?;
            w.flush()?;
            assert!(!path.exists());
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 100_000);
    }

    #[test]
    fn an_error_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let error = write_whole(&path, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("no more"))
        })
        .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write {}: no more", path.display()));
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn an_error_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "old").unwrap();
        write_whole(&path, |w| {
            w.write_all(&[7; 100_000])?; // more than the buffer holds
            Err(io::Error::other("no more"))
        })
        .unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["f"]);
    }

    #[test]
    fn a_folder_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_whole(&path, |w| w.write_all(b"x")).unwrap_err();
        assert!(matches!(error, Error::Special { .. }), "{error}");
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_and_a_link_are_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RUSR).unwrap();
        fs::write(at("precious"), "precious").unwrap();
        std::os::unix::fs::symlink("precious", at("link")).unwrap();
        for (name, what) in [("pipe", "a named pipe"), ("link", "a symbolic link")] {
            let error = write_whole(at(name), |w| w.write_all(b"x")).unwrap_err();
            let expected = format!("{} is not a regular file but {what}", at(name).display());
            assert_eq!(error.to_string(), expected);
            assert!(error.is_bad_input());
        }
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        assert_eq!(names(directory.path()).len(), 3);
    }

    #[test]
    fn a_new_file_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        write_new(&path, |w| w.write_all(b"first")).unwrap();
        let error = write_new(&path, |w| w.write_all(b"second")).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        fs::remove_file(&path).unwrap();
        // Somebody else writes it meanwhile.
        let error = write_new(&path, |_| fs::write(&path, "other")).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert_eq!(names(directory.path()), ["f"]);
    }

    #[test]
    fn a_missing_directory_has_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_whole(directory.path().join("no/f"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("cannot create "), "{error}");
        assert!(error.hint().unwrap().ends_with("/no exists"), "{:?}", error.hint());
    }

    #[cfg(unix)]
    #[test]
    fn has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        fs::write(directory.path().join("plain"), "").unwrap();
        write_whole(directory.path().join("whole"), |_| Ok(())).unwrap();
        assert_eq!(mode("whole"), mode("plain"));
    }
}
