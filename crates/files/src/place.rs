//! What a path leads to, whatever it is called.

use crate::path::{IfExists, PlaceKind, directory_of};
use crate::{Error, Result};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

impl PlaceKind {
    /// What is at `path` itself: a link is a link. `None` if nothing is there.
    ///
    /// # Errors
    /// [`Error::File`] when the path cannot be examined.
    pub fn at(path: &Path) -> Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(metadata.file_type()))),
            Err(e) if is_absence(&e) => Ok(None),
            Err(e) => Err(Error::of(path, "examine")(e)),
        }
    }
}

/// Refuses to write a file where something else than a regular file is: a pipe or a device would vanish, and a link would
/// be replaced instead of what it leads to.
pub(crate) fn check_target(path: &Path) -> Result<()> {
    match PlaceKind::at(path)? {
        None | Some(PlaceKind::File) => Ok(()),
        Some(kind) => Err(Error::Special { path: path.into(), kind }),
    }
}

/// Checks, before any work, that nothing stands in the way of the file `path`: its folder is there, and nothing of that name,
/// or, to be replaced, a regular file.
///
/// # Errors
/// [`Error::Exists`] and [`Error::Special`] when something else is there; [`Error::File`] when its folder is missing.
pub fn check_output(path: &Path, if_exists: IfExists) -> Result<()> {
    match PlaceKind::at(path)? {
        Some(PlaceKind::File | PlaceKind::Folder) if if_exists == IfExists::Refuse => {
            return Err(Error::Exists { path: path.into() });
        }
        _ => check_target(path)?,
    }
    std::fs::metadata(directory_of(path)).map_err(Error::of(path, "create")).map(|_| ())
}

/// Opens a regular file for reading. Pipes and devices are refused before they could block, also where the name comes to mean
/// one while it is opened.
///
/// # Errors
/// [`Error::Special`] when it is something else than a regular file; [`Error::File`] when it cannot be opened.
pub fn open_regular(path: &Path) -> Result<(File, Metadata)> {
    let failed = |e| Error::of(path, "open")(e);
    let check = |metadata: &Metadata| match PlaceKind::of(metadata.file_type()) {
        PlaceKind::File => Ok(()),
        kind => Err(Error::Special { path: path.into(), kind }),
    };
    check(&std::fs::metadata(path).map_err(failed)?)?;
    let mut how = OpenOptions::new();
    how.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        how.custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0));
    }
    let file = how.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    check(&metadata)?;
    Ok((file, metadata))
}

/// Whether two paths are the same file or folder, or would be once they are written: through links, `.` and `..`. Where
/// neither is there yet, their names are compared letter by letter, also on file systems that do not tell `X` from `x`.
///
/// ```
/// use causalcone_files::is_same_place;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("x");
/// let other = directory.path().join("../").join(directory.path().file_name().unwrap()).join("x");
/// assert!(is_same_place(&path, &other)?);
/// assert!(!is_same_place(&path, &directory.path().join("y"))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::File`] when one cannot be examined, such as in a folder that is missing.
pub fn is_same_place(one: &Path, other: &Path) -> Result<bool> {
    Ok(place(one)? == place(other)?)
}

/// What makes a place that place.
#[derive(PartialEq, Eq)]
enum Place {
    /// Device and number of what is there.
    There(u64, u64),
    /// A name that is free, in a folder whose links are resolved.
    Free(PathBuf),
}

fn place(path: &Path) -> Result<Place> {
    let failed = |e| Error::of(path, "examine")(e);
    match std::fs::metadata(path) {
        Ok(metadata) => match number_of(&metadata) {
            Some((device, file)) => Ok(Place::There(device, file)),
            None => Ok(Place::Free(path.canonicalize().map_err(failed)?)),
        },
        Err(e) if is_absence(&e) => {
            let folder = directory_of(path).canonicalize().map_err(failed)?;
            Ok(Place::Free(folder.join(path.file_name().unwrap_or_default())))
        }
        Err(e) => Err(failed(e)),
    }
}

/// How many bytes this user may still write to the disk that `path` is on; `None` where the system does not tell.
#[must_use]
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let disk = rustix::fs::statvfs(path).ok()?;
        disk.f_bavail.checked_mul(disk.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// What changes whenever the content of a file may have changed: its size, the time of its last change, and on Unix its number
/// on the disk and the time at which its size, number or content last changed, which no program can set. `None` where the
/// system does not tell times.
#[must_use]
pub fn stamp(metadata: &Metadata) -> Option<String> {
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    // Nanoseconds as a text: they do not fit a JSON number everywhere.
    let stamp = format!("{} bytes, {} ns", metadata.len(), modified.as_nanos());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let (file, changed) = (metadata.ino(), (metadata.ctime(), metadata.ctime_nsec()));
        Some(format!("{stamp}, file {file}, changed {}.{:09}", changed.0, changed.1))
    }
    #[cfg(not(unix))]
    Some(stamp)
}

/// The device and number of a file, where the system has such.
pub(crate) fn number_of(metadata: &Metadata) -> Option<(u64, u64)> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}

fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_in_the_current_directory() {
        assert_eq!(directory_of(Path::new("f")), Path::new("."));
        assert_eq!(directory_of(Path::new("a/f")), Path::new("a"));
        assert_eq!(directory_of(Path::new("/f")), Path::new("/"));
    }

    #[cfg(unix)]
    #[test]
    fn places_are_compared_by_what_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("x"), "").unwrap();
        std::fs::hard_link(at("x"), at("same")).unwrap();
        std::os::unix::fs::symlink(at("x"), at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("folder"), at("other")).unwrap();
        let is_same = |one: &str, other: &str| is_same_place(&at(one), &at(other)).unwrap();
        for other in ["x", "./x", "folder/../x", "same", "link"] {
            assert!(is_same("x", other), "{other}");
        }
        assert!(!is_same("x", "y"));
        // Neither is there yet.
        assert!(is_same("folder/new", "other/new"));
        assert!(!is_same("folder/new", "other/old"));
        assert!(is_same_place(&at("x"), &at("missing/x")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_no_target() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(check_target(&at("nothing")).is_ok());
        std::fs::write(at("file"), "").unwrap();
        assert!(check_target(&at("file")).is_ok());
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        let kind = |path: &Path| match check_target(path) {
            Err(Error::Special { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(kind(&at("link")), PlaceKind::Link);
        assert_eq!(kind(directory.path()), PlaceKind::Folder);
        assert_eq!(kind(Path::new("/dev/null")), PlaceKind::Device);
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(kind(&at("socket")), PlaceKind::Socket);
    }
}
