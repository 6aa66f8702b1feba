//! From the files of a model to its parts: what they are called, what belongs together, and what each holds.
//!
//! [`load`] reads what [`store::find`](crate::store::find) found: `gguf` a single file, `directory` a folder in Hugging
//! Face's layout.

mod directory;
mod gguf;
mod lazy;
mod size;

pub(crate) use lazy::{LazyDecoder, Outline};
pub use size::Footprint;

use crate::chat::ChatTemplate;
use crate::file::Precision;
use crate::store::Located;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What a model is made of.
pub(crate) struct Parts {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) decoder: LazyDecoder,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) chat_template: Option<ChatTemplate>,
    pub(crate) ends: Vec<u32>,
}

/// Opens the model that was found, and reads its weights if `now` says so.
pub(crate) fn load(located: Located, precision: Precision, now: bool) -> Result<Parts> {
    match located {
        Located::Gguf(path) => gguf::load(path, precision, now),
        Located::Directory(path) => directory::load(&path, precision, now),
    }
}

/// Reads the weights of a decoder if `now` says so, and meanwhile what else takes time: the tokenizer.
pub(crate) fn beside<T: Send>(
    decoder: &LazyDecoder,
    now: bool,
    other: impl FnOnce() -> Result<T> + Send,
) -> (Result<()>, Result<T>) {
    rayon::join(|| if now { decoder.get().map(|_| ()) } else { Ok(()) }, other)
}

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
