//! Adam and AdamW, in the order of operations that torch has them.

use rayon::prelude::*;

/// Below this many numbers other threads are not worth waking.
const SMALL: usize = 1 << 14;

/// The optimiser: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², x ← x − rate·m̂ / (√v̂ + ε), where m̂ and v̂ are
/// m / (1 − β₁ᵗ) and v / (1 − β₂ᵗ) at the t-th update. Decay adds weight_decay·x to g (Adam), or takes
/// rate·weight_decay·x from x first (AdamW, `decoupled`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// β₁.
    pub beta1: f64,
    /// β₂.
    pub beta2: f64,
    /// ε.
    pub epsilon: f64,
    /// How fast numbers shrink by themselves.
    pub weight_decay: f64,
    /// Whether that is apart from the gradient: AdamW.
    pub decoupled: bool,
}

impl Default for Adam {
    /// As torch has it, without decay.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: false }
    }
}

/// What the optimiser remembers of each number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
}

impl Moments {
    pub(super) fn zero(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }
}

impl Adam {
    /// The update of that number, counted from 1.
    pub(super) fn update(
        &self,
        number: usize,
        rate: f64,
        numbers: &mut [f32],
        slopes: &[f32],
        moments: &mut Moments,
    ) {
        let t = i32::try_from(number).unwrap_or(i32::MAX);
        let step = (rate / (1.0 - self.beta1.powi(t))) as f32;
        let root = (1.0 - self.beta2.powi(t)).sqrt() as f32;
        let (first_rest, second, second_rest) =
            ((1.0 - self.beta1) as f32, self.beta2 as f32, (1.0 - self.beta2) as f32);
        let epsilon = self.epsilon as f32;
        let (coupled, shrink) = match (self.weight_decay, self.decoupled) {
            (decay, true) => (0.0, (1.0 - rate * decay) as f32),
            (decay, false) => (decay as f32, 1.0),
        };
        let one = |((x, g), (m, v)): ((&mut f32, &f32), (&mut f32, &mut f32))| {
            *x *= shrink;
            let g = if coupled == 0.0 { *g } else { g + coupled * *x };
            *m += (g - *m) * first_rest;
            *v = *v * second + g * g * second_rest;
            *x -= step * (*m / (v.sqrt() / root + epsilon));
        };
        let moments = moments.first.par_iter_mut().zip(&mut moments.second);
        numbers.par_iter_mut().zip(slopes).zip(moments).with_min_len(SMALL).for_each(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three updates of two numbers by torch 2.8: torch.optim.Adam and AdamW, lr 0.1, weight_decay 0.01, gradients
    /// [1, −2], [0.5, 3], [−1, 0.25].
    #[test]
    fn updates_are_torchs() {
        let slopes = [[1.0f32, -2.0], [0.5, 3.0], [-1.0, 0.25]];
        for (decoupled, expected) in [(false, ADAM), (true, ADAMW)] {
            let adam = Adam { weight_decay: 0.01, decoupled, ..Adam::default() };
            let mut numbers = [0.3f32, -0.7];
            let mut moments = Moments::zero(2);
            for (i, slopes) in slopes.iter().enumerate() {
                adam.update(i + 1, 0.1, &mut numbers, slopes, &mut moments);
                for (a, b) in numbers.iter().zip(&expected[i]) {
                    // The same operations in f32.
                    assert!((f64::from(*a) - b).abs() <= 2e-7, "{decoupled}, update {i}: {a} is not {b}");
                }
            }
        }
    }

    const ADAM: [[f64; 2]; 3] =
        [[0.200_000_018, -0.600_000_024], [0.106_767_476, -0.624_523_818], [0.095_478_162, -0.647_750_556]];
    const ADAMW: [[f64; 2]; 3] =
        [[0.199_700_028, -0.599_300_027], [0.106_282_376, -0.623_470_962], [0.095_097_788, -0.646_370_649]];
}
