//! A configuration to start from, and its sizes checked against each other.

use crate::Result;
use crate::config::{Bias, Config, LayerKind, Norm, PositionEncoding, Score};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use causalcone_ops::Activation;
use std::sync::Arc;

/// What a format calls the sizes that are checked against each other.
pub(super) struct Sizes<'a> {
    pub(super) layers: &'a str,
    pub(super) heads: &'a str,
    pub(super) kv_heads: &'a str,
    pub(super) head_dim: &'a str,
}

/// A configuration like Llama's: root-mean-square norms before each half of a block, rotary positions, a gated MLP, no
/// biases. The sizes that are 0, the eps and the rotation are still to be read.
pub(super) fn base(family: &'static str, width: usize, heads: usize, head_dim: usize) -> Config {
    Config {
        family,
        layers: 0,
        width,
        heads,
        kv_heads: heads,
        head_dim,
        mlp_width: 0,
        vocab: 0,
        context: 0,
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
    }
}

/// Layers that turn alike, each with its window.
pub(super) fn kinds(layers: usize, window: impl Fn(usize) -> Option<usize>) -> Vec<LayerKind> {
    (0..layers.min(MOST_LAYERS)).map(|layer| LayerKind { window: window(layer), rotary: 0 }).collect()
}

/// Checks that need more than one key. Layers of which nothing else was said are all alike.
pub(super) fn check(keys: &Keys, names: &Sizes<'_>, mut config: Config) -> Result<Config> {
    let Config { layers, heads, kv_heads, .. } = config;
    let widths = || config.rotaries().iter().map(|rotary| rotary.width);
    let turning = if keys.get(names.head_dim).is_some() { names.head_dim } else { names.heads };
    let (key, problem) = if !heads.is_multiple_of(kv_heads) {
        let problem = format!("{heads} query heads cannot share {kv_heads} key/value heads evenly");
        (names.kv_heads, problem)
    } else if widths().any(|width| width == 0) {
        (turning, "heads of which nothing turns have no positions".into())
    } else if let Some(odd) = widths().find(|width| !width.is_multiple_of(2)) {
        let problem =
            format!("heads that turn in {odd} dimensions are odd, which rotary positions cannot be");
        (turning, problem)
    } else if layers > MOST_LAYERS {
        (names.layers, format!("{layers} blocks are more than the {MOST_LAYERS} a model may have"))
    } else {
        config.kinds.resize(layers, LayerKind::default());
        return Ok(config);
    };
    Err(keys.bad(key, problem))
}

/// More layers than any model has, few enough that a list of them is small.
pub(super) const MOST_LAYERS: usize = 4096;

/// The width of a head where it is not given: an even share of the model's width.
pub(super) fn even_head(keys: &Keys, heads_key: &str, width: usize, heads: usize) -> Result<usize> {
    if width.is_multiple_of(heads) {
        return Ok(width / heads);
    }
    Err(keys.bad(heads_key, format!("width {width} cannot be shared evenly by {heads} heads")))
}
