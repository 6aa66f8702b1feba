//! A model in a folder, in Hugging Face's layout: config.json, weights, tokenizer.json.

use super::{Parts, inside, is_there, weight_files};
use crate::chat::ChatTemplate;
use crate::file::keys::Keys;
use crate::file::{DataFile, Precision};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) fn load(folder: &Path, precision: Precision) -> Result<Parts> {
    let config_path = folder.join("config.json");
    inside(folder, &config_path)?;
    let keys = Keys::from_json(&config_path, &DataFile::open(&config_path)?.read_all(4 << 20)?)?;
    let format = families::for_hugging_face(&keys)?;
    let (weights, weight_files) = weight_files::read(folder)?;
    let weights = weights.keeping(precision);
    let config = format.config(&keys, &weights)?;
    let tokenizer_path = folder.join("tokenizer.json");
    let has_tokenizer = is_there(&tokenizer_path);
    // How a text begins is in the second.
    let tokenizer_files = [tokenizer_path.clone(), folder.join("tokenizer_config.json")];
    let tokenizer_files: Vec<PathBuf> =
        tokenizer_files.into_iter().filter(|file| has_tokenizer && is_there(file)).collect();
    tokenizer_files.iter().try_for_each(|file| inside(folder, file))?;
    let (decoder, tokenizer) = rayon::join(
        || format.load(config, &weights),
        || has_tokenizer.then(|| Tokenizer::from_json(&tokenizer_path)).transpose(),
    );
    let mut files = vec![config_path];
    files.extend(weight_files);
    files.extend(tokenizer_files);
    let decoder = decoder?;
    precision.check(&weights, folder)?;
    let (chat_template, of_chat) = chat_template(folder)?;
    files.extend(of_chat);
    let tokenizer = tokenizer?;
    let (ends, of_ends) = ends::of_directory(folder, &keys, tokenizer.as_ref(), decoder.config().vocab)?;
    files.extend(of_ends);
    Ok(Parts { files, decoder, tokenizer, chat_template, ends })
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
