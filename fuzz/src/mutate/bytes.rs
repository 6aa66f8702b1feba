//! Changes of bytes of which nothing is known.

use super::Random;

/// Numbers at the borders of integer types, and near the caps of the readers.
pub(super) const BORDERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 62) + 4,
    u64::MAX >> 1,
    u64::MAX,
];

/// A number near one of the [`BORDERS`].
pub(super) fn border(random: &mut Random) -> u64 {
    let base = random.pick(&BORDERS).copied().unwrap_or(0);
    match random.below(4) {
        0 => base.wrapping_add(1),
        1 => base.wrapping_sub(1),
        _ => base,
    }
}

/// Changes, removes, repeats or inserts a few bytes.
pub(super) fn change(data: &mut Vec<u8>, random: &mut Random) {
    if data.is_empty() {
        data.extend((0..random.size(16)).map(|_| random.bits() as u8));
        return;
    }
    let at = random.below(data.len());
    let length = random.size(data.len() - at);
    match random.below(8) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = random.bits() as u8,
        2 => {
            let value = border(random).to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(data.len() - at);
            data[at..at + width].copy_from_slice(&value[..width]);
        }
        3 => drop(data.drain(at..at + length)),
        4 => data.truncate(at),
        5 => {
            let part = data[at..at + length.min(4096)].to_vec();
            data.splice(at..at, part);
        }
        6 => {
            let to = random.below(data.len());
            let part = data[at..at + length].to_vec();
            let length = part.len().min(data.len() - to);
            data[to..to + length].copy_from_slice(&part[..length]);
        }
        _ => drop(data.splice(at..at, (0..random.size(32)).map(|_| random.bits() as u8).collect::<Vec<_>>())),
    }
}
