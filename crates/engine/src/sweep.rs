//! Running a sweep: every cell once, its numbers recorded as they come.

use crate::attribution::{Method, Moves, STEPS};
use crate::compile::{Basis, Compiled, Survey, methods, metrics};
use crate::cone::Work;
use crate::execute::{Executor, Ticker, go_on};
use crate::experiment::{Experiment, answer_logprobs};
use crate::journal::Values;
use crate::metric::{Distribution, Metric};
use crate::plan::{Cell, Coordinates, Plan, Read, Reading};
use crate::spaces::{MissingSpace, Spaced};
use crate::{Error, Result};
use causalcone_model::{Model, Progress, Report, Unit};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// A sweep compiled and checked, ready to run.
///
/// ```
/// use causalcone_engine::{Experiment, LayerAxis, Op, PreparedSweep, Reference, Sweep};
/// use causalcone_model::{Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4, 1, 5])?;
/// exp.edit(base, Site::AttentionOutput.layers(..), Op::zero())?;
/// exp.tokens(vec![9, 2])?;
/// exp.sweep(Sweep { layers: Some(LayerAxis::Each), positions: true, ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Reference)?;
/// assert_eq!(result.rows().count(), 3 * 5 * 2);
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct PreparedSweep<'m> {
    experiment: Experiment<'m>,
    pub(crate) survey: Survey,
    metrics: Vec<Metric>,
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
    bases: Vec<Basis>,
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

    /// Runs every cell.
    ///
    /// # Errors
    /// When a computation fails.
    pub fn run(&self, executor: &dyn Executor) -> Result<SweepResult> {
        self.resume(executor, BTreeMap::new(), &causalcone_model::silent, |_| Ok(()))
    }

    /// Runs every cell not yet in `done`. `record` gets finished cells a few at a time; only then
    /// `report` hears of them.
    ///
    /// # Errors
    /// When the memory the executor may take is too little for the cells and their results; what `record` returns;
    /// [`Error::Interrupted`] if `report` says so, with everything finished until then recorded; a failed computation.
    pub fn resume(
        &self,
        executor: &dyn Executor,
        done: BTreeMap<usize, Values>,
        report: Report<'_>,
        mut record: impl FnMut(&[(usize, Values)]) -> Result<()>,
    ) -> Result<SweepResult> {
        let rest = self.beside_record(executor)?;
        let executor = rest.as_deref().unwrap_or(executor);
        let total = self.cells() as u64;
        let tell =
            |done: usize| report(Progress { what: "sweeping", done: done as u64, total, unit: Unit::Cells });
        let mut result = SweepResult { columns: self.columns(), ..SweepResult::default() };
        let mut running =
            Running { values: done, tell: &tell, report, record: &mut record, ticker: Ticker::new() };
        if running.values.len() < self.cells() {
            go_on(tell(running.values.len()))?;
        }
        for cells in self.survey.stretches() {
            let stretch = self.stretch(cells)?;
            stretch.run(executor, &mut running, &mut result)?;
        }
        let _ = tell(running.values.len());
        result.values = running.values.into_values().collect();
        Ok(result)
    }

    /// The executor with the memory that the record of the cells leaves; nothing where it has no limit.
    ///
    /// # Errors
    /// When they leave none.
    pub(crate) fn beside_record(&self, executor: &dyn Executor) -> Result<Option<Box<dyn Executor>>> {
        let what = format!("the record of {} cells", self.cells());
        executor.beside(self.record_bytes(), &what)
    }

    pub(crate) fn model(&self) -> &'m Model {
        self.experiment.model()
    }

    /// The same numbers beside those of each method.
    fn for_all_methods(&self, numbers: &[Option<f64>]) -> Values {
        numbers.repeat(self.methods.len())
    }
}

/// What keeps finished cells.
type Recording<'r> = dyn FnMut(&[(usize, Values)]) -> Result<()> + 'r;

/// A sweep on its way.
struct Running<'r> {
    /// The numbers of finished cells.
    values: BTreeMap<usize, Values>,
    tell: &'r dyn Fn(usize) -> ControlFlow<()>,
    report: Report<'r>,
    record: &'r mut Recording<'r>,
    ticker: Ticker,
}

impl Running<'_> {
    /// Records finished cells.
    fn flush(&mut self, pending: &mut Vec<(usize, Values)>) -> Result<()> {
        if !pending.is_empty() {
            (self.record)(pending)?;
            self.values.extend(pending.drain(..));
        }
        Ok(())
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
    fn cells(&self) -> Range<usize> {
        self.first..self.first + self.plan.cells.len()
    }

    /// Runs its cells that are not finished yet, and its baselines; adds what they are to the result.
    fn run(
        &self,
        executor: &dyn Executor,
        running: &mut Running<'_>,
        result: &mut SweepResult,
    ) -> Result<()> {
        let missing: Vec<usize> = self
            .cells()
            .filter(|cell| !running.values.contains_key(cell))
            .map(|cell| cell - self.first)
            .collect();
        // Baselines go with the cells, since they share rows; the originals first.
        let baselines = &self.plan.baselines;
        let Originals { baselines: originals, of_baseline: original_of } = self.originals();
        let fixed: Vec<usize> = (0..baselines.len()).filter(|i| baselines[*i].fixed.is_some()).collect();
        let first_fixed = originals.len();
        let first_cell = first_fixed + fixed.len();
        let mut cells: Vec<&Cell> = originals.iter().map(|baseline| &baselines[*baseline].original).collect();
        cells.extend(baselines.iter().filter_map(|b| b.fixed.as_ref()));
        let is_exact = self.sweep.methods.contains(&Method::Exact);
        cells.extend(missing.iter().filter(|_| is_exact).map(|cell| &self.plan.cells[*cell]));
        let keeps_originals = self.sweep.survey.keeps_originals();

        let mut base: Vec<Option<(Distribution, Values)>> = vec![None; first_fixed];
        let mut fixed_values = vec![None; baselines.len()];
        let mut pending: Vec<(usize, Values)> = Vec::new();
        let (mut estimates, mut work) = (HashMap::new(), Work::default());
        if self.sweep.estimating().next().is_some() && !missing.is_empty() {
            (estimates, work) = self.estimates(executor, &missing, running.report)?;
        }
        let mut stop = false;
        let ran = executor.execute(self.sweep.model(), &self.plan, &cells, &mut |index, readings| {
            let (row, rest) =
                readings.split_first().ok_or_else(|| Error::part("sweep", "a cell gave no logits"))?;
            let row = Distribution::read(row)?;
            let is_due = running.ticker.is_due();
            if is_due {
                running.flush(&mut pending)?;
                stop = (running.tell)(running.values.len()).is_break();
            }
            let flow = if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            if index < first_fixed {
                let values = self.numbers((&row, rest), &row, originals[index])?;
                let missing_spaces = self.missing_spaces((&row, rest), originals[index])?;
                // The samples of an example may be in several stretches.
                for missing in missing_spaces {
                    let told = result.missing_spaces.iter().rev();
                    let mut told = told.take_while(|told| told.example == missing.example);
                    if !told.any(|told| told.is_about_the_same(&missing)) {
                        result.missing_spaces.push(missing);
                    }
                }
                // A distribution is large, and there may be one for each of many examples.
                let row = if keeps_originals { row } else { Distribution::new(Vec::new()) };
                base[index] = Some((row, values));
                return Ok(flow);
            }
            let baseline = match index.checked_sub(first_cell) {
                Some(cell) => self.plan.cells[missing[cell]].baseline,
                None => fixed[index - first_fixed],
            };
            let original = base[original_of[baseline]].as_ref();
            let (original, _) =
                original.ok_or_else(|| Error::part("sweep", "a cell came before its baseline"))?;
            let mut numbers = self.numbers((&row, rest), original, baseline)?;
            let Some(cell) = index.checked_sub(first_cell) else {
                fixed_values[baseline] = Some(numbers);
                return Ok(flow);
            };
            numbers.extend(estimates.remove(&missing[cell]).unwrap_or_default());
            pending.push((self.first + missing[cell], numbers));
            Ok(flow)
        });
        let ran = match ran {
            // What is finished is kept.
            Err(Error::Interrupted) => None,
            other => Some(other?),
        };
        if ran.is_some() || !is_exact {
            // Cells that are only estimated are not run: only their baselines are.
            pending.extend(estimates.drain().map(|(cell, values)| (self.first + cell, values)));
        }
        running.flush(&mut pending)?;
        // The last cells may come between two reports: a wish to stop then has nothing to stop. Cells of an earlier run may
        // all be there, but not the baselines.
        let has_baselines = base.iter().all(Option::is_some)
            && fixed.iter().all(|baseline| fixed_values[*baseline].is_some());
        if ran.is_none() && (running.values.len() < self.sweep.cells() || !has_baselines) {
            return Err(Error::Interrupted);
        }
        let first = result.base.len();
        result.prompts.extend(self.bases.iter().map(|basis| basis.prompt.clone()));
        result.tokens.extend(self.bases.iter().map(|basis| basis.tokens.clone()));
        result.answers.extend(self.bases.iter().map(|basis| basis.answers.clone()));
        result.cells.extend(self.plan.cells.iter().map(|cell| cell.at.clone()));
        result.baseline_of.extend(self.plan.cells.iter().map(|cell| first + cell.baseline));
        let numbers = |i: usize| base[i].as_ref().map_or([].as_slice(), |(_, values)| values.as_slice());
        result.base.extend(original_of.iter().map(|i| self.sweep.for_all_methods(numbers(*i))));
        let of_fixed = |values: Option<Values>| values.map(|values| self.sweep.for_all_methods(&values));
        result.fixed.extend(fixed_values.into_iter().map(of_fixed));
        work += ran.unwrap_or_default();
        result.work += work;
        Ok(())
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
    fn missing_spaces(
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
