//! The cone executor: only rows that an edit can reach and a read can see, each once.
//!
//! It follows a [`ConePlan`]: batch by batch, block by block, all live rows of all runs in one
//! matrix, one product a weight. Attention finds keys and values by index, so that what runs share
//! is never copied.

mod attention;
mod deliver;
mod pass;
mod session;
mod start;
mod table;

use super::{Executor, Sink, half_of_free_memory};
use crate::Result;
use crate::cone::{ConePlan, Work};
use crate::plan::{Cell, Plan};
use causalcone_model::{Config, Model};
use deliver::Delivery;
use pass::Pass;
pub use session::Session;
use table::Store;

/// The executor that computes only the causal cone of each edit.
#[derive(Debug, Clone, Copy)]
pub struct Cone {
    /// Bytes its working set may take beside the weights; `None` is as much as it likes.
    pub memory: Option<u64>,
}

impl Default for Cone {
    /// Takes at most half of the memory that is free now.
    fn default() -> Self {
        Self { memory: half_of_free_memory() }
    }
}

impl Executor for Cone {
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<Work> {
        let cone = ConePlan::new(plan, cells, model.config(), self.memory)?;
        run(model, plan, &cone, 0..cone.schedule.batches.len(), &mut Store::default(), sink)
    }

    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work> {
        Ok(*ConePlan::new(plan, cells, config, self.memory)?.work())
    }

    fn name(&self) -> &'static str {
        "cone"
    }
}

/// Runs some batches of a plan, in order, after those before them.
fn run(
    model: &Model,
    plan: &Plan,
    cone: &ConePlan,
    batches: std::ops::Range<usize>,
    store: &mut Store,
    sink: Sink<'_>,
) -> Result<Work> {
    let mut work = Work { peak_bytes: cone.work().peak_bytes, ..Work::default() };
    for number in batches {
        let mut pass = Pass::new(model, plan, cone, number, store);
        // As one of rayon's own threads, so that each kernel starts without waking another first.
        let normed = rayon::scope(|_| pass.run())?;
        work += pass.done();
        let delivery = Delivery { model, cone, normed: &normed, store };
        work.flops += delivery.deliver(&cone.schedule.batches[number], sink)?;
        store.drop_before(number + 1);
    }
    Ok(work)
}
