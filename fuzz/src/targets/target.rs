//! What a target is, and what its readers have in common.

use crate::Scene;
use crate::mutate::Structure;

/// A reader of untrusted input.
pub struct Target {
    /// Its name, and the name of its folder of seeds.
    pub name: &'static str,
    /// What the input is made of.
    pub structure: Structure,
    /// Files of the repository that are seeds, besides those in `fuzz/seeds/NAME`. `*` stands for any part of a name.
    pub seeds: &'static [&'static str],
    /// Seeds that are parts of fixtures.
    pub parts: fn() -> Vec<Vec<u8>>,
    /// A page of the documentation whose words mutators use.
    pub documentation: &'static str,
    /// The longest input that the coverage-guided driver makes.
    pub most: usize,
    /// Gives the input to the reader. `None` means that there was an error, as there should be for most inputs.
    pub run: fn(&Scene, &[u8]) -> Option<()>,
}

impl Target {
    /// A target whose seeds are whole files.
    pub(super) const fn new(
        name: &'static str,
        structure: Structure,
        seeds: &'static [&'static str],
        run: fn(&Scene, &[u8]) -> Option<()>,
    ) -> Self {
        Self { name, structure, seeds, parts: Vec::new, documentation: "", most: 1 << 16, run }
    }

    pub(super) const fn documented(self, documentation: &'static str) -> Self {
        Self { documentation, ..self }
    }

    pub(super) const fn with(self, parts: fn() -> Vec<Vec<u8>>) -> Self {
        Self { parts, ..self }
    }

    pub(super) const fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }
}

/// Whether one of several readers, or one way of reading, has accepted the input. All are run.
pub(super) fn any<const N: usize>(accepted: [Option<()>; N]) -> Option<()> {
    accepted.into_iter().flatten().next()
}
