//! GPT-2: learned positions, LayerNorm, fused QKV, biases everywhere; Hugging Face stores weights in × out (its
//! "Conv1D").

use super::assemble::{Into, Names, Projections};
use super::family::{Family, Format};
use super::sizes::{self, Sizes, even_head};
use super::{defaults, gguf, hugging_face, llama};
use crate::Result;
use crate::config::{Bias, Config, Norm, PositionEncoding, Score};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use causalcone_ops::Activation;
use std::sync::Arc;

pub(super) const GPT2: Family = Family {
    name: "gpt2",
    architectures: &["GPT2LMHeadModel"],
    hugging_face: Format::hugging_face(defaults::GPT2, config, NAMES),
    gguf: Some(("gpt2", Format::gguf(gguf_config, gguf::FUSED))),
};

const SIZES: Sizes<'_> = Sizes { layers: "n_layer", heads: "n_head", kv_heads: "n_head", head_dim: "n_head" };

const NAMES: Names = Names {
    // save_pretrained writes the prefix; the original checkpoint has none.
    prefixes: &["transformer."],
    token_embedding: "wte",
    position_embedding: "wpe",
    final_norm: "ln_f",
    unembeddings: &["lm_head.weight"],
    block: "h",
    norms: &[("attention_norm", "ln_1"), ("mlp_norm", "ln_2")],
    projections: Projections::Stacked("attn.c_attn"),
    attention_output: "attn.c_proj",
    into: Into::Plain("mlp.c_fc"),
    down: "mlp.c_proj",
    transposed: true,
    masks: &[".attn.bias", ".attn.masked_bias"],
    ..llama::NAMES
};

fn config(keys: &Keys) -> Result<Config> {
    let layers = size(keys, "n_layer", "num_hidden_layers")?;
    let (width, heads) = (size(keys, "n_embd", "hidden_size")?, size(keys, "n_head", "num_attention_heads")?);
    let head_dim = even_head(keys, "n_head", width, heads)?;
    let by_width = keys.flag("scale_attn_weights")?;
    let config = Config {
        layers,
        // The format itself defines a missing or null n_inner as four times the width.
        mlp_width: keys.optional_size("n_inner")?.unwrap_or(4 * width),
        vocab: keys.size("vocab_size")?,
        context: size(keys, "n_positions", "max_position_embeddings")?,
        norm: Norm::Layer { eps: keys.positive("layer_norm_epsilon")? },
        positions: PositionEncoding::Learned,
        block: Arc::new(Stages::decoder(Norms::Before, Halves::InTurn, false)),
        activation: hugging_face::activation(keys, "activation_function")?,
        score: Score {
            scale: if by_width { (head_dim as f64).powf(-0.5) } else { 1.0 },
            by_layer: keys.flag("scale_attn_by_inverse_layer_idx")?,
            softcap: None,
        },
        tied: keys.flag("tie_word_embeddings")?,
        bias: Bias::everywhere(true),
        ..sizes::base(GPT2.name, width, heads, head_dim)
    };
    keys.must_be("add_cross_attention", false)?;
    keys.must_be("pruned_heads", serde_json::json!({}))?;
    keys.finish("")?;
    sizes::check(keys, &SIZES, config)
}

/// A size under its own name, or the other one that transformers' class maps to it. A file may have both, if they agree.
fn size(keys: &Keys, name: &str, alias: &str) -> Result<usize> {
    match (keys.is_written(name), keys.is_written(alias)) {
        (false, true) => keys.size(alias),
        (true, true) if keys.size(name)? != keys.size(alias)? => {
            let (own, other) = (keys.size(name)?, keys.size(alias)?);
            Err(keys.bad(alias, format!("is {other}, but {name}, another name of the same, is {own}")))
        }
        _ => keys.size(name),
    }
}

fn gguf_config(header: &gguf::Header<'_>) -> Result<Config> {
    let config = header.like_llama(GPT2.name)?;
    header.finish(Config {
        norm: Norm::Layer { eps: header.eps()? },
        positions: PositionEncoding::Learned,
        // The architecture has no other.
        block: Arc::new(Stages::decoder(Norms::Before, Halves::InTurn, false)),
        activation: Activation::GeluTanh,
        bias: Bias::everywhere(true),
        ..config
    })
}
