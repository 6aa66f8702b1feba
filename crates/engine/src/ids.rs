//! Numbers of the parts of an experiment.

/// A run of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub(crate) usize);

/// An edit of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EditId(pub(crate) usize);

impl EditId {
    /// Its place among the edits of its experiment.
    pub fn index(self) -> usize {
        self.0
    }
}
