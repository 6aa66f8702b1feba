//! Which examples are trained on, and in which order.

use crate::experiment::Experiment;
use crate::experiment::dataset::Example;
use crate::op::noise::below;
use crate::{Error, Result};

/// Examples that are not trained on, but that tell how well it generalises.
#[derive(Debug, Clone, Default)]
pub enum HeldOut {
    /// None.
    #[default]
    None,
    /// This part of the data set, drawn by the seed.
    Part(f64),
    /// These.
    Examples(Vec<Example>),
}

/// The examples, those trained on first, and how many these are.
pub(super) fn parted(
    experiment: &Experiment<'_>,
    held_out: HeldOut,
    seed: u64,
) -> Result<(Vec<Example>, usize)> {
    let Some(given) = &experiment.examples else {
        let hint = Some("examples = \"FILE\", one example a line".into());
        return Err(Error::hinted("train", "there are no examples to train on", hint));
    };
    let mut all: Vec<Example> = Vec::with_capacity(given.len());
    for example in given.iter() {
        all.push(example.map_err(Error::refused)?);
    }
    let trained = match held_out {
        HeldOut::None => all.len(),
        HeldOut::Part(part) => {
            if !(part > 0.0 && part < 1.0) {
                return Err(Error::part(
                    "train",
                    format!("held_out {part} is no part: between 0 and 1 fits"),
                ));
            }
            // That part of them, rounded, and at least one.
            let is_held = |i: &usize| *i as f64 + 0.5 <= all.len() as f64 * part;
            let held = (0..all.len()).filter(is_held).count().max(1);
            let order = order(seed, u64::MAX, all.len());
            let trained = all.len().saturating_sub(held);
            all = order.into_iter().map(|i| all[i].clone()).collect();
            // As they were among themselves.
            all[..trained].sort_by_key(Example::number);
            all[trained..].sort_by_key(Example::number);
            trained
        }
        HeldOut::Examples(held) => {
            let trained = all.len();
            let next = all.iter().map(|example| example.number() + 1).max().unwrap_or(0);
            all.extend(held.into_iter().enumerate().map(|(i, mut example)| {
                example.origin.number = next + i;
                example
            }));
            trained
        }
    };
    if trained == 0 {
        return Err(Error::part("train", "there are no examples to train on"));
    }
    Ok((all, trained))
}

/// Numbers below n in an order that the seed and the epoch say (Fisher and Yates).
pub(super) fn order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(i + 1, seed, epoch, i as u64));
    }
    order
}
