//! GPT-2, from Hugging Face directories.
//!
//! Learned positions, LayerNorm, fused QKV, weights stored in × out (its "Conv1D").

use super::{Family, Format, Sizes, check, even_head, inert};
use crate::Result;
use crate::config::{Bias, Config, Mlp, Norm, Positions};
use crate::decoder::{Block, Decoder, Gate, NormWeights};
use crate::file::Weights;
use crate::file::keys::Keys;
use causalcone_ops::{Activation, Linear};
use rayon::prelude::*;

pub(super) const FAMILY: Family = Family {
    name: "gpt2",
    architectures: &["GPT2LMHeadModel"],
    gguf: None,
    hugging_face: Format { config, load },
};

/// Dropout does nothing when a model is run, and the summary head is another task's.
const OWN_INERT: &[&str] =
    &["attn_pdrop", "embd_pdrop", "resid_pdrop", "summary_*", "n_ctx", "reorder_and_upcast_attn"];

const SIZES: Sizes = Sizes { layers: "n_layer", heads: "n_head", kv_heads: "n_head", head_dim: "n_head" };

fn config(keys: &Keys) -> Result<Config> {
    let width = keys.size("n_embd")?;
    let heads = keys.size("n_head")?;
    let activation = keys.text("activation_function")?;
    let activation = Activation::by_name(activation)
        .ok_or_else(|| keys.bad("activation_function", format!("{activation:?} is not supported")))?;
    let config = Config {
        family: FAMILY.name,
        layers: keys.size("n_layer")?,
        width,
        heads,
        kv_heads: heads,
        head_dim: even_head(keys, &SIZES, width, heads)?,
        // The format itself defines a missing or null n_inner as four times the width.
        mlp_width: keys.optional_size("n_inner")?.unwrap_or(4 * width),
        vocab: keys.size("vocab_size")?,
        context: keys.size("n_positions")?,
        norm: Norm::Layer { eps: keys.positive("layer_norm_epsilon")? },
        positions: Positions::Learned,
        mlp: Mlp { activation, gated: false },
        scale_by_layer: keys.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
        scale_by_width: keys.flag("scale_attn_weights")?.unwrap_or(true),
        tied: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        bias: Bias { attention: true, mlp: true },
    };
    keys.must_be("add_cross_attention", false)?;
    keys.must_be("pruned_heads", serde_json::json!({}))?;
    keys.finish(&inert(OWN_INERT))?;
    check(keys, &SIZES, config)
}

fn load(config: &Config, weights: &Weights) -> Result<Decoder> {
    // save_pretrained writes the prefix; the original checkpoint has none.
    let prefix = if weights.contains("wte.weight") { "" } else { "transformer." };
    let (d, m) = (config.width, config.mlp_width);
    let (Norm::Layer { eps } | Norm::Rms { eps }) = config.norm;
    let take = |name: &str, shape: &[usize]| weights.take(&format!("{prefix}{name}"), shape);
    let norm = |name: &str| -> Result<NormWeights> {
        let bias = Some(take(&format!("{name}.bias"), &[d])?);
        Ok(NormWeights { weight: take(&format!("{name}.weight"), &[d])?, bias, eps })
    };
    let linear = |name: &str, input: usize, output: usize| -> Result<Linear> {
        let weight = take(&format!("{name}.weight"), &[input, output])?;
        Ok(Linear::new(weight, Some(take(&format!("{name}.bias"), &[output])?))?)
    };
    let block = |i: usize| -> Result<Block> {
        let weight = take(&format!("h.{i}.attn.c_attn.weight"), &[d, 3 * d])?;
        let bias = take(&format!("h.{i}.attn.c_attn.bias"), &[3 * d])?;
        let third = |n: usize| -> Result<Linear> {
            Ok(Linear::new(weight.narrow(1, n * d, d)?, Some(bias.narrow(0, n * d, d)?.contiguous()?))?)
        };
        Ok(Block {
            attention_norm: norm(&format!("h.{i}.ln_1"))?,
            query: third(0)?,
            key: third(1)?,
            value: third(2)?,
            attention_output: linear(&format!("h.{i}.attn.c_proj"), d, d)?,
            mlp_norm: norm(&format!("h.{i}.ln_2"))?,
            gate: Gate { into: linear(&format!("h.{i}.mlp.c_fc"), d, m)?, up: None },
            down: linear(&format!("h.{i}.mlp.c_proj"), m, d)?,
        })
    };
    let blocks = (0..config.layers).into_par_iter().map(block).collect::<Result<_>>()?;
    let (token_embedding, unembedding) =
        super::embeddings(config, weights, &format!("{prefix}wte.weight"), "lm_head.weight")?;
    let decoder = Decoder {
        config: config.clone(),
        position_embedding: Some(take("wpe.weight", &[config.context, d])?),
        rope: None,
        blocks,
        final_norm: norm("ln_f")?,
        token_embedding,
        unembedding,
    };
    // Old checkpoints carry their causal mask along.
    weights.finish(|name| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"))?;
    Ok(decoder)
}
