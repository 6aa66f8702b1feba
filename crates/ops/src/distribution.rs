//! What is read off rows of logits: their normaliser and how far two of them are apart, in f64.
//!
//! A vocabulary has tens of thousands of tokens and every cell of a sweep one such row, so the exponentials are
//! computed by vectors. The loops are plain ones: compiled for the instruction set that `dispatch` finds, they become
//! vector code.

use crate::simd;
use pulp::{Simd, WithSimd};

/// ln Σ eˣ of a row of logits; NaN where one of them is NaN or +∞, or all are −∞.
///
/// ```
/// assert!((causalcone_ops::log_sum_exp(&[0.0, 0.0]) - 2f64.ln()).abs() < 1e-15);
/// ```
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    simd::dispatch(LogSumExp { logits })
}

/// D(p ‖ q) = Σ p·(ln p − ln q) in nats, of two rows of logits and their [`log_sum_exp`]. Tokens to which p gives no
/// probability count for nothing, whatever q gives them.
///
/// ```
/// use causalcone_ops::{divergence, log_sum_exp};
/// let (p, q) = ([0.0, 0.0], [3f32.ln(), 0.0]);
/// let apart = divergence((&p, log_sum_exp(&p)), (&q, log_sum_exp(&q)));
/// assert!((apart - 0.5 * (4.0f64 / 3.0).ln()).abs() < 1e-7);
/// ```
pub fn divergence(p: (&[f32], f64), q: (&[f32], f64)) -> f64 {
    simd::dispatch(Divergence { p, q })
}

struct LogSumExp<'a> {
    logits: &'a [f32],
}

impl WithSimd for LogSumExp<'_> {
    type Output = f64;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let max = f64::from(simd::max(simd, self.logits));
        let sum = sum_of(
            self.logits,
            self.logits,
            #[inline(always)]
            |x, _| exp(f64::from(x) - max),
        );
        max + sum.ln()
    }
}

struct Divergence<'a> {
    p: (&'a [f32], f64),
    q: (&'a [f32], f64),
}

impl WithSimd for Divergence<'_> {
    type Output = f64;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let ((p, p_sum), (q, q_sum)) = (self.p, self.q);
        sum_of(
            p,
            q,
            #[inline(always)]
            |p, q| {
                let (log_p, log_q) = (f64::from(p) - p_sum, f64::from(q) - q_sum);
                if log_p == f64::NEG_INFINITY { 0.0 } else { exp(log_p) * (log_p - log_q) }
            },
        )
    }
}

/// Sums side by side, in an order that depends on the length alone.
const LANES: usize = 16;

#[inline(always)]
fn sum_of(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (x, y) in x.iter().zip(y) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += f(*x, *y);
        }
    }
    for (sum, (x, y)) in sums.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *sum += f(*x, *y);
    }
    sums.iter().sum()
}

/// eˣ for x ≤ 0 to a relative error of 4e-16; zero below −708, where it stops being a normal number.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // Adding 1.5·2⁵² leaves the nearest whole number in the lowest bits of the mantissa.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let shifted = x.mul_add(std::f64::consts::LOG2_E, SHIFT);
    let whole = shifted - SHIFT;
    // ln 2 in two parts: the first has few bits, so its product with a whole number is exact.
    let rest = whole.mul_add(-0.693_147_180_369_123_8, x);
    let rest = whole.mul_add(-1.908_214_929_270_587_7e-10, rest);
    // Taylor's series: |rest| ≤ ln 2 / 2, whose 14th power over 14! is 4e-18.
    const FACTORIALS: [f64; 14] = {
        let mut inverse = [1.0; 14];
        let mut i = 1;
        while i < inverse.len() {
            inverse[i] = inverse[i - 1] / i as f64;
            i += 1;
        }
        inverse
    };
    let mut sum = 0.0f64;
    for term in FACTORIALS.iter().rev() {
        sum = sum.mul_add(rest, *term);
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1f64.to_bits()));
    if x < -708.0 { 0.0 } else { sum * power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{noise, numbers};

    #[test]
    fn the_exponential_is_that_of_the_library() {
        for i in 0..200_000 {
            let x = -f64::from(i) * 0.003_55;
            let (ours, right) = (exp(x), x.exp());
            let apart = (ours - right).abs();
            assert!(apart <= 5e-16 * right || x < -708.0 && ours == 0.0, "e^{x}: {ours} is not {right}");
        }
        assert_eq!((exp(0.0), exp(f64::NEG_INFINITY)), (1.0, 0.0));
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn the_sums_are_those_of_the_formulas() {
        for n in [1, 2, 15, 16, 17, 1000] {
            let [p, q] = [1, 2].map(|seed| numbers(&(noise(n, seed) * 20.0).unwrap()));
            let sum = |row: &[f32]| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&p) - sum(&p)).abs() < 1e-13);
            let terms = p.iter().zip(&q).map(|(a, b)| {
                let (a, b) = (f64::from(*a) - sum(&p), f64::from(*b) - sum(&q));
                a.exp() * (a - b)
            });
            let ours = divergence((&p, log_sum_exp(&p)), (&q, log_sum_exp(&q)));
            assert!((ours - terms.sum::<f64>()).abs() < 1e-12);
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        let low = f32::NEG_INFINITY;
        assert_eq!(log_sum_exp(&[low, 1.0]), 1.0);
        assert!(log_sum_exp(&[low, low]).is_nan());
        assert!(log_sum_exp(&[f32::INFINITY, 0.0]).is_nan());
        assert!(log_sum_exp(&[1.0, f32::NAN, 0.0]).is_nan());
        // 0·ln(0/q) is 0, and p·ln(p/0) infinite.
        let (sure, even): ((&[f32], _), (&[f32], _)) = ((&[0.0, low], 0.0), (&[0.0, 0.0], 2f64.ln()));
        assert_eq!(divergence(sure, even), 2f64.ln());
        assert_eq!(divergence(sure, sure), 0.0);
        assert_eq!(divergence(even, sure), f64::INFINITY);
    }
}
