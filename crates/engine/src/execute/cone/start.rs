//! Where nodes start: the rows of their edit.

use super::pass::{Pass, lacking};
use super::table::{Index, Table};
use crate::Result;
use crate::cone::{NodeId, Point, Rows, Step};
use crate::plan::{Place, Taken};
use candle_core::{DType, Tensor};
use causalcone_model::{Layout, Site};
use causalcone_ops::select;

impl Pass<'_> {
    /// The rows with which a node starts at a point, given what is there of other nodes; `None`
    /// where it needs none.
    pub(super) fn started(&mut self, id: NodeId, at: Point, table: &Table) -> Result<Option<(Rows, Tensor)>> {
        let (forest, slice) = (&self.cone.forest, &self.cone.slice);
        let node = &forest.nodes()[id];
        let rows = slice.start(id).clone();
        if rows.is_empty() {
            return Ok(None);
        }
        let Some(step) = &node.edit else {
            // A prompt: its tokens at their positions.
            let positions: Vec<usize> = rows.iter().collect();
            let ids: Vec<u32> = positions.iter().map(|row| node.ids[*row]).collect();
            return Ok(Some((rows, self.model.decoder().embed(&ids, &positions)?)));
        };
        let parent = node.parent.unwrap_or(id);
        if at != node.start {
            // The other one of key and value, as it is.
            let base = self.rows_of(parent, at, rows.iter(), Some(table))?;
            return Ok(base.map(|base| (rows, base)));
        }
        // In the order of the edit's own list, which its values are in.
        let picked = step.indices(slice.edited(forest, id));
        let positions: Vec<usize> = picked.iter().map(|i| step.edit.place.positions[*i]).collect();
        let base = if step.keeps_some() {
            self.rows_of(parent, at, positions.iter().copied(), Some(table))?
                .ok_or_else(|| lacking(parent, at, 0))?
        } else {
            self.blank(at.site, positions.len())?
        };
        let value = self.value(step, &picked, at, table)?;
        let edit = &step.edit;
        let new = edit.place.edit_of_rows(&base, &positions, self.model.config(), |block| {
            edit.op.apply(edit.scale, block, value.as_ref())
        })?;
        let new = those_of(&new, 0, &positions, &rows)?;
        Ok(Some((rows, new)))
    }

    /// Rows of a run at a point, whoever owns them; `table` has those of this batch where it is at that
    /// point.
    fn rows_of(
        &self,
        node: NodeId,
        at: Point,
        rows: impl Iterator<Item = usize>,
        table: Option<&Table>,
    ) -> Result<Option<Tensor>> {
        let mut index = Index::new(table.into_iter().chain(self.store.tables(at)));
        self.add_to_index(&mut index, at, node, rows)?;
        index.gather()
    }

    /// Rows that are overwritten whole.
    fn blank(&self, site: Site, rows: usize) -> Result<Tensor> {
        let width = match site.layout(self.model.config()) {
            Layout::Rows { width } => width,
            Layout::Heads { heads, width } => heads * width,
            Layout::Attention { .. } => 0,
        };
        Ok(Tensor::zeros((rows, width), DType::F32, self.model.decoder().device())?)
    }

    /// The value of an edit for those of its positions that are picked; `table` is what is `here`.
    pub(super) fn value(
        &self,
        step: &Step,
        picked: &[usize],
        here: Point,
        table: &Table,
    ) -> Result<Option<Tensor>> {
        let edit = &step.edit;
        Ok(match &edit.value {
            None => None,
            Some(Taken::Constant(constant)) => {
                let rows = constant.tensor()?;
                // One row a position: those of the positions at hand.
                let by_row = rows.rank() > 0 && rows.dims()[0] > 1 && picked.len() < rows.dims()[0];
                Some(if by_row { select(&rows, 0, picked)? } else { rows })
            }
            Some(Taken::Run(_, place) | Taken::Own(place)) => {
                let source = step.source.unwrap_or_default();
                let positions = source_positions(place, picked);
                if place.site.is_attention_matrix() {
                    let rows =
                        self.matrix(source, Point::of(place, self.cone.forest.layers()), &positions)?;
                    Some(place.take_of_rows(&rows, self.model.config())?)
                } else {
                    let at = Point::of(place, self.cone.forest.layers());
                    let rows =
                        self.rows_of(source, at, positions.into_iter(), Some(table).filter(|_| at == here))?;
                    rows.map(|rows| place.take_of_rows(&rows, self.model.config())).transpose()?
                }
            }
        })
    }
}

/// The source's positions for those picked: one serves all.
pub(super) fn source_positions(place: &Place, picked: &[usize]) -> Vec<usize> {
    if place.positions.len() == 1 {
        return place.positions.to_vec();
    }
    picked.iter().map(|i| place.positions[*i]).collect()
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
