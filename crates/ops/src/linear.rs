//! The affine map `x·W + b`.

use crate::blocks::Blocks;
use crate::kernel::{Held, floats, is_fast, is_trained};
use crate::packed::Packed;
use crate::panels::Panels;
use crate::product::{self, PANEL, Product};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// An affine map with its weight in × out and an optional bias.
///
/// A frozen weight (f32 on the CPU, not followed by autograd) is copied into the layout its products read, so the
/// tensor given can be dropped; the transposed copy that gradients need is made when the first of them is computed.
/// Every row's products are then the same to the bit, whatever other rows there are and however many threads. One in 16
/// bits stays so, and is widened for each product: the same numbers in half the memory. A quantised one
/// ([`packed`](Self::packed)) is widened in registers. Other weights are kept as they are, and multiplied by candle.
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
    Plain(Tensor),
}

impl Linear {
    /// Takes a weight of shape (in, out), any strides, and a bias of shape (out).
    ///
    /// # Errors
    /// When the weight is no matrix, or the bias is not of its second width.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let shape = weight.dims2()?;
        let is_frozen = !is_trained([&weight]) && weight.elem_count() > 0;
        let weight = if is_frozen && is_half(&weight) {
            Weight::Frozen(Frozen::new(Store::Half(weight.t()?.contiguous()?)))
        } else if is_frozen && is_fast([&weight]) {
            Weight::Frozen(Frozen::new(Store::Full(panels(&weight)?)))
        } else {
            Weight::Plain(weight)
        };
        Self { weight, bias: None }.with_bias(shape, bias)
    }

    /// Takes a quantised weight that never trains: the blocks of each column as a row of bytes, out × bytes, and a bias of
    /// shape (out). The answers are those of the widened weight but for the order of sums.
    ///
    /// ```
    /// use candle_core::{Device, Tensor, quantized::GgmlDType};
    /// use causalcone_ops::{Blocks, Linear};
    ///
    /// let blocks = Blocks::of(GgmlDType::Q8_0).expect("a type with scales");
    /// // One column of 32 numbers: scale 1 in IEEE half, and codes of 2.
    /// let bytes: Vec<u8> = [0x00, 0x3c].into_iter().chain([2; 32]).collect();
    /// let linear = Linear::packed(&Tensor::from_vec(bytes, (1, 34), &Device::Cpu)?, blocks, None)?;
    /// let y = linear.forward(&Tensor::ones((1, 32), candle_core::DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[64.0]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the rows are not whole blocks in bytes, there is none, or the bias is not of their number.
    pub fn packed(rows: &Tensor, blocks: Blocks, bias: Option<Tensor>) -> Result<Self> {
        let (width, bytes) = rows.dims2()?;
        if width == 0 || bytes == 0 || bytes % blocks.bytes() != 0 {
            bail!("{width} rows of {bytes} bytes are no blocks of {} bytes", blocks.bytes());
        }
        let inner = bytes / blocks.bytes() * blocks.numbers();
        let rows = rows.contiguous()?;
        let held = Held::new(&rows);
        let (storage, layout) = held.cpu()?;
        let bytes = &storage.as_slice::<u8>()?[layout.start_offset()..][..width * bytes];
        let Some(packed) = Packed::new(bytes, blocks, inner, width) else {
            bail!("there is no layout for blocks like these: {blocks:?}");
        };
        let store = Store::Packed(packed);
        Self { weight: Weight::Frozen(Frozen::new(store)), bias: None }.with_bias((inner, width), bias)
    }

    fn with_bias(self, (inner, width): (usize, usize), bias: Option<Tensor>) -> Result<Self> {
        if let Some(bias) = bias.as_ref().filter(|bias| bias.dims() != [width]) {
            bail!("a bias of shape {:?} does not fit a weight of {inner} × {width}", bias.shape());
        }
        Ok(Self { bias, ..self })
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
            (Weight::Frozen(weight), _) => weight.forward(x, None)?,
            (Weight::Plain(weight), _) => x.matmul(weight)?,
        };
        self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
    }

    /// The same rows through several maps, each to the bit as [`forward`](Self::forward) would have it: they share one
    /// pass over the threads, which matters where there are few rows.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_all(maps: &[&Self], x: &Tensor) -> Result<Vec<Tensor>> {
        let frozen = maps.iter().map(|map| match &map.weight {
            Weight::Frozen(weight) => weight.product().map(|product| (weight, product)),
            Weight::Plain(_) => None,
        });
        let biases = maps.iter().flat_map(|map| &map.bias);
        let is_plain = is_fast(biases.clone().chain([x])) && !is_trained(biases.chain([x]));
        let Some(frozen) = frozen.collect::<Option<Vec<_>>>().filter(|_| is_plain && maps.len() > 1) else {
            return maps.iter().map(|map| map.forward(x)).collect();
        };
        let x = x.contiguous()?;
        for (weight, _) in &frozen {
            weight.check(&x)?;
        }
        let (rows, inner) = x.dims2()?;
        let held = Held::new(&x);
        let biases: Vec<Option<Tensor>> = maps
            .iter()
            .map(|map| map.bias.as_ref().map(Tensor::contiguous).transpose())
            .collect::<Result<_>>()?;
        let biases: Vec<Option<Held<'_>>> = biases.iter().map(|bias| bias.as_ref().map(Held::new)).collect();
        let mut products: Vec<(&dyn Product, Option<&[f32]>)> = Vec::with_capacity(maps.len());
        for ((_, product), bias) in frozen.iter().zip(&biases) {
            products.push((*product, bias.as_ref().map(Held::floats).transpose()?));
        }
        let widths: Vec<usize> = products.iter().map(|(product, _)| product.shape().1).collect();
        let made = product::products(&products, held.floats()?, inner).into_iter().zip(widths);
        made.map(|(numbers, width)| Tensor::from_vec(numbers, (rows, width), &Device::Cpu)).collect()
    }

    /// Bytes that the weight takes in memory, its transpose for gradients and the bias not counted:
    /// [`full_bytes`](crate::full_bytes), [`half_bytes`](crate::half_bytes) or [`packed_bytes`](crate::packed_bytes).
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Frozen(weight) => match &weight.store {
                Store::Full(panels) => panels.bytes(),
                Store::Half(rows) => rows.elem_count() * rows.dtype().size_in_bytes(),
                Store::Packed(packed) => packed.bytes(),
            },
            Weight::Plain(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
        }
    }

    /// Whether its weight never trains.
    pub(crate) fn is_frozen(&self) -> bool {
        !matches!(self.weight, Weight::Plain(_))
    }

    /// The slopes of rows that went in, given those of the rows that came out.
    pub(crate) fn slopes(&self, grad: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Frozen(weight) => weight.slopes(grad),
            Weight::Plain(weight) => grad.matmul(&weight.t()?),
        }
    }

    /// Some columns of the weight as rows, n × in: of an unembedding, the rows of some tokens.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn columns(&self, columns: &[u32]) -> Result<Tensor> {
        match &self.weight {
            Weight::Frozen(weight) => weight.columns(columns),
            Weight::Plain(weight) => {
                weight.t()?.contiguous()?.index_select(&Tensor::new(columns, weight.device())?, 0)
            }
        }
    }
}

/// A weight that never trains.
#[derive(Debug)]
struct Frozen {
    store: Store,
    /// The weight of gradients, where all is held in f32.
    transposed: OnceLock<Arc<Frozen>>,
}

/// How its numbers are held.
#[derive(Debug)]
enum Store {
    Full(Panels),
    /// In 16 bits, out × in.
    Half(Tensor),
    Packed(Packed),
}

/// Whether a weight is in 16 bits, and can be widened here.
fn is_half(weight: &Tensor) -> bool {
    matches!(weight.dtype(), DType::F16 | DType::BF16) && weight.device().is_cpu()
}

/// A copy of a weight, in × out, any strides.
fn panels(weight: &Tensor) -> Result<Panels> {
    let (inner, width) = weight.dims2()?;
    let held = Held::new(weight);
    let (storage, layout) = held.cpu()?;
    let numbers = &storage.as_slice::<f32>()?[layout.start_offset()..];
    Ok(Panels::new(inner, width, numbers, (layout.stride()[0], layout.stride()[1])))
}

impl Frozen {
    fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store, transposed: OnceLock::new() })
    }

    /// In × out.
    fn shape(&self) -> Result<(usize, usize)> {
        match &self.store {
            Store::Full(panels) => Ok(panels.shape()),
            Store::Half(rows) => rows.t()?.dims2(),
            Store::Packed(packed) => Ok(packed.shape()),
        }
    }

    /// The same numbers in f32, for one product: a graph would hold every layer's.
    fn wide(&self) -> Result<Panels> {
        if let Store::Half(rows) = &self.store {
            return panels(&rows.to_dtype(DType::F32)?.t()?);
        }
        let (_, width) = self.shape()?;
        let all: Vec<u32> = (0..).take(width).collect();
        panels(&self.columns(&all)?.t()?)
    }

    /// That rows are as wide as they should be.
    fn check(&self, x: &Tensor) -> Result<()> {
        let (inner, width) = self.shape()?;
        let (_, given) = x.dims2()?;
        if given != inner {
            bail!("rows of width {given} do not fit a weight of {inner} × {width}");
        }
        if !is_fast([x]) {
            bail!("a frozen weight takes rows in f32 on the CPU, not {:?}", x.dtype());
        }
        Ok(())
    }

    fn forward(self: &Arc<Self>, x: &Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        self.check(x)?;
        x.contiguous()?.apply_op1(Affine { weight: self.clone(), bias })
    }

    /// What rows can be multiplied by as it is held.
    fn product(&self) -> Option<&dyn Product> {
        match &self.store {
            Store::Full(panels) => Some(panels),
            Store::Half(_) => None,
            Store::Packed(packed) => Some(packed),
        }
    }

    fn times(&self, x: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let (inner, _) = self.shape()?;
        let times = |product: &dyn Product| product::products(&[(product, bias)], x, inner).remove(0);
        match (&self.store, self.product()) {
            (_, Some(product)) => Ok(times(product)),
            (Store::Half(rows), None) => times_half(rows, x, bias, WIDENED),
            _ => Ok(times(&self.wide()?)),
        }
    }

    fn slopes(&self, grad: &Tensor) -> Result<Tensor> {
        let turned = |panels: &Panels| Self::new(Store::Full(panels.transposed()));
        match &self.store {
            Store::Full(panels) => self.transposed.get_or_init(|| turned(panels)).forward(grad, None),
            Store::Half(_) | Store::Packed(_) => turned(&self.wide()?).forward(grad, None),
        }
    }

    fn columns(&self, columns: &[u32]) -> Result<Tensor> {
        let (inner, width) = self.shape()?;
        if let Some(column) = columns.iter().find(|column| **column as usize >= width) {
            bail!("there is no column {column} in a weight of {inner} × {width}");
        }
        let listed = |product: &dyn Product| {
            let numbers = columns.iter().flat_map(|column| product.column(*column as usize)).collect();
            Tensor::from_vec(numbers, (columns.len(), inner), &Device::Cpu)
        };
        match &self.store {
            Store::Full(panels) => listed(panels),
            Store::Packed(packed) => listed(packed),
            Store::Half(rows) => {
                rows.index_select(&Tensor::new(columns, rows.device())?, 0)?.to_dtype(DType::F32)
            }
        }
    }
}

/// Numbers of a weight in 16 bits that are widened at a time. An unembedding as a whole would take gigabytes.
const WIDENED: usize = 1 << 24;

/// x·W + b of a weight in 16 bits (out × in), widened some columns at a time: the sums are the same as those of the
/// whole, since no sum depends on the columns around it.
fn times_half(rows: &Tensor, x: &[f32], bias: Option<&[f32]>, at_once: usize) -> Result<Vec<f32>> {
    let (width, inner) = rows.dims2()?;
    let columns = (at_once / inner.max(1)).max(1).next_multiple_of(PANEL);
    let widened = |first: usize, count: usize| {
        let panels = panels(&rows.narrow(0, first, count)?.to_dtype(DType::F32)?.t()?)?;
        let bias = bias.map(|bias| &bias[first..first + count]);
        Ok(product::products(&[(&panels, bias)], x, inner).remove(0))
    };
    if columns >= width {
        return widened(0, width);
    }
    let mut out = vec![0.0; x.len() / inner * width];
    for first in (0..width).step_by(columns) {
        let count = columns.min(width - first);
        let part: Vec<f32> = widened(first, count)?;
        for (out, part) in out.chunks_exact_mut(width).zip(part.chunks_exact(count)) {
            out[first..first + count].copy_from_slice(part);
        }
    }
    Ok(out)
}

/// A frozen map as a kernel: the weight is no argument of it, so its gradient is never computed.
struct Affine {
    weight: Arc<Frozen>,
    bias: Option<Tensor>,
}

impl CustomOp1 for Affine {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let bias = self.bias.as_ref().map(Held::new);
        let bias = bias.as_ref().map(Held::floats).transpose()?;
        let (_, width) = self.weight.shape()?;
        let y = self.weight.times(floats(x, layout)?, bias)?;
        Ok((CpuStorage::F32(y), Shape::from((layout.dims()[0], width))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.weight.slopes(grad).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::random_blocks;
    use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
    use candle_core::Var;
    use candle_core::quantized::{GgmlDType, QTensor};
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

    /// Every type of blocks, several of each; widths that fill their panels and that do not.
    #[test]
    fn packed_products_are_those_of_the_widened_weight() {
        use GgmlDType::*;
        let known = [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K];
        for blocks in Blocks::all() {
            for (inner, width) in [(256, 1), (512, 16), (768, 83), (256, 150)] {
                let bias = noise(width, 2);
                let (bytes, wide, scale) =
                    match known.iter().find(|known| Blocks::of(**known) == Some(blocks)) {
                        Some(known) => {
                            let full = QTensor::quantize(&noise((width, inner), 1), *known).unwrap();
                            (full.data().unwrap().into_owned(), full.dequantize(&Device::Cpu).unwrap(), 1.0)
                        }
                        // candle does not have it. Weights are large, so x is small, by a power of two.
                        None => {
                            let bytes = random_blocks(blocks, width * inner / blocks.numbers());
                            let numbers = blocks.widen(&bytes);
                            let largest = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
                            let wide = Tensor::from_vec(numbers, (width, inner), &Device::Cpu).unwrap();
                            (bytes, wide, f64::from((-largest.log2().ceil()).exp2()))
                        }
                    };
                let rows =
                    Tensor::from_vec(bytes.clone(), (width, bytes.len() / width), &Device::Cpu).unwrap();
                let wide = Linear::new(wide.t().unwrap(), Some(bias.clone())).unwrap();
                let packed = Linear::packed(&rows, blocks, Some(bias)).unwrap();
                assert!(packed.is_frozen());
                let last = u32::try_from(width).unwrap() - 1;
                let columns = |linear: &Linear| numbers(&linear.columns(&[last, 0]).unwrap());
                assert_eq!(columns(&packed), columns(&wide), "{blocks:?}");
                let x = (noise((100, inner), 3) * scale).unwrap();
                let together = packed.forward(&x).unwrap();
                // Up to 768 products of numbers below 1, codes times scales in another order.
                assert_close(&together, &wide.forward(&x).unwrap(), 2e-5);
                for (first, rows) in [(0, 1), (5, 2), (7, 3), (50, 4), (10, 5), (37, 60)] {
                    let alone = packed.forward(&x.narrow(0, first, rows).unwrap()).unwrap();
                    assert_eq!(numbers(&alone), numbers(&together.narrow(0, first, rows).unwrap()));
                }
                let slopes = |linear: &Linear| numbers(&linear.slopes(&noise((3, width), 4)).unwrap());
                assert_eq!(slopes(&packed), slopes(&wide), "{blocks:?}");
                assert!(packed.columns(&[last + 1]).is_err() && packed.forward(&noise((3, 4), 1)).is_err());
            }
        }
        let rows = Tensor::zeros((3, 35), DType::U8, &Device::Cpu).unwrap();
        let blocks = Blocks::of(Q8_0).unwrap();
        assert!(Linear::packed(&rows, blocks, None).is_err(), "no whole blocks");
        let rows = rows.narrow(1, 0, 34).unwrap();
        assert!(Linear::packed(&rows, blocks, Some(noise(4, 1))).is_err(), "a bias of another width");
        assert!(Linear::packed(&rows, blocks, Some(noise(3, 1))).is_ok());
    }

    #[test]
    fn several_maps_at_once_are_each_of_them() {
        let full = QTensor::quantize(&noise((83, 256), 1), GgmlDType::Q4_1).unwrap();
        let bytes = full.data().unwrap().into_owned();
        let rows = Tensor::from_vec(bytes, (83, 160), &Device::Cpu).unwrap();
        let packed = Linear::packed(&rows, Blocks::of(GgmlDType::Q4_1).unwrap(), Some(noise(83, 5))).unwrap();
        let plain = Linear::new(noise((256, 150), 2), None).unwrap();
        let trained =
            Linear::new(Var::from_tensor(&noise((256, 9), 4)).unwrap().as_tensor().clone(), None).unwrap();
        let half = Linear::new(noise((256, 20), 6).to_dtype(DType::BF16).unwrap(), None).unwrap();
        for rows in [1, 2, 7, 300] {
            let x = noise((rows, 256), 3);
            for maps in [[&packed, &plain], [&plain, &plain], [&plain, &trained], [&half, &packed]] {
                let together = Linear::forward_all(&maps, &x).unwrap();
                for (map, y) in maps.iter().zip(together) {
                    assert_eq!(numbers(&map.forward(&x).unwrap()), numbers(&y));
                    assert_eq!(map.forward(&x).unwrap().dims(), y.dims());
                }
            }
        }
        let x = Var::from_tensor(&noise((2, 256), 3)).unwrap();
        let y = &Linear::forward_all(&[&packed, &plain], x.as_tensor()).unwrap()[0];
        assert!(y.sum_all().unwrap().backward().unwrap().get(&x).is_some(), "a gradient is lost");
        assert!(Linear::forward_all(&[&packed, &plain], &noise((2, 255), 3)).is_err());
    }

    #[test]
    fn packed_products_are_the_same_on_any_threads() {
        let full = QTensor::quantize(&noise((300, 256), 1), GgmlDType::Q4_1).unwrap();
        let bytes = full.data().unwrap().into_owned();
        let rows = Tensor::from_vec(bytes, (300, 160), &Device::Cpu).unwrap();
        let linear = Linear::packed(&rows, Blocks::of(GgmlDType::Q4_1).unwrap(), None).unwrap();
        assert_same_on_any_threads(&noise((70, 256), 3), |x| linear.forward(x));
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
    fn columns_that_are_widened_apart_give_the_same_sums() {
        let (inner, width) = (40, 101);
        let rows = noise((width, inner), 1).to_dtype(DType::BF16).unwrap();
        let bias = numbers(&noise(width, 2));
        // Many panels side by side, one panel at a time, and a last part that is no whole panel.
        for count in [1, 9, 13] {
            let x = numbers(&noise((count, inner), 3));
            let whole = times_half(&rows, &x, Some(&bias), usize::MAX / 2).unwrap();
            for at_once in [1, 16 * inner, 48 * inner] {
                assert_eq!(times_half(&rows, &x, Some(&bias), at_once).unwrap(), whole, "{at_once}");
            }
        }
    }

    #[test]
    fn bytes_are_known_before_there_is_a_weight() {
        for (inner, width) in [(256, 1), (512, 16), (768, 83)] {
            let full = Linear::new(noise((inner, width), 1), None).unwrap();
            // Panels begin where a line of the cache does, which takes up to 64 bytes.
            let over = full.bytes() as u64 - crate::full_bytes(inner, width);
            assert!(over <= 64, "{inner} × {width}: {over}");
            let half = Linear::new(noise((inner, width), 1).to_dtype(DType::F16).unwrap(), None).unwrap();
            assert_eq!(half.bytes() as u64, crate::half_bytes(inner, width));
            use GgmlDType::*;
            for dtype in [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K, Q8K] {
                let blocks = Blocks::of(dtype).unwrap();
                let bytes = inner / blocks.numbers() * blocks.bytes();
                let rows = Tensor::zeros((width, bytes), DType::U8, &Device::Cpu).unwrap();
                let packed = Linear::packed(&rows, blocks, None).unwrap();
                let predicted = crate::packed_bytes(inner, width, blocks).unwrap();
                assert_eq!(packed.bytes() as u64, predicted, "{dtype:?}, {inner} × {width}");
            }
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
