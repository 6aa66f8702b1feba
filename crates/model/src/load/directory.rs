//! A model in a folder, in Hugging Face's layout: config.json, safetensors, tokenizer.json.

use super::{LazyDecoder, Parts, beside, inside, is_there};
use crate::chat::ChatTemplate;
use crate::file::keys::Keys;
use crate::file::{DataFile, Precision, Weights, json};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn load(folder: &Path, precision: Precision, now: bool) -> Result<Parts> {
    let config_path = folder.join("config.json");
    inside(folder, &config_path)?;
    let keys = Keys::from_json(&config_path, &DataFile::open(&config_path)?.read_all(4 << 20)?)?;
    let format = families::for_hugging_face(&keys)?;
    let shards = weight_files(folder)?;
    let weights = Weights::from_safetensors(&shards)?;
    let config = format.config(&keys, &weights)?;
    let tokenizer_path = folder.join("tokenizer.json");
    let has_tokenizer = is_there(&tokenizer_path);
    // How a text begins is in the second.
    let tokenizer_files = [tokenizer_path.clone(), folder.join("tokenizer_config.json")];
    let tokenizer_files: Vec<PathBuf> =
        tokenizer_files.into_iter().filter(|file| has_tokenizer && is_there(file)).collect();
    tokenizer_files.iter().try_for_each(|file| inside(folder, file))?;
    let decoder = LazyDecoder::new(folder, format, config, weights, precision)?;
    let (loaded, tokenizer) =
        beside(&decoder, now, || has_tokenizer.then(|| Tokenizer::from_json(&tokenizer_path)).transpose());
    let mut files = vec![config_path];
    files.extend(shards);
    files.extend(tokenizer_files);
    loaded?;
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

/// model.safetensors, or the shards its index lists.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let whole = folder.join("model.safetensors");
    if is_there(&whole) {
        return inside(folder, &whole).map(|()| vec![whole]);
    }
    let index_path = folder.join("model.safetensors.index.json");
    if !is_there(&index_path) {
        let has_pickle = folder.join("pytorch_model.bin").exists();
        let why = if has_pickle {
            "; pytorch_model.bin is a pickle, save the model as safetensors instead"
        } else {
            ""
        };
        return Err(Error::file(
            &whole,
            "file",
            format!("is missing, and so is model.safetensors.index.json{why}"),
        ));
    }
    inside(folder, &index_path)?;
    let bad = |field: &str, problem: &str| Error::file(&index_path, field, problem);
    let index = json::parse(&DataFile::open(&index_path)?.read_all(32 << 20)?);
    let index = index.map_err(|e| bad("document", &e.to_string()))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("weight_map", "is missing or no map"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let plain =
            file.as_str().filter(|f| !f.is_empty() && !f.contains(['/', '\\', '\0']) && !f.starts_with('.'));
        names.insert(
            plain.ok_or_else(|| {
                bad(tensor, &format!("{file} is not the plain name of a file in this folder"))
            })?,
        );
    }
    let mut shards = Vec::new();
    for name in names {
        let shard = folder.join(name);
        if !is_there(&shard) {
            return Err(bad("weight_map", &format!("names {name}, which is missing")));
        }
        inside(folder, &shard)?;
        let held: BTreeSet<String> = crate::file::safetensors::entries(&DataFile::open(&shard)?)?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let listed = map.iter().filter(|(_, file)| file.as_str() == Some(name)).map(|(tensor, _)| tensor);
        for tensor in listed.clone() {
            if !held.contains(tensor) {
                return Err(bad(tensor, &format!("should be in {name}, which does not hold it")));
            }
        }
        let listed: BTreeSet<&String> = listed.collect();
        if let Some(extra) = held.iter().find(|tensor| !listed.contains(tensor)) {
            return Err(bad(extra, &format!("is in {name}, where the index does not put it")));
        }
        shards.push(shard);
    }
    if shards.is_empty() {
        return Err(bad("weight_map", "is empty"));
    }
    Ok(shards)
}
