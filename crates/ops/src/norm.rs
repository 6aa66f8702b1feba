//! Normalisation over the feature axis.

use crate::kernel::{Held, by_rows, floats, is_fast, is_trained};
use crate::simd;
use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor, bail};
use pulp::{Simd, WithSimd};

/// Layer normalisation: `(x − mean) / sqrt(var + eps) · weight + bias`, the variance a population
/// variance over the last axis.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[1f32, 3.0]], &Device::Cpu)?;
/// let one = Tensor::new(&[1f32, 1.0], &Device::Cpu)?;
/// let y = causalcone_ops::layer_norm(&x, &one, &one.zeros_like()?, 0.0)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[-1.0, 1.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When weight or bias do not have the width of `x`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    if !is_fast([x, weight, bias]) || is_trained([weight, bias]) || x.elem_count() == 0 {
        return composed_layer_norm(x, weight, bias, eps);
    }
    Norm::new(weight, Some(bias), eps)?.apply(x)
}

/// Root-mean-square normalisation: `x / sqrt(mean(x²) + eps) · weight` over the last axis.
///
/// # Errors
/// When the weight does not have the width of `x`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if !is_fast([x, weight]) || is_trained([weight]) || x.elem_count() == 0 {
        return composed_rms_norm(x, weight, eps);
    }
    Norm::new(weight, None, eps)?.apply(x)
}

fn composed_layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    composed_rms_norm(&centred, weight, eps)?.broadcast_add(bias)
}

fn composed_rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&rms)?.broadcast_mul(weight)
}

/// A norm with frozen parameters. One with a bias takes the mean off first.
struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    fn new(weight: &Tensor, bias: Option<&Tensor>, eps: f64) -> Result<Self> {
        Ok(Self { weight: weight.contiguous()?, bias: bias.map(Tensor::contiguous).transpose()?, eps })
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        for parameter in [Some(&self.weight), self.bias.as_ref()].into_iter().flatten() {
            if parameter.dims() != [width] {
                bail!("a norm of shape {:?} does not fit rows of width {width}", parameter.shape());
            }
        }
        x.contiguous()?.apply_op1(self)
    }
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let (weight, bias) = (Held::new(&self.weight), self.bias.as_ref().map(Held::new));
        let (weight, bias) = (weight.floats()?, bias.as_ref().map(Held::floats).transpose()?);
        let width = weight.len();
        let out = by_rows(x.len() / width, width, |first, out| {
            simd::dispatch(Forward { x: &x[first * width..], weight, bias, eps: self.eps, out });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (held_x, held_grad, weight) = (Held::new(x), Held::new(&grad), Held::new(&self.weight));
        let (from, g, weight) = (held_x.floats()?, held_grad.floats()?, weight.floats()?);
        let (width, centred) = (weight.len(), self.bias.is_some());
        let out = by_rows(from.len() / width, width, |first, out| {
            let (x, grad) = (&from[first * width..], &g[first * width..]);
            simd::dispatch(Backward { x, grad, weight, centred, eps: self.eps, out });
        });
        Ok(Some(Tensor::from_vec(out, x.shape(), &Device::Cpu)?))
    }
}

/// Sets `out` to x, less its mean if `centred`, and returns what makes it a row of variance one.
///
/// The division and the root are taken in f64: they happen once a row.
#[inline(always)]
fn centre<S: Simd>(simd: S, out: &mut [f32], x: &[f32], centred: bool, eps: f64) -> f32 {
    let width = x.len() as f64;
    let mean = if centred { f64::from(simd::sum(simd, x)) / width } else { 0.0 };
    let mean = simd.splat_f32s(mean as f32);
    simd::map(
        simd,
        out,
        x,
        #[inline(always)]
        |x| simd.sub_f32s(x, mean),
    );
    let variance = f64::from(simd::dot(simd, out, out)) / width;
    (1.0 / (variance + eps).sqrt()) as f32
}

struct Forward<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f64,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, bias, eps, out } = self;
        let width = weight.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = simd.splat_f32s(centre(simd, out, x, bias.is_some(), eps));
            match bias {
                Some(bias) => simd::update2(
                    simd,
                    out,
                    weight,
                    bias,
                    #[inline(always)]
                    |x, weight, bias| simd.mul_add_e_f32s(simd.mul_f32s(x, scale), weight, bias),
                ),
                None => simd::update2(
                    simd,
                    out,
                    weight,
                    weight,
                    #[inline(always)]
                    |x, weight, _| simd.mul_f32s(simd.mul_f32s(x, scale), weight),
                ),
            }
        }
    }
}

/// With n = (x − mean)·scale and h = weight·dy: dx = scale·(h − mean(h) − n·mean(h·n)), where the middle
/// term is there only if a mean was taken off.
struct Backward<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    weight: &'a [f32],
    centred: bool,
    eps: f64,
    out: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, grad, weight, centred, eps, out } = self;
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for (out, (x, grad)) in out.chunks_exact_mut(width).zip(rows) {
            let scale = centre(simd, out, x, centred, eps);
            let drift = if centred { simd::dot(simd, weight, grad) / width as f32 } else { 0.0 };
            let along = simd::dot3(simd, weight, grad, out) / width as f32 * scale * scale;
            let (scale, drift) = (simd.splat_f32s(scale), simd.splat_f32s(drift));
            let along = simd.splat_f32s(along);
            simd::update2(
                simd,
                out,
                weight,
                grad,
                #[inline(always)]
                |x, weight, grad| {
                    let rest = simd.sub_f32s(simd.mul_f32s(weight, grad), drift);
                    simd.mul_f32s(scale, simd.negate_mul_add_e_f32s(x, along, rest))
                },
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise};
    use candle_core::{DType, Var};

    /// A parameter in the input's type, so that one closure serves f32 and f64.
    fn like(parameter: &Tensor, x: &Tensor) -> Tensor {
        parameter.to_dtype(x.dtype()).unwrap()
    }

    #[test]
    fn values_and_slopes_are_those_of_the_formulas() {
        for shape in [(1, 3), (3, 13), (2, 8), (2, 40)] {
            let (weight, bias) = (noise(shape.1, 1), noise(shape.1, 2));
            // An offset of 2 costs the centred numbers two bits; the scale carries that into every slope.
            let x = (noise(shape, 3) + 2.0).unwrap();
            check(std::slice::from_ref(&x), 1e-5, |x| rms_norm(&x[0], &like(&weight, &x[0]), 1e-5));
            check(&[x], 1e-5, |x| layer_norm(&x[0], &like(&weight, &x[0]), &like(&bias, &x[0]), 1e-5));
        }
    }

    #[test]
    fn no_less_accurate_than_composed() {
        let (weight, bias) = (noise(768, 1), noise(768, 2));
        for (scale, offset) in [(1.0, 0.0), (1e4, 300.0), (1e-4, 0.0)] {
            let x = ((noise((9, 768), 3) * scale).unwrap() + offset).unwrap();
            let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
            let exact = composed_layer_norm(&wide(&x), &wide(&weight), &wide(&bias), 1e-5).unwrap();
            // Centring rounds to 6e-8 of the largest number, here about two deviations away.
            assert_close(&layer_norm(&x, &weight, &bias, 1e-5).unwrap(), &exact, 1e-6);
            let exact = composed_rms_norm(&wide(&x), &wide(&weight), 1e-5).unwrap();
            assert_close(&rms_norm(&x, &weight, 1e-5).unwrap(), &exact, 1e-6);
        }
    }

    #[test]
    fn only_a_parameter_that_trains_gets_a_gradient() {
        let (weight, bias) = (noise(5, 1), Var::from_tensor(&noise(5, 2)).unwrap());
        let x = Var::from_tensor(&noise((3, 5), 3)).unwrap();
        let grads = layer_norm(&x, &weight, &bias, 1e-5).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&bias).is_some() && grads.get(&x).is_some());
        let trained = Var::from_tensor(&weight).unwrap();
        let grads = rms_norm(&x, &trained, 1e-5).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&trained).is_some());
        let grads = rms_norm(&x, &weight, 1e-5).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&weight).is_none() && grads.get(&x).is_some());
    }

    #[test]
    fn shapes_and_threads_do_not_matter() {
        let (weight, bias) = (noise(301, 1), noise(301, 2));
        assert_same_on_any_threads(&noise((3, 40, 301), 3), |x| layer_norm(x, &weight, &bias, 1e-5));
        assert_same_on_any_threads(&noise((3, 40, 301), 3), |x| rms_norm(x, &weight, 1e-5));
        assert_eq!(rms_norm(&noise((0, 301), 3), &weight, 1e-5).unwrap().dims(), [0, 301]);
        assert!(rms_norm(&noise((2, 300), 3), &weight, 1e-5).is_err());
        assert!(layer_norm(&noise((2, 301), 3), &weight, &noise(300, 1), 1e-5).is_err());
    }
}
