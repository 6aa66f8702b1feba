//! What a family is: the formats its files come in, each with its keys and its names of tensors.

use super::assemble::{Names, Reading, assemble};
use super::defaults;
use super::gguf::Header;
use crate::Result;
use crate::config::Config;
use crate::decoder::Decoder;
use crate::file::keys::{Defaults, Keys};
use crate::file::{Precision, Weights};
use crate::load::Outline;
use std::sync::{Mutex, PoisonError};

/// One format a family's files come in.
#[derive(Debug)]
pub(crate) struct Format {
    config: Reader,
    /// What stands in for keys that a file leaves out.
    pub(crate) defaults: Defaults,
    names: Names,
}

/// Reads a configuration, having read or ignored every key of it.
#[derive(Debug)]
enum Reader {
    HuggingFace(fn(&Keys) -> Result<Config>),
    /// The format leaves to the tensors what could stand there: that there are biases, how many tokens there are.
    Gguf(fn(&Header<'_>) -> Result<Config>),
}

impl Format {
    pub(super) const fn hugging_face(
        defaults: Defaults,
        config: fn(&Keys) -> Result<Config>,
        names: Names,
    ) -> Self {
        Self { config: Reader::HuggingFace(config), defaults, names }
    }

    pub(super) const fn gguf(config: fn(&Header<'_>) -> Result<Config>, names: Names) -> Self {
        Self { config: Reader::Gguf(config), defaults: defaults::GGUF, names }
    }

    /// The configuration.
    pub(crate) fn config(&self, keys: &Keys, weights: &Weights) -> Result<Config> {
        match self.config {
            Reader::HuggingFace(config) => config(keys),
            Reader::Gguf(config) => config(&Header::new(keys, weights)?),
        }
    }

    /// Checks every tensor by its header and counts what the tensors take. Reads no values.
    pub(crate) fn outline(&self, config: &Config, weights: &Weights) -> Result<Outline> {
        let outline = Mutex::default();
        assemble(config.clone(), weights, &self.names, Reading::Headers(&outline), 1)?;
        Ok(outline.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// The decoder, having taken or ignored every tensor, with matrices kept as `precision` says and at most `at_once`
    /// blocks assembled at a time.
    pub(crate) fn load(
        &self,
        config: Config,
        weights: &Weights,
        precision: Precision,
        at_once: usize,
    ) -> Result<Decoder> {
        assemble(config, weights, &self.names, Reading::Values(precision), at_once)
    }
}

/// One family.
pub(crate) struct Family {
    /// `model_type` of config.json.
    pub(super) name: &'static str,
    /// `architectures` of config.json that are this decoder with an unembedding.
    pub(super) architectures: &'static [&'static str],
    pub(super) hugging_face: Format,
    /// `general.architecture` of GGUF files, and how to read them.
    pub(super) gguf: Option<(&'static str, Format)>,
}
