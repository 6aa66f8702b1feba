//! Model families: each says what its configuration and its tensors mean for the one decoder.
//!
//! A [`Family`] is one file with, for each format it comes in, a function from keys to
//! [`Config`](crate::config::Config) and a table of [`Names`](assemble::Names); [`FAMILIES`] lists them. What many
//! configurations have in common is read in `hugging_face` and `gguf`, and `assemble` makes a decoder of any of them.
//! docs/add-a-model.md goes through one.

mod assemble;
mod defaults;
mod family;
mod gemma;
mod gguf;
mod gpt2;
mod hugging_face;
mod llama;
mod neox;
mod olmo;
mod phi3;
mod qwen;
mod rope;
mod sizes;

pub(crate) use family::Format;

use crate::file::keys::Keys;
use crate::{Error, Result};
use family::Family;

const FAMILIES: [&Family; 12] = [
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &gpt2::GPT2,
    &neox::NEOX,
    &llama::LLAMA,
    &llama::MISTRAL,
    &olmo::OLMO,
    &olmo::OLMO2,
    &phi3::PHI3,
    &qwen::QWEN2,
    &qwen::QWEN3,
];

/// The names of the supported families.
pub(crate) fn names() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// The format that fits a config.json, and the keys of its language model; `quantised` is the method by which the weights
/// are quantised, for the error about an architecture that is not supported.
pub(crate) fn for_hugging_face(keys: &Keys, quantised: Option<&str>) -> Result<(&'static Format, Keys)> {
    let also =
        quantised.map_or_else(String::new, |method| format!(" (and its weights are quantised: {method})"));
    let unsupported = |given: &str, supported| {
        Error::unsupported(keys.path(), "architecture", &format!("{given}{also}"), supported)
    };
    let name = keys.text("model_type")?;
    let list = || keys.get("architectures").map_or_else(String::new, |list| format!(", {list}"));
    if name == gemma::MULTIMODAL.name {
        return multimodal(keys, &gemma::MULTIMODAL);
    }
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.ok_or_else(|| unsupported(&format!("{name}{}", list()), names()))?;
    has_architecture(keys, family).map_err(|list| unsupported(&list, family.architectures.join(", ")))?;
    Ok((&family.hugging_face, keys.clone()))
}

/// The language model of a folder that also has towers for images. Its keys are in `text_config`.
fn multimodal(keys: &Keys, family: &'static Family) -> Result<(&'static Format, Keys)> {
    let unsupported =
        |given: &str, supported| Error::unsupported(keys.path(), "architecture", given, supported);
    has_architecture(keys, family).map_err(|list| unsupported(&list, family.architectures.join(", ")))?;
    let text = keys.object("text_config")?.ok_or_else(|| keys.missing("text_config"))?;
    keys.note("the folder holds a multimodal model: only its language model is loaded");
    Ok((&family.hugging_face, text))
}

/// Checks that every architecture a config.json names is one of the family's; gives back the list otherwise.
fn has_architecture(keys: &Keys, family: &Family) -> Result<(), String> {
    let known = |a: &serde_json::Value| a.as_str().is_some_and(|a| family.architectures.contains(&a));
    match keys.get("architectures") {
        Some(list) if !list.as_array().is_some_and(|list| list.iter().all(known)) => Err(list.to_string()),
        _ => Ok(()),
    }
}

/// The format that fits a GGUF header.
pub(crate) fn for_gguf(keys: &Keys) -> Result<&'static Format> {
    let name = keys.text("general.architecture")?;
    let known: Vec<_> = FAMILIES.iter().filter_map(|family| family.gguf.as_ref()).collect();
    let found = known.iter().find(|(architecture, _)| *architecture == name);
    found.map(|(_, format)| format).ok_or_else(|| {
        let supported: Vec<&str> = known.iter().map(|(architecture, _)| *architecture).collect();
        Error::unsupported(keys.path(), "architecture", name, supported.join(", "))
    })
}
