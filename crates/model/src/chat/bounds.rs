//! What a template may use, each part counting what it makes.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions, tests};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `+` and `~` are rewritten to.
pub(super) const ADD: &str = "_add(";
pub(super) const CONCAT: &str = "_concat(";

/// Bytes of one text.
const MOST_TEXT: usize = 256 << 10;
/// Bytes, and items of lists times [`ITEM`], that may be made on the way.
const MOST_MADE: usize = 8 << 20;
/// About what an item of a list takes.
const ITEM: usize = 32;

/// How much a template may still make.
#[derive(Debug)]
pub(super) struct Bounds {
    text: usize,
    left: AtomicUsize,
}

impl Bounds {
    /// For a conversation of so many bytes.
    pub(super) fn new(said: usize) -> Self {
        Self { text: MOST_TEXT + 2 * said, left: AtomicUsize::new(MOST_MADE + 16 * said) }
    }

    /// The longest text.
    pub(super) fn most_text(&self) -> usize {
        self.text
    }

    fn spend(&self, bytes: usize) -> Result<(), Error> {
        let spent =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        match spent {
            Ok(_) if bytes <= self.text.saturating_mul(ITEM) => Ok(()),
            _ => Err(refused("it makes more on its way than a conversation needs")),
        }
    }

    /// Counts a text before it is made.
    fn text_of(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.text {
            return Err(refused(format!("a text becomes longer than {} bytes", self.text)));
        }
        self.spend(bytes)
    }

    /// Counts a value that was made.
    fn made(&self, value: Value) -> Result<Value, Error> {
        match value.as_str() {
            Some(text) => self.text_of(text.len())?,
            None => self.spend(value.len().unwrap_or(0).saturating_mul(ITEM))?,
        }
        Ok(value)
    }
}

fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}

/// Gives an environment all that templates may use.
pub(super) fn equip(environment: &mut Environment<'_>, bounds: &Arc<Bounds>) {
    let own = bounds.clone();
    environment.set_formatter(move |out, state, value| {
        // What is written into a variable is written here too.
        let text = value.as_str().map_or_else(|| own.text_of(ITEM), |text| own.text_of(text.len()));
        text.and_then(|()| minijinja::escape_formatter(out, state, value))
    });
    let own = bounds.clone();
    environment.add_function("_concat", move |a: Value, b: Value| own.concat(&a, &b));
    let own = bounds.clone();
    environment.add_function("_add", move |a: Value, b: Value| own.add(&a, &b));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(refused(format!("the template refuses this conversation: {message}")))
    });
    environment.add_function("namespace", functions::namespace);
    environment.add_function("dict", functions::dict);
    let own = bounds.clone();
    let range = Value::from_function(functions::range);
    environment.add_function("range", move |state: &State<'_, '_>, arguments: Rest<Value>| {
        own.made(range.call(state, &arguments)?)
    });
    add_filters(environment, bounds);
    add_tests(environment);
    let own = bounds.clone();
    environment.set_unknown_method_callback(move |state, value, method, arguments| {
        own.method(state, value, method, arguments)
    });
}

fn add_filters(environment: &mut Environment<'_>, bounds: &Arc<Bounds>) {
    // What they make is no longer than what they are given, or some times as long.
    let known = [
        ("abs", Value::from_function(filters::abs)),
        ("attr", Value::from_function(filters::attr)),
        ("bool", Value::from_function(filters::bool)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("count", Value::from_function(filters::length)),
        ("d", Value::from_function(filters::default)),
        ("default", Value::from_function(filters::default)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("first", Value::from_function(filters::first)),
        ("float", Value::from_function(filters::float)),
        ("int", Value::from_function(filters::int)),
        ("items", Value::from_function(filters::items)),
        ("last", Value::from_function(filters::last)),
        ("length", Value::from_function(filters::length)),
        ("lines", Value::from_function(filters::lines)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("round", Value::from_function(filters::round)),
        ("safe", Value::from_function(filters::safe)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("split", Value::from_function(filters::split)),
        ("string", Value::from_function(filters::string)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
    ];
    for (name, filter) in known {
        let own = bounds.clone();
        environment.add_filter(name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
            let given = arguments.first();
            let items = given.map_or(0, |value| value.as_str().map_or(value.len().unwrap_or(0), str::len));
            // A list of all characters of a text is larger than the text.
            let each =
                if matches!(name, "list" | "split" | "reverse" | "sort" | "unique") { ITEM } else { 1 };
            own.spend(items.saturating_mul(each))?;
            own.made(filter.call(state, &arguments)?)
        });
    }
    let own = bounds.clone();
    environment
        .add_filter("replace", move |text: String, from: String, to: String| own.replace(&text, &from, &to));
    let own = bounds.clone();
    environment.add_filter("join", move |list: Value, separator: Option<String>| {
        own.join(&separator.unwrap_or_default(), &list)
    });
    let own = bounds.clone();
    environment.add_filter("indent", move |text: String, width: Option<usize>| {
        let (lines, width) = (text.split('\n').count(), width.unwrap_or(4));
        own.text_of(lines.saturating_mul(width).saturating_add(text.len()))?;
        Ok::<_, Error>(text.replace('\n', &format!("\n{}", " ".repeat(width))))
    });
    let own = bounds.clone();
    environment.add_filter("tojson", move |value: Value, arguments: Rest<Value>| {
        let indent = arguments.first().and_then(|first| first.get_attr("indent").ok());
        own.json(&value, indent.filter(|indent| !indent.is_undefined() && !indent.is_none()))
    });
}

fn add_tests(environment: &mut Environment<'_>) {
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("even", tests::is_even);
    environment.add_test("false", tests::is_false);
    environment.add_test("float", tests::is_float);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("lower", tests::is_lower);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("string", tests::is_string);
    environment.add_test("true", tests::is_true);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("upper", tests::is_upper);
    for name in ["eq", "equalto", "=="] {
        environment.add_test(name, tests::is_eq);
    }
    for name in ["ne", "!="] {
        environment.add_test(name, tests::is_ne);
    }
    environment.add_test("in", tests::is_in);
    for (name, test) in [
        ("lt", tests::is_lt as fn(&Value, &Value) -> bool),
        ("le", tests::is_le),
        ("gt", tests::is_gt),
        ("ge", tests::is_ge),
    ] {
        environment.add_test(name, test);
    }
}

impl Bounds {
    /// Two values as one text.
    fn concat(&self, a: &Value, b: &Value) -> Result<Value, Error> {
        let (a, b) = (self.text(a)?, self.text(b)?);
        self.text_of(a.len() + b.len())?;
        Ok(format!("{a}{b}").into())
    }

    /// The text of a value, made once more where it is none.
    fn text<'v>(&self, value: &'v Value) -> Result<std::borrow::Cow<'v, str>, Error> {
        match value.as_str() {
            Some(text) => Ok(text.into()),
            // Lists would be written out item by item.
            None if value.len().is_some() => Err(refused(format!("a {} is no text", value.kind()))),
            None => Ok(value.to_string().into()),
        }
    }

    /// Two numbers, texts or lists together.
    fn add(&self, a: &Value, b: &Value) -> Result<Value, Error> {
        match (a.kind(), b.kind()) {
            (ValueKind::String, ValueKind::String) => self.concat(a, b),
            (ValueKind::Seq | ValueKind::Iterable, ValueKind::Seq | ValueKind::Iterable) => {
                let count = a.len().unwrap_or(0) + b.len().unwrap_or(0);
                self.spend(count.saturating_mul(ITEM))?;
                let items: Vec<Value> = a.try_iter()?.chain(b.try_iter()?).collect();
                Ok(items.into())
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

    fn replace(&self, text: &str, from: &str, to: &str) -> Result<Value, Error> {
        let count = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
        self.text_of(text.len() + count.saturating_mul(to.len()))?;
        Ok(text.replace(from, to).into())
    }

    fn join(&self, separator: &str, list: &Value) -> Result<Value, Error> {
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
    fn json(&self, value: &Value, indent: Option<Value>) -> Result<Value, Error> {
        // A character becomes six at most.
        self.text_of(self.size(value, 0)?.saturating_mul(2).min(self.text))?;
        let mut out = Vec::new();
        let written = match indent {
            Some(indent) => {
                let width = usize::try_from(indent)?.min(16);
                let spaces = " ".repeat(width);
                let pretty = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
                value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, pretty))
            }
            None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Python)),
        };
        written.map_err(|e| refused(e.to_string()))?;
        let text = String::from_utf8(out).map_err(|e| refused(e.to_string()))?;
        self.text_of(text.len())?;
        Ok(text.into())
    }

    /// Bytes of the texts in a value.
    fn size(&self, value: &Value, depth: usize) -> Result<usize, Error> {
        if depth > 32 {
            return Err(refused("lists in lists go deeper than any conversation's"));
        }
        if let Some(text) = value.as_str() {
            return Ok(text.len());
        }
        let mut sum = ITEM;
        if value.len().is_some() {
            for item in value.try_iter()? {
                let inside = if value.kind() == ValueKind::Map { value.get_item(&item)? } else { item };
                sum += self.size(&inside, depth + 1)?;
                if sum > self.text {
                    self.text_of(sum)?;
                }
            }
        }
        Ok(sum)
    }

    /// The methods of Python's texts and maps that templates call.
    fn method(
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
        let strip = |text: &str, left: bool, right: bool| -> String {
            let chars: Option<Vec<char>> = argument(0).map(|set| set.chars().collect());
            let is_off = |c: char| chars.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
            let text = if left { text.trim_start_matches(is_off) } else { text };
            if right { text.trim_end_matches(is_off) } else { text }.to_owned()
        };
        let parts = |parts: Vec<&str>| -> Result<Value, Error> {
            self.spend(parts.len().saturating_mul(ITEM))?;
            Ok(parts.into_iter().map(Value::from).collect::<Vec<_>>().into())
        };
        Ok(match method {
            "strip" => strip(text, true, true).into(),
            "lstrip" => strip(text, true, false).into(),
            "rstrip" => strip(text, false, true).into(),
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
                (None, None) => parts(text.split_whitespace().collect())?,
                (Some(separator), None) if !separator.is_empty() => parts(text.split(separator).collect())?,
                (Some(separator), Some(most)) if !separator.is_empty() => {
                    let most = usize::try_from(most.clone())?.min(1 << 20);
                    parts(text.splitn(most + 1, separator).collect())?
                }
                _ => return Err(unknown()),
            },
            "splitlines" => parts(text.lines().collect())?,
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

/// Python's `json.dumps`.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
