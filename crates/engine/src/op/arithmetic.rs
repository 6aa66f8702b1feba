//! Ops that add to the activation, scale it, or change it along a direction.

use super::input::Input;
use crate::Result;
use candle_core::{D, Tensor};

/// b ← b + c·v. Noise comes as a constant too: ε is drawn when an edit is resolved.
pub(super) fn add(x: &Input<'_>) -> Result<Tensor> {
    Ok((&x.base + x.scaled(x.value()?)?)?)
}

/// b ← b − c·v.
pub(super) fn subtract(x: &Input<'_>) -> Result<Tensor> {
    Ok((&x.base - x.scaled(x.value()?)?)?)
}

/// b ← c·b.
pub(super) fn scale(x: &Input<'_>) -> Result<Tensor> {
    x.scaled(x.base.clone())
}

/// b ← b + (clamp(b·u, min, max) − b·u)·u.
pub(super) fn clamp(x: &Input<'_>) -> Result<Tensor> {
    let (direction, along) = coordinate(x)?;
    let mut capped = along.clone();
    if let Some(min) = x.op.settings.min() {
        capped = capped.maximum(min)?;
    }
    if let Some(max) = x.op.settings.max() {
        capped = capped.minimum(max)?;
    }
    Ok((&x.base + direction.broadcast_mul(&(capped - along)?)?)?)
}

/// b ← b − (b·u)·u.
pub(super) fn project_out(x: &Input<'_>) -> Result<Tensor> {
    let (direction, along) = coordinate(x)?;
    Ok((&x.base - direction.broadcast_mul(&along)?)?)
}

/// The unit vector u along the value of each row, and b·u.
fn coordinate(x: &Input<'_>) -> Result<(Tensor, Tensor)> {
    let value = x.value()?;
    // Scaled by its largest number first, so that the squares of huge and tiny vectors stay in range.
    let largest = value.abs()?.max_keepdim(D::Minus1)?.detach();
    let value = value.broadcast_div(&largest)?;
    let unit = value.broadcast_div(&value.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?;
    let along = (&x.base * &unit)?.sum_keepdim(D::Minus1)?;
    Ok((unit, along))
}
