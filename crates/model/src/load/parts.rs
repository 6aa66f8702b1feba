//! The parts of a model that was opened, and what is kept of one that cannot be used.

use super::lazy::LazyDecoder;
use crate::Result;
use crate::file::keys::KeyReport;
use crate::tokenizer::Tokenizer;
use causalcone_chat::ChatTemplate;
use std::path::PathBuf;

/// What a model is made of.
pub(crate) struct Parts {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) decoder: LazyDecoder,
    pub(crate) tokenizer: Deferred<Option<Tokenizer>>,
    pub(crate) chat_template: Deferred<Option<ChatTemplate>>,
    pub(crate) eos_ids: Deferred<Vec<u32>>,
    pub(crate) report: KeyReport,
}

/// A part that only some commands need, or what is wrong with it: those commands say so, and all others work.
pub(crate) type Deferred<T> = Result<T, String>;

/// Keeps what is wrong with a part for the commands that need it.
pub(crate) fn deferred<T>(part: Result<T>) -> Deferred<T> {
    part.map_err(|error| error.to_string())
}

/// Reads the weights of a decoder if `now` says so, and meanwhile what else takes time: the tokenizer.
pub(crate) fn beside<T: Send>(
    decoder: &LazyDecoder,
    now: bool,
    other: impl FnOnce() -> Result<T> + Send,
) -> Result<Deferred<T>> {
    let weights = || if now { decoder.get().map(|_| ()) } else { Ok(()) };
    let (loaded, other) = rayon::join(weights, other);
    loaded.map(|()| deferred(other))
}
