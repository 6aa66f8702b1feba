//! A chat template: its text, and what it makes of conversations.

use crate::conversation::{Message, Specials};
use crate::error::{Error, Result};
#[cfg(feature = "chat")]
use crate::render::render;

/// The longest templates in use, with tools and all, have 20 kB.
const MOST_SOURCE: usize = 128 << 10;

/// A chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Takes the text of a template. Its other defects are reported when it is [rendered](Self::render), since most who
    /// load a model do not need its template.
    ///
    /// # Errors
    /// When it is longer than any template.
    pub fn new(source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        if source.len() > MOST_SOURCE {
            let problem =
                format!("it has {} bytes, more than the {MOST_SOURCE} a template may have", source.len());
            return Err(Error::template(None, problem));
        }
        Ok(Self { source })
    }

    /// The text of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation. With `generation_prompt` it ends where the model's own turn begins. Special tokens
    /// that a message spells out stay as they are: they become the tokens, as they do in transformers.
    ///
    /// # Errors
    /// [`Error::Template`] when the template is broken, refuses the conversation, or exceeds its bounds;
    /// [`Error::NotBuilt`] without the feature `chat`.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        specials: &Specials,
    ) -> Result<String> {
        render(&self.source, messages, generation_prompt, specials)
    }
}

/// Says that this build does not render templates.
#[cfg(not(feature = "chat"))]
fn render(_: &str, _: &[Message], _: bool, _: &Specials) -> Result<String> {
    Err(Error::NotBuilt)
}
