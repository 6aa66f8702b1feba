//! How the number of a cell is found.

use serde::Serialize;

/// How the number of a cell is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The edited run is run.
    Exact,
    /// The number without the swept edits, and the slope there times what the edits change.
    Attribution,
    /// The same with the mean of the slopes along a path from the edited run's prompt to the source's.
    Integrated,
}

impl Method {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] =
        [("exact", Self::Exact), ("attribution", Self::Attribution), ("integrated", Self::Integrated)];

    /// Its name in files and tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }
}

/// Points of the path of [`Method::Integrated`] unless said otherwise.
pub(crate) const STEPS: usize = 10;
