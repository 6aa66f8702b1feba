//! Edits of several positions or heads as one vector.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// What an op takes together as one long vector (pyvene's max_number_of_units): its parameters are then
/// as wide as all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Joint {
    /// The positions of the edit, in its order: of each head apart on sites by head.
    Positions,
    /// The heads of the edit, in its order: at each position apart.
    Heads,
    /// Heads and positions: all positions of the first head, then of the second …
    All,
}

impl Joint {
    /// Its name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Positions => "positions",
            Self::Heads => "heads",
            Self::All => "all",
        }
    }

    /// A block (positions × width or positions × heads × width) as the rows an op computes with.
    pub(super) fn rows(joint: Option<Self>, x: &Tensor) -> Result<Tensor> {
        let x = if Self::is_by_head(joint, x.rank()) { x.transpose(0, 1)? } else { x.clone() };
        x.contiguous()?.reshape(((), Self::width(joint, x.dims())))
    }

    /// What [`Joint::rows`] made of a block of that shape, as such a block.
    pub(super) fn put_back(joint: Option<Self>, rows: &Tensor, shape: &[usize]) -> Result<Tensor> {
        if !Self::is_by_head(joint, shape.len()) {
            return rows.reshape(shape);
        }
        let mut shape = shape.to_vec();
        shape.swap(0, 1);
        rows.reshape(shape)?.transpose(0, 1)?.contiguous()
    }

    /// Whether heads come first in a row.
    fn is_by_head(joint: Option<Self>, rank: usize) -> bool {
        rank == 3 && matches!(joint, Some(Self::Positions | Self::All))
    }

    /// Numbers in one row, of a block with heads first where they are in the row's order.
    fn width(joint: Option<Self>, shape: &[usize]) -> usize {
        let last = shape.len() - 1;
        let joined = match joint {
            None => last,
            Some(Self::Positions | Self::Heads) => last.saturating_sub(1),
            Some(Self::All) => 0,
        };
        shape[joined..].iter().product()
    }
}
