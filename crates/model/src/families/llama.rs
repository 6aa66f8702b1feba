//! Llama (and SmolLM2, which is one), and Mistral, which adds a window.
//!
//! Rotary positions, root-mean-square norms, grouped-query attention, gated MLP, weights stored out × in. GGUF
//! files hold the rows of the query and key projections in another order, undone at load.

use super::assemble::{Into, Names, Projections};
use super::family::{Family, Format};
use super::{defaults, gguf, hugging_face, rope};
use crate::Result;
use crate::config::{Bias, Config, PositionEncoding};
use crate::file::keys::Keys;

pub(super) const LLAMA: Family = Family {
    name: "llama",
    // The second is how the first conversions of Llama 1 spell it.
    architectures: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    hugging_face: Format::hugging_face(defaults::LLAMA, config, NAMES),
    gguf: Some(("llama", Format::gguf(gguf_config, Names { pairs: true, ..gguf::NAMES }))),
};

/// In GGUF files a Mistral is a llama.
pub(super) const MISTRAL: Family = Family {
    name: "mistral",
    architectures: &["MistralForCausalLM"],
    hugging_face: Format::hugging_face(defaults::MISTRAL, mistral_config, NAMES),
    gguf: None,
};

pub(super) const NAMES: Names = Names {
    prefixes: &["model."],
    token_embedding: "embed_tokens",
    position_embedding: "",
    final_norm: "norm",
    unembeddings: &["lm_head.weight"],
    block: "layers",
    norms: &[
        ("attention_norm", "input_layernorm"),
        ("mlp_norm", "post_attention_layernorm"),
        ("query_norm", "self_attn.q_norm"),
        ("key_norm", "self_attn.k_norm"),
    ],
    projections: Projections::Apart {
        query: "self_attn.q_proj",
        key: "self_attn.k_proj",
        value: "self_attn.v_proj",
    },
    attention_output: "self_attn.o_proj",
    into: Into::Gated { gate: "mlp.gate_proj", up: "mlp.up_proj" },
    down: "mlp.down_proj",
    transposed: false,
    pairs: false,
    norm_offset: 0.0,
    masks: &[],
    aside: &[],
};

fn config(keys: &Keys) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, LLAMA.name)?;
    config.activation = hugging_face::activation(keys, "hidden_act")?;
    config.norm = hugging_face::rms(keys)?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    config.tied = keys.flag("tie_word_embeddings")?;
    let attention = keys.flag("attention_bias")?;
    let mlp = keys.flag("mlp_bias")?;
    config.bias = Bias { query_key_value: attention, attention_output: attention, mlp };
    keys.must_be("rope_interleaved", false)?;
    hugging_face::finish(keys, config)
}

fn mistral_config(keys: &Keys) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, MISTRAL.name)?;
    config.activation = hugging_face::activation(keys, "hidden_act")?;
    config.norm = hugging_face::rms(keys)?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    config.tied = keys.flag("tie_word_embeddings")?;
    keys.must_say("sliding_window")?;
    let window = keys.optional_size("sliding_window")?;
    config.kinds = hugging_face::windows(keys, config.layers, window, |_| true)?;
    hugging_face::finish(keys, config)
}

fn gguf_config(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = header.like_llama(LLAMA.name)?;
    config.norm = header.rms()?;
    config.positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    header.finish(config)
}
