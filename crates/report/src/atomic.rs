//! Files that appear whole or not at all.
//!
//! A reader, or a run that is resumed after a crash, never sees half a file under its final name.
//!
//! ```
//! use causalcone_report::write_whole;
//!
//! let directory = tempfile::tempdir()?;
//! let path = directory.path().join("cells.csv");
//! write_whole(&path, |w| w.write_all(b"layer,value\n0,0.5\n"))?;
//! assert_eq!(std::fs::read_to_string(&path)?, "layer,value\n0,0.5\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::Error;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes the file `path` whole or not at all.
///
/// `fill` writes (buffered) to a temporary file in the same directory, which must exist. That file is synced to the
/// disk and renamed to `path`, replacing a file of that name, and then the directory is synced. `fill` may return
/// any error that [`io::Error::other`] can wrap.
///
/// # Errors
/// [`Error::File`], if `fill` or any step fails. The temporary file is removed then, and `path` is as it was (only if
/// the last step fails, syncing the directory, is the new file there, but perhaps not after a loss of power).
pub fn write_whole(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<(), Error> {
    let path = path.as_ref();
    let failed = |doing| move |source| Error::File { path: path.to_owned(), doing, source };
    let directory = directory_of(path);
    let mut writer = BufWriter::new(temporary_in(directory).map_err(failed("creating"))?);
    fill(&mut writer).map_err(failed("writing"))?;
    let file = writer.into_inner().map_err(|error| failed("writing")(error.into_error()))?;
    file.as_file().sync_all().map_err(failed("syncing"))?;
    file.persist(path).map_err(|error| failed("renaming into place")(error.error))?;
    sync_directory(directory).map_err(failed("syncing the directory of"))
}

/// The directory a file is in: "." for a bare name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A temporary file with the permissions of any new file (those of `tempfile` are private to the user).
fn temporary_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".causalcone-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    builder.tempfile_in(directory)
}

/// Makes a rename in the directory last; elsewhere than on Unix a directory cannot be opened, nor need it be.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
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
        assert_eq!(error.to_string(), format!("writing {}: no more", path.display()));
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
    fn a_failed_rename_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_whole(&path, |w| w.write_all(b"x")).unwrap_err();
        assert!(matches!(error, Error::File { doing: "renaming into place", .. }));
        assert_eq!(names(directory.path()), ["taken"]);
    }

    #[test]
    fn a_missing_directory_has_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let error = write_whole(directory.path().join("no/f"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("creating "), "{error}");
        assert!(error.hint().unwrap().ends_with("/no exist?"), "{:?}", error.hint());
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

    #[test]
    fn a_bare_name_is_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("f")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/f")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/f")), Path::new("/"));
    }
}
