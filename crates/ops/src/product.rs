//! Rows through weights that are laid out in panels: blocks of rows, strips of them, and who computes what.
//!
//! A weight (in × out) stands in panels of [`PANEL`] columns. Rows are taken in strips of [`STRIP`], interleaved: an entry
//! for each number of a row, with that of every row of the strip. Threads share the panels; several weights that the same
//! rows go through are shared at once, since short products cost more to hand out than to compute.

use rayon::prelude::*;
use std::cell::Cell;

/// Columns of a panel.
pub(crate) const PANEL: usize = 16;
/// Rows of a strip.
pub(crate) const STRIP: usize = 6;
/// Panels that few rows go down side by side: parts are no smaller for them.
pub(crate) const ABREAST: usize = 4;
/// Rows at a time: 1024 of their columns are 2 MB, which a panel passes over. Measured.
const ROWS: usize = 80 * STRIP;
/// Parts a thread gets, so that one which was held up does not hold up the rest.
const PARTS: usize = 16;
/// Products fewer than this are not worth a second thread.
const SMALL: usize = 1 << 18;

/// A number of each row of a strip.
pub(crate) type Entry = [f32; STRIP];

/// A block of rows.
pub(crate) struct Rows<'a> {
    /// Strip, number of a row.
    pub(crate) strips: &'a [Entry],
    /// What the weight made of them first.
    pub(crate) prepared: &'a [Entry],
}

/// A weight in panels.
pub(crate) trait Product: Sync {
    /// Widths of the rows that go in and of those that come out.
    fn shape(&self) -> (usize, usize);

    /// The elements of column j, as they are in f32.
    fn column(&self, j: usize) -> Vec<f32>;

    /// What it needs of a block's strips, made once for all panels.
    fn prepare(&self, _strips: &[Entry]) -> Vec<Entry> {
        Vec::new()
    }

    /// Some columns of x·W + b, from the panel `first` on, for a block of rows; `bias` is all of b.
    fn part(&self, first: usize, rows: &Rows<'_>, out: Vec<&mut [f32]>, bias: Option<&[f32]>);
}

/// x·W + b for rows x of width `inner`, which are whole, and each of several weights.
pub(crate) fn products(maps: &[(&dyn Product, Option<&[f32]>)], x: &[f32], inner: usize) -> Vec<Vec<f32>> {
    let rows = x.len() / inner;
    let mut outs: Vec<Vec<f32>> = maps.iter().map(|(map, _)| vec![0.0; rows * map.shape().1]).collect();
    // Blocks of equal height, so that none is a handful of rows.
    let strips = rows.div_ceil(STRIP);
    let block = (strips.div_ceil(strips.div_ceil(ROWS / STRIP).max(1)) * STRIP).max(1);
    for (number, x) in x.chunks(block * inner).enumerate() {
        // Taken, not borrowed: while this thread waits for the others it may be given another product.
        let mut strips = STRIPS.take();
        interleave(x, inner, &mut strips);
        let here = x.len() / inner;
        let prepared: Vec<Vec<Entry>> = maps.iter().map(|(map, _)| map.prepare(&strips)).collect();
        let mut all = Vec::new();
        for (index, ((map, _), out)) in maps.iter().zip(&mut outs).enumerate() {
            let (_, width) = map.shape();
            let out = &mut out[number * block * width..][..here * width];
            all.extend(
                parts(out, (here, inner, width)).into_iter().map(|(first, part)| (index, first, part)),
            );
        }
        all.into_par_iter().for_each(|(index, first, out)| {
            let (map, bias) = maps[index];
            map.part(first, &Rows { strips: &strips, prepared: &prepared[index] }, out, bias);
        });
        STRIPS.set(strips);
    }
    outs
}

/// What comes of a block of rows, cut into parts that threads can take: the first panel of each, and its columns of every
/// row.
fn parts(out: &mut [f32], (rows, inner, width): (usize, usize, usize)) -> Vec<(usize, Vec<&mut [f32]>)> {
    let panels = width.div_ceil(PANEL);
    let share = match rows * inner * width {
        0..SMALL => panels,
        _ => panels.div_ceil(PARTS * rayon::current_num_threads()),
    };
    let share = if rows <= STRIP { share.next_multiple_of(ABREAST) } else { share.max(1) };
    let mut parts: Vec<(usize, Vec<&mut [f32]>)> =
        (0..panels.div_ceil(share)).map(|part| (part * share, Vec::with_capacity(rows))).collect();
    for row in out.chunks_exact_mut(width) {
        for ((_, part), row) in parts.iter_mut().zip(row.chunks_mut(share * PANEL)) {
            part.push(row);
        }
    }
    parts
}

thread_local! {
    /// Kept between products: fresh pages would cost more than filling them.
    static STRIPS: Cell<Vec<Entry>> = const { Cell::new(Vec::new()) };
}

/// Rows of width `inner` as strips: each has `inner` entries, of one number from each of its rows. Rows that the last
/// strip lacks keep what was there: nothing is computed from them.
fn interleave(x: &[f32], inner: usize, strips: &mut Vec<Entry>) {
    strips.resize((x.len() / inner).div_ceil(STRIP) * inner, [0.0; STRIP]);
    let one = |(strip, rows): (&mut [Entry], &[f32])| {
        for (place, row) in rows.chunks_exact(inner).enumerate() {
            for (entry, number) in strip.iter_mut().zip(row) {
                entry[place] = *number;
            }
        }
    };
    if x.len() <= STRIP * inner {
        one((strips, x));
    } else {
        strips.par_chunks_mut(inner).zip(x.par_chunks(STRIP * inner)).for_each(one);
    }
}
