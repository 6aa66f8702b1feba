//! Chat templates: how a model was trained to see a conversation, as one text.
//!
//! A template is a small program in Jinja's language that comes with a model, so it is as little to be trusted as the
//! rest of its files. It runs within bounds: so many steps (`minijinja`'s fuel), so long a text, so much made on the
//! way. Steps alone would not do, since a text can double at each: `bounds` has what counts, and `syntax` turns every
//! `+` and `~` of a template into a call of it. What cannot be bounded is refused by name.
//!
//! ```
//! use causalcone_model::chat::{ChatTemplate, Message};
//! let template = ChatTemplate::new(
//!     "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
//! )?;
//! let text = template.render(&[Message::user(" Hello {{ you }} ")], true, &Default::default())?;
//! assert_eq!(text, "<|user|>Hello {{ you }}\n<|assistant|>"); // what is said is never run
//! # Ok::<(), causalcone_model::Error>(())
//! ```

mod bounds;
mod date;
mod python;
mod syntax;
mod vocabulary;

pub use date::{Clock, Date};

use crate::{Error, Result};
use bounds::Bounds;
use minijinja::value::Value;
use minijinja::{Environment, context};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::sync::Arc;
use syntax::wrong;

/// The longest templates in use, with tools and all, have 20 kB.
const MOST_SOURCE: usize = 128 << 10;
/// Steps of a template, and more for each message.
const MOST_STEPS: u64 = 20_000;
const STEPS_OF_A_MESSAGE: u64 = 1_000;
/// Of the thread that reads and runs a template: what nests in one tag goes as deep as the tag is long.
const STACK: usize = 32 << 20;
/// Bytes of a template's own text that may be written again and again.
const MOST_REPEATED: u64 = 32 << 20;

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

/// A chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    /// Takes the text of a template. What is wrong with it is said when it is [rendered](Self::render), since most who
    /// load a model do not need it.
    ///
    /// # Errors
    /// When it is longer than any template.
    pub fn new(source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        if source.len() > MOST_SOURCE {
            let problem =
                format!("it has {} bytes, more than the {MOST_SOURCE} a template may have", source.len());
            return Err(Error::Template { line: None, problem });
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
    /// [`Error::Template`] when the template is broken, refuses the conversation, or goes out of bounds.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        specials: &Specials,
    ) -> Result<String> {
        // On a stack whose size is known, whoever calls.
        let ended = std::thread::scope(|scope| {
            let work = || self.render_here(messages, generation_prompt, specials);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            thread.map(std::thread::ScopedJoinHandle::join)
        });
        match ended {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                Err(Error::Template { line: None, problem: "it breaks what should interpret it".into() })
            }
            Err(source) => {
                Err(Error::Template { line: None, problem: format!("no thread to run it: {source}") })
            }
        }
    }

    fn render_here(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        specials: &Specials,
    ) -> Result<String> {
        let source = syntax::bounded(&self.source)?;
        let said: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let bounds = Arc::new(Bounds::new(said));
        let mut environment = Environment::empty();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        let steps = MOST_STEPS + STEPS_OF_A_MESSAGE * messages.len() as u64;
        environment.set_fuel(Some(steps.min(MOST_REPEATED / source.longest_text.max(1) as u64)));
        environment.set_recursion_limit(64);
        vocabulary::equip(&mut environment, &bounds, &specials.clock);
        let template = environment.template_from_str(&source.text).map_err(|e| wrong(&e))?;
        // As transformers gives them: what a model lacks is undefined, what is not asked for is none.
        let special = |token: Option<&str>| token.map_or(Value::UNDEFINED, Value::from);
        let context = context! {
            messages => Value::from_serialize(messages),
            add_generation_prompt => generation_prompt,
            bos_token => special(specials.bos.as_deref()),
            eos_token => special(specials.eos.as_deref()),
            tools => (),
            documents => (),
        };
        let mut out = Bounded { text: Vec::new(), most: bounds.most_text() };
        template.render_captured_to(context, &mut out).map_err(|e| wrong(&e))?;
        String::from_utf8(out.text).map_err(|e| Error::Template { line: None, problem: e.to_string() })
    }
}

/// A text that ends as an error where it becomes too long.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.most {
            return Err(io::Error::other(format!("the text becomes longer than {} bytes", self.most)));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
