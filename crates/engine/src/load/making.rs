//! How far an experiment is made: as far as plans need it, or with all its numbers.

use causalcone_model::Report;

/// What is done about values and parameters that are drawn, or fitted to a data set.
#[derive(Clone, Copy)]
pub(super) enum Making<'r> {
    /// Only their shapes are found: a plan needs no more.
    Outline,
    /// They are computed, in so many bytes at most.
    Numbers { memory: Option<u64>, report: Report<'r> },
}
