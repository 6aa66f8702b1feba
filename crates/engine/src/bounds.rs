//! How large the numbers of a file may be: the only place that knows.
//!
//! Experiment files, causal models, data sets and checkpoints may hold any 64-bit number. Each count that is computed with
//! has a [`Count`] here and is checked where it enters: arithmetic on checked counts then fits in 64 bits, and no loop runs
//! longer than its numbers allow. Programs that build experiments without a file are held to the same limits.
//!
//! Three kinds of numbers have no entry. Seeds are mixed by wrapping arithmetic, so any `u64` fits. Token ids are compared
//! with the vocabulary. Layers, positions, heads and dimensions are resolved against the model and the run
//! ([`causalcone_model::Indices`]).

use crate::{Error, Result};

/// Cells of a sweep, over all examples.
pub(crate) const CELLS: u128 = 4_000_000;
/// Examples of a data set: lines that are not blank.
pub(crate) const EXAMPLES: usize = 1 << 16;
/// Runs and edits of all examples together: each example has its own.
pub(crate) const PARTS: usize = 1 << 22;
/// Runs and edits of an experiment file. Their names are compared pair by pair.
pub(crate) const RUNS: usize = 1024;
pub(crate) const EDITS: usize = 4096;
/// Dimensions that the parts of a partition name together.
pub(crate) const DIMS: i64 = 1 << 20;
/// Numbers of one parameter that is drawn: 1 GiB. A larger one belongs in a file.
pub(crate) const DRAWN: usize = 1 << 28;

/// A count that a file may give: its table and key, and what fits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    /// The table or part of the file.
    part: &'static str,
    pub(crate) key: &'static str,
    least: usize,
    most: usize,
    /// What to do where it does not fit.
    hint: &'static str,
}

const fn count(
    part: &'static str,
    key: &'static str,
    least: usize,
    most: usize,
    hint: &'static str,
) -> Count {
    Count { part, key, least, most, hint }
}

/// Updates of a fit. A thousand a second would make so many in a day.
const UPDATES: usize = 100_000_000;

const SHORTER: &str = "train for fewer updates; `patience` stops a fit that no longer improves";
const OFTEN: &str = "no fit has more updates than this";

pub(crate) const TRAIN_EPOCHS: Count = count("train", "epochs", 1, 1_000_000, SHORTER);
pub(crate) const TRAIN_STEPS: Count = count("train", "steps", 1, UPDATES, SHORTER);
pub(crate) const TRAIN_WARMUP: Count = count("train", "warmup", 0, UPDATES, OFTEN);
pub(crate) const TRAIN_EVALUATE: Count = count("train", "evaluate", 1, UPDATES, OFTEN);
pub(crate) const TRAIN_PATIENCE: Count =
    count("train", "patience", 1, UPDATES, "leave `patience` out to train to the end");
pub(crate) const TRAIN_CHECKPOINT: Count = count("train", "checkpoint", 1, UPDATES, OFTEN);
pub(crate) const TRAIN_BATCH: Count =
    count("train", "batch", 1, 1 << 20, "no data set has more examples than 65536");
pub(crate) const TRAIN_ACCUMULATE: Count =
    count("train", "accumulate", 1, 1 << 20, "no data set has more batches than 65536");

pub(crate) const SWEEP_SAMPLES: Count =
    count("sweep", "samples", 1, CELLS as usize, "each sample is a cell or more");
/// Each is a forward and a backward pass.
pub(crate) const SWEEP_STEPS: Count =
    count("sweep", "steps", 1, 10_000, "the mean along the path rarely changes after 100 steps");

pub(crate) const READ_TOP: Count =
    count("read", "top", 0, 1 << 24, "no vocabulary is larger; a large number lists all tokens");

pub(crate) const GENERATE_MAX_TOKENS: Count = count(
    "generate",
    "max_tokens",
    1,
    1 << 24,
    "no context is longer; a text ends where the context is full",
);
pub(crate) const GENERATE_SAMPLES: Count =
    count("generate", "samples", 1, 1 << 16, "draw more with another seed");
pub(crate) const GENERATE_TOP_K: Count =
    count("generate", "top_k", 1, 1 << 24, "leave `top_k` out to sample from all tokens");

/// The largest published autoencoders have so many latents.
pub(crate) const RANK: Count = count("parameters", "rank", 1, 1 << 24, "read larger parameters from a file");

pub(crate) const CAUSAL_EXAMPLES: Count = count(
    "examples",
    "examples",
    1,
    EXAMPLES,
    "a data set has at most this many; draw more with another seed",
);
pub(crate) const CAUSAL_HELD_OUT_EXAMPLES: Count =
    Count { part: "held_out_examples", key: "held_out_examples", ..CAUSAL_EXAMPLES };

impl Count {
    /// What is wrong with a number, and what to do; nothing where it fits.
    pub(crate) fn wrong(&self, given: usize) -> Option<(String, String)> {
        let Self { key, least, most, .. } = *self;
        let problem = format!("`{key}` must be from {least} to {most}, got {given}");
        (!(least..=most).contains(&given)).then(|| (problem, self.hint.to_owned()))
    }

    /// The same number, checked.
    pub(crate) fn check(&self, given: usize) -> Result<usize> {
        match self.wrong(given) {
            None => Ok(given),
            Some((problem, hint)) => Err(Error::hinted(self.part, problem, Some(hint))),
        }
    }
}

/// Checks a number that is computed with in `f32`. The error names the key and the range.
pub(crate) fn real(
    part: &str,
    key: &str,
    given: f64,
    fits: impl Fn(f64) -> bool,
    range: &str,
) -> Result<f64> {
    // One that is finite as f64 only would be infinite in every tensor.
    if (given as f32).is_finite() && fits(given) {
        return Ok(given);
    }
    Err(Error::part(part, format!("`{key}` must be {range}, got {given}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fit_from_the_least_to_the_most() {
        assert_eq!(TRAIN_STEPS.check(UPDATES).ok(), Some(UPDATES));
        assert_eq!(TRAIN_WARMUP.check(0).ok(), Some(0));
        for given in [0, UPDATES + 1, usize::MAX] {
            let error = TRAIN_STEPS.check(given).unwrap_err();
            assert_eq!(error.to_string(), format!("train: `steps` must be from 1 to 100000000, got {given}"));
            assert!(error.hint().is_some());
        }
    }

    /// Products that the code takes of checked counts fit, whatever the file says.
    #[test]
    fn products_of_the_largest_counts_fit() {
        let all =
            |factors: &[usize]| factors.iter().try_fold(1u64, |product, x| product.checked_mul(*x as u64));
        let cells = CELLS as usize;
        // Updates of all fits of a search, for the progress bar.
        assert!(all(&[cells, TRAIN_STEPS.most]).is_some());
        assert!(all(&[cells, TRAIN_EPOCHS.most, 2 * EXAMPLES]).is_some());
        // Passes of estimates.
        assert!(all(&[EXAMPLES, SWEEP_STEPS.most]).is_some());
        // Draws of a causal model, two numbers for each of its runs.
        assert!(all(&[CAUSAL_EXAMPLES.most, 200, 2, RUNS]).is_some());
    }
}
