//! Means over the examples of a data set, or over the samples of noise, with their standard errors.

use crate::compile::axes::one;
use crate::experiment::method::Method;
use crate::metric::Metric;
use crate::plan::{AxisChoices, Coordinates};
use crate::run::prepared::{Column, SweepResult};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The mean of one metric over the cells that are the same choice of every axis.
///
/// With several examples it is over examples, and the samples of an example are averaged first: they
/// are no evidence about other examples. With one example, or none, it is over samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean {
    /// Where the cells stand: a column holds a value only if it is the same for all of them.
    pub at: Coordinates,
    /// The metric.
    pub metric: Metric,
    /// The token, for metrics of one.
    pub token: Option<MeanToken>,
    /// How the numbers were found.
    pub method: Method,
    /// Over how many examples or samples, those whose number is not finite left out.
    pub n: usize,
    /// The mean; `None` where n is 0.
    pub mean: Option<f64>,
    /// The sample standard deviation over √n; `None` where n is below 2.
    pub standard_error: Option<f64>,
    /// The mean of the same without any edit.
    pub base: Option<f64>,
    /// The mean of the same with all edits but the swept ones, where there are others.
    pub fixed: Option<f64>,
}

/// The token, or the answer of several, that a mean is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeanToken {
    /// This one, in every example.
    Same(u32),
    /// The one of this number among those each example reads.
    Numbered(usize),
    /// This answer, in every example.
    SameAnswer(Arc<[u32]>),
    /// The answer of this number among those each example reads.
    NumberedAnswer(usize),
}

/// Where the cells of one mean stand, and the cells, by example.
struct Group {
    at: Coordinates,
    examples: BTreeMap<Option<usize>, Vec<usize>>,
}

impl SweepResult {
    /// The means: choice by choice of the axes, metric by metric, token by token. A choice is the
    /// place in an axis, not what stands there: the third position listed in one example goes with
    /// the third in another.
    ///
    /// ```
    /// use causalcone_engine::{Example, Experiment, Op, PreparedSweep, Runtime, Sweep};
    /// use causalcone_model::{Model, Site};
    ///
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
    /// let model = Model::load(path)?;
    /// let mut exp = Experiment::new(&model);
    /// let base = exp.open_run("base")?;
    /// exp.edit(base, Site::MlpOutput.layers(0), Op::zero())?;
    /// exp.set_tokens(vec![9])?;
    /// exp.set_examples([vec![3, 1, 4], vec![1, 5]].map(|ids| Example::new().prompt("base", ids)));
    /// exp.set_sweep(Sweep::default());
    /// let result = PreparedSweep::new(&exp)?.run(&Runtime::reference())?;
    /// let values: Vec<f64> = result.rows().filter_map(|row| row.value).collect();
    /// let mean = &result.means()[0];
    /// assert_eq!((mean.n, mean.mean), (2, Some((values[0] + values[1]) / 2.0)));
    /// # Ok::<(), causalcone_engine::Error>(())
    /// ```
    pub fn means(&self) -> Vec<Mean> {
        let mut groups: BTreeMap<AxisChoices, Group> = BTreeMap::new();
        for (cell, at) in self.cells.iter().enumerate() {
            let group = groups.entry(at.point).or_insert_with(|| {
                let at = Coordinates { example: None, sample: None, ..at.clone() };
                Group { at, examples: BTreeMap::new() }
            });
            group.at.narrow(at);
            group.examples.entry(at.example).or_default().push(cell);
        }
        let over_examples = self.cells.iter().any(|at| at.example != self.cells[0].example);
        let mut means = Vec::with_capacity(groups.len() * self.columns.len());
        for group in groups.values() {
            for column in 0..self.columns.len() {
                means.push(self.mean(group, column, over_examples));
            }
        }
        means
    }

    fn mean(&self, group: &Group, column: usize, over_examples: bool) -> Mean {
        let Column { metric, token, method } = self.columns[column];
        // Each unit is one number of the mean: an example's cells, or one cell.
        let units = group.examples.values().flat_map(|cells| match over_examples {
            true => vec![cells.as_slice()],
            false => cells.chunks(1).collect(),
        });
        // What has no number of its own has no part in the other means either.
        let units: Vec<(f64, &[usize])> = units
            .filter_map(|cells| Some((average(cells.iter().map(|c| self.values[*c][column]))?, cells)))
            .collect();
        let over = |numbers: &dyn Fn(usize) -> Option<f64>| {
            average(
                units.iter().map(|(_, cells)| average(cells.iter().map(|c| numbers(self.baseline_of[*c])))),
            )
        };
        let n = units.len();
        let mean = average(units.iter().map(|(x, _)| Some(*x)));
        let standard_error = mean.filter(|_| n > 1).map(|mean| {
            let squares: f64 = units.iter().map(|(x, _)| (x - mean).powi(2)).sum();
            (squares / (n - 1) as f64 / n as f64).sqrt()
        });
        let baselines = || group.examples.values().flatten().map(|cell| self.baseline_of[*cell]);
        let tokens = self.tokens.first().map_or(0, |tokens| tokens.len());
        let token = token.map(|number| match number.checked_sub(tokens) {
            None => {
                let ids = baselines().filter_map(|baseline| self.tokens[baseline].get(number).copied());
                one(ids).map_or(MeanToken::Numbered(number), MeanToken::Same)
            }
            Some(answer) => {
                let mut answers = baselines().filter_map(|baseline| self.answer(baseline, number));
                let first = answers.next();
                let same = first.filter(|first| answers.all(|other| other == *first));
                same.map_or(MeanToken::NumberedAnswer(answer), |same| MeanToken::SameAnswer(same.clone()))
            }
        });
        Mean {
            at: group.at.clone(),
            metric,
            token,
            method,
            n,
            mean,
            standard_error,
            base: over(&|baseline| self.base[baseline].get(column).copied().flatten()),
            fixed: over(&|baseline| self.fixed[baseline].as_ref()?.get(column).copied().flatten()),
        }
    }
}

impl Coordinates {
    /// Leaves only what another cell has too.
    pub(crate) fn narrow(&mut self, other: &Self) {
        fn same<T: PartialEq>(ours: &mut Option<T>, theirs: &Option<T>) {
            if ours != theirs {
                *ours = None;
            }
        }
        same(&mut self.site, &other.site);
        same(&mut self.layer, &other.layer);
        same(&mut self.head, &other.head);
        same(&mut self.position, &other.position);
        same(&mut self.scale, &other.scale);
        if self.layers != other.layers {
            self.layers.clear();
        }
    }
}

/// The mean of the numbers there are.
fn average(numbers: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, n) = numbers.flatten().fold((0.0, 0usize), |(sum, n), x| (sum + x, n + 1));
    (n > 0).then(|| sum / n as f64)
}
