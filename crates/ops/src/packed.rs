//! A quantised weight laid out for products, its numbers widened in registers.
//!
//! Panels are those of [`panels`](crate::panels): [`PANEL`] columns side by side, row by row of W. Codes of four bits lie
//! two rows to a byte; scales and minima lie group by group, a row of them for each. Within a group a column of x·W is
//!
//! ```text
//! Σ x·(scale·code + minimum) = scale · Σ x·code + minimum · Σ x
//! ```
//!
//! so a code is widened once for up to [`STRIP`] rows of x and scales are met once a group. All is f32: nothing of x is
//! rounded, and the product is that of the widened weight but for the order of its sums. That order is the same whatever
//! other rows there are and however many threads.

use crate::blocks::{Blocks, Opened};
use crate::product::{Entry, PANEL, Product, Rows, STRIP};
use crate::simd;
use pulp::{NullaryFnOnce, Simd, WithSimd};
use rayon::prelude::*;

/// Numbers of a panel's row.
type Row<T> = [T; PANEL];
/// The rows of each of P panels.
type Each<'a, T, const P: usize> = [&'a [Row<T>]; P];

/// A weight of in × out, its columns given as rows of blocks.
#[derive(Debug)]
pub(crate) struct Packed {
    inner: usize,
    width: usize,
    group: usize,
    codes: Codes,
    /// Panel, group.
    scales: Vec<Row<f32>>,
    /// None where all are 0.
    minima: Vec<Row<f32>>,
}

/// Panel, row of the weight.
#[derive(Debug)]
enum Codes {
    /// 0 … 15, two rows to a byte: the first in its low half.
    Short(Vec<Row<u8>>),
    Signed(Vec<Row<i8>>),
}

impl Packed {
    /// Lays out `width` rows of blocks, each the `inner` numbers of a column.
    pub(crate) fn new(bytes: &[u8], blocks: Blocks, inner: usize, width: usize) -> Self {
        let (group, panels) = (blocks.group(), width.div_ceil(PANEL));
        let row = inner / blocks.numbers() * blocks.bytes();
        let count = panels * inner;
        let mut codes = match blocks.is_short() {
            true => Codes::Short(vec![[0; PANEL]; count / 2]),
            false => Codes::Signed(vec![[0; PANEL]; count]),
        };
        let mut scales = vec![[0.0; PANEL]; count / group];
        let mut minima = vec![[0.0; PANEL]; if blocks.has_minima() { count / group } else { 0 }];
        // One panel of each: `chunks` of nothing are none, and there is one of every panel.
        let mut short: Vec<&mut [Row<u8>]> = Vec::new();
        let mut signed: Vec<&mut [Row<i8>]> = Vec::new();
        match &mut codes {
            Codes::Short(codes) => short = codes.chunks_mut((inner / 2).max(1)).collect(),
            Codes::Signed(codes) => signed = codes.chunks_mut(inner.max(1)).collect(),
        }
        short.resize_with(panels, Default::default);
        signed.resize_with(panels, Default::default);
        let mut least: Vec<&mut [Row<f32>]> = minima.chunks_mut((inner / group).max(1)).collect();
        least.resize_with(panels, Default::default);
        let parts = short.into_par_iter().zip(signed).zip(least);
        let parts = parts.zip(scales.par_chunks_mut((inner / group).max(1)));
        parts.enumerate().for_each(|(panel, (((short, signed), least), scales))| {
            let mut opened = Opened::new();
            for (j, column) in (panel * PANEL..width.min((panel + 1) * PANEL)).enumerate() {
                let blocks_of = bytes[column * row..(column + 1) * row].chunks_exact(blocks.bytes());
                for (first, block) in (0..).step_by(blocks.numbers()).zip(blocks_of) {
                    blocks.open(block, &mut opened);
                    let groups = first / group..(first + blocks.numbers()) / group;
                    for (to, scale) in scales[groups.clone()].iter_mut().zip(opened.scales) {
                        to[j] = scale;
                    }
                    if blocks.has_minima() {
                        for (to, minimum) in least[groups].iter_mut().zip(opened.minima) {
                            to[j] = minimum;
                        }
                    }
                    let codes = &opened.codes[..blocks.numbers()];
                    if blocks.is_short() {
                        for (to, pair) in short[first / 2..].iter_mut().zip(codes.as_chunks::<2>().0) {
                            to[j] = pair[0].cast_unsigned() | pair[1].cast_unsigned() << 4;
                        }
                    } else {
                        for (to, code) in signed[first..].iter_mut().zip(codes) {
                            to[j] = *code;
                        }
                    }
                }
            }
        });
        Self { inner, width, group, codes, scales, minima }
    }

    /// Width of the rows that go in.
    pub(crate) fn inner(&self) -> usize {
        self.inner
    }

    /// Width of the rows that come out.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// The elements of column j, as they are in f32.
    pub(crate) fn column(&self, j: usize) -> impl Iterator<Item = f32> {
        let (panel, j) = (j / PANEL, j % PANEL);
        (0..self.inner).map(move |i| {
            let at = panel * self.inner + i;
            let code = match &self.codes {
                Codes::Short(codes) => f32::from(codes[at / 2][j] >> (4 * (at % 2)) & 15),
                Codes::Signed(codes) => f32::from(codes[at][j]),
            };
            let group = at / self.group;
            code * self.scales[group][j] + self.minima.get(group).map_or(0.0, |row| row[j])
        })
    }
}

impl Product for Packed {
    fn width(&self) -> usize {
        self.width
    }

    /// The sums of the strips' groups.
    fn prepare(&self, strips: &[Entry]) -> Vec<Entry> {
        let mut sums = vec![[0.0; STRIP]; strips.len() / self.group];
        for (sums, group) in sums.iter_mut().zip(strips.chunks_exact(self.group)) {
            for entry in group {
                sums.iter_mut().zip(entry).for_each(|(sum, x)| *sum += x);
            }
        }
        sums
    }

    fn part(&self, first: usize, rows: &Rows<'_>, out: Vec<&mut [f32]>, bias: Option<&[f32]>) {
        run(Part { weight: self, first, strips: rows.strips, sums: rows.prepared, out, bias });
    }
}

/// The columns of some panels, for a block of rows.
struct Part<'a> {
    weight: &'a Packed,
    /// The first panel.
    first: usize,
    strips: &'a [Entry],
    /// The sums of the strips' groups.
    sums: &'a [Entry],
    /// These columns of every row.
    out: Vec<&'a mut [f32]>,
    bias: Option<&'a [f32]>,
}

/// Runs a part with the best instruction set of this machine that has a way to widen codes, or any.
fn run(part: Part<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return simd.vectorize(With { simd, widen: simd, part });
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(With { simd, widen: simd, part });
        }
    }
    simd::dispatch(part);
}

/// A part, and what to run it with.
struct With<'a, S, W> {
    simd: S,
    widen: W,
    part: Part<'a>,
}

impl<S: Simd, W: Widen<S>> NullaryFnOnce for With<'_, S, W> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        self.part.by_strips(self.simd, self.widen);
    }
}

impl WithSimd for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.by_strips(simd, Plain);
    }
}

/// How codes become vectors, V of them to a row.
trait Widen<S: Simd>: Copy {
    /// Two rows of codes of four bits.
    fn short<const V: usize>(self, simd: S, codes: &Row<u8>) -> [[S::f32s; V]; 2];
    /// A row of signed codes.
    fn signed<const V: usize>(self, simd: S, codes: &Row<i8>) -> [S::f32s; V];
}

/// By way of memory, with any instruction set.
#[derive(Clone, Copy)]
struct Plain;

#[inline(always)]
fn loaded<S: Simd, const V: usize>(row: &Row<f32>) -> [S::f32s; V] {
    let vectors = S::as_simd_f32s(row).0;
    std::array::from_fn(
        #[inline(always)]
        |v| vectors[v],
    )
}

impl<S: Simd> Widen<S> for Plain {
    #[inline(always)]
    fn short<const V: usize>(self, _: S, codes: &Row<u8>) -> [[S::f32s; V]; 2] {
        [
            loaded::<S, V>(&codes.map(|code| f32::from(code & 15))),
            loaded::<S, V>(&codes.map(|code| f32::from(code >> 4))),
        ]
    }

    #[inline(always)]
    fn signed<const V: usize>(self, _: S, codes: &Row<i8>) -> [S::f32s; V] {
        loaded::<S, V>(&codes.map(f32::from))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Row, Widen};
    use pulp::x86::{V3, V4};
    use pulp::{Simd, cast};
    use std::arch::x86_64::{__m128i, __m256, __m512};

    /// The number that every code of four bits stands for.
    const NUMBERS: [f32; 16] =
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

    impl Widen<V4> for V4 {
        #[inline(always)]
        fn short<const V: usize>(self, _: V4, codes: &Row<u8>) -> [[<V4 as Simd>::f32s; V]; 2] {
            let avx = self.avx512f;
            // A permutation looks at the low four bits of an index alone.
            let numbers: __m512 = cast(NUMBERS);
            let low = avx._mm512_cvtepu8_epi32(cast::<_, __m128i>(*codes));
            let high = avx._mm512_srli_epi32::<4>(low);
            let first = cast(avx._mm512_permutexvar_ps(low, numbers));
            let second = cast(avx._mm512_permutexvar_ps(high, numbers));
            [[first; V], [second; V]]
        }

        #[inline(always)]
        fn signed<const V: usize>(self, _: V4, codes: &Row<i8>) -> [<V4 as Simd>::f32s; V] {
            let avx = self.avx512f;
            let wide = avx._mm512_cvtepi8_epi32(cast::<_, __m128i>(*codes));
            [cast(avx._mm512_cvtepi32_ps(wide)); V]
        }
    }

    impl Widen<V3> for V3 {
        #[inline(always)]
        fn short<const V: usize>(self, _: V3, codes: &Row<u8>) -> [[<V3 as Simd>::f32s; V]; 2] {
            let (avx, avx2) = (self.avx, self.avx2);
            let fifteen = avx._mm256_set1_epi32(15);
            let mut rows = [[cast::<[f32; 8], <V3 as Simd>::f32s>([0.0; 8]); V]; 2];
            let [first, second] = &mut rows;
            for (v, (first, second)) in first.iter_mut().zip(second).enumerate() {
                let wide = avx2._mm256_cvtepu8_epi32(half(codes, v));
                let low = avx2._mm256_and_si256(wide, fifteen);
                let high = avx2._mm256_srli_epi32::<4>(wide);
                *first = cast::<__m256, _>(avx._mm256_cvtepi32_ps(low));
                *second = cast::<__m256, _>(avx._mm256_cvtepi32_ps(high));
            }
            rows
        }

        #[inline(always)]
        fn signed<const V: usize>(self, _: V3, codes: &Row<i8>) -> [<V3 as Simd>::f32s; V] {
            let (avx, avx2) = (self.avx, self.avx2);
            let mut row = [cast::<[f32; 8], <V3 as Simd>::f32s>([0.0; 8]); V];
            for (v, row) in row.iter_mut().enumerate() {
                let wide = avx2._mm256_cvtepi8_epi32(half(&codes.map(i8::cast_unsigned), v));
                *row = cast::<__m256, _>(avx._mm256_cvtepi32_ps(wide));
            }
            row
        }
    }

    /// Eight codes, where instructions look for them.
    #[inline(always)]
    fn half(codes: &Row<u8>, v: usize) -> __m128i {
        let halves: [u64; 2] = cast(*codes);
        cast([halves[v], 0])
    }
}

impl Part<'_> {
    #[inline(always)]
    fn by_strips<S: Simd, W: Widen<S>>(self, simd: S, widen: W) {
        match S::F32_LANES {
            4 => self.by_vectors::<S, W, 4>(simd, widen),
            8 => self.by_vectors::<S, W, 2>(simd, widen),
            16 => self.by_vectors::<S, W, 1>(simd, widen),
            _ => self.by_vectors::<S, W, PANEL>(simd, widen),
        }
    }

    #[inline(always)]
    fn by_vectors<S: Simd, W: Widen<S>, const V: usize>(mut self, simd: S, widen: W) {
        let inner = self.weight.inner;
        let columns = self.out.first().map_or(0, |row| row.len());
        let panels = columns.div_ceil(PANEL);
        let mut out = std::mem::take(&mut self.out);
        let groups = inner / self.weight.group;
        let strips = self.strips.chunks(inner).zip(self.sums.chunks(groups));
        for ((strip, sums), out) in strips.zip(out.chunks_mut(STRIP)) {
            let mut panel = 0;
            // A sum waits for the one before it: few rows go down several panels at once.
            while panel < panels {
                let at = (panel, strip, sums);
                panel += match (out.len(), panels - panel) {
                    (1, 4..) => self.rows::<S, W, V, 4, 1>(simd, widen, at, out),
                    (1, _) => self.rows::<S, W, V, 1, 1>(simd, widen, at, out),
                    (2, 4..) if V == 1 => self.rows::<S, W, V, 4, 2>(simd, widen, at, out),
                    (2, 2..) => self.rows::<S, W, V, 2, 2>(simd, widen, at, out),
                    (2, _) => self.rows::<S, W, V, 1, 2>(simd, widen, at, out),
                    (3, 2..) if V == 1 => self.rows::<S, W, V, 2, 3>(simd, widen, at, out),
                    (3, _) => self.rows::<S, W, V, 1, 3>(simd, widen, at, out),
                    (4, 2..) if V == 1 => self.rows::<S, W, V, 2, 4>(simd, widen, at, out),
                    (4, _) => self.rows::<S, W, V, 1, 4>(simd, widen, at, out),
                    (5, _) => self.rows::<S, W, V, 1, 5>(simd, widen, at, out),
                    _ => self.rows::<S, W, V, 1, STRIP>(simd, widen, at, out),
                };
            }
        }
    }

    /// R rows by P panels; says how many panels these were.
    #[inline(always)]
    fn rows<S: Simd, W: Widen<S>, const V: usize, const P: usize, const R: usize>(
        &self,
        simd: S,
        widen: W,
        (panel, strip, sums): (usize, &[Entry], &[Entry]),
        out: &mut [&mut [f32]],
    ) -> usize {
        let weight = self.weight;
        let (inner, group) = (weight.inner, weight.group);
        let groups = sums.len();
        let first = self.first + panel;
        let is_short = matches!(weight.codes, Codes::Short(_));
        let mut tile = [[[simd.splat_f32s(0.0); V]; P]; R];
        let (mut short, mut signed): (Each<'_, u8, P>, Each<'_, i8, P>) = ([&[]; P], [&[]; P]);
        let (mut scales, mut minima): (Each<'_, f32, P>, Each<'_, f32, P>) = ([&[]; P], [&[]; P]);
        for p in 0..P {
            match &weight.codes {
                Codes::Short(codes) => short[p] = &codes[(first + p) * inner / 2..][..inner / 2],
                Codes::Signed(codes) => signed[p] = &codes[(first + p) * inner..][..inner],
            }
            scales[p] = &weight.scales[(first + p) * groups..][..groups];
            let least = weight.minima.get((first + p) * groups..(first + p + 1) * groups);
            minima[p] = least.unwrap_or_default();
        }
        for at in 0..groups {
            let x = &strip[at * group..(at + 1) * group];
            let mut part = [[[simd.splat_f32s(0.0); V]; P]; R];
            if is_short {
                let first = at * group / 2;
                let codes = short.map(
                    #[inline(always)]
                    |codes| &codes[first..first + group / 2],
                );
                for (i, pair) in x.as_chunks::<2>().0.iter().enumerate() {
                    for (p, codes) in codes.iter().enumerate() {
                        let rows = widen.short::<V>(simd, &codes[i]);
                        for (row, x) in rows.iter().zip(pair) {
                            add::<S, V, P, R>(simd, &mut part, p, x, row);
                        }
                    }
                }
            } else {
                let first = at * group;
                for (i, x) in x.iter().enumerate() {
                    for (p, codes) in signed.iter().enumerate() {
                        let row = widen.signed::<V>(simd, &codes[first + i]);
                        add::<S, V, P, R>(simd, &mut part, p, x, &row);
                    }
                }
            }
            for p in 0..P {
                let scale = loaded::<S, V>(&scales[p][at]);
                for (tile, part) in tile.iter_mut().zip(&part) {
                    for v in 0..V {
                        tile[p][v] = simd.mul_add_e_f32s(scale[v], part[p][v], tile[p][v]);
                    }
                }
                if let Some(minimum) = minima[p].get(at) {
                    add::<S, V, P, R>(simd, &mut tile, p, &sums[at], &loaded::<S, V>(minimum));
                }
            }
        }
        for (row, tile) in out.iter_mut().zip(&tile) {
            for (p, tile) in tile.iter().enumerate() {
                let mut numbers = [0.0; PANEL];
                S::as_mut_simd_f32s(&mut numbers).0.copy_from_slice(tile);
                let left = (panel + p) * PANEL;
                let row = &mut row[left..];
                let bias = self.bias.map(|bias| &bias[self.first * PANEL + left..]);
                match bias {
                    Some(bias) => {
                        row.iter_mut().zip(numbers).zip(bias).for_each(|((out, x), bias)| *out = x + bias);
                    }
                    None => row.iter_mut().zip(numbers).for_each(|(out, x)| *out = x),
                }
            }
        }
        P
    }
}

/// Adds x·row to the sums of panel p, for every row of x.
#[inline(always)]
fn add<S: Simd, const V: usize, const P: usize, const R: usize>(
    simd: S,
    sums: &mut [[[S::f32s; V]; P]; R],
    p: usize,
    x: &Entry,
    row: &[S::f32s; V],
) {
    for (sums, x) in sums.iter_mut().zip(x) {
        let x = simd.splat_f32s(*x);
        for (sum, weight) in sums[p].iter_mut().zip(row) {
            *sum = simd.mul_add_e_f32s(x, *weight, *sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::products;
    use crate::testing::{noise, numbers};
    use candle_core::quantized::{GgmlDType, QTensor};

    /// A weight whose parts are computed in a certain way.
    struct Through<'p> {
        packed: &'p Packed,
        way: fn(Part<'_>),
    }

    impl Product for Through<'_> {
        fn width(&self) -> usize {
            self.packed.width
        }

        fn prepare(&self, strips: &[Entry]) -> Vec<Entry> {
            self.packed.prepare(strips)
        }

        fn part(&self, first: usize, rows: &Rows<'_>, out: Vec<&mut [f32]>, bias: Option<&[f32]>) {
            let (strips, sums) = (rows.strips, rows.prepared);
            (self.way)(Part { weight: self.packed, first, strips, sums, out, bias });
        }
    }

    /// Codes of four bits and of eight, with minima and without, by every instruction set there is: the best is what
    /// [`run`] takes, and others would go untested here.
    #[test]
    fn every_instruction_set_gives_the_same_products() {
        let (rows, inner, width) = (9, 512, 83);
        let x = numbers(&noise((rows, inner), 3));
        let bias = numbers(&noise(width, 4));
        for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q8_0, GgmlDType::Q5_1, GgmlDType::Q6K] {
            let full = QTensor::quantize(&noise((width, inner), 1), dtype).unwrap();
            let packed = Packed::new(&full.data().unwrap(), Blocks::of(dtype).unwrap(), inner, width);
            type Way = fn(Part<'_>);
            let mut ways: Vec<(&str, Way)> = vec![
                ("best", |part| run(part)),
                ("any", |part| simd::dispatch(part)),
                ("none", |part| part.by_strips(pulp::Scalar::new(), Plain)),
            ];
            #[cfg(target_arch = "x86_64")]
            {
                use pulp::x86::{V3, V4};
                if V3::try_new().is_some() {
                    ways.push(("V3", |part| {
                        let simd = V3::try_new().unwrap();
                        simd.vectorize(With { simd, widen: simd, part });
                    }));
                }
                if V4::try_new().is_some() {
                    ways.push(("V4", |part| {
                        let simd = V4::try_new().unwrap();
                        simd.vectorize(With { simd, widen: simd, part });
                    }));
                }
            }
            let ways: Vec<(&str, Vec<f32>)> = ways
                .into_iter()
                .map(|(name, way)| {
                    let map: &dyn Product = &Through { packed: &packed, way };
                    (name, products(&[(map, Some(&bias))], &x, inner).remove(0))
                })
                .collect();
            for r in 0..rows {
                for j in 0..width {
                    let row = x[r * inner..].iter().zip(packed.column(j));
                    let sum: f64 = row.map(|(x, w)| f64::from(*x) * f64::from(w)).sum();
                    let right = sum + f64::from(bias[j]);
                    for (name, ours) in &ways {
                        let ours = f64::from(ours[r * width + j]);
                        // 512 products of numbers below 1.
                        assert!((ours - right).abs() < 2e-5, "{dtype:?} by {name}: {ours} is not {right}");
                    }
                }
            }
        }
    }
}
