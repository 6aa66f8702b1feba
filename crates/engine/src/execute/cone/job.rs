//! What is run: a plan, and all that running it takes.

use crate::cone::ConePlan;
use crate::op::Bound;
use crate::plan::Plan;
use causalcone_model::Model;

/// What runs by a plan.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) model: &'a Model,
    pub(super) plan: &'a Plan,
    pub(super) cone: &'a ConePlan,
    /// What stands in for the parameters of edits.
    pub(super) bound: &'a Bound,
    /// Whether every tensor of every row is kept, not only what is known to be taken later.
    pub(super) keeps_all: bool,
}
