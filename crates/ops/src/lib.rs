//! Tensor kernels of a decoder, as plain functions over [`candle_core::Tensor`].
//!
//! Everything here is differentiable under candle's autograd and works on any device and float type.
//! Rows are the last-but-one axis, features the last one. The kernels are [`Linear`], [`layer_norm`],
//! [`rms_norm`], [`softmax`], [`softcap`], [`Activation`], [`Rope`], attention over ragged lists of keys ([`Ragged`]),
//! and the sums and products [`add`], [`multiply`] and [`add_rows`]; [`gather_rows`], [`select`] and
//! [`replace`] take rows and slices out and put them back; [`log_sum_exp`] and [`divergence`] read rows of logits, [`cross_entropy`]
//! and [`kl_divergence`] are their losses.
//!
//! On the CPU and in f32 they run vectorised on all threads, with gradients computed by formula; their
//! results do not depend on the number of threads. Elsewhere, and wherever a parameter trains, they are
//! composed of candle's own operations.
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
mod blocks;
mod distribution;
mod elementwise;
mod held;
mod kernel;
mod linear;
mod loss;
mod norm;
mod orthogonal;
mod packed;
mod panels;
mod product;
mod rope;
mod rows;
mod simd;
mod softcap;
mod softmax;
#[cfg(test)]
mod testing;

pub use activation::Activation;
pub use attention::{Query, Ragged, Stretch};
pub use blocks::Blocks;
pub use distribution::{divergence, log_sum_exp};
pub use elementwise::{add, multiply};
pub use held::{full_bytes, half_bytes, packed_bytes};
pub use linear::Linear;
pub use loss::{cross_entropy, cross_entropy_behind, kl_divergence};
pub use norm::{layer_norm, rms_norm};
pub use orthogonal::{cayley, distance_from_orthogonal, exponential, householder};
pub use rope::{Rope, Rotation, Standing};
pub use rows::{add_rows, gather_rows, replace, select};
pub use softcap::softcap;
pub use softmax::softmax;
