//! Documents of experiments that everybody runs, and checks of documents as they are made.

use crate::error::{Failure, Result};
use causalcone::ExperimentFile;
use causalcone::jobs::recipes::Patch;
use pyo3::prelude::*;
use std::str::FromStr;

/// Activation patching of two prompts, as the JSON of an experiment whose prompts and answers are still empty; `by_head`
/// starts from patching each head at the last position. What is None is left as the recipe has it.
#[pyfunction]
#[pyo3(signature = (by_head, site=None, layers=None, positions=None, heads=None))]
pub(crate) fn patch(
    by_head: bool,
    site: Option<String>,
    layers: Option<&str>,
    positions: Option<&str>,
    heads: Option<&str>,
) -> PyResult<String> {
    let start = if by_head { Patch::heads::<String> } else { Patch::new::<String> };
    let mut patch: Patch = start(String::new(), String::new(), []);
    patch.site = site.unwrap_or(patch.site);
    patch.layers = parsed("layers", layers)?.unwrap_or(patch.layers);
    patch.positions = parsed("positions", positions)?.unwrap_or(patch.positions);
    patch.heads = parsed("heads", heads)?.or(patch.heads);
    let file = patch.file().map_err(Failure::from)?;
    Ok(serde_json::to_string(&file).map_err(Failure::from)?)
}

fn parsed<T: FromStr<Err = String>>(name: &str, text: Option<&str>) -> Result<Option<T>> {
    let wrong = |problem: String| Failure::input(format!("{name}: {problem}"), None);
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

/// Checks that the JSON of an edit follows the schema.
#[pyfunction]
pub(crate) fn check_edit(edit: &str) -> PyResult<()> {
    ExperimentFile::from_json(&format!("{{\"edit\": [{edit}]}}")).map_err(Failure::of_document)?;
    Ok(())
}
