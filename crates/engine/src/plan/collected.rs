//! Activations and gradients that were read.

use crate::metric::Metric;
use crate::plan::{Place, Plan, Read};
use candle_core::Tensor;
use std::sync::Arc;

/// Activations read by a `collect` edit, or a gradient with respect to them.
#[derive(Debug, Clone)]
pub struct Collected {
    /// The run they were read from.
    pub run: Arc<str>,
    /// Where.
    pub place: Place,
    /// Of which metric they are the gradient; `None` for the activations themselves.
    pub gradient: Option<Metric>,
    /// Positions × width; positions × heads × width on head sites; heads × query rows × key columns
    /// on attention matrices.
    pub tensor: Tensor,
}

impl Collected {
    /// What a read of activations or of a gradient gave.
    pub(crate) fn new(plan: &Plan, read: &Read, tensor: Tensor) -> Option<Self> {
        let (run, place, gradient) = match read {
            Read::Activation { run, place } => (*run, place, None),
            Read::Gradient(of) => (of.run, &of.place, Some(of.metric)),
            Read::Logits { .. } => return None,
        };
        Some(Self { run: plan.runs[run].name.clone(), place: place.clone(), gradient, tensor })
    }
}
