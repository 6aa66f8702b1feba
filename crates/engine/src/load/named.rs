//! What is named in an experiment file, among what there is.

use crate::metric::Metric;
use crate::{Error, Result};

/// The metric of that name.
pub(super) fn metric(name: &str, part: &str) -> Result<Metric> {
    named("metric", name, &Metric::ALL, part)
}

/// The one of that name.
pub(super) fn named<T: Clone>(what: &str, name: &str, all: &[(&'static str, T)], part: &str) -> Result<T> {
    one_of(name, all, part, |names| format!("\"{name}\" is not a {what}; the {what}s are {names}"))
}

/// The one of that name; `problem` says what is wrong with another name, given all names there are.
pub(super) fn one_of<T: Clone>(
    name: &str,
    all: &[(&'static str, T)],
    part: &str,
    problem: impl FnOnce(&str) -> String,
) -> Result<T> {
    let found = all.iter().find(|(known, _)| *known == name).map(|(_, found)| found.clone());
    found.ok_or_else(|| Error::unknown(part, name, all.iter().map(|(known, _)| *known), problem))
}
