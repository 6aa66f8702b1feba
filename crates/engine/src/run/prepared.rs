//! A sweep, checked: its cells a stretch at a time, and what is recorded of each.

use crate::Result;
use crate::compile::{Basis, Compiled, Survey, methods, metrics};
use crate::cone::Work;
use crate::experiment::Experiment;
use crate::experiment::method::Method;
use crate::experiment::method::STEPS;
use crate::experiment::spaces::{MissingSpace, Spaced};
use crate::metric::answer_logprobs;
use crate::metric::{Distribution, Metric};
use crate::plan::Moves;
use crate::plan::{Coordinates, Plan, Read};
use crate::reading::Reading;
use crate::run::journal::Values;
use causalcone_model::Model;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A sweep compiled and checked, ready to run.
///
/// ```
/// use causalcone_engine::{Each, Experiment, LayerAxis, Op, PreparedSweep, Runtime, Sweep};
/// use causalcone_model::{Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4, 1, 5])?;
/// exp.edit(base, Site::AttentionOutput.layers(..), Op::zero())?;
/// exp.set_tokens(vec![9, 2])?;
/// exp.set_sweep(Sweep { layers: Some(LayerAxis::Each), positions: Some(Each), ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Runtime::reference())?;
/// assert_eq!(result.rows().count(), 3 * 5 * 2);
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct PreparedSweep<'m> {
    experiment: Experiment<'m>,
    pub(crate) survey: Survey,
    pub(crate) metrics: Vec<Metric>,
    /// The exact one first.
    pub(crate) methods: Vec<Method>,
    /// Points of the path of [`Method::Integrated`].
    pub(crate) steps: usize,
}

/// Some of the cells of a sweep, planned. Only one stretch is in memory at a time.
#[derive(Debug)]
pub(crate) struct Stretch<'p, 'm> {
    pub(crate) sweep: &'p PreparedSweep<'m>,
    /// The number of its first cell in the sweep.
    pub(crate) first: usize,
    pub(crate) plan: Plan,
    /// By baseline.
    pub(crate) bases: Vec<Basis>,
    /// By cell, where there are estimates.
    pub(crate) moves: Vec<Moves>,
}

/// What one number of a cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The metric.
    pub metric: Metric,
    /// Which of the tokens read it is of, and then of the answers, where it is of one.
    pub token: Option<usize>,
    /// How it was found.
    pub method: Method,
}

/// What a sweep recorded.
#[derive(Debug, Clone, Default)]
pub struct SweepResult {
    /// Where each cell stands: example by example, sample by sample, in the order of the axes.
    pub cells: Vec<Coordinates>,
    /// The numbers of each cell, one for each of `columns`.
    pub values: Vec<Values>,
    /// What the numbers are: method by method, metric by metric, token by token.
    pub columns: Vec<Column>,
    /// By cell, which of the baselines it is compared with.
    pub baseline_of: Vec<usize>,
    /// By baseline, the token ids of the run that is edited: what positions count.
    pub prompts: Vec<Arc<[u32]>>,
    /// By baseline, the tokens read.
    pub tokens: Vec<Arc<[u32]>>,
    /// By baseline, the answers read, each by the ids of its tokens.
    pub answers: Vec<Arc<[Arc<[u32]>]>>,
    /// By baseline, the same numbers without any edit.
    pub base: Vec<Values>,
    /// By baseline, the same numbers with all edits but the swept ones, where there are others.
    pub fixed: Vec<Option<Values>>,
    /// The tokens and answers read that were probably meant with a space before them, example by example.
    pub missing_spaces: Vec<MissingSpace>,
    /// What was done to get them.
    pub work: Work,
}

/// One row of the tidy table: a cell, a method, a metric, a token.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Where the cell stands.
    pub at: &'a Coordinates,
    /// The metric.
    pub metric: Metric,
    /// The token, for metrics of one.
    pub token: Option<u32>,
    /// The answer, for numbers of one.
    pub answer: Option<&'a Arc<[u32]>>,
    /// How the number was found.
    pub method: Method,
    /// The number; `None` where it is not finite.
    pub value: Option<f64>,
    /// The number without any edit.
    pub base: Option<f64>,
    /// The number with all edits but the swept ones, where there are others.
    pub fixed: Option<f64>,
}

impl SweepResult {
    /// Whether there are examples or samples to take means over.
    pub fn has_means(&self) -> bool {
        self.cells.iter().any(|at| at.example.is_some() || at.sample.is_some())
    }

    /// The answer that the number of a column means, if it is none of a token.
    pub fn answer(&self, baseline: usize, number: usize) -> Option<&Arc<[u32]>> {
        let number = number.checked_sub(self.tokens.get(baseline)?.len())?;
        self.answers.get(baseline)?.get(number)
    }

    /// Whether there are edits besides the swept ones.
    pub fn has_fixed(&self) -> bool {
        self.fixed.iter().any(Option::is_some)
    }

    /// Whether there are other numbers than exact ones.
    pub fn has_estimates(&self) -> bool {
        self.columns.iter().any(|column| column.method != Method::Exact)
    }

    /// All rows: cell by cell, method by method, metric by metric, token by token.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.cells.len()).flat_map(move |cell| {
            let baseline = self.baseline_of[cell];
            self.columns.iter().enumerate().map(move |(i, &Column { metric, token, method })| Row {
                at: &self.cells[cell],
                metric,
                method,
                token: token.and_then(|token| self.tokens[baseline].get(token).copied()),
                answer: token.and_then(|number| self.answer(baseline, number)),
                value: self.values[cell].get(i).copied().flatten(),
                base: self.base[baseline].get(i).copied().flatten(),
                fixed: self.fixed[baseline].as_ref().and_then(|fixed| fixed.get(i).copied().flatten()),
            })
        })
    }
}

/// The bytes that a cell takes as long as a sweep goes on, and while its results are written: its coordinates twice, its
/// place in the table and the figure.
const CELL_BYTES: u64 = 800;
/// The same for each of its numbers.
const NUMBER_BYTES: u64 = 250;
/// The bytes that an example takes: its line, its baselines, and what is remembered of it.
const EXAMPLE_BYTES: u64 = 400;

impl<'m> PreparedSweep<'m> {
    /// Checks the sweep of an experiment, and counts its cells. They are compiled as they are run.
    ///
    /// # Errors
    /// As [`Experiment::plan`].
    pub fn new(experiment: &Experiment<'m>) -> Result<Self> {
        let survey = Survey::new(experiment)?;
        let sweep = experiment.sweep.as_deref();
        Ok(Self {
            survey,
            metrics: sweep.map(metrics).unwrap_or_default(),
            methods: sweep.map(methods).unwrap_or_default(),
            steps: sweep.and_then(|sweep| sweep.steps).unwrap_or(STEPS),
            experiment: experiment.clone(),
        })
    }

    /// How many cells there are.
    pub fn cells(&self) -> usize {
        self.survey.cells()
    }

    /// About how many bytes are held of all cells and their results, beside what computing a few of them takes.
    pub fn record_bytes(&self) -> u64 {
        let (cells, numbers) = (self.cells() as u64, self.columns().len() as u64);
        let examples = self.experiment.example_count().unwrap_or(1) as u64;
        let originals = (self.survey.originals() * self.model().config().vocab * size_of::<f32>()) as u64;
        cells * (CELL_BYTES + numbers * NUMBER_BYTES) + examples * EXAMPLE_BYTES + originals
    }

    /// The plan of some of the cells.
    pub(crate) fn stretch(&self, cells: Range<usize>) -> Result<Stretch<'_, 'm>> {
        let first = cells.start;
        let Compiled { plan, bases, moves } = self.experiment.plan_cells(&self.survey, cells)?;
        Ok(Stretch { sweep: self, first, plan, bases, moves })
    }

    /// What is recorded of each cell.
    pub fn columns(&self) -> Vec<Column> {
        // All examples have as many tokens and answers.
        let (tokens, answers) = self.survey.reads;
        let of = |method: Method| {
            self.metrics.iter().flat_map(move |&metric| {
                let count = tokens + if metric.is_of_answers() { answers } else { 0 };
                let of: Vec<Option<usize>> =
                    if metric.is_per_token() { (0..count).map(Some).collect() } else { vec![None] };
                of.into_iter().map(move |token| Column { metric, token, method })
            })
        };
        self.methods.iter().flat_map(|method| of(*method)).collect()
    }

    /// How many numbers of a cell each method gives.
    pub(crate) fn numbers_per_method(&self) -> usize {
        self.columns().len() / self.methods.len().max(1)
    }

    pub(crate) fn model(&self) -> &'m Model {
        self.experiment.model()
    }

    /// The same numbers beside those of each method.
    pub(crate) fn for_all_methods(&self, numbers: &[Option<f64>]) -> Values {
        numbers.repeat(self.methods.len())
    }
}

/// The unedited runs of a stretch: the samples of an example have one original.
pub(crate) struct Originals {
    /// By original, the first baseline that has it.
    pub(crate) baselines: Vec<usize>,
    /// By baseline, its original.
    pub(crate) of_baseline: Vec<usize>,
}

impl Stretch<'_, '_> {
    /// Its originals, in the order of baselines.
    pub(crate) fn originals(&self) -> Originals {
        let read = |baseline: usize| self.plan.baselines[baseline].original.reads.first().map(Read::run);
        let mut originals = Originals { baselines: Vec::new(), of_baseline: Vec::new() };
        for baseline in 0..self.plan.baselines.len() {
            if originals.baselines.last().is_none_or(|last| read(*last) != read(baseline)) {
                originals.baselines.push(baseline);
            }
            originals.of_baseline.push(originals.baselines.len() - 1);
        }
        originals
    }

    /// The numbers of its cells in the sweep.
    pub(crate) fn cells(&self) -> Range<usize> {
        self.first..self.first + self.plan.cells.len()
    }

    /// What is recorded of a cell whose logits are `row`, and whose other readings are what answers of several tokens
    /// are made of.
    pub(crate) fn numbers(
        &self,
        (row, rest): (&Distribution, &[Reading]),
        original: &Distribution,
        baseline: usize,
    ) -> Result<Values> {
        let (tokens, label) = (self.tokens_in_a_row(baseline), self.bases[baseline].label);
        let answers = answer_logprobs(&self.bases[baseline].answers, row, rest)?;
        let all = self.sweep.metrics.iter().flat_map(|metric| {
            let of_answers = answers.iter().filter_map(|logprob| metric.of_answer(*logprob));
            metric.values(row, original, &tokens, label).into_iter().chain(of_answers)
        });
        Ok(all.map(|x| x.is_finite().then_some(x)).collect())
    }

    /// What is read of an unedited run and was probably meant with a space before it.
    pub(crate) fn missing_spaces(
        &self,
        (row, rest): (&Distribution, &[Reading]),
        baseline: usize,
    ) -> Result<Vec<MissingSpace>> {
        let Basis { tokens, answers, spaced, example, .. } = &self.bases[baseline];
        let reads = &self.plan.baselines[baseline].original.reads;
        match (spaced.is_empty(), reads.first(), rest.last()) {
            (true, ..) => Ok(Vec::new()),
            (_, Some(Read::Logits { tokens: Some(_), .. }), Some(with_spaces)) => {
                let with_spaces = Distribution::read(with_spaces)?;
                Ok(Spaced::among_logits(spaced, self.sweep.model(), *example, (tokens, row), &with_spaces))
            }
            _ => {
                let logprobs = answer_logprobs(answers, row, rest)?;
                let answers = answers.iter().zip(logprobs);
                Ok(Spaced::among(spaced, self.sweep.model(), *example, row, &answers))
            }
        }
    }

    /// The slopes of [`numbers`](Self::numbers) with respect to the logits in `row`.
    pub(crate) fn slopes_of_logits(
        &self,
        row: &Distribution,
        original: &Distribution,
        baseline: usize,
    ) -> Vec<Vec<f32>> {
        let (tokens, label) = (self.tokens_in_a_row(baseline), self.bases[baseline].label);
        self.sweep.metrics.iter().flat_map(|metric| metric.slopes(row, original, &tokens, label)).collect()
    }

    /// Where the tokens of a baseline stand in its rows of logits: where only single logits are read, a row
    /// holds them in their order.
    fn tokens_in_a_row(&self, baseline: usize) -> Cow<'_, [u32]> {
        match self.plan.baselines[baseline].original.reads.first() {
            Some(Read::Logits { tokens: Some(tokens), .. }) => Cow::Owned((0..).take(tokens.len()).collect()),
            _ => Cow::Borrowed(&self.bases[baseline].tokens),
        }
    }
}
