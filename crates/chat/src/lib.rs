//! Chat templates: how a model was trained to see a conversation, as one text.
//!
//! A template is a small program in Jinja's language that comes with a model, so it is as little to be trusted as the
//! rest of its files. It runs within bounds: the number of steps (`minijinja`'s fuel), the length of the text, and what is
//! made on the way. Steps alone do not suffice, since a text can double at each: `+` and `~` become calls that count, and
//! what cannot be bounded is refused by name.
//!
//! ```
//! use causalcone_chat::{ChatTemplate, Message};
//! let template = ChatTemplate::new(
//!     "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
//! )?;
//! let text = template.render(&[Message::user(" Hello {{ you }} ")], true, &Default::default())?;
//! assert_eq!(text, "<|user|>Hello {{ you }}\n<|assistant|>"); // what is said is never run
//! # Ok::<(), causalcone_chat::Error>(())
//! ```
//!
//! # The feature `chat`
//!
//! The check of a template reads minijinja's syntax tree, an interface that may change in any release. The crate therefore
//! depends on one exact version of minijinja, and cargo allows only one 2.x in a build. A program that needs another one
//! turns off the feature `chat`, which is on by default. All types stay, and [`ChatTemplate::render`] returns
//! [`Error::NotBuilt`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod conversation;
mod date;
mod error;
#[cfg(feature = "chat")]
mod render;
mod template;

pub use conversation::{Message, Specials};
pub use date::{Clock, Date};
pub use error::{Error, Result};
pub use template::ChatTemplate;
