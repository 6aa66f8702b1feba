//! What one decoder needs to know about a model: sizes, and the choices families make.

use crate::site::Site;
use crate::stage::{Kernel, Matrix, Stages};
use crate::{Error, Result};
use causalcone_ops::Activation;
use std::ops::Range;
use std::sync::Arc;

/// The shape of a decoder. Read from config.json or a GGUF header by its family; nothing that
/// matters has a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The family's name: "gpt2", "llama".
    pub family: &'static str,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the residual stream, d.
    pub width: usize,
    /// Query heads, H.
    pub heads: usize,
    /// Key/value heads, K; divides H.
    pub kv_heads: usize,
    /// Width of one head, D; not always d / H.
    pub head_dim: usize,
    /// Width of the MLP's hidden layer, m.
    pub mlp_width: usize,
    /// Number of tokens, and of logits.
    pub vocab: usize,
    /// The longest prompt.
    pub context: usize,
    /// What layers may differ in, layer by layer.
    pub kinds: Vec<LayerKind>,
    /// Which norm, everywhere.
    pub norm: Norm,
    /// How queries and keys are normed before they turn, where they are.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// Queries, keys and values are held between minus this and this, where given.
    pub clip: Option<f64>,
    /// How positions enter.
    pub positions: PositionEncoding,
    /// The stages of a block.
    pub block: Arc<Stages>,
    /// What stands between the two projections of the MLP.
    pub activation: Activation,
    /// What is done to scores before the mask and softmax.
    pub score: Score,
    /// What token embeddings are multiplied with when they enter layer 0.
    pub embedding_scale: f64,
    /// What bounds the logits, where something does.
    pub logit_softcap: Option<f64>,
    /// Whether the unembedding is the token embedding.
    pub tied: bool,
    /// Where the projections have biases.
    pub bias: Bias,
}

/// What one layer does otherwise than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerKind {
    /// A query sees so many keys, its own and those before it; `None` sees all.
    pub window: Option<usize>,
    /// By which of [`PositionEncoding::Rotary`] its queries and keys turn.
    pub rotary: usize,
}

/// A kind of norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Mean and variance, weight and bias.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
    /// Mean and variance, without parameters.
    Plain {
        /// Added to the variance.
        eps: f64,
    },
    /// Root mean square, weight only.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

impl Norm {
    /// What is added to the variance or mean square.
    pub fn eps(self) -> f64 {
        let (Self::Layer { eps } | Self::Plain { eps } | Self::Rms { eps }) = self;
        eps
    }
}

/// How queries and keys are normed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// Each head by itself, all with the same weight.
    Heads,
    /// All heads as one vector.
    Whole,
}

/// How a model knows where a token stands.
#[derive(Debug, Clone, PartialEq)]
pub enum PositionEncoding {
    /// A learned vector a position, added to the token embedding.
    Learned,
    /// Queries and keys are rotated, in each layer in one of these ways.
    Rotary(Vec<Rotary>),
}

/// A way of rotating queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// How many numbers of a head turn, the first ones.
    pub width: usize,
    /// The base of the angular frequencies.
    pub theta: f64,
    /// How the frequencies differ from those of the base.
    pub scaling: Scaling,
}

/// How a model trained on short prompts reads longer ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// It does not.
    None,
    /// Each frequency is divided by its factor ("linear", "llama3").
    Factors(Vec<f64>),
    /// By other factors in longer prompts than the original ones ("longrope").
    ByLength {
        /// The longest original prompt.
        original: usize,
        /// Factors up to there.
        short: Vec<f64>,
        /// Factors beyond.
        long: Vec<f64>,
        /// How much longer turned queries and keys become.
        magnitude: f64,
    },
}

/// What is done to q·k.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// It is multiplied with this, 1/√D for most,
    pub scale: f64,
    /// divided by i + 1 in layer i, on some GPT-2s,
    pub by_layer: bool,
    /// and bounded by this, where given: cap·tanh(score / cap).
    pub softcap: Option<f64>,
}

/// Which projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bias {
    /// Queries, keys and values.
    pub query_key_value: bool,
    /// The attention output.
    pub attention_output: bool,
    /// The projections of the MLP.
    pub mlp: bool,
}

impl Bias {
    /// The same everywhere.
    pub fn everywhere(is_there: bool) -> Self {
        Self { query_key_value: is_there, attention_output: is_there, mlp: is_there }
    }
}

impl Config {
    /// What scores of layer `layer` are multiplied by before the cap, the mask and softmax.
    pub fn score_scale(&self, layer: usize) -> f64 {
        self.score.scale / if self.score.by_layer { layer as f64 + 1.0 } else { 1.0 }
    }

    /// How many keys a query of that layer sees, its own and those before it; `None` is all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.kinds.get(layer).and_then(|kind| kind.window)
    }

    /// The ways of rotating, none where positions are learned.
    pub fn rotaries(&self) -> &[Rotary] {
        match &self.positions {
            PositionEncoding::Learned => &[],
            PositionEncoding::Rotary(rotaries) => rotaries,
        }
    }

    /// The longest prompt of which every row turns by the short one of two sets of angles, where there are two.
    pub fn longest_original(&self) -> Option<usize> {
        let original = |rotary: &Rotary| match rotary.scaling {
            Scaling::ByLength { original, .. } => Some(original),
            _ => None,
        };
        self.rotaries().iter().find_map(original)
    }

    /// Splits the lengths of a growing text into stretches that one pass can score.
    ///
    /// A pass over the longest text of a stretch computes at each position what a run of the shorter text that ends
    /// there computes. Across stretches this is false: where rotary factors depend on the length, a longer text rotates
    /// all of its rows by other angles.
    pub fn shared_passes(&self, lengths: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let Range { start, end } = lengths;
        let cut = self.longest_original().map_or(end, |longest| (longest + 1).clamp(start, end.max(start)));
        [start..cut, cut..end].into_iter().filter(|stretch| !stretch.is_empty())
    }

    /// The sites of this family: those that others have too, in the order of execution, then its own.
    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        let own = self.block.iter().filter_map(|(_, stage)| stage.site);
        let own = own.filter(|site| Site::all().all(|other| other != *site));
        Site::all().filter(|site| self.lacks(*site).is_none()).chain(own)
    }

    /// Why this family has no such site, if it has none.
    pub fn lacks(&self, site: Site) -> Option<&'static str> {
        self.block.lacks(site)
    }

    /// Whether a second projection, "up", multiplies the activation.
    pub fn is_gated(&self) -> bool {
        self.block.iter().any(|(_, stage)| matches!(stage.kernel, Kernel::Gate(_)))
    }

    /// How many numbers a matrix of a block reads and makes, and whether it has a bias.
    pub fn matrix(&self, matrix: Matrix) -> (usize, usize, bool) {
        let (d, m) = (self.width, self.mlp_width);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match matrix {
            Matrix::Query => (d, q, self.bias.query_key_value),
            Matrix::Key | Matrix::Value => (d, kv, self.bias.query_key_value),
            Matrix::AttentionOutput => (q, d, self.bias.attention_output),
            Matrix::Into | Matrix::Up => (d, m, self.bias.mlp),
            Matrix::Down => (m, d, self.bias.mlp),
        }
    }

    /// How many numbers the norms of queries and of keys read at a time, where there are such norms.
    pub fn query_key_norms(&self) -> Option<[usize; 2]> {
        self.query_key_norm.map(|norm| match norm {
            QueryKeyNorm::Heads => [self.head_dim; 2],
            QueryKeyNorm::Whole => [self.heads * self.head_dim, self.kv_heads * self.head_dim],
        })
    }

    /// Checks that a prompt can run: not empty, no longer than the context, ids in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Prompt`], saying what would fit.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        let problem = if ids.is_empty() {
            "the prompt is empty: a run needs at least one token".into()
        } else if ids.len() > self.context {
            let (n, most) = (ids.len(), self.context);
            format!("the prompt has {n} tokens, and this model's context holds {most}")
        } else if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocab) {
            format!("token id {id} is outside the vocabulary: ids go from 0 to {}", self.vocab - 1)
        } else {
            return Ok(());
        };
        Err(Error::Prompt { problem })
    }

    /// Number of weights, learned positions included, a tied unembedding counted once.
    pub fn parameters(&self) -> usize {
        let d = self.width;
        let of_norm = |width: usize| match self.norm {
            Norm::Layer { .. } => 2 * width,
            Norm::Plain { .. } => 0,
            Norm::Rms { .. } => width,
        };
        let if_so = |is_there: bool, count: usize| if is_there { count } else { 0 };
        let of_matrix = |matrix: Matrix| {
            let (input, output, is_biased) = self.matrix(matrix);
            input * output + if_so(is_biased, output)
        };
        let of_stage = |kernel: &Kernel| match kernel {
            Kernel::Norm(_) | Kernel::Add(Some(_)) => of_norm(d),
            Kernel::Scores(_) => self.query_key_norms().map_or(0, |widths| widths.map(of_norm).iter().sum()),
            other => other.matrix().map_or(0, |matrix| of_matrix(*matrix)),
        };
        let block: usize = self.block.iter().map(|(_, stage)| of_stage(&stage.kernel)).sum();
        let positions = if_so(self.positions == PositionEncoding::Learned, self.context * d);
        let unembedding = if_so(!self.tied, self.vocab * d);
        self.vocab * d + positions + self.layers * block + of_norm(d) + unembedding
    }
}
