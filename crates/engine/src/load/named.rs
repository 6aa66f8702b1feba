//! What is named in an experiment file, among what there is.

use crate::metric::Metric;
use crate::{Error, Result};
use causalcone_model::nearest;

/// The metric of that name.
pub(super) fn metric(name: &str, part: &str) -> Result<Metric> {
    named("metric", name, &Metric::ALL, part)
}

/// The one of that name.
pub(super) fn named<T: Copy>(what: &str, name: &str, all: &[(&'static str, T)], part: &str) -> Result<T> {
    all.iter().find(|(known, _)| *known == name).map(|(_, found)| *found).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let hint = nearest(name, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        let problem = format!("\"{name}\" is not a {what}; the {what}s are {}", names.join(", "));
        Error::hinted(part, problem, hint)
    })
}
