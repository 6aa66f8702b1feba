//! The table of a search.

use super::scores::Score;
use super::training::Training;
use crate::experiment::method::Method;
use crate::ids::RunId;
use crate::metric::Metric;
use crate::run::prepared::{Column, SweepResult};
use crate::{Error, Result};

impl Training<'_> {
    /// The table of a search from the scores of each fit's [judged examples](super::Fit::scores), and those of the
    /// model without edits: accuracy and loss of every example at every choice of the axes. `scores` has one list a
    /// fit.
    ///
    /// # Errors
    /// When there are not as many scores as there are fits and examples.
    pub fn results(&self, scores: &[Vec<Score>], originals: &[Score]) -> Result<SweepResult> {
        let judged = self.judged();
        let mut result = SweepResult {
            cells: Vec::new(),
            values: Vec::new(),
            columns: [Metric::Accuracy, Metric::Loss]
                .map(|metric| Column { metric, token: None, method: Method::Exact })
                .to_vec(),
            baseline_of: Vec::new(),
            prompts: Vec::new(),
            tokens: Vec::new(),
            answers: Vec::new(),
            base: originals.iter().map(Score::values).collect(),
            fixed: vec![None; originals.len()],
            missing_spaces: Vec::new(),
            work: crate::cone::Work::default(),
        };
        let wrong = || Error::part("train", "the scores are not those of this training");
        if scores.len() != self.points.len() || originals.len() != judged.len() {
            return Err(wrong());
        }
        for (choice, scores) in self.points.iter().zip(scores) {
            let cells = judged.clone().filter_map(|example| Some((example, choice.cells[example]?)));
            let mut scores = scores.iter();
            for (example, cell) in cells {
                result.cells.push(self.plan.cells[cell].at.clone());
                result.values.push(scores.next().ok_or_else(wrong)?.values());
                result.baseline_of.push(example - judged.start);
            }
        }
        for instance in self.experiment.by_example_in(judged.clone()) {
            let instance = instance?;
            let run = instance.edits.first().map_or(RunId(0), |edit| edit.run);
            result.prompts.push(instance.runs[run.0].ids.clone());
            result.tokens.push(instance.tokens.clone().into());
            result.answers.push(instance.answers.clone().into());
        }
        Ok(result)
    }

    /// How many numbers [`Training::results`] has of each fit, before its means: the cells of the judged examples.
    pub fn judged_cells(&self, point: usize) -> usize {
        self.points
            .get(point)
            .map_or(0, |choice| self.judged().filter(|e| choice.cells[*e].is_some()).count())
    }
}
