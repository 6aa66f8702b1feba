//! Runs a schedule, from its first batch to its last.

use super::job::Job;
use super::readout::Delivery;
use super::state::BatchPass;
use super::table::Store;
use crate::Result;
use crate::cone::{Batch, Schedule, Work};

/// Takes what a batch completes, and tells how many operations that took.
type Take<'t> = &'t mut dyn FnMut(&Delivery<'_>, &Batch) -> Result<u64>;

impl Job<'_> {
    /// Runs the batches of a schedule, in order.
    pub(super) fn run(&self, schedule: &Schedule, store: &mut Store<'_>, take: Take<'_>) -> Result<Work> {
        let mut work = Work { peak_bytes: schedule.peak, ..Work::default() };
        for (number, batch) in schedule.batches.iter().enumerate() {
            let mut pass = BatchPass::new(self, batch, store);
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
