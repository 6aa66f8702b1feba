//! Representation fine-tuning: low-rank changes computed from the activation itself.

use super::input::Input;
use crate::Result;
use candle_core::Tensor;

/// b ← b + (a(b·Wᵀ + bias) − b·R)·Rᵀ.
pub(super) fn loreft(x: &Input<'_>) -> Result<Tensor> {
    let rotation = x.parameter("rotation")?;
    let own = x.base.matmul(&rotation)?;
    along(x, &(target(x)? - own)?, &rotation.t()?)
}

/// b ← b + (a(b·Wᵀ + bias) − (b·Pᵀ + q))·P.
pub(super) fn noreft(x: &Input<'_>) -> Result<Tensor> {
    let projection = x.parameter("projection")?;
    let own = x.base.matmul(&projection.t()?)?.broadcast_add(&x.parameter("projection_bias")?)?;
    along(x, &(target(x)? - own)?, &projection)
}

/// b ← b + a(b·Wᵀ + bias)·Rᵀ.
pub(super) fn direft(x: &Input<'_>) -> Result<Tensor> {
    along(x, &target(x)?, &x.parameter("rotation")?.t()?)
}

/// b ← b + (s − b·R)·Rᵀ.
pub(super) fn consreft(x: &Input<'_>) -> Result<Tensor> {
    let rotation = x.parameter("rotation")?;
    let own = x.base.matmul(&rotation)?;
    let difference = x.parameter("source")?.broadcast_as(own.shape())?.sub(&own)?;
    along(x, &difference, &rotation.t()?)
}

/// b ← b + s·Rᵀ.
pub(super) fn lobireft(x: &Input<'_>) -> Result<Tensor> {
    along(x, &x.parameter("source")?.unsqueeze(0)?, &x.parameter("rotation")?.t()?)
}

/// b ← b + a(b·Wᵀ + bias)·P.
pub(super) fn nodireft(x: &Input<'_>) -> Result<Tensor> {
    along(x, &target(x)?, &x.parameter("projection")?)
}

/// a(b·Wᵀ + bias).
fn target(x: &Input<'_>) -> Result<Tensor> {
    let linear = x.base.matmul(&x.parameter("weight")?.t()?)?.broadcast_add(&x.parameter("bias")?)?;
    Ok(match x.op.settings.activation {
        Some(activation) => activation.forward(&linear)?,
        None => linear,
    })
}

/// b + coordinates · directions.
fn along(x: &Input<'_>, coordinates: &Tensor, directions: &Tensor) -> Result<Tensor> {
    Ok(x.base.broadcast_add(&coordinates.matmul(directions)?)?)
}
