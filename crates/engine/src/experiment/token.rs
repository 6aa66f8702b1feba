//! A token as people write it: a text that is one token, or an id.

use crate::Result;
use crate::error::Within;
use causalcone_model::Model;
use serde::{Deserialize, Serialize};

/// A token, as a text or an id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text that is one token, or a token id")]
pub enum TokenFile {
    /// By id.
    Id(u32),
    /// By text.
    Text(String),
}

impl From<&str> for TokenFile {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<u32> for TokenFile {
    fn from(id: u32) -> Self {
        Self::Id(id)
    }
}

impl TokenFile {
    /// The id it means.
    pub(crate) fn id(&self, model: &Model, part: &str) -> Result<u32> {
        let id = match self {
            Self::Id(id) => model.check(&[*id]).map(|()| *id),
            Self::Text(text) => model.token_id(text),
        };
        id.within(|| part.into())
    }
}
