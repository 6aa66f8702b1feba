//! The sizes of a configuration, checked against each other.

use crate::Result;
use crate::config::{Config, LayerKind};
use crate::file::keys::Keys;

/// What a format calls the sizes that are checked against each other.
pub(super) struct Sizes<'a> {
    pub(super) layers: &'a str,
    pub(super) heads: &'a str,
    pub(super) kv_heads: &'a str,
    pub(super) head_dim: &'a str,
}

/// Checks that need more than one key. Layers of which nothing else was said are all alike.
pub(super) fn check(keys: &Keys, names: &Sizes<'_>, mut config: Config) -> Result<Config> {
    let bad = |key: &str, problem: String| Err(keys.bad(key, problem));
    if !config.heads.is_multiple_of(config.kv_heads) {
        return bad(
            names.kv_heads,
            format!("{} query heads cannot share {} key/value heads evenly", config.heads, config.kv_heads),
        );
    }
    let widths = || config.rotaries().iter().map(|rotary| rotary.width);
    let key = if keys.get(names.head_dim).is_some() { names.head_dim } else { names.heads };
    if widths().any(|width| width == 0) {
        return bad(key, "heads of which nothing turns have no positions".into());
    }
    if let Some(odd) = widths().find(|width| !width.is_multiple_of(2)) {
        return bad(
            key,
            format!("heads that turn in {odd} dimensions are odd, which rotary positions cannot be"),
        );
    }
    if config.layers > MOST_LAYERS {
        return bad(
            names.layers,
            format!("{} blocks are more than the {MOST_LAYERS} a model may have", config.layers),
        );
    }
    config.kinds.resize(config.layers, LayerKind::default());
    Ok(config)
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
