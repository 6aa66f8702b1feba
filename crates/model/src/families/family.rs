//! What a family is: the formats its files come in, each with its keys and its names of tensors.

use super::assemble::{Names, assemble, outline};
use crate::Result;
use crate::config::Config;
use crate::decoder::Decoder;
use crate::file::keys::{Defaults, Keys};
use crate::file::{Precision, Weights};
use crate::load::Outline;

/// One format a family's files come in.
#[derive(Debug)]
pub(crate) struct Format {
    /// Reads a configuration, having read or ignored every key of it. Some formats leave to the tensors what could
    /// stand there: that there are biases, how many tokens there are.
    pub(super) config: fn(&Keys, &Weights) -> Result<Config>,
    /// What stands in for keys that a file leaves out.
    pub(super) defaults: Defaults,
    pub(super) names: Names,
}

impl Format {
    /// What stands in for keys that a file leaves out.
    pub(crate) fn defaults(&self) -> Defaults {
        self.defaults
    }

    /// The configuration.
    pub(crate) fn config(&self, keys: &Keys, weights: &Weights) -> Result<Config> {
        (self.config)(keys, weights)
    }

    /// Checks every tensor by its header and counts what the tensors take. Reads no values.
    pub(crate) fn outline(&self, config: &Config, weights: &Weights) -> Result<Outline> {
        outline(config, weights, &self.names)
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
        assemble(config, weights, &self.names, precision, at_once)
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
