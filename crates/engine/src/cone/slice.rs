//! The backward slice: from what is read to what must be computed.

use super::forest::{Forest, Node, NodeId};
use super::reach::{Anatomy, Point};
use super::rows::Rows;
use causalcone_model::stage::{ENTERING, Mixing};
use std::collections::BTreeMap;
use std::ops::Range;

/// What is computed of a node's own rows in one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// By part of the block, the rows that go through it. Of some of them someone takes what the part has on the way, and
    /// no more.
    parts: Box<[Rows]>,
    /// Rows that leave the block.
    pub leaving: Rows,
}

impl Need {
    /// The rows that go through a part.
    pub fn part(&self, part: usize) -> &Rows {
        &self.parts[part]
    }

    /// By part, the rows that go through it.
    pub fn parts(&self) -> &[Rows] {
        &self.parts
    }

    /// Rows that enter the block.
    pub fn entering(&self) -> &Rows {
        &self.parts[0]
    }

    /// All rows of which anything is computed; to enter a block takes nothing.
    pub fn any(&self) -> Rows {
        self.parts[1..].iter().fold(self.leaving.clone(), |all, rows| all.union(rows))
    }

    fn is_empty(&self) -> bool {
        self.leaving.is_empty() && self.parts.iter().all(Rows::is_empty)
    }
}

/// How a node depends on a row of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The node's own row goes on from it.
    Row,
    /// The node's queries see its key and value.
    Keys,
    /// An edit takes its value from it.
    Value,
}

/// What must be computed of every node.
#[derive(Debug, Default)]
pub struct Slice {
    nodes: Vec<Sliced>,
}

/// What must be computed of one node.
#[derive(Debug, Clone, Default)]
struct Sliced {
    /// Its blocks in order, neighbours with equal needs as one.
    blocks: Vec<(Range<usize>, Need)>,
    /// Rows of the tensor it starts in.
    start: Rows,
    /// Rows that go through the last norm.
    last: Rows,
}

/// Rows asked of a node, by tensor.
type Asked = BTreeMap<Point, Rows>;

impl Slice {
    /// Works back from `asked`: rows of tensors, each asked of its owner.
    pub fn new(forest: &Forest, asked: impl Iterator<Item = (NodeId, Point, Rows)>) -> Self {
        let count = forest.nodes().len();
        let mut open: Vec<Asked> = vec![Asked::new(); count];
        let ask = |open: &mut Vec<Asked>, node: NodeId, at: Point, rows: &Rows| {
            open[node].entry(at).or_default().add(rows);
        };
        for (node, at, rows) in asked {
            ask(&mut open, node, at, &rows);
        }
        let mut slice = Self { nodes: vec![Sliced::default(); count] };
        // Whoever asks comes after whom it asks.
        for node in (0..count).rev() {
            let asked = std::mem::take(&mut open[node]);
            if !asked.is_empty() {
                slice.nodes[node] = Sliced::new(&forest.nodes()[node], &asked, forest.anatomy());
                slice.outside(forest, node, |owner, at, rows, _| ask(&mut open, owner, at, &rows));
            }
        }
        slice
    }

    /// Whether anything of a node is computed.
    pub fn is_needed(&self, node: NodeId) -> bool {
        let Sliced { blocks, start, last } = &self.nodes[node];
        !(blocks.is_empty() && start.is_empty() && last.is_empty())
    }

    /// What a node needs in its blocks, in order; neighbours with equal needs as one.
    pub fn blocks(&self, node: NodeId) -> &[(Range<usize>, Need)] {
        &self.nodes[node].blocks
    }

    /// What a node needs in a block.
    pub fn need(&self, node: NodeId, block: usize) -> Option<&Need> {
        let blocks = &self.nodes[node].blocks;
        let found = blocks.partition_point(|(range, _)| range.end <= block);
        blocks.get(found).filter(|(range, _)| range.contains(&block)).map(|(_, need)| need)
    }

    /// The rows of the tensor a node starts in.
    pub fn start(&self, node: NodeId) -> &Rows {
        &self.nodes[node].start
    }

    /// The rows that the edit of a node is computed for: more than are needed where they depend on one
    /// another, since a closure, or an op over joint positions, sees all it edits or nothing.
    pub fn edited<'a>(&'a self, forest: &'a Forest, id: NodeId) -> &'a Rows {
        let (node, start) = (&forest.nodes()[id], self.start(id));
        let is_coupled = node.edit.as_ref().is_some_and(|step| step.edit.op.couples_rows());
        if is_coupled && !start.is_empty() { &node.rows } else { start }
    }

    /// The rows of a node that go through the last norm.
    pub fn last(&self, node: NodeId) -> &Rows {
        &self.nodes[node].last
    }

    /// Tells every row of other nodes that a node depends on: whose, of which tensor, which, how.
    pub fn outside(&self, forest: &Forest, id: NodeId, mut tell: impl FnMut(NodeId, Point, Rows, Use)) {
        let node = &forest.nodes()[id];
        if let Some(parent) = node.parent {
            self.start_outside(forest, id, parent, &mut tell);
        }
        let anatomy = forest.anatomy();
        for (blocks, need) in self.blocks(id) {
            for block in blocks.clone() {
                for read in anatomy.dependences() {
                    let rows = need.part(read.part);
                    if rows.is_empty() || !read.crosses(anatomy, node.start, block) {
                        continue;
                    }
                    let at = Point { block, stage: read.of };
                    let kind = if read.mixing == Mixing::Keys { Use::Keys } else { Use::Row };
                    let owners = forest.owners(id, at, anatomy.read(read.mixing, block, rows));
                    for (owner, rows) in owners.into_iter().filter(|(owner, _)| *owner != id) {
                        tell(owner, at, rows, kind);
                    }
                }
            }
        }
    }

    /// What the edit of a node depends on.
    fn start_outside(
        &self,
        forest: &Forest,
        id: NodeId,
        parent: NodeId,
        tell: &mut impl FnMut(NodeId, Point, Rows, Use),
    ) {
        let node = &forest.nodes()[id];
        let (Some(step), rows) = (&node.edit, self.edited(forest, id)) else { return };
        let anatomy = forest.anatomy();
        let mut base = |stage: usize, only_edited: bool| {
            let at = Point { stage, ..node.start };
            for (owner, rows) in forest.owners(parent, at, rows.clone()) {
                // Scores are computed from queries and keys, unless an edit of them is there already.
                let start = forest.nodes()[owner].start;
                if !only_edited || start.block == at.block && anatomy.is_matrix(start) {
                    tell(owner, at, rows, Use::Row);
                }
            }
        };
        let stage = node.start.stage;
        let stages = anatomy.stages(node.start.block);
        let attention = stages.attentions().iter().find(|a| [a.scores, a.weights].contains(&stage));
        let paired = stages.paired(stage);
        if let Some(attention) = attention {
            base(attention.scores, true);
            if stage == attention.weights {
                base(stage, true);
            }
        } else if paired.is_some() || step.keeps_some() {
            base(stage, false);
            if let Some(other) = paired {
                base(other, false);
            }
        }
        if let Some((source, place)) = step.source_place() {
            let at = anatomy.point(place);
            let taken =
                step.indices(rows).into_iter().map(|i| place.positions[i.min(place.positions.len() - 1)]);
            for (owner, rows) in forest.owners(source, at, taken.collect()) {
                tell(owner, at, rows, Use::Value);
            }
        }
    }
}

impl Sliced {
    fn new(node: &Node, asked: &Asked, anatomy: &Anatomy) -> Self {
        let layers = anatomy.layers();
        let of = |range: std::ops::RangeInclusive<Point>| {
            asked.range(range).fold(Rows::default(), |all, (_, rows)| all.union(rows))
        };
        let mut last = of(anatomy.normed()..=anatomy.logits());
        let mut start = if node.start.block == layers { last.clone() } else { Rows::default() };
        last = last.and(&node.own(anatomy.normed()));
        let mut blocks: Vec<(Range<usize>, Need)> = Vec::new();
        let mut after = last.clone();
        for block in (node.start.block..layers).rev() {
            let need = Self::block(node, asked, anatomy, block, &after);
            if block == node.start.block {
                start = need.part(anatomy.part(node.start)).and(&node.rows);
            }
            after = need.entering().clone();
            if need.is_empty() {
                continue;
            }
            match blocks.last_mut() {
                Some((range, same)) if *same == need && range.start == block + 1 => range.start = block,
                _ => blocks.push((block..block + 1, need)),
            }
        }
        blocks.reverse();
        Self { blocks, start, last }
    }

    /// What is needed in a block of which the rows `after` leave: from its last part to its first, what is asked of its
    /// tensors, and what later parts read of them.
    fn block(node: &Node, asked: &Asked, anatomy: &Anatomy, block: usize, after: &Rows) -> Need {
        let stages = anatomy.stages(block);
        let at = |stage: usize| Point { block, stage };
        let mut parts = vec![Rows::default(); stages.parts()];
        for (at, rows) in asked.range(at(ENTERING)..=at(stages.leaving())) {
            parts[anatomy.part(*at)].add(rows);
        }
        let mut leaving = after.and(&node.own(at(stages.leaving())));
        if let Some(asked) = asked.get(&at(stages.leaving())) {
            leaving.add(asked);
        }
        parts[stages.parts() - 1].add(&leaving);
        // Dependences are in the order of what reads, and a part reads only what comes before it.
        for read in anatomy.dependences().iter().rev().filter(|read| read.from != read.part) {
            let rows = &parts[read.part];
            if !rows.is_empty() {
                let rows = anatomy.read(read.mixing, block, rows).and(&node.own(at(read.of)));
                parts[read.from].add(&rows);
            }
        }
        Need { parts: parts.into(), leaving }
    }
}
