//! When each node is computed: batches that fit into memory, and what is kept between them.

use super::forest::{Forest, NodeId};
use super::reach::Point;
use super::read::NodeRead;
use super::rows::Rows;
use super::slice::{Need, Slice, Use};
use crate::plan::{Constant, ValueSource};
use crate::{Error, Result};
use causalcone_model::{Config, Layout};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Rows of a batch in its fullest block: enough that the weights are read from memory once for much
/// work, few enough that a sweep can be watched and stopped.
const MOST_ROWS: usize = 2048;

/// Rows whose logits over the whole vocabulary are held at once.
const LOGIT_ROWS: usize = 128;

/// Nodes in the order they are computed.
#[derive(Debug, Default)]
pub struct Schedule {
    /// The batches, in order.
    pub batches: Vec<Batch>,
    /// By node, its batch; nodes of which nothing is needed have none.
    batch_of: Vec<Option<usize>>,
    /// The most bytes held at once, weights apart.
    pub peak: u64,
}

/// Nodes computed together, block by block.
#[derive(Debug, Default)]
pub struct Batch {
    /// The nodes, each after those it depends on.
    pub nodes: Vec<NodeId>,
    /// The cells whose reads are then complete.
    pub cells: Vec<usize>,
    /// Rows that a later edit, a later batch or a read takes, by tensor.
    pub keeps: BTreeMap<Point, Vec<Kept>>,
}

impl Batch {
    /// The complete cells, a few at a time, since logits over a vocabulary are large.
    pub(crate) fn groups<'a>(&'a self, reads: &'a [Vec<NodeRead>]) -> impl Iterator<Item = &'a [usize]> {
        let mut open = self.cells.as_slice();
        std::iter::from_fn(move || {
            let mut rows = 0;
            let fits = |cell: &&usize| {
                rows += reads[**cell].len();
                rows <= LOGIT_ROWS
            };
            let count = open.iter().take_while(fits).count().max(1).min(open.len());
            let (now, later) = open.split_at(count);
            open = later;
            (!now.is_empty()).then_some(now)
        })
    }
}

/// Rows of a node that are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub rows: Rows,
    /// The last batch that needs them.
    pub until: usize,
}

/// Portion of a plan's work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portion<'a> {
    /// What is computed: nodes by wave and in order.
    pub(crate) nodes: &'a [(usize, NodeId)],
    /// The cells that are then complete.
    pub(crate) cells: &'a [usize],
    /// What is computed at other times, and takes from these nodes then: that is kept until the end.
    pub(crate) later: &'a [(usize, NodeId)],
    /// The cells that are complete at other times.
    pub(crate) later_cells: &'a [usize],
}

impl Portion<'_> {
    /// All that is asked of any node: by the edits and runs of others, and by reads. Tells whose, of which tensor,
    /// which rows.
    fn asked(
        &self,
        forest: &Forest,
        slice: &Slice,
        reads: &[Vec<NodeRead>],
        mut tell: impl FnMut(NodeId, Point, &Rows),
    ) {
        for (_, id) in self.nodes.iter().chain(self.later) {
            slice.outside(forest, *id, |owner, at, rows, _| tell(owner, at, &rows));
        }
        let reads = self.cells.iter().chain(self.later_cells).flat_map(|cell| &reads[*cell]);
        for (owner, at, rows) in reads.flat_map(|read| read.asks(forest)) {
            tell(owner, at, &rows);
        }
    }
}

impl Schedule {
    pub(super) fn new(
        (forest, slice): (&Forest, &Slice),
        reads: &[Vec<NodeRead>],
        config: &Config,
        memory: Option<u64>,
        part: &Portion<'_>,
    ) -> Result<Self> {
        let sizes = Sizes::new(config);
        // What is kept if everything that can be is: an upper bound that holds for any cut.
        let kept = kept_bytes((forest, slice), reads, config, part).into_values().sum::<u64>()
            + logits(part.cells.iter().map(|cell| &reads[*cell]), config)
            + held(forest, part);
        let room = memory.map(|memory| memory.saturating_sub(kept));
        let mut schedule = Self { batch_of: vec![None; forest.nodes().len()], ..Self::default() };
        let mut load = Load::new(config);
        let mut peak = 0;
        let mut last_wave = None;
        for &(wave, id) in part.nodes {
            let alone = Load::of(config, &sizes, slice, id);
            if room.is_some_and(|room| alone.bytes() > room) {
                let (given, needed) = (memory.unwrap_or_default(), kept + alone.bytes());
                return Err(Error::memory("memory", "even one cell", given, needed));
            }
            let grown = load.with(&alone);
            let fits = grown.rows() <= MOST_ROWS && room.is_none_or(|room| grown.bytes() <= room);
            if last_wave.replace(wave) != Some(wave) || !fits {
                schedule.batches.push(Batch::default());
                load = alone;
            } else {
                load = grown;
            }
            peak = peak.max(load.bytes());
            let number = schedule.batches.len() - 1;
            schedule.batch_of[id] = Some(number);
            schedule.batches[number].nodes.push(id);
        }
        if schedule.batches.is_empty() && !part.cells.is_empty() {
            // All that these cells read is there already.
            schedule.batches.push(Batch::default());
        }
        schedule.keep(forest, slice, reads, part);
        schedule.peak = kept + peak;
        Ok(schedule)
    }

    /// The batch of a node of which something is needed.
    pub fn batch_of(&self, node: NodeId) -> Option<usize> {
        self.batch_of[node]
    }

    /// Finds what must be kept, and when each cell is complete.
    fn keep(&mut self, forest: &Forest, slice: &Slice, reads: &[Vec<NodeRead>], part: &Portion<'_>) {
        let mut kept: HashMap<(NodeId, Point), (Rows, usize)> = HashMap::new();
        let mut keep = |node: NodeId, at: Point, rows: &Rows, until: usize| {
            let entry = kept.entry((node, at)).or_default();
            *entry = (entry.0.union(rows), entry.1.max(until));
        };
        for (number, batch) in self.batches.iter().enumerate() {
            for &id in &batch.nodes {
                let start = forest.nodes()[id].start;
                slice.outside(forest, id, |owner, at, rows, kind| {
                    // Within a batch, blocks are computed side by side: only values from before last.
                    let passed = kind == Use::Value && at != start;
                    if passed || self.batch_of[owner] != Some(number) {
                        keep(owner, at, &rows, number);
                    }
                });
            }
        }
        let others = Portion { nodes: &[], cells: &[], ..*part };
        others.asked(forest, slice, reads, |owner, at, rows| keep(owner, at, rows, usize::MAX));
        for &cell in part.cells {
            let asked: Vec<_> = reads[cell].iter().flat_map(|read| read.asks(forest)).collect();
            let ready = asked.iter().filter_map(|(owner, ..)| self.batch_of[*owner]).max().unwrap_or(0);
            for (owner, at, rows) in asked {
                keep(owner, at, &rows, ready);
            }
            if let Some(batch) = self.batches.get_mut(ready) {
                batch.cells.push(cell);
            }
        }
        let mut kept: Vec<_> = kept.into_iter().collect();
        kept.sort_unstable_by_key(|((node, at), _)| (*at, *node));
        for ((node, at), (rows, until)) in kept {
            if let Some(batch) = self.batch_of[node].and_then(|number| self.batches.get_mut(number)) {
                batch.keeps.entry(at).or_default().push(Kept { node, rows, until });
            }
        }
    }
}

/// Bytes of the constants and parameters of a part's edits, each counted once.
fn held(forest: &Forest, part: &Portion<'_>) -> u64 {
    let (mut constants, mut parameters, mut bytes) = (HashSet::new(), HashSet::new(), 0);
    for edit in part.nodes.iter().filter_map(|(_, id)| Some(&forest.nodes()[*id].edit.as_ref()?.edit)) {
        if let Some(ValueSource::Constant(Constant { rows, .. })) = &edit.value
            && constants.insert(rows.id())
        {
            bytes += rows.bytes();
        }
        let own = &edit.op.parameters;
        if !own.is_empty() && parameters.insert(Arc::as_ptr(own)) {
            bytes += own.iter().map(|(_, x)| x.elem_count() * x.dtype().size_in_bytes()).sum::<usize>();
        }
    }
    bytes as u64
}

/// The waves of all needed nodes: each can be computed beside those of its own wave it depends on, and
/// after those of earlier ones.
pub(super) fn waves(forest: &Forest, slice: &Slice) -> HashMap<NodeId, usize> {
    let mut waves = vec![0usize; forest.nodes().len()];
    let mut needed = HashMap::new();
    for (id, node) in forest.nodes().iter().enumerate() {
        let mut wave = node.parent.map_or(0, |parent| waves[parent]);
        if let Some((source, place)) = node.edit.as_ref().and_then(|step| step.source_place()) {
            // A value from a tensor past the edited one is not there when blocks go side by side.
            let is_ahead = forest.anatomy().point(place) > node.start;
            wave = wave.max(waves[source] + usize::from(is_ahead));
        }
        waves[id] = wave;
        if slice.is_needed(id) {
            needed.insert(id, wave);
        }
    }
    needed
}

/// Bytes of the logits over the whole vocabulary that are held at once.
fn logits<'a>(reads: impl Iterator<Item = &'a Vec<NodeRead>> + Clone, config: &Config) -> u64 {
    let is_whole = |read: &&NodeRead| matches!(read, NodeRead::Logits { tokens: None, .. });
    let rows = |reads: &Vec<NodeRead>| reads.iter().filter(is_whole).count();
    // Cells are handed on together up to so many rows; one cell may read more.
    let most = reads.clone().map(rows).max().unwrap_or(0);
    let all: usize = reads.map(rows).sum();
    (all.min(LOGIT_ROWS).max(most) * config.vocab) as u64 * 4
}

/// Bytes that a row takes, by part of a block.
struct Sizes(Vec<u64>);

impl Sizes {
    fn new(config: &Config) -> Self {
        let stages = &config.block;
        let mut parts = vec![0; stages.parts()];
        for (place, stage) in stages.iter() {
            parts[stage.part] += (stage.held * stages.width(place, config)) as u64 * 4;
        }
        Self(parts)
    }

    /// Bytes of what is computed of a node in one block.
    fn bytes(&self, need: &Need) -> u64 {
        self.0.iter().zip(need.parts()).map(|(bytes, rows)| bytes * rows.len() as u64).sum()
    }
}

/// Bytes of every tensor of every row of some nodes, block by block: all that could be kept of them.
pub(super) fn all_bytes(slice: &Slice, config: &Config, nodes: &[(usize, NodeId)]) -> u64 {
    let sizes = Sizes::new(config);
    let of_node = |(_, id): &(usize, NodeId)| {
        let blocks = slice.blocks(*id).iter();
        blocks.map(|(blocks, need)| sizes.bytes(need) * blocks.len() as u64).sum::<u64>()
    };
    nodes.iter().map(of_node).sum()
}

/// Bytes of the rows of each of a part's nodes that anyone takes from it, or reads.
pub(super) fn kept_bytes(
    (forest, slice): (&Forest, &Slice),
    reads: &[Vec<NodeRead>],
    config: &Config,
    part: &Portion<'_>,
) -> HashMap<NodeId, u64> {
    let mut bytes: HashMap<NodeId, u64> = part.nodes.iter().map(|(_, id)| (*id, 0)).collect();
    let mut kept: HashMap<(NodeId, Point), Rows> = HashMap::new();
    part.asked(forest, slice, reads, |owner, at, rows| {
        if bytes.contains_key(&owner) {
            kept.entry((owner, at)).or_default().add(rows);
        }
    });
    for ((node, at), rows) in kept {
        let width = match forest.anatomy().site(at).map(|site| site.layout(config)) {
            Some(Layout::Attention { heads }) => heads * forest.nodes()[node].len,
            _ => forest.anatomy().stages(at.block).width(at.stage, config),
        };
        *bytes.entry(node).or_default() += (rows.len() * width) as u64 * 4;
    }
    bytes
}

/// What some nodes take: bytes and rows, block by block.
struct Load(Vec<(u64, usize)>);

impl Load {
    fn new(config: &Config) -> Self {
        Self(vec![(0, 0); config.layers])
    }

    fn of(config: &Config, sizes: &Sizes, slice: &Slice, id: NodeId) -> Self {
        let mut load = Self::new(config);
        for (blocks, need) in slice.blocks(id) {
            let main = (0..).zip(need.parts()).filter(|(part, _)| config.block.is_main(*part));
            let rows = main.map(|(_, rows)| rows.len()).max().unwrap_or(0);
            load.0[blocks.clone()].fill((sizes.bytes(need), rows));
        }
        load
    }

    fn with(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| (a.0 + b.0, a.1 + b.1)).collect())
    }

    /// The most that a block takes.
    fn bytes(&self) -> u64 {
        self.0.iter().map(|(bytes, _)| *bytes).max().unwrap_or(0)
    }

    fn rows(&self) -> usize {
        self.0.iter().map(|(_, rows)| *rows).max().unwrap_or(0)
    }
}
