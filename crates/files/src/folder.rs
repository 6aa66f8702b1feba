//! Folders that appear whole or not at all.

use crate::disk::{self, DiskFile};
use crate::path::directory_of;
use crate::temporary::Temporary;
use crate::{Error, PlaceKind, Result};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A folder that is being written beside its final place.
///
/// ```
/// use causalcone_files::NewFolder;
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("saved");
/// let new = NewFolder::create(&path)?;
/// new.put("a.json", b"{}")?;
/// assert!(!path.exists());
/// new.place()?;
/// assert_eq!(std::fs::read(path.join("a.json"))?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NewFolder {
    temporary: Temporary,
    path: PathBuf,
}

impl NewFolder {
    /// Begins a folder that will be called `path`. The folder that it will be in must exist.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { temporary: Temporary::folder(directory_of(path))?, path: path.into() })
    }

    /// Writes one file of it.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let failed = |doing| Error::of(&self.path, doing);
        let mut file = DiskFile::create_new(&self.temporary.path().join(name)).map_err(failed("create"))?;
        file.write_all(bytes).map_err(failed("write"))?;
        file.sync().map_err(failed("sync"))
    }

    /// Gives it its name, which must be free or that of an empty folder.
    ///
    /// # Errors
    /// [`Error::Exists`] when it is not; [`Error::File`] when a step fails.
    pub fn place(self) -> Result<()> {
        self.sync()?;
        rename_new(self.temporary.path(), &self.path)?;
        disk::sync_folder(directory_of(&self.path)).map_err(Error::of(&self.path, "sync the directory of"))
    }

    /// Gives it its name in place of a folder that has it, as [`replace_folder`] does.
    ///
    /// # Errors
    /// Those of [`replace_folder`].
    pub fn replace(self, is_ours: impl Fn(&str) -> bool) -> Result<()> {
        self.sync()?;
        replace_folder(self.temporary.path(), &self.path, is_ours)
    }

    fn sync(&self) -> Result<()> {
        disk::sync_folder(self.temporary.path()).map_err(Error::of(&self.path, "sync"))
    }
}

/// Renames the folder `new` to `path`, in place of a folder that has this name, in one step where the file system can. Each
/// entry of the old folder must be one that `is_ours` knows: nothing else is removed.
///
/// # Errors
/// [`Error::Foreign`] when there are others; [`Error::Exists`] when the name is not that of a folder;
/// [`Error::File`] when a step fails. The old folder is as it was then, unless the last step failed, syncing the directory.
pub fn replace_folder(new: &Path, path: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let failed = |e| Error::of(path, "replace")(e);
    match PlaceKind::at(path)? {
        None => rename_new(new, path)?,
        Some(PlaceKind::Folder) => {
            check_entries(path, path, &is_ours)?;
            if disk::exchange(new, path).map_err(failed)? {
                // Something may have been added since the entries were looked at.
                if let Err(error) = check_entries(new, path, &is_ours) {
                    disk::exchange(new, path).map_err(failed)?;
                    return Err(error);
                }
                // It has a temporary name: if it stays, a later process removes it.
                let _ = disk::remove_folder(new);
            } else {
                replace_in_steps(new, path, &is_ours)?;
            }
        }
        Some(_) => return Err(Error::Exists { path: path.into() }),
    }
    disk::sync_folder(directory_of(path)).map_err(Error::of(path, "sync the directory of"))
}

/// The same where the file system cannot exchange two names.
fn replace_in_steps(new: &Path, path: &Path, is_ours: &impl Fn(&str) -> bool) -> Result<()> {
    let failed = |e| Error::of(path, "replace")(e);
    // Not a temporary name: if this process is killed between the two renames, nobody may remove it.
    let mut aside = path.to_path_buf().into_os_string();
    aside.push(".replaced");
    let aside = PathBuf::from(aside);
    // Of a process that was killed after both: the folder that replaced it is there.
    if PlaceKind::at(&aside)? == Some(PlaceKind::Folder) {
        check_entries(&aside, &aside, is_ours)?;
        disk::remove_folder(&aside)?;
    }
    disk::rename(path, &aside).map_err(failed)?;
    // Something may have been added since the entries were looked at.
    let placed = check_entries(&aside, path, is_ours).and_then(|()| disk::rename(new, path).map_err(failed));
    if let Err(error) = placed {
        disk::rename(&aside, path).map_err(failed)?;
        return Err(error);
    }
    disk::remove_folder(&aside)
}

/// Renames a folder to a name that must be free or that of an empty folder.
fn rename_new(new: &Path, path: &Path) -> Result<()> {
    disk::rename(new, path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            Error::Exists { path: path.into() }
        }
        _ => Error::of(path, "rename into place")(e),
    })
}

/// Checks that a folder holds nothing but entries that `is_ours` knows.
///
/// # Errors
/// [`Error::Foreign`] when it does; [`Error::File`] when it cannot be examined.
pub fn check_folder(folder: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    check_entries(folder, folder, is_ours)
}

/// The same of a folder that errors call `named`.
fn check_entries(folder: &Path, named: &Path, is_ours: impl Fn(&str) -> bool) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::of(named, "examine"))?;
    let mut foreign = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::of(named, "examine"))?.file_name();
        if !name.to_str().is_some_and(&is_ours) {
            foreign.push(name.to_string_lossy().into_owned());
        }
    }
    foreign.sort();
    if foreign.is_empty() { Ok(()) } else { Err(Error::Foreign { folder: named.into(), names: foreign }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn new(path: &Path, content: &str) -> NewFolder {
        let new = NewFolder::create(path).unwrap();
        new.put("a", content.as_bytes()).unwrap();
        new
    }

    fn count(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn is_replaced_in_steps_also_after_a_kill_between_them() {
        let directory = tempfile::tempdir().unwrap();
        let (path, next) = (directory.path().join("f"), directory.path().join("n"));
        let is_ours = |name: &str| name == "a";
        new(&path, "first").place().unwrap();
        new(&directory.path().join("f.replaced"), "zeroth").place().unwrap();
        new(&next, "second").place().unwrap();
        replace_in_steps(&next, &path, &is_ours).unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"second");
        assert_eq!(count(directory.path()), 1);
        fs::write(path.join("notes.txt"), "precious").unwrap();
        new(&next, "third").place().unwrap();
        let error = replace_in_steps(&next, &path, &is_ours).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!((count(&path), count(directory.path())), (2, 2));
    }

    #[test]
    fn is_placed_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        new(&path, "first").place().unwrap();
        let error = new(&path, "second").place().unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(path.join("a")).unwrap(), b"first");
        let (empty, file) = (directory.path().join("empty"), directory.path().join("file"));
        fs::create_dir(&empty).unwrap();
        new(&empty, "third").place().unwrap();
        fs::write(&file, "precious").unwrap();
        let error = new(&file, "fourth").place().unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert_eq!(count(directory.path()), 3);
    }

    #[test]
    fn replaces_only_what_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        new(&path, "first").replace(|name| name == "a").unwrap();
        new(&path, "second").replace(|name| name == "a").unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"second");
        fs::create_dir(path.join(".git")).unwrap();
        fs::write(path.join("notes.txt"), "precious").unwrap();
        let error = new(&path, "third").replace(|name| name == "a").unwrap_err();
        let message = error.to_string();
        assert!(message.ends_with("did not write: \".git\", \"notes.txt\""), "{message}");
        assert_eq!(fs::read(path.join("a")).unwrap(), b"second");
        assert_eq!((count(&path), count(directory.path())), (3, 1));
    }
}
