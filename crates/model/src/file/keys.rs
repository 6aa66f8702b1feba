//! A model's configuration as a set of keys, each read once or named as ignored.
//!
//! A key nobody reads may change what the model computes, so [`Keys::finish`] makes it an error.

use super::gguf::Value as Gguf;
use crate::{Error, Result};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The keys of a config.json or of a GGUF header.
///
/// ```
/// use causalcone_model::file::keys::Keys;
/// let keys = Keys::from_json("config.json".as_ref(), br#"{"n_layer": 12, "mystery": 1}"#)?;
/// assert_eq!(keys.size("n_layer")?, 12);
/// assert!(keys.size("n_head").unwrap_err().to_string().contains("n_head"));
/// assert!(keys.finish(&[]).unwrap_err().to_string().contains("mystery"));
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    /// What the names of the keys begin with in errors.
    prefix: String,
    map: BTreeMap<String, Json>,
    read: RefCell<BTreeSet<String>>,
}

impl Keys {
    /// The keys of a JSON object.
    ///
    /// # Errors
    /// When the text is not a JSON object with unique keys.
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
        Self { path: path.into(), prefix: String::new(), map: pairs.collect(), read: RefCell::default() }
    }

    /// The keys of an object that stands under `key`, if it is there and not null; they are named after it in
    /// errors, and have a [`finish`](Self::finish) of their own.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, key: &str) -> Result<Option<Self>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.bad(key, format!("{value} is not an object")))?;
        let mut keys = Self::new(&self.path, object.iter().map(|(key, value)| (key.clone(), value.clone())));
        keys.prefix = format!("{}{key}.", self.prefix);
        Ok(Some(keys))
    }

    /// The file the keys come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about one key of this file.
    pub fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path, format!("{}{key}", self.prefix), problem)
    }

    /// The value of `key`, if it is there and not null.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.read.borrow_mut().insert(key.into());
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn required(&self, key: &str) -> Result<&Json> {
        self.get(key).ok_or_else(|| self.bad(key, "is missing; nothing is assumed in its place"))
    }

    /// Checks that a key is written, if only as null: where leaving it out means a number and null means none.
    ///
    /// # Errors
    /// When it is not.
    pub fn must_say(&self, key: &str) -> Result<()> {
        match self.map.contains_key(key) {
            true => Ok(()),
            false => Err(self.bad(key, "is missing; nothing is assumed in its place, and null means none")),
        }
    }

    /// A required count of something: 1 up to 2^24.
    ///
    /// # Errors
    /// When it is missing or not such a number.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.as_size(key, self.required(key)?)
    }

    /// A count that may be left out.
    ///
    /// # Errors
    /// When it is there and not a number from 1 to 2^24.
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
    ///
    /// # Errors
    /// When it is missing or not such a number.
    pub fn positive(&self, key: &str) -> Result<f64> {
        self.as_positive(key, self.required(key)?)
    }

    /// A number above 0 and below 1e30 that may be left out.
    ///
    /// # Errors
    /// When it is there and not such a number.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|value| self.as_positive(key, value)).transpose()
    }

    /// A required list of so many numbers above 0 and below 1e30.
    ///
    /// # Errors
    /// When it is missing or not such a list.
    pub fn positives(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let list = self.required(key)?.as_array().filter(|list| list.len() == count);
        let list = list.ok_or_else(|| self.bad(key, format!("is not a list of {count} numbers")))?;
        list.iter().map(|value| self.as_positive(key, value)).collect()
    }

    /// A list of so many texts that may be left out.
    ///
    /// # Errors
    /// When it is there and not such a list.
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

    /// A truth value, if it is given.
    ///
    /// # Errors
    /// When it is given and something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let flag = |value: &Json| {
            value.as_bool().ok_or_else(|| self.bad(key, format!("{value} is not true or false")))
        };
        self.get(key).map(flag).transpose()
    }

    /// A required text.
    ///
    /// # Errors
    /// When it is missing or not a text.
    pub fn text(&self, key: &str) -> Result<&str> {
        let value = self.required(key)?;
        value.as_str().ok_or_else(|| self.bad(key, format!("{value} is not a text")))
    }

    /// Checks that a key, where it is given, has the one value this family can compute.
    ///
    /// # Errors
    /// When it has another.
    pub fn must_be(&self, key: &str, only: impl Into<Json>) -> Result<()> {
        let only = only.into();
        match self.get(key) {
            Some(value) if *value != only => {
                let setting = |value: &Json| format!("{}{key} = {value}", self.prefix);
                Err(Error::unsupported(&self.path, "setting", &setting(value), setting(&only)))
            }
            _ => Ok(()),
        }
    }

    /// Checks that every key was read or is ignored: by its name, or by a prefix that ends in `*`.
    ///
    /// # Errors
    /// When one was neither.
    pub fn finish(&self, ignored: &[&str]) -> Result<()> {
        let is_ignored = |key: &str| {
            ignored.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix),
                None => key == *pattern,
            })
        };
        let read = self.read.borrow();
        match self.map.keys().find(|key| !read.contains(*key) && !is_ignored(key)) {
            Some(key) => Err(self
                .bad(key, "this version does not know this key, and it may change what the model computes")),
            None => Ok(()),
        }
    }
}
