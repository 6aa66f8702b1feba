//! What the self-test of a saved intervention compares: answers in the folder with answers now.

use super::format::{TestFile, Top};
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::{Error, Result};

/// How far a probability may be from the saved one: rounding differs between machines, by far less.
const TOLERANCE: f64 = 1e-4;
/// How many tokens are compared.
const LISTED: usize = 5;

/// What a self-test found.
#[derive(Debug, Clone)]
pub struct Tested {
    /// The likeliest tokens now.
    pub found: Vec<Top>,
    /// Those told in the folder.
    pub expected: Vec<Top>,
    /// The largest difference of a probability.
    pub difference: f64,
    /// How large it may be.
    pub tolerance: f64,
}

impl Tested {
    /// Whether the tokens are those told, and their probabilities as near as they must be.
    pub fn passed(&self) -> bool {
        let ids = |list: &[Top]| list.iter().map(|top| top.id).collect::<Vec<_>>();
        ids(&self.found) == ids(&self.expected) && self.difference <= self.tolerance
    }
}

/// What the model answers with an experiment's edits; with a data set, in its first example that fits.
pub(super) fn expected(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<TestFile> {
    let mut first = None;
    let mut problem = Error::part("save", "there is no example to test with");
    for one in experiment.by_example() {
        match one.and_then(|one| one.check().map(|()| one)) {
            Ok(one) => {
                first = Some(one);
                break;
            }
            Err(error) => problem = error,
        }
    }
    let Some(mut one) = first else { return Err(problem) };
    one.set_sweep(None);
    let read = one.read_run()?;
    let top = answer(&one, runtime)?;
    Ok(TestFile {
        runs: one.runs.iter().map(|run| (run.name.to_string(), run.ids.to_vec())).collect(),
        positions: one.names.clone(),
        read: one.runs[read.0].name.to_string(),
        top,
        tolerance: TOLERANCE,
    })
}

/// The likeliest tokens of the run that is read, with the experiment's edits.
pub(crate) fn answer(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Vec<Top>> {
    let run = experiment.read_run()?;
    let outcome = experiment.execute_with(runtime)?;
    let top = outcome.counterfactual(run).top(LISTED);
    let prob = |record: &crate::metric::TokenRecord| record.prob.unwrap_or(f64::NAN);
    Ok(top.0.iter().map(|record| Top { id: record.id, prob: prob(record) }).collect())
}
