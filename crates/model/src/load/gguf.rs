//! A model in one GGUF file.

use super::{LoadOptions, Parts, deferred, recognise};
use crate::chat::ChatTemplate;
use crate::file::keys::Keys;
use crate::file::{DataFile, Weights, gguf};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use std::path::{Path, PathBuf};

pub(super) fn load(path: PathBuf, options: &LoadOptions) -> Result<Parts> {
    let file = DataFile::open(&path)?;
    recognise::file(&file)?;
    let header = gguf::read(&file)?;
    let keys = Keys::from_gguf(&path, &header.metadata).with_policy(options.keys.clone());
    recognise::gguf(&keys)?;
    let format = families::for_gguf(&keys)?;
    let keys = keys.with_defaults(format.defaults());
    let weights = Weights::from_gguf(file, &header)?.keeping(options.weights);
    let config = format.config(&keys, &weights)?;
    let vocab = config.vocab;
    // The two take about as long, and neither needs the other.
    let (decoder, tokenizer) =
        rayon::join(|| format.load(config, &weights), || tokenizer(&path, &header.metadata, vocab));
    let decoder = decoder?;
    options.weights.check(&weights, &path)?;
    let tokenizer = deferred(tokenizer);
    let known = tokenizer.as_ref().ok().and_then(Option::as_ref);
    let ends = deferred(ends::of_gguf(&path, &header.metadata, known, vocab));
    let chat_template = deferred(chat_template(&path, &header.metadata));
    Ok(Parts { files: vec![path], decoder, tokenizer, chat_template, ends, report: keys.report() })
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
        Some((_, gguf::Value::Text(source))) => ChatTemplate::new(source.as_str()).map(Some),
        Some(_) => Err(Error::file(path, "tokenizer.chat_template", "is not a text")),
        None => Ok(None),
    }
}
