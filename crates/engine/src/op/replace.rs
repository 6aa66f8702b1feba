//! Ops that put something else where the activation stood.

use super::input::Input;
use crate::{Error, Result};
use candle_core::Tensor;

/// b ← v.
pub(super) fn value(x: &Input<'_>) -> Result<Tensor> {
    x.value()
}

/// b ← 0.
pub(super) fn zero(x: &Input<'_>) -> Result<Tensor> {
    Ok(x.base.zeros_like()?)
}

/// b ← b.
pub(super) fn same(x: &Input<'_>) -> Result<Tensor> {
    Ok(x.base.clone())
}

/// b ← f(b).
pub(super) fn closure(x: &Input<'_>) -> Result<Tensor> {
    let f = x.op.custom.as_ref().ok_or_else(|| Error::part("custom", "needs a closure"))?;
    let new = f(&x.base)?;
    if new.dims() != x.base.dims() {
        let problem = format!("the closure turned shape {:?} into {:?}", x.base.dims(), new.dims());
        return Err(Error::part("custom", problem));
    }
    Ok(new)
}
