//! What the headers of GGUF files of many architectures have in common: their keys begin with its name.

use super::assemble::{Into, Names, Projections};
use super::sizes::{Sizes, base, check, even_head};
use crate::Result;
use crate::config::{Bias, Config, Norm, Rotary, Scaling};
use crate::file::Weights;
use crate::file::keys::Keys;

/// What llama.cpp calls a tensor, whatever the architecture.
pub(super) const NAMES: Names = Names {
    prefixes: &[],
    token_embedding: "token_embd",
    position_embedding: "position_embd",
    final_norm: "output_norm",
    unembeddings: &[UNEMBEDDING],
    block: "blk",
    norms: &[
        ("attention_norm", "attn_norm"),
        ("attention_after", "post_attention_norm"),
        ("mlp_norm", "ffn_norm"),
        ("mlp_after", "post_ffw_norm"),
        ("query_norm", "attn_q_norm"),
        ("key_norm", "attn_k_norm"),
    ],
    projections: Projections::Apart { query: "attn_q", key: "attn_k", value: "attn_v" },
    attention_output: "attn_output",
    into: Into::Gated { gate: "ffn_gate", up: "ffn_up" },
    down: "ffn_down",
    transposed: false,
    pairs: false,
    norm_offset: 0.0,
    masks: &[],
    aside: &[],
};

/// The names where one matrix makes queries, keys and values, and nothing gates the MLP.
pub(super) const FUSED: Names =
    Names { projections: Projections::Stacked("attn_qkv"), into: Into::Plain("ffn_up"), ..NAMES };

const UNEMBEDDING: &str = "output.weight";

/// The keys of one file, and its tensors, which say what the format has no keys for.
pub(super) struct Header<'a> {
    pub(super) keys: &'a Keys,
    pub(super) weights: &'a Weights,
    architecture: &'a str,
}

impl<'a> Header<'a> {
    pub(super) fn new(keys: &'a Keys, weights: &'a Weights) -> Result<Self> {
        Ok(Self { keys, weights, architecture: keys.text("general.architecture")? })
    }

    /// The whole name of a key.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.keys.size(&self.key(key))
    }

    pub(super) fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.keys.optional_size(&self.key(key))
    }

    pub(super) fn positive(&self, key: &str) -> Result<f64> {
        self.keys.positive(&self.key(key))
    }

    pub(super) fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        self.keys.optional_positive(&self.key(key))
    }

    /// The configuration of an architecture like llama ([`base`]). Biases, and whether the unembedding is the embedding, are
    /// there if their tensors are.
    pub(super) fn like_llama(&self, family: &'static str) -> Result<Config> {
        let keys = self.keys;
        let (width, heads) = (self.size("embedding_length")?, self.size("attention.head_count")?);
        let head_dim = match self.optional_size("attention.key_length")? {
            Some(given) => given,
            None => even_head(keys, &self.key("attention.head_count"), width, heads)?,
        };
        keys.must_be(&self.key("attention.value_length"), head_dim)?;
        let has = |part: &str| self.weights.contains(&format!("blk.0.{part}.bias"));
        Ok(Config {
            layers: self.size("block_count")?,
            kv_heads: self.optional_size("attention.head_count_kv")?.unwrap_or(heads),
            mlp_width: self.size("feed_forward_length")?,
            vocab: self.vocab()?,
            context: self.size("context_length")?,
            tied: !self.weights.contains(UNEMBEDDING),
            bias: Bias {
                query_key_value: has("attn_q") || has("attn_qkv"),
                attention_output: has("attn_output"),
                mlp: has("ffn_up"),
            },
            ..base(family, width, heads, head_dim)
        })
    }

    /// How many tokens there are: as many as the embedding has rows, where no key says it.
    fn vocab(&self) -> Result<usize> {
        if let Some(given) = self.optional_size("vocab_size")? {
            return Ok(given);
        }
        let embedding = self.weights.entries().find(|entry| entry.name == "token_embd.weight");
        embedding
            .and_then(|entry| entry.shape.first().copied())
            .ok_or_else(|| self.weights.bad("token_embd.weight", "the tensor is missing"))
    }

    /// Root-mean-square norms with the eps that is given.
    pub(super) fn rms(&self) -> Result<Norm> {
        Ok(Norm::Rms { eps: self.positive("attention.layer_norm_rms_epsilon")? })
    }

    /// The eps of norms with mean and variance.
    pub(super) fn eps(&self) -> Result<f64> {
        self.positive("attention.layer_norm_epsilon")
    }

    /// How the first `width` numbers of a head turn.
    pub(super) fn rotary(&self, width: usize) -> Result<Rotary> {
        let theta = self.positive("rope.freq_base")?;
        self.keys.must_be(&self.key("rope.dimension_count"), width)?;
        let scaling = self.key("rope.scaling.type");
        let kind = if self.keys.get(&scaling).is_some() { self.keys.text(&scaling)? } else { "none" };
        let factors = match kind {
            "none" => self.factors("rope_freqs.weight", width)?.map(Scaling::Factors),
            "linear" => Some(Scaling::Factors(vec![self.positive("rope.scaling.factor")?; width / 2])),
            other => {
                let problem = format!("{other:?} is not supported; supported: none, linear");
                return Err(self.keys.bad(&scaling, problem));
            }
        };
        // Says how a model was made, not what it is.
        self.keys.get(&self.key("rope.scaling.finetuned"));
        Ok(Rotary { width, theta, scaling: factors.unwrap_or(Scaling::None) })
    }

    /// What each frequency is divided by, where there is such a tensor.
    pub(super) fn factors(&self, name: &str, width: usize) -> Result<Option<Vec<f64>>> {
        if !self.weights.contains(name) {
            return Ok(None);
        }
        let factors = self.weights.take(name, &[width / 2])?.to_vec1::<f32>()?;
        if factors.iter().any(|factor| *factor <= 0.0) {
            return Err(self.weights.bad(name, "holds a factor that is not above 0"));
        }
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }

    /// The last checks: every key of the architecture accounted for, sizes that fit each other. Keys of other
    /// namespaces say where a file comes from; the tokenizer's are checked where the tokenizer is built.
    pub(super) fn finish(&self, config: Config) -> Result<Config> {
        self.keys.finish(&self.key(""))?;
        let sizes = Sizes {
            layers: &self.key("block_count"),
            heads: &self.key("attention.head_count"),
            kv_heads: &self.key("attention.head_count_kv"),
            head_dim: &self.key("attention.key_length"),
        };
        check(self.keys, &sizes, config)
    }
}
