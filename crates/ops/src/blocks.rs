//! ggml's blocks of quantised numbers, taken apart into codes, scales and minima.
//!
//! All these types are the same thing written in another way: a block has groups of 16 or 32 numbers, and a number is
//! `scale · code + minimum` of its group, where the code is a small integer. In the types with a fixed table of 16 values
//! (IQ4_NL, IQ4_XS, MXFP4) the table's entry takes the code's place. The formulas are those of ggml's `dequantize_row_*`. The tests
//! compare the numbers with candle's and gguf-py's.

use candle_core::quantized::GgmlDType;
use half::f16;

/// Numbers in the largest block.
const MOST: usize = 256;

/// A block type of ggml: how many numbers and bytes a block has, and how it is taken apart.
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
///
/// // A type that candle does not have, by its number in GGUF files.
/// let blocks = Blocks::from_ggml(20).expect("a type of 4-bit codes");
/// assert_eq!((blocks.name(), blocks.numbers(), blocks.bytes()), ("IQ4_NL", 32, 18));
/// ```
#[derive(Clone, Copy)]
pub struct Blocks(&'static Form);

impl PartialEq for Blocks {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Blocks {}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A type: sizes, and how a block is taken apart.
#[derive(Debug)]
struct Form {
    /// ggml's number of the type, as GGUF files have it.
    id: u32,
    /// ggml's name of the type.
    name: &'static str,
    /// candle's name of the type, where it has the type.
    candle: Option<GgmlDType>,
    /// Numbers of a block.
    numbers: usize,
    /// Bytes of a block.
    bytes: usize,
    /// Numbers of a group.
    group: usize,
    /// Whether codes are 0 … 15; else they are signed bytes.
    is_short: bool,
    /// Whether groups have minima.
    has_minima: bool,
    /// What codes from 0 to 15 stand for, where it is not themselves.
    values: Option<&'static [i8; 16]>,
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

/// ggml's number and name, candle's type, numbers and bytes of a block, numbers of a group, whether codes are short, whether
/// there are minima, and how a block is taken apart.
macro_rules! form {
    (
        $id:literal, $name:literal, $candle:expr, $numbers:literal / $bytes:literal, $group:literal, $is_short:literal,
        $has_minima:literal, $open:expr
    ) => {
        Form {
            id: $id,
            name: $name,
            candle: $candle,
            numbers: $numbers,
            bytes: $bytes,
            group: $group,
            is_short: $is_short,
            has_minima: $has_minima,
            values: None,
            open: $open,
        }
    };
}

/// The values of IQ4_NL's and IQ4_XS's codes.
const NONLINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of MXFP4's codes, 4-bit floats (E2M1), doubled so that they are whole.
const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

static FORMS: [Form; 15] = [
    form!(2, "Q4_0", Some(GgmlDType::Q4_0), 32 / 18, 32, true, true, |bytes, to| {
        let d = half(bytes, 0);
        nibbles(&bytes[2..], &mut to.codes);
        // Codes are 8 more than what they stand for; both products are exact.
        (to.scales[0], to.minima[0]) = (d, -8.0 * d);
    }),
    form!(3, "Q4_1", Some(GgmlDType::Q4_1), 32 / 20, 32, true, true, |bytes, to| {
        nibbles(&bytes[4..], &mut to.codes);
        (to.scales[0], to.minima[0]) = (half(bytes, 0), half(bytes, 2));
    }),
    form!(6, "Q5_0", Some(GgmlDType::Q5_0), 32 / 22, 32, false, false, |bytes, to| {
        fives(&bytes[2..], &mut to.codes);
        to.codes[..32].iter_mut().for_each(|code| *code -= 16);
        to.scales[0] = half(bytes, 0);
    }),
    form!(7, "Q5_1", Some(GgmlDType::Q5_1), 32 / 24, 32, false, true, |bytes, to| {
        fives(&bytes[4..], &mut to.codes);
        (to.scales[0], to.minima[0]) = (half(bytes, 0), half(bytes, 2));
    }),
    form!(8, "Q8_0", Some(GgmlDType::Q8_0), 32 / 34, 32, false, false, |bytes, to| {
        to.codes.iter_mut().zip(&bytes[2..]).for_each(|(code, byte)| *code = signed(*byte));
        to.scales[0] = half(bytes, 0);
    }),
    form!(9, "Q8_1", Some(GgmlDType::Q8_1), 32 / 36, 32, false, false, |bytes, to| {
        // The second half is the sum of the codes times the scale, which only products of two such blocks need.
        to.codes.iter_mut().zip(&bytes[4..]).for_each(|(code, byte)| *code = signed(*byte));
        to.scales[0] = half(bytes, 0);
    }),
    form!(10, "Q2_K", Some(GgmlDType::Q2K), 256 / 84, 16, true, true, |bytes, to| {
        let (parts, rest) = bytes.split_at(16);
        let (quarters, ends) = rest.split_at(64);
        let (d, least) = (half(ends, 0), half(ends, 2));
        for (group, part) in parts.iter().enumerate() {
            to.scales[group] = d * f32::from(part & 15);
            to.minima[group] = -(least * f32::from(part >> 4));
        }
        each_quarter(quarters, |at, code, _| to.codes[at] = signed(code));
    }),
    form!(11, "Q3_K", Some(GgmlDType::Q3K), 256 / 110, 16, true, true, |bytes, to| {
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
    form!(12, "Q4_K", Some(GgmlDType::Q4K), 256 / 144, 32, true, true, |bytes, to| {
        eighths(bytes, to);
        halves(&bytes[16..], &mut to.codes, |_, code| code);
    }),
    form!(13, "Q5_K", Some(GgmlDType::Q5K), 256 / 176, 32, false, true, |bytes, to| {
        eighths(bytes, to);
        let (high, low) = bytes[16..].split_at(32);
        halves(low, &mut to.codes, |at, code| code | (high[at % 32] >> (at / 32) & 1) << 4);
    }),
    form!(14, "Q6_K", Some(GgmlDType::Q6K), 256 / 210, 16, false, false, |bytes, to| {
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
    form!(15, "Q8_K", Some(GgmlDType::Q8K), 256 / 292, 32, false, false, |bytes, to| {
        let d = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        to.scales[..8].fill(d);
        to.codes.iter_mut().zip(&bytes[4..]).for_each(|(code, byte)| *code = signed(*byte));
    }),
    Form {
        values: Some(&NONLINEAR),
        ..form!(20, "IQ4_NL", None, 32 / 18, 32, true, false, |bytes, to| {
            nibbles(&bytes[2..], &mut to.codes);
            to.scales[0] = half(bytes, 0);
        })
    },
    Form {
        values: Some(&NONLINEAR),
        ..form!(23, "IQ4_XS", None, 256 / 136, 32, true, false, |bytes, to| {
            let (d, high, low, codes) = (half(bytes, 0), &bytes[2..4], &bytes[4..8], &bytes[8..]);
            for group in 0..8 {
                // Six bits of each scale: four of them in a nibble of `low`, two in `high`.
                let four = low[group / 2] >> (4 * (group % 2)) & 15;
                let two = high[group / 4] >> (2 * (group % 4)) & 3;
                to.scales[group] = d * (f32::from(four | two << 4) - 32.0);
                nibbles(&codes[16 * group..], &mut to.codes[32 * group..]);
            }
        })
    },
    Form {
        values: Some(&E2M1_DOUBLED),
        ..form!(39, "MXFP4", None, 32 / 17, 32, true, false, |bytes, to| {
            to.scales[0] = half_of_e8m0(bytes[0]);
            nibbles(&bytes[1..], &mut to.codes);
        })
    },
];

impl Blocks {
    /// The block type that candle calls so, if it is one.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        FORMS.iter().find(|form| form.candle == Some(dtype)).map(Self)
    }

    /// The block type of that number in GGUF files, if it is one that is read here.
    pub fn from_ggml(id: u32) -> Option<Self> {
        FORMS.iter().find(|form| form.id == id).map(Self)
    }

    /// All block types that are read, by their number in GGUF files.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMS.iter().map(Self)
    }

    /// ggml's name of the type: `Q4_K`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Numbers of a block.
    pub fn numbers(self) -> usize {
        self.0.numbers
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        self.0.bytes
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

    /// What codes from 0 to 15 stand for, where it is not themselves.
    pub(crate) fn values(self) -> Option<&'static [i8; 16]> {
        self.0.values
    }

    pub(crate) fn open(self, bytes: &[u8], to: &mut Opened) {
        (self.0.open)(bytes, to);
    }

    /// The numbers of whole blocks, as f32. Bytes after the last whole block are ignored.
    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        let mut numbers = vec![0.0; bytes.len() / self.bytes() * self.numbers()];
        self.widen_into(bytes, &mut numbers);
        numbers
    }

    /// Writes the numbers of whole blocks to `out`, as many as both have room for.
    pub fn widen_into(self, bytes: &[u8], out: &mut [f32]) {
        let mut opened = Opened::new();
        for (block, out) in bytes.chunks_exact(self.bytes()).zip(out.chunks_exact_mut(self.numbers())) {
            self.open(block, &mut opened);
            if let Some(values) = self.values() {
                for code in &mut opened.codes[..self.numbers()] {
                    *code = values[usize::from(code.cast_unsigned() & 15)];
                }
            }
            let parts = opened.codes.chunks_exact(self.group()).zip(opened.scales.iter().zip(opened.minima));
            for (out, (codes, (scale, least))) in out.chunks_exact_mut(self.group()).zip(parts) {
                if self.has_minima() {
                    out.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(*code) * scale + least);
                } else {
                    // Adding zero would turn ggml's −0 into 0.
                    out.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(*code) * scale);
                }
            }
        }
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

/// Half of 2^(e − 127): the scale of codes that are doubled, a denormal number for e of 0 and 1. 255 is NaN by the format's
/// specification (OCP Microscaling Formats 1.0), where ggml would compute with 2^127.
fn half_of_e8m0(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        0 => 0x0020_0000,
        1 => 0x0040_0000,
        255 => return f32::NAN,
        _ => u32::from(exponent - 1) << 23,
    })
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

/// Blocks of bytes that look random, with ordinary numbers for scales and minima.
#[cfg(test)]
pub(crate) fn random_blocks(blocks: Blocks, count: usize) -> Vec<u8> {
    let form = blocks.0;
    let bytes = form.bytes;
    let mut state = 7u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40).to_le_bytes()[0]
    };
    let halves: &[usize] = match form.name {
        "Q4_1" | "Q5_1" | "Q4_K" | "Q5_K" => &[0, 2],
        "Q2_K" => &[80, 82],
        "Q3_K" => &[108],
        "Q6_K" => &[208],
        "MXFP4" => &[],
        _ => &[0],
    };
    let mut all = Vec::new();
    for block in 0..count {
        let mut one: Vec<u8> = (0..bytes).map(|_| noise()).collect();
        for at in halves {
            let number = (f32::from(noise()) - 128.0) / 1024.0 * (1.0 + (block % 9) as f32);
            one[*at..*at + 2].copy_from_slice(&f16::from_f32(number).to_le_bytes());
        }
        match form.name {
            "Q8_K" => one[..4].copy_from_slice(&(0.37f32 * (1.0 + (block % 9) as f32)).to_le_bytes()),
            "MXFP4" => one[0] = 120 + one[0] % 8,
            _ => {}
        }
        all.extend(one);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_core::quantized::{QStorage, QTensor};
    use std::borrow::Cow;

    fn blocks_of(form: &'static Form, count: usize) -> Vec<u8> {
        random_blocks(Blocks(form), count)
    }

    #[test]
    fn numbers_are_candles_to_the_bit() {
        for form in &FORMS {
            let Some(dtype) = form.candle else { continue };
            let blocks = Blocks(form);
            assert_eq!(
                (blocks.numbers(), blocks.bytes()),
                (dtype.block_size(), dtype.type_size()),
                "{blocks:?}"
            );
            let bytes = blocks_of(form, 9);
            let storage = QStorage::from_data(Cow::Borrowed(&bytes), &Device::Cpu, dtype).unwrap();
            let theirs = QTensor::new(storage, 9 * blocks.numbers()).unwrap();
            let theirs: Vec<f32> = theirs.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
            let ours = blocks.widen(&bytes);
            assert_eq!(ours.len(), theirs.len());
            for (at, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                assert_eq!(a + 0.0, b + 0.0, "number {at} of {:?}", form.name);
            }
            assert!(ours.iter().any(|x| *x > 0.0) && ours.iter().any(|x| *x < 0.0), "{:?}", form.name);
            assert!(blocks.not_finite(&bytes).is_none());
        }
    }

    /// Blocks whose scale is 1: code k stands for the table's value k, the low halves of bytes first.
    #[test]
    fn codes_of_a_table_are_its_values() {
        let halves: Vec<u8> = (0..16).map(|k| k | (15 - k) << 4).collect();
        for (id, before, table, scale) in [
            (20, &[0x00, 0x3c][..], NONLINEAR, 1.0),
            (39, &[127], E2M1_DOUBLED, 0.5),
            // The second smallest exponents: denormal numbers.
            (39, &[1], E2M1_DOUBLED, 2f32.powi(-127)),
            (39, &[0], E2M1_DOUBLED, 2f32.powi(-128)),
            (39, &[2], E2M1_DOUBLED, 2f32.powi(-126)),
        ] {
            let bytes = [before, &halves].concat();
            let both = table.iter().chain(table.iter().rev()).map(|value| f32::from(*value) * scale);
            assert_eq!(Blocks::from_ggml(id).unwrap().widen(&bytes), both.collect::<Vec<_>>(), "{before:?}");
        }
        // Scales of six bits less 32, by group: 33 is 1, 31 is −1.
        let mut bytes = vec![0x00, 0x3c, 0b1010_0101, 0b0110_0110, 0x11, 0xff, 0xf1, 0x1f];
        bytes.extend([0x80; 128]);
        let scales =
            [0b01, 0b01, 0b10, 0b10, 0b10, 0b01, 0b10, 0b01].into_iter().zip([1, 1, 15, 15, 1, 15, 15, 1]);
        let expected = scales.flat_map(|(two, four)| {
            let scale = (two << 4 | four) as f32 - 32.0;
            [[-127.0 * scale; 16], [scale; 16]].concat()
        });
        assert_eq!(Blocks::from_ggml(23).unwrap().widen(&bytes), expected.collect::<Vec<_>>());
    }

    #[test]
    fn codes_are_as_short_as_is_said_and_minima_are_there_where_they_are() {
        for form in &FORMS {
            let mut opened = Opened::new();
            for block in blocks_of(form, 9).chunks_exact(form.bytes) {
                (form.open)(block, &mut opened);
                let codes = &opened.codes[..form.numbers];
                assert!(!form.is_short || codes.iter().all(|code| (0..16).contains(code)), "{:?}", form.name);
                assert!(form.has_minima || opened.minima.iter().all(|x| *x == 0.0), "{:?}", form.name);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_found() {
        for form in &FORMS {
            let mut bytes = blocks_of(form, 3);
            let at = 2 * form.bytes;
            let ends = match form.name {
                "Q2_K" => 80,
                "Q3_K" => 108,
                "Q6_K" => 208,
                _ => 0,
            };
            match form.name {
                "Q8_K" => bytes[at..at + 4].copy_from_slice(&f32::MAX.to_le_bytes()),
                "MXFP4" => bytes[at] = 255,
                _ => bytes[at + ends..at + ends + 2].copy_from_slice(&f16::INFINITY.to_le_bytes()),
            }
            assert!(Blocks(form).not_finite(&bytes).is_some(), "{:?}", form.name);
        }
        // NaN whatever the codes are, where ggml would have 0.
        let bytes = [&[255][..], &[0; 16]].concat();
        assert!(Blocks::from_ggml(39).unwrap().not_finite(&bytes).is_some_and(f32::is_nan));
    }
}
