//! The interventions: what an edit does to the activations it names.
//!
//! One table ([`OPS`]) drives names, documentation and parsing; there is a file for each group of ops.
//! An [`Op`] is what somebody asks for; checked against what it is to edit it becomes an [`Operation`],
//! which computes.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_engine::op::{Op, OpKind};
//!
//! // An interchange in the plane of two directions, learned elsewhere.
//! let rotation = Tensor::new(&[[1f32, 0.0], [0.0, 1.0], [0.0, 0.0]], &Device::Cpu)?;
//! let value = Tensor::new(&[5f32, 6.0, 7.0], &Device::Cpu)?;
//! let op = Op::new(OpKind::LowRankSwap).value(value.clone()).parameter("rotation", rotation);
//!
//! let base = Tensor::new(&[[1f32, 2.0, 3.0]], &Device::Cpu)?;
//! let operation = op.operation(3, None)?;
//! assert_eq!(operation.apply(op.scale, &base, Some(&value))?.to_vec2::<f32>()?, [[5.0, 6.0, 3.0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arithmetic;
mod asked;
mod bound;
mod check;
mod compute;
mod dictionary;
mod draw;
mod input;
mod joint;
mod kind;
mod mask;
pub mod noise;
mod operation;
mod parameters;
mod reft;
mod replace;
mod rotation;
mod table;

pub use asked::{Align, Custom, Op, Source, Value};
pub use bound::Bound;
pub(crate) use draw::completed;
pub use joint::Joint;
pub use kind::{Axis, OpKind, ParameterInfo, Setting, Subspace, Takes};
pub use operation::Operation;
pub(crate) use operation::OperationKey;
pub use parameters::{Parameters, Problem, Settings};
pub use table::{OPS, OpInfo};

#[cfg(test)]
mod tests;
