//! The loops of ragged attention, head by head.
//!
//! Sums run over a query's keys in their order, whatever the blocks and threads, so neither changes a bit.

use super::ragged::{Query, Ragged};
use crate::kernel::{SMALL, by_rows};
use crate::simd;
use crate::softcap::{capped, slope};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// The most queries that take a block of keys one after the other.
const GROUP: usize = 8;
/// How many keys are one block: with 64 numbers each, half a first-level cache.
const BLOCK: usize = 32;

/// The three tables, row after row.
pub(super) struct Tables<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    pub(super) head_dim: usize,
}

/// One head's columns of a table.
#[derive(Clone, Copy)]
struct Columns<'a> {
    table: &'a [f32],
    stride: usize,
    offset: usize,
    width: usize,
}

impl<'a> Columns<'a> {
    #[inline(always)]
    fn row(self, row: u32) -> &'a [f32] {
        &self.table[row as usize * self.stride + self.offset..][..self.width]
    }
}

impl<'a> Tables<'a> {
    fn columns(&self, table: &'a [f32], heads: usize, head: usize) -> Columns<'a> {
        let width = self.head_dim;
        Columns { table, stride: heads * width, offset: head * width, width }
    }

    /// Queries, keys and values of one query head.
    fn of_head(&self, ragged: &Ragged, head: usize) -> [Columns<'a>; 3] {
        let shared = head * ragged.kv_heads / ragged.heads;
        [
            self.columns(self.query, ragged.heads, head),
            self.columns(self.key, ragged.kv_heads, shared),
            self.columns(self.value, ragged.kv_heads, shared),
        ]
    }
}

/// The mixed values, a row of H·D for each query.
pub(super) fn forward(ragged: &Ragged, tables: &Tables<'_>) -> Vec<f32> {
    let width = ragged.heads * tables.head_dim;
    let mut out = vec![0.0; ragged.queries.len() * width];
    let mut groups = Vec::new();
    let mut rest = &mut out[..];
    for run in ragged.queries.chunk_by(|a, b| a.stretches == b.stretches) {
        for queries in run.chunks(GROUP) {
            let (out, others) = rest.split_at_mut(queries.len() * width);
            groups.push((queries, out));
            rest = others;
        }
    }
    let attend = |scratch: &mut Scratch, (queries, out): (&[Query], &mut [f32])| {
        simd::dispatch(Group { ragged, tables, queries, scratch, out });
    };
    let keys: usize = ragged.queries.iter().map(|query| query.keys.len()).sum();
    if keys * width <= SMALL {
        groups.into_iter().fold(Scratch::default(), |mut scratch, group| {
            attend(&mut scratch, group);
            scratch
        });
    } else {
        groups.into_par_iter().for_each_init(Scratch::default, attend);
    }
    out
}

/// What a thread keeps from one group of queries to the next.
#[derive(Default)]
struct Scratch {
    rows: Vec<u32>,
    weights: Vec<f32>,
    slopes: Vec<f32>,
    bends: Vec<f32>,
}

/// Queries with the same stretches.
struct Group<'a> {
    ragged: &'a Ragged,
    tables: &'a Tables<'a>,
    queries: &'a [Query],
    scratch: &'a mut Scratch,
    out: &'a mut [f32],
}

impl WithSimd for Group<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { ragged, tables, queries, scratch: Scratch { rows, weights, .. }, out } = self;
        let Some(one) = queries.first() else { return };
        let first = queries.iter().map(|query| query.keys.start).min().unwrap_or(0);
        let end = queries.iter().map(|query| query.keys.end).max().unwrap_or(0);
        ragged.list_rows(one, &(first..end), rows);
        let count = rows.len();
        weights.resize(queries.len() * count, 0.0);
        let (width, head_dim) = (ragged.heads * tables.head_dim, tables.head_dim);
        // Which of the rows a query sees.
        let seen = |query: &Query| (query.keys.start - first) as usize..(query.keys.end - first) as usize;
        // And which of those are in a block.
        let seen_of = |query: &Query, block: usize, len: usize| {
            let seen = seen(query);
            seen.start.max(block * BLOCK)..seen.end.min(block * BLOCK + len)
        };
        for head in 0..ragged.heads {
            let [q, k, v] = tables.of_head(ragged, head);
            for (block, rows) in rows.chunks(BLOCK).enumerate() {
                for (query, weights) in queries.iter().zip(weights.chunks_exact_mut(count)) {
                    let seen = seen_of(query, block, rows.len());
                    if let (Some(rows), Some(scores)) = (in_block(rows, block, &seen), weights.get_mut(seen))
                    {
                        dots(simd, q.row(query.row), k, rows, ragged.scale, scores);
                    }
                }
            }
            for (query, weights) in queries.iter().zip(weights.chunks_exact_mut(count)) {
                let weights = &mut weights[seen(query)];
                cap(simd, weights, ragged.softcap);
                simd::softmax(simd, weights);
            }
            for (block, rows) in rows.chunks(BLOCK).enumerate() {
                let of_query = weights.chunks_exact(count).zip(out.chunks_exact_mut(width));
                for (query, (weights, out)) in queries.iter().zip(of_query) {
                    let seen = seen_of(query, block, rows.len());
                    if let (Some(rows), Some(weights)) = (in_block(rows, block, &seen), weights.get(seen)) {
                        mix(simd, &mut out[head * head_dim..][..head_dim], v, rows, weights);
                    }
                }
            }
        }
    }
}

/// The rows of a block that are `seen`, counted from the first block's first; `None` where there are none.
#[inline(always)]
fn in_block<'a>(rows: &'a [u32], block: usize, seen: &Range<usize>) -> Option<&'a [u32]> {
    (!seen.is_empty()).then(|| &rows[seen.start - block * BLOCK..seen.end - block * BLOCK])
}

/// Bounds scores, where something bounds them.
#[inline(always)]
fn cap<S: Simd>(simd: S, scores: &mut [f32], softcap: Option<f32>) {
    if let Some(cap) = softcap {
        simd::update(
            simd,
            scores,
            #[inline(always)]
            |x| capped(simd, x, cap),
        );
    }
}

/// Sets `out` to scale·q·k for the keys at `rows`.
#[inline(always)]
fn dots<S: Simd>(simd: S, q: &[f32], k: Columns<'_>, rows: &[u32], scale: f32, out: &mut [f32]) {
    let ((rows8, rows), (out8, out)) = (rows.as_chunks::<8>(), out.as_chunks_mut::<8>());
    for (rows, out) in rows8.iter().zip(out8) {
        *out = some_dots(simd, q, k, rows, scale);
    }
    let ((rows4, rows), (out4, out)) = (rows.as_chunks::<4>(), out.as_chunks_mut::<4>());
    for (rows, out) in rows4.iter().zip(out4) {
        *out = some_dots(simd, q, k, rows, scale);
    }
    for (&row, out) in rows.iter().zip(out) {
        [*out] = some_dots(simd, q, k, &[row], scale);
    }
}

/// N products side by side: one addition takes four cycles, and two can start in each.
#[inline(always)]
fn some_dots<S: Simd, const N: usize>(
    simd: S,
    q: &[f32],
    k: Columns<'_>,
    rows: &[u32; N],
    scale: f32,
) -> [f32; N] {
    let (q, q_tail) = S::as_simd_f32s(q);
    let keys = rows.map(
        #[inline(always)]
        |row| S::as_simd_f32s(k.row(row)),
    );
    // Cut to the query's length, which spares a check of every index.
    let heads = keys.map(
        #[inline(always)]
        |(key, _)| &key[..q.len()],
    );
    let mut sums = [simd.splat_f32s(0.0); N];
    for i in 0..q.len() {
        for n in 0..N {
            sums[n] = simd.mul_add_e_f32s(q[i], heads[n][i], sums[n]);
        }
    }
    if !q_tail.is_empty() {
        let q = simd.partial_load_f32s(q_tail);
        for n in 0..N {
            sums[n] = simd.mul_add_e_f32s(q, simd.partial_load_f32s(keys[n].1), sums[n]);
        }
    }
    let mut dots = [0.0; N];
    for n in 0..N {
        dots[n] = simd.reduce_sum_f32s(sums[n]) * scale;
    }
    dots
}

/// Adds Σ weight·row to `out` for the table's rows at `rows`.
#[inline(always)]
fn mix<S: Simd>(simd: S, out: &mut [f32], table: Columns<'_>, rows: &[u32], weights: &[f32]) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    let whole = out.len();
    let (out8, out) = out.as_chunks_mut::<8>();
    for (i, out) in out8.iter_mut().enumerate() {
        mix_some(simd, out, 8 * i, table, rows, weights);
    }
    let done = whole - out.len();
    let (out4, out) = out.as_chunks_mut::<4>();
    for (i, out) in out4.iter_mut().enumerate() {
        mix_some(simd, out, done + 4 * i, table, rows, weights);
    }
    let done = whole - out.len();
    for (i, out) in out.iter_mut().enumerate() {
        mix_some(simd, std::array::from_mut(out), done + i, table, rows, weights);
    }
    if !out_tail.is_empty() {
        let mut sum = simd.partial_load_f32s(out_tail);
        for (&row, &weight) in rows.iter().zip(weights) {
            let x = simd.partial_load_f32s(S::as_simd_f32s(table.row(row)).1);
            sum = simd.mul_add_e_f32s(simd.splat_f32s(weight), x, sum);
        }
        simd.partial_store_f32s(out_tail, sum);
    }
}

/// The part of [`mix`] that N registers hold, from vector `first` on.
#[inline(always)]
fn mix_some<S: Simd, const N: usize>(
    simd: S,
    out: &mut [S::f32s; N],
    first: usize,
    table: Columns<'_>,
    rows: &[u32],
    weights: &[f32],
) {
    let mut sums = *out;
    for (&row, &weight) in rows.iter().zip(weights) {
        let (x, weight) = (&S::as_simd_f32s(table.row(row)).0[first..][..N], simd.splat_f32s(weight));
        for n in 0..N {
            sums[n] = simd.mul_add_e_f32s(weight, x[n], sums[n]);
        }
    }
    *out = sums;
}

/// The gradients of the three tables; those of keys and values are empty where nobody asked.
pub(super) struct Slopes {
    pub(super) query: Vec<f32>,
    pub(super) key: Vec<f32>,
    pub(super) value: Vec<f32>,
}

/// The gradients of the tables, given that of the mixed values; keys' and values' only if `table_too`.
///
/// Heads have nothing to do with each other, so each is one task with buffers of its own, and query rows
/// and keys that occur often are summed in the queries' order.
pub(super) fn backward(ragged: &Ragged, tables: &Tables<'_>, grad: &[f32], table_too: bool) -> Slopes {
    let heads: Vec<Slopes> = (0..ragged.heads)
        .into_par_iter()
        .map(|head| simd::dispatch(HeadBackward { ragged, tables, grad, head, table_too }))
        .collect();
    let head_dim = tables.head_dim;
    // Columns of `parts` heads side by side, each summed over the heads that share it.
    let gather = |len: usize, parts: usize, of: fn(&Slopes) -> &[f32]| {
        let width = parts * head_dim;
        by_rows(len / width, width, |first, out| {
            for (row, out) in (first..).zip(out.chunks_exact_mut(width)) {
                for (out, sharing) in out.chunks_exact_mut(head_dim).zip(heads.chunks(ragged.heads / parts)) {
                    for head in sharing {
                        let from = &of(head)[row * head_dim..][..head_dim];
                        out.iter_mut().zip(from).for_each(|(out, x)| *out += x);
                    }
                }
            }
        })
    };
    Slopes {
        query: gather(tables.query.len(), ragged.heads, |head| &head.query),
        key: gather(if table_too { tables.key.len() } else { 0 }, ragged.kv_heads, |head| &head.key),
        value: gather(if table_too { tables.value.len() } else { 0 }, ragged.kv_heads, |head| &head.value),
    }
}

/// With weights p, output gradient g and p' = g·v: the scores' gradient is p·(p' − Σ p·p'), from which
/// those of q and k follow by the product rule; v's is Σ p·g.
struct HeadBackward<'a> {
    ragged: &'a Ragged,
    tables: &'a Tables<'a>,
    grad: &'a [f32],
    head: usize,
    table_too: bool,
}

impl WithSimd for HeadBackward<'_> {
    type Output = Slopes;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Slopes {
        let Self { ragged, tables, grad, head, table_too } = self;
        let [q, k, v] = tables.of_head(ragged, head);
        let grad = tables.columns(grad, ragged.heads, head);
        let zeros = |table: Columns<'_>| vec![0.0; table.table.len() / table.stride * table.width];
        let mut out = Slopes { query: zeros(q), key: Vec::new(), value: Vec::new() };
        if table_too {
            (out.key, out.value) = (zeros(k), zeros(v));
        }
        let at = |row: u32| row as usize * q.width..(row as usize + 1) * q.width;
        let mut scratch = Scratch::default();
        let Scratch { rows, weights, slopes, bends } = &mut scratch;
        for (query, grad) in ragged.queries.iter().zip(grad.table.chunks_exact(grad.stride)) {
            let grad = &grad[head * q.width..][..q.width];
            let row = q.row(query.row);
            ragged.list_rows(query, &query.keys, rows);
            weights.resize(rows.len(), 0.0);
            slopes.resize(rows.len(), 0.0);
            dots(simd, row, k, rows, ragged.scale, weights);
            if ragged.softcap.is_some() {
                cap(simd, weights, ragged.softcap);
                bends.clone_from(weights);
            }
            simd::softmax(simd, weights);
            dots(simd, grad, v, rows, 1.0, slopes);
            let mean = simd.splat_f32s(simd::dot(simd, weights, slopes));
            let scale = simd.splat_f32s(ragged.scale);
            simd::update2(
                simd,
                slopes,
                weights,
                weights,
                #[inline(always)]
                |slope, weight, _| simd.mul_f32s(simd.mul_f32s(weight, scale), simd.sub_f32s(slope, mean)),
            );
            if let Some(cap) = ragged.softcap {
                simd::update2(
                    simd,
                    slopes,
                    bends,
                    bends,
                    #[inline(always)]
                    |at, score, _| simd.mul_f32s(at, slope(simd, score, cap)),
                );
            }
            mix(simd, &mut out.query[at(query.row)], k, rows, slopes);
            if !table_too {
                continue;
            }
            for ((&key, &slope), &weight) in rows.iter().zip(slopes.iter()).zip(weights.iter()) {
                simd::axpy(simd, &mut out.key[at(key)], slope, row);
                simd::axpy(simd, &mut out.value[at(key)], weight, grad);
            }
        }
        out
    }
}
