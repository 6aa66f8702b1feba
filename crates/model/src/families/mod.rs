//! Model families: each says what its configuration and its tensors mean for the one decoder.
//!
//! A family is one file with, for each format it comes in, a function from keys to [`Config`] and a table of
//! [`Names`]; [`FAMILIES`] lists them. What many configurations have in common is read in `hugging_face` and
//! `gguf`, and `assemble` makes a decoder of any of them. docs/add-a-model.md goes through one.

mod assemble;
mod defaults;
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

use crate::config::{Config, Kind};
use crate::decoder::Decoder;
use crate::file::keys::{Defaults, Keys};
use crate::file::{Precision, Weights};
use crate::load::Outline;
use crate::{Error, Result};
use assemble::{Names, assemble, outline};

/// One format a family's files come in.
#[derive(Debug)]
pub(crate) struct Format {
    /// Reads a configuration, having read or ignored every key of it. Some formats leave to the tensors what could
    /// stand there: that there are biases, how many tokens there are.
    config: fn(&Keys, &Weights) -> Result<Config>,
    /// What stands in for keys that a file leaves out.
    defaults: Defaults,
    names: Names,
}

impl Format {
    /// What stands in for keys that a file leaves out.
    pub(crate) fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The configuration.
    pub(crate) fn config(&self, keys: &Keys, weights: &Weights) -> Result<Config> {
        (self.config)(keys, weights)
    }

    /// Checks every tensor by its header and counts what the tensors take. Reads no values.
    pub(crate) fn outline(&self, config: &Config, weights: &Weights) -> Result<Outline> {
        outline(config, weights, &self.names)
    }

    /// The decoder, having taken or ignored every tensor, with matrices kept as `precision` says and at most `at_once`
    /// blocks assembled at a time.
    pub(crate) fn load(
        &self,
        config: Config,
        weights: &Weights,
        precision: Precision,
        at_once: usize,
    ) -> Result<Decoder> {
        assemble(config, weights, &self.names, precision, at_once)
    }
}

/// One family.
pub(crate) struct Family {
    /// `model_type` of config.json.
    name: &'static str,
    /// `architectures` of config.json that are this decoder with an unembedding.
    architectures: &'static [&'static str],
    hugging_face: Format,
    /// `general.architecture` of GGUF files, and how to read them.
    gguf: Option<(&'static str, Format)>,
}

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

/// What a config.json describes: how to read it, and the keys of its language model.
pub(crate) struct Found {
    pub(crate) format: &'static Format,
    pub(crate) keys: Keys,
}

/// The format that fits a config.json; `quantised` is the method by which the weights are quantised, for the error
/// about an architecture that is not supported.
pub(crate) fn for_hugging_face(keys: &Keys, quantised: Option<&str>) -> Result<Found> {
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
    Ok(Found { format: &family.hugging_face, keys: keys.clone() })
}

/// The language model of a folder that also has towers for images. Its keys are in `text_config`.
fn multimodal(keys: &Keys, family: &'static Family) -> Result<Found> {
    let unsupported =
        |given: &str, supported| Error::unsupported(keys.path(), "architecture", given, supported);
    has_architecture(keys, family).map_err(|list| unsupported(&list, family.architectures.join(", ")))?;
    let text = keys.object("text_config")?.ok_or_else(|| keys.missing("text_config"))?;
    keys.note("the folder holds a multimodal model: only its language model is loaded");
    Ok(Found { format: &family.hugging_face, keys: text })
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
    let gguf = || FAMILIES.iter().filter_map(|family| family.gguf.as_ref());
    gguf().find(|(architecture, _)| *architecture == name).map(|(_, format)| format).ok_or_else(|| {
        let supported = gguf().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Error::unsupported(keys.path(), "architecture", name, supported)
    })
}

/// What a format calls the sizes that are checked against each other.
struct Sizes<'a> {
    layers: &'a str,
    heads: &'a str,
    kv_heads: &'a str,
    head_dim: &'a str,
}

/// Checks that need more than one key. Layers of which nothing else was said are all alike.
fn check(keys: &Keys, names: &Sizes<'_>, mut config: Config) -> Result<Config> {
    let bad = |key: &str, problem: String| Err(keys.bad(key, problem));
    if !config.heads.is_multiple_of(config.kv_heads) {
        return bad(
            names.kv_heads,
            format!("{} query heads cannot share {} key/value heads evenly", config.heads, config.kv_heads),
        );
    }
    let widths = || config.rotaries().iter().map(|rotary| rotary.width);
    let key = if keys.get(names.head_dim).is_some() { names.head_dim } else { names.heads };
    if widths().any(|width| width == 0) {
        return bad(key, "heads of which nothing turns have no positions".into());
    }
    if let Some(odd) = widths().find(|width| !width.is_multiple_of(2)) {
        return bad(
            key,
            format!("heads that turn in {odd} dimensions are odd, which rotary positions cannot be"),
        );
    }
    if config.layers > MOST_LAYERS {
        return bad(
            names.layers,
            format!("{} blocks are more than the {MOST_LAYERS} a model may have", config.layers),
        );
    }
    config.kinds.resize(config.layers, Kind::default());
    Ok(config)
}

/// More layers than any model has, few enough that a list of them is small.
const MOST_LAYERS: usize = 4096;

/// The width of a head where it is not given: an even share of the model's width.
fn even_head(keys: &Keys, heads_key: &str, width: usize, heads: usize) -> Result<usize> {
    if width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(keys.bad(heads_key, format!("width {width} cannot be shared evenly by {heads} heads")))
}
