//! Paths of a model's files: whether something is there, and that it stays in its folder.

use crate::{Error, Result};
use std::path::Path;

/// Whether there is something of that name, be it a link that leads nowhere.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Checks that a file, links followed, stays in its folder, or in the blobs of the Hugging Face
/// cache the folder is a snapshot of.
pub(crate) fn inside(folder: &Path, file: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::io(path, "open", source));
    let (real_folder, real_file) = (real(folder)?, real(file)?);
    let holder = real_file.parent();
    let blobs = real_folder.parent().and_then(Path::parent).map(|repository| repository.join("blobs"));
    if holder == Some(real_folder.as_path()) || (blobs.is_some() && holder == blobs.as_deref()) {
        return Ok(());
    }
    Err(Error::file(file, "path", format!("leads out of its folder, to {}", real_file.display())))
}
