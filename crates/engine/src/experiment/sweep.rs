//! The axes of a sweep.

use super::method::Method;
use crate::ids::EditId;
use crate::metric::Metric;
use causalcone_model::Site;

/// The axes of a sweep; each point of their product is a cell. Without an axis, what the edits list
/// is edited together.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// The swept edits, which move together; empty is the first.
    pub edits: Vec<EditId>,
    /// Over the layers the edits list.
    pub layers: Option<LayerAxis>,
    /// Over the positions the edits list.
    pub positions: Option<Each>,
    /// Over the heads the edits list.
    pub heads: Option<Each>,
    /// In place of the edits' site, and of their values' unless those name one.
    pub sites: Vec<Site>,
    /// In place of the edits' scale, or of the level of noise.
    pub scales: Vec<f64>,
    /// So many samples of the noise of all edits.
    pub samples: Option<usize>,
    /// What is recorded; empty is [`Metric::Prob`].
    pub metrics: Vec<Metric>,
    /// How cells' numbers are found; empty is [`Method::Exact`].
    pub methods: Vec<Method>,
    /// Points of the path of [`Method::Integrated`], 10 unless set.
    pub steps: Option<usize>,
}

/// One value of an axis at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Each;

/// How a sweep goes over layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerAxis {
    /// One layer at a time.
    Each,
    /// The first 1, 2, 3 … of them.
    Cumulative,
    /// So many neighbours at a time.
    Window(usize),
}

impl From<Each> for LayerAxis {
    fn from(_: Each) -> Self {
        Self::Each
    }
}
