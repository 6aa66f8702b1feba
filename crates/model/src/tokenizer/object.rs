//! A JSON object in one of the small files that belong to a tokenizer.

use crate::file::{DataFile, json};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::io::ErrorKind;
use std::path::PathBuf;

/// Those in use stay below 2 MB, most of it added tokens.
const MAX_FILE: u64 = 8 << 20;

/// A JSON object and the file it is from.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) path: PathBuf,
    pub(super) map: Map<String, Value>,
}

impl Object {
    /// The object in a file; empty where there is no such file.
    pub(super) fn read(path: PathBuf) -> Result<Self> {
        if path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            return Ok(Self { path, map: Map::new() });
        }
        let bytes = DataFile::open(&path)?.read_all(MAX_FILE)?;
        match json::parse(&bytes).map_err(|e| Error::file(&path, "document", e.to_string()))? {
            Value::Object(map) => Ok(Self { path, map }),
            _ => Err(Error::file(&path, "document", "is not an object")),
        }
    }

    /// An error about a key of this file.
    pub(super) fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path, key, problem)
    }

    /// The value of a key, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A text, or the `content` of a token; `None` where it is missing or null.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        text.map(Some).ok_or_else(|| self.bad(key, "is neither a text nor a token with its content"))
    }

    /// A switch; `None` where it is missing or null.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.bad(key, format!("{value} is not true or false")))
    }

    /// Refuses switches of tokenizer_config.json that change ids in a way that is not supported.
    pub(super) fn check_switches(&self) -> Result<()> {
        for (key, problem) in [
            ("add_eos_token", "only a token before the text is supported"),
            ("split_special_tokens", "true, which splits special tokens like other texts, is not supported"),
        ] {
            if self.flag(key)? == Some(true) {
                return Err(self.bad(key, problem));
            }
        }
        Ok(())
    }
}
