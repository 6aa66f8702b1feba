//! A bound on scores and logits that does not cut them off.

use crate::elementwise::{Binary, Unary, binary_tensor, unary};
use crate::kernel::{floats, is_fast};
use crate::simd::tanh;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::Simd;

/// `cap·tanh(x / cap)`: nearly x where that is small beside the cap, never more than the cap (Gemma 2).
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[0f32, 0.1, 1e3, -1e3], &Device::Cpu)?;
/// let y = causalcone_ops::softcap(&x, 30.0)?.to_vec1::<f32>()?;
/// assert_eq!((y[0], y[2], y[3]), (0.0, 30.0, -30.0));
/// assert!((y[1] - 0.1).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the tensor is not of a float type.
pub fn softcap(x: &Tensor, cap: f64) -> Result<Tensor> {
    if is_fast([x]) { x.contiguous()?.apply_op1(Softcap(cap as f32)) } else { (x / cap)?.tanh()? * cap }
}

#[derive(Clone, Copy)]
struct Softcap(f32);

impl Unary for Softcap {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        capped(simd, x, self.0)
    }
}

/// The softcap of some numbers.
#[inline(always)]
pub(crate) fn capped<S: Simd>(simd: S, x: S::f32s, cap: f32) -> S::f32s {
    let cap = simd.splat_f32s(cap);
    simd.mul_f32s(tanh(simd, simd.div_f32s(x, cap)), cap)
}

/// The slope of the softcap where it is `y`: 1 − (y / cap)².
#[inline(always)]
pub(crate) fn slope<S: Simd>(simd: S, y: S::f32s, cap: f32) -> S::f32s {
    let share = simd.div_f32s(y, simd.splat_f32s(cap));
    simd.negate_mul_add_e_f32s(share, share, simd.splat_f32s(1.0))
}

/// Of the softcap's output and its gradient, the gradient of what went in.
#[derive(Clone, Copy)]
struct Slope(f32);

impl Binary for Slope {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, y: S::f32s, grad: S::f32s) -> S::f32s {
        simd.mul_f32s(grad, slope(simd, y, self.0))
    }
}

impl CustomOp1 for Softcap {
    fn name(&self) -> &'static str {
        "softcap"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(unary(*self, floats(x, layout)?)), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(binary_tensor(Slope(self.0), y, grad)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
    use candle_core::{DType, Device};

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        for cap in [0.5, 2.0, 50.0] {
            // Every part of the curve: a few roundings of 6e-8, in slopes of what 1 cancels from.
            check(&[(noise((3, 13), 1) * (2.0 * cap)).unwrap()], 1e-6, |x| softcap(&x[0], cap));
        }
    }

    #[test]
    fn every_number_is_right_and_ends_are_sane() {
        let values: Vec<f32> = (-20_000..20_000).map(|i| i as f32 * 1e-3).collect();
        let x = Tensor::new(values, &Device::Cpu).unwrap();
        let exact = softcap(&x.to_dtype(DType::F64).unwrap(), 1.0).unwrap();
        assert_close(&softcap(&x, 1.0).unwrap(), &exact, 2e-7);
        let ends = Tensor::new(&[f32::NEG_INFINITY, f32::INFINITY, 1e30, -0.0], &Device::Cpu).unwrap();
        assert_eq!(numbers(&softcap(&ends, 5.0).unwrap()), [-5.0, 5.0, 5.0, 0.0]);
        let nan = softcap(&Tensor::new(&[f32::NAN; 9], &Device::Cpu).unwrap(), 5.0).unwrap();
        assert!(numbers(&nan).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn threads_do_not_matter() {
        assert_same_on_any_threads(&noise((40, 1001), 2), |x| softcap(x, 3.0));
    }
}
