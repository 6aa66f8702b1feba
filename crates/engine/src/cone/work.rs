//! What a plan costs, counted from the plan alone.

use super::NodeRead;
use super::forest::{Forest, NodeId};
use super::rows::Rows;
use super::schedule::Schedule;
use super::slice::{Need, Slice, Use};
use causalcone_model::{Config, Site};
use serde::Serialize;
use std::collections::HashMap;
use std::ops::AddAssign;

/// Rows, operations and memory of some work; what is planned and what was done are told alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Rows computed: one position through one block, counted once if any part of it is computed.
    pub rows: u64,
    /// Multiplications and additions of the matrix products and of attention.
    pub flops: u64,
    /// In how many batches; each visits a layer's weights once.
    pub batches: u64,
    /// The most bytes held at once beside the weights; 0 where it is not known.
    pub peak_bytes: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.flops += other.flops;
        self.batches += other.batches;
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }
}

/// Operations of one row through each part of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flops {
    query: u64,
    keys: u64,
    /// For each key that is seen.
    see: u64,
    attention_output: u64,
    into: u64,
    up: u64,
    down: u64,
    /// For each logit.
    logit: u64,
}

impl Flops {
    pub(crate) fn new(config: &Config) -> Self {
        let (d, m) = (config.width as u64, config.mlp_width as u64);
        let heads = |heads: usize| (heads * config.head_dim) as u64;
        let (q, kv) = (heads(config.heads), heads(config.kv_heads));
        Self {
            query: 2 * d * q,
            keys: 4 * d * kv,
            see: 4 * q,
            attention_output: 2 * q * d,
            into: 2 * d * m,
            up: if config.mlp.gated { 2 * d * m } else { 0 },
            down: 2 * m * d,
            logit: 2 * d,
        }
    }

    fn logits(&self, tokens: usize) -> u64 {
        self.logit * tokens as u64
    }
}

impl Work {
    pub(super) fn of(
        forest: &Forest,
        slice: &Slice,
        schedule: &Schedule,
        reads: &[Vec<NodeRead>],
        config: &Config,
    ) -> Self {
        let flops = Flops::new(config);
        let mut work =
            Self { batches: schedule.batches.len() as u64, peak_bytes: schedule.peak, ..Self::default() };
        let continued = continued(forest, slice);
        for (id, node) in forest.nodes().iter().enumerate() {
            for (blocks, need) in slice.blocks(id) {
                for block in blocks.clone() {
                    let Need { query, keys, middle, output, .. } = need;
                    let unfinished = need.any().minus(output);
                    let elsewhere = continued.get(&(id, block)).map_or(0, |rows| rows.and(&unfinished).len());
                    work.rows += (output.len() + unfinished.len() - elsewhere) as u64;
                    let of = |is_past: bool, rows: &Rows, each: u64| {
                        if is_past { 0 } else { rows.len() as u64 * each }
                    };
                    let past = |site: Site| node.is_past(block, site);
                    let starts_with_keys = past(Site::KeyOutput) && !past(Site::AttentionScore);
                    work.flops += of(past(Site::QueryOutput), query, flops.query)
                        + of(starts_with_keys || past(Site::AttentionScore), keys, flops.keys)
                        + of(past(Site::AttentionOutput), middle, flops.attention_output)
                        + of(past(Site::MlpActivation), output, flops.into)
                        + of(past(Site::MlpHidden), output, flops.up)
                        + of(past(Site::MlpOutput), output, flops.down);
                    if node.attends(block) {
                        work.flops += middle.iter().map(|row| flops.see * (row as u64 + 1)).sum::<u64>();
                    }
                }
            }
        }
        let logits = |read: &NodeRead| match read {
            NodeRead::Logits { tokens, .. } => {
                flops.logits(tokens.as_ref().map_or(config.vocab, |tokens| tokens.len()))
            }
            NodeRead::Activation { .. } => 0,
        };
        work.flops += reads.iter().flatten().map(logits).sum::<u64>();
        work
    }
}

/// Rows of a node that are not finished, but that another node goes on from: one row, counted there.
fn continued(forest: &Forest, slice: &Slice) -> HashMap<(NodeId, usize), Rows> {
    let mut continued: HashMap<(NodeId, usize), Rows> = HashMap::new();
    for id in 0..forest.nodes().len() {
        slice.outside(forest, id, |owner, at, rows, kind| {
            if let (Use::Row, Some(need)) = (kind, slice.need(id, at.block)) {
                let goes_on = rows.and(&need.any());
                let entry = continued.entry((owner, at.block)).or_default();
                *entry = entry.union(&goes_on);
            }
        });
    }
    continued
}
