//! How far logits are from what they should be, example by example.

use super::options::Objective;
use super::training::Trainer;
use crate::execute::{Session, go_on};
use crate::op::Bound;
use crate::run::journal::Values;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use causalcone_model::{Progress, Report, Unit};
use causalcone_ops::{cross_entropy, kl_divergence};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Examples at once where nothing is differentiated: logits over a vocabulary are large.
const CHUNK: usize = 128;

/// How one example fares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// 1 or 0: whether the likeliest token is the label (or the target's likeliest); of a logit difference, whether
    /// it is positive.
    pub accuracy: f64,
    /// What is minimised.
    pub loss: f64,
}

impl Score {
    /// Its numbers as a table has them, accuracy and loss; what is not finite is empty.
    pub fn values(&self) -> Values {
        [self.accuracy, self.loss].map(|x| Some(x).filter(|x| x.is_finite())).to_vec()
    }

    /// Whether it is of a higher accuracy, or of the same and a lower loss.
    pub fn beats(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy || self.accuracy == other.accuracy && self.loss < other.loss
    }

    /// The mean of some.
    pub fn mean(scores: &[Self]) -> Self {
        let n = scores.len() as f64;
        let mean = |f: fn(&Self) -> f64| scores.iter().map(f).sum::<f64>() / n;
        Self { accuracy: mean(|score| score.accuracy), loss: mean(|score| score.loss) }
    }
}

impl Trainer<'_, '_> {
    /// What the model says of the judged examples (those held out, or all) without any edit.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn originals(&self) -> Result<Vec<Score>> {
        let first = self.training.plan.cells.len();
        let cells: Vec<(usize, usize)> =
            self.training.judged().map(|example| (example, first + example)).collect();
        scores(self, &self.session, &cells, &Bound::default(), &causalcone_model::silent)
    }
}

/// The loss of each example, which autograd follows, and the accuracies.
pub(super) fn losses(
    trainer: &Trainer<'_, '_>,
    session: &Session<'_>,
    (examples, cells): (&[usize], &[usize]),
    bound: &Bound,
) -> Result<(Tensor, Vec<f64>)> {
    let training = trainer.training;
    let label = |example: &usize| {
        training.labels[*example]
            .ok_or_else(|| Error::part("train", format!("example {example} has no label")))
    };
    let agrees = |logits: &Tensor, best: Vec<u32>| -> Result<Vec<f64>> {
        let found = likeliest(logits)?;
        Ok(found.iter().zip(best).map(|(found, best)| f64::from(u8::from(*found == best))).collect())
    };
    Ok(match &training.options.objective {
        Objective::CrossEntropy => {
            let labels: Vec<u32> = examples.iter().map(label).collect::<Result<_>>()?;
            let (losses, logits) = match session.normed(cells, bound)? {
                Some(normed) => training.model().decoder()?.cross_entropy(&normed, &labels)?,
                None => {
                    let logits = session.logits(cells, bound)?;
                    (cross_entropy(&logits, &labels)?, logits)
                }
            };
            (losses, agrees(&logits, labels)?)
        }
        Objective::LogitDiff => {
            let logits = session.logits(cells, bound)?;
            let (first, second) = (logits.narrow(1, 0, 1)?, logits.narrow(1, 1, 1)?);
            let loss = (second - first)?.squeeze(1)?;
            let signs = loss.to_vec1::<f32>()?.iter().map(|x| f64::from(u8::from(*x < 0.0))).collect();
            (loss, signs)
        }
        Objective::Kl(_) => {
            let target = target_logits(trainer, examples)?;
            let target = target.ok_or_else(|| Error::internal("there is no target run"))?;
            let logits = session.logits(cells, bound)?;
            (kl_divergence(&target, &logits)?, agrees(&logits, likeliest(&target)?)?)
        }
        Objective::Custom(loss) => {
            let known =
                examples.iter().map(|example| training.labels[*example].unwrap_or(u32::MAX)).collect();
            let logits = session.logits(cells, bound)?;
            (loss(&logits, examples)?, agrees(&logits, known)?)
        }
    })
}

/// The logits of a target, or nothing.
fn target_logits(trainer: &Trainer<'_, '_>, examples: &[usize]) -> Result<Option<Tensor>> {
    let targets = trainer.targets.as_ref();
    targets.map(|session| Ok(session.logits(examples, &Bound::default())?.detach())).transpose()
}

/// The likeliest token of each row; of equal ones the first.
fn likeliest(logits: &Tensor) -> Result<Vec<u32>> {
    let (_, width) = logits.dims2()?;
    let rows = logits.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let best = |row: &[f32]| {
        let highest =
            row.iter().fold(f32::NEG_INFINITY, |highest, x| if *x > highest { *x } else { highest });
        // Of a row without any number the first, too.
        (0..).zip(row).find(|(_, x)| **x == highest).map_or(0, |(id, _)| id)
    };
    Ok(rows.par_chunks(width.max(1)).map(best).collect())
}

/// The scores of examples, each with its cell of the session.
pub(super) fn scores(
    trainer: &Trainer<'_, '_>,
    session: &Session<'_>,
    examples: &[(usize, usize)],
    bound: &Bound,
    report: Report<'_>,
) -> Result<Vec<Score>> {
    let mut scores = Vec::with_capacity(examples.len());
    for chunk in examples.chunks(CHUNK) {
        let (done, total) = (scores.len() as u64, examples.len() as u64);
        go_on(report(Progress { what: "scoring", done, total, unit: Unit::Examples }))?;
        let cells: Vec<usize> = chunk.iter().map(|(_, cell)| *cell).collect();
        let examples: Vec<usize> = chunk.iter().map(|(example, _)| *example).collect();
        let (losses, accuracies) = losses(trainer, session, (&examples, &cells), bound)?;
        let losses = losses.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
        scores.extend(losses.into_iter().zip(accuracies).map(|(loss, accuracy)| Score { accuracy, loss }));
    }
    Ok(scores)
}
