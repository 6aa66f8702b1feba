//! What may be done about keys that a model's files have and this version does not know, and what was done.

use serde::{Deserialize, Serialize};

/// How keys are treated that this version does not know.
///
/// ```
/// use causalcone_model::KeyPolicy;
/// let policy: KeyPolicy = serde_json::from_str(r#"{"ignore_keys": ["qk_layernorm"]}"#)?;
/// assert!(!policy.strict);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPolicy {
    /// Unknown keys that are ignored although their names speak of computation: the caller knows that they change
    /// nothing. A key inside an object is named with a dot: `rope_scaling.mystery`.
    pub ignore_keys: Vec<String>,
    /// Refuses every unknown key that has a value, not only those whose names speak of computation.
    pub strict: bool,
}

/// What was concluded about a model's configuration keys. Results record it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KeyReport {
    /// Keys that the files leave out, with the value that stands in and where it comes from.
    pub defaulted: Vec<Defaulted>,
    /// Keys that were ignored because the caller said so ([`KeyPolicy::ignore_keys`]), as `name = value`.
    pub ignored: Vec<String>,
    /// Unknown keys, as `name = value`, whose names do not speak of computation.
    pub unknown: Vec<String>,
    /// What else was found about the files, a sentence each.
    pub notes: Vec<String>,
}

impl KeyReport {
    /// The warning to show once when the model is loaded: its unknown keys.
    pub fn warning(&self) -> Option<String> {
        let keys = self.unknown.join(", ");
        (!keys.is_empty())
            .then(|| format!("unknown configuration keys, assumed not to change the answers: {keys}"))
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A key that the files leave out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Defaulted {
    /// Its name.
    pub key: String,
    /// The value that stands in for it.
    pub value: serde_json::Value,
    /// Whose default that is: a class of transformers, or the GGUF format.
    pub source: &'static str,
}
