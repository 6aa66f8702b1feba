//! One batch through the model: block by block, the live rows of all its nodes in one matrix.

use super::state::BatchPass;
use super::table::{Index, Places, Table, lacking};
use crate::cone::{Need, NodeId, Point, Rows, Work};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::decoder::Block;
use causalcone_model::stage::{self, ENTERING, Kernel, Stage};
use causalcone_ops::{add, add_rows, gather_rows};
use std::collections::HashMap;

impl<'a> BatchPass<'a, '_> {
    /// Runs the batch and gives the rows that went through the last norm.
    pub(super) fn run(&mut self) -> Result<Table> {
        let decoder = self.model.decoder()?;
        let mut residual = self.stage(Point::EMBEDDING, Table::default())?;
        for (layer, block) in decoder.blocks().iter().enumerate() {
            residual = if self.is_idle(layer, &residual) {
                Table::default()
            } else {
                self.work.visits += 1;
                self.block(layer, block, residual)?
            };
        }
        let last = residual.select(|node, _| self.cone.slice.last(node).clone())?;
        let normed = last.map(|x| Ok(decoder.final_norm(x)?))?;
        let normed = self.stage(self.cone.forest.anatomy().normed(), normed)?;
        self.logits(&normed)?;
        Ok(normed)
    }

    /// Logits as a tensor that others take from or edit; what cells read of them is computed apart.
    fn logits(&mut self, normed: &Table) -> Result<()> {
        let at = self.cone.forest.anatomy().logits();
        let keeps = self.batch.keeps.get(&at);
        if keeps.is_none() && !self.starts.contains_key(&at) {
            return Ok(());
        }
        // Those asked for here, or by nodes that start here.
        let kept = keeps.into_iter().flatten().map(|kept| (kept.node, kept.rows.clone()));
        let mut asked: HashMap<NodeId, Rows> = kept.collect();
        for id in self.starting(at) {
            self.cone.slice.outside(&self.cone.forest, id, |owner, point, rows, _| {
                if point == at {
                    asked.entry(owner).or_default().add(&rows);
                }
            });
        }
        let rows = normed.select(|node, _| asked.get(&node).cloned().unwrap_or_default())?;
        let logits = rows.map(|x| Ok(self.model.decoder()?.unembed(x)?))?;
        self.stage(at, logits).map(drop)
    }

    /// The nodes that start at a point, in order.
    pub(super) fn starting(&self, at: Point) -> Vec<NodeId> {
        self.starts.get(&at).cloned().unwrap_or_default()
    }

    /// Whether no row enters a block and no node starts there.
    fn is_idle(&self, block: usize, entering: &Table) -> bool {
        let needs = |(node, rows): &(NodeId, Rows)| {
            self.need(*node, block).is_some_and(|need| !need.entering().and(rows).is_empty())
        };
        let last = self.cone.forest.anatomy().stages(block).leaving();
        let range = Point { block, stage: ENTERING }..=Point { block, stage: last };
        !entering.nodes().iter().any(needs) && self.starts.range(range).next().is_none()
    }

    pub(super) fn need(&self, node: NodeId, block: usize) -> Option<&'a Need> {
        self.cone.slice.need(node, block)
    }

    /// Takes rows through a block, stage by stage.
    fn block(&mut self, layer: usize, block: &Block, entering: Table) -> Result<Table> {
        let cone = self.cone;
        let stages = cone.forest.anatomy().stages(layer);
        self.matrices.clear();
        let mut tables: Vec<Table> = vec![Table::default(); stages.len()];
        tables[ENTERING] = entering;
        for (place, stage) in stages.iter().skip(1) {
            if stage.is_matrix() {
                continue;
            }
            let at = Point { block: layer, stage: place };
            let table = match stages.attentions().iter().find(|attention| attention.mixed == place) {
                Some(attention) => {
                    let query = tables[attention.query].clone();
                    let [key, value] = [attention.key, attention.value].map(|stage| &tables[stage]);
                    let mixed = self.attend(layer, *attention, query, key, value)?;
                    self.count(at, &mixed);
                    mixed
                }
                None => {
                    let rows = self.computed(at, stage, &tables);
                    self.count(at, &rows);
                    self.compute(at, stage, block, &rows, &tables)?
                }
            };
            let table = self.stage(at, table)?;
            if stage.part > 0 && stages.ends_part(place) {
                self.touch(layer, &table);
            }
            tables[place] = table;
            for used in (0..place).filter(|used| stages.last_use(*used) <= place) {
                tables[used] = Table::default();
            }
        }
        Ok(std::mem::take(&mut tables[stages.leaving()]))
    }

    /// The rows of a stage that are computed, not put there: those of the tensor it goes on from in their order, then those
    /// of nodes that have none of them, where the stage joins tensors of which one may be a node's own and the other not.
    fn computed(&self, at: Point, stage: &Stage, tables: &[Table]) -> Table {
        let from = &tables[stage.goes_on_from()];
        let mut nodes: Vec<_> = from.nodes().iter().filter_map(|(id, _)| self.needed(*id, at)).collect();
        if self.cone.forest.anatomy().joins(at.stage) {
            let others = self.batch.nodes.iter().filter(|id| !from.has_node(**id));
            nodes.extend(others.filter_map(|id| self.needed(*id, at)));
        }
        from.of(nodes)
    }

    /// The rows of a node that are computed at a point, if there are any.
    pub(super) fn needed(&self, id: NodeId, at: Point) -> Option<(NodeId, Rows)> {
        let forest = &self.cone.forest;
        let need = self.need(id, at.block).filter(|_| forest.nodes()[id].computes(at.block, at.stage))?;
        let rows = need.part(forest.anatomy().part(at));
        (!rows.is_empty()).then(|| (id, rows.clone()))
    }

    /// Computes rows of a stage.
    fn compute(
        &self,
        at: Point,
        stage: &Stage,
        block: &Block,
        rows: &Table,
        tables: &[Table],
    ) -> Result<Table> {
        if rows.nodes().is_empty() {
            return Ok(rows.with(None));
        }
        let read = |read: &stage::Read| {
            let (at, table) = (Point { stage: read.stage, ..at }, &tables[read.stage]);
            Ok(match table.places(rows) {
                Some(Places::All) => table.rows().cloned(),
                Some(Places::Some(places)) => table.rows().map(|x| gather_rows(x, &places)).transpose()?,
                None => self.index(at, rows, table)?.gather()?,
            })
        };
        let made = if let (Kernel::Add(_), [residual, added]) = (&stage.kernel, stage.reads.as_slice()) {
            let (at_residual, table) = (Point { stage: residual.stage, ..at }, &tables[residual.stage]);
            let sum = |x: Tensor| -> Result<Tensor> {
                let x = block.added(at.stage, &x)?;
                Ok(match (table.places(rows), table.rows()) {
                    (Some(Places::All), Some(residual)) => add(&x, residual)?,
                    (Some(Places::Some(places)), Some(residual)) => add_rows(&x, residual, &places)?,
                    _ => self.index(at_residual, rows, table)?.add_to(&x)?,
                })
            };
            read(added)?.map(sum).transpose()?
        } else {
            let reads: Option<Vec<Tensor>> = stage.reads.iter().map(read).collect::<Result<_>>()?;
            let forward = |reads: Vec<Tensor>| -> Result<Tensor> {
                Ok(block.forward(at.stage, &reads.iter().collect::<Vec<_>>(), self.model.config())?)
            };
            reads.map(forward).transpose()?
        };
        Ok(rows.with(made))
    }

    /// Counts the operations that rows of a stage took.
    fn count(&mut self, at: Point, table: &Table) {
        let of = |(_, rows): &(NodeId, Rows)| self.flops.of(at.block, at.stage, rows);
        self.work.flops += table.nodes().iter().map(of).sum::<u64>();
    }

    /// Notes rows of which something was computed.
    fn touch(&mut self, block: usize, table: &Table) {
        for (node, rows) in table.nodes() {
            self.touched.entry((*node, block)).or_default().add(rows);
        }
    }

    /// What was really done.
    pub(super) fn done(&self) -> Work {
        let count = |(&(node, block), any): (&(NodeId, usize), &Rows)| {
            let leaving = self.need(node, block).map(|need| need.leaving.clone()).unwrap_or_default();
            self.cone.continued().count(node, block, any, &leaving)
        };
        Work { rows: self.touched.iter().map(count).sum(), ..self.work }
    }

    /// Where the rows of `of` stand in another tensor, whoever owns them there.
    fn index<'t>(&'t self, at: Point, of: &Table, table: &'t Table) -> Result<Index<'t>> {
        let mut index = Index::new(&self.cone.forest, at, Some(table), self.store);
        for (node, rows) in of.nodes() {
            index.extend(*node, rows.iter())?;
        }
        Ok(index)
    }

    /// Adds to computed rows those of the nodes that start here, and keeps what is taken later.
    fn stage(&mut self, at: Point, mut table: Table) -> Result<Table> {
        let starting = self.starting(at);
        let (mut pending, mut open) = (Vec::new(), 0);
        let mut rest = starting.as_slice();
        while !rest.is_empty() {
            let (group, others) = rest.split_at(self.alike(rest, at));
            // An edit of an edit of the same tensor needs the first one's rows.
            let first = starting.len() - rest.len();
            if group.iter().any(|id| self.rests_on(*id, &starting[open..first])) {
                table.append(std::mem::take(&mut pending))?;
                open = first;
            }
            pending.extend(self.started(group, at, &table)?);
            rest = others;
        }
        table.append(pending)?;
        self.keep(at, &table)?;
        Ok(table)
    }

    /// Whether a node, or one that its value comes from, has rows of one of these, which ascend.
    pub(super) fn rests_on(&self, node: NodeId, of: &[NodeId]) -> bool {
        let nodes = self.cone.forest.nodes();
        let Some(first) = of.first() else { return false };
        let source = nodes[node].edit.as_ref().and_then(|step| step.source);
        let path = |id: Option<NodeId>| std::iter::successors(id, |id| nodes[*id].parent);
        [nodes[node].parent, source]
            .into_iter()
            .any(|from| path(from).take_while(|id| id >= first).any(|id| of.binary_search(&id).is_ok()))
    }

    fn keep(&mut self, at: Point, table: &Table) -> Result<()> {
        if self.keeps_all {
            self.store.keep(at, table.clone(), usize::MAX);
            return Ok(());
        }
        let Some(kept) = self.batch.keeps.get(&at) else { return Ok(()) };
        let wanted: HashMap<NodeId, &Rows> = kept.iter().map(|kept| (kept.node, &kept.rows)).collect();
        let until = kept.iter().map(|kept| kept.until).max().unwrap_or(0);
        let rows =
            table.select(|node, _| wanted.get(&node).map(|rows| Rows::clone(rows)).unwrap_or_default())?;
        self.store.keep(at, rows, until);
        Ok(())
    }

    /// A row that the plan said would be there is not.
    pub(super) fn lacking(&self, node: NodeId, at: Point, row: usize) -> Error {
        lacking(&self.cone.forest, node, at, row)
    }
}
