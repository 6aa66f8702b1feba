//! Renders a template with minijinja, within bounds: `syntax` rewrites it so that what it makes is counted, `vocabulary`
//! is what it may use, `bounds` counts, and `python` writes texts as Python does.

mod bounds;
mod python;
mod syntax;
mod vocabulary;

use crate::conversation::{Message, Specials};
use crate::error::{Error, Result};
use bounds::Bounds;
use minijinja::value::Value;
use minijinja::{Environment, context};
use std::io::{self, Write};
use std::sync::Arc;
use syntax::wrong;

/// Steps of a template, and more for each message.
const MOST_STEPS: u64 = 20_000;
const STEPS_OF_A_MESSAGE: u64 = 1_000;
/// Of the thread that reads and runs a template: what nests in one tag goes as deep as the tag is long.
const STACK: usize = 32 << 20;
/// Bytes of a template's own text that may be written again and again.
const MOST_REPEATED: u64 = 32 << 20;

/// The text of a conversation, rendered on a stack whose size is known, whoever calls.
pub(crate) fn render(
    source: &str,
    messages: &[Message],
    generation_prompt: bool,
    specials: &Specials,
) -> Result<String> {
    std::thread::scope(|scope| {
        let work = || render_here(source, messages, generation_prompt, specials);
        let thread = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|e| Error::template(None, format!("no thread to run it: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(Error::template(None, "it breaks what should interpret it")))
    })
}

fn render_here(
    source: &str,
    messages: &[Message],
    generation_prompt: bool,
    specials: &Specials,
) -> Result<String> {
    let source = syntax::bounded(source)?;
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
    String::from_utf8(out.text).map_err(|e| Error::template(None, e.to_string()))
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
