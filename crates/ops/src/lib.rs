//! Tensor kernels of a decoder, as plain functions over [`candle_core::Tensor`].
//!
//! Everything here is differentiable under candle's autograd and works on any device and float
//! type. Rows are the last-but-one axis, features the last one. The kernels are [`Linear`],
//! [`layer_norm`], [`rms_norm`], [`softmax`], [`Activation`] and [`Rope`]; [`select`] and [`replace`] take slices out and put them back.
//!
//! candle-nn's fused versions are deliberately not used: they have no backward pass and drop
//! gradients without a word.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_ops::softmax;
//!
//! let scores = Tensor::new(&[[0f32, f32::NEG_INFINITY], [1.0, 1.0]], &Device::Cpu)?;
//! assert_eq!(softmax(&scores)?.to_vec2::<f32>()?, [[1.0, 0.0], [0.5, 0.5]]);
//! # Ok::<(), candle_core::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod activation;
mod attention;
mod linear;
mod norm;
mod rope;
mod rows;

pub use activation::Activation;
pub use attention::{Query, Ragged, Stretch, add_rows, gather_rows};
pub use linear::{Linear, project};
pub use norm::{layer_norm, rms_norm};
pub use rope::{Rope, Rotation};
pub use rows::{replace, select};

use candle_core::{D, Result, Tensor};

/// Softmax over the last axis: `exp(x − max) / Σ exp(x − max)`.
///
/// `−inf` entries get weight zero. A row of nothing but `−inf` has no softmax and comes out as NaN;
/// callers who can meet one check for it first.
///
/// # Errors
/// When the tensor has no axis.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    // The maximum only shifts the exponent: it cancels in the quotient, so it carries no gradient.
    let max = x.max_keepdim(D::Minus1)?.detach();
    let exp = x.broadcast_sub(&max)?.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?;
    exp.broadcast_div(&sum)
}
