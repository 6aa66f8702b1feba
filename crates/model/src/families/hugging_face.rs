//! What the config.json files of many families have in common.

use super::{Sizes, check, even_head};
use crate::Result;
use crate::config::{Bias, Config, Kind, Mlp, Norm, Norms, Positions, Rotary, Scaling, Score};
use crate::file::keys::Keys;
use causalcone_ops::Activation;
use std::f64::consts::PI;

const SIZES: Sizes<'_> = Sizes {
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
};

/// The configuration of a family like Llama: root-mean-square norms before each half of a block, rotary positions,
/// a gated MLP, no biases. What a family does otherwise it changes.
pub(super) fn like_llama(keys: &Keys, family: &'static str) -> Result<Config> {
    let (layers, width, heads) =
        (keys.size(SIZES.layers)?, keys.size("hidden_size")?, keys.size(SIZES.heads)?);
    let head_dim = match keys.optional_size(SIZES.head_dim)? {
        Some(given) => given,
        None => even_head(keys, SIZES.heads, width, heads)?,
    };
    Ok(Config {
        family,
        layers,
        width,
        heads,
        kv_heads: keys.size(SIZES.kv_heads)?,
        head_dim,
        mlp_width: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        context: keys.size("max_position_embeddings")?,
        kinds: Vec::new(),
        norm: Norm::Rms { eps: 0.0 },
        norms: Norms::Before,
        query_key_norm: None,
        clip: None,
        positions: Positions::Rotary(Vec::new()),
        mlp: Mlp { activation: Activation::Silu, gated: true },
        parallel: false,
        score: Score { scale: (head_dim as f64).powf(-0.5), by_layer: false, softcap: None },
        embedding_scale: 1.0,
        logit_softcap: None,
        tied: false,
        bias: Bias::default(),
    })
}

/// The last checks: every key read or named as ignored, sizes that fit each other.
pub(super) fn finish(keys: &Keys, config: Config, own_inert: &[&'static str]) -> Result<Config> {
    finish_with(keys, config, own_inert, &SIZES)
}

/// The same where the sizes have other names.
pub(super) fn finish_with(
    keys: &Keys,
    config: Config,
    own_inert: &[&'static str],
    sizes: &Sizes<'_>,
) -> Result<Config> {
    keys.finish(&[INERT, own_inert].concat())?;
    check(keys, sizes, config)
}

/// The activation function under a key.
pub(super) fn activation(keys: &Keys, key: &str) -> Result<Activation> {
    let name = keys.text(key)?;
    Activation::by_name(name).ok_or_else(|| keys.bad(key, format!("{name:?} is not supported")))
}

/// Root-mean-square norms with the eps that is given.
pub(super) fn rms(keys: &Keys) -> Result<Norm> {
    Ok(Norm::Rms { eps: keys.positive("rms_norm_eps")? })
}

/// The key for how much of a head turns.
const PART: &str = "partial_rotary_factor";

/// How heads turn, all of their `width` numbers, as `rope_theta` and `rope_scaling` say, or `rope_parameters`, where newer
/// files have both.
pub(super) fn rotary(keys: &Keys, width: usize) -> Result<Rotary> {
    for key in ["rope_parameters", "rope_scaling"] {
        keys.object(key)?.as_ref().map_or(Ok(()), all_turns)?;
    }
    rotary_of_part(keys, width)
}

/// The same of the first `width` numbers of heads, in families of which not all turn ([`turning`]).
pub(super) fn rotary_of_part(keys: &Keys, width: usize) -> Result<Rotary> {
    if let Some(parameters) = keys.object("rope_parameters")? {
        if keys.get("rope_theta").is_some() || keys.get("rope_scaling").is_some() {
            return Err(
                keys.bad("rope_parameters", "stands beside rope_theta or rope_scaling, which it replaces")
            );
        }
        return of_parameters(keys, &parameters, width);
    }
    rotary_of(keys, "rope_theta", keys.object("rope_scaling")?, width)
}

/// As [`rotary`], of one object that has all.
pub(super) fn from_parameters(keys: &Keys, parameters: &Keys, width: usize) -> Result<Rotary> {
    all_turns(parameters)?;
    of_parameters(keys, parameters, width)
}

fn of_parameters(keys: &Keys, parameters: &Keys, width: usize) -> Result<Rotary> {
    let theta = parameters.positive("rope_theta")?;
    Ok(Rotary { width, theta, scaling: scaling(keys, parameters, width, theta)? })
}

/// Refuses parameters by which only a part of a head turns.
fn all_turns(parameters: &Keys) -> Result<()> {
    match parameters.optional_positive(PART)?.filter(|share| *share != 1.0) {
        Some(share) => Err(parameters.bad(PART, format!("{share}, and in this family all of a head turns"))),
        None => Ok(()),
    }
}

/// The same with the names of the two keys that have it.
pub(super) fn rotary_of(keys: &Keys, base: &str, scaled: Option<Keys>, width: usize) -> Result<Rotary> {
    let theta = keys.positive(base)?;
    let scaling = match scaled {
        Some(parameters) => scaling(keys, &parameters, width, theta)?,
        None => Scaling::None,
    };
    Ok(Rotary { width, theta, scaling })
}

/// How many numbers of a head turn: so much of it as one of these keys says, or one in `rope_parameters` or
/// `rope_scaling`; those that are given must agree.
pub(super) fn turning(keys: &Keys, names: &[&str], missing: Option<f64>, head_dim: usize) -> Result<usize> {
    let mut share = None;
    let mut agree = |keys: &Keys, name: &str| match (share, keys.optional_positive(name)?) {
        (Some(one), Some(other)) if one != other => {
            Err(keys.bad(name, format!("{other} is not {one}, which the file has for the same")))
        }
        (before, own) => {
            share = before.or(own);
            Ok(())
        }
    };
    for key in ["rope_parameters", "rope_scaling"] {
        keys.object(key)?.as_ref().map_or(Ok(()), |nested| agree(nested, PART))?;
    }
    names.iter().try_for_each(|name| agree(keys, name))?;
    let share = match (share, missing) {
        (Some(share), _) | (None, Some(share)) => share,
        (None, None) => keys.positive(names[0])?,
    };
    if share > 1.0 {
        return Err(keys.bad(names[0], format!("{share} is more than all of a head")));
    }
    let most = head_dim as f64 * share;
    Ok((0..=head_dim).rev().find(|width| *width as f64 <= most).unwrap_or(0))
}

/// The kinds of scaling, by `rope_type`, or `type` in older files.
fn scaling(keys: &Keys, parameters: &Keys, width: usize, theta: f64) -> Result<Scaling> {
    parameters.get("rope_theta");
    let (new, old) = (parameters.get("rope_type"), parameters.get("type"));
    if new.is_some() && old.is_some() && new != old {
        return Err(parameters.bad("rope_type", "is another one than type, an older name of the same"));
    }
    let kind = if new.is_some() { parameters.text("rope_type")? } else { parameters.text("type")? };
    let key = if new.is_some() { "rope_type" } else { "type" };
    let scaling = match kind {
        "default" => Scaling::None,
        "linear" => Scaling::Factors(vec![parameters.positive("factor")?; width / 2]),
        "llama3" => Scaling::Factors(llama3(parameters, width, theta)?),
        // "su" is what it was called first.
        "longrope" | "su" => longrope(keys, parameters, width)?,
        other => {
            let problem = format!("{other:?} is not supported; supported: default, linear, llama3, longrope");
            return Err(parameters.bad(key, problem));
        }
    };
    // Read with the width of a head, where a part of it turns.
    parameters.finish(&[PART])?;
    Ok(scaling)
}

/// Llama 3.1's factors: waves that fit often into the original context keep their length, those that do not fit once
/// become longer by the factor, and what is between goes smoothly from one to the other.
fn llama3(parameters: &Keys, width: usize, theta: f64) -> Result<Vec<f64>> {
    let number = |key: &str| parameters.positive(key);
    let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
    let original = number("original_max_position_embeddings")?;
    if low >= high {
        return Err(parameters.bad("low_freq_factor", format!("{low} is not below high_freq_factor, {high}")));
    }
    let of = |i: usize| {
        let wave = 2.0 * PI * theta.powf(2.0 * i as f64 / width as f64);
        // How much of the frequency stays as it is.
        let share = ((original / wave - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / (share + (1.0 - share) / factor)
    };
    Ok((0..width / 2).map(of).collect())
}

/// Phi-3's: a factor a frequency, and others in long prompts.
fn longrope(keys: &Keys, parameters: &Keys, width: usize) -> Result<Scaling> {
    let key = "original_max_position_embeddings";
    let context = keys.size("max_position_embeddings")?;
    let original = match (parameters.optional_size(key)?, keys.optional_size(key)?) {
        (Some(own), Some(other)) if own != other => {
            return Err(keys.bad(key, format!("{other} is not {own}, which the file has for the same")));
        }
        (Some(original), _) => original,
        (None, _) => keys.size(key)?,
    };
    let stretch = context as f64 / original as f64;
    let magnitude = match parameters.optional_positive("attention_factor")? {
        Some(magnitude) => magnitude,
        None if stretch > 1.0 => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
        None => 1.0,
    };
    if let Some(factor) = parameters.optional_positive("factor")?.filter(|factor| *factor != stretch) {
        let problem = format!("{factor} is not {context} / {original}, the context beside the original one");
        return Err(parameters.bad("factor", problem));
    }
    let factors = |key: &str| parameters.positives(key, width / 2);
    Ok(Scaling::ByLength {
        original,
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        magnitude,
    })
}

/// The window of each layer: of those that `layer_types` calls sliding, or `is_sliding` where there is no such list.
pub(super) fn windows(
    keys: &Keys,
    layers: usize,
    window: Option<usize>,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let layers = layers.min(super::MOST_LAYERS);
    let Some(types) = keys.optional_texts("layer_types", layers)? else {
        return Ok((0..layers).map(|layer| window.filter(|_| is_sliding(layer))).collect());
    };
    let of = |kind: &&str| match *kind {
        "full_attention" => Ok(None),
        "sliding_attention" if window.is_some() => Ok(window),
        "sliding_attention" => {
            Err(keys.bad("layer_types", "has sliding_attention, but there is no sliding_window"))
        }
        other => {
            Err(keys.bad("layer_types", format!("{other:?} is neither full_attention nor sliding_attention")))
        }
    };
    types.iter().map(of).collect()
}

/// Layers that turn alike, with these windows.
pub(super) fn kinds(windows: Vec<Option<usize>>) -> Vec<Kind> {
    windows.into_iter().map(|window| Kind { window, rotary: 0 }).collect()
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
