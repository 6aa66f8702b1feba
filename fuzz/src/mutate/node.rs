//! Trees: what JSON and TOML have in common, and more than either allows.
//!
//! A literal is kept as it is written, so that numbers can be out of every range. A map is a list, so that it can have a
//! key twice.

use super::Random;
use super::words::{Words, change_text};
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

    fn part_mut(&mut self, random: &mut Random) -> &mut Self {
        let count = match self {
            Self::List(list) => list.len(),
            Self::Map(entries) => entries.len(),
            _ => 0,
        };
        if count == 0 || random.one_in(5) {
            return self;
        }
        let at = random.below(count);
        match self {
            Self::List(list) => list[at].part_mut(random),
            Self::Map(entries) => entries[at].1.part_mut(random),
            other => other,
        }
    }

    /// Changes one part.
    pub fn change(&mut self, words: &Words, random: &mut Random) {
        let part = self.part_mut(random);
        match random.below(10) {
            0 | 1 => *part = words.node(random),
            2 => *part = Self::List(vec![part.clone()]),
            3 => *part = Self::Map(vec![(words.word(random), part.clone())]),
            4 if random.one_in(8) => *part = nested(random),
            _ => part.change_here(words, random),
        }
    }

    fn change_here(&mut self, words: &Words, random: &mut Random) {
        match self {
            Self::Literal(literal) => change_literal(literal, words, random),
            Self::Text(text) => change_text(text, words, random),
            Self::List(list) => change_list(list, words, random, super::words::Words::node),
            Self::Map(entries) => {
                let at = random.below(entries.len());
                match random.below(3) {
                    0 if !entries.is_empty() => entries[at].0 = words.text(random),
                    1 if !entries.is_empty() => change_text(&mut entries[at].0, words, random),
                    _ => change_list(entries, words, random, |words, random| {
                        (words.word(random), words.node(random))
                    }),
                }
            }
        }
    }
}

/// Removes, repeats, swaps or inserts elements.
pub(super) fn change_list<T: Clone>(
    list: &mut Vec<T>,
    words: &Words,
    random: &mut Random,
    new: impl FnOnce(&Words, &mut Random) -> T,
) {
    let at = random.below(list.len() + 1);
    let other = random.below(list.len());
    match random.below(7) {
        0 | 1 if at < list.len() => drop(list.remove(at)),
        2 if at < list.len() => list.insert(other, list[at].clone()),
        3 if at < list.len() => list.swap(at, other),
        4 if at < list.len() => {
            // As much as fits into a file of some size.
            let most = if random.one_in(10) { 3000 } else { 20 };
            let copies = vec![list[at].clone(); random.size(most)];
            list.splice(at..at, copies);
        }
        5 => list.truncate(at),
        _ => list.insert(at, new(words, random)),
    }
}

/// Another number, near the old one or far away.
fn change_literal(literal: &mut String, words: &Words, random: &mut Random) {
    let number = literal.parse::<i128>().ok();
    *literal = match (number, random.below(8)) {
        (Some(n), 0) => (n + 1).to_string(),
        (Some(n), 1) => (n - 1).to_string(),
        (Some(n), 2) => (-n).to_string(),
        (Some(n), 3) => n.saturating_mul(2).to_string(),
        (Some(n), 4) => format!("{n}.0"),
        (None, 0 | 1) => format!("-{literal}"),
        (None, 2) => format!("{literal}e9"),
        _ => words.literal(random),
    };
}

/// Lists or maps in each other, deeper than any reader should follow.
fn nested(random: &mut Random) -> Node {
    let depth = random.size(20_000);
    let (open, close) = [("[", "]"), ("{\"a\":", "}")][random.below(2)];
    Node::Literal(format!("{}1{}", open.repeat(depth), close.repeat(depth)))
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
