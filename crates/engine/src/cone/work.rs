//! What a plan costs, counted from the plan alone.

use super::forest::{Forest, Node, NodeId};
use super::read::NodeRead;
use super::rows::Rows;
use super::schedule::Schedule;
use super::slice::{Need, Slice, Use};
use causalcone_model::Config;
use causalcone_model::stage::Stage;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

/// Rows, operations and memory of some work; what is planned and what was done are told alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Rows computed: one position through one block, counted once if any part of it is computed.
    pub rows: u64,
    /// Multiplications and additions of the matrix products and of attention.
    pub flops: u64,
    /// In how many batches.
    pub batches: u64,
    /// How often the weights of a layer are visited: at most once a batch.
    pub visits: u64,
    /// The most bytes held at once beside the weights; 0 where it is not known.
    pub peak_bytes: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.flops += other.flops;
        self.batches += other.batches;
        self.visits += other.visits;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// Operations of one row through each stage of a block.
#[derive(Debug, Clone)]
pub(crate) struct Flops {
    /// Of the stages that take any.
    stages: Vec<Cost>,
    /// For each logit.
    logit: u64,
    /// By block, how many keys a query sees at most.
    windows: Vec<Option<usize>>,
}

/// What a stage takes.
#[derive(Debug, Clone, Copy)]
struct Cost {
    stage: usize,
    part: usize,
    row: u64,
    /// For each key that a row sees.
    key: u64,
}

impl Flops {
    pub(crate) fn new(config: &Config) -> Self {
        let cost = |(place, stage): (usize, &Stage)| {
            let (row, key) = config.block.flops(place, config);
            (row + key > 0).then_some(Cost { stage: place, part: stage.part, row, key })
        };
        Self {
            stages: config.block.iter().filter_map(cost).collect(),
            logit: 2 * config.width as u64,
            windows: (0..config.layers).map(|layer| config.window(layer)).collect(),
        }
    }

    /// Of a whole run of so many positions, every logit of every position included.
    pub(crate) fn run(&self, config: &Config, positions: usize) -> Work {
        let (n, layers) = (positions as u64, config.layers as u64);
        let all = Rows::from(0..positions);
        let of_block =
            |block: usize| self.stages.iter().map(|cost| self.cost(cost, block, &all)).sum::<u64>();
        let flops = (0..config.layers).map(of_block).sum::<u64>() + n * self.logits(config.vocab);
        Work { rows: n * layers, flops, batches: 1, visits: layers, peak_bytes: 0 }
    }

    /// Of a node's own rows in one block: what its edit puts there is not computed.
    fn of_node(&self, node: &Node, block: usize, need: &Need) -> u64 {
        let computed = self.stages.iter().filter(|cost| node.computes(block, cost.stage));
        computed.map(|cost| self.cost(cost, block, need.part(cost.part))).sum()
    }

    /// Of rows of a stage, each of which sees itself and those before it, as far as the block's window lets it.
    pub(crate) fn of(&self, block: usize, stage: usize, rows: &Rows) -> u64 {
        let cost = self.stages.iter().find(|cost| cost.stage == stage);
        cost.map_or(0, |cost| self.cost(cost, block, rows))
    }

    fn cost(&self, cost: &Cost, block: usize, rows: &Rows) -> u64 {
        let of_keys = match cost.key {
            0 => 0,
            key => {
                let most = self.windows.get(block).copied().flatten().unwrap_or(usize::MAX);
                key * rows.iter().map(|row| (row + 1).min(most) as u64).sum::<u64>()
            }
        };
        cost.row * rows.len() as u64 + of_keys
    }

    pub(crate) fn logits(&self, tokens: usize) -> u64 {
        self.logit * tokens as u64
    }
}

/// Rows of a node in a block that are not finished there, but that another node goes on from: the
/// two parts are one row, counted with the other.
#[derive(Debug, Default)]
pub(crate) struct Continued(HashMap<(NodeId, usize), Rows>);

impl Continued {
    pub(super) fn new(forest: &Forest, slice: &Slice) -> Self {
        let mut continued: HashMap<(NodeId, usize), Rows> = HashMap::new();
        for id in 0..forest.nodes().len() {
            slice.outside(forest, id, |owner, at, rows, kind| {
                if let (Use::Row, Some(need)) = (kind, slice.need(id, at.block)) {
                    continued.entry((owner, at.block)).or_default().add(&rows.and(&need.any()));
                }
            });
        }
        Self(continued)
    }

    /// How many of a node's rows count, of `any` that are touched and those `leaving` the block.
    pub(crate) fn count(&self, node: NodeId, block: usize, any: &Rows, leaving: &Rows) -> u64 {
        let unfinished = any.minus(leaving);
        let elsewhere = self.0.get(&(node, block)).map_or(0, |rows| rows.and(&unfinished).len());
        (leaving.len() + unfinished.len() - elsewhere) as u64
    }
}

impl Work {
    pub(super) fn of(
        forest: &Forest,
        slice: &Slice,
        schedule: &Schedule,
        reads: &[Vec<NodeRead>],
        (continued, config): (&Continued, &Config),
    ) -> Self {
        let flops = Flops::new(config);
        let mut work =
            Self { batches: schedule.batches.len() as u64, peak_bytes: schedule.peak, ..Self::default() };
        let mut visited = HashSet::new();
        for (id, node) in forest.nodes().iter().enumerate() {
            for (blocks, need) in slice.blocks(id) {
                for block in blocks.clone() {
                    visited.insert((schedule.batch_of(id), block));
                    let mut any = need.any();
                    // To be put where a block begins takes nothing.
                    if block == node.start.block && forest.anatomy().part(node.start) > 0 {
                        any.add(slice.start(id));
                    }
                    work.rows += continued.count(id, block, &any, &need.leaving);
                    work.flops += flops.of_node(node, block, need);
                }
            }
        }
        work.visits = visited.len() as u64;
        for cells in schedule.batches.iter().flat_map(|batch| batch.groups(reads)) {
            let read = cells.iter().flat_map(|cell| &reads[*cell]).filter_map(NodeRead::logits);
            let is_computed = |owner: NodeId| forest.nodes()[owner].start != forest.anatomy().logits();
            let distinct: HashSet<_> = read.filter(|(owner, ..)| is_computed(*owner)).collect();
            let tokens = distinct.into_iter().map(|(_, _, tokens)| tokens.map_or(config.vocab, <[u32]>::len));
            work.flops += tokens.map(|tokens| flops.logits(tokens)).sum::<u64>();
        }
        work
    }
}
