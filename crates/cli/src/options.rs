//! Options that are more than a text: sizes of memory, samples to verify.

use causalcone::jobs::{self, sweep::Verify};
use causalcone::{Model, Precision, Report, Runtime, memory};
use causalcone_report::Format;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::str::FromStr;

/// The model a command uses when none is named.
pub(crate) const DEFAULT_MODEL: &str = "smollm2";

/// How the weights of a model are kept.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Weights {
    /// How weights are kept in memory; goes before the experiment file's own [default: auto]
    #[arg(long, value_name = "FORM", value_parser = forms())]
    weights: Option<Precision>,
}

impl Weights {
    /// What was asked for on the command line.
    pub(crate) fn given(self) -> Option<Precision> {
        self.weights
    }
}

/// The ways of keeping weights, by name.
fn forms() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).try_map(|name| name.parse::<Precision>())
}

/// How much memory a computation may take.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Memory {
    /// Most memory to work in beside the weights, such as 4GB [default: half of what is free]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
}

impl Memory {
    /// The runtime that keeps to it, given a model whose weights may not have been read yet.
    pub(crate) fn runtime<'r>(self, model: &Model, progress: Report<'r>) -> Runtime<'r> {
        // Weights that do not fit leave nothing to compute in: `explain` then says what would be done with enough.
        let fits = model.footprint().chosen.is_some();
        // A size in the environment that cannot be read was reported when the model was opened.
        let half = || if fits { model.half_of_free_memory().ok().flatten() } else { None };
        Runtime { memory: self.memory.map(Size::bytes).or_else(half), progress, ..Runtime::default() }
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(u64);

impl Size {
    /// In bytes.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        memory::parse_size(text).map(Self)
    }
}

/// What to do with results that are already there.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Again {
    /// Go on with work that was cut short, from what the folder holds
    #[arg(long, conflicts_with = "force")]
    pub(crate) resume: bool,
    /// Replace the results that are already in the folder
    #[arg(long)]
    pub(crate) force: bool,
}

impl From<Again> for jobs::Again {
    fn from(Again { resume, force }: Again) -> Self {
        match (force, resume) {
            (true, _) => Self::Replace,
            (false, true) => Self::Resume,
            (false, false) => Self::Refuse,
        }
    }
}

/// The table formats, by name.
pub(crate) fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| name.parse::<Format>())
}

/// Which cells are computed again: all, or so many.
pub(crate) fn verify(text: &str) -> Result<Verify, String> {
    match text.parse() {
        _ if text == "all" => Ok(Verify::All),
        Ok(0) | Err(_) => Err("is not a number of cells: give 1 or more, or no number for all".into()),
        Ok(count) => Ok(Verify::Sample(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_cells() {
        assert_eq!((verify("all"), verify("3")), (Ok(Verify::All), Ok(Verify::Sample(3))));
        for text in ["0", "-1", "", "some"] {
            assert!(verify(text).is_err(), "{text}");
        }
    }
}
