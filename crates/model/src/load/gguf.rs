//! A model in a GGUF file, or in the parts of a split one.

use super::Parts;
use crate::chat::ChatTemplate;
use crate::file::keys::Keys;
use crate::file::{Precision, Weights, gguf, split};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use std::path::{Path, PathBuf};

pub(super) fn load(path: &Path, precision: Precision) -> Result<Parts> {
    let parts = split::read(path)?;
    let (metadata, files) = (&parts.metadata, parts.paths());
    // The metadata is in the first part, whichever was named.
    let path = files.first().map_or(path, PathBuf::as_path);
    let keys = Keys::from_gguf(path, metadata);
    let format = families::for_gguf(&keys)?;
    let weights = Weights::from_parts(parts.files)?.keeping(precision);
    let config = format.config(&keys, &weights)?;
    let vocab = config.vocab;
    // The two take about as long, and neither needs the other.
    let (decoder, tokenizer) =
        rayon::join(|| format.load(config, &weights), || Tokenizer::from_gguf(path, metadata));
    let tokenizer = tokenizer?;
    if let Some(tokenizer) = tokenizer.as_ref().filter(|t| t.len() != vocab) {
        let problem = format!("{} tokens, where the embedding has {vocab} rows", tokenizer.len());
        return Err(Error::file(path, "tokenizer.ggml.tokens", problem));
    }
    let decoder = decoder?;
    precision.check(&weights, path)?;
    let chat_template = metadata.iter().find(|(key, _)| key == "tokenizer.chat_template");
    let chat_template = match chat_template {
        Some((_, gguf::Value::Text(source))) => Some(ChatTemplate::new(source.as_str())?),
        Some(_) => return Err(Error::file(path, "tokenizer.chat_template", "is not a text")),
        None => None,
    };
    let ends = ends::of_gguf(path, metadata, tokenizer.as_ref(), vocab)?;
    Ok(Parts { files, decoder, tokenizer, chat_template, ends })
}
