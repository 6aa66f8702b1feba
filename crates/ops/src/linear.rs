//! The affine map `x·W + b`.

use crate::kernel::{Held, floats, is_fast, is_trained};
use crate::panels::Panels;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// An affine map with its weight in × out and an optional bias.
///
/// A frozen weight (f32 on the CPU, not followed by autograd) is copied into the layout its products read, so the
/// tensor given can be dropped; the transposed copy that gradients need is made when the first of them is computed.
/// Every row's products are then the same to the bit, whatever other rows there are and however many threads. One in 16
/// bits stays so, and is widened for each product: the same numbers in half the memory. Other weights are kept as they
/// are, and multiplied by candle.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::Linear;
///
/// // Stored as out × in, as most checkpoints have it.
/// let stored = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let linear = Linear::new(stored.t()?, None)?;
/// let y = linear.forward(&Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3.0, 7.0, 11.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Weight {
    Frozen(Arc<Frozen>),
    Half(Arc<Half>),
    Plain(Tensor),
}

impl Linear {
    /// Takes a weight of shape (in, out), any strides, and a bias of shape (out).
    ///
    /// # Errors
    /// When the weight is no matrix, or the bias is not of its second width.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let (inner, width) = weight.dims2()?;
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims() != [width]) {
            bail!("a bias of shape {:?} does not fit a weight of {inner} × {width}", bias.shape());
        }
        let is_frozen = !is_trained([&weight]) && weight.elem_count() > 0;
        let weight = if is_frozen && is_half(&weight) {
            Weight::Half(Arc::new(Half { rows: weight.t()?.contiguous()? }))
        } else if is_frozen && is_fast([&weight]) {
            Weight::Frozen(Frozen::new(&weight)?)
        } else {
            Weight::Plain(weight)
        };
        Ok(Self { weight, bias })
    }

    /// Maps rows (n × in) to rows (n × out).
    ///
    /// # Errors
    /// When the width of `x` is not the weight's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = match (&self.weight, &self.bias) {
            (Weight::Frozen(weight), Some(bias)) if is_fast([bias]) && !is_trained([bias]) => {
                return weight.forward(x, Some(bias.contiguous()?));
            }
            (Weight::Half(weight), Some(bias)) if is_fast([bias]) && !is_trained([bias]) => {
                return weight.forward(x, Some(bias.contiguous()?));
            }
            (Weight::Frozen(weight), _) => weight.forward(x, None)?,
            (Weight::Half(weight), _) => weight.forward(x, None)?,
            (Weight::Plain(weight), _) => x.matmul(weight)?,
        };
        self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
    }

    /// Whether its weight never trains.
    pub(crate) fn is_frozen(&self) -> bool {
        !matches!(self.weight, Weight::Plain(_))
    }

    /// The slopes of rows that went in, given those of the rows that came out.
    pub(crate) fn slopes(&self, grad: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Frozen(weight) => weight.slopes(grad),
            Weight::Half(weight) => weight.wide()?.slopes(grad),
            Weight::Plain(weight) => grad.matmul(&weight.t()?),
        }
    }

    /// Some columns of the weight as rows, n × in: of an unembedding, the rows of some tokens.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn columns(&self, columns: &[u32]) -> Result<Tensor> {
        match &self.weight {
            Weight::Frozen(weight) => {
                let panels = &weight.panels;
                if let Some(column) = columns.iter().find(|column| **column as usize >= panels.width()) {
                    bail!(
                        "there is no column {column} in a weight of {} × {}",
                        panels.inner(),
                        panels.width()
                    );
                }
                let numbers = columns.iter().flat_map(|column| panels.column(*column as usize)).collect();
                Tensor::from_vec(numbers, (columns.len(), panels.inner()), &Device::Cpu)
            }
            Weight::Half(weight) => {
                let ids = Tensor::new(columns, weight.rows.device())?;
                weight.rows.index_select(&ids, 0)?.to_dtype(DType::F32)
            }
            Weight::Plain(weight) => {
                weight.t()?.contiguous()?.index_select(&Tensor::new(columns, weight.device())?, 0)
            }
        }
    }
}

/// A weight that never trains.
#[derive(Debug)]
struct Frozen {
    panels: Panels,
    /// The weight of gradients.
    transposed: OnceLock<Arc<Frozen>>,
}

/// Whether a weight is in 16 bits, and can be widened here.
fn is_half(weight: &Tensor) -> bool {
    matches!(weight.dtype(), DType::F16 | DType::BF16) && weight.device().is_cpu()
}

/// A weight that never trains, in 16 bits.
#[derive(Debug)]
struct Half {
    /// out × in
    rows: Tensor,
}

impl Half {
    /// The same numbers in f32, for one product.
    fn wide(&self) -> Result<Arc<Frozen>> {
        Frozen::new(&self.rows.to_dtype(DType::F32)?.t()?)
    }

    fn forward(self: &Arc<Self>, x: &Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        let (width, inner) = self.rows.dims2()?;
        product(x, (inner, width), Affine { weight: Source::Half(self.clone()), bias })
    }
}

/// Rows through a frozen map.
fn product(x: &Tensor, (inner, width): (usize, usize), map: Affine) -> Result<Tensor> {
    let (_, given) = x.dims2()?;
    if given != inner {
        bail!("rows of width {given} do not fit a weight of {inner} × {width}");
    }
    if !is_fast([x]) {
        bail!("a frozen weight takes rows in f32 on the CPU, not {:?}", x.dtype());
    }
    x.contiguous()?.apply_op1(map)
}

impl Frozen {
    /// A copy of a weight, in × out, any strides.
    fn new(weight: &Tensor) -> Result<Arc<Self>> {
        let (inner, width) = weight.dims2()?;
        let held = Held::new(weight);
        let (storage, layout) = held.cpu()?;
        let numbers = &storage.as_slice::<f32>()?[layout.start_offset()..];
        let panels = Panels::new(inner, width, numbers, (layout.stride()[0], layout.stride()[1]));
        Ok(Arc::new(Self { panels, transposed: OnceLock::new() }))
    }

    fn forward(self: &Arc<Self>, x: &Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        let shape = (self.panels.inner(), self.panels.width());
        product(x, shape, Affine { weight: Source::Frozen(self.clone()), bias })
    }

    fn slopes(&self, grad: &Tensor) -> Result<Tensor> {
        let transposed = self.transposed.get_or_init(|| {
            Arc::new(Frozen { panels: self.panels.transposed(), transposed: OnceLock::new() })
        });
        transposed.forward(grad, None)
    }
}

/// A frozen map as a kernel: the weight is no argument of it, so its gradient is never computed.
struct Affine {
    weight: Source,
    bias: Option<Tensor>,
}

/// Where a product's weight comes from. What is widened is not kept: a graph would hold every layer's.
enum Source {
    Frozen(Arc<Frozen>),
    Half(Arc<Half>),
}

impl Source {
    fn wide(&self) -> Result<Arc<Frozen>> {
        match self {
            Self::Frozen(weight) => Ok(weight.clone()),
            Self::Half(weight) => weight.wide(),
        }
    }
}

impl CustomOp1 for Affine {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let bias = self.bias.as_ref().map(Held::new);
        let bias = bias.as_ref().map(Held::floats).transpose()?;
        let weight = self.weight.wide()?;
        let panels = &weight.panels;
        let y = panels.times(floats(x, layout)?, bias);
        Ok((CpuStorage::F32(y), Shape::from((layout.dims()[0], panels.width()))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.weight.wide()?.slopes(grad).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
    use candle_core::Var;
    use rayon::prelude::*;

    fn like(parameter: &Tensor, x: &Tensor) -> Tensor {
        parameter.to_dtype(x.dtype()).unwrap()
    }

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        // Panels and strips that are full and that are not.
        for (rows, inner, width) in [(1, 5, 7), (3, 7, 16), (6, 4, 17), (13, 3, 33)] {
            let (weight, bias) = (noise((inner, width), 1), noise(width, 2));
            let stored = weight.t().unwrap().contiguous().unwrap();
            let x = noise((rows, inner), 3);
            let turned = x.t().unwrap().contiguous().unwrap();
            // In f64 candle multiplies. Gradients are sums of up to 33 products of numbers below 1.
            for weight in [weight, stored.t().unwrap()] {
                let linear = |x: &Tensor, bias: Option<&Tensor>| {
                    // A conversion would make the transposed weight contiguous.
                    let weight = if x.dtype() == weight.dtype() { weight.clone() } else { like(&weight, x) };
                    Linear::new(weight, bias.map(|bias| like(bias, x)))
                };
                check(std::slice::from_ref(&x), 1e-5, |x| linear(&x[0], None)?.forward(&x[0]));
                check(std::slice::from_ref(&x), 1e-5, |x| linear(&x[0], Some(&bias))?.forward(&x[0]));
                check(std::slice::from_ref(&turned), 1e-5, |x| linear(&x[0], None)?.forward(&x[0].t()?));
            }
        }
    }

    /// Several blocks of rows, several of the sum, several tasks.
    #[test]
    fn large_products_are_those_of_candle() {
        let (x, weight, bias) = (noise((500, 700), 1), noise((700, 333), 2), noise(333, 3));
        let ours = Linear::new(weight.clone(), Some(bias.clone())).unwrap().forward(&x).unwrap();
        // 700 products of numbers below 1: sums of a size of about ten.
        assert_close(&ours, &x.matmul(&weight).unwrap().broadcast_add(&bias).unwrap(), 2e-5);
    }

    #[test]
    fn a_row_is_the_same_in_any_company() {
        let linear = Linear::new(noise((700, 100), 1), Some(noise(100, 2))).unwrap();
        let x = noise((300, 700), 3);
        let together = linear.forward(&x).unwrap();
        for (first, rows) in [(0, 1), (5, 2), (7, 3), (100, 4), (200, 5), (37, 250)] {
            let alone = linear.forward(&x.narrow(0, first, rows).unwrap()).unwrap();
            assert_eq!(numbers(&alone), numbers(&together.narrow(0, first, rows).unwrap()));
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let linear = Linear::new(noise((200, 300), 1), Some(noise(300, 2))).unwrap();
        assert_same_on_any_threads(&noise((70, 200), 3), |x| linear.forward(x));
    }

    #[test]
    fn products_may_run_inside_of_products() {
        let (linear, x) = (Linear::new(noise((300, 300), 1), None).unwrap(), noise((60, 300), 2));
        let once = numbers(&linear.forward(&x).unwrap());
        (0..64).into_par_iter().for_each(|_| assert_eq!(numbers(&linear.forward(&x).unwrap()), once));
    }

    #[test]
    fn no_rows_are_no_rows() {
        for (rows, inner, width) in [(0, 5, 7), (3, 0, 7), (3, 5, 0)] {
            let linear = Linear::new(noise((inner, width), 1), None).unwrap();
            let y = linear.forward(&noise((rows, inner), 2)).unwrap();
            assert_eq!((y.dims(), numbers(&y)), (&[rows, width][..], vec![0.0; rows * width]));
        }
    }

    #[test]
    fn only_a_parameter_that_trains_gets_a_gradient() {
        let x = Var::from_tensor(&noise((3, 5), 1)).unwrap();
        let frozen = (noise((5, 7), 2), noise(7, 3));
        let trained = (Var::from_tensor(&frozen.0).unwrap(), Var::from_tensor(&frozen.1).unwrap());
        let slopes = |weight: &Tensor, bias: &Tensor| {
            let linear = Linear::new(weight.clone(), Some(bias.clone())).unwrap();
            let grads = linear.forward(&x).unwrap().sum_all().unwrap().backward().unwrap();
            (grads.get(&x).unwrap().clone(), [weight, bias].map(|t| grads.get(t).is_some()))
        };
        let (to_x, none) = slopes(&frozen.0, &frozen.1);
        assert_eq!(none, [false, false]);
        for (weight, bias) in [(true, true), (true, false), (false, true)] {
            let w: &Tensor = if weight { &trained.0 } else { &frozen.0 };
            let b: &Tensor = if bias { &trained.1 } else { &frozen.1 };
            let (got, given) = slopes(w, b);
            assert_eq!(given, [weight, bias]);
            // Seven products, summed in another order.
            assert_close(&got, &to_x, 1e-6);
        }
    }

    #[test]
    fn columns_are_those_of_the_weight() {
        let weight = noise((5, 37), 1);
        for linear in [weight.clone(), Var::from_tensor(&weight).unwrap().as_tensor().clone()] {
            let linear = Linear::new(linear, None).unwrap();
            let columns = linear.columns(&[36, 0, 16, 15]).unwrap();
            let expected = crate::select(&weight.t().unwrap(), 0, &[36, 0, 16, 15]).unwrap();
            assert_eq!((columns.dims(), numbers(&columns)), (&[4, 5][..], numbers(&expected)));
            assert!(linear.columns(&[37]).is_err());
        }
    }

    #[test]
    fn a_weight_in_16_bits_gives_the_products_of_its_numbers() {
        for dtype in [DType::F16, DType::BF16] {
            let weight = noise((33, 17), 1).to_dtype(dtype).unwrap();
            let (wide, bias) = (weight.to_dtype(DType::F32).unwrap(), Some(noise(17, 2)));
            let x = Var::from_tensor(&noise((9, 33), 3)).unwrap();
            let [half, full] = [weight, wide].map(|weight| Linear::new(weight, bias.clone()).unwrap());
            assert!(half.is_frozen());
            let outcome = |linear: &Linear| {
                let y = linear.forward(&x).unwrap();
                let slopes = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                [numbers(&y), numbers(slopes.get(&x).unwrap()), numbers(&linear.columns(&[16, 0]).unwrap())]
            };
            assert_eq!(outcome(&half), outcome(&full));
            assert!(half.forward(&noise((3, 4), 1)).is_err() && half.columns(&[17]).is_err());
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (weight, bias) = (noise((5, 7), 1), noise(6, 2));
        assert!(Linear::new(weight.clone(), Some(bias)).is_err());
        let linear = Linear::new(weight, None).unwrap();
        assert!(linear.forward(&noise((3, 4), 1)).is_err());
        assert!(linear.forward(&noise((3, 5), 1).to_dtype(candle_core::DType::F64).unwrap()).is_err());
    }
}
