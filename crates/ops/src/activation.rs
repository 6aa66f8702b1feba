//! The activation functions of feed-forward blocks.

use crate::elementwise::{Binary, Unary, binary_tensor, unary};
use crate::kernel::{floats, is_fast};
use crate::simd::{clamp, exp, polynomial, zero_below};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::Simd;

/// An elementwise non-linearity. Every variant states its formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`: "gelu_new", "gelu_pytorch_tanh".
    GeluTanh,
    /// `0.5·x·(1 + erf(x/√2))`: "gelu".
    GeluErf,
    /// `x / (1 + e^−x)`: "silu", "swish".
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The names model configurations use.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("gelu", Self::GeluErf),
        ("gelu_python", Self::GeluErf),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("relu", Self::Relu),
    ];

    /// The function of that name, if there is one.
    ///
    /// ```
    /// use causalcone_ops::Activation;
    /// assert_eq!(Activation::by_name("gelu_new"), Some(Activation::GeluTanh));
    /// assert_eq!(Activation::by_name("mish"), None);
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|&(_, a)| a)
    }

    /// Applies the function to every element. NaN stays NaN; the derivative of [`Relu`](Self::Relu) at
    /// zero is zero on the CPU.
    ///
    /// # Errors
    /// When the tensor is not of a float type.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if is_fast([x]) { x.contiguous()?.apply_op1(self) } else { self.composed(x) }
    }

    fn composed(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::GeluTanh => x.gelu(),
            Self::GeluErf => x.gelu_erf(),
            Self::Silu => x.silu(),
            Self::Relu => x.relu(),
        }
    }
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let out = match self {
            Self::GeluTanh => unary(GeluTanh, x),
            Self::GeluErf => unary(GeluErf, x),
            Self::Silu => unary(Silu, x),
            Self::Relu => unary(Relu, x),
        };
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(match self {
            Self::GeluTanh => binary_tensor(GeluTanh, x, grad)?,
            Self::GeluErf => binary_tensor(GeluErf, x, grad)?,
            Self::Silu => binary_tensor(Silu, x, grad)?,
            Self::Relu => binary_tensor(Relu, x, grad)?,
        }))
    }
}

/// Beyond this distance from zero every function here is flat, or the identity, to the last bit of an
/// f32; the formulas would run into 0·∞ there.
const FAR: f32 = 88.0;

// Each function is a `Unary`; as a `Binary` it takes x and the output's gradient to x's gradient.

#[derive(Clone, Copy)]
struct GeluTanh;

impl GeluTanh {
    /// 2·√(2/π) and 0.044715 times that: 0.5·(1 + tanh(u)) is 1/(1 + e^−2u), one exponential and no
    /// cancellation.
    const SLOPE: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.071_354_814;

    /// e^−2u.
    #[inline(always)]
    fn tail<S: Simd>(simd: S, x: S::f32s, square: S::f32s) -> S::f32s {
        let slope = simd.mul_add_e_f32s(square, simd.splat_f32s(-Self::CUBIC), simd.splat_f32s(-Self::SLOPE));
        exp(simd, simd.mul_f32s(x, slope))
    }
}

impl Unary for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let tail = Self::tail(simd, x, simd.mul_f32s(x, x));
        zero_below(simd, -FAR, x, simd.div_f32s(x, simd.add_f32s(simd.splat_f32s(1.0), tail)))
    }
}

impl Binary for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, grad: S::f32s) -> S::f32s {
        let (x, one) = (clamp(simd, x, -FAR, FAR), simd.splat_f32s(1.0));
        let square = simd.mul_f32s(x, x);
        let share = simd.div_f32s(one, simd.add_f32s(one, Self::tail(simd, x, square)));
        // share' = share·(1 − share)·(2u)'
        let inner =
            simd.mul_add_e_f32s(square, simd.splat_f32s(3.0 * Self::CUBIC), simd.splat_f32s(Self::SLOPE));
        let bend = simd.mul_f32s(simd.mul_f32s(x, inner), simd.sub_f32s(one, share));
        simd.mul_f32s(grad, simd.mul_add_e_f32s(bend, share, share))
    }
}

#[derive(Clone, Copy)]
struct Silu;

impl Silu {
    /// 1 + e^−x.
    #[inline(always)]
    fn divisor<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        simd.add_f32s(simd.splat_f32s(1.0), exp(simd, simd.neg_f32s(x)))
    }
}

impl Unary for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        zero_below(simd, -FAR, x, simd.div_f32s(x, Self::divisor(simd, x)))
    }
}

impl Binary for Silu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, grad: S::f32s) -> S::f32s {
        let (x, one) = (clamp(simd, x, -FAR, FAR), simd.splat_f32s(1.0));
        let share = simd.div_f32s(one, Self::divisor(simd, x));
        let bend = simd.mul_f32s(x, simd.sub_f32s(one, share));
        simd.mul_f32s(grad, simd.mul_add_e_f32s(bend, share, share))
    }
}

#[derive(Clone, Copy)]
struct GeluErf;

impl GeluErf {
    /// 0.5·(1 + erf(x/√2)), after Norbert Juffa's erff: a polynomial near zero, and further out the
    /// exponential of one, which is 1 − erf and so keeps its digits for negative x.
    #[inline(always)]
    fn share<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let half = simd.splat_f32s(0.5);
        let z = simd.mul_f32s(x, simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
        // At 10 the exponential is zero; the polynomial is not meant for more.
        let distance = clamp(simd, simd.abs_f32s(z), 0.0, 10.0);
        let near = polynomial(
            simd,
            simd.mul_f32s(z, z),
            [-5.967_617e-4, 4.991_194e-3, -2.676_813_5e-2, 0.112_819_925, -0.376_125_34, 0.128_379_17],
        );
        let near = simd.mul_add_e_f32s(near, z, z);
        let far = polynomial(
            simd,
            distance,
            [
                -1.728_534_7e-5,
                3.831_97e-4,
                -3.883_964_4e-3,
                2.425_462_2e-2,
                -0.106_777_88,
                -0.634_846_9,
                -1.128_717_5,
                0.0,
            ],
        );
        let far = simd.mul_f32s(half, exp(simd, far));
        let is_near = simd.less_than_f32s(distance, simd.splat_f32s(0.927_734_4));
        let is_left = simd.less_than_f32s(z, simd.splat_f32s(0.0));
        let far = simd.select_f32s(is_left, far, simd.sub_f32s(simd.splat_f32s(1.0), far));
        simd.select_f32s(is_near, simd.mul_add_e_f32s(near, half, half), far)
    }
}

impl Unary for GeluErf {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        zero_below(simd, -FAR, x, simd.mul_f32s(x, Self::share(simd, x)))
    }
}

impl Binary for GeluErf {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, grad: S::f32s) -> S::f32s {
        /// 1/√(2π): the height of the bell curve that is the share's slope.
        const PEAK: f32 = 0.398_942_3;
        let x = clamp(simd, x, -FAR, FAR);
        let bell = exp(simd, simd.mul_f32s(simd.mul_f32s(x, x), simd.splat_f32s(-0.5)));
        let bend = simd.mul_f32s(x, simd.splat_f32s(PEAK));
        simd.mul_f32s(grad, simd.mul_add_e_f32s(bend, bell, Self::share(simd, x)))
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Unary for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        zero_below(simd, 0.0, x, x)
    }
}

impl Binary for Relu {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, grad: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.less_than_f32s(zero, x), grad, zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
    use candle_core::{DType, Device};

    const ALL: [Activation; 4] =
        [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];

    #[test]
    fn values_and_slopes_are_those_of_the_formulas() {
        for activation in ALL {
            // 13 is no multiple of a vector; times 4 reaches all branches. Rounding alone: a few 6e-8.
            let x = (noise((3, 13), 1) * 4.0).unwrap();
            check(&[x], 1e-6, |x| activation.forward(&x[0]));
        }
    }

    #[test]
    fn every_f32_from_far_left_to_far_right_is_right() {
        let values: Vec<f32> = (-400_000..400_000).map(|i| i as f32 * 1e-3 / 4.0).collect();
        let x = Tensor::new(values, &Device::Cpu).unwrap();
        for activation in ALL {
            let exact = activation.composed(&x.to_dtype(DType::F64).unwrap()).unwrap();
            // Rounding of the argument and of one quotient, relative to x above one and absolute below.
            assert_close(&activation.forward(&x).unwrap(), &exact, 3e-7);
        }
    }

    #[test]
    fn ends_and_nan_are_sane() {
        let ends = [f32::NEG_INFINITY, -1e30, -200.0, 0.0, 200.0, 1e30, f32::INFINITY];
        let x = candle_core::Var::new(&ends, &Device::Cpu).unwrap();
        for activation in ALL {
            let y = activation.forward(&x).unwrap();
            assert_eq!(numbers(&y), [0.0, 0.0, 0.0, 0.0, 200.0, 1e30, f32::INFINITY], "{activation:?}");
            let slopes = numbers(y.sum_all().unwrap().backward().unwrap().get(&x).unwrap());
            // e^−88 stands in for zero here.
            assert!(slopes[..3].iter().all(|slope| slope.abs() < 1e-30), "{activation:?}: {slopes:?}");
            assert_eq!(slopes[4..], [1.0; 3], "{activation:?}");
            let nan = activation.forward(&Tensor::new(&[f32::NAN; 9], &Device::Cpu).unwrap()).unwrap();
            assert!(numbers(&nan).iter().all(|y| y.is_nan()), "{activation:?}");
        }
    }

    #[test]
    fn shapes_and_threads_do_not_matter() {
        let x = noise((40, 1001), 2);
        for activation in ALL {
            assert_same_on_any_threads(&x, |x| activation.forward(x));
            let strided = x.t().unwrap();
            let same = activation.forward(&strided.contiguous().unwrap()).unwrap();
            assert_eq!(numbers(&activation.forward(&strided).unwrap()), numbers(&same));
            assert_eq!(activation.forward(&noise((0, 5), 3)).unwrap().dims(), [0, 5]);
        }
    }
}
