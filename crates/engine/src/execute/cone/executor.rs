//! The executor itself: it plans the cells it is given, and runs that plan.

use super::super::executor::{Executor, Sink, no_gradients};
use super::super::memory::half_of_free_memory;
use super::job::Job;
use super::table::Store;
use crate::Result;
use crate::cone::{ConePlan, Work};
use crate::op::Bound;
use crate::plan::{Cell, Plan};
use causalcone_model::{Config, Model};

/// What computing takes at least, for the advice to those who gave too little.
pub(in crate::execute) const LEAST: u64 = 4 << 20;

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
        no_gradients(cells)?;
        let cone = ConePlan::new(plan, cells, model.config(), self.memory)?;
        let job = Job { model, plan, cone: &cone, bound: &Bound::default(), keeps_all: false };
        job.run(&cone.schedule, &mut Store::default(), &mut |delivery, batch| delivery.deliver(batch, sink))
    }

    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work> {
        Ok(*ConePlan::new(plan, cells, config, self.memory)?.work())
    }

    fn name(&self) -> &'static str {
        "cone"
    }
}
