//! Llama (and SmolLM2, which is one), from Hugging Face directories and GGUF files.
//!
//! Rotary positions, RMSNorm, grouped-query attention, gated MLP, weights stored out × in. GGUF
//! files hold the rows of the query and key projections in another order, undone here.

use super::{Family, Format, Sizes, check, even_head, inert};
use crate::Result;
use crate::config::{Bias, Config, Mlp, Norm, Positions};
use crate::decoder::{Block, Decoder, Gate, NormWeights};
use crate::file::Weights;
use crate::file::keys::Keys;
use candle_core::Tensor;
use causalcone_ops::{Activation, Linear, Rope};
use rayon::prelude::*;

pub(super) const FAMILY: Family = Family {
    name: "llama",
    architectures: &["LlamaForCausalLM"],
    gguf: Some(("llama", Format { config: gguf_config, load: |c, w| load(c, w, &GGUF) })),
    hugging_face: Format { config, load: |c, w| load(c, w, &HUGGING_FACE) },
};

/// What the tensors are called; a block's names follow its prefix and number.
struct Names {
    token_embedding: &'static str,
    final_norm: &'static str,
    unembedding: &'static str,
    block: &'static str,
    attention_norm: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attention_output: &'static str,
    mlp_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    /// Whether query and key rows are ordered for interleaved rotation.
    interleaved: bool,
}

const HUGGING_FACE: Names = Names {
    token_embedding: "model.embed_tokens",
    final_norm: "model.norm",
    unembedding: "lm_head.weight",
    block: "model.layers",
    attention_norm: "input_layernorm",
    query: "self_attn.q_proj",
    key: "self_attn.k_proj",
    value: "self_attn.v_proj",
    attention_output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    interleaved: false,
};

const GGUF: Names = Names {
    token_embedding: "token_embd",
    final_norm: "output_norm",
    unembedding: "output.weight",
    block: "blk",
    attention_norm: "attn_norm",
    query: "attn_q",
    key: "attn_k",
    value: "attn_v",
    attention_output: "attn_output",
    mlp_norm: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    interleaved: true,
};

const OWN_INERT: &[&str] = &["attention_dropout", "is_llama_config", "pretraining_tp", "pruned_heads"];

const HF_SIZES: Sizes = Sizes {
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
};

const GGUF_SIZES: Sizes = Sizes {
    layers: "llama.block_count",
    heads: "llama.attention.head_count",
    kv_heads: "llama.attention.head_count_kv",
    head_dim: "llama.attention.key_length",
};

fn config(keys: &Keys) -> Result<Config> {
    let width = keys.size("hidden_size")?;
    let heads = keys.size("num_attention_heads")?;
    let head_dim = match keys.optional_size("head_dim")? {
        Some(given) => given,
        None => even_head(keys, &HF_SIZES, width, heads)?,
    };
    let activation = keys.text("hidden_act")?;
    let activation = Activation::by_name(activation)
        .ok_or_else(|| keys.bad("hidden_act", format!("{activation:?} is not supported")))?;
    let config = Config {
        family: FAMILY.name,
        layers: keys.size("num_hidden_layers")?,
        width,
        heads,
        kv_heads: keys.size("num_key_value_heads")?,
        head_dim,
        mlp_width: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        context: keys.size("max_position_embeddings")?,
        norm: Norm::Rms { eps: keys.positive("rms_norm_eps")? },
        positions: Positions::Rotary { theta: keys.positive("rope_theta")? },
        mlp: Mlp { activation, gated: true },
        scale_by_layer: false,
        scale_by_width: true,
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        bias: Bias {
            attention: keys.flag("attention_bias")?.unwrap_or(false),
            mlp: keys.flag("mlp_bias")?.unwrap_or(false),
        },
    };
    keys.must_be("rope_scaling", serde_json::Value::Null)?;
    keys.must_be("rope_interleaved", false)?;
    keys.finish(&inert(OWN_INERT))?;
    check(keys, &HF_SIZES, config)
}

fn gguf_config(keys: &Keys) -> Result<Config> {
    let width = keys.size("llama.embedding_length")?;
    let heads = keys.size("llama.attention.head_count")?;
    let head_dim = match keys.optional_size("llama.attention.key_length")? {
        Some(given) => given,
        None => even_head(keys, &GGUF_SIZES, width, heads)?,
    };
    keys.must_be("llama.attention.value_length", head_dim)?;
    keys.must_be("llama.rope.dimension_count", head_dim)?;
    keys.must_be("llama.rope.scaling.type", "none")?;
    let config = Config {
        family: FAMILY.name,
        layers: keys.size("llama.block_count")?,
        width,
        heads,
        kv_heads: keys.size("llama.attention.head_count_kv")?,
        head_dim,
        mlp_width: keys.size("llama.feed_forward_length")?,
        vocab: keys.size("llama.vocab_size")?,
        context: keys.size("llama.context_length")?,
        norm: Norm::Rms { eps: keys.positive("llama.attention.layer_norm_rms_epsilon")? },
        positions: Positions::Rotary { theta: keys.positive("llama.rope.freq_base")? },
        mlp: Mlp { activation: Activation::Silu, gated: true },
        scale_by_layer: false,
        scale_by_width: true,
        // The format has no key for it: the unembedding is there or it is the embedding. Both this
        // and the biases are settled when the tensors are seen.
        tied: true,
        bias: Bias { attention: false, mlp: false },
    };
    // The tokenizer's keys are checked where the tokenizer is built.
    keys.finish(&["general.*", "tokenizer.*", "quantize.imatrix.*"])?;
    check(keys, &GGUF_SIZES, config)
}

fn load(config: &Config, weights: &Weights, names: &Names) -> Result<Decoder> {
    let mut config = config.clone();
    if names.interleaved {
        config.tied = !weights.contains(names.unembedding);
        config.bias.attention = weights.contains(&format!("{}.0.{}.bias", names.block, names.query));
        config.bias.mlp = weights.contains(&format!("{}.0.{}.bias", names.block, names.gate));
    }
    let (d, m) = (config.width, config.mlp_width);
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (Norm::Layer { eps } | Norm::Rms { eps }) = config.norm;
    let norm = |name: &str| -> Result<NormWeights> {
        Ok(NormWeights { weight: weights.take(&format!("{name}.weight"), &[d])?, bias: None, eps })
    };
    let block = |i: usize| -> Result<Block> {
        let name = |part: &str| format!("{}.{i}.{part}", names.block);
        let tensors =
            |part: &str, input: usize, output: usize, biased: bool| -> Result<(Tensor, Option<Tensor>)> {
                let weight = weights.take(&name(&format!("{part}.weight")), &[output, input])?;
                let bias = name(&format!("{part}.bias"));
                Ok((weight, biased.then(|| weights.take(&bias, &[output])).transpose()?))
            };
        let linear = |part: &str, input, output, biased| -> Result<Linear> {
            let (weight, bias) = tensors(part, input, output, biased)?;
            Ok(Linear::new(weight.t()?, bias)?)
        };
        let rotated = |part: &str, heads: usize, output| -> Result<Linear> {
            let (weight, bias) = tensors(part, d, output, config.bias.attention)?;
            let order = |x: Tensor| if names.interleaved { half_rotation_order(&x, heads) } else { Ok(x) };
            Ok(Linear::new(order(weight)?.t()?, bias.map(order).transpose()?)?)
        };
        let bias = config.bias;
        Ok(Block {
            attention_norm: norm(&name(names.attention_norm))?,
            query: rotated(names.query, config.heads, q)?,
            key: rotated(names.key, config.kv_heads, kv)?,
            value: linear(names.value, d, kv, bias.attention)?,
            attention_output: linear(names.attention_output, q, d, bias.attention)?,
            mlp_norm: norm(&name(names.mlp_norm))?,
            gate: Gate {
                into: linear(names.gate, d, m, bias.mlp)?,
                up: Some(linear(names.up, d, m, bias.mlp)?),
            },
            down: linear(names.down, m, d, bias.mlp)?,
        })
    };
    let (token_embedding, unembedding) =
        super::embeddings(&config, weights, &format!("{}.weight", names.token_embedding), names.unembedding)?;
    let blocks = (0..config.layers).into_par_iter().map(block).collect::<Result<_>>()?;
    let rope = match config.positions {
        Positions::Rotary { theta } => Some(Rope::new(config.head_dim, theta)),
        Positions::Learned => None,
    };
    let decoder = Decoder {
        position_embedding: None,
        rope,
        blocks,
        final_norm: norm(names.final_norm)?,
        token_embedding,
        unembedding,
        config,
    };
    // Old checkpoints carry the rotation's frequencies along; they follow from rope_theta.
    weights.finish(|name| name.ends_with(".rotary_emb.inv_freq"))?;
    Ok(decoder)
}

/// Reorders rows from (…, pair, 2) within a head, as GGUF has them, to (…, 2, pair).
fn half_rotation_order(x: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = x.dim(0)?;
    let grouped = x.reshape((heads, rows / heads / 2, 2, ()))?;
    Ok(grouped.transpose(1, 2)?.contiguous()?.reshape(x.shape())?)
}
