//! Interchange through soft masks.

use super::input::Input;
use crate::Result;
use candle_core::Tensor;

/// b ← (1 − m)·b + m·v with m = σ(mask/t).
pub(super) fn sigmoid_mask(x: &Input<'_>) -> Result<Tensor> {
    blend(&x.base, &x.value()?, &learned(x)?)
}

/// m = σ(mask/t).
pub(super) fn learned(x: &Input<'_>) -> Result<Tensor> {
    sigmoid(&x.parameter("mask")?.broadcast_div(&x.parameter("temperature")?)?)
}

/// mᵢ = σ(i/t)·σ((β·d − i)/t) for coordinates i of `width`: about one up to β·d, about zero past it.
pub(super) fn boundary(x: &Input<'_>, width: usize) -> Result<Tensor> {
    let temperature = x.parameter("temperature")?;
    let i = Tensor::arange(0f32, width as f32, x.base.device())?.to_dtype(x.base.dtype())?;
    // As pyvene has it. Outside the bounds the gradient is none, as in torch.
    let end = (x.parameter("boundary")?.maximum(1e-3)?.minimum(1.0)? * width as f64)?;
    let from_start = sigmoid(&i.broadcast_div(&temperature)?)?;
    let to_end = sigmoid(&end.broadcast_sub(&i)?.broadcast_div(&temperature)?)?;
    Ok((from_start * to_end)?)
}

/// (1 − m)·x + m·y.
pub(super) fn blend(x: &Tensor, y: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let rest = (1.0 - mask)?;
    Ok((x.broadcast_mul(&rest)? + y.broadcast_mul(mask)?)?)
}

/// 1/(1 + e^−x), as ½·(1 + tanh(x/2)): neither it nor its slope overflows.
fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((((x * 0.5)?.tanh()? + 1.0)? * 0.5)?)
}
