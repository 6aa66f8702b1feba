//! What cells read, as rows of nodes.

use super::forest::{Forest, NodeId};
use super::reach::Point;
use super::rows::Rows;
use crate::plan::{Place, Read};
use std::sync::Arc;

/// A read of a cell, resolved to nodes.
#[derive(Debug, Clone)]
pub enum NodeRead {
    /// Logits of one row.
    Logits {
        /// Whose row.
        owner: NodeId,
        /// Its position.
        row: usize,
        /// Of these tokens only.
        tokens: Option<Arc<[u32]>>,
    },
    /// A place of a node's run.
    Activation {
        /// The run.
        node: NodeId,
        /// The place.
        place: Place,
    },
}

impl NodeRead {
    pub(super) fn new(read: &Read, forest: &Forest, nodes: &[NodeId]) -> Self {
        match read {
            Read::Logits { run, position, tokens } => {
                let owner = forest.owner(nodes[*run], forest.anatomy().logits(), *position);
                Self::Logits { owner, row: *position, tokens: tokens.clone() }
            }
            Read::Activation { run, place } => Self::Activation { node: nodes[*run], place: place.clone() },
            // Planned as the answer it is of, and run otherwise.
            Read::Gradient(gradient) => Self::new(&gradient.answer, forest, nodes),
        }
    }

    /// Whose logits it reads, where, of which tokens; nothing if it reads activations.
    pub(crate) fn logits(&self) -> Option<(NodeId, usize, Option<&[u32]>)> {
        match self {
            Self::Logits { owner, row, tokens } => Some((*owner, *row, tokens.as_deref())),
            Self::Activation { .. } => None,
        }
    }

    /// The rows it needs: whose, of which tensor.
    pub(crate) fn asks(&self, forest: &Forest) -> Vec<(NodeId, Point, Rows)> {
        match self {
            Self::Logits { owner, row, .. } => {
                // Logits come from the last norm, unless an edit has made them.
                let (start, anatomy) = (forest.nodes()[*owner].start, forest.anatomy());
                let at = if start == anatomy.logits() { start } else { anatomy.normed() };
                vec![(*owner, at, Rows::from(*row..row + 1))]
            }
            Self::Activation { node, place } => {
                let at = forest.anatomy().point(place);
                let owners = forest.owners(*node, at, place.positions.iter().copied().collect());
                owners.into_iter().map(|(owner, rows)| (owner, at, rows)).collect()
            }
        }
    }
}
