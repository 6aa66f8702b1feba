//! From the files of a model to its parts: what they are called, what belongs together, and what each holds.
//!
//! [`load`] reads what [`store::find`](crate::store::find) found: `gguf` a single file, `directory` a folder in Hugging
//! Face's layout.

mod directory;
mod gguf;
mod lazy;
mod options;
mod parts;
mod recognise;
mod size;
mod weight_files;

pub(crate) use lazy::LazyDecoder;
pub use options::LoadOptions;
pub(crate) use parts::{Deferred, Parts};
pub use size::Footprint;
pub(crate) use size::Outline;

use crate::Result;
use crate::store::Located;

/// Opens the model that was found, and reads its weights if `now` says so.
pub(crate) fn load(located: Located, options: &LoadOptions, now: bool) -> Result<Parts> {
    match located {
        Located::Gguf(path) => gguf::load(&path, options, now),
        Located::Directory(path) => directory::load(&path, options, now),
    }
}
