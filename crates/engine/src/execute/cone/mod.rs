//! The cone executor: only rows that an edit can reach and a read can see, each once.
//!
//! It follows a [`ConePlan`]: batch by batch, block by block, all live rows of all runs in one
//! matrix, one product a weight. Attention finds keys and values by index, so that what runs share
//! is never copied.

mod attention;
mod deliver;
mod memo;
mod pass;
mod session;
mod start;
mod table;

use super::{Executor, Sink, half_of_free_memory, no_gradients};
use crate::cone::{Batch, ConePlan, Schedule, Work};
use crate::op::Bound;
use crate::plan::{Cell, Plan};
use crate::{Error, Result};
use causalcone_model::{Config, Model};
use deliver::Delivery;
pub use memo::Memo;
use pass::Pass;
pub use session::Session;
use table::Store;

/// What computing takes at least, for the advice to those who gave too little.
const LEAST: u64 = 4 << 20;

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

impl Cone {
    /// The same with so many bytes less to work in, which are held by `what` meanwhile.
    pub(crate) fn less(self, bytes: u64, what: &str) -> Result<Self> {
        let Some(memory) = self.memory else { return Ok(self) };
        match memory.checked_sub(bytes).filter(|rest| *rest > 0) {
            Some(rest) => Ok(Self { memory: Some(rest) }),
            None => Err(Error::memory("memory", what, memory, bytes.saturating_add(LEAST))),
        }
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

    fn beside(&self, bytes: u64, what: &str) -> Result<Option<Box<dyn Executor>>> {
        Ok(Some(Box::new(self.less(bytes, what)?)))
    }

    fn name(&self) -> &'static str {
        "cone"
    }
}

/// What runs by a plan.
#[derive(Clone, Copy)]
struct Job<'a> {
    model: &'a Model,
    plan: &'a Plan,
    cone: &'a ConePlan,
    /// What stands in for the parameters of edits.
    bound: &'a Bound,
    /// Whether every tensor of every row is kept, not only what is known to be taken later.
    keeps_all: bool,
}

/// Takes what a batch completes, and tells how many operations that took.
type Take<'t> = &'t mut dyn FnMut(&Delivery<'_>, &Batch) -> Result<u64>;

impl Job<'_> {
    /// Runs the batches of a schedule, in order.
    fn run(&self, schedule: &Schedule, store: &mut Store<'_>, take: Take<'_>) -> Result<Work> {
        let mut work = Work { peak_bytes: schedule.peak, ..Work::default() };
        for (number, batch) in schedule.batches.iter().enumerate() {
            let mut pass = Pass::new(self, batch, store);
            // As one of rayon's own threads, so that each kernel starts without waking another first.
            let normed = rayon::scope(|_| pass.run())?;
            work += pass.done();
            let delivery = Delivery { model: self.model, cone: self.cone, normed: &normed, store };
            work.flops += take(&delivery, batch)?;
            store.drop_before(number + 1);
        }
        Ok(work)
    }
}
