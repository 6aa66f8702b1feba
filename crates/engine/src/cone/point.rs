//! Points in the order of execution, and how far an edit at one of them reaches within its block.

use crate::plan::Place;
use causalcone_model::Site;

/// A tensor of a run, by when it is computed: sites stand in the order of execution within a block.
/// What comes before the first block counts to it, what comes after the last one to one block more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// The block.
    pub block: usize,
    /// The site, never a view of heads.
    pub site: Site,
}

impl Point {
    /// Where a site of a model with so many layers is computed.
    pub fn new(site: Site, layer: Option<usize>, layers: usize) -> Self {
        let block = match site {
            Site::FinalNorm | Site::Logits => layers,
            _ => layer.unwrap_or(0),
        };
        Self { block, site: site.tensor() }
    }

    /// Where a place is computed.
    pub fn of(place: &Place, layers: usize) -> Self {
        Self::new(place.site, place.layer, layers)
    }
}

/// Which positions of a tensor an edit of another one (or the same) of that block changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Nothing,
    /// The edited ones.
    Same,
    /// All from the first edited one on.
    Later,
}

/// How an edit of `start` reaches `tensor` within one block: only what is computed from it, and past
/// the edited positions only what attends to their keys or values.
pub fn reach(start: Site, tensor: Site) -> Reach {
    use Site::{
        AttentionInput, AttentionScore, AttentionValueOutput, AttentionWeight, BlockInput, Embedding,
        KeyOutput, QueryOutput, ValueOutput,
    };
    match (start, tensor) {
        // Keys and values are rows of one table: whichever is edited, the row is new.
        (KeyOutput | ValueOutput, KeyOutput | ValueOutput) => Reach::Same,
        _ if tensor < start => Reach::Nothing,
        (Embedding | BlockInput | AttentionInput, _) if tensor >= AttentionScore => Reach::Later,
        (KeyOutput, AttentionScore | AttentionWeight) => Reach::Later,
        (ValueOutput, AttentionScore | AttentionWeight) => Reach::Nothing,
        (KeyOutput | ValueOutput, _) if tensor >= AttentionValueOutput => Reach::Later,
        (QueryOutput, KeyOutput | ValueOutput) => Reach::Nothing,
        _ => Reach::Same,
    }
}
