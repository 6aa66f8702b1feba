//! Interventions in folders: saved once, loaded anywhere the model is the same.
//!
//! A folder holds `intervention.json` ([`Description`]: what model it is for, the edits in the schema of
//! experiment files, how it was made, a self-test), `weights.safetensors` (the tensors the edits name, and no
//! others) and `README.md`, made from the first. An edit takes it by `op = { load = "FOLDER", name = "…" }`.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_engine::{Cone, Experiment, Op, OpKind, Saved};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! let direction = Tensor::arange(0f32, 32.0, &Device::Cpu)?;
//! exp.edit(base, Site::BlockOutput.layers(0).at(Last), Op::new(OpKind::ProjectOut).value(direction))?;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("ablation");
//! Saved::of(&exp, "an example", &Cone::default())?.write(&path, false)?;
//! let test = Saved::open(&path)?.test(&model, &Cone::default())?;
//! assert!(test.passed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod card;
mod describe;
mod folder;
mod format;
mod pyvene;
mod test;

pub use format::{BaseModel, Description, Made, TestFile, Top};
pub use test::Tested;

use crate::file::{EditFile, LoadFile, OpFile};
use crate::{Error, ExperimentFile, Result};
use candle_core::Tensor;
use causalcone_model::{Model, nearest};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file of a folder that says what is in it.
pub const DESCRIPTION: &str = "intervention.json";
/// The file of a folder with the tensors.
pub const WEIGHTS: &str = "weights.safetensors";

/// A saved intervention: one or several edits, with all they need.
#[derive(Debug, Clone)]
pub struct Saved {
    /// What it is.
    pub description: Description,
    /// Its tensors by name, where it was made here; those of a folder are read when they are needed.
    tensors: BTreeMap<String, Tensor>,
    /// The folder it was read from.
    folder: PathBuf,
}

impl Saved {
    /// The edits in it.
    pub fn edits(&self) -> &[EditFile] {
        &self.description.edit
    }

    /// The edit of a name, or the only one.
    ///
    /// # Errors
    /// When there is none of that name, or none is named and there are several.
    pub fn find(&self, load: &LoadFile, part: &str) -> Result<&EditFile> {
        let names = || self.edits().iter().filter_map(|edit| edit.name.as_deref());
        let listed = || names().collect::<Vec<_>>().join(", ");
        match (&load.name, self.edits()) {
            (None, [one]) => Ok(one),
            (None, _) => {
                let problem = format!("{} holds several interventions: {}", load.load, listed());
                Err(Error::hinted(part, problem, Some("name one: op = { load = …, name = … }".into())))
            }
            (Some(name), edits) => {
                edits.iter().find(|edit| edit.name.as_ref() == Some(name)).ok_or_else(|| {
                    let hint = nearest(name, names()).map(|near| format!("did you mean \"{near}\"?"));
                    Error::hinted(
                        part,
                        format!("{} holds no \"{name}\"; it holds {}", load.load, listed()),
                        hint,
                    )
                })
            }
        }
    }

    /// The edits as an experiment file beside the folder's weights.
    pub(crate) fn file(&self) -> ExperimentFile {
        ExperimentFile {
            edit: self.edits().to_vec(),
            folder: self.folder.clone(),
            ..ExperimentFile::default()
        }
    }

    /// Checks that it was made for this model: a folder for another would give numbers without a meaning.
    ///
    /// # Errors
    /// When it is of another shape, or other weights; says in what they differ.
    pub fn check(&self, model: &Model, any_weights: bool, part: &str) -> Result<()> {
        let ours = BaseModel::of(model)?;
        let theirs = &self.description.base;
        let differences = theirs.differences(&ours);
        if !differences.is_empty() {
            let problem = format!(
                "{} was made for {}, which does not fit {}: {}",
                self.folder.display(),
                theirs.model,
                ours.model,
                differences.join(", ")
            );
            return Err(Error::part(part, problem));
        }
        if !any_weights && theirs.sha256.is_some() && theirs.sha256 != ours.sha256 {
            let hash = |base: &BaseModel| base.sha256.as_deref().unwrap_or("unknown").to_string();
            let problem = format!(
                "{} was made for {} with weights {}, and {} has weights {}",
                self.folder.display(),
                theirs.model,
                hash(theirs),
                ours.model,
                hash(&ours)
            );
            let hint = "any_weights = true beside load uses it all the same, as the shapes fit".into();
            return Err(Error::hinted(part, problem, Some(hint)));
        }
        Ok(())
    }

    /// Writes the folder, whole or not at all. A saved intervention that has the name is replaced if `replace` says so, and
    /// stays as it was if anything fails.
    ///
    /// # Errors
    /// When the name is taken by something that may not be replaced, such as a folder with files that this crate did not
    /// write; when the folder cannot be written.
    pub fn write(&self, path: &Path, replace: bool) -> Result<()> {
        folder::write(self, path, replace)
    }

    /// Whether a saved intervention has a file of that name: only such files are removed where one is replaced.
    pub fn has_file(name: &str) -> bool {
        folder::is_ours(name)
    }

    /// Reads a folder: one of ours, or one that pyvene has saved.
    ///
    /// # Errors
    /// When it is not one of a saved intervention, or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        folder::open(path)
    }
}

/// What an edit says itself, and what a saved one says where it does not.
pub(crate) fn merged(edit: &EditFile, saved: &EditFile, part: &str) -> Result<EditFile> {
    let own = [
        (edit.parameters.is_some(), "parameters"),
        (edit.activation.is_some(), "activation"),
        (edit.min.is_some(), "min"),
        (edit.max.is_some(), "max"),
        (edit.error.is_some(), "error"),
        (edit.centre.is_some(), "centre"),
        (edit.joint.is_some(), "joint"),
    ];
    if let Some((_, key)) = own.iter().find(|(given, _)| *given) {
        let problem = format!("takes a saved intervention, which has its own {key}");
        return Err(Error::part(part, problem));
    }
    let or = |own: &Option<_>, saved: &Option<_>| own.clone().or_else(|| saved.clone());
    Ok(EditFile {
        name: edit.name.clone(),
        run: edit.run.clone(),
        site: edit.site.clone().or_else(|| saved.site.clone()),
        // Another site may have no layers, or other heads.
        layers: if edit.site.is_some() { edit.layers.clone() } else { or(&edit.layers, &saved.layers) },
        heads: if edit.site.is_some() { edit.heads.clone() } else { or(&edit.heads, &saved.heads) },
        positions: edit.positions.clone().or_else(|| saved.positions.clone()),
        dims: edit.dims.clone().or_else(|| saved.dims.clone()),
        partition: if edit.partition.is_empty() { saved.partition.clone() } else { edit.partition.clone() },
        value: edit.value.clone().or_else(|| saved.value.clone()),
        scale: edit.scale.or(saved.scale),
        level: edit.level.or(saved.level),
        seed: edit.seed.or(saved.seed),
        steps: edit.steps.or(saved.steps),
        until: if edit.until.is_empty() { saved.until.clone() } else { edit.until.clone() },
        ..saved.clone()
    })
}

/// The op of a saved edit by its own name and parameters, where it is that of another.
pub(crate) fn unlinked<'a>(edits: &'a [EditFile], edit: &'a EditFile) -> &'a EditFile {
    match &edit.op {
        OpFile::Link(link) => {
            edits.iter().find(|other| other.name.as_ref() == Some(&link.link)).unwrap_or(edit)
        }
        _ => edit,
    }
}
