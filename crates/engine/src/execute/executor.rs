//! What an executor is, and what all executors and those who call them have in common.

use crate::cone::Work;
use crate::plan::{Cell, Plan};
use crate::reading::Reading;
use crate::{Error, Result};
use causalcone_model::{Config, Model};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Hears the readings of a finished cell, in the order of its reads; can stop the rest.
pub type Sink<'a> = &'a mut dyn FnMut(usize, Vec<Reading>) -> Result<ControlFlow<()>>;

/// Something that runs plans. All executors give the same readings.
pub trait Executor {
    /// Runs `cells` of a plan, hands the readings of each, by its place in `cells`, to `sink`,
    /// each once (cells of runs without edits first, all others in any order), and tells what was done.
    ///
    /// # Errors
    /// What the sink returns, [`Error::Interrupted`] if it stops the work, or a failed computation.
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<Work>;

    /// What running these cells takes, told before it is done.
    ///
    /// # Errors
    /// When it cannot be done in the memory there is.
    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work>;

    /// Its name, as results record it.
    fn name(&self) -> &'static str;
}

/// Hears now and then how many cells are done; says whether to go on.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(usize) -> ControlFlow<()>;

/// Says when progress is due again: often enough for a live bar and a prompt stop, seldom enough to cost nothing.
pub(crate) struct Ticker(Instant);

impl Ticker {
    const EVERY: Duration = Duration::from_millis(100);

    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    /// Whether it is time; then it starts again.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = self.0.elapsed() >= Self::EVERY;
        if is_due {
            self.0 = Instant::now();
        }
        is_due
    }
}

/// Runs a few cells that read no gradients, and gives all their readings.
pub(crate) fn run_cells(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
    tell: Tell<'_>,
) -> Result<Vec<Vec<Reading>>> {
    let mut all: Vec<Vec<Reading>> = vec![Vec::new(); cells.len()];
    let (mut done, mut ticker) = (0, Ticker::new());
    executor.execute(model, plan, cells, &mut |cell, readings| {
        all[cell] = readings;
        done += 1;
        Ok(if ticker.is_due() { tell(done) } else { ControlFlow::Continue(()) })
    })?;
    Ok(all)
}

/// Executors read what runs hold; what slopes there are is found behind them.
pub(super) fn no_gradients(cells: &[&Cell]) -> Result<()> {
    match cells.iter().any(|cell| cell.gradients().next().is_some()) {
        true => Err(Error::part("read", "a gradient is read by `collect`, not by an executor alone")),
        false => Ok(()),
    }
}

/// Makes a sink's wish to stop an error.
pub(crate) fn go_on(flow: ControlFlow<()>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}
