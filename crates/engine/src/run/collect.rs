//! Running a few cells for all their readings.

use crate::error::Result;
use crate::execute::{Executor, Tell, run_cells};
use crate::plan::{Cell, Plan};
use crate::reading::Reading;
use crate::run::attribution;
use causalcone_model::Model;
use std::ops::ControlFlow;

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
    collect_with(executor, model, plan, cells, &mut |_| ControlFlow::Continue(()))
}

/// [`collect`], telling how many cells are done.
pub(crate) fn collect_with(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
    tell: Tell<'_>,
) -> Result<Vec<Vec<Reading>>> {
    if cells.iter().any(|cell| cell.gradients().next().is_some()) {
        return attribution::collect(executor, model, plan, cells, tell);
    }
    run_cells(executor, model, plan, cells, tell)
}
