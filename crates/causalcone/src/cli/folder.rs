//! The folder a sweep writes to: never mixed with other results, never half-written.

use super::Again;
use super::failure::Failure;
use crate::store::sha256_of;
use crate::{Journal, Values};
use causalcone_report::atomic::write_whole;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Every file a sweep may leave, finished or not.
const OURS: [&str; 11] = [
    "cells.csv",
    "cells.jsonl",
    "cells.parquet",
    "means.csv",
    "means.jsonl",
    "means.parquet",
    "heatmap.svg",
    "heatmap.png",
    "experiment.json",
    JOURNAL,
    IDENTITY,
];
const JOURNAL: &str = "journal.jsonl";
const IDENTITY: &str = "resume.json";

/// What must be the same for a sweep to go on where it was cut short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Hash of the experiment file's content, of its examples, and of the files it takes values from.
    pub(super) file: String,
    /// Hash of the model.
    pub(super) model: String,
    /// Version of causalcone.
    pub(super) version: String,
    /// Seed of the first edit that is noise.
    pub(super) seed: Option<u64>,
}

impl Identity {
    /// The first field in which the two differ, with both contents.
    fn difference(&self, other: &Self) -> Option<String> {
        let seed = |seed: Option<u64>| seed.map_or_else(|| "none".into(), |seed| seed.to_string());
        let fields = [
            ("file", self.file.clone(), other.file.clone()),
            ("model", self.model.clone(), other.model.clone()),
            ("version", self.version.clone(), other.version.clone()),
            ("seed", seed(self.seed), seed(other.seed)),
        ];
        let differs = fields.into_iter().find(|(_, ours, theirs)| ours != theirs);
        differs.map(|(name, ours, theirs)| format!("{name} differs: {theirs} there, {ours} now"))
    }

    fn hash(&self) -> String {
        let text = format!("{}\n{}\n{}\n{:?}", self.file, self.model, self.version, self.seed);
        sha256_of(text)
    }
}

/// A folder that may be written to.
pub(super) struct Folder {
    path: PathBuf,
    again: Again,
}

impl Folder {
    /// Checks, before any work, that results can go to this folder; leaves nothing behind.
    pub(super) fn claim(path: &Path, again: Again) -> Result<Self, Failure> {
        let shown = path.display();
        let cannot = |e: std::io::Error| Failure::input(format!("cannot write to {shown}: {e}"));
        if path.exists() && !path.is_dir() {
            return Err(Failure::input(format!("{shown} is not a folder")).hint("give another --out"));
        }
        let held: Vec<&str> =
            OURS.into_iter().filter(|name| path.join(name).symlink_metadata().is_ok()).collect();
        if !held.is_empty() && !again.force && !again.resume {
            let unfinished = held.contains(&JOURNAL) && !held.contains(&"experiment.json");
            let hint = if unfinished {
                "--resume goes on with the sweep that was cut short, --force starts over"
            } else {
                "--force replaces them, or give another --out"
            };
            return Err(
                Failure::input(format!("{shown} already holds results: {}", held.join(", "))).hint(hint)
            );
        }
        let lost = !held.is_empty() && !held.contains(&IDENTITY);
        if again.resume && lost {
            let message = format!("{shown} holds results that no sweep can go on from: {}", held.join(", "));
            return Err(Failure::input(message).hint("--force replaces them, or give another --out"));
        }
        // Only an attempt tells whether a folder can be written to, or made in the first one there is.
        let existing = path.ancestors().find(|p| p.exists()).filter(|p| !p.as_os_str().is_empty());
        let probe = existing.unwrap_or(Path::new(".")).join(format!(".causalcone-{}", std::process::id()));
        std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(cannot)?;
        Ok(Self { path: path.into(), again })
    }

    /// Where a file of this folder is.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens the journal for a sweep that has been checked whole. With --force older results go
    /// now, with --resume the cells they hold are given back.
    pub(super) fn journal(
        &self,
        identity: &Identity,
        cells: usize,
        values: usize,
    ) -> Result<(Journal, BTreeMap<usize, Values>), Failure> {
        let identity_path = self.file(IDENTITY);
        std::fs::create_dir_all(&self.path)
            .map_err(|e| Failure::input(format!("cannot create {}: {e}", self.path.display())))?;
        if self.again.force {
            for name in OURS {
                let file = self.file(name);
                if file.symlink_metadata().is_ok() {
                    std::fs::remove_file(&file)
                        .map_err(|e| Failure::input(format!("cannot remove {}: {e}", file.display())))?;
                }
            }
        }
        if identity_path.exists() {
            let text = std::fs::read(&identity_path)
                .map_err(|e| Failure::input(format!("cannot read {}: {e}", identity_path.display())))?;
            let earlier: Identity = serde_json::from_slice(&text).map_err(|e| {
                Failure::input(format!("{}: {e}", identity_path.display())).hint("start over with --force")
            })?;
            if let Some(difference) = identity.difference(&earlier) {
                let message = format!("cannot resume {}: {difference}", self.path.display());
                return Err(Failure::input(message).hint("--force starts over, or give another --out"));
            }
        } else {
            write_whole(&identity_path, |w| Ok(serde_json::to_writer_pretty(w, identity)?))?;
        }
        Ok(Journal::open(&self.file(JOURNAL), &identity.hash(), cells, values)?)
    }

    /// Writes a file whole or not at all.
    pub(super) fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        Ok(write_whole(self.file(name), fill)?)
    }
}
