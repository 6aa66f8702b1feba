//! Data sets: one experiment for many prompts, each with its own positions and tokens.
//!
//! An [`Example`] is one line of a JSON Lines file, or is built:
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! let line = r#"{"base": "The capital of Spain is", "positions": {"subject": 3}, "tokens": [" Madrid"]}"#;
//! let built = Example::new().prompt("base", "The capital of Spain is").position("subject", 3).token(" Madrid");
//! assert_eq!(Example::from_json(line)?, built);
//! let error = Example::from_json(r#"{"base": 3}"#).unwrap_err();
//! assert_eq!(error.to_string(), "base: 3 is neither a text nor a list of token ids");
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use crate::bounds::EXAMPLES as MAX_EXAMPLES;
use crate::error::{Origin, Within};
use crate::experiment::token::TokenFile;
use crate::{Error, Result, parse};
use causalcone_model::chat::Message;
use causalcone_model::file::{DataFile, json};
use causalcone_model::{Indices, Model, nearest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

pub use crate::error::Refused;

/// As large as an experiment file may be; what is parsed of it takes a few times that.
const MAX_FILE: u64 = 16 << 20;
/// A line is parsed whole.
const MAX_LINE: usize = 1 << 20;
/// Values in a line.
const MAX_VALUES: usize = 1 << 16;

/// The keys of a line that are no runs.
pub(crate) const KEYS: [&str; 4] = ["positions", "tokens", "answers", "label"];

/// One example: prompts for the runs that have none, and what goes with them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Example {
    /// Prompts, by run.
    pub prompts: BTreeMap<String, Prompt>,
    /// Positions with a name, for [`Positions::Name`](causalcone_model::Positions::Name).
    pub positions: BTreeMap<String, Indices>,
    /// Tokens in place of those the experiment reads.
    pub tokens: Option<Vec<TokenFile>>,
    /// Answers of one token or more in place of those the experiment reads.
    pub answers: Option<Vec<Prompt>>,
    /// The token that should come next, as JSON: a text that is one token, or an id.
    pub label: Option<String>,
    pub(crate) origin: Origin,
}

/// A prompt, or an answer to one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text, a list of token ids, or { messages = [ … ] }")]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Token ids.
    Ids(Vec<u32>),
    /// A conversation.
    Chat {
        /// Its turns.
        messages: Vec<Message>,
    },
}

impl Prompt {
    /// The ids it means as an answer: of a text those it has behind a prompt.
    pub(crate) fn ids(&self, model: &Model, part: &str) -> Result<Vec<u32>> {
        let ids = match self {
            Self::Ids(ids) => return Ok(ids.clone()),
            Self::Text(text) => model.answer(text),
            Self::Chat { .. } => return Err(Error::part(part, "an answer is a text or a list of token ids")),
        };
        ids.within(|| part.into())
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<Vec<u32>> for Prompt {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}

impl Example {
    /// One without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a prompt for a run.
    #[must_use]
    pub fn prompt(mut self, run: &str, prompt: impl Into<Prompt>) -> Self {
        self.prompts.insert(run.into(), prompt.into());
        self
    }

    /// The same with a name for positions.
    #[must_use]
    pub fn position(mut self, name: &str, positions: impl Into<Indices>) -> Self {
        self.positions.insert(name.into(), positions.into());
        self
    }

    /// The same with one more token to read.
    #[must_use]
    pub fn token(mut self, token: impl Into<TokenFile>) -> Self {
        self.tokens.get_or_insert_default().push(token.into());
        self
    }

    /// The same with one more answer to read.
    #[must_use]
    pub fn answer(mut self, answer: impl Into<Prompt>) -> Self {
        self.answers.get_or_insert_default().push(answer.into());
        self
    }

    /// The same with the token that should come next.
    #[must_use]
    pub fn label(mut self, token: impl Into<TokenFile>) -> Self {
        self.label = serde_json::to_string(&token.into()).ok();
        self
    }

    /// Its number in its data set, counted from 0.
    pub fn number(&self) -> usize {
        self.origin.number
    }

    /// Reads one line.
    ///
    /// # Errors
    /// When it is not a JSON object, has a key twice, or a key's value is of the wrong kind. Whether
    /// its keys are runs is found when it meets an experiment.
    pub fn from_json(text: &str) -> Result<Self> {
        let wrong = |e: serde_json::Error| {
            // A line of a data set is the only one of its document.
            let problem = match e.line() {
                1 => format!("{} at column {}", parse::without_position(&e), e.column()),
                _ => e.to_string(),
            };
            Error::part("JSON", problem)
        };
        json::check(text.as_bytes(), MAX_VALUES).map_err(wrong)?;
        if !text.trim_start().starts_with('{') {
            let hint = Some("such as {\"base\": \"The capital of Spain is\"}".into());
            return Err(Error::hinted("example", "is not a JSON object", hint));
        }
        let keys: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(wrong)?;
        let mut example = Self::new();
        for (key, written) in keys {
            match key.as_str() {
                "positions" => example.positions = named(written)?,
                "tokens" => example.tokens = Some(parsed(&key, written, "not a list of texts or token ids")?),
                "answers" => {
                    example.answers =
                        Some(parsed(&key, written, "not a list of texts or lists of token ids")?);
                }
                "label" => example.label = Some(written.get().into()),
                _ => {
                    let prompt = parsed(&key, written, "neither a text nor a list of token ids")?;
                    example.prompts.insert(key, prompt);
                }
            }
        }
        Ok(example)
    }
}

/// The named positions of a line.
fn named(written: &RawValue) -> Result<BTreeMap<String, Indices>> {
    let fits = "not a table of names, such as {\"subject\": [2, 3]}";
    let names: BTreeMap<String, &RawValue> = parsed("positions", written, fits)?;
    let one = |(name, written): (String, &RawValue)| {
        let indices = parse::json_part(written.get()).map_err(|e| {
            let part = parse::joined(&parse::joined("positions", &name), &e.key);
            let problem = parse::without_position(&e.source);
            Error::part(part, format!("{}: {problem}", short(written.get())))
        })?;
        Ok((name, indices))
    };
    names.into_iter().map(one).collect()
}

/// The value of a key of a line.
fn parsed<'a, T: Deserialize<'a>>(key: &str, written: &'a RawValue, fits: &str) -> Result<T> {
    parse::json_part(written.get()).map_err(|e| {
        let near = nearest(key, KEYS).filter(|near| *near != key);
        let hint = near.map(|near| format!("did you mean \"{near}\"?"));
        Error::hinted(parse::joined(&short(key), &e.key), format!("{} is {fits}", short(written.get())), hint)
    })
}

/// The start of what a line says.
fn short(text: &str) -> String {
    parse::cut_off(text, 60)
}

/// The examples of a data set. Those of a file stay text and are parsed when they are asked for: parsed they would take
/// many times the memory, however short the lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Examples {
    list: Vec<Item>,
    /// The file's name and bytes.
    file: Option<(Arc<str>, Arc<Vec<u8>>)>,
}

#[derive(Debug, Clone)]
enum Item {
    /// Made by a program.
    Made(Arc<Example>),
    /// The number of a line that is not blank, the number of the line, and the bytes of it.
    Line { number: u32, line: u32, bytes: Range<u32> },
}

impl Examples {
    /// Reads a file; the lines are not parsed yet.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let data = DataFile::open(path)?;
        let refuse = |problem: String| Error::File { path: path.into(), problem, hint: None };
        if data.len() <= MAX_FILE && count(&data)? > MAX_EXAMPLES {
            return Err(refuse(format!("has more than the {MAX_EXAMPLES} examples a data set may have")));
        }
        let bytes = data.read_all(MAX_FILE)?;
        let mut list = Vec::new();
        let mut start = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
        for (index, line) in bytes[start..].split(|b| *b == b'\n').enumerate() {
            let end = start + line.len();
            if !line.iter().all(u8::is_ascii_whitespace) {
                let number = list.len() as u32;
                list.push(Item::Line { number, line: index as u32 + 1, bytes: start as u32..end as u32 });
            }
            start = end + 1;
        }
        if list.is_empty() {
            return Err(refuse("holds no example: one JSON object a line".into()));
        }
        // The file may have grown since it was counted.
        if list.len() > MAX_EXAMPLES {
            return Err(refuse(format!("has more than the {MAX_EXAMPLES} examples a data set may have")));
        }
        Ok(Self { list, file: Some((path.display().to_string().into(), Arc::new(bytes))) })
    }

    /// A data set of these examples, in order.
    pub(crate) fn numbered(examples: Vec<Example>) -> Self {
        let number = |(number, example): (usize, Example)| Example {
            origin: Origin { number, line: None },
            ..example
        };
        examples.into_iter().enumerate().map(number).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them; of a line that is no example what is wrong with it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Example, Refused>> + '_ {
        self.slice(0..self.len())
    }

    /// Those at some places.
    pub(crate) fn slice(&self, places: Range<usize>) -> impl Iterator<Item = Result<Example, Refused>> + '_ {
        let places = places.start.min(self.len())..places.end.min(self.len());
        self.list[places].iter().map(|item| self.parsed(item))
    }

    fn parsed(&self, item: &Item) -> Result<Example, Refused> {
        let (number, line, bytes) = match item {
            Item::Made(example) => return Ok((**example).clone()),
            Item::Line { number, line, bytes } => (number, line, bytes),
        };
        let (name, text) = self.file.clone().unwrap_or_default();
        let origin = Origin { number: *number as usize, line: Some((name, *line as usize)) };
        let line = text.get(bytes.start as usize..bytes.end as usize).unwrap_or_default();
        let example = read_line(line).map_err(|e| origin.refuse(&e))?;
        Ok(Example { origin, ..example })
    }

    /// Keeps those for which `keep`, called in order, says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut() -> bool) {
        self.list.retain(|_| keep());
    }

    /// Keeps the first so many.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
    }
}

/// Examples that are numbered already.
impl FromIterator<Example> for Examples {
    fn from_iter<I: IntoIterator<Item = Example>>(examples: I) -> Self {
        let list = examples.into_iter().map(|example| Item::Made(Arc::new(example))).collect();
        Self { list, file: None }
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// How many lines are not blank, counted in a small buffer.
fn count(file: &DataFile) -> Result<usize> {
    let mut buffer = vec![0; 1 << 16];
    let (mut lines, mut is_open) = (0, false);
    let mut start = [0; BOM.len()];
    let has_bom = file.len() >= BOM.len() as u64 && file.read_at(&mut start, 0).is_ok() && start == *BOM;
    let mut at = if has_bom { BOM.len() as u64 } else { 0 };
    while at < file.len() {
        let left = usize::try_from(file.len() - at).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        file.read_at(&mut buffer[..len], at)?;
        for byte in &buffer[..len] {
            match byte {
                b'\n' => is_open = false,
                byte if byte.is_ascii_whitespace() || is_open => {}
                _ => {
                    is_open = true;
                    lines += 1;
                }
            }
        }
        at += len as u64;
    }
    Ok(lines)
}

/// Reads a data set: one JSON object a line, blank lines aside. A line that is no example does not
/// stop the others: it is in the list with what is wrong with it.
///
/// # Errors
/// When the file cannot be read, is longer than 16 MB or 65 536 examples, or holds none.
pub fn load(path: &Path) -> Result<Vec<Result<Example, Refused>>> {
    Ok(Examples::open(path)?.iter().collect())
}

fn read_line(line: &[u8]) -> Result<Example> {
    if line.len() > MAX_LINE {
        let problem = format!("has {} bytes, more than the {MAX_LINE} a line may have", line.len());
        return Err(Error::part("example", problem));
    }
    let text = std::str::from_utf8(line).map_err(|_| Error::part("example", "is not UTF-8 text"))?;
    Example::from_json(text)
}
