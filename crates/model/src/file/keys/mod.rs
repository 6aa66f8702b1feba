//! The keys of a model's configuration: reads them, supplies defaults for missing ones, and accounts for unread ones.
//!
//! A missing key takes the default of the architecture's own class ([`Defaults`]), where there is one. A key that no
//! family reads is accepted if it cannot matter (`known`), refused if its name speaks of computation and it has a value,
//! and reported otherwise: [`Keys::finish`].

mod known;
mod policy;

pub use policy::{Defaulted, KeyPolicy, KeyReport};

use super::gguf::Value as Gguf;
use crate::error::printable;
use crate::{Error, Result};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The keys of a config.json, of an object in one, or of a GGUF header.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    shared: Rc<Shared>,
    /// What the names of the keys begin with in errors: the path to the object that holds them.
    prefix: String,
    map: BTreeMap<String, Json>,
    defaults: BTreeMap<&'static str, Json>,
    source: &'static str,
}

/// What the keys of one file have in common, those of the objects inside it included.
#[derive(Debug, Default)]
struct Shared {
    path: PathBuf,
    policy: KeyPolicy,
    /// Full names of the keys that were read.
    read: RefCell<BTreeSet<String>>,
    /// Full names of the objects whose keys are accounted for one by one.
    opened: RefCell<BTreeSet<String>>,
    report: RefCell<KeyReport>,
}

/// What a class of transformers, or the GGUF format, means where a key is absent.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Whose they are, as it is shown to users: `transformers' LlamaConfig`.
    pub source: &'static str,
    /// Each key with its value, which may be null.
    pub values: &'static [(&'static str, Value)],
}

/// A constant value of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A whole number.
    Count(u64),
    /// Any other number.
    Number(f64),
    /// true or false.
    Flag(bool),
    /// A text.
    Text(&'static str),
    /// Absence, said by the class itself.
    Null,
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Count(n) => n.into(),
            Value::Number(x) => x.into(),
            Value::Flag(flag) => flag.into(),
            Value::Text(text) => text.into(),
            Value::Null => Self::Null,
        }
    }
}

impl Keys {
    /// The keys of a JSON object, which must be unique.
    pub fn from_json(path: &Path, text: &[u8]) -> Result<Self> {
        match super::json::parse(text) {
            Ok(Json::Object(object)) => Ok(Self::new(path, object.into_iter())),
            Ok(_) => Err(Error::file(path, "document", "is not a JSON object")),
            Err(e) => Err(Error::file(path, "document", e.to_string())),
        }
    }

    /// The scalar metadata of a GGUF header. Lists of numbers are kept as far as they could be one
    /// a block; longer ones and lists of texts are the tokenizer's, and count as empty here.
    pub fn from_gguf(path: &Path, metadata: &[(String, Gguf)]) -> Self {
        const LONGEST: usize = 4096;
        let scalar = |(key, value): &(String, Gguf)| {
            let value = match value {
                Gguf::Unsigned(n, _) => Json::from(*n),
                Gguf::Signed(n, _) => Json::from(*n),
                // JSON has no such number and would make it null, which means "not given".
                Gguf::Float(x) if !x.is_finite() => Json::from(x.to_string()),
                Gguf::Float(x) => Json::from(*x),
                Gguf::Bool(b) => Json::from(*b),
                Gguf::Text(text) => Json::from(text.as_str()),
                Gguf::Integers(list) if list.len() <= LONGEST => Json::from(list.clone()),
                Gguf::Floats(list) if list.len() <= LONGEST => Json::from(list.clone()),
                Gguf::Integers(_) | Gguf::Floats(_) | Gguf::Texts(_) | Gguf::Bools(_) => {
                    Json::Array(Vec::new())
                }
            };
            (key.clone(), value)
        };
        Self::new(path, metadata.iter().map(scalar))
    }

    fn new(path: &Path, pairs: impl Iterator<Item = (String, Json)>) -> Self {
        let shared = Rc::new(Shared { path: path.into(), ..Shared::default() });
        Self { shared, map: pairs.collect(), ..Self::default() }
    }

    /// The same keys under that policy. What was read before is forgotten.
    #[must_use]
    pub fn with_policy(self, policy: KeyPolicy) -> Self {
        let shared = Rc::new(Shared { path: self.path().into(), policy, ..Shared::default() });
        Self { shared, ..self }
    }

    /// The same keys, with these defaults for missing ones.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Defaults) -> Self {
        self.source = defaults.source;
        self.defaults = defaults.values.iter().map(|(key, value)| (*key, Json::from(*value))).collect();
        self
    }

    /// The keys of the object under `key`, if it is there and not null. Errors name them after it, and
    /// [`finish`](Self::finish) accounts for each of them. They have no defaults.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.bad(key, format!("{value} is not an object")))?;
        let full = self.full(key);
        self.shared.opened.borrow_mut().insert(full.clone());
        let (shared, map) = (Rc::clone(&self.shared), object.clone().into_iter().collect());
        Ok(Some(Self { shared, prefix: format!("{full}."), map, ..Self::default() }))
    }

    /// The name of a key with the path to the object that holds it: `rope_parameters.rope_theta`.
    pub fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The file the keys come from.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// An error about one key of this file.
    pub fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.shared.path, self.full(key), problem)
    }

    /// The value of `key`: what is written, else its default; `None` where that is null, or there is none.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.shared.read.borrow_mut().insert(self.full(key));
        self.written_or_default(key).filter(|value| !value.is_null())
    }

    /// What the file says about a key, null included, else the class's default, which is reported.
    fn written_or_default(&self, key: &str) -> Option<&Json> {
        if let Some(value) = self.map.get(key) {
            return Some(value);
        }
        let value = self.defaults.get(key)?;
        // That something is absent by default is no news to anybody.
        if !value.is_null() && value != &Json::Bool(false) {
            let defaulted = Defaulted { key: self.full(key), value: value.clone(), source: self.source };
            let mut report = self.shared.report.borrow_mut();
            if !report.defaulted.contains(&defaulted) {
                report.defaulted.push(defaulted);
            }
        }
        Some(value)
    }

    /// Whether the file says something about a key, be it null. Does not count as reading it.
    pub fn is_written(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Whether the file says that a key is null.
    fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Json::is_null)
    }

    fn required(&self, key: &str) -> Result<&Json> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// Whether a key is null, or absent where the class itself means null by that.
    pub fn means_null(&self, key: &str) -> bool {
        self.map.get(key).or(self.defaults.get(key)).is_some_and(Json::is_null)
    }

    /// The error for a key that must be written.
    pub fn missing(&self, key: &str) -> Error {
        let what = if self.is_null(key) { "is null" } else { "is missing" };
        self.bad(key, format!("{what}, and no default can stand in for it"))
    }

    /// Checks that a key is written, if only as null: where leaving it out means a number that would hardly be meant,
    /// and null means none.
    pub fn must_say(&self, key: &str) -> Result<()> {
        if self.is_written(key) {
            return Ok(());
        }
        Err(self.bad(key, "is missing, and no default can stand in for it; null means none"))
    }

    /// A required count of something: 1 up to 2^24.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.as_size(key, self.required(key)?)
    }

    /// A count that may be left out.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|value| self.as_size(key, value)).transpose()
    }

    fn as_size(&self, key: &str, value: &Json) -> Result<usize> {
        const MOST: u64 = 1 << 24;
        value
            .as_u64()
            .filter(|n| (1..=MOST).contains(n))
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.bad(key, format!("{value} is not a whole number from 1 to {MOST}")))
    }

    /// A required number above 0 and below 1e30.
    pub fn positive(&self, key: &str) -> Result<f64> {
        self.as_positive(key, self.required(key)?)
    }

    /// A number above 0 and below 1e30 that may be left out.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| self.as_positive(key, value)).transpose()
    }

    /// A required list of so many numbers above 0 and below 1e30.
    pub fn positives(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let list = self.required(key)?.as_array().filter(|list| list.len() == count);
        let list = list.ok_or_else(|| self.bad(key, format!("is not a list of {count} numbers")))?;
        list.iter().map(|value| self.as_positive(key, value)).collect()
    }

    /// A list of so many texts that may be left out.
    pub fn optional_texts(&self, key: &str, count: usize) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() == count);
        let texts = list.and_then(|list| list.iter().map(Json::as_str).collect::<Option<Vec<_>>>());
        texts.map(Some).ok_or_else(|| self.bad(key, format!("is not a list of {count} texts")))
    }

    fn as_positive(&self, key: &str, value: &Json) -> Result<f64> {
        value
            .as_f64()
            .filter(|x| *x > 0.0 && *x < 1e30)
            .ok_or_else(|| self.bad(key, format!("{value} is not a number above 0 and below 1e30")))
    }

    /// A required truth value.
    pub fn flag(&self, key: &str) -> Result<bool> {
        let value = self.required(key)?;
        value.as_bool().ok_or_else(|| self.bad(key, format!("{value} is not true or false")))
    }

    /// A required text.
    pub fn text(&self, key: &str) -> Result<&str> {
        let value = self.required(key)?;
        value.as_str().ok_or_else(|| self.bad(key, format!("{value} is not a text")))
    }

    /// Checks that a key, where it is given, has the one value this family can compute.
    pub fn must_be(&self, key: &str, only: impl Into<Json>) -> Result<()> {
        let only = only.into();
        match self.get(key) {
            Some(value) if *value != only => {
                let setting = |value: &Json| format!("{}{key} = {value}", self.prefix);
                Err(Error::unsupported(self.path(), "setting", &setting(value), setting(&only)))
            }
            _ => Ok(()),
        }
    }

    /// Accounts for every key that was not read: of this object, and of the objects inside it that were opened. Of these,
    /// only keys whose full names begin with `prefix` count.
    ///
    /// A key that cannot matter is accepted without a word, as is one whose value means absence. Of all others, those
    /// whose names speak of computation are refused, all at once, unless the policy ignores them; the rest is reported,
    /// or refused too if the policy is strict.
    ///
    /// # Errors
    /// When a key is refused; when the policy ignores a key that this family reads.
    pub fn finish(&self, prefix: &str) -> Result<()> {
        let Shared { policy, read, .. } = &*self.shared;
        let mut refused = Vec::new();
        for (key, full, value) in self.left().into_iter().filter(|(_, full, _)| full.starts_with(prefix)) {
            let shown = || format!("{} = {}", printable(&full, 120), printable(&value.to_string(), 60));
            if policy.ignore_keys.contains(&full) {
                self.shared.report.borrow_mut().ignored.push(shown());
            } else if known::is_inert(&key) || known::is_absence(&key, value) {
            } else if policy.strict || known::speaks_of_computation(&full) {
                refused.push(shown());
            } else {
                self.shared.report.borrow_mut().unknown.push(shown());
            }
        }
        if !refused.is_empty() {
            return Err(Error::UnknownKeys { path: self.path().into(), keys: refused });
        }
        let read = read.borrow();
        if let Some(key) = policy.ignore_keys.iter().find(|key| read.contains(*key) && self.has(key)) {
            let problem = "cannot be ignored: this version knows the key and computes what it says";
            return Err(self.bad(key, problem));
        }
        Ok(())
    }

    /// What was concluded so far.
    pub fn report(&self) -> KeyReport {
        self.shared.report.borrow().clone()
    }

    /// Adds a sentence to the report.
    pub(crate) fn note(&self, message: impl Into<String>) {
        self.shared.report.borrow_mut().notes.push(message.into());
    }

    /// The keys nobody read: own name, full name, value.
    fn left(&self) -> Vec<(String, String, &Json)> {
        let (read, opened) = (self.shared.read.borrow(), self.shared.opened.borrow());
        let mut left = Vec::new();
        let mut open: Vec<(String, &String, &Json)> =
            self.map.iter().map(|(key, value)| (self.prefix.clone(), key, value)).collect();
        while let Some((prefix, key, value)) = open.pop() {
            let full = format!("{prefix}{key}");
            if let Some(object) = value.as_object().filter(|_| opened.contains(&full)) {
                open.extend(object.iter().map(|(key, value)| (format!("{full}."), key, value)));
            } else if !read.contains(&full) {
                left.push((key.clone(), full, value));
            }
        }
        left.sort_by(|a, b| a.1.cmp(&b.1));
        left
    }

    /// Whether the file has a key of that full name.
    fn has(&self, full: &str) -> bool {
        let own = full.strip_prefix(&self.prefix).unwrap_or(full);
        let mut names = own.split('.');
        let first = names.next().and_then(|name| self.map.get(name));
        let inside = names.fold(first, |value, name| value.and_then(|value| value.get(name)));
        self.map.contains_key(own) || inside.is_some()
    }
}
