//! Plans of the cone executor: which rows live at which stage of which layer, what is shared, what
//! is read, in which batches.
//!
//! A [`ConePlan`] is pure data, compiled from a [`Plan`] and the shape of a model before anything
//! runs. [`Forest`] gives every row one owner, so that rows that depend on the same are the same;
//! [`Slice`] works back from the reads and drops every row that none needs; [`Schedule`] cuts the
//! rest into batches that fit into memory. Sets of rows are ranges ([`Rows`]).
//!
//! ```
//! use causalcone_engine::cone::ConePlan;
//! use causalcone_engine::{Each, Experiment, LayerAxis, Op, Sweep};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run_ids("base", vec![3, 1, 4, 1, 5])?;
//! exp.edit(base, Site::BlockOutput.layers(..), Op::zero())?;
//! exp.set_tokens(vec![9, 2])?;
//! exp.set_sweep(Sweep { layers: Some(LayerAxis::Each), positions: Some(Each), ..Sweep::default() });
//! let plan = exp.plan()?;
//! let cells: Vec<_> = plan.cells.iter().collect();
//! let cone = ConePlan::new(&plan, &cells, model.config(), None)?;
//! assert!(cone.work().rows < plan.rows_naive(model.config().layers) / 2);
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod forest;
mod reach;
mod read;
mod rows;
mod schedule;
mod slice;
mod work;

pub use forest::{Forest, Node, NodeId, Step};
pub use reach::{Anatomy, Point, Reach};
pub use read::NodeRead;
pub use rows::Rows;
pub(crate) use schedule::Portion;
pub use schedule::{Batch, Kept, Schedule};
pub use slice::{Need, Slice, Use};
pub use work::Work;
pub(crate) use work::{Continued, Flops};

use crate::Result;
use crate::plan::{Cell, Plan, Read};
use causalcone_model::Config;
use std::collections::{HashMap, HashSet};

/// What the cone executor will do for some cells of a plan.
#[derive(Debug)]
pub struct ConePlan {
    /// Who owns which rows.
    pub forest: Forest,
    /// What is computed.
    pub slice: Slice,
    /// When.
    pub schedule: Schedule,
    /// What each cell reads, in order.
    pub reads: Vec<Vec<NodeRead>>,
    work: Work,
    continued: Continued,
    /// The wave of every node of which something is needed.
    waves: HashMap<NodeId, usize>,
}

impl ConePlan {
    /// Plans some cells of a plan for a model of that shape. `memory` bounds the working set, in bytes.
    ///
    /// # Errors
    /// When a single cell needs more memory than that; says how much.
    pub fn new(plan: &Plan, cells: &[&Cell], config: &Config, memory: Option<u64>) -> Result<Self> {
        let mut cone = Self::grown(Forest::new(config), plan, cells);
        let all: Vec<usize> = (0..cells.len()).collect();
        let order = cone.nodes_of(&all, |_, _, _| false);
        let part = Portion { nodes: &order, cells: &all, later: &[], later_cells: &[] };
        cone.schedule = cone.schedule_of(&part, config, memory)?;
        cone.work =
            Work::of(&cone.forest, &cone.slice, &cone.schedule, &cone.reads, (&cone.continued, config));
        Ok(cone)
    }

    /// Plans some cells of a plan over a forest that may have nodes of other plans already. Nothing is scheduled yet.
    pub(crate) fn grown(mut forest: Forest, plan: &Plan, cells: &[&Cell]) -> Self {
        let mut wanted = vec![false; plan.runs.len()];
        for run in cells.iter().flat_map(|cell| plan.needed(cell)) {
            wanted[run] = true;
        }
        // A run takes values from runs before it, so their nodes are there.
        let mut nodes = vec![0; plan.runs.len()];
        for run in (0..plan.runs.len()).filter(|run| wanted[*run]) {
            nodes[run] = forest.insert(plan, run, &nodes);
        }
        let read = |read: &Read| NodeRead::new(read, &forest, &nodes);
        let reads: Vec<Vec<NodeRead>> =
            cells.iter().map(|cell| cell.reads.iter().map(read).collect()).collect();
        let asked: Vec<_> = reads.iter().flatten().flat_map(|read| read.asks(&forest)).collect();
        let slice = Slice::new(&forest, asked.into_iter());
        let waves = schedule::waves(&forest, &slice);
        let continued = Continued::new(&forest, &slice);
        let (schedule, work) = (Schedule::default(), Work::default());
        Self { forest, slice, schedule, reads, work, continued, waves }
    }

    /// The schedule of a part of the work.
    ///
    /// # Errors
    /// As [`ConePlan::new`].
    pub(crate) fn schedule_of(
        &self,
        part: &Portion<'_>,
        config: &Config,
        memory: Option<u64>,
    ) -> Result<Schedule> {
        Schedule::new((&self.forest, &self.slice), &self.reads, config, memory, part)
    }

    /// The nodes that some cells need, by wave and in order; those of which all that is asked for is `there`, and
    /// what only they need, are left out.
    pub(crate) fn nodes_of(
        &self,
        cells: &[usize],
        mut there: impl FnMut(NodeId, Point, &Rows) -> bool,
    ) -> Vec<(usize, NodeId)> {
        let asks = cells.iter().flat_map(|cell| &self.reads[*cell]).flat_map(|read| read.asks(&self.forest));
        let mut open: Vec<(NodeId, Point, Rows)> = asks.collect();
        let mut needed = HashSet::new();
        while let Some((id, at, rows)) = open.pop() {
            if !needed.contains(&id) && !there(id, at, &rows) {
                needed.insert(id);
                self.slice.outside(&self.forest, id, |owner, at, rows, _| open.push((owner, at, rows)));
            }
        }
        let mut nodes: Vec<(usize, NodeId)> = needed
            .into_iter()
            .filter(|id| self.slice.is_needed(*id))
            .map(|id| (self.waves[&id], id))
            .collect();
        nodes.sort_unstable();
        nodes
    }

    /// What it costs.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Bytes that each node of a part leaves behind for others and for reads.
    pub(crate) fn kept_bytes(&self, part: &Portion<'_>, config: &Config) -> HashMap<NodeId, u64> {
        schedule::kept_bytes((&self.forest, &self.slice), &self.reads, config, part)
    }

    /// Bytes of every tensor of every row of some nodes.
    pub(crate) fn all_bytes(&self, nodes: &[(usize, NodeId)], config: &Config) -> u64 {
        schedule::all_bytes(&self.slice, config, nodes)
    }

    pub(crate) fn continued(&self) -> &Continued {
        &self.continued
    }
}
