//! Maps from one or two tensors of a shape to another of it, and the sums and products made so.

use crate::kernel::{Held, by_rows, floats, is_fast};
use crate::simd::{dispatch, map, map2};
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};

/// A function of one number.
pub(crate) trait Unary: Copy + Send + Sync {
    fn apply<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s;
}

/// A function of two numbers.
pub(crate) trait Binary: Copy + Send + Sync {
    fn apply<S: Simd>(self, simd: S, x: S::f32s, y: S::f32s) -> S::f32s;
}

/// f of every element.
pub(crate) fn unary(f: impl Unary, x: &[f32]) -> Vec<f32> {
    by_rows(x.len(), 1, |first, out| dispatch(UnaryBlock { f, x: &x[first..][..out.len()], out }))
}

/// f of every pair of elements of two slices of one length.
pub(crate) fn binary(f: impl Binary, x: &[f32], y: &[f32]) -> Vec<f32> {
    by_rows(x.len(), 1, |first, out| {
        dispatch(BinaryBlock { f, x: &x[first..][..out.len()], y: &y[first..][..out.len()], out });
    })
}

/// f of every pair of elements of two f32 tensors of one shape, outside the graph: for backward passes.
pub(crate) fn binary_tensor(f: impl Binary, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let out = binary(f, Held::new(&x).floats()?, Held::new(&y).floats()?);
    Tensor::from_vec(out, x.shape(), &Device::Cpu)
}

struct UnaryBlock<'a, F> {
    f: F,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Unary> WithSimd for UnaryBlock<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        map(
            simd,
            self.out,
            self.x,
            #[inline(always)]
            |x| self.f.apply(simd, x),
        );
    }
}

struct BinaryBlock<'a, F> {
    f: F,
    x: &'a [f32],
    y: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Binary> WithSimd for BinaryBlock<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        map2(
            simd,
            self.out,
            self.x,
            self.y,
            #[inline(always)]
            |x, y| self.f.apply(simd, x, y),
        );
    }
}

/// `x + y` for tensors of one shape.
///
/// # Errors
/// When the shapes differ; nothing is broadcast.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !is_fast([x, y]) || x.shape() != y.shape() {
        return x.add(y);
    }
    x.contiguous()?.apply_op2(&y.contiguous()?, Elementwise(Add))
}

/// `x · y`, element by element, for tensors of one shape.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::{add, multiply};
/// let x = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
/// assert_eq!(add(&x, &x)?.to_vec1::<f32>()?, [2.0, 4.0]);
/// assert_eq!(multiply(&x, &x)?.to_vec1::<f32>()?, [1.0, 4.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes differ; nothing is broadcast.
pub fn multiply(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !is_fast([x, y]) || x.shape() != y.shape() {
        return x.mul(y);
    }
    x.contiguous()?.apply_op2(&y.contiguous()?, Elementwise(Multiply))
}

/// The gradients of a function of two tensors; none for what is frozen.
type Slopes = Result<(Option<Tensor>, Option<Tensor>)>;

/// A differentiable function of the elements of two tensors.
trait Formula: Binary + Copy + Send + Sync {
    const NAME: &'static str;

    fn slopes(self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Slopes;
}

struct Elementwise<F>(F);

impl<F: Formula> CustomOp2 for Elementwise<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(binary(self.0, floats(x, lx)?, floats(y, ly)?)), lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Slopes {
        self.0.slopes(x, y, grad)
    }
}

#[derive(Clone, Copy)]
struct Add;

impl Binary for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, y: S::f32s) -> S::f32s {
        simd.add_f32s(x, y)
    }
}

impl Formula for Add {
    const NAME: &'static str = "add";

    fn slopes(self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Slopes {
        Ok((x.track_op().then(|| grad.clone()), y.track_op().then(|| grad.clone())))
    }
}

#[derive(Clone, Copy)]
struct Multiply;

impl Binary for Multiply {
    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::f32s, y: S::f32s) -> S::f32s {
        simd.mul_f32s(x, y)
    }
}

impl Formula for Multiply {
    const NAME: &'static str = "multiply";

    fn slopes(self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Slopes {
        let times = |other: &Tensor| binary_tensor(Multiply, grad, other);
        let to_x = if x.track_op() { Some(times(y)?) } else { None };
        let to_y = if y.track_op() { Some(times(x)?) } else { None };
        Ok((to_x, to_y))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_on_any_threads, check, noise};

    #[test]
    fn values_and_slopes_are_those_of_the_formulas() {
        for shape in [(1, 1), (3, 13), (2, 8)] {
            let inputs = [noise(shape, 1), (noise(shape, 2) * 1e3).unwrap()];
            // One rounding of each number.
            check(&inputs, 2e-7, |x| multiply(&x[0], &x[1]));
            check(&inputs, 2e-7, |x| add(&x[0], &x[1]));
        }
    }

    #[test]
    fn nothing_is_broadcast_and_no_rows_are_no_rows() {
        assert!(add(&noise((2, 3), 1), &noise((1, 3), 1)).is_err());
        assert!(multiply(&noise((2, 3), 1), &noise((3, 2), 1)).is_err());
        assert_eq!(add(&noise((0, 3), 1), &noise((0, 3), 1)).unwrap().dims(), [0, 3]);
    }

    #[test]
    fn threads_do_not_matter() {
        let y = noise((40, 1001), 2);
        assert_same_on_any_threads(&noise((40, 1001), 1), |x| add(&multiply(x, &y)?, x));
    }

    #[test]
    fn what_is_frozen_gets_no_gradient() {
        let (x, y) = (candle_core::Var::from_tensor(&noise(5, 1)).unwrap(), noise(5, 2));
        let grads = multiply(&x, &y).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&y).is_none());
    }
}
