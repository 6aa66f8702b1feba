//! The folder a sweep writes to: never mixed with other results, never half-written.

use crate::args::Again;
use crate::failure::Failure;
use crate::interrupt;
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::chat::Date;
use causalcone::store::{self, sha256_of};
use causalcone::{Experiment, ExperimentFile, Journal, Precision, Refused, Saved, Values};
use causalcone_files::{FolderLock, PlaceKind, check_folder, remove_file, remove_folder, write_whole};
use causalcone_model::file::DataFile;
use causalcone_report::{Format, picture};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a folder is for: which files of it are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Results {
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
    fn has(self, name: &str) -> bool {
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
}

/// What a training has learned: a folder that an edit loads.
pub(crate) const INTERVENTION: &str = "intervention";
/// The same of the best fit so far, while others are missing.
pub(crate) const UNFINISHED: &str = "intervention.unfinished";

const JOURNAL: &str = "journal.jsonl";
const IDENTITY: &str = "resume.json";

/// An identity is longer than this only by mistake.
const MOST_OF_IDENTITY: u64 = 1 << 20;

/// What must be the same for a sweep to go on where it was cut short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Hash of the experiment file's content, of its examples, and of the files it takes values from.
    pub(crate) file: String,
    /// Hash of the model.
    pub(crate) model: String,
    /// Version of causalcone.
    pub(crate) version: String,
    /// Seed of the first edit that is noise.
    pub(crate) seed: Option<u64>,
    /// How the weights are kept: packed ones give numbers that differ in the last digits.
    pub(crate) weights: Option<Precision>,
    /// The date that chat templates wrote into prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) date: Option<Date>,
}

impl Identity {
    /// The first field in which the two differ, with both contents.
    fn difference(&self, other: &Self) -> Option<String> {
        let seed = |seed: Option<u64>| seed.map_or_else(|| "none".into(), |seed| seed.to_string());
        let weights =
            |weights: Option<Precision>| weights.map_or_else(|| "none".into(), |form| form.to_string());
        let date = |date: Option<Date>| date.map_or_else(|| "none".into(), |date| date.to_string());
        let fields = [
            ("file", self.file.clone(), other.file.clone()),
            ("model", self.model.clone(), other.model.clone()),
            ("version", self.version.clone(), other.version.clone()),
            ("seed", seed(self.seed), seed(other.seed)),
            ("weights", weights(self.weights), weights(other.weights)),
            ("date", date(self.date), date(other.date)),
        ];
        let differs = fields.into_iter().find(|(_, ours, theirs)| ours != theirs);
        differs.map(|(name, ours, theirs)| format!("{name} differs: {theirs} there, {ours} now"))
    }

    /// The same work with something else that must be the same.
    pub(crate) fn with(self, more: &str) -> Self {
        Self { file: sha256_of(format!("{} {more}", self.file)), ..self }
    }

    fn hash(&self) -> String {
        let Self { file, model, version, seed, weights, date } = self;
        let mut text = format!("{file}\n{model}\n{version}\n{seed:?}\n{weights:?}");
        text.extend(date.iter().map(|date| format!("\n{date}")));
        sha256_of(text)
    }
}

impl Loaded {
    /// With --resume, chat templates see the date that they saw when the work began, unless the file has one.
    pub(crate) fn at_date_of(mut self, folder: &Folder) -> Result<Self, Failure> {
        if self.file.date.is_none() {
            self.file.date = folder.earlier()?.and_then(|earlier| earlier.date);
        }
        Ok(self)
    }

    /// What this work is, for a later --resume to compare. The model counts by its hash, whatever it was
    /// called, its weights by how they are kept, whoever asked for it, and the date by what templates saw of it in the
    /// experiment.
    pub(crate) fn identity(&self, experiment: &Experiment<'_>) -> Result<Identity, Failure> {
        let file = ExperimentFile { model: None, weights: None, date: None, ..self.file.clone() };
        let mut content = serde_json::to_string(&file).map_err(|e| Failure::run(e.to_string()))?;
        for path in file.data_files() {
            content += &store::cached_sha256(&path)?;
        }
        Ok(Identity {
            file: store::sha256_of(content),
            model: self.model.sha256()?.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: file
                .edit
                .iter()
                .find(|edit| edit.op.name() == Some("noise"))
                .map(|edit| edit.seed.unwrap_or(0)),
            weights: self.model.footprint().chosen,
            date: experiment.seen_date(),
        })
    }
}

/// What work on a data set left in a folder, as `--json` prints it.
#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) model: String,
    pub(crate) out: String,
    pub(crate) examples: usize,
    /// How many of these were there before.
    pub(crate) resumed: usize,
    pub(crate) files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) errors: Option<Vec<Refused>>,
}

impl Summary {
    /// How many were there before, for people.
    pub(crate) fn before(&self) -> String {
        match self.resumed {
            0 => String::new(),
            n => format!(", {n} of them from before"),
        }
    }
}

/// A path as results show it: what is no text in it becomes a mark of replacement.
pub(crate) fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// The failure to write one file or folder that a command was asked for.
pub(crate) fn taken(error: causalcone_files::Error) -> Failure {
    match &error {
        causalcone_files::Error::Exists { .. } => {
            Failure::from(error).hint("--force replaces it, or choose another name")
        }
        _ => error.into(),
    }
}

/// A folder that this process alone writes to.
pub(crate) struct Folder {
    path: PathBuf,
    again: Again,
    results: Results,
    /// Held until the work is over; what was created for work that is refused goes with it.
    _lock: FolderLock,
}

impl Folder {
    /// Checks, before any work, that results can go to this folder, and takes it for this process. Nothing in it is changed
    /// yet.
    pub(crate) fn claim(path: &Path, again: Again, results: Results) -> Result<Self, Failure> {
        let shown = path.display();
        let lock = FolderLock::take(path).map_err(|error| {
            // Whatever the reason, it is this --out that cannot be written to.
            Failure::input(error.to_string()).maybe_hint(error.hint())
        })?;
        let held = held(path, results);
        if !held.is_empty() && !again.force && !again.resume {
            let unfinished = has(&held, IDENTITY) && !has(&held, results.last());
            let hint = if unfinished {
                "--resume completes what was interrupted, --force starts over"
            } else {
                "--force replaces them, or choose another --out"
            };
            return Err(
                Failure::input(format!("{shown} already holds results: {}", listed(&held))).hint(hint)
            );
        }
        let lost = !held.is_empty() && !has(&held, IDENTITY);
        if again.resume && lost {
            let message = format!("{shown} contains results that cannot be resumed: {}", listed(&held));
            return Err(Failure::input(message).hint("--force replaces them, or choose another --out"));
        }
        let folder = Self { path: path.into(), again, results, _lock: lock };
        // Of what is itself a folder, more may be lost than a file of that name.
        for name in [INTERVENTION, UNFINISHED].into_iter().filter(|name| has(&held, name)) {
            let inner = folder.file(name);
            if PlaceKind::at(&inner)? != Some(PlaceKind::Folder) {
                let message = format!("{} is not a folder that causalcone wrote", inner.display());
                return Err(Failure::input(message).hint("move it elsewhere, or choose another --out"));
            }
            check_folder(&inner, Saved::has_file)?;
        }
        Ok(folder)
    }

    /// Where a file of this folder is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a file of this folder is, as results show it.
    pub(crate) fn shown(&self, name: &str) -> String {
        shown(self.file(name))
    }

    /// Begins to write. With --force older results go now: the work has been checked whole.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        if self.again.force {
            for name in held(&self.path, self.results) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Removes a file of ours, or a saved intervention.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        let path = self.file(name);
        match PlaceKind::at(&path)? {
            None => Ok(()),
            Some(PlaceKind::Folder) => {
                check_folder(&path, Saved::has_file)?;
                Ok(remove_folder(&path)?)
            }
            Some(_) => Ok(remove_file(&path)?),
        }
    }

    /// Removes all results of this kind: those of work that failed, where no part of them is of use.
    pub(crate) fn discard(&self) {
        for name in held(&self.path, self.results) {
            let _ = self.remove(&name);
        }
    }

    /// Makes the folder that of this work; with --resume older results must be of the same.
    pub(crate) fn open(&self, identity: &Identity) -> Result<(), Failure> {
        self.make()?;
        if let Some(earlier) = self.earlier()? {
            if let Some(difference) = identity.difference(&earlier) {
                let message = format!("cannot resume {}: {difference}", self.path.display());
                let hint = match earlier.weights {
                    Some(form) if difference.starts_with("weights ") => {
                        format!("--weights {form} resumes it")
                    }
                    _ if difference.starts_with("date ") => {
                        "leave `date` out of the file, and the work resumes with the date it began with"
                            .into()
                    }
                    _ => "--force starts over, or choose another --out".into(),
                };
                return Err(Failure::input(message).hint(hint));
            }
        } else {
            write_whole(self.file(IDENTITY), |w| Ok(serde_json::to_writer_pretty(w, identity)?))?;
        }
        interrupt::can_resume();
        Ok(())
    }

    /// What the work is that left unfinished or finished results here, unless they are to be replaced.
    fn earlier(&self) -> Result<Option<Identity>, Failure> {
        let path = self.file(IDENTITY);
        if self.again.force || PlaceKind::at(&path)?.is_none() {
            return Ok(None);
        }
        let text = DataFile::open(&path)?.read_all(MOST_OF_IDENTITY)?;
        let earlier = serde_json::from_slice(&text);
        let earlier = earlier.map_err(|e| {
            Failure::input(format!("{}: {e}", path.display())).hint("start over with --force")
        })?;
        Ok(Some(earlier))
    }

    /// Opens the folder and its journal, and gives back the cells that it holds already.
    pub(crate) fn journal(
        &self,
        identity: &Identity,
        cells: usize,
        values: usize,
    ) -> Result<(Journal, BTreeMap<usize, Values>), Failure> {
        self.open(identity)?;
        Ok(Journal::open(&self.file(JOURNAL), &identity.hash(), cells, values)?)
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        // That the folder can be written to was checked before any work: what fails now is the run.
        let written = write_whole(self.file(name), fill);
        written.map_err(|error| Failure::run(error.to_string()).maybe_hint(error.hint()))
    }

    /// Writes a figure, as far as there is room for it; says the names of its files. What is too large to draw is no
    /// reason to lose a table.
    pub(crate) fn draw(
        &self,
        stem: &str,
        svg: Result<String, causalcone_report::Error>,
        terminal: &Terminal,
    ) -> Result<Vec<String>, Failure> {
        let (svg_name, png_name) = (format!("{stem}.svg"), format!("{stem}.png"));
        let svg = match svg {
            Ok(svg) => svg,
            Err(e) => {
                terminal.note(&format!("no {svg_name}: {e}"));
                return Ok(Vec::new());
            }
        };
        self.write(&svg_name, |w| w.write_all(svg.as_bytes()))?;
        let mut drawn = vec![svg_name];
        match PNG_SCALES.iter().find_map(|scale| picture(&svg, *scale).ok()) {
            Some(png) => {
                self.write(&png_name, |w| w.write_all(&png))?;
                drawn.push(png_name);
            }
            None => terminal.note(&format!("no {png_name}: the figure is too large for a picture")),
        }
        Ok(drawn)
    }
}

/// PNG figures are drawn at twice the size of the SVG, for screens that show it so; large ones smaller.
const PNG_SCALES: [f32; 3] = [2.0, 1.0, 0.5];

/// The files of a folder that such work has left.
fn held(path: &Path, results: Results) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut held: Vec<String> = names.filter(|name| results.has(name)).collect();
    held.sort();
    held
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

/// Some names, for people.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 11;
    match names.len() {
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}
