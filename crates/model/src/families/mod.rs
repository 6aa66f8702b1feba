//! Model families: each reads its configuration and maps its tensors onto the one decoder.
//!
//! A family is one file with two functions for each format it comes in: keys to [`Config`], and
//! weights to [`Decoder`](crate::decoder::Decoder). [`FAMILIES`] is the table that ties them together.

mod gpt2;
mod llama;

use crate::config::Config;
use crate::decoder::Decoder;
use crate::file::Weights;
use crate::file::keys::Keys;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_ops::Linear;

/// Reads a configuration, having read or ignored every key of it.
type ReadConfig = fn(&Keys) -> Result<Config>;
/// Builds the decoder, having taken or ignored every tensor.
type Load = fn(&Config, &Weights) -> Result<Decoder>;

/// One format a family's files come in.
pub(crate) struct Format {
    pub(crate) config: ReadConfig,
    pub(crate) load: Load,
}

/// One family.
pub(crate) struct Family {
    /// `model_type` of config.json.
    name: &'static str,
    /// `architectures` of config.json that are this decoder with an unembedding.
    architectures: &'static [&'static str],
    /// `general.architecture` of GGUF files, and how to read them.
    gguf: Option<(&'static str, Format)>,
    hugging_face: Format,
}

const FAMILIES: [Family; 2] = [gpt2::FAMILY, llama::FAMILY];

/// The names of the supported families.
pub(crate) fn names() -> String {
    FAMILIES.map(|family| family.name).join(", ")
}

/// The format that fits a config.json.
pub(crate) fn for_hugging_face(keys: &Keys) -> Result<&'static Format> {
    let unsupported = |what, given: &str, supported| Error::unsupported(keys.path(), what, given, supported);
    let name = keys.text("model_type")?;
    let family = FAMILIES.iter().find(|family| family.name == name);
    let family = family.ok_or_else(|| unsupported("architecture", name, names()))?;
    if let Some(list) = keys.get("architectures") {
        let known = |a: &serde_json::Value| a.as_str().is_some_and(|a| family.architectures.contains(&a));
        if !list.as_array().is_some_and(|list| list.iter().all(known)) {
            return Err(unsupported("architecture", &list.to_string(), family.architectures.join(", ")));
        }
    }
    Ok(&family.hugging_face)
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

/// Keys of config.json that say nothing about what is computed, on any family.
const INERT: &[&str] = &[
    "_name_or_path",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_version",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "use_bfloat16",
    "use_cache",
];

/// [`INERT`] and a family's own such keys.
fn inert(own: &[&'static str]) -> Vec<&'static str> {
    [INERT, own].concat()
}

/// What a format calls the sizes that are checked against each other.
struct Sizes {
    layers: &'static str,
    heads: &'static str,
    kv_heads: &'static str,
    head_dim: &'static str,
}

/// Checks that need more than one key.
fn check(keys: &Keys, names: &Sizes, config: Config) -> Result<Config> {
    let bad = |key: &str, problem: String| Err(keys.bad(key, problem));
    if !config.heads.is_multiple_of(config.kv_heads) {
        return bad(
            names.kv_heads,
            format!("{} query heads cannot share {} key/value heads evenly", config.heads, config.kv_heads),
        );
    }
    if matches!(config.positions, crate::config::Positions::Rotary { .. })
        && !config.head_dim.is_multiple_of(2)
    {
        let key = if keys.get(names.head_dim).is_some() { names.head_dim } else { names.heads };
        let odd = config.head_dim;
        return bad(key, format!("heads of width {odd} are odd, which rotary positions cannot be"));
    }
    if config.layers > 4096 {
        return bad(
            names.layers,
            format!("{} blocks are more than the 4096 a model may have", config.layers),
        );
    }
    Ok(config)
}

/// The width of a head where it is not given: an even share of the model's width.
fn even_head(keys: &Keys, names: &Sizes, width: usize, heads: usize) -> Result<usize> {
    if width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(keys.bad(names.heads, format!("width {width} cannot be shared evenly by {heads} heads")))
}

/// The token embedding, where it is not the unembedding, and the unembedding.
fn embeddings(
    config: &Config,
    weights: &Weights,
    token: &str,
    output: &str,
) -> Result<(Option<Tensor>, Linear)> {
    let shape = [config.vocab, config.width];
    let embedding = weights.take(token, &shape)?;
    if !config.tied {
        return Ok((Some(embedding), Linear::new(weights.take(output, &shape)?.t()?, None)?));
    }
    if weights.contains(output) {
        // Some files hold the tied tensor twice. A second one that differs contradicts the file's own
        // configuration, and either choice could be wrong.
        let second = weights.take(output, &shape)?;
        let apart = (second - &embedding)?.abs()?.max_all()?.to_scalar::<f32>()?;
        if apart != 0.0 {
            return Err(weights
                .bad(output, "differs from the embedding, but the configuration says the two are tied"));
        }
    }
    Ok((None, Linear::new(embedding.t()?, None)?))
}
