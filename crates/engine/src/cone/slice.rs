//! The backward slice: from what is read to what must be computed.

use super::forest::{Forest, Node, NodeId};
use super::point::Point;
use super::rows::Rows;
use causalcone_model::Site;
use std::collections::BTreeMap;
use std::ops::Range;

/// What is computed of a node's own rows in one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Need {
    /// Rows that enter the block.
    pub input: Rows,
    /// Rows that go through its first norm.
    pub normed: Rows,
    /// Rows that get a query.
    pub query: Rows,
    /// Rows that get a key and a value.
    pub keys: Rows,
    /// Rows that go through attention, to block_middle.
    pub middle: Rows,
    /// Rows that go through the MLP, and then to block_output; of some of them someone takes what the MLP has on the
    /// way, and no more.
    pub mlp: Rows,
    /// Rows that leave the block.
    pub leaving: Rows,
}

impl Need {
    /// All rows of which anything is computed; to enter a block takes nothing.
    pub fn any(&self) -> Rows {
        [&self.query, &self.keys, &self.middle, &self.mlp, &self.leaving]
            .into_iter()
            .fold(self.normed.clone(), |all, rows| all.union(rows))
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
            let entry = open[node].entry(at).or_default();
            *entry = entry.union(rows);
        };
        for (node, at, rows) in asked {
            ask(&mut open, node, at, &rows);
        }
        let mut slice = Self { nodes: vec![Sliced::default(); count] };
        // Whoever asks comes after whom it asks.
        for node in (0..count).rev() {
            let asked = std::mem::take(&mut open[node]);
            if !asked.is_empty() {
                slice.nodes[node] = Sliced::new(&forest.nodes()[node], &asked, forest.layers());
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
        let mut of = |site: Site, block: usize, rows: Rows, kind: Use| {
            if !rows.is_empty() {
                let at = Point { block, site };
                for (owner, rows) in forest.owners(id, at, rows).into_iter().filter(|(owner, _)| *owner != id)
                {
                    tell(owner, at, rows, kind);
                }
            }
        };
        for (blocks, need) in self.blocks(id) {
            for block in blocks.clone() {
                if node.attends(block) {
                    let seen = node.seen(block, &need.middle);
                    of(Site::KeyOutput, block, seen.clone(), Use::Keys);
                    of(Site::ValueOutput, block, seen, Use::Keys);
                    of(Site::QueryOutput, block, need.middle.clone(), Use::Row);
                }
                if !node.is_past(block, Site::BlockMiddle) {
                    of(Site::BlockInput, block, need.middle.clone(), Use::Row);
                }
                if !node.is_past(block, Site::BlockOutput) && node.is_parallel() {
                    of(Site::BlockMiddle, block, need.leaving.clone(), Use::Row);
                    of(Site::MlpOutput, block, need.leaving.clone(), Use::Row);
                } else if !node.is_past(block, Site::BlockOutput) {
                    of(Site::BlockMiddle, block, need.mlp.clone(), Use::Row);
                }
                if node.start == (Point { block, site: Site::MlpActivation }) {
                    of(Site::MlpInput, block, need.mlp.clone(), Use::Row);
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
        let site = node.start.site;
        let mut base = |site: Site, only_edited: bool| {
            let at = Point { site, ..node.start };
            for (owner, rows) in forest.owners(parent, at, rows.clone()) {
                // Scores are computed from queries and keys, unless an edit of them is there already.
                if !only_edited
                    || forest.nodes()[owner].start.block == at.block
                        && forest.nodes()[owner].start.site.is_attention_matrix()
                {
                    tell(owner, at, rows, Use::Row);
                }
            }
        };
        match site {
            Site::KeyOutput | Site::ValueOutput => {
                base(Site::KeyOutput, false);
                base(Site::ValueOutput, false);
            }
            Site::AttentionScore => base(site, true),
            Site::AttentionWeight => {
                base(Site::AttentionScore, true);
                base(site, true);
            }
            _ if step.keeps_some() => base(site, false),
            _ => {}
        }
        if let Some((source, place)) = step.source_place() {
            let at = Point::of(place, forest.layers());
            let taken =
                step.indices(rows).into_iter().map(|i| place.positions[i.min(place.positions.len() - 1)]);
            for (owner, rows) in forest.owners(source, at, taken.collect()) {
                tell(owner, at, rows, Use::Value);
            }
        }
    }
}

impl Sliced {
    fn new(node: &Node, asked: &Asked, layers: usize) -> Self {
        let of = |block: usize, sites: std::ops::RangeInclusive<Site>| {
            let range = Point { block, site: *sites.start() }..=Point { block, site: *sites.end() };
            asked.range(range).fold(Rows::default(), |all, (_, rows)| all.union(rows))
        };
        let own = |block: usize, site: Site| node.own(Point { block, site });
        let mut last = of(layers, Site::FinalNorm..=Site::Logits);
        let mut start = if node.start.block == layers { last.clone() } else { Rows::default() };
        last = last.and(&own(layers, Site::FinalNorm));
        let mut blocks: Vec<(Range<usize>, Need)> = Vec::new();
        let mut after = last.clone();
        for block in (node.start.block..layers).rev() {
            let leaving = after
                .and(&own(block, Site::BlockOutput))
                .union(&of(block, Site::BlockOutput..=Site::BlockOutput));
            // Side by side, a row may leave the block with an MLP output, or a middle, that is another node's.
            let parallel = node.is_parallel();
            let through = if parallel { leaving.and(&own(block, Site::MlpOutput)) } else { leaving.clone() };
            let mlp = through.union(&of(block, Site::MlpInput..=Site::MlpOutput));
            let middle = if parallel { &leaving } else { &mlp }
                .and(&own(block, Site::BlockMiddle))
                .union(&of(block, Site::AttentionScore..=Site::BlockMiddle));
            let attends = node.attends(block);
            let seen = if attends { node.seen(block, &middle) } else { Rows::default() };
            let queries = if attends { middle.clone() } else { Rows::default() };
            let query = queries
                .and(&own(block, Site::QueryOutput))
                .union(&of(block, Site::QueryOutput..=Site::QueryOutput));
            let keys =
                seen.and(&own(block, Site::KeyOutput)).union(&of(block, Site::KeyOutput..=Site::ValueOutput));
            let normed = query.union(&keys).union(&of(block, Site::AttentionInput..=Site::AttentionInput));
            let normed = normed.and(&own(block, Site::AttentionInput));
            let entering = if parallel { middle.union(&mlp) } else { middle.clone() };
            let input = normed.union(&entering).union(&of(block, Site::Embedding..=Site::BlockInput));
            let input = input.and(&own(block, Site::BlockInput));
            if block == node.start.block {
                start = match node.start.site {
                    site if site <= Site::BlockInput => input.clone(),
                    Site::AttentionInput => normed.clone(),
                    Site::QueryOutput => query.clone(),
                    Site::KeyOutput | Site::ValueOutput => keys.clone(),
                    site if site <= Site::BlockMiddle => middle.clone(),
                    site if site <= Site::MlpOutput => mlp.clone(),
                    _ => leaving.clone(),
                }
                .and(&node.rows);
            }
            let need = Need { input, normed, query, keys, middle, mlp, leaving };
            after = need.input.clone();
            if need == Need::default() {
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
}
