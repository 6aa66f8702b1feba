//! Attention over rows that stand anywhere: every query sees, by index, the keys of its own run.

use super::apply_edits::those_of;
use super::state::{BatchPass, Sight};
use super::table::{Index, Started, Table, fit, hidden, number};
use crate::cone::{Kept, NodeId, Point, Rows};
use crate::{Error, Result};
use candle_core::{D, Tensor};
use causalcone_model::decoder::{Block, Causal};
use causalcone_model::stage::Attention;
use causalcone_ops::{Query, Standing, Stretch, select, softmax};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

impl BatchPass<'_, '_> {
    /// The weighted values of all rows of the batch that attend.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        stages: Attention,
        query: Table,
        key: &Table,
        value: &Table,
    ) -> Result<Table> {
        let at = |stage| Point { block: layer, stage };
        let (forest, batch) = (&self.cone.forest, self.batch);
        let attends = |id: &NodeId| self.needed(*id, at(stages.mixed));
        let nodes: Vec<(NodeId, Rows)> = batch.nodes.iter().filter_map(attends).collect();
        let keys =
            |(id, rows): &(NodeId, Rows)| forest.owners(*id, at(stages.key), self.seen_by(layer, rows));
        let seen: Vec<Vec<(NodeId, Rows)>> = nodes.iter().map(keys).collect();
        self.sight = self.look(layer, stages, query, key, value, &seen)?;

        let is_matrix = |id: NodeId| {
            let start = forest.nodes()[id].start;
            start == at(stages.scores) || start == at(stages.weights)
        };
        let (plain, of_plain): (Vec<_>, Vec<_>) =
            nodes.into_iter().zip(&seen).filter(|((id, _), _)| !is_matrix(*id)).unzip();
        let mut mixed = self.mix_plain(layer, plain, &of_plain)?;
        for stage in [stages.scores, stages.weights] {
            for id in self.starting(at(stage)) {
                mixed.append(self.mix_edited(id, at(stage), &stages)?.into_iter().collect())?;
            }
            self.keep_matrices(at(stage))?;
        }
        self.sight = Sight::default();
        Ok(mixed)
    }

    /// Brings together what the batch has of keys and values with what earlier ones left.
    fn look(
        &self,
        layer: usize,
        stages: Attention,
        query: Table,
        key: &Table,
        value: &Table,
        seen: &[Vec<(NodeId, Rows)>],
    ) -> Result<Sight> {
        let at = |stage| Point { block: layer, stage };
        let mut outside: BTreeMap<NodeId, Rows> = BTreeMap::new();
        for (owner, rows) in seen.iter().flatten() {
            if rows.first().is_some_and(|row| key.find(*owner, row).is_none()) {
                outside.entry(*owner).or_default().add(rows);
            }
        }
        let outside: Vec<(NodeId, Rows)> = outside.into_iter().collect();
        let stored = |stage: usize| -> Result<Option<Tensor>> {
            let mut index = Index::new(&self.cone.forest, at(stage), None, self.store);
            for (owner, rows) in &outside {
                rows.iter().try_for_each(|row| index.push(*owner, row))?;
            }
            index.gather()
        };
        let (config, block) = (self.model.config(), self.weights(layer)?);
        let as_seen = |keys: &Tensor, values: &Tensor, standing: &[Standing]| -> Result<(Tensor, Tensor)> {
            let rotation = self.model.decoder()?.rotation(layer, standing)?;
            let keys = block.seen_key(stages.scores, keys, config, rotation.as_ref())?;
            Ok((keys, block.seen_value(values, config)?))
        };
        let mut tables = Vec::new();
        if let Some((keys, values)) = key.rows().zip(value.rows()) {
            tables.push(as_seen(keys, values, &self.standing(key.nodes()))?);
        }
        if let Some((keys, values)) = stored(stages.key)?.zip(stored(stages.value)?) {
            tables.push(as_seen(&keys, &values, &self.standing(&outside))?);
        }
        let rows = Table::new(key.nodes().iter().cloned().chain(outside).collect(), None);
        Ok(Sight { layer, stages: Some(stages), query, rows, tables, whole: OnceCell::new() })
    }

    /// Attention where no edit stands between queries and weighted values.
    fn mix_plain(
        &self,
        layer: usize,
        nodes: Vec<(NodeId, Rows)>,
        seen: &[&Vec<(NodeId, Rows)>],
    ) -> Result<Table> {
        let config = self.model.config();
        if nodes.is_empty() || self.sight.tables.is_empty() {
            return Ok(Table::default());
        }
        let mut ragged = self.model.decoder()?.ragged(layer);
        for ((_, rows), seen) in nodes.iter().zip(seen) {
            let mut ranges: Vec<_> = seen
                .iter()
                .flat_map(|(owner, rows)| rows.ranges().iter().map(|range| (range.clone(), *owner)))
                .collect();
            ranges.sort_unstable_by_key(|(range, _)| range.start);
            let first = number(ragged.stretches.len());
            for (range, owner) in ranges {
                let start = self.key_row(owner, range.start)?;
                ragged.stretches.push(Stretch { start, len: number(range.len()) });
            }
            let stretches = first..number(ragged.stretches.len());
            let all = rows.seen(config.window(layer));
            for row in rows.iter() {
                let query = number(ragged.queries.len());
                let oldest = config.window(layer).map_or(0, |window| (row + 1).saturating_sub(window));
                let keys = number(all.rank(oldest))..number(all.rank(row) + 1);
                ragged.queries.push(Query { row: query, stretches: stretches.clone(), keys });
            }
        }
        let table = Table::new(nodes, None);
        let query = self.queries(layer, table.nodes())?;
        let ragged = Arc::new(ragged);
        let mixed = match self.sight.tables.as_slice() {
            // What earlier batches left may be part of a graph where a run takes values from an edited one.
            [own, stored] if !(stored.0.track_op() || stored.1.track_op()) => {
                ragged.attend_beside(&query, (&own.0, &own.1), (&stored.0, &stored.1))?
            }
            _ => {
                let Some((key, value)) = self.sight.whole()? else { return Ok(Table::default()) };
                ragged.attend(&query, key, value)?
            }
        };
        Ok(Table::new(table.nodes().to_vec(), Some(mixed)))
    }

    fn key_row(&self, owner: NodeId, row: usize) -> Result<u32> {
        let found = self.sight.rows.find(owner, row);
        found.ok_or_else(|| self.lacking(owner, self.seen_at(|stages| stages.key), row))
    }

    /// Queries of rows of runs, turned to their positions.
    fn queries(&self, layer: usize, nodes: &[(NodeId, Rows)]) -> Result<Tensor> {
        let at = self.seen_at(|stages| stages.query);
        let mut index = Index::new(&self.cone.forest, at, Some(&self.sight.query), self.store);
        for (node, rows) in nodes {
            index.extend(*node, rows.iter())?;
        }
        let rotation = self.model.decoder()?.rotation(layer, &self.standing(nodes))?;
        let query = index.gather()?.ok_or_else(|| self.lacking(0, at, 0))?;
        let scores = self.seen_at(|stages| stages.scores).stage;
        Ok(self.weights(layer)?.seen_query(scores, &query, self.model.config(), rotation.as_ref())?)
    }

    /// A tensor of the attention at hand.
    fn seen_at(&self, stage: impl Fn(&Attention) -> usize) -> Point {
        Point { block: self.sight.layer, stage: self.sight.stages.as_ref().map_or(0, stage) }
    }

    /// The weights of a layer.
    fn weights(&self, layer: usize) -> Result<&Block> {
        let missing = || Error::internal(format!("names layer {layer}, which the model does not have"));
        self.model.decoder()?.blocks().get(layer).ok_or_else(missing)
    }

    /// The positions that rows of a run see.
    fn seen_by(&self, layer: usize, rows: &Rows) -> Rows {
        rows.seen(self.cone.forest.anatomy().window(layer))
    }

    /// Where rows of runs stand.
    fn standing(&self, nodes: &[(NodeId, Rows)]) -> Vec<Standing> {
        let each = nodes.iter().flat_map(|(node, rows)| {
            let length = self.cone.forest.nodes()[*node].len;
            rows.iter().map(move |position| Standing { position, length })
        });
        each.collect()
    }

    /// The weighted values of a node that starts at scores or weights.
    fn mix_edited(&mut self, id: NodeId, at: Point, stages: &Attention) -> Result<Option<Started>> {
        let node = &self.cone.forest.nodes()[id];
        let rows = self.cone.slice.start(id).clone();
        let Some(start) = self.start(id).filter(|_| !rows.is_empty()) else { return Ok(None) };
        let (edit, positions) = (&start.step.edit, start.positions.clone());
        let base = self.matrix(start.parent, at, &positions)?;
        let value = self.value(&[start], at, &Table::default())?;
        let new = edit.place.edit_of_rows(&base, &positions, self.model.config(), |block| {
            self.bound.of(&edit.op).apply(edit.scale, block, value.as_ref())
        })?;
        let is_score = at.stage == stages.scores;
        if is_score {
            let window = self.model.config().window(at.block);
            Causal::new(&positions, 0..node.len, window)?.check(&base, &new, at.block).map_err(|source| {
                let run = &self.plan.runs[node.run].name;
                Error::Part { part: format!("run \"{run}\""), source }
            })?;
        }
        let new = those_of(&new, 1, &positions, &rows)?;
        let weights = if is_score { softmax(&new)? } else { new.clone() };
        self.matrices.insert((id, at.stage), (rows.clone(), new));
        let seen = self.seen_by(at.block, &rows);
        let value = self.values(id, &seen)?;
        let weights = match seen.ranges() {
            [range] if range.start == 0 => weights.narrow(D::Minus1, 0, range.end)?,
            _ => select(&weights, 2, &seen.iter().collect::<Vec<_>>())?,
        };
        let mixed = self.model.decoder()?.mix(&weights, &value)?;
        Ok(Some((vec![(id, rows)], mixed)))
    }

    /// Some values of a run.
    fn values(&self, node: NodeId, rows: &Rows) -> Result<Tensor> {
        let at = self.seen_at(|stages| stages.value);
        let rows = self.key_rows(node, at, rows)?;
        let (_, value) = self.sight.whole()?.ok_or_else(|| self.lacking(node, at, 0))?;
        Ok(causalcone_ops::gather_rows(value, &rows)?)
    }

    /// Where some keys or values of a run stand in the tables.
    fn key_rows(&self, node: NodeId, at: Point, rows: &Rows) -> Result<Vec<u32>> {
        rows.iter().map(|row| self.key_row(self.cone.forest.owner(node, at, row), row)).collect()
    }

    /// Rows of scores or weights as a run has them, H × rows × n.
    pub(super) fn matrix(&self, node: NodeId, at: Point, rows: &[usize]) -> Result<Tensor> {
        let (len, anatomy) = (self.cone.forest.nodes()[node].len, self.cone.forest.anatomy());
        let edited = |row: usize| {
            let owner = self.cone.forest.owner(node, at, row);
            let here = self.matrices.get(&(owner, at.stage)).filter(|_| at.block == self.sight.layer);
            here.or_else(|| self.store.matrix(at, owner)).filter(|(rows, _)| rows.contains(row))
        };
        let computed: Vec<usize> = rows.iter().copied().filter(|row| edited(*row).is_none()).collect();
        let computed_rows = match computed.as_slice() {
            [] => None,
            computed if at == self.seen_at(|stages| stages.weights) => {
                let scores = self.seen_at(|stages| stages.scores);
                Some(softmax(&self.matrix(node, scores, computed)?)?)
            }
            computed => Some(self.scores(node, at.block, computed)?),
        };
        if let (Some(all), true) = (&computed_rows, computed.len() == rows.len()) {
            return Ok(all.clone());
        }
        let mut parts = Vec::with_capacity(rows.len());
        for row in rows {
            parts.push(match (edited(*row), &computed_rows) {
                (Some((rows, tensor)), _) => {
                    fit(&tensor.narrow(1, rows.rank(*row), 1)?, len, hidden(anatomy, at))?
                }
                (None, Some(all)) => {
                    let index = computed.iter().position(|other| other == row).unwrap_or(0);
                    all.narrow(1, index, 1)?
                }
                (None, None) => return Err(self.lacking(node, at, *row)),
            });
        }
        Ok(Tensor::cat(&parts, 1)?)
    }

    /// Scores computed from queries and keys, H × rows × n.
    fn scores(&self, node: NodeId, layer: usize, rows: &[usize]) -> Result<Tensor> {
        let sorted: Rows = rows.iter().copied().collect();
        let query = self.queries(layer, &[(node, sorted.clone())])?;
        let order: Vec<usize> = rows.iter().map(|row| sorted.rank(*row)).collect();
        let query = select(&query, 0, &order)?;
        let (seen, at) = (self.seen_by(layer, &sorted), self.seen_at(|stages| stages.key));
        let keys = self.key_rows(node, at, &seen)?;
        let (key, _) = self.sight.whole()?.ok_or_else(|| self.lacking(node, at, 0))?;
        let scores =
            self.model.decoder()?.scores(layer, &query, &causalcone_ops::gather_rows(key, &keys)?)?;
        let masked = Causal::new(rows, seen.iter(), self.model.config().window(layer))?.mask(&scores)?;
        let len = self.cone.forest.nodes()[node].len;
        if seen == Rows::from(0..seen.end()) {
            return fit(&masked, len, f32::NEG_INFINITY);
        }
        // One column more, of what is hidden, stands for every key outside all windows.
        let with_hidden = fit(&masked, seen.len() + 1, f32::NEG_INFINITY)?;
        let column = |key| if seen.contains(key) { seen.rank(key) } else { seen.len() };
        Ok(select(&with_hidden, 2, &(0..len).map(column).collect::<Vec<_>>())?)
    }

    fn keep_matrices(&mut self, at: Point) -> Result<()> {
        let kept = self.batch.keeps.get(&at).into_iter().flatten();
        let matrix = |kept: &Kept| self.matrix(kept.node, at, &kept.rows.iter().collect::<Vec<_>>());
        let matrices: Vec<_> = kept.map(|kept| Ok((kept, matrix(kept)?))).collect::<Result<_>>()?;
        for (kept, tensor) in matrices {
            self.store.keep_matrix(at, kept.node, (kept.rows.clone(), tensor), kept.until);
        }
        Ok(())
    }
}
