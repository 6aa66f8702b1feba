//! Runs as paths in a forest, so that what two runs have in common is there once.
//!
//! A row of a run is known by what it depends on: the token ids up to its position, and the edits
//! in its past. A [`Node`] is a run as far as some edit: it has the rows that this edit makes new,
//! and every other row is its parent's. Runs that begin with the same tokens, or make the same edits
//! first, share the nodes of that beginning. Whose a row is, [`Forest::owner`] says in closed form:
//! nothing is stored by row.

use super::reach::{Anatomy, Point, Reach};
use super::rows::Rows;
use crate::op::OperationKey;
use crate::plan::{Edit, NumbersId, Place, Plan, ValueSource};
use causalcone_model::Config;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A node's number. Parents, and runs that values come from, have smaller ones.
pub type NodeId = usize;

/// A run as far as one edit, or a prompt without any.
#[derive(Debug, Clone)]
pub struct Node {
    /// The run without that edit, or one whose prompt begins alike.
    pub parent: Option<NodeId>,
    /// The first run of the plan that has it, for messages.
    pub run: usize,
    /// Positions of the run.
    pub len: usize,
    /// Its token ids.
    pub ids: Arc<[u32]>,
    /// The tensor in which it begins to differ from its parent.
    pub start: Point,
    /// The rows of that tensor that differ.
    pub rows: Rows,
    /// The edit; a prompt has none.
    pub edit: Option<Step>,
    anatomy: Arc<Anatomy>,
}

/// The edit of a node.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub edit: Arc<Edit>,
    /// Which of the edit's positions are meant, by their place in its list: those whose value is
    /// what stands there already are left out.
    pub picked: Arc<[usize]>,
    /// The node its value comes from.
    pub source: Option<NodeId>,
}

/// All nodes of a plan's runs.
#[derive(Debug, Clone)]
pub struct Forest {
    nodes: Vec<Node>,
    anatomy: Arc<Anatomy>,
    /// Prompts without edits, by whether they are long, since these have nothing in common with others, and their ids:
    /// neighbours in this order share the longest beginnings.
    prompts: BTreeMap<(bool, Arc<[u32]>), NodeId>,
    edited: HashMap<(NodeId, NodeKey), NodeId>,
}

/// What makes two edits of one node the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct NodeKey {
    op: OperationKey,
    scale: u64,
    at: Point,
    positions: Arc<[usize]>,
    heads: Option<Arc<[usize]>>,
    dims: Option<Arc<[usize]>>,
    value: ValueKey,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum ValueKey {
    None,
    /// Which tensor, which row and head of it.
    Constant(NumbersId, Option<usize>, Option<usize>),
    /// Of which node, at which point, which rows, heads and dimensions of them.
    Rows(NodeId, Point, Arc<[usize]>, Option<Arc<[usize]>>, Option<Arc<[usize]>>),
}

impl Node {
    /// Whether a tensor of its rows is computed, rather than put there by the node's edit or another node's.
    pub(crate) fn computes(&self, block: usize, stage: usize) -> bool {
        block != self.start.block || self.anatomy.follows(self.start, stage)
    }

    /// The rows of a tensor that are the node's own.
    pub fn own(&self, at: Point) -> Rows {
        match self.anatomy.reach(self.start, at) {
            Reach::Nothing => Rows::default(),
            Reach::Same => self.rows.clone(),
            Reach::Later(count) => self.rows.spread(count, self.len),
        }
    }

    /// Whether a row of a tensor is the node's own.
    fn owns(&self, at: Point, row: usize) -> bool {
        match self.anatomy.reach(self.start, at) {
            Reach::Nothing => false,
            Reach::Same => self.rows.contains(row),
            Reach::Later(None) => self.rows.first().is_some_and(|first| (first..self.len).contains(&row)),
            Reach::Later(count) => self.rows.spread(count, self.len).contains(row),
        }
    }
}

impl Step {
    /// Whether the edit leaves something of what it edits, so that this must be there.
    pub(crate) fn keeps_some(&self) -> bool {
        let is_whole = self.edit.place.heads.is_none() && self.edit.place.dims.is_none();
        !is_whole || self.edit.op.info().reads_base
    }

    /// Where the value is taken from.
    pub(crate) fn source_place(&self) -> Option<(NodeId, &Place)> {
        self.source.zip(self.edit.source().map(|(_, place)| place))
    }

    /// The places in the edit's list of positions of those among `rows`.
    pub(crate) fn indices(&self, rows: &Rows) -> Vec<usize> {
        let positions = &self.edit.place.positions;
        self.picked.iter().copied().filter(|i| rows.contains(positions[*i])).collect()
    }
}

impl Forest {
    /// An empty forest for a model of that shape.
    pub fn new(config: &Config) -> Self {
        Self {
            nodes: Vec::new(),
            anatomy: Arc::new(Anatomy::new(config)),
            prompts: BTreeMap::new(),
            edited: HashMap::new(),
        }
    }

    /// The nodes; each comes after its parent and after the nodes its value comes from.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The stages of the model, and how they depend on each other.
    pub fn anatomy(&self) -> &Anatomy {
        &self.anatomy
    }

    /// Whose a row of a run is.
    pub fn owner(&self, node: NodeId, at: Point, row: usize) -> NodeId {
        let mut id = node;
        while let Some(parent) = self.nodes[id].parent {
            if self.nodes[id].owns(at, row) {
                break;
            }
            id = parent;
        }
        id
    }

    /// Rows of a run parted by whose they are, nearest first.
    pub fn owners(&self, node: NodeId, at: Point, rows: Rows) -> Vec<(NodeId, Rows)> {
        let (mut id, mut rest) = (node, rows);
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let node = &self.nodes[id];
            let Some(parent) = node.parent else {
                parts.push((id, rest));
                break;
            };
            let own = rest.and(&node.own(at));
            if !own.is_empty() {
                rest = rest.minus(&own);
                parts.push((id, own));
            }
            id = parent;
        }
        parts
    }

    /// Adds a run of the plan and gives its node. `nodes` are those of the runs before it.
    pub fn insert(&mut self, plan: &Plan, run: usize, nodes: &[NodeId]) -> NodeId {
        let mut edits: Vec<&Arc<Edit>> = plan.runs[run].edits.iter().collect();
        // Edits of one tensor stay in file order.
        edits.sort_by_key(|edit| self.anatomy.point(&edit.place));
        let mut node = self.prompt(run, &plan.runs[run].ids);
        for edit in edits {
            node = self.edited(run, node, edit, nodes);
        }
        node
    }

    /// Adds the prompts of a plan's runs, and none of their edits.
    pub(crate) fn insert_prompts(&mut self, plan: &Plan) {
        for (number, run) in plan.runs.iter().enumerate() {
            self.prompt(number, &run.ids);
        }
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The node of a prompt without edits.
    fn prompt(&mut self, run: usize, ids: &Arc<[u32]>) -> NodeId {
        let key = (self.anatomy.is_long(ids.len()), ids.clone());
        if let Some(node) = self.prompts.get(&key) {
            return *node;
        }
        let common = |other: &[u32]| ids.iter().zip(other).take_while(|(a, b)| a == b).count();
        let before = self.prompts.range(..key.clone()).next_back();
        let after = self.prompts.range(key.clone()..).next();
        let near = before.into_iter().chain(after).filter(|((is_long, _), _)| *is_long == key.0);
        let near = near.map(|((_, other), node)| (common(other), *node));
        let start = Point::EMBEDDING;
        // The parent is whoever has the last common row, so that paths stay short.
        let near = near.filter(|(common, _)| *common > 0).max_by_key(|(common, _)| *common);
        let (common, parent) = match near {
            Some((common, near)) => (common, Some(self.owner(near, start, common - 1))),
            None => (0, None),
        };
        let len = ids.len();
        let node = self.push(Node {
            parent,
            run,
            len,
            ids: ids.clone(),
            start,
            rows: (common..len).into(),
            edit: None,
            anatomy: self.anatomy.clone(),
        });
        self.prompts.insert(key, node);
        node
    }

    /// The node of a run with one edit more: itself where the edit puts back what is there.
    fn edited(&mut self, run: usize, parent: NodeId, edit: &Arc<Edit>, nodes: &[NodeId]) -> NodeId {
        let start = self.anatomy.point(&edit.place);
        let positions = &edit.place.positions;
        let mut picked: Vec<usize> = (0..positions.len()).collect();
        // What stands before an edit is the parent's.
        let from = edit.source().map(|(run, place)| (run.map_or(parent, |run| nodes[run]), place));
        let (value, source) = match (&edit.value, from) {
            (Some(ValueSource::Constant(constant)), _) => {
                (ValueKey::Constant(constant.rows.id(), constant.row, constant.head), None)
            }
            (_, None) => (ValueKey::None, None),
            (_, Some((source, place))) => {
                let at = self.anatomy.point(place);
                let theirs: Vec<(NodeId, usize)> =
                    place.positions.iter().map(|row| (self.owner(source, at, *row), *row)).collect();
                // A value from the very row it would replace is no edit.
                let same = at == start && place.heads == edit.place.heads && place.dims == edit.place.dims;
                if edit.op.info().is_interchange && same && theirs.len() == positions.len() {
                    let ours = |i: usize| (self.owner(parent, start, positions[i]), positions[i]);
                    let changes = |i: &usize| theirs[*i] != ours(*i);
                    // Rows that depend on one another are edited all or none.
                    if !edit.op.couples_rows() || !picked.iter().any(changes) {
                        picked.retain(changes);
                    }
                }
                // The last of the owners has the same rows there as the run that was named; but those of
                // attention's matrices are as long as the run.
                let last = theirs.iter().map(|(owner, _)| *owner).max();
                let source = last.filter(|_| !place.site.is_attention_matrix()).unwrap_or(source);
                let (heads, dims) = (place.heads.clone(), place.dims.clone());
                (ValueKey::Rows(source, at, place.positions.clone(), heads, dims), Some(source))
            }
        };
        if picked.is_empty() {
            return parent;
        }
        let key = NodeKey {
            op: edit.op.key(),
            scale: edit.scale.to_bits(),
            at: start,
            positions: positions.clone(),
            heads: edit.place.heads.clone(),
            dims: edit.place.dims.clone(),
            value,
        };
        let key = (parent, key);
        if let Some(node) = self.edited.get(&key) {
            return *node;
        }
        let Node { len, ids, .. } = &self.nodes[parent];
        let node = self.push(Node {
            parent: Some(parent),
            run,
            len: *len,
            ids: ids.clone(),
            start,
            rows: picked.iter().map(|i| positions[*i]).collect(),
            edit: Some(Step { edit: edit.clone(), picked: picked.into(), source }),
            anatomy: self.anatomy.clone(),
        });
        self.edited.insert(key, node);
        node
    }
}
