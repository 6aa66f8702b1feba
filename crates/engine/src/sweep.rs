//! Running a sweep: every cell once, its numbers recorded as they come.

use crate::cone::Work;
use crate::error::{Error, Result};
use crate::execute::{Executor, Ticker, go_on};
use crate::journal::Values;
use crate::method::Method;
use crate::metric::Distribution;
use crate::plan::Cell;
use crate::prepared::{Originals, PreparedSweep, Stretch, SweepResult};
use causalcone_model::{Progress, Report, Unit};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

impl PreparedSweep<'_> {
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

impl Stretch<'_, '_> {
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
                readings.split_first().ok_or_else(|| Error::internal("a cell gave no logits"))?;
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
            let (original, _) = original.ok_or_else(|| Error::internal("a cell came before its baseline"))?;
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
}
