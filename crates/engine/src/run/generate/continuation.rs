//! Texts that were generated, and those that are growing.

use serde::{Deserialize, Serialize};

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It has as many tokens as were asked for.
    MaxTokens,
    /// The model said a token that ends a text.
    Eos,
    /// A stop text came.
    Stop,
    /// The model's context is full.
    Context,
    /// What the model would say next has no probabilities: an edit made its numbers overflow.
    NotFinite,
    /// The caller asked to stop.
    Interrupted,
}

/// What a run went on with.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuation {
    /// Of which example, where it is of one.
    pub example: Option<usize>,
    /// At which strength, where the sweep has scales; the text without edits is beside each.
    pub scale: Option<f64>,
    /// Which of the samples.
    pub sample: usize,
    /// The new tokens.
    pub ids: Vec<u32>,
    /// What they say behind the prompt, up to a stop text or the end-of-text token.
    pub text: String,
    /// The natural logarithm of each token's probability, at a temperature of 1.
    pub logprobs: Vec<f64>,
    /// Why it ended.
    pub end: End,
}

/// The texts of an experiment, in the order of examples, scales and samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Texts {
    /// Of the read run with none of the edits.
    pub original: Vec<Continuation>,
    /// Of the read run with all of them.
    pub counterfactual: Vec<Continuation>,
}

/// A text that has grown by a token.
#[derive(Debug, Clone, Copy)]
pub struct Grown<'a> {
    /// Of which example, where it is of one.
    pub example: Option<usize>,
    /// Whether with the edits.
    pub edited: bool,
    /// Which of the samples.
    pub sample: usize,
    /// How many tokens it has.
    pub tokens: usize,
    /// The text so far, as far as what comes cannot change it.
    pub text: &'a str,
}
