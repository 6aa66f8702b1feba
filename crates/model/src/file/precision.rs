//! How weights are kept in memory: widened, or as they are stored.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// How weights are kept in memory.
///
/// ```
/// use causalcone_model::Precision;
/// assert_eq!("packed".parse(), Ok(Precision::Packed));
/// assert_eq!(Precision::default(), Precision::Auto);
/// assert!("quarter".parse::<Precision>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `Full` where that fits in the memory that is free; else `Packed` for a model with quantised matrices, and `Half`
    /// for one whose matrices are stored in 16 bits.
    #[default]
    Auto,
    /// As f32.
    Full,
    /// Matrices that are stored in 16 bits stay so, and are widened layer by layer: the same numbers, in half the memory
    /// and somewhat more time. All others are f32.
    Half,
    /// Matrices stay as they are stored, quantised ones too, and are widened in registers: the same numbers, summed in
    /// another order, in less memory and, for a few rows at a time, in less time. All else is f32, activations too.
    Packed,
}

impl Precision {
    /// All of them, in the order in which they are documented.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Full, Self::Half, Self::Packed];

    /// Its name in experiment files: `"auto"`, `"full"`, `"half"` or `"packed"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Full => "full",
            Self::Half => "half",
            Self::Packed => "packed",
        }
    }

    /// Returns an error if no matrix of the model can be kept in this form.
    pub(crate) fn check(self, keeps_something: bool, path: &Path) -> Result<()> {
        let stored = match self {
            Self::Half if !keeps_something => "16 bits",
            Self::Packed if !keeps_something => "fewer than 32 bits",
            _ => return Ok(()),
        };
        let problem = format!(
            "\"{self}\" keeps matrices that are stored in {stored}, and this model has none: others would lose digits"
        );
        Err(Error::file(path, "weights", problem))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| format!("{text:?} is not one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
