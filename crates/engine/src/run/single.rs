//! A single experiment: all its runs once, edited and unedited.

use crate::error::{Error, Result};
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::experiment::spaces::{MissingSpace, Spaced};
use crate::ids::RunId;
use crate::metric::{Distribution, Top, answer_logprobs};
use crate::plan::Plan;
use crate::plan::collected::Collected;
use crate::reading::Reading;
use crate::run::collect::collect;
use causalcone_model::Model;
use std::sync::Arc;

impl<'m> Experiment<'m> {
    /// Runs everything once, edited and unedited.
    ///
    /// # Errors
    /// When the experiment contradicts itself or a computation fails.
    pub fn execute(&self) -> Result<Outcome<'m>> {
        self.execute_with(&Runtime::default())
    }

    /// [`Experiment::execute`] with a runtime of one's own.
    ///
    /// # Errors
    /// As [`Experiment::execute`].
    pub fn execute_with(&self, runtime: &Runtime<'_>) -> Result<Outcome<'m>> {
        if self.examples.is_some() {
            let hint = Some("execute each experiment of by_example".into());
            return Err(Error::hinted("examples", "an experiment with a data set has many outcomes", hint));
        }
        let plan = self.plan_all_runs()?;
        let cells: Vec<_> =
            plan.baselines.iter().map(|baseline| &baseline.original).chain(&plan.cells).collect();
        let mut readings = collect(runtime, self.model, &plan, &cells)?.into_iter();
        let mut originals = readings.next().unwrap_or_default();
        let mut edited = readings.next().unwrap_or_default();
        // The distributions of all runs, then what is collected, then what answers of several tokens are made of.
        let rows = self.answers.iter().map(|answer| answer.len() - 1).sum::<usize>();
        let rest = |all: &mut Vec<Reading>| all.split_off(all.len() - rows.min(all.len()));
        let (before, after) = (rest(&mut originals), rest(&mut edited));
        let collected = edited.split_off(edited.len().min(self.runs.len()));
        let logits =
            |of_runs: Vec<Reading>| of_runs.iter().map(Distribution::read).collect::<Result<Vec<_>>>();
        let nothing = Distribution::new(Vec::new());
        let (originals, counterfactuals) = (logits(originals)?, logits(edited)?);
        let answered = self.answered_run()?;
        let of = |all: &[Distribution], rows: &[Reading]| match answered.and_then(|run| all.get(run.0)) {
            Some(first) => self.answer_logprobs(first, rows),
            None => Ok(Vec::new()),
        };
        let both = of(&originals, &before)?.into_iter().zip(of(&counterfactuals, &after)?);
        let answers = self.answers.iter().zip(both);
        let said = |(ids, (original, counterfactual)): (&Arc<[u32]>, _)| AnswerProb {
            ids: ids.clone(),
            original,
            counterfactual,
        };
        let answers: Vec<AnswerProb> = answers.map(said).collect();
        let read = self.read_run().ok().and_then(|run| originals.get(run.0));
        let missing_spaces = read.map_or_else(Vec::new, |original| {
            let answers = answers.iter().map(|said| (&said.ids, said.original));
            Spaced::among(&self.spaced(None), self.model, self.example(), original, &answers)
        });
        Ok(Outcome {
            model: self.model,
            answers,
            missing_spaces,
            originals,
            counterfactuals,
            collected: self.collected(&plan, collected),
            nothing,
        })
    }

    /// The natural logarithms of the probabilities of the answers, given the distribution of their first token and, of
    /// each in turn, those of its others.
    pub(crate) fn answer_logprobs(&self, first: &Distribution, rows: &[Reading]) -> Result<Vec<f64>> {
        answer_logprobs(&self.answers, first, rows)
    }

    /// Pairs the activations read for `collect` edits with where they stand.
    fn collected(&self, plan: &Plan, readings: Vec<Reading>) -> Vec<Collected> {
        let reads = plan.cells.iter().flat_map(|cell| cell.reads.iter().skip(self.runs.len()));
        reads
            .zip(readings)
            .filter_map(|(read, reading)| match (read, reading) {
                (read, Reading::Activation(tensor)) => Collected::new(plan, read, tensor),
                _ => None,
            })
            .collect()
    }
}

/// How likely an answer is, as the natural logarithms of its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerProb {
    /// The ids of its tokens.
    pub ids: Arc<[u32]>,
    /// Without any edit.
    pub original: f64,
    /// With all of them.
    pub counterfactual: f64,
}

/// What an experiment gave: the answer of every run, with and without the edits.
#[derive(Debug)]
pub struct Outcome<'m> {
    model: &'m Model,
    answers: Vec<AnswerProb>,
    missing_spaces: Vec<MissingSpace>,
    originals: Vec<Distribution>,
    counterfactuals: Vec<Distribution>,
    collected: Vec<Collected>,
    /// The answer of runs that are not here.
    nothing: Distribution,
}

/// The next-token distribution of one run.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    model: &'a Model,
    /// The distribution at the run's last position.
    pub distribution: &'a Distribution,
}

impl Answer<'_> {
    /// The likeliest tokens.
    pub fn top(&self, n: usize) -> Top {
        self.distribution.top(self.model, n)
    }

    /// The probability of a text that is one token.
    ///
    /// # Errors
    /// When it is not one token.
    pub fn prob(&self, token: &str) -> Result<f64> {
        Ok(self.distribution.prob(self.model.token_id(token)?))
    }
}

impl Outcome<'_> {
    /// A run with none of the edits.
    /// For a run that is not of this experiment it is empty.
    pub fn original(&self, run: RunId) -> Answer<'_> {
        self.answer(self.originals.get(run.0))
    }

    /// A run with its edits.
    /// For a run that is not of this experiment it is empty.
    pub fn counterfactual(&self, run: RunId) -> Answer<'_> {
        self.answer(self.counterfactuals.get(run.0))
    }

    fn answer<'a>(&'a self, found: Option<&'a Distribution>) -> Answer<'a> {
        Answer { model: self.model, distribution: found.unwrap_or(&self.nothing) }
    }

    /// How likely each of the answers asked for is, after the run that is read.
    pub fn answers(&self) -> &[AnswerProb] {
        &self.answers
    }

    /// The tokens and answers asked for that were probably meant with a space before them.
    pub fn missing_spaces(&self) -> &[MissingSpace] {
        &self.missing_spaces
    }

    /// What `collect` edits read, in file order, a layer each.
    pub fn collected(&self) -> &[Collected] {
        &self.collected
    }
}
