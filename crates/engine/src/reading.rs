//! What executors give back.

use candle_core::Tensor;

/// What a read gave.
#[derive(Debug, Clone)]
pub enum Reading {
    /// One number a token.
    Logits(Tensor),
    /// The block's numbers: positions × width, positions × heads × width on head sites, heads ×
    /// query rows × key columns on attention matrices.
    Activation(Tensor),
}
