//! Documents in TOML and JSON, read so that an error names the key at fault.

use crate::Error;
use causalcone_model::file::json;
use causalcone_model::{nearest, shortened};
use serde::de::{Deserialize, DeserializeOwned};
use serde_path_to_error::{Path as KeyPath, Segment};
use std::fmt;
use std::path::Path;

/// Values in a file: parsed, each takes up to some hundred bytes. More numbers belong in a
/// safetensors file.
const MAX_VALUES: usize = 1 << 18;
/// The same for TOML, whose parser takes more.
const MAX_TOML_VALUES: usize = 1 << 16;
/// The most characters of a path: a file may have keys of any length.
const LONGEST_PATH: usize = 120;
/// The most characters of a parser's message, which may quote the file.
const LONGEST_PROBLEM: usize = 1000;

/// Why a document does not follow its schema.
#[derive(Debug)]
pub(crate) struct SchemaError {
    /// The path of the key at fault, such as `edit[1].value`; empty at the top level.
    key: String,
    problem: String,
    hint: Option<String>,
}

impl SchemaError {
    /// `problem` is shown; `message` is what serde says in it. An unknown key gets the nearest known one as a hint.
    fn new(key: String, problem: &str, message: &str) -> Self {
        let hint = UnknownName::of(message)
            .and_then(|unknown| nearest(unknown.name, unknown.known()))
            .map(|near| format!("did you mean `{near}`?"));
        Self { key, problem: cut_off(problem, LONGEST_PROBLEM), hint }
    }

    /// The error of a file that holds the document.
    pub(crate) fn in_file(self, file: &Path) -> Error {
        let Self { key, problem, hint } = self;
        Error::File { path: file.into(), problem: located(&key, &problem), hint }
    }
}

impl From<SchemaError> for Error {
    fn from(error: SchemaError) -> Self {
        let part = if error.key.is_empty() { "experiment".into() } else { error.key };
        Self::hinted(part, error.problem, error.hint)
    }
}

/// An error of serde_json, with the path of the key at fault.
#[derive(Debug)]
pub(crate) struct JsonError {
    /// Such as `[1].which`; empty if it is the value as a whole.
    pub(crate) key: String,
    pub(crate) source: serde_json::Error,
}

impl JsonError {
    fn new(source: serde_path_to_error::Error<serde_json::Error>) -> Self {
        Self { key: key_path(source.path(), &source.inner().to_string()), source: source.into_inner() }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&located(&self.key, &self.source.to_string()))
    }
}

/// Reads TOML that follows a schema.
pub(crate) fn toml<T: DeserializeOwned>(text: &str) -> Result<T, SchemaError> {
    // Each value but the first follows one of these, if not in a text.
    let values = text.bytes().filter(|b| b",=[{\n".contains(b)).count();
    if values > MAX_TOML_VALUES {
        let most = format!("the {MAX_TOML_VALUES} such a file may have");
        let problem = format!("{values} lines and values are more than {most}");
        let hint = Some("put long lists of numbers into a safetensors file: value = { file = … }".into());
        return Err(SchemaError { key: String::new(), problem, hint });
    }
    let document = toml::de::Deserializer::parse(text).map_err(|e| toml_error(text, String::new(), &e))?;
    serde_path_to_error::deserialize(document)
        .map_err(|e| toml_error(text, key_path(e.path(), e.inner().message()), e.inner()))
}

fn toml_error(text: &str, key: String, error: &toml::de::Error) -> SchemaError {
    match error.span() {
        // The parser would show the line.
        Some(span) if line_around(text, span.start).len() > 200 => {
            let line = text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1;
            let problem = format!("TOML parse error at line {line}: {}", error.message());
            SchemaError::new(key, &problem, error.message())
        }
        _ => SchemaError::new(key, error.to_string().trim_end(), error.message()),
    }
}

/// Reads JSON that follows a schema.
pub(crate) fn json<T: DeserializeOwned>(text: &str) -> Result<T, SchemaError> {
    // Once for keys given twice, which serde would let pass inside maps; once for the schema, whose
    // errors then say where.
    let error = |key, e: &serde_json::Error| {
        let message = e.to_string();
        SchemaError::new(key, &message, &message)
    };
    json::check(text.as_bytes(), MAX_VALUES).map_err(|e| error(String::new(), &e))?;
    json_part(text).map_err(|e| error(e.key, &e.source))
}

/// Reads JSON that was checked as part of a larger document, or comes from this library.
pub(crate) fn json_part<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    let mut part = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut part).map_err(JsonError::new)?;
    part.end().map_err(|source| JsonError { key: String::new(), source })?;
    Ok(value)
}

/// What serde_json says, without the line and column that it adds.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&position).unwrap_or(&message).to_owned()
}

/// The path of a key in a value that is itself at a path.
pub(crate) fn joined(path: &str, key: &str) -> String {
    let separator = if key.is_empty() || key.starts_with('[') { "" } else { "." };
    format!("{path}{separator}{key}")
}

/// The first `most` characters of a text, with an ellipsis if there are more.
pub(crate) fn cut_off(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn located(key: &str, problem: &str) -> String {
    if key.is_empty() { problem.into() } else { format!("{key}: {problem}") }
}

/// A path in writing, of bounded length; empty at the top level.
fn key_path(path: &KeyPath, message: &str) -> String {
    let last = path.iter().next_back();
    let mut written = if last.is_some() { path.to_string() } else { String::new() };
    // The message names an unknown key. What is at fault is the table that has it.
    if let (Some(Segment::Map { key }), Some(UnknownName { is_key: true, name, .. })) =
        (last, UnknownName::of(message))
        && key == name
    {
        written.truncate(written.len() - key.len());
        if written.ends_with('.') {
            written.pop();
        }
    }
    shortened(&written, LONGEST_PATH).into_owned()
}

/// An unknown name that serde refuses, and the names that it knows there.
struct UnknownName<'m> {
    /// Whether it is a key; else it is one of an enumeration's names.
    is_key: bool,
    name: &'m str,
    known: &'m str,
}

impl<'m> UnknownName<'m> {
    /// Serde gives the names in no other form: the errors of serde_json and toml keep only the message.
    fn of(message: &'m str) -> Option<Self> {
        let key = message.strip_prefix("unknown field `");
        let rest = key.or_else(|| message.strip_prefix("unknown variant `"))?;
        // The unknown name comes from the file and may hold anything; the known ones do not.
        let (name, known) = rest.rsplit_once("`, expected ")?;
        Some(Self { is_key: key.is_some(), name, known })
    }

    fn known(&self) -> impl Iterator<Item = &'m str> + use<'m> {
        self.known.split('`').skip(1).step_by(2)
    }
}

/// The line that a byte of a text is in.
fn line_around(text: &str, at: usize) -> &[u8] {
    let (before, after) = text.as_bytes().split_at(at.min(text.len()));
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let end = after.iter().position(|b| *b == b'\n').unwrap_or(after.len());
    &text.as_bytes()[start..before.len() + end]
}
