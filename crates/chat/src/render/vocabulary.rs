//! What a template may use: functions, filters, tests and methods, all within [`Bounds`].

use super::bounds::{Bounds, ITEM, refused};
use super::python;
use crate::date::Clock;
use minijinja::value::{Kwargs, Rest, Value};
use minijinja::{Environment, Error, State, filters, functions, tests};
use std::sync::Arc;

/// The most bytes that a byte of a date's format becomes: those of `%c`.
const DATE: usize = 12;

/// What `+` and `~` are rewritten to.
pub(super) const ADD: &str = "_add(";
pub(super) const CONCAT: &str = "_concat(";
/// What `[::-1]` becomes.
pub(super) const TURNED: &str = "_turned(";
/// What is put around values that are kept: lists, maps, what a namespace is given.
pub(super) const KEPT: &str = "_kept(";

/// Gives an environment all that templates may use.
pub(super) fn equip(environment: &mut Environment<'_>, bounds: &Arc<Bounds>, clock: &Clock) {
    let own = bounds.clone();
    environment.set_formatter(move |out, _, value| {
        // What is written into a variable is written here too.
        let text = own.text(value)?;
        own.text_of(text.len())?;
        Ok(out.write_str(&text)?)
    });
    let own = bounds.clone();
    environment.add_function("_concat", move |a: Value, b: Value| own.concat(&a, &b));
    let own = bounds.clone();
    environment.add_function("_add", move |a: Value, b: Value| own.add(&a, &b));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(refused(format!("the template refuses this conversation: {message}")))
    });
    let (own, clock) = (bounds.clone(), clock.clone());
    environment.add_function("strftime_now", move |format: String| {
        own.text_of(format.len().saturating_mul(DATE))?;
        clock.read().strftime(&format).map_err(refused)
    });
    let own = bounds.clone();
    environment.add_function("_kept", move |value: Value| own.made(value));
    let own = bounds.clone();
    environment.add_function("_turned", move |value: Value| match value.as_str() {
        Some(text) => own.made(text.chars().rev().collect::<String>().into()),
        None => {
            let mut items: Vec<Value> = value.try_iter()?.collect();
            items.reverse();
            own.made(items.into())
        }
    });
    let own = bounds.clone();
    environment.add_function("namespace", move |values: Option<Value>| {
        functions::namespace(values.map(|values| own.made(values)).transpose()?)
    });
    let own = bounds.clone();
    environment.add_function("dict", move |value: Option<Value>, update: Kwargs| {
        own.made(functions::dict(value, update)?)
    });
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

/// Filters whose result is no longer than what they are given, or some times as long.
fn known_filters() -> [(&'static str, Value); 30] {
    [
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
        ("title", Value::from_function(filters::title)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
    ]
}

fn add_filters(environment: &mut Environment<'_>, bounds: &Arc<Bounds>) {
    for (name, filter) in known_filters() {
        let own = bounds.clone();
        environment.add_filter(name, move |state: &State<'_, '_>, mut arguments: Rest<Value>| {
            if let Some(given) = arguments.first_mut() {
                if matches!(name, "capitalize" | "lower" | "title" | "upper") {
                    *given = own.text(given)?.into_owned().into();
                }
                let items = own.items(given, 0)?;
                // A list of all characters of a text is larger than the text.
                let text = given.as_str().map_or(0, str::len);
                let is_spread = matches!(name, "list" | "reverse" | "sort" | "unique");
                own.spend(
                    items.saturating_mul(ITEM) + text.saturating_mul(if is_spread { ITEM } else { 1 }),
                )?;
            }
            own.made(filter.call(state, &arguments)?)
        });
    }
    let own = bounds.clone();
    environment.add_filter("string", move |value: Value| own.text(&value).map(|text| Value::from(&*text)));
    let own = bounds.clone();
    environment.add_filter("trim", move |value: Value, set: Option<String>| {
        own.made(python::strip(&own.text(&value)?, set.as_deref(), true, true).into())
    });
    let own = bounds.clone();
    environment.add_filter("replace", move |value: Value, from: String, to: String| {
        own.replace(&own.text(&value)?, &from, &to)
    });
    let own = bounds.clone();
    environment.add_filter("join", move |list: Value, separator: Option<String>| {
        own.join(&separator.unwrap_or_default(), &list)
    });
    let own = bounds.clone();
    environment.add_filter("indent", move |value: Value, width: Option<Value>, options: Kwargs| {
        let width = width.or(options.get("width")?);
        let (first, blank) = (options.get::<Option<bool>>("first")?, options.get::<Option<bool>>("blank")?);
        options.assert_all_used()?;
        own.indent(&own.text(&value)?, width, first == Some(true), blank == Some(true))
    });
    let own = bounds.clone();
    environment.add_filter("tojson", move |value: Value, options: Kwargs| {
        let (indent, escaped) =
            (options.get::<Option<usize>>("indent")?, options.get::<Option<bool>>("ensure_ascii")?);
        options.assert_all_used()?;
        if escaped == Some(true) {
            return Err(refused("tojson(ensure_ascii=true) is not supported"));
        }
        own.json(&value, indent)
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
