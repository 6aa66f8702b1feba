//! The schema of `[train]`, and what it asks for.

use super::edit::{EditRefFile, TensorFile};
use crate::Result;
use crate::bounds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[train]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainFile {
    /// The edits that train, by index or name; all with parameters if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edits: Option<Vec<EditRefFile>>,
    /// "cross_entropy", "logit_diff" or { kl = "RUN" }.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective: Option<ObjectiveFile>,
    /// Passes over the examples; 10 if neither is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Updates, in place of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Examples in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Batches in an update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accumulate: Option<usize>,
    /// "adam" or "adamw".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerFile>,
    /// β₁ and β₂.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub betas: Option<[f64; 2]>,
    /// ε.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// The learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Learning rates of parameters by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learning_rates: BTreeMap<String, f64>,
    /// How fast numbers shrink by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// "constant", "linear" or "cosine".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Updates over which the learning rate rises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<usize>,
    /// The temperature of masks at the start and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<TemperatureFile>,
    /// How much of the loss is what masks exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// "cayley", "householder" or "exponential".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotations: Option<RotationsFile>,
    /// The seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A file of examples, or the part of the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOutFile>,
    /// Updates between two evaluations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<usize>,
    /// Evaluations without a lower loss after which it stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Updates between two checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<usize>,
    /// Whether all labels may be one token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_label: bool,
}

/// `objective`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"cross_entropy\", \"logit_diff\" or { kl = \"RUN\" }")]
pub enum ObjectiveFile {
    /// By name.
    Name(String),
    /// The divergence from what a run says.
    Kl(KlFile),
}

/// `{ kl = "RUN" }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlFile {
    /// The run.
    pub kl: String,
}

/// `optimizer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerFile {
    /// Decay is part of the gradient.
    Adam,
    /// Decay is apart from it.
    AdamW,
}

/// `{ from = 50.0, to = 0.1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemperatureFile {
    /// At the first update.
    pub from: f64,
    /// At the last.
    pub to: f64,
}

/// `rotations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "\"cayley\", \"householder\", \"exponential\" or { base = { file = \"FILE\" } }"
)]
pub enum RotationsFile {
    /// By name.
    Name(String),
    /// Householder reflections of a base of one's own.
    Base(BaseFile),
}

/// `{ base = { file = "FILE", tensor = "…" } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// The square matrix.
    pub base: TensorFile,
}

/// `held_out`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a file of examples, or a part between 0 and 1")]
pub enum HeldOutFile {
    /// So much of the data set.
    Part(f64),
    /// A data set of its own.
    File(String),
}

impl TrainFile {
    /// Updates between two checkpoints, where it says.
    ///
    /// # Errors
    /// When the number does not fit.
    pub fn checkpoint_every(&self) -> Result<Option<usize>> {
        self.checkpoint.map(|every| bounds::TRAIN_CHECKPOINT.check(every)).transpose()
    }

    /// The files it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let held = match &self.held_out {
            Some(HeldOutFile::File(file)) => Some(file.as_str()),
            _ => None,
        };
        let base = match &self.rotations {
            Some(RotationsFile::Base(base)) => Some(base.base.file.as_str()),
            _ => None,
        };
        held.into_iter().chain(base)
    }
}
