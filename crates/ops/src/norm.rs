//! Normalisation over the feature axis.

use candle_core::{D, Result, Tensor};

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
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    rms_norm(&centred, weight, eps)?.broadcast_add(bias)
}

/// Root-mean-square normalisation: `x / sqrt(mean(x²) + eps) · weight` over the last axis.
///
/// # Errors
/// When the weight does not have the width of `x`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    x.broadcast_div(&rms)?.broadcast_mul(weight)
}
