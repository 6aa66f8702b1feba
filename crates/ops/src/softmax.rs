//! Softmax over the last axis.

use crate::kernel::{Held, by_rows, each_block, floats, is_fast};
use crate::simd;
use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

/// Softmax over the last axis: `exp(x − max) / Σ exp(x − max)`.
///
/// `−inf` entries get weight zero. A row of nothing but `−inf` has no softmax and comes out as NaN;
/// callers who can meet one check for it first.
///
/// # Errors
/// When the tensor has no axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    x.dim(D::Minus1)?;
    if x.elem_count() == 0 {
        // No rows are their own softmax; candle finds no maximum in them.
        return Ok(x.clone());
    }
    if is_fast([x]) { x.contiguous()?.apply_op1(Softmax) } else { composed(x) }
}

fn composed(x: &Tensor) -> Result<Tensor> {
    // The maximum only shifts the exponent: it cancels in the quotient, so it carries no gradient.
    let max = x.max_keepdim(D::Minus1)?.detach();
    let exp = x.broadcast_sub(&max)?.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?;
    exp.broadcast_div(&sum)
}

struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, width) = (floats(x, layout)?, layout.shape().dim(D::Minus1)?);
        let mut out = vec![0.0; x.len()];
        each_block(&mut out, width, |first, out| {
            out.copy_from_slice(&x[first * width..][..out.len()]);
            simd::dispatch(Forward { width, out });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, weights: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (held_weights, held_grad) = (Held::new(weights), Held::new(&grad));
        let (y, g, width) = (held_weights.floats()?, held_grad.floats()?, weights.dim(D::Minus1)?);
        let out = by_rows(y.len() / width, width, |first, out| {
            let here = first * width..first * width + out.len();
            simd::dispatch(Backward { width, weights: &y[here.clone()], grad: &g[here], out });
        });
        Ok(Some(Tensor::from_vec(out, weights.shape(), &Device::Cpu)?))
    }
}

struct Forward<'a> {
    width: usize,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.out.chunks_exact_mut(self.width) {
            simd::softmax(simd, row);
        }
    }
}

/// dx = y·(dy − Σ y·dy).
struct Backward<'a> {
    width: usize,
    weights: &'a [f32],
    grad: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.weights.chunks_exact(self.width).zip(self.grad.chunks_exact(self.width));
        for (out, (y, g)) in self.out.chunks_exact_mut(self.width).zip(rows) {
            let mean = simd.splat_f32s(simd::dot(simd, y, g));
            simd::map2(
                simd,
                out,
                y,
                g,
                #[inline(always)]
                |y, g| simd.mul_f32s(y, simd.sub_f32s(g, mean)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
    use candle_core::DType;

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        for shape in [(1, 1), (3, 13), (2, 8), (2, 40)] {
            // Scores up to 20 are off by up to 1e-6 before the exponential.
            check(&[(noise(shape, 1) * 20.0).unwrap()], 5e-6, |x| softmax(&x[0]));
        }
    }

    #[test]
    fn far_and_infinite_scores_are_sane() {
        let huge = (noise((4, 37), 1) * 1e4).unwrap();
        assert_close(&softmax(&huge).unwrap(), &composed(&huge.to_dtype(DType::F64).unwrap()).unwrap(), 1e-6);
        let inf = f32::INFINITY;
        let row = |row: [f32; 3]| numbers(&softmax(&Tensor::new(&row, &Device::Cpu).unwrap()).unwrap());
        assert_eq!(row([0.0, -inf, 0.0]), [0.5, 0.0, 0.5]);
        for row in [row([-inf; 3]), row([0.0, inf, 0.0]), row([0.0, f32::NAN, 0.0])] {
            assert!(row.iter().all(|x| x.is_nan()), "{row:?}");
        }
    }

    #[test]
    fn shapes_and_threads_do_not_matter() {
        assert_same_on_any_threads(&noise((3, 40, 301), 2), softmax);
        assert_eq!(softmax(&noise((0, 5), 3)).unwrap().dims(), [0, 5]);
    }
}
