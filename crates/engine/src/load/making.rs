//! How far an experiment is made: as far as plans need it, or with all its numbers.

use crate::execute::Runtime;

/// What is done about values and parameters that are drawn, or fitted to a data set.
#[derive(Clone, Copy)]
pub(super) enum Making<'r> {
    /// Only their shapes are found: a plan needs no more.
    Outline,
    /// They are computed.
    Numbers(&'r Runtime<'r>),
}
