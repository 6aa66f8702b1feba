//! Runs the self-test of a saved intervention: its file becomes an experiment here.

use crate::execute::Runtime;
use crate::formats::saved::{Saved, Tested, Top, answer};
use crate::schema::{ExperimentFile, ReadFile, RunFile};
use crate::{Error, Result};
use causalcone_model::Model;

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
        let run = |ids: &Vec<u32>| RunFile { ids: Some(ids.clone()), ..Default::default() };
        file.runs = test.runs.iter().map(|(name, ids)| (name.clone(), run(ids))).collect();
        file.read = Some(ReadFile { run: Some(test.read.clone()), ..Default::default() });
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
