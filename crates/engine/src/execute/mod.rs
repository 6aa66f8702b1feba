//! Executors: from a plan to readings.

mod cone;
mod memory;
mod reference;

pub use cone::{Cone, Memo, Session};
pub use memory::half_of_free_memory;
pub use reference::Reference;

use crate::attribution;
use crate::cone::Work;
use crate::plan::{Cell, Plan, Reading};
use crate::{Error, Result};
use causalcone_model::{Config, Model};
use std::ops::ControlFlow;

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

/// Runs a few cells and gives all their readings, gradients among them.
///
/// # Errors
/// As [`Executor::execute`].
pub fn collect(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
) -> Result<Vec<Vec<Reading>>> {
    if cells.iter().any(|cell| cell.gradients().next().is_some()) {
        return attribution::collect(executor, model, plan, cells);
    }
    run_cells(executor, model, plan, cells)
}

/// The same without gradients.
pub(crate) fn run_cells(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
) -> Result<Vec<Vec<Reading>>> {
    let mut all: Vec<Vec<Reading>> = vec![Vec::new(); cells.len()];
    executor.execute(model, plan, cells, &mut |cell, readings| {
        all[cell] = readings;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Executors read what runs hold; what slopes there are is found behind them.
fn no_gradients(cells: &[&Cell]) -> Result<()> {
    match cells.iter().any(|cell| cell.gradients().next().is_some()) {
        true => Err(Error::part("read", "a gradient is read by `collect`, not by an executor alone")),
        false => Ok(()),
    }
}

/// Makes a sink's wish to stop an error.
fn go_on(flow: ControlFlow<()>) -> Result<()> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}
