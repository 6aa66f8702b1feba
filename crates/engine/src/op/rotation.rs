//! Interchange in another basis.

use super::input::Input;
use super::mask::{blend, boundary, learned};
use crate::Result;
use candle_core::Tensor;
use causalcone_ops::select;

/// b ← (b·R with the coordinates of the subspace taken from v·R)·Rᵀ.
pub(super) fn rotated_swap(x: &Input<'_>) -> Result<Tensor> {
    rotated(x, |base, value| x.exchanged(base, value))
}

/// b ← b + (v·R − b·R)·Rᵀ over the columns of the subspace.
pub(super) fn low_rank_swap(x: &Input<'_>) -> Result<Tensor> {
    let mut rotation = x.parameter("rotation")?;
    if let Some(subspace) = &x.op.subspace {
        rotation = select(&rotation, 1, subspace)?;
    }
    let difference = (x.value()? - &x.base)?.matmul(&rotation)?;
    Ok((&x.base + difference.matmul(&rotation.t()?)?)?)
}

/// The same through the mask of a boundary.
pub(super) fn boundless_swap(x: &Input<'_>) -> Result<Tensor> {
    rotated(x, |base, value| blend(base, value, &boundary(x, base.dim(1)?)?))
}

/// The same through a mask of its own for each coordinate.
pub(super) fn sigmoid_mask_rotated(x: &Input<'_>) -> Result<Tensor> {
    rotated(x, |base, value| blend(base, value, &learned(x)?))
}

/// b ← f(b·R, v·R)·Rᵀ.
fn rotated(x: &Input<'_>, f: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let rotation = x.parameter("rotation")?;
    let mixed = f(&x.base.matmul(&rotation)?, &x.value()?.contiguous()?.matmul(&rotation)?)?;
    Ok(mixed.matmul(&rotation.t()?)?)
}

/// b ← (z(b)·Cᵀ with the coordinates of the subspace taken from z(v)·Cᵀ)·C·std + mean.
pub(super) fn pca_swap(x: &Input<'_>) -> Result<Tensor> {
    let (components, mean, std) = (x.parameter("components")?, x.parameter("mean")?, x.parameter("std")?);
    let coordinates = |x: &Tensor| -> Result<Tensor> {
        Ok(x.broadcast_sub(&mean)?.broadcast_div(&std)?.matmul(&components.t()?)?)
    };
    let mixed = x.exchanged(&coordinates(&x.base)?, &coordinates(&x.value()?)?)?;
    Ok(mixed.matmul(&components)?.broadcast_mul(&std)?.broadcast_add(&mean)?)
}
