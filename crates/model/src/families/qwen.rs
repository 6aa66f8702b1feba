//! Qwen 2, which has biases on queries, keys and values, and Qwen 3, which norms queries and keys head by head.
//!
//! Both may have windows on their upper layers; GGUF files do not say so, and the models published as such have none.

use super::family::{Family, Format};
use super::llama::NAMES;
use super::{defaults, gguf, hugging_face, rope};
use crate::Result;
use crate::config::{Bias, Config, PositionEncoding, QueryKeyNorm};
use crate::file::keys::Keys;

pub(super) const QWEN2: Family = Family {
    name: "qwen2",
    architectures: &["Qwen2ForCausalLM"],
    hugging_face: Format::hugging_face(defaults::QWEN2, qwen2, NAMES),
    gguf: Some(("qwen2", Format::gguf(qwen2_gguf, gguf::NAMES))),
};

pub(super) const QWEN3: Family = Family {
    name: "qwen3",
    architectures: &["Qwen3ForCausalLM"],
    hugging_face: Format::hugging_face(defaults::QWEN3, qwen3, NAMES),
    gguf: Some(("qwen3", Format::gguf(qwen3_gguf, gguf::NAMES))),
};

fn qwen2(keys: &Keys) -> Result<Config> {
    let mut config = common(keys, QWEN2.name)?;
    config.bias = Bias { query_key_value: true, ..Bias::default() };
    hugging_face::finish(keys, config)
}

fn qwen3(keys: &Keys) -> Result<Config> {
    let mut config = common(keys, QWEN3.name)?;
    let bias = keys.flag("attention_bias")?;
    config.bias = Bias { query_key_value: bias, attention_output: bias, mlp: false };
    config.query_key_norm = Some(QueryKeyNorm::Heads);
    hugging_face::finish(keys, config)
}

fn common(keys: &Keys, family: &'static str) -> Result<Config> {
    let mut config = hugging_face::like_llama(keys, family)?;
    config.activation = hugging_face::activation(keys, "hidden_act")?;
    config.norm = hugging_face::rms(keys)?;
    config.positions = PositionEncoding::Rotary(vec![rope::rotary(keys, config.head_dim)?]);
    config.tied = keys.flag("tie_word_embeddings")?;
    // PositionEncoding of three kinds, of which only vision has more than one.
    keys.must_be("use_mrope", false)?;
    let is_on = keys.flag("use_sliding_window")?;
    if is_on {
        keys.must_say("sliding_window")?;
    }
    let window = keys.optional_size("sliding_window")?.filter(|_| is_on);
    // How many layers, from the first, have none; it may be all, or none.
    let full = keys.get("max_window_layers").map(|value| {
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| keys.bad("max_window_layers", format!("{value} is not a number of layers")))
    });
    let full = full.transpose()?;
    if window.is_some() && full.is_none() && keys.get("layer_types").is_none() {
        return Err(keys.missing("max_window_layers"));
    }
    let is_sliding = |layer| full.is_some_and(|full| layer >= full);
    config.kinds = hugging_face::windows(keys, config.layers, window, is_sliding)?;
    Ok(config)
}

fn qwen2_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let config = common_gguf(header, QWEN2.name)?;
    // The architecture has them: a file without is broken.
    header.finish(Config { bias: Bias { query_key_value: true, ..Bias::default() }, ..config })
}

fn qwen3_gguf(header: &gguf::Header<'_>) -> Result<Config> {
    let config = common_gguf(header, QWEN3.name)?;
    header.finish(Config { query_key_norm: Some(QueryKeyNorm::Heads), ..config })
}

fn common_gguf(header: &gguf::Header<'_>, family: &'static str) -> Result<Config> {
    let config = header.like_llama(family)?;
    let positions = PositionEncoding::Rotary(vec![header.rotary(config.head_dim)?]);
    Ok(Config { norm: header.rms()?, positions, ..config })
}
