//! Running a sweep: every cell once, its numbers recorded as they come.

use crate::cone::Work;
use crate::error::{Error, Result};
use crate::execute::{Executor, Runtime, Ticker, go_on};
use crate::experiment::method::Method;
use crate::experiment::spaces::MissingSpace;
use crate::metric::Distribution;
use crate::plan::Cell;
use crate::run::journal::Values;
use crate::run::prepared::{Originals, PreparedSweep, Stretch, SweepResult};
use causalcone_model::{Progress, Report, Unit};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

impl PreparedSweep<'_> {
    /// Runs every cell.
    ///
    /// # Errors
    /// When a computation fails.
    pub fn run(&self, runtime: &Runtime<'_>) -> Result<SweepResult> {
        self.resume(runtime, BTreeMap::new(), |_| Ok(()))
    }

    /// Runs every cell not yet in `done`. `record` gets finished cells a few at a time; only then
    /// does whoever hears of progress.
    ///
    /// # Errors
    /// When the memory the executor may take is too little for the cells and their results; what `record` returns;
    /// [`Error::Interrupted`] if that one says so, with everything finished until then recorded; a failed computation.
    pub fn resume(
        &self,
        runtime: &Runtime<'_>,
        done: BTreeMap<usize, Values>,
        mut record: impl FnMut(&[(usize, Values)]) -> Result<()>,
    ) -> Result<SweepResult> {
        let (runtime, report) = (&self.beside_record(runtime)?, runtime.progress);
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
            stretch.run(runtime, &mut running, &mut result)?;
        }
        let _ = tell(running.values.len());
        result.values = running.values.into_values().collect();
        Ok(result)
    }

    /// The runtime with the memory that the record of the cells leaves.
    ///
    /// # Errors
    /// When they leave none.
    pub(crate) fn beside_record<'r>(&self, runtime: &Runtime<'r>) -> Result<Runtime<'r>> {
        runtime.less(self.record_bytes(), &format!("the record of {} cells", self.cells()))
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

impl SweepResult {
    /// Adds those that were not told yet: the samples of an example may be in several stretches.
    fn add_missing_spaces(&mut self, found: Vec<MissingSpace>) {
        for missing in found {
            let told = self.missing_spaces.iter().rev();
            let mut told = told.take_while(|told| told.example == missing.example);
            if !told.any(|told| told.is_about_the_same(&missing)) {
                self.missing_spaces.push(missing);
            }
        }
    }
}

/// What a stretch runs: an original or another baseline, each by the number of its baseline, or a cell.
#[derive(Clone, Copy)]
enum Turn {
    Original(usize),
    Fixed(usize),
    Cell(usize),
}

impl Stretch<'_, '_> {
    /// What it runs: the originals first, then its other baselines and some of its cells, which share rows.
    fn turns(&self, originals: &Originals, cells: &[usize]) -> (Vec<Turn>, Vec<&Cell>) {
        let baselines = &self.plan.baselines;
        let originals = originals.baselines.iter().map(|i| (Turn::Original(*i), &baselines[*i].original));
        let fixed =
            baselines.iter().enumerate().filter_map(|(i, b)| Some((Turn::Fixed(i), b.fixed.as_ref()?)));
        let cells = cells.iter().map(|cell| (Turn::Cell(*cell), &self.plan.cells[*cell]));
        originals.chain(fixed).chain(cells).unzip()
    }

    /// Runs its cells that are not finished yet, and its baselines; adds what they are to the result.
    fn run(
        &self,
        executor: &dyn Executor,
        running: &mut Running<'_>,
        result: &mut SweepResult,
    ) -> Result<()> {
        let missing = self.cells().filter(|cell| !running.values.contains_key(cell));
        let missing: Vec<usize> = missing.map(|cell| cell - self.first).collect();
        let is_exact = self.sweep.methods.contains(&Method::Exact);
        let originals = self.originals();
        let (turns, cells) = self.turns(&originals, if is_exact { &missing } else { &[] });
        let keeps_originals = self.sweep.survey.keeps_originals();

        let mut base: Vec<Option<(Distribution, Values)>> = vec![None; originals.baselines.len()];
        let mut fixed: Vec<Option<Values>> = vec![None; self.plan.baselines.len()];
        let mut pending: Vec<(usize, Values)> = Vec::new();
        let (mut estimates, mut work) = (HashMap::new(), Work::default());
        if self.sweep.estimating().next().is_some() && !missing.is_empty() {
            (estimates, work) = self.estimates(executor, &missing, running.report)?;
        }
        let mut stop = false;
        let ran = executor.execute(self.sweep.model(), &self.plan, &cells, &mut |index, readings| {
            let (row, rest) =
                readings.split_first().ok_or_else(|| Error::internal("a cell gave no logits"))?;
            let row = Distribution::read(row)?;
            if running.ticker.is_due() {
                running.flush(&mut pending)?;
                stop = (running.tell)(running.values.len()).is_break();
            }
            let flow = if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            let baseline = match turns[index] {
                Turn::Original(baseline) => {
                    let values = self.numbers((&row, rest), &row, baseline)?;
                    result.add_missing_spaces(self.missing_spaces((&row, rest), baseline)?);
                    // A distribution is large, and there may be one for each of many examples.
                    let row = if keeps_originals { row } else { Distribution::new(Vec::new()) };
                    base[index] = Some((row, values));
                    return Ok(flow);
                }
                Turn::Fixed(baseline) => baseline,
                Turn::Cell(cell) => self.plan.cells[cell].baseline,
            };
            let original = base[originals.of_baseline[baseline]].as_ref();
            let (original, _) = original.ok_or_else(|| Error::internal("a cell came before its baseline"))?;
            let mut numbers = self.numbers((&row, rest), original, baseline)?;
            if let Turn::Cell(cell) = turns[index] {
                numbers.extend(estimates.remove(&cell).unwrap_or_default());
                pending.push((self.first + cell, numbers));
            } else {
                fixed[baseline] = Some(numbers);
            }
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
        let mut baselines = self.plan.baselines.iter().zip(&fixed);
        let has_baselines = base.iter().all(Option::is_some)
            && baselines.all(|(baseline, values)| baseline.fixed.is_none() || values.is_some());
        if ran.is_none() && (running.values.len() < self.sweep.cells() || !has_baselines) {
            return Err(Error::Interrupted);
        }
        self.add_to(result, &originals, &base, fixed);
        work += ran.unwrap_or_default();
        result.work += work;
        Ok(())
    }

    /// Adds where its cells stand, and what its baselines gave.
    fn add_to(
        &self,
        result: &mut SweepResult,
        originals: &Originals,
        base: &[Option<(Distribution, Values)>],
        fixed: Vec<Option<Values>>,
    ) {
        let first = result.base.len();
        result.prompts.extend(self.bases.iter().map(|basis| basis.prompt.clone()));
        result.tokens.extend(self.bases.iter().map(|basis| basis.tokens.clone()));
        result.answers.extend(self.bases.iter().map(|basis| basis.answers.clone()));
        result.cells.extend(self.plan.cells.iter().map(|cell| cell.at.clone()));
        result.baseline_of.extend(self.plan.cells.iter().map(|cell| first + cell.baseline));
        let numbers = |i: usize| base[i].as_ref().map_or([].as_slice(), |(_, values)| values.as_slice());
        result.base.extend(originals.of_baseline.iter().map(|i| self.sweep.for_all_methods(numbers(*i))));
        let of_fixed = |values: Option<Values>| values.map(|values| self.sweep.for_all_methods(&values));
        result.fixed.extend(fixed.into_iter().map(of_fixed));
    }
}
