//! The cone executor: only rows that an edit can reach and a read can see, each once.
//!
//! It follows a [`ConePlan`]: batch by batch, block by block, all live rows of all runs in one
//! matrix, one product a weight. Attention finds keys and values by index, so that what runs share
//! is never copied.

mod attention;
mod deliver;
mod pass;
mod start;
mod table;

use super::{Executor, Sink};
use crate::Result;
use crate::cone::ConePlan;
use crate::plan::{Cell, Plan};
use causalcone_model::Model;
use deliver::Delivery;
use pass::Pass;
use table::Store;

/// The executor that computes only the causal cone of each edit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cone {
    /// Bytes its working set may take beside the weights; `None` is as much as it likes.
    pub memory: Option<u64>,
}

impl Executor for Cone {
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<()> {
        let cone = ConePlan::new(plan, cells, model.config(), self.memory)?;
        let mut store = Store::default();
        for (number, batch) in cone.schedule.batches.iter().enumerate() {
            let normed = Pass::new(model, plan, &cone, number, &mut store).run()?;
            let delivery = Delivery { model, cone: &cone, normed: &normed, store: &store };
            delivery.deliver(&batch.cells, sink)?;
            store.drop_before(number + 1);
        }
        Ok(())
    }

    fn rows_computed(&self, plan: &Plan, cells: &[&Cell], layers: usize) -> u64 {
        let _ = (plan, cells, layers);
        0
    }

    fn name(&self) -> &'static str {
        "cone"
    }
}
