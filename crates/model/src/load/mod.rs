//! From the files of a model to its parts: what they are called, what belongs together, and what each holds.
//!
//! [`load`] reads what [`store::find`](crate::store::find) found: `gguf` a single file, `directory` a folder in Hugging
//! Face's layout.

mod directory;
mod gguf;
mod lazy;
mod options;
mod recognise;
mod size;
mod weight_files;

pub(crate) use lazy::{LazyDecoder, Outline};
pub use options::LoadOptions;
pub use size::Footprint;

use crate::chat::ChatTemplate;
use crate::file::keys::KeyReport;
use crate::store::Located;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What a model is made of.
pub(crate) struct Parts {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) decoder: LazyDecoder,
    pub(crate) tokenizer: Deferred<Option<Tokenizer>>,
    pub(crate) chat_template: Deferred<Option<ChatTemplate>>,
    pub(crate) ends: Deferred<Vec<u32>>,
    pub(crate) report: KeyReport,
}

/// A part that only some commands need, or what is wrong with it: those commands say so, and all others work.
pub(crate) type Deferred<T> = Result<T, String>;

/// Keeps what is wrong with a part for the commands that need it.
pub(crate) fn deferred<T>(part: Result<T>) -> Deferred<T> {
    part.map_err(|error| error.to_string())
}

/// Opens the model that was found, and reads its weights if `now` says so.
pub(crate) fn load(located: Located, options: &LoadOptions, now: bool) -> Result<Parts> {
    match located {
        Located::Gguf(path) => gguf::load(&path, options, now),
        Located::Directory(path) => directory::load(&path, options, now),
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
