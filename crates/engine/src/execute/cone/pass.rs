//! One batch through the model: block by block, the live rows of all its nodes in one matrix.

use super::Job;
use super::attention::Sight;
use super::table::{Index, Store, Table};
use crate::cone::{Batch, ConePlan, Flops, Need, NodeId, Point, Rows, Work};
use crate::op::Bound;
use crate::plan::Plan;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::decoder::Block;
use causalcone_model::{Model, Site};
use causalcone_ops::add;
use std::collections::{BTreeMap, HashMap};

/// A batch on its way through the model.
pub(super) struct Pass<'a, 'b> {
    pub(super) model: &'a Model,
    pub(super) plan: &'a Plan,
    pub(super) cone: &'a ConePlan,
    pub(super) batch: &'a Batch,
    /// What stands in for the parameters of edits.
    pub(super) bound: &'a Bound,
    /// Whether everything is kept.
    keeps_all: bool,
    /// What earlier batches and earlier points left.
    pub(super) store: &'a mut Store<'b>,
    /// The nodes that start at each point, in order.
    starts: BTreeMap<Point, Vec<NodeId>>,
    /// Edited scores and weights of the block at hand, H × rows × n.
    pub(super) matrices: HashMap<(NodeId, Site), (Rows, Tensor)>,
    /// What the block at hand attends to.
    pub(super) sight: Sight,
    flops: Flops,
    work: Work,
    /// Rows of which something was computed, by node and block.
    touched: HashMap<(NodeId, usize), Rows>,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub(super) fn new(job: &Job<'a>, batch: &'a Batch, store: &'a mut Store<'b>) -> Self {
        let Job { model, plan, cone, bound, keeps_all } = *job;
        let mut starts: BTreeMap<Point, Vec<NodeId>> = BTreeMap::new();
        for &id in &batch.nodes {
            let start = cone.forest.nodes()[id].start;
            let mut add = |site| starts.entry(Point { site, ..start }).or_default().push(id);
            match start.site {
                // Keys and values are rows of one table: an edit of one takes the other along.
                Site::KeyOutput | Site::ValueOutput => {
                    add(Site::KeyOutput);
                    add(Site::ValueOutput);
                }
                site => add(site),
            }
        }
        Self {
            model,
            plan,
            cone,
            batch,
            bound,
            keeps_all,
            store,
            starts,
            matrices: HashMap::new(),
            sight: Sight::default(),
            flops: Flops::new(model.config()),
            work: Work { batches: 1, ..Work::default() },
            touched: HashMap::new(),
        }
    }

    /// Runs the batch and gives the rows that went through the last norm.
    pub(super) fn run(&mut self) -> Result<Table> {
        let decoder = self.model.decoder()?;
        let at = Point { block: 0, site: Site::Embedding };
        let mut residual = self.stage(at, Table::default())?;
        for (layer, block) in decoder.blocks().iter().enumerate() {
            let input = residual.select(self.pick(layer, |need| &need.input))?;
            residual = if input.nodes().is_empty() && self.is_idle(layer) {
                Table::default()
            } else {
                self.work.visits += 1;
                self.block(layer, block, input)?
            };
        }
        let layers = decoder.blocks().len();
        let last = residual.select(|node, _| self.cone.slice.last(node).clone())?;
        let normed = last.map(|x| Ok(decoder.final_norm(x)?))?;
        let normed = self.stage(Point { block: layers, site: Site::FinalNorm }, normed)?;
        self.logits(layers, &normed)?;
        Ok(normed)
    }

    /// Logits as a tensor that others take from or edit; what cells read of them is computed apart.
    fn logits(&mut self, layers: usize, normed: &Table) -> Result<()> {
        let at = Point { block: layers, site: Site::Logits };
        let keeps = self.batch.keeps.get(&at);
        if keeps.is_none() && !self.starts.contains_key(&at) {
            return Ok(());
        }
        // Those asked for here, or by nodes that start here.
        let mut asked: HashMap<NodeId, Rows> = HashMap::new();
        for kept in keeps.into_iter().flatten() {
            asked.insert(kept.node, kept.rows.clone());
        }
        for id in self.starting(at) {
            self.cone.slice.outside(&self.cone.forest, id, |owner, point, rows, _| {
                if point == at {
                    let entry = asked.entry(owner).or_default();
                    *entry = entry.union(&rows);
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

    /// Whether no node starts in a block.
    fn is_idle(&self, block: usize) -> bool {
        let range = Point { block, site: Site::Embedding }..=Point { block, site: Site::BlockOutput };
        self.starts.range(range).next().is_none()
    }

    pub(super) fn need(&self, node: NodeId, block: usize) -> Option<&'a Need> {
        self.cone.slice.need(node, block)
    }

    /// The rows `f` picks of what a node needs in a block.
    fn pick(&self, block: usize, f: fn(&Need) -> &Rows) -> impl Fn(NodeId, &Rows) -> Rows + '_ {
        move |node, _| self.need(node, block).map_or_else(Rows::default, |need| f(need).clone())
    }

    fn block(&mut self, layer: usize, block: &Block, input: Table) -> Result<Table> {
        let config = self.model.config();
        let at = |site| Point { block: layer, site };
        self.matrices.clear();

        let input = self.stage(at(Site::BlockInput), input)?;
        let normed = input.select(self.pick(layer, |need| &need.normed))?;
        let normed = normed.map(|x| Ok(block.attention_input(x)?))?;
        let normed = self.stage(at(Site::AttentionInput), normed)?;

        let asks = normed.select(self.pick(layer, |need| &need.query))?;
        self.work.flops += asks.len() * self.flops.query;
        let query = self.stage(at(Site::QueryOutput), asks.map(|x| Ok(block.query(x)?))?)?;
        let seen = normed.select(self.pick(layer, |need| &need.keys))?;
        self.work.flops += seen.len() * self.flops.keys;
        let key = self.stage(at(Site::KeyOutput), seen.like(|x| Ok(block.key(x)?))?)?;
        let value = self.stage(at(Site::ValueOutput), seen.map(|x| Ok(block.value(x)?))?)?;
        [&normed, &query, &key].into_iter().for_each(|table| self.touch(layer, table));

        let mixed = self.attend(layer, query, &key, &value)?;
        self.work.flops += mixed.nodes().iter().map(|(_, rows)| self.flops.seen(layer, rows)).sum::<u64>();
        let mixed = self.stage(at(Site::AttentionValueOutput), mixed)?;
        self.work.flops += mixed.len() * self.flops.attention_output;
        let attention = mixed.map(|x| Ok(block.attention_output(x)?))?;
        let attention = self.stage(at(Site::AttentionOutput), attention)?;
        let added = attention.map(|x| Ok(block.attention_added(x)?))?;
        let middle = self.add_residual(at(Site::BlockInput), &added, &input)?;
        let middle = self.stage(at(Site::BlockMiddle), middle)?;

        self.touch(layer, &middle);

        let before = if config.parallel { &input } else { &middle };
        let normed = before.select(self.pick(layer, |need| &need.mlp))?;
        let normed = self.stage(at(Site::MlpInput), normed.map(|x| Ok(block.mlp_input(x)?))?)?;
        self.work.flops += normed.len() * self.flops.into;
        let activated = normed.like(|x| Ok(block.activate(x, config)?))?;
        let activated = self.stage(at(Site::MlpActivation), activated)?;
        // Beside the activation a gated MLP has the same rows' input, which an edit of the former lacks.
        let beside = self.index(at(Site::MlpInput), &activated, &normed)?.gather()?;
        self.work.flops += activated.len() * self.flops.up;
        let hidden = match beside {
            Some(beside) => activated.map(|x| Ok(block.gated(&beside, x.clone())?))?,
            None => activated,
        };
        let hidden = self.stage(at(Site::MlpHidden), hidden)?;
        self.work.flops += hidden.len() * self.flops.down;
        let mlp = self.stage(at(Site::MlpOutput), hidden.map(|x| Ok(block.mlp_output(x)?))?)?;
        self.touch(layer, &mlp);
        let output = if config.parallel {
            self.join(layer, block, &middle, &mlp)?
        } else {
            let added = mlp.map(|x| Ok(block.mlp_added(x)?))?;
            self.add_residual(at(Site::BlockMiddle), &added, &middle)?
        };
        let output = self.stage(at(Site::BlockOutput), output)?;
        self.touch(layer, &output);
        Ok(output)
    }

    /// What leaves a block whose halves stand side by side: of a row one half may be a node's own and the other
    /// another's.
    fn join(&self, layer: usize, block: &Block, middle: &Table, mlp: &Table) -> Result<Table> {
        let at = |site| Point { block: layer, site };
        let leaves = |id: &NodeId| {
            let node = &self.cone.forest.nodes()[*id];
            let need = self.need(*id, layer).filter(|_| !node.is_past(layer, Site::BlockOutput))?;
            (!need.leaving.is_empty()).then(|| (*id, need.leaving.clone()))
        };
        let rows = Table::new(self.batch.nodes.iter().filter_map(leaves).collect(), None);
        let middle = self.index(at(Site::BlockMiddle), &rows, middle)?.gather()?;
        let mlp = self.index(at(Site::MlpOutput), &rows, mlp)?.gather()?;
        let sum =
            middle.zip(mlp).map(|(middle, mlp)| -> Result<_> { Ok(add(&middle, &block.mlp_added(&mlp)?)?) });
        Ok(Table::new(rows.nodes().to_vec(), sum.transpose()?))
    }

    /// Notes rows of which something was computed.
    fn touch(&mut self, block: usize, table: &Table) {
        for (node, rows) in table.nodes() {
            let entry = self.touched.entry((*node, block)).or_default();
            *entry = entry.union(rows);
        }
    }

    /// What was really done.
    pub(super) fn done(&self) -> Work {
        let count = |(&(node, block), any): (&(NodeId, usize), &Rows)| {
            let leaving = self.need(node, block).map_or_else(Rows::default, |need| need.leaving.clone());
            self.cone.continued().count(node, block, any, &leaving)
        };
        Work { rows: self.touched.iter().map(count).sum(), ..self.work }
    }

    /// Where the rows of `of` stand in another tensor, whoever owns them there.
    fn index<'t>(&'t self, at: Point, of: &Table, table: &'t Table) -> Result<Index<'t>> {
        let mut index = Index::new([table].into_iter().chain(self.store.tables(at)));
        for (node, rows) in of.nodes() {
            self.add_to_index(&mut index, at, *node, rows.iter())?;
        }
        Ok(index)
    }

    /// Adds rows of a run, whoever owns them.
    pub(super) fn add_to_index(
        &self,
        index: &mut Index<'_>,
        at: Point,
        node: NodeId,
        rows: impl Iterator<Item = usize>,
    ) -> Result<()> {
        for row in rows {
            let owner = self.cone.forest.owner(node, at, row);
            if !index.push(owner, row) {
                return Err(lacking(owner, at, row));
            }
        }
        Ok(())
    }

    fn add_residual(&self, at: Point, table: &Table, residual: &Table) -> Result<Table> {
        let index = self.index(at, table, residual)?;
        let sum = table.rows().map(|x| index.add_to(x)).transpose()?;
        Ok(Table::new(table.nodes().to_vec(), sum))
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
            table.select(|node, _| wanted.get(&node).map_or_else(Rows::default, |rows| (*rows).clone()))?;
        self.store.keep(at, rows, until);
        Ok(())
    }
}

/// A row that the plan said would be there.
pub(super) fn lacking(node: NodeId, at: Point, row: usize) -> Error {
    let at = format!("{} in block {}", at.site.name(), at.block);
    Error::part("plan", format!("row {row} of node {node} is needed at {at} and was not computed"))
}
