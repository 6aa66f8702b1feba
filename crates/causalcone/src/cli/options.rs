//! Options that are more than a text: sizes of memory, samples to verify.

use crate::Cone;
use clap::Args;
use std::str::FromStr;

/// How much memory a computation may take.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Memory {
    /// Most memory to work in beside the weights, such as 4GB [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
}

impl Memory {
    /// The executor that keeps to it.
    pub(super) fn executor(self) -> Cone {
        self.memory.map_or_else(Cone::default, |size| Cone { memory: Some(size.0) })
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(u64);

impl Size {
    /// In bytes.
    pub(super) fn bytes(self) -> u64 {
        self.0
    }
}

const UNITS: [(&str, u64); 8] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.trim().to_ascii_uppercase();
        let unit = UNITS.iter().find_map(|(name, bytes)| Some((upper.strip_suffix(name)?, *bytes)));
        let (number, bytes) = unit.unwrap_or((upper.strip_suffix('B').unwrap_or(&upper), 1));
        let number: f64 =
            number.trim().parse().map_err(|_| "a size is a number and a unit, such as 500MB or 4GiB")?;
        let size = number * bytes as f64;
        if !(size >= 1.0 && size < u64::MAX as f64) {
            return Err("is no size that memory has".into());
        }
        #[expect(clippy::cast_sign_loss, reason = "it was just found to be at least 1")]
        Ok(Self(size as u64))
    }
}

/// Which cells are computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// All.
    All,
    /// So many, spread over the sweep.
    Sample(usize),
}

impl Verify {
    /// How many; all where none is said.
    pub(super) fn sample(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Sample(count) => Some(count),
        }
    }
}

impl FromStr for Verify {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "all" => Ok(Self::All),
            Ok(0) | Err(_) => Err("is not a number of cells: give 1 or more, or no number for all".into()),
            Ok(count) => Ok(Self::Sample(count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("4GB", 4_000_000_000),
            ("4gib", 4 << 30),
            ("1.5 MB", 1_500_000),
            ("512", 512),
            ("512B", 512),
            ("2KiB", 2048),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "nanGB", "infGB", "4 GBs", "1e30GB", "four"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_sample_has_cells() {
        assert_eq!(("all".parse(), "3".parse()), (Ok(Verify::All), Ok(Verify::Sample(3))));
        for text in ["0", "-1", "", "some"] {
            assert!(text.parse::<Verify>().is_err(), "{text}");
        }
    }
}
