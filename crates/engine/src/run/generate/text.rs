//! What generated tokens say, and when a stop text has come.

use super::options::Generation;
use crate::bounds;
use crate::{Error, Result};
use causalcone_model::Model;

/// Checks what of the options is about texts.
pub(super) fn check(options: &Generation, model: &Model) -> Result<()> {
    bounds::GENERATE_MAX_TOKENS.check(options.max_tokens)?;
    if options.stop.iter().any(String::is_empty) {
        return Err(Error::part(
            "generate",
            "a stop text is empty, which would end every text before it begins",
        ));
    }
    if let Some(first) = options.stop.first() {
        model.needs_tokenizer(first)?;
    }
    if options.eos {
        model.eos_ids()?;
    }
    Ok(())
}

/// The text of a run's new tokens.
#[derive(Debug, Clone)]
pub(super) struct Text<'a> {
    model: &'a Model,
    prompt: Vec<u32>,
    prompt_text: String,
    text: String,
    certain: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(model: &'a Model, prompt: &[u32]) -> Self {
        let prompt_text = model.text(prompt);
        Self { model, prompt: prompt.to_vec(), prompt_text, text: String::new(), certain: 0 }
    }

    /// Takes in all new tokens so far; says whether a stop text has come, before which the text ends.
    pub(super) fn update(&mut self, ids: &[u32], stop: &[String]) -> bool {
        // Behind the prompt: what a token says can depend on whether it is the first.
        let whole = self.model.text(&[&self.prompt, ids].concat());
        self.text = match whole.strip_prefix(&self.prompt_text) {
            Some(new) if self.model.tokenizer().is_some() => new.to_owned(),
            _ => self.model.text(ids),
        };
        let found = stop.iter().filter_map(|stop| self.text.find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(at);
            self.certain = self.text.len();
            return true;
        }
        // A character may be in parts yet, and a stop text may have begun.
        let whole = self.text.trim_end_matches('\u{fffd}').len();
        let begun = |stop: &String| {
            let mut starts = stop.char_indices().rev().map(|(at, _)| at);
            starts.find(|at| self.text[..whole].ends_with(&stop[..*at])).unwrap_or(0)
        };
        self.certain = whole - stop.iter().map(begun).max().unwrap_or(0);
        false
    }

    /// As far as no further token can change it.
    pub(super) fn certain(&self) -> &str {
        self.text.get(..self.certain).unwrap_or_default()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}
