//! The affine map `x·W + b`.

use crate::kernel::{Held, by_rows, each_block, is_fast, is_trained};
use crate::simd;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use pulp::{Simd, WithSimd};

/// A frozen affine map with its weight held as (in × out) and an optional bias.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::Linear;
///
/// // Stored as out × in, as most checkpoints have it: the transpose is a view, nothing is copied.
/// let stored = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let linear = Linear::new(stored.t()?, None);
/// let y = linear.forward(&Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3.0, 7.0, 11.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Takes a weight of shape (in, out), any strides, and a bias of shape (out).
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The weight, in × out.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Maps rows (n × in) to rows (n × out).
    ///
    /// # Errors
    /// When the width of `x` is not the weight's, or the bias is not of the weight's other width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            Some(bias) if is_fast([bias]) && !is_trained([bias]) => affine(x, &self.weight, Some(bias)),
            Some(bias) => project(x, &self.weight)?.broadcast_add(bias),
            None => project(x, &self.weight),
        }
    }
}

/// Few rows: up to this many the product is computed with the weight on the left.
const FEW_ROWS: usize = 32;

/// `x·W` for rows x (n × in) and a weight W (in × out) of any strides.
///
/// The GEMM below is slow for few rows against a weight stored out × in, up to four times slower
/// than for the transposed product, so that one is taken there. Either way every element is the same
/// sum, rounded in another order.
///
/// A gradient flows to `x`, and to the weight only where autograd follows it: a frozen weight's would
/// cost as much as that of `x`.
///
/// # Errors
/// When the width of `x` is not the weight's.
pub fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    affine(x, weight, None)
}

/// `x·W + b`, where autograd does not follow b.
fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if !is_fast([x, weight]) || is_trained([weight]) || x.elem_count() == 0 || weight.elem_count() == 0 {
        let y = composed(x, weight)?;
        return bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias));
    }
    let ((_, given), (inner, width)) = (x.dims2()?, weight.dims2()?);
    if given != inner {
        bail!("rows of width {given} do not fit a weight of {inner} × {width}");
    }
    if let Some(bias) = bias.filter(|bias| bias.dims() != [width]) {
        bail!("a bias of shape {:?} does not fit a weight of {inner} × {width}", bias.shape());
    }
    let bias = bias.map(Tensor::contiguous).transpose()?;
    x.apply_op1(Affine { weight: weight.clone(), bias })
}

fn composed(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if has_weight_left(x.dim(0)?, weight) {
        return weight.t()?.matmul(&x.t()?)?.t()?.contiguous();
    }
    x.matmul(weight)
}

/// Whether the weight goes on the left: it is stored out × in and there are few rows.
fn has_weight_left(rows: usize, weight: &Tensor) -> bool {
    weight.stride().first() == Some(&1) && rows <= FEW_ROWS
}

/// A frozen map as a kernel: the weight is no argument of it, so its gradient is never computed.
struct Affine {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl CustomOp1 for Affine {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, inner), (_, width)) = (layout.shape().dims2()?, self.weight.dims2()?);
        let (weight, bias) = (Held::new(&self.weight), self.bias.as_ref().map(Held::new));
        let ((weight, weight_layout), bias) = (weight.cpu()?, bias.as_ref().map(Held::floats).transpose()?);
        let y = if has_weight_left(rows, &self.weight) {
            let (left, right) = (weight_layout.transpose(0, 1)?, layout.transpose(0, 1)?);
            let y = weight.matmul(x, (1, width, rows, inner), &left, &right)?;
            transposed(y.as_slice::<f32>()?, rows, width, bias)
        } else {
            let CpuStorage::F32(mut y) = x.matmul(weight, (1, rows, width, inner), layout, weight_layout)?
            else {
                bail!("a product of f32 matrices is not f32")
            };
            if let Some(bias) = bias {
                each_block(&mut y, width, |_, rows| simd::dispatch(AddBias { bias, rows }));
            }
            y
        };
        Ok((CpuStorage::F32(y), Shape::from((rows, width))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(project(grad, &self.weight.t()?)?))
    }
}

/// The transpose (rows × width) of y (width × rows), plus the bias.
fn transposed(y: &[f32], rows: usize, width: usize, bias: Option<&[f32]>) -> Vec<f32> {
    by_rows(rows, width, |first, out| {
        for (row, out) in (first..).zip(out.chunks_exact_mut(width)) {
            let column = y.iter().skip(row).step_by(rows);
            match bias {
                Some(bias) => column.zip(bias).zip(out).for_each(|((y, bias), out)| *out = y + bias),
                None => column.zip(out).for_each(|(y, out)| *out = *y),
            }
        }
    })
}

struct AddBias<'a> {
    bias: &'a [f32],
    rows: &'a mut [f32],
}

impl WithSimd for AddBias<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.rows.chunks_exact_mut(self.bias.len()) {
            simd::update2(
                simd,
                row,
                self.bias,
                self.bias,
                #[inline(always)]
                |y, bias, _| simd.add_f32s(y, bias),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, check, noise, numbers};
    use candle_core::Var;

    fn like(parameter: &Tensor, x: &Tensor) -> Tensor {
        parameter.to_dtype(x.dtype()).unwrap()
    }

    #[test]
    fn both_ways_of_multiplying_agree() {
        let stored = noise((7, 5), 1);
        for rows in [0, 1, FEW_ROWS, FEW_ROWS + 1] {
            let x = noise((rows, 5), 2);
            let ours = project(&x, &stored.t().unwrap()).unwrap();
            let plain = x.matmul(&stored.t().unwrap().contiguous().unwrap()).unwrap();
            // Five products of numbers below 1, summed in another order.
            assert_close(&ours, &plain, 1e-6);
        }
    }

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        let (weight, bias) = (noise((5, 7), 1), noise(7, 2));
        let stored = weight.t().unwrap().contiguous().unwrap();
        for rows in [1, 3, FEW_ROWS + 1] {
            let x = noise((rows, 5), 3);
            // Sums of at most seven products of numbers below 1.
            check(std::slice::from_ref(&x), 2e-6, |x| project(&x[0], &like(&weight, &x[0])));
            for weight in [weight.clone(), stored.t().unwrap()] {
                let bias = Some(bias.clone());
                check(std::slice::from_ref(&x), 2e-6, |x| {
                    // A conversion would make the transposed weight contiguous.
                    let weight = like(&weight.t()?.contiguous()?, &x[0]).t()?;
                    Linear::new(weight, bias.as_ref().map(|bias| like(bias, &x[0]))).forward(&x[0])
                });
                check(&[x.t().unwrap().contiguous().unwrap()], 2e-6, |x| {
                    Linear::new(like(&weight, &x[0]), None).forward(&x[0].t()?)
                });
            }
        }
    }

    #[test]
    fn only_a_parameter_that_trains_gets_a_gradient() {
        let x = Var::from_tensor(&noise((3, 5), 1)).unwrap();
        let frozen = (noise((5, 7), 2), noise(7, 3));
        let trained = (Var::from_tensor(&frozen.0).unwrap(), Var::from_tensor(&frozen.1).unwrap());
        let slopes = |weight: &Tensor, bias: &Tensor| {
            let linear = Linear::new(weight.clone(), Some(bias.clone()));
            let grads = linear.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
            [&x, weight, bias].map(|t| grads.get(t).map(numbers))
        };
        let [to_x, None, None] = slopes(&frozen.0, &frozen.1) else {
            panic!("a frozen weight has a gradient")
        };
        for (weight, bias) in [(true, true), (true, false), (false, true)] {
            let w: &Tensor = if weight { &trained.0 } else { &frozen.0 };
            let b: &Tensor = if bias { &trained.1 } else { &frozen.1 };
            let got = slopes(w, b);
            assert_eq!(got[1..].iter().map(Option::is_some).collect::<Vec<_>>(), [weight, bias]);
            assert_eq!(got[0], to_x);
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (weight, bias) = (noise((5, 7), 1), noise(6, 2));
        assert!(project(&noise((3, 4), 1), &weight).is_err());
        assert!(Linear::new(weight, Some(bias)).forward(&noise((3, 5), 1)).is_err());
    }
}
