//! What the records and summaries of several jobs have in common.

use crate::error::Result;
use crate::identity::Identity;
use crate::source::Source;
use causalcone_engine::{ExperimentFile, MissingSpace, Refused};
use causalcone_model::{KeyReport, Model, Precision};
use serde::Serialize;
use std::path::Path;

/// What ran, for whoever wants to run it again: the head of `experiment.json`, `train.json` and `lens.json`.
#[derive(Serialize)]
pub(crate) struct Ran<'a> {
    causalcone: &'static str,
    experiment: &'a ExperimentFile,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a Identity>,
    model: ModelRecord<'a>,
}

impl<'a> Ran<'a> {
    pub(crate) fn new(source: &'a Source<'_>, identity: Option<&'a Identity>) -> Result<Self> {
        let (experiment, model) = (&source.file, ModelRecord::of(source.model)?);
        Ok(Self { causalcone: env!("CARGO_PKG_VERSION"), experiment, identity, model })
    }
}

/// Which model made results.
#[derive(Debug, Clone, Serialize)]
pub struct ModelRecord<'a> {
    /// As it was loaded: alias, path or owner/name.
    pub name: &'a str,
    /// Its family.
    pub family: &'a str,
    /// Hash of its files.
    pub sha256: &'a str,
    /// How its weights were kept.
    pub weights: Option<Precision>,
    /// Defaults that were taken, keys that were ignored.
    #[serde(skip_serializing_if = "KeyReport::is_empty")]
    pub keys: &'a KeyReport,
}

impl<'a> ModelRecord<'a> {
    /// Of a model.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn of(model: &'a Model) -> Result<Self> {
        Ok(Self {
            name: model.name(),
            family: model.config().family,
            sha256: model.sha256()?,
            weights: model.footprint().chosen,
            keys: model.key_report(),
        })
    }
}

/// What work on a data set left in a folder.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The model, as it was loaded.
    pub model: String,
    /// The folder.
    pub out: String,
    /// How many examples there are results of.
    pub examples: usize,
    /// How many of these were there before.
    pub resumed: usize,
    /// The files that were written.
    pub files: Vec<String>,
    /// The examples left out; a list wherever there is a data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Refused>>,
}

/// A warning, as JSON output has it.
#[derive(Debug, Clone, Serialize)]
pub struct Warning {
    /// In words.
    pub message: String,
    /// What it is about.
    #[serde(flatten)]
    pub of: MissingSpace,
}

impl From<MissingSpace> for Warning {
    fn from(of: MissingSpace) -> Self {
        Self { message: of.to_string(), of }
    }
}

/// The last part of a model's name, as figures have it.
pub(crate) fn short_name(model: &Model) -> String {
    Path::new(model.name()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
