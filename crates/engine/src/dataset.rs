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

use crate::file::TokenFile;
use crate::{Error, Result};
use causalcone_model::chat::Message;
use causalcone_model::file::{DataFile, json};
use causalcone_model::{Indices, nearest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// As large as an experiment file may be; what is parsed of it takes a few times that.
const MAX_FILE: u64 = 16 << 20;
/// A line is parsed whole.
const MAX_LINE: usize = 1 << 20;
/// Values in a line.
const MAX_VALUES: usize = 1 << 16;
/// Lines that are not blank.
pub(crate) const MAX_EXAMPLES: usize = 1 << 16;

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

/// Which example of which data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Origin {
    /// Counted from 0; in a file, over the lines that are not blank.
    pub(crate) number: usize,
    /// The file, and the line counted from 1.
    pub(crate) line: Option<(Arc<str>, usize)>,
}

impl Origin {
    /// Says which example an error is about.
    pub(crate) fn refuse(&self, error: &Error) -> Refused {
        Refused {
            example: self.number,
            line: self.line.as_ref().map(|(_, line)| *line),
            file: self.line.as_ref().map(|(file, _)| file.clone()),
            problem: error.to_string(),
            hint: error.hint(),
        }
    }
}

/// An example that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    /// Its number, counted from 0; in a file, over the lines that are not blank.
    pub example: usize,
    /// The line of the file, counted from 1.
    pub line: Option<usize>,
    /// The file.
    #[serde(skip)]
    pub file: Option<Arc<str>>,
    /// What is wrong, and what would fit.
    pub problem: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file} line {line}: {}", self.problem),
            _ => write!(f, "example {}: {}", self.example, self.problem),
        }
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
            // The line is the only one.
            Error::part("JSON", e.to_string().replace(" at line 1 column ", " at column "))
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
                "tokens" => {
                    example.tokens = Some(parsed("tokens", written, "not a list of texts or token ids")?);
                }
                "answers" => {
                    let fits = "not a list of texts or lists of token ids";
                    example.answers = Some(parsed("answers", written, fits)?);
                }
                "label" => example.label = Some(written.get().into()),
                run => {
                    let prompt = parsed(run, written, "neither a text nor a list of token ids")?;
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
        let part = format!("positions: {name}");
        let indices = serde_json::from_str(written.get()).map_err(|e| {
            let problem = e.to_string();
            let problem = problem.split(" at line ").next().unwrap_or_default();
            Error::part(part, format!("{}: {problem}", short(written.get())))
        })?;
        Ok((name, indices))
    };
    names.into_iter().map(one).collect()
}

/// The value of a key of a line.
fn parsed<'a, T: Deserialize<'a>>(key: &str, written: &'a RawValue, fits: &str) -> Result<T> {
    serde_json::from_str(written.get()).map_err(|_| {
        let near = nearest(key, KEYS).filter(|near| *near != key);
        let hint = near.map(|near| format!("did you mean \"{near}\"?"));
        Error::hinted(short(key), format!("{} is {fits}", short(written.get())), hint)
    })
}

/// The start of what a line says.
fn short(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A data set of these examples, in order.
pub(crate) fn numbered(examples: Vec<Example>) -> Vec<Result<Example, Refused>> {
    let number = |(number, mut example): (usize, Example)| {
        example.origin = Origin { number, line: None };
        Ok(example)
    };
    examples.into_iter().enumerate().map(number).collect()
}

/// Reads a data set: one JSON object a line, blank lines aside. A line that is no example does not
/// stop the others: it is in the list with what is wrong with it.
///
/// # Errors
/// When the file cannot be read, is longer than 16 MB or 65 536 examples, or holds none.
pub fn load(path: &Path) -> Result<Vec<Result<Example, Refused>>> {
    let bytes = DataFile::open(path)?.read_all(MAX_FILE)?;
    let refuse = |problem: String| Error::File { path: path.into(), problem, hint: None };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let file: Arc<str> = path.display().to_string().into();
    let mut examples = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let origin = Origin { number: examples.len(), line: Some((file.clone(), index + 1)) };
        if origin.number == MAX_EXAMPLES {
            return Err(refuse(format!("has more than the {MAX_EXAMPLES} examples a data set may have")));
        }
        examples.push(match read_line(line) {
            Ok(example) => Ok(Example { origin, ..example }),
            Err(e) => Err(origin.refuse(&e)),
        });
    }
    if examples.is_empty() {
        return Err(refuse("holds no example: one JSON object a line".into()));
    }
    Ok(examples)
}

fn read_line(line: &[u8]) -> Result<Example> {
    if line.len() > MAX_LINE {
        let bytes = line.len();
        return Err(Error::part(
            "example",
            format!("has {bytes} bytes, more than the {MAX_LINE} a line may have"),
        ));
    }
    let text = std::str::from_utf8(line).map_err(|_| Error::part("example", "is not UTF-8 text"))?;
    Example::from_json(text)
}
