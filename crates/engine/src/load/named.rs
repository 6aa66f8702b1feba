//! What is named in an experiment file, among what there is.

use crate::metric::Metric;
use crate::{Error, Result};
use causalcone_model::nearest;

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
    all.iter().find(|(known, _)| *known == name).map(|(_, found)| found.clone()).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let hint = nearest(name, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        Error::hinted(part, problem(&names.join(", ")), hint)
    })
}
