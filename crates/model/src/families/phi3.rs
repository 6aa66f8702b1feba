//! Phi-3: fused projections, a window, and two sets of angles, one for prompts longer than it was first trained on.

use super::assemble::{Into, Names, Projections};
use super::family::{Family, Format};
use super::{defaults, gguf, hugging_face, llama, rope, sizes};
use crate::Result;
use crate::config::{Config, PositionEncoding, Rotary, Scaling};
use crate::file::keys::Keys;

pub(super) const PHI3: Family = Family {
    name: "phi3",
    architectures: &["Phi3ForCausalLM"],
    hugging_face: Format::hugging_face(
        defaults::PHI3,
        config,
        Names {
            projections: Projections::Stacked("self_attn.qkv_proj"),
            into: Into::Stacked("mlp.gate_up_proj"),
            ..llama::NAMES
        },
    ),
    gguf: Some(("phi3", Format::gguf(gguf_config, Names { into: Into::Stacked("ffn_up"), ..gguf::FUSED }))),
};

fn config(keys: &Keys) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, PHI3.name)?;
    config.activation = hugging_face::activation(keys, "hidden_act")?;
    config.norm = hugging_face::rms(keys)?;
    config.tied = keys.flag("tie_word_embeddings")?;
    let turning = rope::turning(keys, &["partial_rotary_factor"], config.head_dim)?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary_of_part(keys, &["rope_theta"], turning)?]);
    let window = keys.optional_size("sliding_window")?;
    config.kinds = hugging_face::windows(keys, config.layers, window, |_| true)?;
    for biased in ["attention_bias", "lm_head_bias", "mlp_bias"] {
        keys.must_be(biased, false)?;
    }
    for factor in ["full_attn_mod", "interpolate_factor"] {
        keys.must_be(factor, 1)?;
    }
    hugging_face::finish(keys, config)
}

fn gguf_config(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = header.like_llama(PHI3.name)?;
    config.norm = header.rms()?;
    let turning = header.optional_size("rope.dimension_count")?.unwrap_or(config.head_dim);
    if turning > config.head_dim {
        let problem = format!("{turning} is more than the {} of a head", config.head_dim);
        return Err(header.keys.bad(&header.key("rope.dimension_count"), problem));
    }
    let rotary = header.rotary(turning)?;
    let original = header.optional_size("rope.scaling.original_context_length")?;
    // Of no use but to longrope, which needs it.
    header.optional_positive("rope.scaling.attn_factor")?;
    let factors = |name: &str| header.factors(name, turning);
    let scaling = match (factors("rope_factors_short.weight")?, factors("rope_factors_long.weight")?) {
        (None, None) => rotary.scaling,
        (Some(short), Some(long)) => Scaling::ByLength {
            original: header.size("rope.scaling.original_context_length")?,
            short,
            long,
            magnitude: header.positive("rope.scaling.attn_factor")?,
        },
        _ => {
            let problem = "and rope_factors_short.weight: only one is there";
            return Err(header.weights.bad("rope_factors_long.weight", problem));
        }
    };
    if scaling == Scaling::None && original.is_some_and(|original| original < config.context) {
        let problem = "is shorter than the context, but there are no factors for longer prompts";
        return Err(header.keys.bad(&header.key("rope.scaling.original_context_length"), problem));
    }
    config.positions = PositionEncoding::Rotary(vec![Rotary { scaling, ..rotary }]);
    // A window of 0 is how converters write that there is none.
    let key = header.key("attention.sliding_window");
    let window = match header.keys.get(&key).and_then(serde_json::Value::as_u64) {
        Some(0) => None,
        _ => Some(header.size("attention.sliding_window")?),
    };
    config.kinds = sizes::kinds(config.layers, |_| window);
    header.finish(config)
}
