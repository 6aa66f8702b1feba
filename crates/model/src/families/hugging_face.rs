//! What the config.json files of many families have in common.

use super::sizes::{MOST_LAYERS, Sizes, check, even_head};
use crate::Result;
use crate::config::{Bias, Config, LayerKind, Norm, PositionEncoding, Score};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use causalcone_ops::Activation;
use std::sync::Arc;

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
        kv_heads: kv_heads(keys, heads)?,
        head_dim,
        mlp_width: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        context: keys.size("max_position_embeddings")?,
        kinds: Vec::new(),
        norm: Norm::Rms { eps: 0.0 },
        query_key_norm: None,
        clip: None,
        positions: PositionEncoding::Rotary(Vec::new()),
        block: Arc::new(Stages::decoder(Norms::Before, Halves::InTurn, true)),
        activation: Activation::Silu,
        score: Score { scale: (head_dim as f64).powf(-0.5), by_layer: false, softcap: None },
        embedding_scale: 1.0,
        logit_softcap: None,
        tied: false,
        bias: Bias::default(),
    })
}

/// The number of key/value heads. Null means as many as there are heads; so does a missing key, in the classes whose
/// default is null.
fn kv_heads(keys: &Keys, heads: usize) -> Result<usize> {
    match keys.optional_size(SIZES.kv_heads)? {
        Some(given) => Ok(given),
        None if keys.is_null(SIZES.kv_heads) || keys.defaults_to_null(SIZES.kv_heads) => Ok(heads),
        None => Err(keys.missing(SIZES.kv_heads)),
    }
}

/// The last checks: every key accounted for, sizes that fit each other.
pub(super) fn finish(keys: &Keys, config: Config) -> Result<Config> {
    finish_with(keys, config, &SIZES)
}

/// The same where the sizes have other names.
pub(super) fn finish_with(keys: &Keys, config: Config, sizes: &Sizes<'_>) -> Result<Config> {
    keys.finish()?;
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

/// The window of each layer: of those that `layer_types` calls sliding, or `is_sliding` where there is no such list.
pub(super) fn windows(
    keys: &Keys,
    layers: usize,
    window: Option<usize>,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let layers = layers.min(MOST_LAYERS);
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
pub(super) fn kinds(windows: Vec<Option<usize>>) -> Vec<LayerKind> {
    windows.into_iter().map(|window| LayerKind { window, rotary: 0 }).collect()
}
