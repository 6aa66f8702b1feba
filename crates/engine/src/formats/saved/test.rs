//! The self-test of a saved intervention.

use super::format::{TestFile, Top};
use super::intervention::Saved;
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::{Error, ExperimentFile, Result};
use causalcone_model::Model;

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
    one.sweep(None);
    let read = one.reading_run()?;
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
fn answer(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Vec<Top>> {
    let run = experiment.reading_run()?;
    let outcome = experiment.execute_with(runtime)?;
    let top = outcome.counterfactual(run).top(LISTED);
    let prob = |record: &crate::metric::TokenRecord| record.prob.unwrap_or(f64::NAN);
    Ok(top.0.iter().map(|record| Top { id: record.id, prob: prob(record) }).collect())
}

impl Saved {
    /// Runs the self-test on a model.
    ///
    /// # Errors
    /// When there is none, the folder does not fit the model, or the test cannot be run.
    pub fn test(&self, model: &Model, runtime: &Runtime<'_>) -> Result<Tested> {
        let part = "self-test";
        self.check(model, true, part)?;
        let Some(test) = &self.description.test else {
            return Err(Error::part(part, format!("{} has none", self.folder.display())));
        };
        let mut file = ExperimentFile { edit: self.edits().to_vec(), ..self.file() };
        let run = |ids: &Vec<u32>| crate::schema::RunFile { ids: Some(ids.clone()), ..Default::default() };
        file.runs = test.runs.iter().map(|(name, ids)| (name.clone(), run(ids))).collect();
        file.read = Some(crate::schema::ReadFile { run: Some(test.read.clone()), ..Default::default() });
        let mut experiment = file.experiment(model)?;
        experiment.names = test.positions.clone();
        let found = answer(&experiment, runtime)?;
        let difference = |(ours, theirs): (&Top, &Top)| (ours.prob - theirs.prob).abs();
        // A number that is none is no agreement.
        let difference = found
            .iter()
            .zip(&test.top)
            .map(difference)
            .fold(0.0, |worst: f64, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) });
        Ok(Tested { found, expected: test.top.clone(), difference, tolerance: test.tolerance })
    }
}
