//! From the rows of a batch to the readings of the cells it completes.

use super::super::executor::{Sink, go_on};
use super::table::{Index, Store, Table, lacking};
use crate::cone::{Batch, ConePlan, Flops, NodeId, NodeRead, Point};
use crate::plan::Place;
use crate::reading::Reading;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::Model;
use std::collections::HashMap;
use std::sync::Arc;

/// What readings are made from.
pub(super) struct Delivery<'a> {
    pub(super) model: &'a Model,
    pub(super) cone: &'a ConePlan,
    /// The rows of the batch that went through the last norm.
    pub(super) normed: &'a Table,
    pub(super) store: &'a Store<'a>,
}

/// Rows to be unembedded together: those that ask for the same tokens.
type Asked = HashMap<Option<Arc<[u32]>>, Vec<(NodeId, usize)>>;

/// Their logits, by what was asked.
type Logits = HashMap<LogitsKey, Tensor>;

/// The tokens that are read, the node that owns the row, and the row.
type LogitsKey = (Option<Arc<[u32]>>, NodeId, usize);

impl Delivery<'_> {
    /// Hands on the cells a batch completes. Tells how many operations their logits took.
    pub(super) fn deliver(&self, batch: &Batch, sink: Sink<'_>) -> Result<u64> {
        let mut flops = 0;
        for cells in batch.groups(&self.cone.reads) {
            let logits = self.logits(cells, &mut flops)?;
            for cell in cells {
                let reads = self.cone.reads[*cell].iter();
                let readings = reads.map(|read| self.reading(read, &logits)).collect::<Result<_>>()?;
                go_on(sink(*cell, readings)?)?;
            }
        }
        Ok(flops)
    }

    /// The logits that cells read first, a row each, and how many operations they took.
    pub(super) fn stacked(&self, cells: &[usize]) -> Result<(Option<Tensor>, u64)> {
        let reads = cells.iter().map(|cell| match self.cone.reads[*cell].first() {
            Some(NodeRead::Logits { owner, row, tokens }) => Ok((*owner, *row, tokens)),
            _ => Err(Error::part("session", format!("cell {cell} reads no logits first"))),
        });
        let reads: Vec<_> = reads.collect::<Result<_>>()?;
        let Some((_, _, tokens)) = reads.first() else { return Ok((None, 0)) };
        let is_plain = |(owner, ..): &(NodeId, usize, _)| {
            self.cone.forest.nodes()[*owner].start != self.cone.forest.anatomy().logits()
        };
        if reads.iter().all(|read| read.2 == *tokens && is_plain(read)) {
            // All by one product, and one matrix for gradients to go back through.
            let rows: Vec<_> = reads.iter().map(|(owner, row, _)| (*owner, *row)).collect();
            return self.unembedded(&rows, tokens.as_deref());
        }
        let mut flops = 0;
        let logits = self.logits(cells, &mut flops)?;
        let of = |(owner, row, tokens): (NodeId, usize, &Option<Arc<[u32]>>)| {
            self.found(&logits, &(tokens.clone(), owner, row))
        };
        let rows: Vec<Tensor> = reads.into_iter().map(of).collect::<Result<_>>()?;
        Ok((Some(Tensor::stack(&rows, 0)?), flops))
    }

    /// Rows unembedded together, and how many operations that took.
    fn unembedded(&self, rows: &[(NodeId, usize)], tokens: Option<&[u32]>) -> Result<(Option<Tensor>, u64)> {
        let Some(normed) = self.behind_norm(rows)? else { return Ok((None, 0)) };
        let computed = self.model.decoder()?.unembed_tokens(&normed, tokens)?;
        let config = self.model.config();
        let each = Flops::new(config).logits(tokens.map_or(config.vocab, <[u32]>::len));
        Ok((Some(computed), rows.len() as u64 * each))
    }

    /// What the logits that cells read first are made of, a row each.
    pub(super) fn normed_rows(&self, cells: &[usize]) -> Result<Option<Tensor>> {
        let reads = cells.iter().filter_map(|cell| self.cone.reads[*cell].first()?.logits());
        self.behind_norm(&reads.map(|(owner, row, _)| (owner, row)).collect::<Vec<_>>())
    }

    /// Rows behind the last norm.
    fn behind_norm(&self, rows: &[(NodeId, usize)]) -> Result<Option<Tensor>> {
        let last = self.cone.forest.anatomy().normed();
        let mut index = Index::new(&self.cone.forest, last, Some(self.normed), self.store);
        rows.iter().try_for_each(|(owner, row)| index.push(*owner, *row))?;
        index.gather()
    }

    /// The logits these cells read, each row once.
    fn logits(&self, cells: &[usize], flops: &mut u64) -> Result<Logits> {
        let edited = self.cone.forest.anatomy().logits();
        let mut asked = Asked::new();
        let mut logits = Logits::new();
        for read in cells.iter().flat_map(|cell| &self.cone.reads[*cell]) {
            let NodeRead::Logits { owner, row, tokens } = read else { continue };
            let key = (tokens.clone(), *owner, *row);
            if self.cone.forest.nodes()[*owner].start == edited {
                let mut index = Index::new(&self.cone.forest, edited, None, self.store);
                index.push(*owner, *row)?;
                let whole = index.gather()?.ok_or_else(|| self.lacking(*owner, edited, *row))?.get(0)?;
                let found = match tokens {
                    Some(tokens) => whole.index_select(&Tensor::new(&**tokens, whole.device())?, 0)?,
                    None => whole,
                };
                logits.insert(key, found);
            } else {
                let rows = asked.entry(tokens.clone()).or_default();
                if !rows.contains(&(*owner, *row)) {
                    rows.push((*owner, *row));
                }
            }
        }
        for (tokens, rows) in asked {
            let (computed, took) = self.unembedded(&rows, tokens.as_deref())?;
            let Some(computed) = computed else { continue };
            *flops += took;
            for (i, (owner, row)) in rows.into_iter().enumerate() {
                logits.insert((tokens.clone(), owner, row), computed.get(i)?);
            }
        }
        Ok(logits)
    }

    fn reading(&self, read: &NodeRead, logits: &Logits) -> Result<Reading> {
        Ok(match read {
            NodeRead::Logits { owner, row, tokens } => {
                Reading::Logits(self.found(logits, &(tokens.clone(), *owner, *row))?)
            }
            NodeRead::Activation { node, place } => Reading::Activation(self.activation(*node, place)?),
        })
    }

    fn found(&self, logits: &Logits, key: &LogitsKey) -> Result<Tensor> {
        let at = self.cone.forest.anatomy().logits();
        logits.get(key).cloned().ok_or_else(|| self.lacking(key.1, at, key.2))
    }

    fn activation(&self, node: NodeId, place: &Place) -> Result<Tensor> {
        let forest = &self.cone.forest;
        let at = forest.anatomy().point(place);
        if place.site.is_attention_matrix() {
            let rows = self.store.matrix_rows(forest, node, at, &place.positions)?;
            return place.take_of_rows(&rows, self.model.config());
        }
        let mut index = Index::new(forest, at, None, self.store);
        index.extend(node, place.positions.iter().copied())?;
        let rows = index.gather()?.ok_or_else(|| self.lacking(node, at, 0))?;
        place.take_of_rows(&rows, self.model.config())
    }

    fn lacking(&self, node: NodeId, at: Point, row: usize) -> Error {
        lacking(&self.cone.forest, node, at, row)
    }
}
