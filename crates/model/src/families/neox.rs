//! GPT-NeoX and Pythia: attention and MLP side by side, heads that turn in part, LayerNorm, one projection that holds
//! query, key and value head by head.

use super::assemble::{Into, Names, Projections};
use super::family::{Family, Format};
use super::sizes::{base, even_head};
use super::{defaults, gguf, hugging_face, llama, rope};
use crate::Result;
use crate::config::{Bias, Config, Norm, PositionEncoding};
use crate::file::keys::Keys;
use crate::stage::{Halves, Norms, Stages};
use causalcone_ops::Activation;
use std::sync::Arc;

pub(super) const NEOX: Family = Family {
    name: "gpt_neox",
    architectures: &["GPTNeoXForCausalLM"],
    hugging_face: Format::hugging_face(defaults::NEOX, config, NAMES),
    gguf: Some(("gptneox", Format::gguf(gguf_config, gguf::FUSED))),
};

const NAMES: Names = Names {
    prefixes: &["gpt_neox."],
    token_embedding: "embed_in",
    final_norm: "final_layer_norm",
    unembeddings: &["embed_out.weight"],
    block: "layers",
    norms: &[("attention_norm", "input_layernorm"), ("mlp_norm", "post_attention_layernorm")],
    projections: Projections::ByHead("attention.query_key_value"),
    attention_output: "attention.dense",
    into: Into::Plain("mlp.dense_h_to_4h"),
    down: "mlp.dense_4h_to_h",
    masks: &[".attention.bias", ".attention.masked_bias"],
    ..llama::NAMES
};

fn config(keys: &Keys) -> Result<Config> {
    let (width, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
    let head_dim = even_head(keys, "num_attention_heads", width, heads)?;
    // Older files have names of their own for the share of a head that turns, and the base; newer ones have both.
    let turning = rope::turning(keys, &["rotary_pct", "partial_rotary_factor"], head_dim)?;
    let rotary = rope::rotary_of_part(keys, &["rotary_emb_base", "rope_theta"], turning)?;
    let is_alone = !keys.is_written("rotary_emb_base") && !keys.is_written("rope_parameters");
    if is_alone && keys.is_written("rope_theta") && rotary.theta != 10_000.0 {
        let problem =
            "is the only base: some versions of transformers read rotary_emb_base instead, which is missing";
        return Err(keys.bad("rope_theta", problem));
    }
    let attention = keys.flag("attention_bias")?;
    let config = Config {
        layers: keys.size("num_hidden_layers")?,
        mlp_width: keys.size("intermediate_size")?,
        vocab: keys.size("vocab_size")?,
        context: keys.size("max_position_embeddings")?,
        norm: Norm::Layer { eps: keys.positive("layer_norm_eps")? },
        positions: PositionEncoding::Rotary(vec![rotary]),
        block: block(keys.flag("use_parallel_residual")?),
        activation: hugging_face::activation(keys, "hidden_act")?,
        tied: keys.flag("tie_word_embeddings")?,
        bias: Bias { query_key_value: attention, attention_output: attention, mlp: true },
        ..base(NEOX.name, width, heads, head_dim)
    };
    hugging_face::finish(keys, config)
}

fn block(is_parallel: bool) -> Arc<Stages> {
    let halves = if is_parallel { Halves::SideBySide } else { Halves::InTurn };
    Arc::new(Stages::decoder(Norms::Before, halves, false))
}

fn gguf_config(header: &gguf::Header<'_>) -> Result<Config> {
    let mut config = header.like_llama(NEOX.name)?;
    config.norm = Norm::Layer { eps: header.eps()? };
    // The architecture has no other activation, and converters write no base but this one's models'.
    config.activation = Activation::GeluErf;
    let turning = header.size("rope.dimension_count")?;
    if turning > config.head_dim {
        let problem = format!("{turning} is more than the {} of a head", config.head_dim);
        return Err(header.keys.bad(&header.key("rope.dimension_count"), problem));
    }
    config.positions = PositionEncoding::Rotary(vec![header.rotary(turning)?]);
    config.bias = Bias::everywhere(true);
    config.block = block(header.keys.flag(&header.key("use_parallel_residual"))?);
    header.finish(config)
}
