//! A model in a folder, in Hugging Face's layout: config.json, safetensors, tokenizer.json.

use super::{LoadOptions, Parts, deferred, inside, is_there, recognise};
use crate::chat::ChatTemplate;
use crate::families::Found;
use crate::file::keys::Keys;
use crate::file::{DataFile, Weights, json};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, ends, families};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(super) fn load(folder: &Path, options: &LoadOptions) -> Result<Parts> {
    recognise::folder(folder)?;
    let config_path = folder.join("config.json");
    inside(folder, &config_path)?;
    let config_file = DataFile::open(&config_path)?;
    recognise::file(&config_file)?;
    let keys =
        Keys::from_json(&config_path, &config_file.read_all(4 << 20)?)?.with_policy(options.keys.clone());
    let quantised = recognise::quantised(&keys, folder);
    let Found { format, keys: text_keys } = families::for_hugging_face(&keys, quantised.as_deref())?;
    if let Some(method) = quantised {
        return Err(recognise::quantised_error(folder, &method));
    }
    let text_keys = text_keys.with_defaults(format.defaults());
    let shards = weight_files(folder)?;
    let weights = Weights::from_safetensors(&shards)?.keeping(options.weights);
    recognise::tensors(&weights, folder)?;
    let config = format.config(&text_keys, &weights)?;
    let vocab = config.vocab;
    // How a text begins is in the second.
    let tokenizer_files = TOKENIZER_FILES.map(|name| folder.join(name)).into_iter();
    let tokenizer_files: Vec<PathBuf> =
        tokenizer_files.filter(|file| has_tokenizer(folder) && is_there(file)).collect();
    tokenizer_files.iter().try_for_each(|file| inside(folder, file))?;
    let (decoder, tokenizer) = rayon::join(|| format.load(config, &weights), || tokenizer(folder, vocab));
    let decoder = decoder?;
    options.weights.check(&weights, folder)?;
    let mut files = vec![config_path];
    files.extend(shards);
    files.extend(tokenizer_files);
    let chat_template = chat_template(folder).map(|(template, own)| {
        files.extend(own);
        template
    });
    let tokenizer = deferred(tokenizer);
    let known = tokenizer.as_ref().ok().and_then(Option::as_ref);
    let ends = ends::of_directory(folder, &keys, known, vocab).map(|(ends, own)| {
        files.extend(own);
        ends
    });
    let (chat_template, ends) = (deferred(chat_template), deferred(ends));
    Ok(Parts { files, decoder, tokenizer, chat_template, ends, report: text_keys.report() })
}

const TOKENIZER_FILES: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];

fn has_tokenizer(folder: &Path) -> bool {
    is_there(&folder.join(TOKENIZER_FILES[0]))
}

/// The tokenizer, which must not have more tokens than the embedding has rows.
fn tokenizer(folder: &Path, vocab: usize) -> Result<Option<Tokenizer>> {
    if !has_tokenizer(folder) {
        return Ok(None);
    }
    let [path, config] = TOKENIZER_FILES.map(|name| folder.join(name));
    for file in [&path, &config].into_iter().filter(|file| is_there(file)) {
        recognise::file(&DataFile::open(file)?)?;
    }
    let tokenizer = Tokenizer::from_json(&path)?;
    if tokenizer.len() > vocab {
        let n = tokenizer.len();
        let problem = format!("has {n} tokens, but the model's embedding only {vocab} rows");
        return Err(Error::file(&path, "vocabulary", problem));
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
