//! Where nodes start: the rows of their edit.

use super::state::BatchPass;
use super::table::{Index, Started, Table};
use crate::Result;
use crate::cone::{NodeId, Point, Rows, Step};
use crate::op::OperationKey;
use crate::plan::{NumbersId, Place, ValueSource};
use candle_core::{DType, Tensor};
use causalcone_model::Site;
use causalcone_ops::select;

/// What edits have in common that are computed together.
#[derive(PartialEq)]
struct EditGroup<'a> {
    op: OperationKey,
    scale: u64,
    heads: Option<&'a [usize]>,
    dims: Option<&'a [usize]>,
    value: GroupValue<'a>,
}

#[derive(PartialEq)]
enum GroupValue<'a> {
    None,
    /// One row for all, of this tensor.
    Constant(NumbersId, Option<usize>, Option<usize>),
    /// Rows of one tensor, these heads and dimensions of them.
    Rows(Point, Site, Option<&'a [usize]>, Option<&'a [usize]>),
}

impl BatchPass<'_, '_> {
    /// How many of these nodes, from the first on, start at a point in the same way, so that they are computed
    /// together: one product by the parameters of their op, whoever's the rows are.
    pub(super) fn alike(&self, nodes: &[NodeId], at: Point) -> usize {
        let kind = |id: NodeId| {
            let node = &self.cone.forest.nodes()[id];
            node.edit.as_ref().filter(|_| node.start == at).and_then(|step| self.kind(step))
        };
        let Some(first) = kind(nodes[0]) else { return 1 };
        let more = (1..nodes.len()).take_while(|i| {
            kind(nodes[*i]).as_ref() == Some(&first) && !self.rests_on(nodes[*i], &nodes[..*i])
        });
        1 + more.count()
    }

    /// Of an edit that can be computed beside others.
    fn kind<'s>(&self, step: &'s Step) -> Option<EditGroup<'s>> {
        let edit = &*step.edit;
        let value = match &edit.value {
            None => GroupValue::None,
            Some(ValueSource::Constant(constant)) if constant.is_one_row() => {
                GroupValue::Constant(constant.rows.id(), constant.row, constant.head)
            }
            Some(ValueSource::Constant(_)) => return None,
            Some(ValueSource::Run(_, place) | ValueSource::Own(place)) => {
                if place.site.is_attention_matrix() {
                    return None;
                }
                let at = self.cone.forest.anatomy().point(place);
                GroupValue::Rows(at, place.site, place.heads.as_deref(), place.dims.as_deref())
            }
        };
        let (heads, dims) = (edit.place.heads.as_deref(), edit.place.dims.as_deref());
        let is_apart = edit.op.couples_rows();
        (!is_apart).then(|| EditGroup { op: edit.op.key(), scale: edit.scale.to_bits(), heads, dims, value })
    }

    /// The rows with which nodes start at a point, given what is there of others; `None` where they need none.
    /// Several are [alike](Self::alike).
    pub(super) fn started(&self, nodes: &[NodeId], at: Point, table: &Table) -> Result<Option<Started>> {
        let (forest, slice) = (&self.cone.forest, &self.cone.slice);
        let nodes: Vec<NodeId> = nodes.iter().copied().filter(|id| !slice.start(*id).is_empty()).collect();
        let Some(&id) = nodes.first() else { return Ok(None) };
        let node = &forest.nodes()[id];
        let rows = slice.start(id).clone();
        let Some(step) = &node.edit else {
            // A prompt: its tokens at their positions.
            let positions: Vec<usize> = rows.iter().collect();
            let ids: Vec<u32> = positions.iter().map(|row| node.ids[*row]).collect();
            return Ok(Some((vec![(id, rows)], self.model.decoder()?.embed(&ids, &positions)?)));
        };
        if at != node.start {
            // The other one of key and value, as it is.
            let from = [(node.parent.unwrap_or(id), rows.iter().collect())];
            return Ok(Some((vec![(id, rows)], self.rows_of(&from, at, Some(table))?)));
        }
        let starts: Vec<Start<'_>> = nodes.iter().filter_map(|id| self.start(*id)).collect();
        let positions: Vec<usize> = starts.iter().flat_map(|start| start.positions.iter().copied()).collect();
        let base = if step.keeps_some() {
            let from = starts.iter().map(|start| (start.parent, start.positions.clone()));
            self.rows_of(&from.collect::<Vec<_>>(), at, Some(table))?
        } else {
            self.blank(at, positions.len())?
        };
        let value = self.value(&starts, at, table)?;
        let edit = &step.edit;
        let new = edit.place.edit_of_rows(&base, &positions, self.model.config(), |block| {
            self.bound.of(&edit.op).apply(edit.scale, block, value.as_ref())
        })?;
        let new = if edit.op.couples_rows() { those_of(&new, 0, &positions, &rows)? } else { new };
        Ok(Some((nodes.iter().map(|id| (*id, slice.start(*id).clone())).collect(), new)))
    }

    /// What the edit of a node is computed for.
    pub(super) fn start(&self, id: NodeId) -> Option<Start<'_>> {
        let (forest, slice) = (&self.cone.forest, &self.cone.slice);
        let node = &forest.nodes()[id];
        let step = node.edit.as_ref()?;
        let mut picked = step.indices(slice.edited(forest, id));
        // In the order of the edit's own list, which is that of joint rows and of attention's matrices; else in that
        // of the rows.
        if !step.edit.op.couples_rows() && !step.edit.place.site.is_attention_matrix() {
            picked.sort_unstable_by_key(|i| step.edit.place.positions[*i]);
        }
        let positions = picked.iter().map(|i| step.edit.place.positions[*i]).collect();
        Some(Start { parent: node.parent.unwrap_or(id), step, picked, positions })
    }

    /// Rows of runs at a point, whoever owns them; `table` has those of this batch where it is at that
    /// point.
    fn rows_of(&self, runs: &[(NodeId, Vec<usize>)], at: Point, table: Option<&Table>) -> Result<Tensor> {
        let mut index = Index::new(&self.cone.forest, at, table, self.store);
        for (node, rows) in runs {
            index.extend(*node, rows.iter().copied())?;
        }
        index.gather()?.ok_or_else(|| self.lacking(0, at, 0))
    }

    /// Rows that are overwritten whole.
    fn blank(&self, at: Point, rows: usize) -> Result<Tensor> {
        let width = self.cone.forest.anatomy().stages(at.block).width(at.stage, self.model.config());
        Ok(Tensor::zeros((rows, width), DType::F32, self.model.device())?)
    }

    /// The value of edits that are alike, for those of their positions that are picked; `table` is what is `here`.
    pub(super) fn value(&self, starts: &[Start<'_>], here: Point, table: &Table) -> Result<Option<Tensor>> {
        let Some(Start { step, picked, .. }) = starts.first() else { return Ok(None) };
        let edit = &step.edit;
        let value = edit.value_from(|_, place| {
            let at = self.cone.forest.anatomy().point(place);
            let rows = if place.site.is_attention_matrix() {
                self.matrix(step.source.unwrap_or_default(), at, &source_positions(place, picked))?
            } else {
                let of = |start: &Start<'_>| {
                    let (source, place) = start.step.source_place()?;
                    Some((source, source_positions(place, &start.picked)))
                };
                let runs: Vec<_> = starts.iter().filter_map(of).collect();
                self.rows_of(&runs, at, Some(table).filter(|_| at == here))?
            };
            place.take_of_rows(&rows, self.model.config())
        })?;
        let Some(rows) = value else { return Ok(None) };
        // A constant may have one row a position: those of the positions at hand. Of attention matrices there may be one
        // for each head.
        let axis = usize::from(edit.place.site.is_attention_matrix() && rows.rank() == 3);
        let given = rows.dims().get(axis).copied().unwrap_or(1);
        let by_row = edit.source().is_none() && given > 1 && !picked.iter().copied().eq(0..given);
        Ok(Some(if by_row { select(&rows, axis, picked)? } else { rows }))
    }
}

/// What one edit is computed for.
pub(super) struct Start<'a> {
    pub(super) parent: NodeId,
    pub(super) step: &'a Step,
    /// Which of the edit's positions, by their place in its list.
    pub(super) picked: Vec<usize>,
    /// The same positions.
    pub(super) positions: Vec<usize>,
}

/// The source's positions for those picked: one serves all.
fn source_positions(place: &Place, picked: &[usize]) -> Vec<usize> {
    picked.iter().map(|i| place.positions[*i.min(&(place.positions.len() - 1))]).collect()
}

/// Of slices in the order of `positions` those of `rows`, in ascending order.
pub(super) fn those_of(x: &Tensor, axis: usize, positions: &[usize], rows: &Rows) -> Result<Tensor> {
    if positions.is_sorted() && positions.len() == rows.len() {
        return Ok(x.clone());
    }
    let mut order: Vec<usize> = (0..positions.len()).filter(|i| rows.contains(positions[*i])).collect();
    order.sort_unstable_by_key(|i| positions[*i]);
    Ok(select(x, axis, &order)?)
}
