//! What one decoder needs to know about a model: sizes, and the choices families make.

use causalcone_ops::Activation;

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
    /// Which norm, everywhere.
    pub norm: Norm,
    /// How positions enter.
    pub positions: Positions,
    /// What stands between the two projections of the MLP.
    pub mlp: Mlp,
    /// Whether the scores of layer i are divided by i + 1 on top of √D.
    pub scale_by_layer: bool,
    /// Whether scores are divided by √D at all.
    pub scale_by_width: bool,
    /// Whether the unembedding is the token embedding.
    pub tied: bool,
    /// Where the projections have biases.
    pub bias: Bias,
}

/// The norm before each half of a block and after the last one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Mean and variance, weight and bias.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
    /// Root mean square, weight only.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
}

/// How a model knows where a token stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// A learned vector a position, added to the token embedding.
    Learned,
    /// Queries and keys are rotated.
    Rotary {
        /// The base of the angular frequencies.
        theta: f64,
    },
}

/// The feed-forward half of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mlp {
    /// The non-linearity.
    pub activation: Activation,
    /// Whether a second projection, "up", multiplies its output.
    pub gated: bool,
}

/// Which projections have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bias {
    /// Queries, keys, values and attention output.
    pub attention: bool,
    /// The projections of the MLP.
    pub mlp: bool,
}

impl Config {
    /// What scores of layer `layer` are multiplied by before the mask and softmax.
    pub fn score_scale(&self, layer: usize) -> f64 {
        let by_width = if self.scale_by_width { (self.head_dim as f64).sqrt() } else { 1.0 };
        let by_layer = if self.scale_by_layer { layer as f64 + 1.0 } else { 1.0 };
        1.0 / (by_width * by_layer)
    }

    /// Number of weights, learned positions included, a tied unembedding counted once.
    pub fn parameters(&self) -> usize {
        let (d, q, kv, m) =
            (self.width, self.heads * self.head_dim, self.kv_heads * self.head_dim, self.mlp_width);
        let norm = match self.norm {
            Norm::Layer { .. } => 2 * d,
            Norm::Rms { .. } => d,
        };
        let ups = if self.mlp.gated { 2 } else { 1 };
        let attention = 2 * d * q + 2 * d * kv + if self.bias.attention { q + 2 * kv + d } else { 0 };
        let mlp = (ups + 1) * d * m + if self.bias.mlp { ups * m + d } else { 0 };
        let positions = if self.positions == Positions::Learned { self.context * d } else { 0 };
        let unembedding = if self.tied { 0 } else { self.vocab * d };
        self.vocab * d + positions + self.layers * (2 * norm + attention + mlp) + norm + unembedding
    }
}
