//! How texts are generated, as experiment files say it.

use serde::{Deserialize, Serialize};

/// How a run goes on after its prompt: `[generate]` in experiment files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Generation {
    /// The most tokens it grows by.
    pub max_tokens: usize,
    /// Tokens are drawn from the softmax of the logits divided by this; the likeliest is taken where it is none, or 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Only of so many of the likeliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Only of the likeliest that together reach this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// What is drawn is a function of this, the example, the sample and the step alone.
    pub seed: u64,
    /// Texts that end it, and are no part of it.
    pub stop: Vec<String>,
    /// Whether a token that ends a text ([`Model::eos_ids`](causalcone_model::Model::eos_ids)) ends it; the id is then the
    /// last, and no part of the text.
    pub eos: bool,
    /// How many texts are drawn.
    pub samples: usize,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            max_tokens: 64,
            temperature: None,
            top_k: None,
            top_p: None,
            seed: 0,
            stop: Vec::new(),
            eos: true,
            samples: 1,
        }
    }
}
