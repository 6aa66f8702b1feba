//! What the functions of the table compute with: an operation, and the numbers of one cell.

use super::operation::Operation;
use crate::{Error, Result};
use candle_core::Tensor;

/// What an op computes with: rows of width d, where it is one of rows.
pub(super) struct Input<'a> {
    pub(super) op: &'a Operation,
    pub(super) scale: f64,
    pub(super) base: Tensor,
    pub(super) value: Option<Tensor>,
}

impl Input<'_> {
    /// The value, as wide as the base.
    pub(super) fn value(&self) -> Result<Tensor> {
        self.value.clone().ok_or_else(|| Error::part(self.op.info().name, "needs a value"))
    }

    /// A value times the scale. A scale of 1 is left out, so that adding −inf to a score stays exact.
    pub(super) fn scaled(&self, x: Tensor) -> Result<Tensor> {
        Ok(if self.scale == 1.0 { x } else { (x * self.scale)? })
    }

    /// A parameter; its default where it was left out.
    pub(super) fn parameter(&self, name: &'static str) -> Result<Tensor> {
        if let Some(tensor) = self.op.parameters.get(name) {
            return Ok(tensor.clone());
        }
        let info = self.op.info();
        let default = info.parameter(name).and_then(|parameter| parameter.default);
        let missing = || Error::part(info.name, format!("needs the parameter \"{name}\""));
        let default = default.ok_or_else(missing)? as f32;
        Ok(Tensor::new(default, self.base.device())?.to_dtype(self.base.dtype())?)
    }

    /// Coordinates with those of the subspace taken from `other`.
    pub(super) fn exchanged(&self, own: &Tensor, other: &Tensor) -> Result<Tensor> {
        Ok(match &self.op.subspace {
            None => other.clone(),
            Some(subspace) => {
                let taken = causalcone_ops::select(other, 1, subspace)?;
                causalcone_ops::replace(own, 1, subspace, &taken)?
            }
        })
    }
}
