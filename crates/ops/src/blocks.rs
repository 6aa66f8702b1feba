//! ggml's blocks of quantised numbers, taken apart into codes, scales and minima.
//!
//! Every type but the exotic ones is the same thing written in another way: a block has groups of 16 or 32 numbers, and
//! a number is `scale · code + minimum` of its group, its code a small integer. The formulas are those of ggml's
//! `dequantize_row_*`, and what they give is what candle's dequantisation gives, to the bit.

use candle_core::quantized::GgmlDType;
use half::f16;

/// Numbers in the largest block.
const MOST: usize = 256;

/// How a type of ggml's writes numbers down: one whose codes products can read as they are.
///
/// ```
/// use candle_core::quantized::GgmlDType;
/// use causalcone_ops::Blocks;
///
/// let blocks = Blocks::of(GgmlDType::Q4_1).expect("it has scales and minima");
/// // Scale 1 and minimum −8 in IEEE half, then 32 codes of four bits.
/// let bytes: Vec<u8> = [0x00, 0x3c, 0x00, 0xc8].into_iter().chain([0x0f; 16]).collect();
/// assert_eq!(blocks.widen(&bytes)[0], 7.0);
/// assert_eq!(blocks.widen(&bytes)[31], -8.0);
/// assert!(Blocks::of(GgmlDType::F32).is_none());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Blocks(&'static Form);

/// A type: sizes, and how a block is taken apart.
#[derive(Debug)]
struct Form {
    dtype: GgmlDType,
    /// Numbers of a group.
    group: usize,
    /// Whether codes are 0 … 15; else they are signed bytes.
    is_short: bool,
    /// Whether groups have minima.
    has_minima: bool,
    open: fn(&[u8], &mut Opened),
}

/// A block taken apart: as many codes as it has numbers, a scale and a minimum for each of its groups.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) codes: [i8; MOST],
    pub(crate) scales: [f32; MOST / 16],
    pub(crate) minima: [f32; MOST / 16],
}

impl Opened {
    pub(crate) fn new() -> Self {
        Self { codes: [0; MOST], scales: [0.0; MOST / 16], minima: [0.0; MOST / 16] }
    }
}

macro_rules! form {
    ($dtype:ident, $group:literal, $is_short:literal, $has_minima:literal, $open:expr) => {
        Form {
            dtype: GgmlDType::$dtype,
            group: $group,
            is_short: $is_short,
            has_minima: $has_minima,
            open: $open,
        }
    };
}

static FORMS: [Form; 11] = [
    form!(Q4_0, 32, true, true, |bytes, to| {
        let d = half(bytes, 0);
        nibbles(&bytes[2..], &mut to.codes);
        // Codes are 8 more than what they stand for; both products are exact.
        (to.scales[0], to.minima[0]) = (d, -8.0 * d);
    }),
    form!(Q4_1, 32, true, true, |bytes, to| {
        nibbles(&bytes[4..], &mut to.codes);
        (to.scales[0], to.minima[0]) = (half(bytes, 0), half(bytes, 2));
    }),
    form!(Q5_0, 32, false, false, |bytes, to| {
        fives(&bytes[2..], &mut to.codes);
        to.codes[..32].iter_mut().for_each(|code| *code -= 16);
        to.scales[0] = half(bytes, 0);
    }),
    form!(Q5_1, 32, false, true, |bytes, to| {
        fives(&bytes[4..], &mut to.codes);
        (to.scales[0], to.minima[0]) = (half(bytes, 0), half(bytes, 2));
    }),
    form!(Q8_0, 32, false, false, |bytes, to| {
        to.codes.iter_mut().zip(&bytes[2..]).for_each(|(code, byte)| *code = signed(*byte));
        to.scales[0] = half(bytes, 0);
    }),
    form!(Q2K, 16, true, true, |bytes, to| {
        let (parts, rest) = bytes.split_at(16);
        let (quarters, ends) = rest.split_at(64);
        let (d, least) = (half(ends, 0), half(ends, 2));
        for (group, part) in parts.iter().enumerate() {
            to.scales[group] = d * f32::from(part & 15);
            to.minima[group] = -(least * f32::from(part >> 4));
        }
        each_quarter(quarters, |at, code, _| to.codes[at] = signed(code));
    }),
    form!(Q3K, 16, true, true, |bytes, to| {
        let (high, rest) = bytes.split_at(32);
        let (quarters, rest) = rest.split_at(64);
        let (parts, ends) = rest.split_at(12);
        let d = half(ends, 0);
        for group in 0..16 {
            // Four bits of each lie in the first eight bytes, two in the last four.
            let low = if group < 8 { parts[group] & 15 } else { parts[group - 8] >> 4 };
            let part = low | (parts[8 + group % 4] >> (2 * (group / 4)) & 3) << 4;
            let scale = d * (f32::from(part) - 32.0);
            (to.scales[group], to.minima[group]) = (scale, -4.0 * scale);
        }
        each_quarter(quarters, |at, code, bit| {
            to.codes[at] = signed(code | (high[at % 32] >> bit & 1) << 2);
        });
    }),
    form!(Q4K, 32, true, true, |bytes, to| {
        eighths(bytes, to);
        halves(&bytes[16..], &mut to.codes, |_, code| code);
    }),
    form!(Q5K, 32, false, true, |bytes, to| {
        eighths(bytes, to);
        let (high, low) = bytes[16..].split_at(32);
        halves(low, &mut to.codes, |at, code| code | (high[at % 32] >> (at / 32) & 1) << 4);
    }),
    form!(Q6K, 16, false, false, |bytes, to| {
        let (low, rest) = bytes.split_at(128);
        let (high, rest) = rest.split_at(64);
        let (parts, ends) = rest.split_at(16);
        let d = half(ends, 0);
        for (scale, part) in to.scales.iter_mut().zip(parts) {
            *scale = d * f32::from(signed(*part));
        }
        for (at, code) in to.codes.iter_mut().enumerate() {
            // Each half of the block: 64 bytes of low bits and 32 of high ones, in quarters of 32.
            let (half, quarter, l) = (at / 128, at % 128 / 32, at % 32);
            let byte = low[64 * half + 32 * (quarter % 2) + l];
            let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
            let two = high[32 * half + l] >> (2 * quarter) & 3;
            *code = signed(four | two << 4) - 32;
        }
    }),
    form!(Q8K, 32, false, false, |bytes, to| {
        let d = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        to.scales[..8].fill(d);
        to.codes.iter_mut().zip(&bytes[4..]).for_each(|(code, byte)| *code = signed(*byte));
    }),
];

impl Blocks {
    /// Those of a type, where it has codes that products can read.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        FORMS.iter().find(|form| form.dtype == dtype).map(Self)
    }

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        self.0.dtype.block_size()
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.0.dtype.type_size()
    }

    pub(crate) fn group(self) -> usize {
        self.0.group
    }

    pub(crate) fn is_short(self) -> bool {
        self.0.is_short
    }

    pub(crate) fn has_minima(self) -> bool {
        self.0.has_minima
    }

    pub(crate) fn open(self, bytes: &[u8], to: &mut Opened) {
        (self.0.open)(bytes, to);
    }

    /// The numbers of whole blocks, as f32; bytes of a block that is not whole are left.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let mut opened = Opened::new();
        let mut numbers = Vec::new();
        for block in bytes.chunks_exact(self.bytes()) {
            self.open(block, &mut opened);
            let groups = opened.codes[..self.numbers()].chunks_exact(self.group());
            for (codes, (scale, least)) in groups.zip(opened.scales.iter().zip(opened.minima)) {
                numbers.extend(codes.iter().map(|code| f32::from(*code) * scale + least));
            }
        }
        numbers
    }

    /// The first number of whole blocks that is none, an infinity or NaN; found from scales and minima.
    pub fn not_finite(self, bytes: &[u8]) -> Option<f32> {
        let mut opened = Opened::new();
        bytes.chunks_exact(self.bytes()).find_map(|block| {
            self.open(block, &mut opened);
            let groups = self.numbers() / self.group();
            let mut parts = opened.scales.iter().zip(opened.minima).take(groups);
            // A code is at most 128 in size.
            let is_bad = parts.any(|(scale, least)| !(scale.abs() * 128.0 + least.abs()).is_finite());
            is_bad.then(|| self.widen(block).into_iter().find(|x| !x.is_finite())).flatten()
        })
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

fn signed(byte: u8) -> i8 {
    i8::from_le_bytes([byte])
}

/// 32 codes: the low halves of 16 bytes, then the high ones.
fn nibbles(bytes: &[u8], codes: &mut [i8]) {
    for (at, byte) in bytes[..16].iter().enumerate() {
        codes[at] = signed(byte & 15);
        codes[at + 16] = signed(byte >> 4);
    }
}

/// 32 codes of five bits: the fifth ones first, in four bytes.
fn fives(bytes: &[u8], codes: &mut [i8]) {
    let (high, low) = bytes.split_at(4);
    nibbles(low, codes);
    for (at, code) in codes[..32].iter_mut().enumerate() {
        *code |= signed((high[at / 8] >> (at % 8) & 1) << 4);
    }
}

/// 256 codes in 128 bytes: 32 low halves, 32 high ones, and so on.
fn halves(bytes: &[u8], codes: &mut [i8], code: impl Fn(usize, u8) -> u8) {
    for (at, to) in codes.iter_mut().enumerate() {
        let byte = bytes[at / 64 * 32 + at % 32];
        *to = signed(code(at, if at % 64 < 32 { byte & 15 } else { byte >> 4 }));
    }
}

/// 256 codes of two bits in 64 bytes: of each half of the block 32 bytes, four codes to a byte. Calls with where a code
/// stands, the code, and which of eight runs of 32 it is of.
fn each_quarter(bytes: &[u8], mut each: impl FnMut(usize, u8, usize)) {
    for at in 0..256 {
        let (half, quarter, l) = (at / 128, at % 128 / 32, at % 32);
        each(at, bytes[32 * half + l] >> (2 * quarter) & 3, at / 32);
    }
}

/// Scales and minima of eight groups: two halves, then eight pairs of six bits in twelve bytes.
fn eighths(bytes: &[u8], to: &mut Opened) {
    let (d, least, parts) = (half(bytes, 0), half(bytes, 2), &bytes[4..16]);
    for group in 0..8 {
        let (scale, minimum) = match group {
            0..4 => (parts[group] & 63, parts[group + 4] & 63),
            _ => (
                parts[group + 4] & 15 | (parts[group - 4] >> 6) << 4,
                parts[group + 4] >> 4 | (parts[group] >> 6) << 4,
            ),
        };
        to.scales[group] = d * f32::from(scale);
        to.minima[group] = -(least * f32::from(minimum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::{QStorage, QTensor};
    use std::borrow::Cow;

    /// Bytes that look random, of which every half that stands for a scale is an ordinary number.
    fn blocks_of(form: &Form, count: usize) -> Vec<u8> {
        let bytes = form.dtype.type_size();
        let mut state = 7u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40).to_le_bytes()[0]
        };
        let halves: &[usize] = match form.dtype {
            GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q4K | GgmlDType::Q5K => &[0, 2],
            GgmlDType::Q2K => &[80, 82],
            GgmlDType::Q3K => &[108],
            GgmlDType::Q6K => &[208],
            _ => &[0],
        };
        let mut all = Vec::new();
        for block in 0..count {
            let mut one: Vec<u8> = (0..bytes).map(|_| noise()).collect();
            for at in halves {
                let number = (f32::from(noise()) - 128.0) / 1024.0 * (1.0 + block as f32);
                one[*at..*at + 2].copy_from_slice(&f16::from_f32(number).to_le_bytes());
            }
            if form.dtype == GgmlDType::Q8K {
                one[..4].copy_from_slice(&(0.37f32 * (1.0 + block as f32)).to_le_bytes());
            }
            all.extend(one);
        }
        all
    }

    #[test]
    fn numbers_are_candles_to_the_bit() {
        for form in &FORMS {
            let blocks = Blocks(form);
            let bytes = blocks_of(form, 9);
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, form.dtype).unwrap();
            let theirs = QTensor::new(storage, 9 * blocks.numbers()).unwrap();
            let theirs: Vec<f32> = theirs.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
            let ours = blocks.widen(&bytes);
            assert_eq!(ours.len(), theirs.len());
            for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                assert_eq!(a + 0.0, b + 0.0, "number {at} of {:?}", form.dtype);
            }
            assert!(ours.iter().any(|x| *x > 0.0) && ours.iter().any(|x| *x < 0.0), "{:?}", form.dtype);
            assert!(blocks.not_finite(&bytes).is_none());
        }
    }

    #[test]
    fn codes_are_as_short_as_is_said_and_minima_are_there_where_they_are() {
        for form in &FORMS {
            let mut opened = Opened::new();
            for block in blocks_of(form, 9).chunks_exact(form.dtype.type_size()) {
                (form.open)(block, &mut opened);
                let codes = &opened.codes[..form.dtype.block_size()];
                assert!(
                    !form.is_short || codes.iter().all(|code| (0..16).contains(code)),
                    "{:?}",
                    form.dtype
                );
                assert!(form.has_minima || opened.minima.iter().all(|x| *x == 0.0), "{:?}", form.dtype);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_found() {
        for form in &FORMS {
            let mut bytes = blocks_of(form, 3);
            let at = 2 * form.dtype.type_size();
            let ends = match form.dtype {
                GgmlDType::Q2K => 80,
                GgmlDType::Q3K => 108,
                GgmlDType::Q6K => 208,
                _ => 0,
            };
            match form.dtype {
                GgmlDType::Q8K => bytes[at..at + 4].copy_from_slice(&f32::MAX.to_le_bytes()),
                _ => bytes[at + ends..at + ends + 2].copy_from_slice(&f16::INFINITY.to_le_bytes()),
            }
            assert!(Blocks(form).not_finite(&bytes).is_some(), "{:?}", form.dtype);
        }
    }
}
