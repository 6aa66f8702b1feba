//! OLMo 1, whose norms have no parameters and which may clip queries, keys and values, and OLMo 2, whose norms stand
//! after attention and MLP.

use super::assemble::Names;
use super::family::{Family, Format};
use super::{defaults, gguf, hugging_face, llama, rope};
use crate::Result;
use crate::config::{Bias, Config, Norm, PositionEncoding, QueryKeyNorm};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use std::sync::Arc;

pub(super) const OLMO: Family = Family {
    name: "olmo",
    architectures: &["OlmoForCausalLM"],
    hugging_face: Format::hugging_face(defaults::OLMO, olmo, llama::NAMES),
    gguf: Some(("olmo", Format::gguf(olmo_gguf, Names { pairs: true, ..gguf::NAMES }))),
};

pub(super) const OLMO2: Family = Family {
    name: "olmo2",
    architectures: &["Olmo2ForCausalLM"],
    hugging_face: Format::hugging_face(
        defaults::OLMO2,
        olmo2,
        Names {
            norms: &[
                ("attention_after", "post_attention_layernorm"),
                ("mlp_after", "post_feedforward_layernorm"),
                ("query_norm", "self_attn.q_norm"),
                ("key_norm", "self_attn.k_norm"),
            ],
            ..llama::NAMES
        },
    ),
    gguf: Some(("olmo2", Format::gguf(olmo2_gguf, gguf::NAMES))),
};

/// What OLMo 1 adds to the variance; its configuration has no key for it.
const EPS: f64 = 1e-5;

fn olmo(keys: &Keys) -> Result<Config> {
    let mut config = common(keys, OLMO.name)?;
    config.norm = Norm::Plain { eps: EPS };
    config.clip = keys.optional_positive("clip_qkv")?;
    hugging_face::finish(keys, config)
}

fn olmo2(keys: &Keys) -> Result<Config> {
    let mut config = common(keys, OLMO2.name)?;
    config.norm = hugging_face::rms(keys)?;
    config.block = Arc::new(Stages::decoder(Norms::After, Halves::InTurn, true));
    config.query_key_norm = Some(QueryKeyNorm::Whole);
    hugging_face::finish(keys, config)
}

fn common(keys: &Keys, family: &'static str) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, family)?;
    config.activation = hugging_face::activation(keys, "hidden_act")?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    config.tied = keys.flag("tie_word_embeddings")?;
    let bias = keys.flag("attention_bias")?;
    config.bias = Bias { query_key_value: bias, attention_output: bias, mlp: false };
    Ok(config)
}

fn olmo_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = header.like_llama(OLMO.name)?;
    config.norm = Norm::Plain { eps: header.eps()? };
    config.clip = header.optional_positive("attention.clamp_kqv")?;
    config.positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    header.finish(config)
}

fn olmo2_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = header.like_llama(OLMO2.name)?;
    config.norm = header.rms()?;
    config.block = Arc::new(Stages::decoder(Norms::After, Halves::InTurn, true));
    config.query_key_norm = Some(QueryKeyNorm::Whole);
    config.positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    header.finish(config)
}
