//! Downloads from the Hugging Face Hub, into Hugging Face's own cache. Only with the `hub` feature.

use super::located::Located;
use crate::{Error, Result};
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// Fetches what a model directory needs: configuration, weights in one file or in shards, and the
/// tokenizer if there is one. Files that are in the cache already are not fetched again.
pub(super) fn download(repository: &str) -> Result<Located> {
    let failed = |problem: String| Error::Fetch {
        what: repository.into(),
        problem,
        hint: "check the name and the network; models behind a licence need a token in HF_TOKEN".into(),
    };
    let api = ApiBuilder::from_env().with_progress(false).build().map_err(|e| failed(e.to_string()))?;
    let files = api.model(repository.to_owned());
    let config = files.get("config.json").map_err(|e| failed(e.to_string()))?;
    if files.get("model.safetensors").is_err() {
        let of_safetensors = shards(&files, "model.safetensors.index.json");
        // Older repositories have only what torch.save wrote.
        if of_safetensors.is_err() && files.get("pytorch_model.bin").is_err() {
            let of_torch = shards(&files, "pytorch_model.bin.index.json");
            of_torch.or(of_safetensors).map_err(failed)?;
        }
    }
    // A model without a tokenizer.json runs on token ids.
    let _ = files.get("tokenizer.json");
    Ok(Located::Directory(config.parent().unwrap_or(Path::new(".")).into()))
}

/// Fetches the shards that an index of weights lists.
fn shards(files: &ApiRepo, index: &str) -> Result<(), String> {
    let index = files.get(index).map_err(|e| e.to_string())?;
    let text = std::fs::read(index).map_err(|e| e.to_string())?;
    let index = crate::file::json::parse(&text).map_err(|e| e.to_string())?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or("the index of the weights has no weight_map")?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    names.into_iter().try_for_each(|name| files.get(name).map(|_| ()).map_err(|e| e.to_string()))
}
