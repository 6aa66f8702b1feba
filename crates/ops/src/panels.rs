//! A weight laid out once for many products.
//!
//! A matrix W (in × out) is stored as panels of [`PANEL`] columns, each of them in × PANEL with its rows one
//! after the other: what the inner loop of x·W reads, in the order it reads it. Rows of x are taken in strips
//! of [`STRIP`], interleaved the same way. A tile of STRIP × PANEL sums then lives in vector registers (12 of
//! AVX2's 16) while it goes down a strip and a panel together.
//!
//! Every element is one sum over `in`, in ascending order within blocks of at most [`DEPTH`] and block by
//! block, whatever else is computed with it: to the bit, a row's products depend neither on the other rows of
//! x nor on the number of threads.

use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::cell::Cell;

/// Columns of a panel.
const PANEL: usize = 16;
/// Rows of a strip.
const STRIP: usize = 6;
/// Rows of a panel that are multiplied before the next panel's. Longer sums are written less often, shorter
/// ones stay in nearer caches; measured on widths from 576 to 3072.
const DEPTH: usize = 1024;
/// Rows of x at a time: DEPTH of their columns are 1 MB, which a panel passes over. Measured, too.
const ROWS: usize = 40 * STRIP;
/// Tasks a thread gets, so that one which was held up does not hold up the rest.
const TASKS: usize = 16;
/// Products fewer than this are not worth a second thread.
const SMALL: usize = 1 << 18;

/// A weight of in × out, in panels.
#[derive(Debug)]
pub(crate) struct Panels {
    inner: usize,
    width: usize,
    /// Panel, row of the weight, column of the panel; columns beyond the last are zero.
    numbers: Vec<f32>,
}

impl Panels {
    /// Lays out a weight of in × out, its element (i, j) at i·strides.0 + j·strides.1 of `numbers`.
    pub(crate) fn new(inner: usize, width: usize, numbers: &[f32], strides: (usize, usize)) -> Self {
        Self::lay_out(inner, width, numbers, |i, j| i * strides.0 + j * strides.1, strides)
    }

    /// The panels of the transpose, out × in.
    pub(crate) fn transposed(&self) -> Self {
        Self::lay_out(self.width, self.inner, &self.numbers, |i, j| self.index(j, i), (1, PANEL))
    }

    /// Element (i, j) is at `index(i, j)` of `numbers`, and within squares of PANEL × PANEL its neighbours are
    /// `strides` away: the way along which they stand closer is read in one go.
    fn lay_out(
        inner: usize,
        width: usize,
        numbers: &[f32],
        index: impl Fn(usize, usize) -> usize + Sync,
        strides: (usize, usize),
    ) -> Self {
        let mut panels = vec![0.0; width.div_ceil(PANEL) * inner * PANEL];
        panels.par_chunks_mut((inner * PANEL).max(1)).enumerate().for_each(|(panel, out)| {
            let left = panel * PANEL;
            let columns = PANEL.min(width - left);
            for (square, out) in out.chunks_mut(PANEL * PANEL).enumerate() {
                let top = square * PANEL;
                if strides.1 == 1 {
                    for (i, row) in (top..).zip(out.chunks_exact_mut(PANEL)) {
                        row[..columns].copy_from_slice(&numbers[index(i, left)..][..columns]);
                    }
                } else {
                    for j in 0..columns {
                        let column = numbers[index(top, left + j)..].iter().step_by(strides.0);
                        out.iter_mut().skip(j).step_by(PANEL).zip(column).for_each(|(out, x)| *out = *x);
                    }
                }
            }
        });
        Self { inner, width, numbers: panels }
    }

    /// Width of the rows that go in.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// Width of the rows that come out.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    fn index(&self, i: usize, j: usize) -> usize {
        (j / PANEL * self.inner + i) * PANEL + j % PANEL
    }

    /// The elements of column j.
    pub(crate) fn column(&self, j: usize) -> impl Iterator<Item = f32> {
        self.numbers[self.index(0, j)..].iter().step_by(PANEL).take(self.inner).copied()
    }

    /// x·W + b for rows x, which are whole.
    pub(crate) fn times(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let rows = x.len() / self.inner;
        let mut out = vec![0.0; rows * self.width];
        // Blocks of equal height, so that none is a handful of rows.
        let strips = rows.div_ceil(STRIP);
        let block = strips.div_ceil(strips.div_ceil(ROWS / STRIP).max(1)) * STRIP;
        for (x, out) in x.chunks((block * self.inner).max(1)).zip(out.chunks_mut((block * self.width).max(1)))
        {
            // Taken, not borrowed: while this thread waits for the others it may be given another product.
            let mut strips = STRIPS.take();
            interleave(x, self.inner, &mut strips);
            self.block(&strips, out, bias);
            STRIPS.set(strips);
        }
        out
    }

    /// One block of rows, by all threads, each of them some panels.
    fn block(&self, strips: &[[f32; STRIP]], out: &mut [f32], bias: Option<&[f32]>) {
        let rows = out.len() / self.width;
        let panels = self.width.div_ceil(PANEL);
        let tasks = match rows * self.inner * self.width {
            0..SMALL => 1,
            _ => panels.min(TASKS * rayon::current_num_threads()),
        };
        let share = panels.div_ceil(tasks);
        let mut parts: Vec<Vec<&mut [f32]>> =
            (0..panels.div_ceil(share)).map(|_| Vec::with_capacity(rows)).collect();
        for row in out.chunks_exact_mut(self.width) {
            for (part, row) in parts.iter_mut().zip(row.chunks_mut(share * PANEL)) {
                part.push(row);
            }
        }
        parts.into_par_iter().enumerate().for_each(|(task, out)| {
            simd::dispatch(Part { weight: self, first: task * share, strips, out, bias });
        });
    }
}

thread_local! {
    /// Kept between products: fresh pages would cost more than filling them.
    static STRIPS: Cell<Vec<[f32; STRIP]>> = const { Cell::new(Vec::new()) };
}

/// Rows of width `inner` as strips: each has `inner` entries, of one number from each of its rows. Rows that the last
/// strip lacks keep what was there: nothing is computed from them.
fn interleave(x: &[f32], inner: usize, strips: &mut Vec<[f32; STRIP]>) {
    strips.resize((x.len() / inner).div_ceil(STRIP) * inner, [0.0; STRIP]);
    strips.par_chunks_mut(inner).zip(x.par_chunks(STRIP * inner)).for_each(|(strip, rows)| {
        for (place, row) in rows.chunks_exact(inner).enumerate() {
            for (entry, number) in strip.iter_mut().zip(row) {
                entry[place] = *number;
            }
        }
    });
}

/// The columns of some panels, for a block of rows.
struct Part<'a> {
    weight: &'a Panels,
    /// The first panel.
    first: usize,
    strips: &'a [[f32; STRIP]],
    /// These columns of every row.
    out: Vec<&'a mut [f32]>,
    bias: Option<&'a [f32]>,
}

impl WithSimd for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weight, first, strips, mut out, bias } = self;
        let inner = weight.inner;
        let depth = inner.div_ceil(inner.div_ceil(DEPTH));
        for above in (0..inner).step_by(depth) {
            let below = (above + depth).min(inner);
            let columns = out.first().map_or(0, |row| row.len());
            for (panel, from) in (first..).zip((0..columns).step_by(PANEL)) {
                let to = (from + PANEL).min(columns);
                let numbers =
                    &weight.numbers[(panel * inner + above) * PANEL..(panel * inner + below) * PANEL];
                let bias = bias.map(|bias| &bias[first * PANEL + from..first * PANEL + to]);
                for (strip, out) in strips.chunks_exact(inner).zip(out.chunks_mut(STRIP)) {
                    let sums = tile(simd, out.len(), &strip[above..below], numbers);
                    for (out, sums) in out.iter_mut().zip(&sums) {
                        let out = out[from..to].iter_mut().zip(sums);
                        // Fresh pages are written, not read: reading first would make the kernel map each twice.
                        match bias {
                            _ if above > 0 => out.for_each(|(out, sum)| *out += sum),
                            Some(bias) => out.zip(bias).for_each(|((out, sum), bias)| *out = sum + bias),
                            None => out.for_each(|(out, sum)| *out = *sum),
                        }
                    }
                }
            }
        }
    }
}

/// The products of the first `rows` rows of a strip with a panel.
#[inline(always)]
fn tile<S: Simd>(simd: S, rows: usize, strip: &[[f32; STRIP]], panel: &[f32]) -> [[f32; PANEL]; STRIP] {
    match S::F32_LANES {
        4 => tile_of::<S, 4>(simd, rows, strip, panel),
        8 => tile_of::<S, 2>(simd, rows, strip, panel),
        16 => tile_of::<S, 1>(simd, rows, strip, panel),
        _ => tile_of::<S, PANEL>(simd, rows, strip, panel),
    }
}

/// The same where a panel's row is V vectors.
#[inline(always)]
fn tile_of<S: Simd, const V: usize>(
    simd: S,
    rows: usize,
    strip: &[[f32; STRIP]],
    panel: &[f32],
) -> [[f32; PANEL]; STRIP] {
    let mut sums = [[0.0; PANEL]; STRIP];
    match rows {
        1 => sum_rows::<S, V, 1>(simd, strip, panel, &mut sums),
        2 => sum_rows::<S, V, 2>(simd, strip, panel, &mut sums),
        3 => sum_rows::<S, V, 3>(simd, strip, panel, &mut sums),
        4 => sum_rows::<S, V, 4>(simd, strip, panel, &mut sums),
        5 => sum_rows::<S, V, 5>(simd, strip, panel, &mut sums),
        _ => sum_rows::<S, V, STRIP>(simd, strip, panel, &mut sums),
    }
    sums
}

#[inline(always)]
fn sum_rows<S: Simd, const V: usize, const R: usize>(
    simd: S,
    strip: &[[f32; STRIP]],
    panel: &[f32],
    sums: &mut [[f32; PANEL]; STRIP],
) {
    let (panel, _) = S::as_simd_f32s(panel).0.as_chunks::<V>();
    let mut tile = [[simd.splat_f32s(0.0); V]; R];
    for (x, weight) in strip.iter().zip(panel) {
        for (tile, x) in tile.iter_mut().zip(x) {
            let x = simd.splat_f32s(*x);
            for (sum, weight) in tile.iter_mut().zip(weight) {
                *sum = simd.mul_add_e_f32s(x, *weight, *sum);
            }
        }
    }
    for (sums, tile) in sums.iter_mut().zip(tile) {
        S::as_mut_simd_f32s(sums).0.copy_from_slice(&tile);
    }
}
