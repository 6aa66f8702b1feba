//! How a model is loaded.

use crate::config::Config;
use crate::file::Precision;
use crate::file::keys::KeyPolicy;
use crate::stage::Stages;
use std::sync::Arc;

/// What may be chosen when a model is loaded.
///
/// ```
/// use causalcone_model::{KeyPolicy, LoadOptions, Model, silent};
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let options = LoadOptions { keys: KeyPolicy { strict: true, ..KeyPolicy::default() }, ..LoadOptions::default() };
/// let model = Model::load_with_options(path, &options, &silent)?;
/// assert!(model.key_report().unknown.is_empty());
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How weights are kept in memory.
    pub weights: Precision,
    /// What becomes of configuration keys that this version does not know.
    pub keys: KeyPolicy,
    /// The stages of a block, for models whose files are those of a family that is there but whose blocks are built
    /// otherwise; a norm that the family lacks has the name of its tensor in the block.
    pub block: Option<Arc<Stages>>,
}

impl LoadOptions {
    /// A configuration as it is loaded.
    pub(super) fn apply(&self, config: Config) -> Config {
        match &self.block {
            Some(block) => Config { block: block.clone(), ..config },
            None => config,
        }
    }
}

impl From<Precision> for LoadOptions {
    fn from(weights: Precision) -> Self {
        Self { weights, ..Self::default() }
    }
}
