//! A weight laid out once for many products.
//!
//! A matrix W (in × out) is stored as panels of [`PANEL`] columns, each of them in × PANEL with its rows one
//! after the other: what the inner loop of x·W reads, in the order it reads it. Rows of x are taken in strips
//! of [`STRIP`], interleaved the same way. A tile of STRIP × PANEL sums then lives in vector registers (12 of
//! AVX2's 16) while it goes down a strip and a panel together. Where a vector is as wide as a panel (AVX-512 has 32 of
//! them) it goes down two strips and two panels at once, 24 sums; a strip alone goes down up to [`ABREAST`] panels,
//! since six sums would wait for one another.
//!
//! Every element is one sum over `in`, in ascending order within blocks of at most [`DEPTH`] and block by
//! block, whatever else is computed with it: to the bit, a row's products depend neither on the other rows of
//! x nor on the number of threads.

use crate::product::{ABREAST, PANEL, Product, Rows, STRIP};
use crate::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::{Deref, DerefMut};

/// Rows of a panel that are multiplied before the next panel's. Longer sums are written less often, shorter
/// ones stay in nearer caches; measured on widths from 576 to 3072.
const DEPTH: usize = 1024;
/// The same where vectors are as wide as a panel: two panels then stay in the first-level cache.
const WIDE_DEPTH: usize = 256;

/// A weight of in × out, in panels.
#[derive(Debug)]
pub(crate) struct Panels {
    inner: usize,
    width: usize,
    /// Panel, row of the weight, column of the panel; columns beyond the last are zero.
    numbers: Aligned,
}

/// Numbers that start where a line of the cache does: a vector as wide as a line would else take two of them.
#[derive(Debug)]
struct Aligned {
    numbers: Vec<f32>,
    start: usize,
}

impl Aligned {
    fn zeros(count: usize) -> Self {
        const LINE: usize = 64;
        let numbers = vec![0.0; count + LINE / size_of::<f32>()];
        let past = numbers.as_ptr().addr() % LINE;
        Self { start: (LINE - past) % LINE / size_of::<f32>(), numbers }
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..]
    }
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
        let mut panels = Aligned::zeros(width.div_ceil(PANEL) * inner * PANEL);
        let count = width.div_ceil(PANEL) * inner * PANEL;
        panels[..count].par_chunks_mut((inner * PANEL).max(1)).enumerate().for_each(|(panel, out)| {
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

    /// Bytes that it holds, up to where its numbers start.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.numbers)
    }

    fn index(&self, i: usize, j: usize) -> usize {
        (j / PANEL * self.inner + i) * PANEL + j % PANEL
    }
}

impl Product for Panels {
    fn shape(&self) -> (usize, usize) {
        (self.inner, self.width)
    }

    fn column(&self, j: usize) -> Vec<f32> {
        self.numbers[self.index(0, j)..].iter().step_by(PANEL).take(self.inner).copied().collect()
    }

    fn part(&self, first: usize, rows: &Rows<'_>, out: Vec<&mut [f32]>, bias: Option<&[f32]>) {
        simd::dispatch(PanelPart { weight: self, first, strips: rows.strips, out, bias });
    }
}

/// The columns of some panels, for a block of rows.
struct PanelPart<'a> {
    weight: &'a Panels,
    /// The first panel.
    first: usize,
    strips: &'a [[f32; STRIP]],
    /// These columns of every row.
    out: Vec<&'a mut [f32]>,
    bias: Option<&'a [f32]>,
}

impl WithSimd for PanelPart<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { weight, first, strips, mut out, bias } = self;
        let inner = weight.inner;
        let is_wide = S::F32_LANES == PANEL;
        let depth = inner.div_ceil(inner.div_ceil(if is_wide { WIDE_DEPTH } else { DEPTH }));
        let together = if is_wide { 2 } else { 1 };
        let columns = out.first().map_or(0, |row| row.len());
        let is_one_strip = out.len() <= STRIP;
        let (mut above, mut from) = (0, 0);
        while above < inner && from < columns {
            // Some columns, down one block of the sum.
            let below = (above + depth).min(inner);
            let panel = |from: usize| {
                let panel = first + from / PANEL;
                &weight.numbers[(panel * inner + above) * PANEL..(panel * inner + below) * PANEL]
            };
            let abreast = match (columns - from).div_ceil(PANEL) {
                left if !is_wide || left == 1 => 1,
                left if is_one_strip && left >= ABREAST => ABREAST,
                _ => 2,
            };
            let to = (from + abreast * PANEL).min(columns);
            let bias = bias.map(|bias| &bias[first * PANEL + from..first * PANEL + to]);
            let into = Into { from, to, adds: above > 0, bias };
            for (strips, out) in strips.chunks(together * inner).zip(out.chunks_mut(together * STRIP)) {
                let (one, other) = strips.split_at(inner);
                let one = &one[above..below];
                let panels = || [panel(from), panel(from + PANEL)];
                match (abreast, other.get(above..below)) {
                    (2, Some(other)) => tile::<S, 1, 2, 2>(simd, [one, other], panels(), out, &into),
                    (1, Some(other)) => tile::<S, 1, 1, 2>(simd, [one, other], [panel(from)], out, &into),
                    (2, None) => tile::<S, 1, 2, 1>(simd, [one], panels(), out, &into),
                    (ABREAST, None) => {
                        let panels = std::array::from_fn(|i| panel(from + i * PANEL));
                        tile::<S, 1, ABREAST, 1>(simd, [one], panels, out, &into);
                    }
                    _ => match S::F32_LANES {
                        4 => tile::<S, 4, 1, 1>(simd, [one], [panel(from)], out, &into),
                        8 => tile::<S, 2, 1, 1>(simd, [one], [panel(from)], out, &into),
                        16 => tile::<S, 1, 1, 1>(simd, [one], [panel(from)], out, &into),
                        _ => tile::<S, PANEL, 1, 1>(simd, [one], [panel(from)], out, &into),
                    },
                }
            }
            // One strip reads the weight once: in the order it lies there. Several go over a block of it again and again.
            (above, from) = match is_one_strip {
                true if below < inner => (below, from),
                true => (0, to),
                false if to < columns => (above, to),
                false => (below, 0),
            };
        }
    }
}

/// Where sums go.
struct Into<'a> {
    /// The columns, counted from the first of the rows at hand.
    from: usize,
    to: usize,
    /// Whether they are added to what is there, which another block of the sum left.
    adds: bool,
    /// What is added to the first block.
    bias: Option<&'a [f32]>,
}

/// The products of the rows of T strips with P panels whose rows are V vectors, put into as many rows as there are.
#[inline(always)]
fn tile<S: Simd, const V: usize, const P: usize, const T: usize>(
    simd: S,
    strips: [&[[f32; STRIP]]; T],
    panels: [&[f32]; P],
    out: &mut [&mut [f32]],
    into: &Into<'_>,
) {
    match out.len() {
        1 => sum_rows::<S, V, P, T, 1>(simd, strips, panels, out, into),
        2 => sum_rows::<S, V, P, T, 2>(simd, strips, panels, out, into),
        3 => sum_rows::<S, V, P, T, 3>(simd, strips, panels, out, into),
        4 => sum_rows::<S, V, P, T, 4>(simd, strips, panels, out, into),
        5 => sum_rows::<S, V, P, T, 5>(simd, strips, panels, out, into),
        // Of several strips all rows, those that the last one lacks too.
        _ => sum_rows::<S, V, P, T, STRIP>(simd, strips, panels, out, into),
    }
}

#[inline(always)]
fn sum_rows<S: Simd, const V: usize, const P: usize, const T: usize, const R: usize>(
    simd: S,
    strips: [&[[f32; STRIP]]; T],
    panels: [&[f32]; P],
    out: &mut [&mut [f32]],
    into: &Into<'_>,
) {
    let depth = strips[0].len();
    let strips = strips.map(|strip| &strip[..depth]);
    let panels = panels.map(|panel| &S::as_simd_f32s(panel).0.as_chunks::<V>().0[..depth]);
    let mut tile = [[[[simd.splat_f32s(0.0); V]; P]; R]; T];
    for i in 0..depth {
        let weights: [[S::f32s; V]; P] = std::array::from_fn(|p| panels[p][i]);
        for (tile, strip) in tile.iter_mut().zip(&strips) {
            for (tile, x) in tile.iter_mut().zip(&strip[i]) {
                let x = simd.splat_f32s(*x);
                for (sums, weights) in tile.iter_mut().zip(&weights) {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = simd.mul_add_e_f32s(x, *weight, *sum);
                    }
                }
            }
        }
    }
    // Through memory: where they go depends on what is there, which would keep them from registers until here.
    let mut sums = [[[[0.0; PANEL]; P]; R]; T];
    for (sums, tile) in sums.iter_mut().zip(tile) {
        for (sums, tile) in sums.iter_mut().zip(tile) {
            for (sums, tile) in sums.iter_mut().zip(tile) {
                S::as_mut_simd_f32s(sums).0.copy_from_slice(&tile);
            }
        }
    }
    for (row, sums) in out.iter_mut().zip(sums.as_flattened()) {
        for (sums, at) in sums.iter().zip((into.from..into.to).step_by(PANEL)) {
            into.put(simd, &mut row[at..(at + PANEL).min(into.to)], at - into.from, sums);
        }
    }
}

impl Into<'_> {
    /// Puts the sums of some columns, up to a panel's, of a row; `at` counts from the first column of the bias.
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, row: &mut [f32], at: usize, sums: &[f32; PANEL]) {
        let sums = &sums[..row.len()];
        // Fresh pages are written, not read: reading first would make the kernel map each twice.
        match self.bias {
            _ if self.adds => simd::update2(
                simd,
                row,
                sums,
                sums,
                #[inline(always)]
                |out, sum, _| simd.add_f32s(out, sum),
            ),
            Some(bias) => simd::map2(
                simd,
                row,
                sums,
                &bias[at..at + sums.len()],
                #[inline(always)]
                |sum, bias| simd.add_f32s(sum, bias),
            ),
            None => row.copy_from_slice(sums),
        }
    }
}
