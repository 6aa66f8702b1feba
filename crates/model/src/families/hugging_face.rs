//! What the config.json files of many families have in common.

use super::sizes::{MOST_LAYERS, Sizes, base, check, even_head, kinds};
use crate::Result;
use crate::config::{Config, LayerKind, Norm};
use crate::file::keys::Keys;
use causalcone_ops::Activation;

const SIZES: Sizes<'_> = Sizes {
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    kv_heads: "num_key_value_heads",
    head_dim: "head_dim",
};

/// The configuration of a family like Llama ([`base`]). What a family does otherwise it changes.
pub(super) fn like_llama(keys: &Keys, family: &'static str) -> Result<Config> {
    let (layers, width, heads) =
        (keys.size(SIZES.layers)?, keys.size("hidden_size")?, keys.size(SIZES.heads)?);
    let head_dim = match keys.optional_size(SIZES.head_dim)? {
        Some(given) => given,
        None => even_head(keys, SIZES.heads, width, heads)?,
    };
    Ok(Config {
        layers,
        kv_heads: kv_heads(keys, heads)?,
        mlp_width: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        context: keys.size("max_position_embeddings")?,
        ..base(family, width, heads, head_dim)
    })
}

/// The number of key/value heads. Null means as many as there are heads; so does a missing key, in the classes whose
/// default is null.
fn kv_heads(keys: &Keys, heads: usize) -> Result<usize> {
    match keys.optional_size(SIZES.kv_heads)? {
        Some(given) => Ok(given),
        None if keys.means_null(SIZES.kv_heads) => Ok(heads),
        None => Err(keys.missing(SIZES.kv_heads)),
    }
}

/// The last checks: every key accounted for, sizes that fit each other.
pub(super) fn finish(keys: &Keys, config: Config) -> Result<Config> {
    keys.finish("")?;
    check(keys, &SIZES, config)
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

/// The layers with their windows: `window` for those that `layer_types` calls sliding, or `is_sliding` where there is no
/// such list.
pub(super) fn windows(
    keys: &Keys,
    layers: usize,
    window: Option<usize>,
    is_sliding: impl Fn(usize) -> bool,
) -> Result<Vec<LayerKind>> {
    let Some(types) = keys.optional_texts("layer_types", layers.min(MOST_LAYERS))? else {
        return Ok(kinds(layers, |layer| window.filter(|_| is_sliding(layer))));
    };
    let of = |kind: &&str| {
        let window = match *kind {
            "full_attention" => None,
            "sliding_attention" if window.is_some() => window,
            "sliding_attention" => {
                return Err(keys.bad("layer_types", "has sliding_attention, but there is no sliding_window"));
            }
            other => {
                let problem = format!("{other:?} is neither full_attention nor sliding_attention");
                return Err(keys.bad("layer_types", problem));
            }
        };
        Ok(LayerKind { window, rotary: 0 })
    };
    types.iter().map(of).collect()
}
