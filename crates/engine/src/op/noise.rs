//! Seeded noise: numbers that depend on where they stand, never on when they were drawn.
//!
//! ε is a function of (seed, example, sample, position, dimension) alone, so a cell has the same
//! noise whatever else is computed, in whatever order, on however many threads. With 64-bit words,
//!
//! ```text
//! mix(z)  = z += 9e3779b97f4a7c15;  z = (z ^ z >> 30) · bf58476d1ce4e5b9;
//!           z = (z ^ z >> 27) · 94d049bb133111eb;  z ^ z >> 31          (SplitMix64)
//! h       = mix(mix(mix(mix(mix(seed) ^ example) ^ sample) ^ position) ^ dimension)
//! u       = ((mix(h) >> 11) + 1) · 2⁻⁵³          in (0, 1]
//! v       =  (mix(h ^ 1) >> 11) · 2⁻⁵³           in [0, 1)
//! ε       = √(−2 ln u) · cos 2πv                 (Box–Muller, in f64, then rounded to f32)
//! ```
//!
//! The position is that of the edited run, the dimension counts within the site's row (head·D + i
//! on sites by head). The layer is no part of it: noise at several layers, or two edits with one
//! seed, get the same ε.
//!
//! ```
//! use causalcone_engine::noise::epsilon;
//! let drawn: Vec<f32> = (0..4).map(|dimension| epsilon(7, 0, 0, 3, dimension)).collect();
//! assert_eq!(drawn[2], epsilon(7, 0, 0, 3, 2));
//! assert_ne!(drawn[2], epsilon(8, 0, 0, 3, 2));
//! ```

use candle_core::{Device, Tensor};
use std::sync::Arc;

/// One number of standard normal noise.
pub fn epsilon(seed: u64, example: u64, sample: u64, position: u64, dimension: u64) -> f32 {
    normal(mix(row(seed, example, sample, position) ^ dimension))
}

/// One number of [0, 1): a function of the seed, the stream and the index.
pub(crate) fn uniform(seed: u64, stream: u64, index: u64) -> f64 {
    (mix(mix(mix(seed) ^ stream) ^ index) >> 11) as f64 / (1u64 << 53) as f64
}

/// One whole number below n: a function of the seed, the stream and the index.
pub(crate) fn below(n: usize, seed: u64, stream: u64, index: u64) -> usize {
    let word = mix(mix(mix(seed) ^ stream) ^ index);
    // The word as a part of 2⁶⁴, of n.
    usize::try_from((u128::from(word) * n as u128) >> 64).unwrap_or(0)
}

/// What all numbers of one position have in common.
fn row(seed: u64, example: u64, sample: u64, position: u64) -> u64 {
    mix(mix(mix(mix(seed) ^ example) ^ sample) ^ position)
}

/// The step and finaliser of SplitMix64: a bijection of 64-bit words that scatters them.
fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Box and Muller's normal number of two uniform ones.
fn normal(word: u64) -> f32 {
    let unit = |word: u64| (mix(word) >> 11) as f64;
    let scale = 1.0 / (1u64 << 53) as f64;
    let (u, v) = ((unit(word) + 1.0) * scale, unit(word ^ 1) * scale);
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

/// The noise of one edit, which is drawn each time it is computed with: that takes less than the computation, and
/// the samples of a sweep would take more memory than anything else.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    pub(crate) seed: u64,
    pub(crate) example: u64,
    pub(crate) positions: Arc<[usize]>,
    /// Dimensions of a row, or of each head's part of it.
    pub(crate) dims: Vec<usize>,
    /// Heads and the width of each, on sites that have them apart.
    pub(crate) heads: Option<(Vec<usize>, usize)>,
    pub(crate) device: Device,
}

impl Noise {
    /// How many numbers one sample takes.
    pub(crate) fn len(&self) -> usize {
        self.positions.len() * self.dims.len() * self.heads().unwrap_or(1)
    }

    /// How many positions it is of.
    pub(crate) fn rows(&self) -> usize {
        self.positions.len()
    }

    /// How many heads, on sites that have them apart.
    pub(crate) fn heads(&self) -> Option<usize> {
        self.heads.as_ref().map(|(heads, _)| heads.len())
    }

    /// The noise of a sample: positions × width, or positions × heads × width; of one of the positions alone if that
    /// is given, by its place in the list.
    pub(crate) fn tensor(&self, sample: usize, only: Option<usize>) -> candle_core::Result<Tensor> {
        let positions = match only {
            Some(place) => self.positions.get(place..place + 1).unwrap_or_default(),
            None => &self.positions[..],
        };
        let starts: Vec<usize> = match &self.heads {
            Some((heads, width)) => heads.iter().map(|head| head * width).collect(),
            None => vec![0],
        };
        let mut numbers = Vec::with_capacity(self.len() / self.rows().max(1) * positions.len());
        for position in positions {
            let row = row(self.seed, self.example, sample as u64, *position as u64);
            for start in &starts {
                numbers.extend(self.dims.iter().map(|dim| normal(mix(row ^ (start + dim) as u64))));
            }
        }
        let (rows, width) = (positions.len(), self.dims.len());
        match &self.heads {
            Some((heads, _)) => Tensor::from_vec(numbers, (rows, heads.len(), width), &self.device),
            None => Tensor::from_vec(numbers, (rows, width), &self.device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another program from the formula of the module's documentation.
    #[test]
    fn the_numbers_are_those_of_the_formula() {
        for ((seed, example, sample, position, dimension), expected) in [
            ((0, 0, 0, 0, 0), 0.5171597),
            ((0, 0, 0, 0, 1), -0.5393447),
            ((1, 0, 0, 0, 0), -0.0073957),
            ((0, 1, 0, 0, 0), -1.220_241),
            ((0, 0, 1, 0, 0), 0.0660395),
            ((0, 0, 0, 1, 0), 0.0464497),
            ((42, 3, 9, 4, 575), -0.702_889),
            ((u64::MAX, 65_535, 9999, 1023, 6399), 0.796_464),
        ] {
            let found = epsilon(seed, example, sample, position, dimension);
            assert!((found - expected).abs() <= 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn they_are_standard_normal_and_independent_of_their_neighbours() {
        let n = 200_000u64;
        let drawn: Vec<f64> = (0..n).map(|i| f64::from(epsilon(1, i % 7, i % 3, i % 50, i))).collect();
        let mean = |f: &dyn Fn(usize) -> f64| (0..drawn.len()).map(f).sum::<f64>() / n as f64;
        let error = 5.0 / (n as f64).sqrt();
        assert!(mean(&|i| drawn[i]).abs() < error);
        assert!((mean(&|i| drawn[i].powi(2)) - 1.0).abs() < 1.5 * error);
        assert!((mean(&|i| drawn[i].powi(4)) - 3.0).abs() < 10.0 * error);
        // No uniform number is smaller than 2^-53.
        assert!(drawn.iter().all(|x| x.abs() < 8.6));
        // Along each argument, the next number tells nothing of this one.
        for step in [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]] {
            let at = |i: u64, k: u64| {
                let [a, b, c, d, e] = step.map(|s| s * k);
                f64::from(epsilon(i + a, 3 + b, 5 + c, 9 + d, i / 7 + e))
            };
            let product = (0..50_000).map(|i| at(i, 0) * at(i, 1)).sum::<f64>() / 50_000.0;
            assert!(product.abs() < 5.0 / 50_000f64.sqrt(), "{step:?}: {product}");
        }
    }

    #[test]
    fn a_part_of_the_noise_is_the_same_numbers() {
        let noise = |dims: Vec<usize>, heads: Option<(Vec<usize>, usize)>| Noise {
            seed: 5,
            example: 2,
            positions: [4, 1].into(),
            dims,
            heads,
            device: Device::Cpu,
        };
        let whole = noise((0..12).collect(), None).tensor(3, None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(whole[1][7], epsilon(5, 2, 3, 1, 7));
        let some = noise(vec![7, 2], None).tensor(3, None).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(some, [[whole[0][7], whole[0][2]], [whole[1][7], whole[1][2]]]);
        let by_head = noise(vec![0, 3], Some((vec![2, 0], 4)));
        let both = by_head.tensor(3, None).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(both[0], [[whole[0][8], whole[0][11]], [whole[0][0], whole[0][3]]]);
        assert_eq!(both[1][1], [whole[1][0], whole[1][3]]);
        let second = by_head.tensor(3, Some(1)).unwrap().to_vec3::<f32>().unwrap();
        assert_eq!(second, both[1..]);
        assert_ne!(by_head.tensor(4, None).unwrap().to_vec3::<f32>().unwrap(), both);
    }
}
