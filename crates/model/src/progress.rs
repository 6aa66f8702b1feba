//! How long work tells its caller where it stands, and hears whether to go on.

use std::ops::ControlFlow;

/// Where a piece of work stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is being done: "downloading smollm2".
    pub what: &'a str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What [`Progress`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Cells of a sweep.
    Cells,
    /// Examples of a data set.
    Examples,
    /// Updates of a training.
    Steps,
    /// Forward and backward passes.
    Passes,
    /// Of a text.
    Tokens,
}

/// Called now and then by long work; [`ControlFlow::Break`] stops it cleanly.
///
/// ```
/// use causalcone_model::{Progress, silent};
/// use std::ops::ControlFlow;
/// let print = |p: Progress<'_>| { println!("{}: {} of {}", p.what, p.done, p.total); ControlFlow::Continue(()) };
/// let reports: [causalcone_model::Report<'_>; 2] = [&print, &silent];
/// ```
pub type Report<'a> = &'a (dyn Fn(Progress<'_>) -> ControlFlow<()> + Sync);

/// A [`Report`] that says nothing and never stops anything.
pub fn silent(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
