//! Trees: what JSON and TOML have in common, and more than either allows.
//!
//! A literal is kept as it is written, so that numbers can be out of every range. A map is a list, so that it can have a
//! key twice.

use super::Random;
use std::fmt::Write;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A number, `true`, `false`, `null`, a date, or anything else that is written without quotes.
    Literal(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with their values.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Reads JSON. `None` if it is none.
    pub fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().map(|value| Self::of_json(&value))
    }

    fn of_json(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::of_json).collect()),
            Value::Object(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::of_json(value))).collect())
            }
            other => Self::Literal(other.to_string()),
        }
    }

    /// Reads TOML. `None` if it is none.
    pub fn from_toml(text: &[u8]) -> Option<Self> {
        let table: toml::Table = toml::from_str(std::str::from_utf8(text).ok()?).ok()?;
        Some(Self::of_toml(&toml::Value::Table(table)))
    }

    fn of_toml(value: &toml::Value) -> Self {
        use toml::Value;
        match value {
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(list) => Self::List(list.iter().map(Self::of_toml).collect()),
            Value::Table(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), Self::of_toml(value))).collect())
            }
            other => Self::Literal(other.to_string()),
        }
    }

    /// Writes JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = String::new();
        self.write(&mut out, ":");
        out.into_bytes()
    }

    /// Writes TOML: one line for each key of the document, its value on that line.
    pub fn to_toml(&self) -> Vec<u8> {
        let mut out = String::new();
        match self {
            Self::Map(entries) => entries.iter().for_each(|(key, value)| {
                quote(key, &mut out);
                out.push_str(" = ");
                value.write(&mut out, " = ");
                out.push('\n');
            }),
            other => other.write(&mut out, " = "),
        }
        out.into_bytes()
    }

    /// Writes the value. The two formats differ in what is between a key and its value.
    fn write(&self, out: &mut String, between: &str) {
        match self {
            Self::Literal(literal) => out.push_str(literal),
            Self::Text(text) => quote(text, out),
            Self::List(list) => {
                out.push('[');
                for (n, value) in list.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    value.write(out, between);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (n, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    quote(key, out);
                    out.push_str(between);
                    value.write(out, between);
                }
                out.push('}');
            }
        }
    }

    /// A random part. Each level is as likely as the next, so that a few long lists do not hide all else.
    pub(super) fn part(&self, random: &mut Random) -> &Self {
        let below = match self {
            _ if random.one_in(4) => None,
            Self::List(list) => random.pick(list),
            Self::Map(entries) => random.pick(entries).map(|(_, value)| value),
            _ => None,
        };
        below.map_or(self, |value| value.part(random))
    }
}

/// Writes a text in quotes, as both formats read it.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Both formats know this form of escape; a text always takes it.
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
