//! How many bytes a [`Linear`](crate::Linear) holds, known before there is one.
//!
//! These are the sizes of the layouts in `panels.rs` and `packed.rs`. They let a caller decide how to hold a model's
//! weights before it reads the first of them.

use crate::blocks::Blocks;
use crate::packed::Packed;
use crate::product::PANEL;

/// Bytes of an f32 weight of in × out in its panels, which round the number of columns up.
///
/// ```
/// // 17 columns take two panels of 16.
/// assert_eq!(causalcone_ops::full_bytes(10, 17), 4 * 10 * 32);
/// ```
pub fn full_bytes(inner: usize, width: usize) -> u64 {
    4 * wide(inner).saturating_mul(padded(width))
}

/// Bytes of a weight of in × out that stays in 16 bits.
pub fn half_bytes(inner: usize, width: usize) -> u64 {
    2 * wide(inner).saturating_mul(wide(width))
}

/// Bytes of a quantised weight of in × out in the layout its products read; `None` where there is no such layout.
///
/// A group of 16 or 32 numbers has an f32 scale, an f32 minimum where the type has minima, and codes of 4 or 8 bits.
pub fn packed_bytes(inner: usize, width: usize, blocks: Blocks) -> Option<u64> {
    let groups = wide(inner / blocks.group()).saturating_mul(padded(width));
    // A group is laid out for all columns of a panel at once.
    Some((groups / wide(PANEL)).saturating_mul(wide(Packed::bytes_of_group(blocks)?)))
}

fn wide(count: usize) -> u64 {
    count as u64
}

/// The number of columns that the panels have.
fn padded(width: usize) -> u64 {
    wide(width).next_multiple_of(wide(PANEL))
}
