//! A quantised weight laid out for products, its numbers widened in registers.
//!
//! Panels are those of [`panels`](crate::panels): [`PANEL`] columns side by side, row by row of W. Codes of four bits lie
//! two rows to a byte, and each group's scales and minima stand before its codes. Within a group a column of x·W is
//!
//! ```text
//! Σ x·(scale·code + minimum) = scale · Σ x·code + minimum · Σ x
//! ```
//!
//! so a code is widened once for up to [`STRIP`] rows of x and scales are met once a group. All is f32: nothing of x is
//! rounded, and the product is that of the widened weight but for the order of its sums. That order is the same whatever
//! other rows there are and however many threads.

mod widen;

use crate::blocks::{Blocks, Opened};
use crate::product::{Entry, PANEL, Product, Rows, STRIP};
use crate::simd;
use pulp::{NullaryFnOnce, Simd, WithSimd};
use rayon::prelude::*;
use widen::{NUMBERS, Plain, Row, Widen, loaded};

/// A weight of in × out, its columns given as rows of blocks.
#[derive(Debug)]
pub(crate) struct Packed {
    inner: usize,
    width: usize,
    /// Rows of a group.
    group: usize,
    /// The numbers that codes of four bits stand for.
    values: Row<f32>,
    groups: Groups,
}

/// Codes are signed bytes.
const SIGNED: u8 = 0;
/// Codes of four bits are numbers from 0 to 15.
const SHORT: u8 = 1;
/// Codes of four bits are places in a table.
const TABLE: u8 = 2;

/// A group of a panel's rows: C rows of codes, with M rows of minima. One after the other, so that a product reads one
/// stream; where a line of the cache starts, so that no vector takes two.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Group<const C: usize, const M: usize> {
    scales: Row<f32>,
    minima: [Row<f32>; M],
    codes: [Row<u8>; C],
}

/// Panel, group. Short codes are 0 … 15, two rows to a byte, the first in its low half, so are those of a table; others are
/// signed.
#[derive(Debug)]
enum Groups {
    Short32(Vec<Group<16, 1>>),
    Short16(Vec<Group<8, 1>>),
    Table32(Vec<Group<16, 0>>),
    Signed32(Vec<Group<32, 0>>),
    Signed32Least(Vec<Group<32, 1>>),
    Signed16(Vec<Group<16, 0>>),
}

impl Packed {
    /// Lays out `width` rows of blocks, each the `inner` numbers of a column; none where there is no layout for them.
    pub(crate) fn new(bytes: &[u8], blocks: Blocks, inner: usize, width: usize) -> Option<Self> {
        let of = (bytes, blocks, inner, width);
        let values = blocks.values().map(|values| values.map(f32::from));
        let groups = match (blocks.is_short(), blocks.group(), blocks.has_minima()) {
            (true, 32, true) if values.is_none() => Groups::Short32(laid_out(of)),
            (true, 16, true) if values.is_none() => Groups::Short16(laid_out(of)),
            (true, 32, false) => Groups::Table32(laid_out(of)),
            (false, 32, false) => Groups::Signed32(laid_out(of)),
            (false, 32, true) => Groups::Signed32Least(laid_out(of)),
            (false, 16, false) => Groups::Signed16(laid_out(of)),
            _ => return None,
        };
        Some(Self { inner, width, group: blocks.group(), values: values.unwrap_or(NUMBERS), groups })
    }

    /// Bytes of a group of rows of a panel; `None` where [`new`](Self::new) has no layout.
    pub(crate) fn bytes_of_group(blocks: Blocks) -> Option<usize> {
        Some(match (blocks.is_short(), blocks.group(), blocks.has_minima()) {
            (true, 32, true) if blocks.values().is_none() => size_of::<Group<16, 1>>(),
            (true, 16, true) if blocks.values().is_none() => size_of::<Group<8, 1>>(),
            (true, 32, false) => size_of::<Group<16, 0>>(),
            (false, 32, false) => size_of::<Group<32, 0>>(),
            (false, 32, true) => size_of::<Group<32, 1>>(),
            (false, 16, false) => size_of::<Group<16, 0>>(),
            _ => return None,
        })
    }

    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        match &self.groups {
            Groups::Short32(groups) => size_of_val(groups.as_slice()),
            Groups::Short16(groups) => size_of_val(groups.as_slice()),
            Groups::Table32(groups) => size_of_val(groups.as_slice()),
            Groups::Signed32(groups) => size_of_val(groups.as_slice()),
            Groups::Signed32Least(groups) => size_of_val(groups.as_slice()),
            Groups::Signed16(groups) => size_of_val(groups.as_slice()),
        }
    }

    fn column_of<const C: usize, const M: usize, const KIND: u8>(
        &self,
        groups: &[Group<C, M>],
        j: usize,
    ) -> Vec<f32> {
        let (panel, j) = (j / PANEL, j % PANEL);
        let of_panel = &groups[panel * (self.inner / self.group)..][..self.inner / self.group];
        let mut column = Vec::with_capacity(self.inner);
        for Group { scales, minima, codes } in of_panel {
            let of_group = |code: f32| match minima.first() {
                Some(minima) => code * scales[j] + minima[j],
                None => code * scales[j],
            };
            for row in codes {
                let [first, second] = match KIND {
                    SIGNED => [f32::from(row[j].cast_signed()), 0.0],
                    _ => [row[j] & 15, row[j] >> 4].map(|code| self.values[usize::from(code)]),
                };
                column.push(of_group(first));
                if KIND != SIGNED {
                    column.push(of_group(second));
                }
            }
        }
        column
    }
}

fn laid_out<const C: usize, const M: usize>(
    (bytes, blocks, inner, width): (&[u8], Blocks, usize, usize),
) -> Vec<Group<C, M>> {
    let (group, panels) = (blocks.group(), width.div_ceil(PANEL));
    let row = inner / blocks.numbers() * blocks.bytes();
    let empty = Group { scales: [0.0; PANEL], minima: [[0.0; PANEL]; M], codes: [[0; PANEL]; C] };
    let mut groups = vec![empty; panels * inner / group];
    groups.par_chunks_mut((inner / group).max(1)).enumerate().for_each(|(panel, groups)| {
        let mut opened = Opened::new();
        for (j, column) in (panel * PANEL..width.min((panel + 1) * PANEL)).enumerate() {
            let columns = bytes[column * row..(column + 1) * row].chunks_exact(blocks.bytes());
            for (block, groups) in columns.zip(groups.chunks_exact_mut(blocks.numbers() / group)) {
                blocks.open(block, &mut opened);
                let parts = opened.codes.chunks_exact(group).zip(opened.scales.iter().zip(opened.minima));
                for (to, (codes, (scale, least))) in groups.iter_mut().zip(parts) {
                    to.scales[j] = *scale;
                    to.minima.iter_mut().for_each(|row| row[j] = least);
                    if C < group {
                        for (row, pair) in to.codes.iter_mut().zip(codes.as_chunks::<2>().0) {
                            row[j] = pair[0].cast_unsigned() | pair[1].cast_unsigned() << 4;
                        }
                    } else {
                        to.codes.iter_mut().zip(codes).for_each(|(row, code)| row[j] = code.cast_unsigned());
                    }
                }
            }
        }
    });
    groups
}

impl Product for Packed {
    fn shape(&self) -> (usize, usize) {
        (self.inner, self.width)
    }

    fn column(&self, j: usize) -> Vec<f32> {
        match &self.groups {
            Groups::Short32(groups) => self.column_of::<_, _, SHORT>(groups, j),
            Groups::Short16(groups) => self.column_of::<_, _, SHORT>(groups, j),
            Groups::Table32(groups) => self.column_of::<_, _, TABLE>(groups, j),
            Groups::Signed32(groups) => self.column_of::<_, _, SIGNED>(groups, j),
            Groups::Signed32Least(groups) => self.column_of::<_, _, SIGNED>(groups, j),
            Groups::Signed16(groups) => self.column_of::<_, _, SIGNED>(groups, j),
        }
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
        run(PackedPart { weight: self, first, strips: rows.strips, sums: rows.prepared, out, bias });
    }
}

/// The columns of some panels, for a block of rows.
struct PackedPart<'a> {
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
fn run(part: PackedPart<'_>) {
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
    part: PackedPart<'a>,
}

impl<S: Simd, W: Widen<S>> NullaryFnOnce for With<'_, S, W> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        self.part.by_strips(self.simd, self.widen);
    }
}

impl WithSimd for PackedPart<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.by_strips(simd, Plain);
    }
}

impl PackedPart<'_> {
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
    fn by_vectors<S: Simd, W: Widen<S>, const V: usize>(self, simd: S, widen: W) {
        match &self.weight.groups {
            Groups::Short32(groups) => self.by_groups::<S, W, V, 16, 1, SHORT>(simd, widen, groups),
            Groups::Short16(groups) => self.by_groups::<S, W, V, 8, 1, SHORT>(simd, widen, groups),
            Groups::Table32(groups) => self.by_groups::<S, W, V, 16, 0, TABLE>(simd, widen, groups),
            Groups::Signed32(groups) => self.by_groups::<S, W, V, 32, 0, SIGNED>(simd, widen, groups),
            Groups::Signed32Least(groups) => self.by_groups::<S, W, V, 32, 1, SIGNED>(simd, widen, groups),
            Groups::Signed16(groups) => self.by_groups::<S, W, V, 16, 0, SIGNED>(simd, widen, groups),
        }
    }

    #[inline(always)]
    fn by_groups<S: Simd, W: Widen<S>, const V: usize, const C: usize, const M: usize, const KIND: u8>(
        mut self,
        simd: S,
        widen: W,
        groups: &[Group<C, M>],
    ) {
        let inner = self.weight.inner;
        let columns = self.out.first().map_or(0, |row| row.len());
        let panels = columns.div_ceil(PANEL);
        let mut out = std::mem::take(&mut self.out);
        let strips = self.strips.chunks(inner).zip(self.sums.chunks(inner / self.weight.group));
        for ((strip, sums), out) in strips.zip(out.chunks_mut(STRIP)) {
            let mut panel = 0;
            // A sum waits for the one before it: few rows go down several panels at once.
            while panel < panels {
                let at = At { panel, strip, sums, groups };
                macro_rules! rows {
                    ($p:literal, $r:expr) => {
                        self.rows::<S, W, V, $p, { $r }, C, M, KIND>(simd, widen, at, out)
                    };
                }
                panel += match (out.len(), panels - panel) {
                    (1, 4..) => rows!(4, 1),
                    (1, _) => rows!(1, 1),
                    (2, 4..) if V == 1 => rows!(4, 2),
                    (2, 2..) => rows!(2, 2),
                    (2, _) => rows!(1, 2),
                    (3, 2..) if V == 1 => rows!(2, 3),
                    (3, _) => rows!(1, 3),
                    (4, 2..) if V == 1 => rows!(2, 4),
                    (4, _) => rows!(1, 4),
                    (5, _) => rows!(1, 5),
                    _ => rows!(1, STRIP),
                };
            }
        }
    }

    /// R rows by P panels; says how many panels these were.
    #[inline(always)]
    fn rows<
        S: Simd,
        W: Widen<S>,
        const V: usize,
        const P: usize,
        const R: usize,
        const C: usize,
        const M: usize,
        const KIND: u8,
    >(
        &self,
        simd: S,
        widen: W,
        At { panel, strip, sums, groups }: At<'_, C, M>,
        out: &mut [&mut [f32]],
    ) -> usize {
        let (count, values) = (sums.len(), self.weight.values);
        let mut tile = [[[simd.splat_f32s(0.0); V]; P]; R];
        let mut panels: [&[Group<C, M>]; P] = [&[]; P];
        for (p, panels) in panels.iter_mut().enumerate() {
            *panels = &groups[(self.first + panel + p) * count..][..count];
        }
        for (at, (x, sums)) in strip.chunks_exact(self.weight.group).zip(sums).enumerate() {
            let mut part = [[[simd.splat_f32s(0.0); V]; P]; R];
            let mut here: [&Group<C, M>; P] = [&panels[0][at]; P];
            for (here, panel) in here.iter_mut().zip(&panels) {
                *here = &panel[at];
            }
            for i in 0..C {
                for (p, group) in here.iter().enumerate() {
                    if KIND != SIGNED {
                        let rows = match KIND {
                            TABLE => widen.table::<V>(simd, &group.codes[i], &values),
                            _ => widen.short::<V>(simd, &group.codes[i]),
                        };
                        for (row, x) in rows.iter().zip(&x[2 * i..2 * i + 2]) {
                            add::<S, V, P, R>(simd, &mut part, p, x, row);
                        }
                    } else {
                        let row = widen.signed::<V>(simd, &group.codes[i]);
                        add::<S, V, P, R>(simd, &mut part, p, &x[i], &row);
                    }
                }
            }
            for (p, group) in here.iter().enumerate() {
                let scale = loaded::<S, V>(&group.scales);
                for (tile, part) in tile.iter_mut().zip(&part) {
                    for v in 0..V {
                        tile[p][v] = simd.mul_add_e_f32s(scale[v], part[p][v], tile[p][v]);
                    }
                }
                for minima in &group.minima {
                    add::<S, V, P, R>(simd, &mut tile, p, sums, &loaded::<S, V>(minima));
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

/// Where some rows and panels stand.
#[derive(Clone, Copy)]
struct At<'a, const C: usize, const M: usize> {
    panel: usize,
    strip: &'a [Entry],
    sums: &'a [Entry],
    groups: &'a [Group<C, M>],
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
    use crate::blocks::random_blocks;
    use crate::product::products;
    use crate::testing::{noise, numbers};

    /// A weight whose parts are computed in a certain way.
    struct Through<'p> {
        packed: &'p Packed,
        way: fn(PackedPart<'_>),
    }

    impl Product for Through<'_> {
        fn shape(&self) -> (usize, usize) {
            self.packed.shape()
        }

        fn column(&self, j: usize) -> Vec<f32> {
            self.packed.column(j)
        }

        fn prepare(&self, strips: &[Entry]) -> Vec<Entry> {
            self.packed.prepare(strips)
        }

        fn part(&self, first: usize, rows: &Rows<'_>, out: Vec<&mut [f32]>, bias: Option<&[f32]>) {
            let (strips, sums) = (rows.strips, rows.prepared);
            (self.way)(PackedPart { weight: self.packed, first, strips, sums, out, bias });
        }
    }

    /// Codes of four bits, of a table and of eight, with minima and without, by every instruction set there is: the best
    /// is what [`run`] takes, and others would go untested here.
    #[test]
    fn every_instruction_set_gives_the_same_products() {
        let (rows, inner, width) = (9, 512, 83);
        let bias = numbers(&noise(width, 4));
        for name in ["Q4_0", "Q4_1", "Q8_0", "Q5_1", "Q6_K", "Q2_K", "IQ4_NL", "IQ4_XS", "MXFP4"] {
            let blocks = Blocks::all().find(|blocks| blocks.name() == name).unwrap();
            let bytes = random_blocks(blocks, width * inner / blocks.numbers());
            let packed = Packed::new(&bytes, blocks, inner, width).unwrap();
            // Weights are large, so x is small.
            let largest = blocks.widen(&bytes).iter().fold(0f32, |most, x| most.max(x.abs()));
            let x: Vec<f32> = numbers(&noise((rows, inner), 3)).iter().map(|x| x / largest).collect();
            type Way = fn(PackedPart<'_>);
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
                        assert!((ours - right).abs() < 2e-5, "{blocks:?} by {name}: {ours} is not {right}");
                    }
                }
            }
        }
    }
}
