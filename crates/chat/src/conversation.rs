//! What a template writes: the turns of a conversation, and what else it may use.

use crate::date::Clock;
use serde::{Deserialize, Serialize};

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Whose turn it is: "system", "user", "assistant".
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// What the user says.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// What templates may use besides the conversation: the texts of special tokens, and the date.
#[derive(Debug, Clone, Default)]
pub struct Specials {
    /// Start of text.
    pub bos: Option<String>,
    /// End of text.
    pub eos: Option<String>,
    /// What `strftime_now` reads.
    pub clock: Clock,
}
