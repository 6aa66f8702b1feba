//! What a file or folder is, found out before anything is parsed.
//!
//! People point at what they have: a Git LFS pointer, an error page saved as a model, an adapter, a quantised repository.
//! A parser would fail on these somewhere inside. This module names what is there and the next thing to do.

use crate::error::first_few;
use crate::file::keys::Keys;
use crate::file::{DataFile, Weights};
use crate::paths::{inside, is_there};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Names of files that a message shows.
const SHOWN: usize = 4;

/// Opens a file of a model's folder. Refuses one that leads out of it, or is no model file at all.
pub(super) fn open(folder: &Path, path: &Path) -> Result<DataFile> {
    inside(folder, path)?;
    let found = DataFile::open(path)?;
    file(&found)?;
    Ok(found)
}

/// Refuses a file that is no model file at all: an empty one, a Git LFS pointer, a web page, an archive.
pub(super) fn file(file: &DataFile) -> Result<()> {
    const START: usize = 256;
    let mut start = vec![0; usize::try_from(file.len()).unwrap_or(START).min(START)];
    file.read_at(&mut start, 0)?;
    let is = |what: &str, hint: &str| Err(Error::recognised(file.path(), what, hint));
    let text = String::from_utf8_lossy(&start).trim_start_matches('\u{feff}').trim_start().to_lowercase();
    if start.is_empty() {
        return is("an empty file", "download it again");
    }
    if text.starts_with("version https://git-lfs") {
        let hint = "run `git lfs install` and `git lfs pull` in the repository, or download the file itself";
        return is("a Git LFS pointer, not the file it points to", hint);
    }
    if ["<!doctype html", "<html", "<?xml"].iter().any(|tag| text.starts_with(tag)) {
        let hint = "the download saved an error or login page: download the file itself, with a token if the model needs one";
        return is("a web page, not a model file", hint);
    }
    if text.starts_with("version https://") {
        return is("a pointer file, not the file it points to", "download the file itself");
    }
    let name = file.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let begins = |magics: &[&[u8]]| magics.iter().any(|magic| start.starts_with(magic));
    let is_zip = begins(&[b"PK\x03\x04"]) && !name.ends_with(".bin") && !name.ends_with(".pt");
    if is_zip || begins(&[b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"BZh"]) {
        return is("an archive", "unpack it and name the folder or file inside");
    }
    if begins(&[b"ggjt", b"ggla", b"ggmf", b"lmgg", b"tjgg", b"fmgg"]) {
        let hint = "convert it with llama.cpp's convert scripts, or download a .gguf of the model";
        return is("a GGML file from before August 2023, the format before GGUF", hint);
    }
    if name.ends_with(".safetensors") && start.starts_with(b"GGUF") {
        return is("a GGUF file under another name", "rename it so that it ends in .gguf");
    }
    if name.ends_with(".gguf") && start.get(8) == Some(&b'{') {
        let hint = "rename it to model.safetensors, beside its config.json";
        return is("a safetensors file under another name", hint);
    }
    Ok(())
}

/// Refuses a folder that is something else than a language model in Hugging Face's layout.
pub(super) fn folder(folder: &Path) -> Result<()> {
    let has = |name: &str| is_there(&folder.join(name));
    let is = |what: &str, hint: &str| Err(Error::recognised(folder, what, hint));
    if has("adapter_config.json") {
        let base = text_in(&folder.join("adapter_config.json"), "base_model_name_or_path");
        let base = base.map_or_else(|| "an unnamed base model".to_owned(), |name| format!("{name:?}"));
        let hint = "merge it first (peft: model.merge_and_unload(), then save_pretrained) and load the merged folder";
        if !has("config.json") {
            return is(&format!("a PEFT adapter for {base}, not a whole model"), hint);
        }
        // transformers with peft would apply the adapter; leaving it out would be another model.
        let without =
            "to load the model without the adapter, move adapter_config.json and the adapter's weights away";
        let what = format!("a model with a PEFT adapter for {base} beside its weights");
        return is(&what, &format!("{hint}; {without}"));
    }
    if has("model_index.json") {
        let hint = "only language models are supported; a text encoder may be in a folder inside it";
        return is("a diffusers pipeline", hint);
    }
    if has("modules.json") && (has("config_sentence_transformers.json") || has("1_Pooling")) {
        let hint = "only causal language models are supported";
        return is("a sentence-transformers model, which embeds texts", hint);
    }
    if has("config.json") {
        return Ok(());
    }
    let mut names = names_in(folder)?;
    let ggufs: Vec<String> =
        names.iter().filter(|name| name.to_lowercase().ends_with(".gguf")).cloned().collect();
    if let Some(first) = ggufs.first() {
        let hint = format!("name the file: {}", folder.join(first).display());
        return is(&format!("a folder of GGUF files: {}", first_few(&ggufs, SHOWN)), &hint);
    }
    if names.is_empty() {
        return is("an empty folder", "name a folder with config.json and weights, or a .gguf file");
    }
    names.retain(|name| folder.join(name).join("config.json").is_file());
    if let Some(first) = names.first() {
        let hint = format!("name the model: {}", folder.join(first).display());
        return is(&format!("a folder of models: {}", first_few(&names, SHOWN)), &hint);
    }
    if has("params.json") && (has("consolidated.00.pth") || has("consolidated.safetensors")) {
        let hint = "convert it to Hugging Face's layout with transformers' conversion script for its family";
        return is("a checkpoint in its authors' own layout (params.json and consolidated weights)", hint);
    }
    let hint = "a model folder has config.json and its weights; a GGUF model is one file";
    is("a folder without config.json", hint)
}

/// Refuses weights that are quantised in a way that is not read, by what configuration files say of them.
/// Returns the name of the method, where there is one, for an error about something else.
pub(super) fn quantised(keys: &Keys, folder: &Path) -> Option<String> {
    // Each key with the method that is meant where the object itself names none. MLX writes two of them.
    for (key, usual) in [
        ("quantization", "mlx"),
        ("quantization_config", "an unnamed method"),
        ("compression_config", "compressed-tensors"),
    ] {
        let found = keys.get(key).and_then(Value::as_object).filter(|config| !config.is_empty());
        let Some(config) = found else { continue };
        let flags: Vec<&Value> =
            config.iter().filter(|(key, _)| key.contains("load_in_")).map(|(_, on)| on).collect();
        if !flags.is_empty() && flags.iter().all(|on| **on == Value::Bool(false)) {
            // bitsandbytes, switched off.
            continue;
        }
        let method = match config.get("quant_method").and_then(Value::as_str) {
            Some(method) => method,
            None if !flags.is_empty() || config.keys().any(|key| key.starts_with("bnb_")) => "bitsandbytes",
            None => usual,
        };
        let algorithm = ["quant_algo", "fmt", "format"].iter().find_map(|key| config.get(*key));
        let algorithm = algorithm.and_then(Value::as_str).map(|name| format!(", {name}")).unwrap_or_default();
        return Some(format!("{method}{algorithm}, says {key}"));
    }
    // Tools that write a file of their own.
    [("hf_quant_config.json", "modelopt"), ("quantize_config.json", "gptq"), ("quant_config.json", "awq")]
        .into_iter()
        .find(|(file, _)| is_there(&folder.join(file)))
        .map(|(_, method)| method.to_owned())
}

/// The error for weights that are quantised by that method.
pub(super) fn quantised_error(folder: &Path, method: &str) -> Error {
    let what = format!("a quantised model ({method}), and weights quantised so are not read");
    let hint = "use the model's original weights, or a GGUF file of it: GGUF's own quantised types are read";
    Error::recognised(folder, what, hint)
}

/// Refuses tensors that come out of a wrapper, or that a quantisation has packed: by their names.
pub(super) fn tensors(weights: &Weights, folder: &Path) -> Result<()> {
    const PACKED: [(&str, &str); 9] = [
        (".qweight", "gptq or awq"),
        (".qzeros", "gptq or awq"),
        (".g_idx", "gptq"),
        (".weight.absmax", "bitsandbytes"),
        (".weight.quant_map", "bitsandbytes"),
        (".SCB", "bitsandbytes"),
        (".weight_packed", "compressed-tensors"),
        (".weight_scale_inv", "fp8"),
        (".weight_scale", "fp8 or compressed-tensors"),
    ];
    // Every wrapper puts its name before those of all tensors.
    const WRAPPERS: [(&str, &str, &str); 4] = [
        ("_orig_mod.", "torch.compile", "model._orig_mod.state_dict()"),
        ("module.", "torch's DistributedDataParallel", "model.module.state_dict()"),
        ("base_model.model.", "peft", "model.merge_and_unload()"),
        ("pretrained_model.", "trl's value head", "model.pretrained_model"),
    ];
    let names = || weights.entries().map(|entry| entry.name.as_str());
    if let Some((_, method)) = PACKED.iter().find(|(suffix, _)| names().any(|name| name.ends_with(suffix))) {
        return Err(quantised_error(folder, method));
    }
    for (prefix, wrapper, inner) in WRAPPERS {
        let wrapped = names().filter(|name| name.starts_with(prefix)).count();
        if wrapped > 0 && wrapped * 2 >= names().count() {
            let what =
                format!("a checkpoint saved out of {wrapper}: {wrapped} tensors are named \"{prefix}…\"");
            let hint =
                format!("save the model inside it ({inner}), or rename the tensors without \"{prefix}\"");
            return Err(Error::recognised(folder, what, hint));
        }
    }
    Ok(())
}

/// Refuses a GGUF file that is part of a model, or no model: an adapter, a projector of images, an importance matrix.
pub(super) fn gguf(keys: &Keys) -> Result<()> {
    let text = |key: &str| keys.get(key).and_then(Value::as_str);
    let base = text("general.base_model.0.name").map_or_else(String::new, |name| format!(" for {name:?}"));
    let adapter = format!("a LoRA adapter{base}, not a whole model");
    let (what, hint) = match (text("general.type"), text("general.architecture")) {
        (Some("adapter"), _) => (adapter.as_str(), "merge it into its base model first (llama-export-lora)"),
        (Some("mmproj"), _) | (_, Some("clip")) => (
            "an image projector (mmproj), not a language model",
            "name the .gguf of the language model beside it",
        ),
        (Some("imatrix"), _) | (_, Some("imatrix")) => {
            ("an importance matrix, not a model", "name the model's own .gguf")
        }
        (_, Some("controlvector")) => (
            "a control vector, not a model",
            "add it to a model by an edit with value = { file = \"FILE.gguf\" }",
        ),
        _ => return Ok(()),
    };
    Err(Error::recognised(keys.path(), what, hint))
}

/// A text in a small JSON file, where there is one.
fn text_in(path: &Path, key: &str) -> Option<String> {
    let keys = Keys::from_json(path, &DataFile::open(path).ok()?.read_all(1 << 20).ok()?).ok()?;
    keys.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// The names of what a folder holds, sorted; hidden files are left out.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    const MOST: usize = 1 << 12;
    let listed = std::fs::read_dir(folder).map_err(|source| Error::io(folder, "list", source))?;
    let names = listed.take(MOST).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}
