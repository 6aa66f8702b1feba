//! How a model is loaded.

use crate::file::Precision;
use crate::file::keys::KeyPolicy;

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
}

impl From<Precision> for LoadOptions {
    fn from(weights: Precision) -> Self {
        Self { weights, keys: KeyPolicy::default() }
    }
}
