//! Hostile files, and the watch that is kept over whoever reads them.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub mod folder;
pub mod gguf;
#[path = "../../../chat/tests/common/mod.rs"]
mod watch;

use causalcone_model::{Error, Model};
use std::path::Path;
pub use watch::{Random, Verdict, fixture};

/// Writes a file anew, as the next case of a table does. The old one is removed first: ext4 flushes a file to the disk that
/// is truncated and written again, which takes 40 times as long.
pub fn overwrite(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let _ = std::fs::remove_file(&path);
    std::fs::write(path, bytes).expect("a temporary folder takes it");
}

/// Loads a model all of which can be used: what is wrong with its tokenizer, its template or its end-of-text tokens counts
/// as an error, although commands that do not need these would run.
pub fn load(path: &Path) -> causalcone_model::Result<Model> {
    let model = Model::load(path.to_str().expect("a temporary folder with a plain name"))?;
    match model.problems().first() {
        Some(problem) => Err(Error::Part { problem: (*problem).to_owned(), hint: String::new() }),
        None => Ok(model),
    }
}
