//! How weights are kept in memory: widened, or as they are stored.

use super::Weights;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How weights are kept in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As f32.
    #[default]
    Full,
    /// Matrices that are stored in 16 bits stay so, and are widened layer by layer: the same numbers, in half the memory
    /// and somewhat more time. All others are f32.
    Half,
    /// Matrices stay as they are stored, quantised ones too, and are widened in registers: the same numbers, summed in
    /// another order, in less memory and, for a few rows at a time, in less time. All else is f32, activations too.
    Packed,
}

impl Precision {
    /// Says so where nothing could be kept as asked.
    pub(crate) fn check(self, weights: &Weights, path: &Path) -> Result<()> {
        let problem = match self {
            _ if weights.kept() > 0 => return Ok(()),
            Self::Full => return Ok(()),
            Self::Half => {
                "\"half\" keeps matrices that are stored in 16 bits, and this model has none: others would lose digits"
            }
            Self::Packed => {
                "\"packed\" keeps matrices that are stored in fewer than 32 bits, and this model has none: others \
                 would lose digits"
            }
        };
        Err(Error::file(path, "weights", problem))
    }
}
