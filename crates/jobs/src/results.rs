//! The kinds of results, and the names of their files.

use causalcone_report::Format;

/// What a training has learned: a folder that an edit loads.
pub(crate) const INTERVENTION: &str = "intervention";
/// The same of the best fit so far, while other fits are missing.
pub(crate) const UNFINISHED: &str = "intervention.unfinished";
/// The cells or scores that are finished.
pub(crate) const JOURNAL: &str = "journal.jsonl";
/// Which work a folder is of.
pub(crate) const IDENTITY: &str = "resume.json";

/// What a folder is for: which files of it are results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// Of a sweep.
    Sweep,
    /// Of a collection.
    Collection,
    /// Of a lens.
    Lens,
    /// Of a training.
    Training,
    /// Of generated texts.
    Texts,
}

impl Results {
    /// Whether a file is one that such work may leave, finished or not.
    pub(crate) fn has(self, name: &str) -> bool {
        const SWEEP: [&str; 4] = ["heatmap.svg", "heatmap.png", "experiment.json", JOURNAL];
        const LENS: [&str; 5] =
            ["lens.svg", "lens.png", "contributions.svg", "contributions.png", "lens.json"];
        const TEXTS: [&str; 7] =
            ["texts.jsonl", "generate.json", "report.html", "kl.svg", "kl.png", "scales.svg", "scales.png"];
        const TRAINING: [&str; 10] = [
            INTERVENTION,
            UNFINISHED,
            "loss.svg",
            "loss.png",
            "heatmap.svg",
            "heatmap.png",
            "steps.jsonl",
            "checkpoint.safetensors",
            "train.json",
            JOURNAL,
        ];
        let is_table = |of: &[&str]| {
            let parts = name.rsplit_once('.');
            let is_format = |end: &str| Format::ALL.iter().any(|format| format.name() == end);
            parts.is_some_and(|(stem, end)| of.contains(&stem) && is_format(end))
        };
        let is_numbered = |start: &str, end: &str| {
            let number = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
        };
        name == IDENTITY
            || match self {
                Self::Sweep => SWEEP.contains(&name) || is_table(&["cells", "means"]),
                Self::Lens => LENS.contains(&name) || is_table(&["lens", "contributions"]),
                Self::Collection => {
                    name == "collection.json" || is_table(&["index"]) || is_numbered("shard-", ".safetensors")
                }
                Self::Training => TRAINING.contains(&name) || is_table(&["log", "cells", "means"]),
                Self::Texts => {
                    TEXTS.contains(&name) || is_table(&["steps"]) || is_numbered("texts-", ".jsonl")
                }
            }
    }

    /// The file that is written last.
    pub(crate) fn last(self) -> &'static str {
        match self {
            Self::Sweep => "experiment.json",
            Self::Collection => "collection.json",
            Self::Lens => "lens.json",
            Self::Training => "train.json",
            Self::Texts => "generate.json",
        }
    }

    /// What they are, for people.
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Sweep => "the results of a sweep",
            Self::Collection => "collected activations",
            Self::Lens => "the results of a lens",
            Self::Training => "the results of a training",
            Self::Texts => "generated texts",
        }
    }
}
