//! What a batch carries on its way through the model.

use super::job::Job;
use super::table::{Store, Table};
use crate::Result;
use crate::cone::{Batch, ConePlan, Flops, NodeId, Point, Rows, Work};
use crate::op::Bound;
use crate::plan::Plan;
use candle_core::Tensor;
use causalcone_model::Model;
use causalcone_model::stage::Attention;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

/// A batch on its way through the model.
pub(super) struct BatchPass<'a, 'b> {
    pub(super) model: &'a Model,
    pub(super) plan: &'a Plan,
    pub(super) cone: &'a ConePlan,
    pub(super) batch: &'a Batch,
    /// What stands in for the parameters of edits.
    pub(super) bound: &'a Bound,
    /// Whether everything is kept.
    pub(super) keeps_all: bool,
    /// What earlier batches and earlier points left.
    pub(super) store: &'a mut Store<'b>,
    /// The nodes that start at each point, in order.
    pub(super) starts: BTreeMap<Point, Vec<NodeId>>,
    /// Edited scores and weights of the block at hand, H × rows × n.
    pub(super) matrices: HashMap<(NodeId, usize), (Rows, Tensor)>,
    /// What the block at hand attends to.
    pub(super) sight: Sight,
    pub(super) flops: Flops,
    pub(super) work: Work,
    /// Rows of which something was computed, by node and block.
    pub(super) touched: HashMap<(NodeId, usize), Rows>,
}

impl<'a, 'b> BatchPass<'a, 'b> {
    pub(super) fn new(job: &Job<'a>, batch: &'a Batch, store: &'a mut Store<'b>) -> Self {
        let Job { model, plan, cone, bound, keeps_all } = *job;
        let mut starts: BTreeMap<Point, Vec<NodeId>> = BTreeMap::new();
        for &id in &batch.nodes {
            let start = cone.forest.nodes()[id].start;
            starts.entry(start).or_default().push(id);
            // Keys and values are rows of one table: an edit of one takes the other along.
            if let Some(stage) = cone.forest.anatomy().stages(start.block).paired(start.stage) {
                starts.entry(Point { stage, ..start }).or_default().push(id);
            }
        }
        Self {
            model,
            plan,
            cone,
            batch,
            bound,
            keeps_all,
            store,
            starts,
            matrices: HashMap::new(),
            sight: Sight::default(),
            flops: Flops::new(model.config()),
            work: Work { batches: 1, ..Work::default() },
            touched: HashMap::new(),
        }
    }
}

/// The queries, keys and values of an attention, as far as its batch sees them.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) layer: usize,
    /// Which attention of the block.
    pub(super) stages: Option<Attention>,
    /// Queries, not yet turned.
    pub(super) query: Table,
    /// Which rows there are of keys and values: the batch's, then those of earlier ones.
    pub(super) rows: Table,
    /// Keys, turned to their positions, and values: of the batch, where it has any, and of earlier ones.
    pub(super) tables: Vec<(Tensor, Tensor)>,
    /// Both together, once somebody has asked.
    pub(super) whole: OnceCell<(Tensor, Tensor)>,
}

impl Sight {
    /// All keys and values in one table each.
    pub(super) fn whole(&self) -> Result<Option<&(Tensor, Tensor)>> {
        if self.whole.get().is_none() && !self.tables.is_empty() {
            let (keys, values): (Vec<_>, Vec<_>) =
                self.tables.iter().map(|(key, value)| (key, value)).unzip();
            // Nobody else sets it: a pass is of one thread.
            let _ = self.whole.set((Tensor::cat(&keys, 0)?, Tensor::cat(&values, 0)?));
        }
        Ok(self.whole.get())
    }
}
