//! A model in a folder, in Hugging Face's layout: config.json, weights, a tokenizer.

use super::lazy::LazyDecoder;
use super::options::LoadOptions;
use super::parts::{Parts, beside, deferred};
use super::{recognise, weight_files};
use crate::file::DataFile;
use crate::file::keys::Keys;
use crate::paths::{inside, is_there};
use crate::tokenizer::{Tokenizer, TokenizerFiles};
use crate::{Error, Result, eos_ids, families};
use causalcone_chat::ChatTemplate;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) fn load(folder: &Path, options: &LoadOptions, now: bool) -> Result<Parts> {
    recognise::folder(folder)?;
    let config_path = folder.join("config.json");
    let text = recognise::open(folder, &config_path)?.read_all(4 << 20)?;
    let keys = Keys::from_json(&config_path, &text)?.with_policy(options.keys.clone());
    let quantised = recognise::quantised(&keys, folder);
    let (format, text_keys) = families::for_hugging_face(&keys, quantised.as_deref())?;
    if let Some(method) = quantised {
        return Err(recognise::quantised_error(folder, &method));
    }
    let text_keys = text_keys.with_defaults(format.defaults);
    let (weights, weight_files) = weight_files::read(folder)?;
    recognise::tensors(&weights, folder)?;
    let config = options.apply(format.config(&text_keys, &weights)?);
    let vocab = config.vocab;
    let tokenizer_files = TokenizerFiles::find(folder)?;
    let decoder = LazyDecoder::new(folder, format, config, weights, options.weights)?;
    let tokenizer = beside(&decoder, now, || tokenizer(tokenizer_files.as_ref(), vocab))?;
    let mut files = vec![config_path];
    files.extend(weight_files);
    files.extend(tokenizer_files.iter().flat_map(TokenizerFiles::paths).cloned());
    let chat_template = chat_template(folder).map(|(template, own)| {
        files.extend(own);
        template
    });
    let known = tokenizer.as_ref().ok().and_then(Option::as_ref);
    let eos_ids = eos_ids::of_directory(folder, &keys, known, vocab).map(|(eos_ids, own)| {
        files.extend(own);
        eos_ids
    });
    let (chat_template, eos_ids) = (deferred(chat_template), deferred(eos_ids));
    Ok(Parts { files, decoder, tokenizer, chat_template, eos_ids, report: text_keys.report() })
}

/// The tokenizer, which must not have more tokens than the embedding has rows.
fn tokenizer(files: Option<&TokenizerFiles>, vocab: usize) -> Result<Option<Tokenizer>> {
    let Some(files) = files else { return Ok(None) };
    files.paths().iter().try_for_each(|path| recognise::file(&DataFile::open(path)?))?;
    let tokenizer = files.read()?;
    if let (true, Some(path)) = (tokenizer.len() > vocab, files.paths().first()) {
        let n = tokenizer.len();
        let problem = format!("has {n} tokens, but the model's embedding only {vocab} rows");
        return Err(Error::file(path, "vocabulary", problem));
    }
    Ok(Some(tokenizer))
}

/// The template of a directory, and the file that is its own: chat_template.jinja, else what tokenizer_config.json says.
fn chat_template(folder: &Path) -> Result<(Option<ChatTemplate>, Option<PathBuf>)> {
    let own = folder.join("chat_template.jinja");
    if is_there(&own) {
        inside(folder, &own)?;
        let text = String::from_utf8(DataFile::open(&own)?.read_all(1 << 20)?);
        let text = text.map_err(|e| Error::file(&own, "text", e.to_string()))?;
        return Ok((Some(ChatTemplate::new(text)?), Some(own)));
    }
    let config = folder.join("tokenizer_config.json");
    if !is_there(&config) {
        return Ok((None, None));
    }
    inside(folder, &config)?;
    let keys = Keys::from_json(&config, &DataFile::open(&config)?.read_all(8 << 20)?)?;
    let source = match keys.get("chat_template") {
        None => None,
        Some(Value::String(source)) => Some(source.as_str()),
        // Several by name, of which one is for conversations without tools or documents.
        Some(Value::Array(several)) => {
            let named = several.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
            named.and_then(|one| one.get("template")?.as_str())
        }
        Some(_) => return Err(keys.bad("chat_template", "is neither a text nor a list of templates by name")),
    };
    Ok((source.map(ChatTemplate::new).transpose()?, None))
}
