//! A model in a GGUF file, or in the parts of a split one.

use super::lazy::LazyDecoder;
use super::options::LoadOptions;
use super::parts::{Parts, beside, deferred};
use super::recognise;
use crate::file::keys::Keys;
use crate::file::{DataFile, Weights, gguf, split};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, eos_ids, families};
use causalcone_chat::ChatTemplate;
use std::path::{Path, PathBuf};

pub(super) fn load(path: &Path, options: &LoadOptions, now: bool) -> Result<Parts> {
    recognise::file(&DataFile::open(path)?)?;
    let parts = split::read(path)?;
    let (metadata, files) = (&parts.metadata, parts.paths());
    // The metadata is in the first part, whichever was named.
    let path = files.first().map_or(path, PathBuf::as_path);
    let keys = Keys::from_gguf(path, metadata).with_policy(options.keys.clone());
    recognise::gguf(&keys)?;
    let format = families::for_gguf(&keys)?;
    let keys = keys.with_defaults(format.defaults);
    let weights = Weights::from_parts(parts.files)?;
    let config = options.apply(format.config(&keys, &weights)?);
    let vocab = config.vocab;
    let decoder = LazyDecoder::new(path, format, config, weights, options.weights)?;
    let tokenizer = beside(&decoder, now, || tokenizer(path, metadata, vocab))?;
    let known = tokenizer.as_ref().ok().and_then(Option::as_ref);
    let eos_ids = deferred(eos_ids::of_gguf(path, metadata, known, vocab));
    let chat_template = deferred(chat_template(path, metadata));
    Ok(Parts { files, decoder, tokenizer, chat_template, eos_ids, report: keys.report() })
}

/// The tokenizer, which must have as many tokens as the embedding has rows.
fn tokenizer(path: &Path, metadata: &[(String, gguf::Value)], vocab: usize) -> Result<Option<Tokenizer>> {
    let tokenizer = Tokenizer::from_gguf(path, metadata)?;
    if let Some(tokenizer) = tokenizer.as_ref().filter(|tokenizer| tokenizer.len() != vocab) {
        let problem = format!("{} tokens, but the embedding has {vocab} rows", tokenizer.len());
        return Err(Error::file(path, "tokenizer.ggml.tokens", problem));
    }
    Ok(tokenizer)
}

fn chat_template(path: &Path, metadata: &[(String, gguf::Value)]) -> Result<Option<ChatTemplate>> {
    match metadata.iter().find(|(key, _)| key == "tokenizer.chat_template") {
        Some((_, gguf::Value::Text(source))) => Ok(Some(ChatTemplate::new(source.as_str())?)),
        Some(_) => Err(Error::file(path, "tokenizer.chat_template", "is not a text")),
        None => Ok(None),
    }
}
