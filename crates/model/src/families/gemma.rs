//! Gemma 1, 2 and 3 (text).
//!
//! Norms multiply with 1 + w, embeddings are scaled by √d, heads have a width of their own. Gemma 2 adds norms after
//! attention and MLP, caps on scores and logits, and windows on every other layer; Gemma 3 norms queries and keys,
//! has windows on five layers of six, and turns these by another base. GGUF files hold 1 + w.

use super::assemble::Names;
use super::family::{Family, Format};
use super::{defaults, gguf, hugging_face, llama, rope, sizes};
use crate::Result;
use crate::config::{Bias, Config, LayerKind, PositionEncoding, QueryKeyNorm, Rotary, Scaling};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use causalcone_ops::Activation;
use std::sync::Arc;

/// Gemma 3 with a vision tower, whose text model is loaded. Versions of transformers name its tensors in two ways.
pub(super) const MULTIMODAL: Family = Family {
    name: "gemma3",
    architectures: &["Gemma3ForConditionalGeneration"],
    hugging_face: Format::hugging_face(
        defaults::GEMMA3,
        multimodal,
        Names {
            prefixes: &["language_model.model.", "model.language_model."],
            unembeddings: &["lm_head.weight", "language_model.lm_head.weight"],
            aside: &[
                "vision_tower.",
                "model.vision_tower.",
                "multi_modal_projector.",
                "model.multi_modal_projector.",
            ],
            ..AROUND
        },
    ),
    gguf: None,
};

const NAMES: Names = Names { norm_offset: 1.0, ..llama::NAMES };

/// With norms on either side of attention and MLP.
const AROUND: Names = Names {
    norms: &[
        ("attention_norm", "input_layernorm"),
        ("attention_after", "post_attention_layernorm"),
        ("mlp_norm", "pre_feedforward_layernorm"),
        ("mlp_after", "post_feedforward_layernorm"),
        ("query_norm", "self_attn.q_norm"),
        ("key_norm", "self_attn.k_norm"),
    ],
    ..NAMES
};

pub(super) const GEMMA: Family = Family {
    name: "gemma",
    architectures: &["GemmaForCausalLM"],
    hugging_face: Format::hugging_face(defaults::GEMMA, gemma, NAMES),
    gguf: Some(("gemma", Format::gguf(gemma_gguf, gguf::NAMES))),
};

pub(super) const GEMMA2: Family = Family {
    name: "gemma2",
    architectures: &["Gemma2ForCausalLM"],
    hugging_face: Format::hugging_face(defaults::GEMMA2, gemma2, AROUND),
    gguf: Some(("gemma2", Format::gguf(gemma2_gguf, gguf::NAMES))),
};

pub(super) const GEMMA3: Family = Family {
    name: "gemma3_text",
    architectures: &["Gemma3ForCausalLM"],
    hugging_face: Format::hugging_face(defaults::GEMMA3, gemma3, AROUND),
    gguf: Some(("gemma3", Format::gguf(gemma3_gguf, gguf::NAMES))),
};

fn gemma(keys: &Keys) -> Result<Config> {
    let mut config = common(keys, GEMMA.name)?;
    let older = keys.get("hidden_act").map(|_| hugging_face::activation(keys, "hidden_act")).transpose();
    config.activation = match keys.get("hidden_activation") {
        // Files with the older key alone say "gelu" and were trained with its approximation by tanh, which transformers
        // takes for them. Any other activation is what it says.
        None => match older? {
            None | Some(Activation::GeluErf) => Activation::GeluTanh,
            Some(other) => other,
        },
        Some(_) => {
            let activation = hugging_face::activation(keys, "hidden_activation")?;
            // 4.57 takes the older key, and what its class has where that is missing.
            let older = older?.unwrap_or(Activation::GeluTanh);
            let is_pair = older == Activation::GeluErf && activation == Activation::GeluTanh;
            if older != activation && !is_pair {
                let problem = "says another activation than hidden_act: versions of transformers differ in which they take";
                return Err(keys.bad("hidden_activation", problem));
            }
            activation
        }
    };
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    hugging_face::finish(keys, config)
}

fn gemma2(keys: &Keys) -> Result<Config> {
    let mut config = newer(keys, GEMMA2.name)?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    let window = keys.size("sliding_window")?;
    // Its name in the first files.
    keys.must_be("sliding_window_size", window)?;
    config.kinds = hugging_face::windows(keys, config.layers, Some(window), is_even)?;
    hugging_face::finish(keys, config)
}

/// Gemma 2's windowed layers.
fn is_even(layer: usize) -> bool {
    layer.is_multiple_of(2)
}

fn gemma3(keys: &Keys) -> Result<Config> {
    let mut config = newer(keys, GEMMA3.name)?;
    config.query_key_norm = Some(QueryKeyNorm::Heads);
    let width = config.head_dim;
    let (global, local) = rope::by_kind_of_layer(keys, width)?;
    config.positions = PositionEncoding::Rotary(vec![global, local]);
    let window = keys.size("sliding_window")?;
    // Some versions write it as a private key.
    let pattern =
        match keys.is_written("sliding_window_pattern") || !keys.is_written("_sliding_window_pattern") {
            true => keys.size("sliding_window_pattern")?,
            false => keys.size("_sliding_window_pattern")?,
        };
    let is_sliding = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    config.kinds = alternating(hugging_face::windows(keys, config.layers, Some(window), is_sliding)?);
    keys.must_be("use_bidirectional_attention", false)?;
    if config.score.softcap.is_some() {
        let problem = "caps scores, which transformers leaves as they are in this family";
        return Err(keys.bad("attn_logit_softcapping", problem));
    }
    hugging_face::finish(keys, config)
}

fn multimodal(keys: &Keys) -> Result<Config> {
    if keys.get("model_type").is_some_and(|kind| kind != GEMMA3.name) {
        return Err(keys.bad("model_type", format!("is not {:?}", GEMMA3.name)));
    }
    gemma3(keys)
}

/// Layers of which those with a window turn in the second way.
fn alternating(layers: Vec<LayerKind>) -> Vec<LayerKind> {
    layers.into_iter().map(|kind| LayerKind { rotary: usize::from(kind.window.is_some()), ..kind }).collect()
}

/// What Gemma 2 and 3 have in common.
fn newer(keys: &Keys, family: &'static str) -> Result<Config> {
    let mut config = common(keys, family)?;
    config.block = Arc::new(Stages::decoder(Norms::Around, Halves::InTurn, true));
    config.activation = hugging_face::activation(keys, "hidden_activation")?;
    config.score.scale = keys.positive("query_pre_attn_scalar")?.powf(-0.5);
    config.score.softcap = keys.optional_positive("attn_logit_softcapping")?;
    config.logit_softcap = keys.optional_positive("final_logit_softcapping")?;
    // A name from Gemma 1; it is not read.
    keys.get("hidden_act");
    Ok(config)
}

/// What all have in common.
fn common(keys: &Keys, family: &'static str) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, family)?;
    config.norm = hugging_face::rms(keys)?;
    config.embedding_scale = (config.width as f64).sqrt();
    config.tied = keys.flag("tie_word_embeddings")?;
    let bias = keys.flag("attention_bias")?;
    config.bias = Bias { query_key_value: bias, attention_output: bias, mlp: false };
    Ok(config)
}

fn gemma_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = common_gguf(header, GEMMA.name)?;
    config.positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    header.finish(config)
}

fn gemma2_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = newer_gguf(header, GEMMA2.name, 46)?;
    config.positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    config.score.softcap = Some(header.positive("attn_logit_softcapping")?);
    config.logit_softcap = Some(header.positive("final_logit_softcapping")?);
    let window = header.size("attention.sliding_window")?;
    config.kinds = sizes::kinds(config.layers, |layer| is_even(layer).then_some(window));
    header.finish(config)
}

fn gemma3_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = newer_gguf(header, GEMMA3.name, 62)?;
    config.query_key_norm = Some(QueryKeyNorm::Heads);
    let global = header.rotary(config.head_dim)?;
    let theta = header.positive("rope.freq_base_swa")?;
    let local = Rotary { theta, scaling: Scaling::None, ..global };
    config.positions = PositionEncoding::Rotary(vec![global, local]);
    config.logit_softcap = header.optional_positive("final_logit_softcapping")?;
    let window = header.size("attention.sliding_window")?;
    let pattern = header.size("attention.sliding_window_pattern")?;
    let window = |layer: usize| (!(layer + 1).is_multiple_of(pattern)).then_some(window);
    config.kinds = alternating(sizes::kinds(config.layers, window));
    header.finish(config)
}

/// What Gemma 2 and 3 have in common; the largest of each, of so many layers, scales scores by its width.
fn newer_gguf(header: &gguf::Header<'_>, family: &'static str, largest: usize) -> Result<Config> {
    let mut config = common_gguf(header, family)?;
    config.block = Arc::new(Stages::decoder(Norms::Around, Halves::InTurn, true));
    if config.layers == largest {
        config.score.scale = (config.width as f64 / config.heads as f64).powf(-0.5);
    }
    Ok(config)
}

fn common_gguf(header: &gguf::Header<'_>, family: &'static str) -> Result<Config> {
    let mut config = header.like_llama(family)?;
    config.norm = header.rms()?;
    config.embedding_scale = (config.width as f64).sqrt();
    // The architecture has no other.
    config.activation = Activation::GeluTanh;
    Ok(config)
}
