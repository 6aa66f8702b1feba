//! The tokens that end a text: chat models have one for the end of a turn besides the end of a text.

use crate::file::keys::Keys;
use crate::file::{DataFile, gguf};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, paths};
use serde_json::Value;
use std::path::{Path, PathBuf};

const GENERATION: &str = "generation_config.json";
const KEY: &str = "eos_token_id";
/// More than any model has, and few enough to look through for every token.
const MOST: usize = 64;

/// Those of a GGUF file: end of text, of turn and of message.
pub(crate) fn of_gguf(
    path: &Path,
    metadata: &[(String, gguf::Value)],
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
) -> Result<Vec<u32>> {
    let mut eos_ids: Vec<u32> = tokenizer.and_then(Tokenizer::eos).into_iter().collect();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        match metadata.iter().find(|(name, _)| name == key) {
            None => {}
            Some((_, gguf::Value::Unsigned(id, _))) => eos_ids.push(inside(*id, vocab, path, key)?),
            Some((_, other)) => return Err(Error::file(path, key, format!("{other} is no token id"))),
        }
    }
    eos_ids.sort_unstable();
    eos_ids.dedup();
    Ok(eos_ids)
}

/// Those of a directory, as transformers finds them: what generation_config.json says, else config.json, else the
/// tokenizer's. Also the first of these files, where it says something.
pub(crate) fn of_directory(
    folder: &Path,
    config: &Keys,
    tokenizer: Option<&Tokenizer>,
    vocab: usize,
) -> Result<(Vec<u32>, Option<PathBuf>)> {
    let path = folder.join(GENERATION);
    if paths::is_there(&path) {
        paths::inside(folder, &path)?;
        let keys = Keys::from_json(&path, &DataFile::open(&path)?.read_all(1 << 20)?)?;
        if let Some(eos_ids) = listed(&keys, &path, vocab)? {
            return Ok((eos_ids, Some(path)));
        }
    }
    let of_config = listed(config, &folder.join("config.json"), vocab)?;
    let of_tokenizer = || tokenizer.and_then(Tokenizer::eos).into_iter().collect();
    Ok((of_config.unwrap_or_else(of_tokenizer), None))
}

/// An id or a list of them.
fn listed(keys: &Keys, path: &Path, vocab: usize) -> Result<Option<Vec<u32>>> {
    let all = match keys.get(KEY) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(several)) => several.as_slice(),
        Some(one) => std::slice::from_ref(one),
    };
    if all.len() > MOST {
        return Err(Error::file(path, KEY, format!("{} ids are more than {MOST}", all.len())));
    }
    let id = |id: &Value| match id.as_u64() {
        Some(id) => inside(id, vocab, path, KEY),
        None => Err(Error::file(path, KEY, format!("{id} is no token id"))),
    };
    all.iter().map(id).collect::<Result<_>>().map(Some)
}

fn inside(id: u64, vocab: usize, path: &Path, key: &str) -> Result<u32> {
    let found = u32::try_from(id).ok().filter(|id| (*id as usize) < vocab);
    found.ok_or_else(|| {
        Error::file(
            path,
            key,
            format!("id {id} is outside the vocabulary: ids go from 0 to {}", vocab.saturating_sub(1)),
        )
    })
}
