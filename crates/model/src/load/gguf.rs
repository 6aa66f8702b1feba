//! A model in one GGUF file.

use super::{LazyDecoder, Parts, beside};
use crate::chat::ChatTemplate;
use crate::file::keys::Keys;
use crate::file::{DataFile, Precision, Weights, gguf};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use std::path::PathBuf;

pub(super) fn load(path: PathBuf, precision: Precision, now: bool) -> Result<Parts> {
    let file = DataFile::open(&path)?;
    let header = gguf::read(&file)?;
    let keys = Keys::from_gguf(&path, &header.metadata);
    let format = families::for_gguf(&keys)?;
    let weights = Weights::from_gguf(file, &header)?;
    let config = format.config(&keys, &weights)?;
    let vocab = config.vocab;
    let decoder = LazyDecoder::new(&path, format, config, weights, precision);
    let read = || Tokenizer::from_gguf(&path, &header.metadata);
    let (loaded, tokenizer) = match &decoder {
        Ok(decoder) => beside(decoder, now, read),
        // A vocabulary that contradicts the configuration explains tensors that do.
        Err(_) => (Ok(()), read()),
    };
    let tokenizer = tokenizer?;
    if let Some(tokenizer) = tokenizer.as_ref().filter(|t| t.len() != vocab) {
        let problem = format!("{} tokens, where the embedding has {vocab} rows", tokenizer.len());
        return Err(Error::file(&path, "tokenizer.ggml.tokens", problem));
    }
    let decoder = decoder?;
    loaded?;
    let chat_template = header.metadata.iter().find(|(key, _)| key == "tokenizer.chat_template");
    let chat_template = match chat_template {
        Some((_, gguf::Value::Text(source))) => Some(ChatTemplate::new(source.as_str())?),
        Some(_) => return Err(Error::file(&path, "tokenizer.chat_template", "is not a text")),
        None => None,
    };
    let ends = ends::of_gguf(&path, &header.metadata, tokenizer.as_ref(), vocab)?;
    Ok(Parts { files: vec![path], decoder, tokenizer, chat_template, ends })
}
