//! From an op with all it needs to its result.

use super::input::Input;
use super::joint::Joint;
use super::operation::Operation;
use super::table::OpInfo;
use crate::Result;
use candle_core::Tensor;
use std::fmt;

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)?;
        match &self.subspace {
            Some(subspace) => write!(f, " in {subspace:?}"),
            None => Ok(()),
        }
    }
}

impl Operation {
    /// Its row of the table.
    pub fn info(&self) -> &'static OpInfo {
        self.kind.info()
    }

    /// Computes the op: `base` and the result have one shape (positions × width; positions × heads ×
    /// width on head sites; heads × query rows × key columns on attention matrices), `value` one that
    /// broadcasts to it. Differentiable in both and in the parameters.
    ///
    /// # Errors
    /// When a kind that needs a value has none, a closure fails or changes the shape, or parameters
    /// do not fit the width.
    pub fn apply(&self, scale: f64, base: &Tensor, value: Option<&Tensor>) -> Result<Tensor> {
        let info = self.info();
        let value = value.map(|value| value.broadcast_as(base.shape())).transpose()?;
        if !info.is_of_rows {
            return (info.compute)(&Input { op: self, scale, base: base.clone(), value });
        }
        let rows = |x: &Tensor| Joint::rows(self.joint, x);
        let value = value.as_ref().map(rows).transpose()?;
        let new = (info.compute)(&Input { op: self, scale, base: rows(base)?, value })?;
        Ok(Joint::put_back(self.joint, &new, base.dims())?)
    }
}
