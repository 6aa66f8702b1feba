//! Rows of many nodes in one matrix.

use super::pass::lacking;
use crate::Result;
use crate::cone::{Forest, NodeId, Point, Rows};
use candle_core::Tensor;
use causalcone_model::Site;
use causalcone_ops::{add, add_rows, gather_rows};
use std::collections::{HashMap, HashSet};

/// Rows of some nodes, each one's in turn.
pub(super) type Started = (Vec<(NodeId, Rows)>, Tensor);

/// Rows of some nodes, stacked: those of one node ascend by position and stand together.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// `None` where there is no row.
    rows: Option<Tensor>,
    nodes: Vec<(NodeId, Rows)>,
    spans: HashMap<NodeId, (usize, u32)>,
    len: u32,
}

impl Table {
    /// Stacks rows; `rows` has those of each of `nodes` in turn.
    pub(super) fn new(nodes: Vec<(NodeId, Rows)>, rows: Option<Tensor>) -> Self {
        let mut table = Self { rows, ..Self::default() };
        for (node, rows) in nodes {
            table.note(node, rows);
        }
        table
    }

    fn note(&mut self, node: NodeId, rows: Rows) {
        self.spans.insert(node, (self.nodes.len(), self.len));
        self.len += u32::try_from(rows.len()).unwrap_or(u32::MAX);
        self.nodes.push((node, rows));
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> u64 {
        u64::from(self.len)
    }

    /// The nodes and their rows, in order.
    pub(super) fn nodes(&self) -> &[(NodeId, Rows)] {
        &self.nodes
    }

    /// The matrix, if there is any row.
    pub(super) fn rows(&self) -> Option<&Tensor> {
        self.rows.as_ref()
    }

    /// Where a node's row stands.
    pub(super) fn find(&self, node: NodeId, row: usize) -> Option<u32> {
        let &(index, offset) = self.spans.get(&node)?;
        let rows = &self.nodes[index].1;
        rows.contains(row).then(|| offset + u32::try_from(rows.rank(row)).unwrap_or(u32::MAX))
    }

    /// Whether it has all these rows of a node.
    fn has(&self, node: NodeId, rows: &Rows) -> bool {
        self.spans.get(&node).is_some_and(|(index, _)| rows.minus(&self.nodes[*index].1).is_empty())
    }

    /// The same rows, each mapped.
    pub(super) fn map(self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let rows = self.rows.as_ref().map(f).transpose()?;
        Ok(Self { rows, ..self })
    }

    /// Another matrix of the same rows.
    pub(super) fn like(&self, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let rows = self.rows.as_ref().map(f).transpose()?;
        Ok(Self { rows, nodes: self.nodes.clone(), spans: self.spans.clone(), len: self.len })
    }

    /// Adds rows of nodes that have none yet.
    pub(super) fn append(&mut self, more: Vec<Started>) -> Result<()> {
        if more.is_empty() {
            return Ok(());
        }
        let mut parts: Vec<Tensor> = self.rows.take().into_iter().collect();
        for (nodes, tensor) in more {
            for (node, rows) in nodes {
                self.note(node, rows);
            }
            parts.push(tensor);
        }
        self.rows = Some(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0)? });
        Ok(())
    }

    /// The rows of each node that `wanted` gives of those that are here; nodes left without are
    /// left out.
    pub(super) fn select(&self, wanted: impl Fn(NodeId, &Rows) -> Rows) -> Result<Self> {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut index: Vec<u32> = Vec::new();
        let mut from = 0u32;
        for (node, rows) in &self.nodes {
            let some = wanted(*node, rows).and(rows);
            let rank = |row: usize| u32::try_from(rows.rank(row)).unwrap_or(u32::MAX);
            index.extend(some.ranges().iter().flat_map(|range| {
                let first = from + rank(range.start);
                first..first + u32::try_from(range.len()).unwrap_or(u32::MAX)
            }));
            from += u32::try_from(rows.len()).unwrap_or(u32::MAX);
            if !some.is_empty() {
                nodes.push((*node, some));
            }
        }
        let rows = match &self.rows {
            Some(rows) if index.len() == self.len as usize => Some(rows.clone()),
            Some(rows) if !index.is_empty() => Some(gather_rows(rows, &index)?),
            _ => None,
        };
        Ok(Self::new(nodes, rows))
    }
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
        if at.site.is_attention_matrix() {
            return self.matrix(at, node).is_some_and(|(there, _)| rows.minus(there).is_empty());
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
            let (rows, tensor) = found.ok_or_else(|| lacking(owner, at, *row))?;
            fit(&tensor.narrow(1, rows.rank(*row), 1)?, forest.nodes()[node].len, at.site)
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
    tables: Vec<&'t Table>,
    /// Table and row.
    entries: Vec<(usize, u32)>,
}

impl<'t> Index<'t> {
    /// An index into these tables.
    pub(super) fn new(tables: impl IntoIterator<Item = &'t Table>) -> Self {
        Self { tables: tables.into_iter().collect(), entries: Vec::new() }
    }

    /// Adds a row of a node; whether some table has it.
    pub(super) fn push(&mut self, node: NodeId, row: usize) -> bool {
        let found = self.tables.iter().enumerate().find_map(|(i, table)| Some((i, table.find(node, row)?)));
        self.entries.extend(found);
        found.is_some()
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
            let is_picked = asked.len() * 2 < table.len as usize;
            *start = (next, is_picked);
            if is_picked {
                next += u32::try_from(asked.len()).unwrap_or(u32::MAX);
                parts.push(gather_rows(rows, asked)?);
            } else {
                next += table.len;
                parts.push(rows.clone());
            }
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

/// Rows of scores or weights with so many columns; those past the query's own are hidden anyway.
pub(super) fn fit(x: &Tensor, columns: usize, site: Site) -> Result<Tensor> {
    let (heads, rows, has) = x.dims3()?;
    if has >= columns {
        return Ok(x.narrow(2, 0, columns)?);
    }
    let hidden = if site == Site::AttentionScore { f32::NEG_INFINITY } else { 0.0 };
    let fill = Tensor::full(hidden, (heads, rows, columns - has), x.device())?;
    Ok(Tensor::cat(&[x, &fill], 2)?)
}
