//! Rows of many nodes in one matrix.

use crate::cone::{Anatomy, Forest, NodeId, Point, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::stage::Kernel;
use causalcone_ops::{add, add_rows, gather_rows};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rows of some nodes, each one's in turn.
pub(super) type Started = (Vec<(NodeId, Rows)>, Tensor);

/// Rows of some nodes, stacked: those of one node ascend by position and stand together.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// `None` where there is no row.
    rows: Option<Tensor>,
    /// Which rows these are. Tables of the same rows share it.
    list: Arc<List>,
}

/// Rows of some nodes, each one's in turn.
#[derive(Debug, Clone, Default)]
struct List {
    nodes: Vec<(NodeId, Rows)>,
    spans: HashMap<NodeId, (usize, u32)>,
    len: u32,
}

impl List {
    fn new(nodes: Vec<(NodeId, Rows)>) -> Self {
        let mut list = Self::default();
        nodes.into_iter().for_each(|(node, rows)| list.push(node, rows));
        list
    }

    fn push(&mut self, node: NodeId, rows: Rows) {
        self.spans.insert(node, (self.nodes.len(), self.len));
        self.len += number(rows.len());
        self.nodes.push((node, rows));
    }
}

impl Table {
    /// Stacks rows; `rows` has those of each of `nodes` in turn.
    pub(super) fn new(nodes: Vec<(NodeId, Rows)>, rows: Option<Tensor>) -> Self {
        Self { rows, list: Arc::new(List::new(nodes)) }
    }

    /// A table of these rows, still to be computed.
    pub(super) fn of(&self, nodes: Vec<(NodeId, Rows)>) -> Self {
        if self.list.nodes == nodes { self.with(None) } else { Self::new(nodes, None) }
    }

    /// The same rows of another tensor.
    pub(super) fn with(&self, rows: Option<Tensor>) -> Self {
        Self { rows, list: self.list.clone() }
    }

    /// How many rows there are.
    fn len(&self) -> u32 {
        self.list.len
    }

    /// The nodes and their rows, in order.
    pub(super) fn nodes(&self) -> &[(NodeId, Rows)] {
        &self.list.nodes
    }

    /// The matrix, if there is any row.
    pub(super) fn rows(&self) -> Option<&Tensor> {
        self.rows.as_ref()
    }

    /// Whether there is any row of a node.
    pub(super) fn has_node(&self, node: NodeId) -> bool {
        self.list.spans.contains_key(&node)
    }

    /// Where a node's row stands.
    pub(super) fn find(&self, node: NodeId, row: usize) -> Option<u32> {
        let &(index, offset) = self.list.spans.get(&node)?;
        let rows = &self.nodes()[index].1;
        rows.contains(row).then(|| offset + number(rows.rank(row)))
    }

    /// Whether it has all these rows of a node.
    fn has(&self, node: NodeId, rows: &Rows) -> bool {
        self.list.spans.get(&node).is_some_and(|(index, _)| rows.minus(&self.nodes()[*index].1).is_empty())
    }

    /// Where the rows of another table stand, if all are here; all of them in order where the two are of the same rows.
    pub(super) fn places(&self, of: &Self) -> Option<Places> {
        if Arc::ptr_eq(&self.list, &of.list) || self.nodes() == of.nodes() {
            return Some(Places::All);
        }
        let mut places = Vec::with_capacity(of.len() as usize);
        for (node, rows) in of.nodes() {
            let &(index, offset) = self.list.spans.get(node)?;
            let own = &self.nodes()[index].1;
            for range in rows.ranges() {
                // A range that is here is here as a whole, side by side.
                if own.and(&Rows::from(range.clone())).len() != range.len() {
                    return None;
                }
                let first = offset + number(own.rank(range.start));
                places.extend(first..first + number(range.len()));
            }
        }
        Some(Places::Some(places))
    }

    /// The same rows, each mapped.
    pub(super) fn map(self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { rows: self.rows.as_ref().map(f).transpose()?, ..self })
    }

    /// Adds rows of nodes that have none yet.
    pub(super) fn append(&mut self, more: Vec<Started>) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let mut parts: Vec<Tensor> = self.rows.take().into_iter().collect();
        let list = Arc::make_mut(&mut self.list);
        for (nodes, tensor) in more {
            nodes.into_iter().for_each(|(node, rows)| list.push(node, rows));
            parts.push(tensor);
        }
        self.rows = Some(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? });
        Ok(())
    }

    /// The rows of each node that `wanted` gives of those that are here; nodes left without are
    /// left out.
    pub(super) fn select(&self, wanted: impl Fn(NodeId, &Rows) -> Rows) -> Result<Self> {
        let some = |(node, rows): &(NodeId, Rows)| (*node, wanted(*node, rows).and(rows));
        let nodes = self.nodes().iter().map(some).filter(|(_, rows)| !rows.is_empty()).collect();
        let table = self.of(nodes);
        let rows = match (&self.rows, self.places(&table)) {
            (Some(rows), Some(Places::All)) => Some(rows.clone()),
            (Some(rows), Some(Places::Some(at))) if !at.is_empty() => Some(gather_rows(rows, &at)?),
            _ => None,
        };
        Ok(table.with(rows))
    }
}

/// Which rows of a table are meant.
#[derive(Debug)]
pub(super) enum Places {
    /// All of them, in order.
    All,
    /// These.
    Some(Vec<u32>),
}

pub(super) fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Rows kept from earlier batches, or for later points, by tensor.
#[derive(Debug, Default)]
pub(super) struct Store<'b> {
    /// What was kept before, and stays as it is.
    below: Vec<&'b Store<'static>>,
    tables: HashMap<Point, Vec<(usize, Table)>>,
    matrices: HashMap<(Point, NodeId), (Matrix, usize)>,
}

/// Rows of scores or weights, H × rows × n.
pub(super) type Matrix = (Rows, Tensor);

impl<'b> Store<'b> {
    /// An empty one over others that stay as they are.
    pub(super) fn over(below: Vec<&'b Store<'static>>) -> Self {
        Self { below, ..Self::default() }
    }

    /// What was kept here, by itself.
    pub(super) fn alone(self) -> Store<'static> {
        Store { below: Vec::new(), tables: self.tables, matrices: self.matrices }
    }

    /// Whether some table, or matrix, of those kept here has all these rows of a node.
    pub(super) fn has(&self, node: NodeId, at: Point, rows: &Rows) -> bool {
        if let Some((there, _)) = self.matrix(at, node) {
            return rows.minus(there).is_empty();
        }
        self.tables.get(&at).into_iter().flatten().any(|(_, table)| table.has(node, rows))
    }

    /// The nodes of which anything was kept here.
    pub(super) fn nodes(&self) -> HashSet<NodeId> {
        let of_tables = self.tables.values().flatten().flat_map(|(_, table)| table.nodes());
        of_tables.map(|(node, _)| *node).chain(self.matrices.keys().map(|(_, node)| *node)).collect()
    }

    /// Bytes of what was kept here; a tensor that is there under several names counts once.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.tables.values().flatten().filter_map(|(_, table)| table.rows());
        let all = tables.chain(self.matrices.values().map(|((_, tensor), _)| tensor));
        let sizes: HashMap<_, usize> =
            all.map(|tensor| (tensor.id(), tensor.elem_count() * tensor.dtype().size_in_bytes())).collect();
        sizes.into_values().sum()
    }

    /// Keeps a table until a batch.
    pub(super) fn keep(&mut self, at: Point, table: Table, until: usize) {
        self.tables.entry(at).or_default().push((until, table));
    }

    /// Drops what no batch after this one needs.
    pub(super) fn drop_before(&mut self, batch: usize) {
        for tables in self.tables.values_mut() {
            tables.retain(|(until, _)| *until >= batch);
        }
        self.tables.retain(|_, tables| !tables.is_empty());
        self.matrices.retain(|_, (_, until)| *until >= batch);
    }

    /// Keeps rows of scores or weights until a batch.
    pub(super) fn keep_matrix(&mut self, at: Point, node: NodeId, matrix: Matrix, until: usize) {
        self.matrices.insert((at, node), (matrix, until));
    }

    /// Rows of scores or weights as a run has them, whoever owns them.
    pub(super) fn matrix_rows(
        &self,
        forest: &Forest,
        node: NodeId,
        at: Point,
        rows: &[usize],
    ) -> Result<Tensor> {
        let of = |row: &usize| {
            let owner = forest.owner(node, at, *row);
            let found = self.matrix(at, owner).filter(|(rows, _)| rows.contains(*row));
            let (rows, tensor) = found.ok_or_else(|| lacking(forest, owner, at, *row))?;
            let (len, hidden) = (forest.nodes()[node].len, hidden(forest.anatomy(), at));
            fit(&tensor.narrow(1, rows.rank(*row), 1)?, len, hidden)
        };
        let parts: Vec<Tensor> = rows.iter().map(of).collect::<Result<_>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// The rows of a node's scores or weights that were kept.
    pub(super) fn matrix(&self, at: Point, node: NodeId) -> Option<&Matrix> {
        let found = self.matrices.get(&(at, node)).map(|(matrix, _)| matrix);
        found.or_else(|| self.below.iter().find_map(|below| below.matrix(at, node)))
    }

    /// The tables that have rows of a tensor.
    pub(super) fn tables(&self, at: Point) -> impl Iterator<Item = &Table> {
        let below = self.below.iter().filter_map(move |below| below.tables.get(&at));
        self.tables.get(&at).into_iter().chain(below).flatten().map(|(_, table)| table)
    }
}

/// Which rows of which of several tables.
#[derive(Debug)]
pub(super) struct Index<'t> {
    forest: &'t Forest,
    /// The tensor that all tables have rows of.
    at: Point,
    tables: Vec<&'t Table>,
    /// Table and row.
    entries: Vec<(usize, u32)>,
}

impl<'t> Index<'t> {
    /// An index into the rows of a tensor that are kept, after those of `table`.
    pub(super) fn new(forest: &'t Forest, at: Point, table: Option<&'t Table>, store: &'t Store<'_>) -> Self {
        let tables = table.into_iter().chain(store.tables(at)).collect();
        Self { forest, at, tables, entries: Vec::new() }
    }

    /// Adds a row of the node that owns it.
    pub(super) fn push(&mut self, owner: NodeId, row: usize) -> Result<()> {
        let found = self.tables.iter().enumerate().find_map(|(i, table)| Some((i, table.find(owner, row)?)));
        self.entries.push(found.ok_or_else(|| lacking(self.forest, owner, self.at, row))?);
        Ok(())
    }

    /// Adds rows of a run, whoever owns them.
    pub(super) fn extend(&mut self, node: NodeId, rows: impl IntoIterator<Item = usize>) -> Result<()> {
        let (forest, at) = (self.forest, self.at);
        rows.into_iter().try_for_each(|row| self.push(forest.owner(node, at, row), row))
    }

    /// The tables as one matrix, and which of its rows are meant, if any. Of a table of which others use most only
    /// what is meant is there.
    fn joined(&self) -> Result<Option<(Tensor, Vec<u32>)>> {
        let mut asked: Vec<Vec<u32>> = vec![Vec::new(); self.tables.len()];
        for (table, row) in &self.entries {
            asked[*table].push(*row);
        }
        let (mut parts, mut next) = (Vec::new(), 0u32);
        // By table: where it starts, and whether the rows are those asked for, in that order.
        let mut starts = vec![(0u32, false); self.tables.len()];
        for ((start, asked), table) in starts.iter_mut().zip(&asked).zip(&self.tables) {
            let Some(rows) = table.rows().filter(|_| !asked.is_empty()) else { continue };
            let is_picked = asked.len() * 2 < table.len() as usize;
            *start = (next, is_picked);
            next += if is_picked { number(asked.len()) } else { table.len() };
            parts.push(if is_picked { gather_rows(rows, asked)? } else { rows.clone() });
        }
        let merged = match parts.len() {
            0 => return Ok(None),
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 0)?,
        };
        let mut picked = vec![0u32; self.tables.len()];
        let place = |&(table, row): &(usize, u32)| match starts[table] {
            (start, false) => start + row,
            (start, true) => {
                picked[table] += 1;
                start + picked[table] - 1
            }
        };
        Ok(Some((merged, self.entries.iter().map(place).collect())))
    }

    /// The rows, in the order they were added.
    pub(super) fn gather(&self) -> Result<Option<Tensor>> {
        let Some((merged, rows)) = self.joined()? else { return Ok(None) };
        Ok(Some(if is_all(&rows, &merged) { merged } else { gather_rows(&merged, &rows)? }))
    }

    /// `x` plus the rows, in the order they were added.
    pub(super) fn add_to(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.joined()? {
            Some((merged, rows)) if is_all(&rows, &merged) => add(x, &merged)?,
            Some((merged, rows)) => add_rows(x, &merged, &rows)?,
            None => x.clone(),
        })
    }
}

fn is_all(rows: &[u32], table: &Tensor) -> bool {
    table.dims().first() == Some(&rows.len()) && rows.iter().zip(0..).all(|(row, i)| *row == i)
}

/// What stands in a matrix of attention where a query sees no key.
pub(super) fn hidden(anatomy: &Anatomy, at: Point) -> f32 {
    let kernel = &anatomy.stages(at.block)[at.stage].kernel;
    if matches!(kernel, Kernel::Scores(_)) { f32::NEG_INFINITY } else { 0.0 }
}

/// Rows of scores or weights with so many columns; those past the query's own are hidden anyway.
pub(super) fn fit(x: &Tensor, columns: usize, hidden: f32) -> Result<Tensor> {
    let (heads, rows, has) = x.dims3()?;
    if has >= columns {
        return Ok(x.narrow(2, 0, columns)?);
    }
    let fill = Tensor::full(hidden, (heads, rows, columns - has), x.device())?;
    Ok(Tensor::cat(&[x, &fill], 2)?)
}

/// A row that the plan said would be there.
pub(super) fn lacking(forest: &Forest, node: NodeId, at: Point, row: usize) -> Error {
    let at = forest.anatomy().name(at);
    Error::internal(format!("row {row} of node {node} is needed at {at} and was not computed"))
}
