//! How much a template may make, and what can make much, counting before it does.

use super::python;
use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State, filters, functions};
use serde::Serialize;
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one text, besides what is said. What is not counted (comparing, searching, slicing) takes no longer than
/// such a text or list for each step, so this times the steps bounds the time.
const MOST_TEXT: usize = 64 << 10;
/// Bytes, and items of lists times [`ITEM`], that may be made on the way.
const MOST_MADE: usize = 8 << 20;
/// Items of one list, with all lists in it, besides what is said.
const MOST_ITEMS: usize = 2 << 10;
/// Lists in lists.
const MOST_DEPTH: usize = 32;
/// About what an item of a list takes.
pub(super) const ITEM: usize = 32;

/// How much a template may still make.
#[derive(Debug)]
pub(super) struct Bounds {
    text: usize,
    items: usize,
    left: AtomicUsize,
    /// The type of the values that may hold themselves.
    namespace: &'static str,
}

impl Bounds {
    /// For a conversation of so many bytes.
    pub(super) fn new(said: usize) -> Self {
        let namespace = functions::namespace(None);
        Self {
            text: MOST_TEXT + 4 * said,
            items: MOST_ITEMS + said,
            left: AtomicUsize::new(MOST_MADE + 32 * said),
            namespace: namespace.ok().and_then(|one| Some(one.as_object()?.type_name())).unwrap_or_default(),
        }
    }

    /// The longest text.
    pub(super) fn most_text(&self) -> usize {
        self.text
    }

    pub(super) fn spend(&self, bytes: usize) -> Result<(), Error> {
        let spent =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        spent.map(|_| ()).map_err(|_| refused("it makes more on its way than a conversation needs"))
    }

    /// Counts a text before it is made.
    pub(super) fn text_of(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.text {
            return Err(refused(format!("a text becomes longer than {} bytes", self.text)));
        }
        self.spend(bytes)
    }

    /// Counts a value that was made.
    pub(super) fn made(&self, value: Value) -> Result<Value, Error> {
        match value.as_str() {
            Some(text) => self.text_of(text.len())?,
            None => self.spend(self.items(&value, 0)?.saturating_mul(ITEM))?,
        }
        Ok(value)
    }

    /// Items of a list or map with all that is in it, each as often as it is there. What holds itself is refused, and
    /// so is what would take long to write, to compare or to drop.
    pub(super) fn items(&self, value: &Value, depth: usize) -> Result<usize, Error> {
        let object = value.as_object();
        if object.is_some_and(|object| object.type_name() == self.namespace) {
            return Err(refused("a namespace can be read and set only: it may hold itself"));
        }
        if depth > MOST_DEPTH {
            return Err(refused("lists in lists go deeper than any conversation's"));
        }
        let Some(len) = value.len().filter(|_| value.as_str().is_none()) else { return Ok(1) };
        let mut sum = len.saturating_add(1);
        if len <= self.items {
            for item in value.try_iter()? {
                if value.kind() == ValueKind::Map {
                    sum += self.items(&value.get_item(&item)?, depth + 1)?;
                } else if item.as_object().is_some() {
                    sum += self.items(&item, depth + 1)?;
                }
                if sum > self.items {
                    break;
                }
            }
        }
        if sum > self.items {
            return Err(refused(format!("a list becomes longer than {} items", self.items)));
        }
        Ok(sum)
    }
}

pub(super) fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

impl Bounds {
    /// Two values as one text.
    pub(super) fn concat(&self, a: &Value, b: &Value) -> Result<Value, Error> {
        let (a, b) = (self.text(a)?, self.text(b)?);
        self.text_of(a.len() + b.len())?;
        Ok(format!("{a}{b}").into())
    }

    /// The text of a value as Python has it: templates are written for Python.
    pub(super) fn text<'v>(&self, value: &'v Value) -> Result<Cow<'v, str>, Error> {
        if let Some(text) = value.as_str() {
            return Ok(text.into());
        }
        Ok(match value.kind() {
            ValueKind::Undefined => "".into(),
            ValueKind::None => "None".into(),
            ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
            ValueKind::Number if value.is_integer() => value.to_string().into(),
            ValueKind::Number => python::float(f64::try_from(value.clone())?).into(),
            // Python writes lists and maps too, with its own ways of quoting.
            kind => return Err(refused(format!("a {kind} is no text"))),
        })
    }

    /// Two numbers, texts or lists together.
    pub(super) fn add(&self, a: &Value, b: &Value) -> Result<Value, Error> {
        match (a.kind(), b.kind()) {
            (ValueKind::String, ValueKind::String) => self.concat(a, b),
            (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable) => {
                let count = a.len().unwrap_or(0) + b.len().unwrap_or(0);
                self.spend(count.saturating_mul(ITEM))?;
                let items: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
                self.made(items.into())
            }
            (ValueKind::Number, ValueKind::Number) => {
                let whole = i64::try_from(a.clone()).ok().zip(i64::try_from(b.clone()).ok());
                if let Some(sum) = whole.and_then(|(a, b)| a.checked_add(b)) {
                    return Ok(sum.into());
                }
                Ok((f64::try_from(a.clone())? + f64::try_from(b.clone())?).into())
            }
            (left, right) => Err(refused(format!("{left} and {right} cannot be added"))),
        }
    }

    pub(super) fn replace(&self, text: &str, from: &str, to: &str) -> Result<Value, Error> {
        let count = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
        self.text_of(text.len() + count.saturating_mul(to.len()))?;
        Ok(text.replace(from, to).into())
    }

    /// Every line behind so many spaces or such a text: not the first, and none that is empty, unless asked for.
    pub(super) fn indent(
        &self,
        text: &str,
        width: Option<Value>,
        first: bool,
        blank: bool,
    ) -> Result<Value, Error> {
        let width = width.unwrap_or(Value::from(4));
        // An empty line behind the last end is a line here.
        let ended = format!("{text}\n");
        let lines = python::lines(&ended);
        let each = width.as_str().map_or_else(|| usize::try_from(width.clone()), |by| Ok(by.len()))?;
        self.text_of(lines.len().saturating_mul(each.saturating_add(1)).saturating_add(text.len()))?;
        let by = width.as_str().map_or_else(|| " ".repeat(each), str::to_owned);
        let mut made = String::new();
        for (i, line) in lines.iter().enumerate() {
            let is_moved = if i == 0 { first } else { blank || !line.is_empty() };
            made.push_str(if i == 0 { "" } else { "\n" });
            made.push_str(if is_moved { &by } else { "" });
            made.push_str(line);
        }
        Ok(made.into())
    }

    pub(super) fn join(&self, separator: &str, list: &Value) -> Result<Value, Error> {
        let mut text = String::new();
        for (i, item) in list.try_iter()?.enumerate() {
            let item = self.text(&item)?.into_owned();
            if text.len() + separator.len() + item.len() > self.text {
                self.text_of(usize::MAX)?;
            }
            if i > 0 {
                text.push_str(separator);
            }
            text.push_str(&item);
        }
        self.text_of(text.len())?;
        Ok(text.into())
    }

    /// JSON as Python writes it: `", "` between items, `": "` after keys, nothing escaped that need not be.
    pub(super) fn json(&self, value: &Value, indent: Option<usize>) -> Result<Value, Error> {
        // A character becomes six at most.
        self.items(value, 0)?;
        self.text_of(self.size(value)?.saturating_mul(2).min(self.text))?;
        let mut out = Vec::new();
        let written = match indent {
            Some(width) => {
                let spaces = " ".repeat(width.min(16));
                let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
                value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
            }
            None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, python::Json)),
        };
        written.map_err(|e| refused(e.to_string()))?;
        let text = String::from_utf8(out).map_err(|e| refused(e.to_string()))?;
        self.text_of(text.len())?;
        Ok(text.into())
    }

    /// Bytes of the texts in a value, which is not too deep.
    fn size(&self, value: &Value) -> Result<usize, Error> {
        if let Some(text) = value.as_str() {
            return Ok(text.len());
        }
        let mut sum = ITEM;
        if value.len().is_some() {
            for item in value.try_iter()? {
                sum += if value.kind() == ValueKind::Map {
                    self.size(&item)? + self.size(&value.get_item(&item)?)?
                } else {
                    self.size(&item)?
                };
                if sum > self.text {
                    self.text_of(sum)?;
                }
            }
        }
        Ok(sum)
    }

    /// The methods of Python's texts and maps that templates call.
    pub(super) fn method(
        &self,
        state: &State<'_, '_>,
        value: &Value,
        method: &str,
        arguments: &[Value],
    ) -> Result<Value, Error> {
        let unknown =
            || Error::new(ErrorKind::UnknownMethod, format!("{} has no method {method}", value.kind()));
        let argument = |i: usize| arguments.get(i).and_then(Value::as_str);
        if value.kind() == ValueKind::Map {
            let items = || value.try_iter().map(Iterator::collect::<Vec<Value>>);
            self.spend(value.len().unwrap_or(0).saturating_mul(ITEM))?;
            return match method {
                "get" => {
                    let key = arguments.first().ok_or_else(unknown)?;
                    let found = value.get_item(key)?;
                    let missing = arguments.get(1).cloned().unwrap_or(Value::from(()));
                    Ok(if found.is_undefined() { missing } else { found })
                }
                "items" => Value::from_function(filters::items).call(state, std::slice::from_ref(value)),
                "keys" => Ok(items()?.into()),
                "values" => items()?
                    .iter()
                    .map(|key| value.get_item(key))
                    .collect::<Result<Vec<_>, _>>()
                    .map(Value::from),
                _ => Err(unknown()),
            };
        }
        let Some(text) = value.as_str() else { return Err(unknown()) };
        self.spend(text.len())?;
        let parts = |parts: Vec<&str>| -> Result<Value, Error> {
            self.spend(parts.len().saturating_mul(ITEM))?;
            Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
        };
        Ok(match method {
            "strip" => python::strip(text, argument(0), true, true).into(),
            "lstrip" => python::strip(text, argument(0), true, false).into(),
            "rstrip" => python::strip(text, argument(0), false, true).into(),
            "startswith" => text.starts_with(argument(0).ok_or_else(unknown)?).into(),
            "endswith" => text.ends_with(argument(0).ok_or_else(unknown)?).into(),
            "upper" => self.made(text.to_uppercase().into())?,
            "lower" => self.made(text.to_lowercase().into())?,
            "title" | "capitalize" => {
                let filter = if method == "title" {
                    Value::from_function(filters::title)
                } else {
                    Value::from_function(filters::capitalize)
                };
                self.made(filter.call(state, std::slice::from_ref(value))?)?
            }
            "replace" => {
                self.replace(text, argument(0).ok_or_else(unknown)?, argument(1).ok_or_else(unknown)?)?
            }
            "join" => self.join(text, arguments.first().ok_or_else(unknown)?)?,
            "split" => match (argument(0), arguments.get(1)) {
                (None, None) => {
                    parts(text.split(python::is_space).filter(|part| !part.is_empty()).collect())?
                }
                (Some(separator), None) if !separator.is_empty() => parts(text.split(separator).collect())?,
                (Some(separator), Some(most)) if !separator.is_empty() => {
                    let most = usize::try_from(most.clone())?.min(1 << 20);
                    parts(text.splitn(most + 1, separator).collect())?
                }
                _ => return Err(unknown()),
            },
            "splitlines" => parts(python::lines(text))?,
            "find" => {
                let place = text.find(argument(0).ok_or_else(unknown)?);
                place.map_or(Value::from(-1), |at| Value::from(text[..at].chars().count()))
            }
            "count" => text.matches(argument(0).ok_or_else(unknown)?).count().into(),
            "isdigit" => (!text.is_empty() && text.chars().all(char::is_numeric)).into(),
            _ => return Err(unknown()),
        })
    }
}
