//! A saved intervention in memory: its edits, and whether it fits a model.

use super::format::{BaseModel, Description};
use crate::schema::{EditFile, LoadFile};
use crate::{Error, ExperimentFile, Result};
use candle_core::Tensor;
use causalcone_model::{Model, nearest};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A saved intervention: one or several edits, with all they need.
#[derive(Debug, Clone)]
pub struct Saved {
    /// What it is.
    pub description: Description,
    /// Its tensors by name, where it was made here; those of a folder are read when they are needed.
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// The folder it was read from.
    pub(crate) folder: PathBuf,
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
}
