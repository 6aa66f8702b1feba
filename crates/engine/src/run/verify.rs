//! Cells of a finished sweep, computed again the slow and obvious way.

use crate::execute::{Executor, Reference, Ticker};
use crate::experiment::method::Method;
use crate::metric::{Distribution, Metric};
use crate::plan::Cell;
use crate::run::journal::Values;
use crate::run::prepared::{PreparedSweep, SweepResult};
use crate::{Error, Result};
use causalcone_model::{Progress, Report, Unit};
use serde::Serialize;
use std::ops::ControlFlow;

/// How far a probability, or a divergence, may be from the reference executor's.
const PROB_TOLERANCE: f64 = 1e-4;
/// How far a logit x may be, as a part of max(1, |x|).
const LOGIT_TOLERANCE: f64 = 1e-4;

/// What comparing a sweep with the reference executor showed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// How many cells were computed again.
    pub cells: usize,
    /// How many of their numbers were compared.
    pub numbers: usize,
    /// The largest difference, as a part of what is allowed.
    pub worst: f64,
    /// The numbers that are off by more than is allowed.
    pub wrong: Vec<Mismatch>,
}

/// A number that is not the reference executor's.
#[derive(Debug, Clone, Serialize)]
pub struct Mismatch {
    /// The cell, by its place in the sweep.
    pub cell: usize,
    /// The metric.
    pub metric: &'static str,
    /// The token, for metrics of one.
    pub token: Option<u32>,
    /// What the sweep recorded; `None` where it was not finite.
    pub value: Option<f64>,
    /// What the reference executor gives.
    pub reference: Option<f64>,
}

impl PreparedSweep<'_> {
    /// Computes cells again with the reference executor: all of them, or `sample` spread evenly over
    /// the sweep. A probability may differ by 1e-4, a logit x by 1e-4 · max(1, |x|).
    ///
    /// # Errors
    /// When the computation fails, or `report` wishes it to stop.
    pub fn verify(
        &self,
        result: &SweepResult,
        sample: Option<usize>,
        report: Report<'_>,
    ) -> Result<Verification> {
        if !self.methods.contains(&Method::Exact) {
            let hint = Some("add \"exact\" to methods".into());
            return Err(Error::hinted("verify", "the reference executor has no estimates to compare", hint));
        }
        let cells = spread(self.cells(), sample);
        let total = cells.len() as u64;
        let tell =
            |done: usize| report(Progress { what: "verifying", done: done as u64, total, unit: Unit::Cells });
        let (mut verification, mut ticker) = (Verification::default(), Ticker::new());
        let mut rest = cells.as_slice();
        for stretch in self.survey.stretches() {
            let (now, later) = rest.split_at(rest.partition_point(|cell| *cell < stretch.end));
            rest = later;
            if now.is_empty() {
                continue;
            }
            let stretch = self.stretch(stretch)?;
            let plan = &stretch.plan;
            let of_plan = |cell: usize| &plan.cells[cell - stretch.first];
            let originals = stretch.originals();
            let original_of = |cell: usize| originals.of_baseline[of_plan(cell).baseline];
            // An original at a time, since the reference executor keeps the whole logits of each.
            for together in now.chunk_by(|a, b| original_of(*a) == original_of(*b)) {
                let own = originals.baselines[original_of(together[0])];
                let cells = together.iter().map(|cell| of_plan(*cell));
                let needed: Vec<&Cell> = [&plan.baselines[own].original].into_iter().chain(cells).collect();
                let mut original: Option<Distribution> = None;
                Reference.execute(self.model(), plan, &needed, &mut |index, readings| {
                    let (row, rest) =
                        readings.split_first().ok_or_else(|| Error::internal("a cell gave no logits"))?;
                    let row = Distribution::read(row)?;
                    let Some(original) = &original else {
                        original = Some(row);
                        let is_due = ticker.is_due();
                        return Ok(if is_due { tell(verification.cells) } else { ControlFlow::Continue(()) });
                    };
                    let cell = together[index - 1];
                    let in_result = result.baseline_of[cell];
                    let token = |place: usize| result.tokens[in_result].get(place).copied();
                    // The exact numbers come first.
                    let exact = result.columns.iter().take(self.numbers_per_method());
                    let columns: Vec<_> =
                        exact.map(|column| (column.metric, column.token.and_then(token))).collect();
                    let theirs = stretch.numbers((&row, rest), original, of_plan(cell).baseline)?;
                    verification.compare(cell, &columns, &result.values[cell], &theirs);
                    Ok(tell(verification.cells))
                })?;
            }
        }
        Ok(verification)
    }
}

impl Verification {
    fn compare(&mut self, cell: usize, columns: &[(Metric, Option<u32>)], ours: &Values, theirs: &Values) {
        self.cells += 1;
        for (&(metric, token), (value, reference)) in columns.iter().zip(ours.iter().zip(theirs)) {
            self.numbers += 1;
            let off = match (value, reference) {
                (Some(value), Some(reference)) => (value - reference).abs() / tolerance(metric, *reference),
                (None, None) => 0.0,
                _ => f64::INFINITY,
            };
            self.worst = self.worst.max(off);
            if off > 1.0 {
                let (value, reference) = (*value, *reference);
                self.wrong.push(Mismatch { cell, metric: metric.name(), token, value, reference });
            }
        }
    }
}

fn tolerance(metric: Metric, reference: f64) -> f64 {
    match metric {
        Metric::Prob | Metric::Kl | Metric::Accuracy => PROB_TOLERANCE,
        Metric::Logit | Metric::Logprob | Metric::LogitDiff | Metric::Loss => {
            LOGIT_TOLERANCE * reference.abs().max(1.0)
        }
        Metric::Entropy => LOGIT_TOLERANCE * reference.abs().max(1.0),
        // Tokens whose logits differ by less than rounding may change places, the more the denser they are.
        Metric::Rank => 1.0 + 1e-3 * reference.abs(),
    }
}

/// So many of `count` cells, the first and the last among them; all where none is said.
fn spread(count: usize, sample: Option<usize>) -> Vec<usize> {
    match sample {
        Some(1) if count > 0 => vec![count - 1],
        Some(n) if n < count => (0..n).map(|i| i * (count - 1) / (n - 1)).collect(),
        _ => (0..count).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_sweep() {
        assert_eq!(spread(5, None), [0, 1, 2, 3, 4]);
        assert_eq!(spread(5, Some(9)), [0, 1, 2, 3, 4]);
        assert_eq!(spread(9, Some(3)), [0, 4, 8]);
        assert_eq!(spread(9, Some(1)), [8]);
        assert!(spread(0, Some(1)).is_empty());
    }

    #[test]
    fn a_number_that_is_off_is_told() {
        let columns = [(Metric::Prob, Some(3)), (Metric::Logit, Some(3)), (Metric::Kl, None)];
        let mut verification = Verification::default();
        let theirs = vec![Some(0.5), Some(20.0), None];
        verification.compare(0, &columns, &vec![Some(0.500_09), Some(20.001_9), None], &theirs);
        assert!(verification.wrong.is_empty(), "{verification:?}");
        verification.compare(1, &columns, &vec![Some(0.500_11), Some(20.002_1), Some(0.0)], &theirs);
        assert_eq!(verification.wrong.len(), 3);
        assert_eq!((verification.cells, verification.numbers, verification.worst), (2, 6, f64::INFINITY));
    }
}
