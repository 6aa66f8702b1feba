//! What a sweep recorded.

use crate::error::Failure;
use crate::loaded::Loaded;
use crate::table::Table;
use causalcone::jobs::strongest;
use causalcone::report::HeatMap;
use causalcone::report::terminal::{Colour, Style, render};
use causalcone::{heat_map, means_table, table};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// The numbers of all cells.
#[pyclass(frozen, module = "causalcone._native")]
pub(crate) struct SweepResult {
    loaded: Arc<Loaded>,
    result: causalcone::SweepResult,
    verification: Option<String>,
}

impl SweepResult {
    pub(crate) fn new(
        loaded: Arc<Loaded>,
        result: causalcone::SweepResult,
        verification: Option<String>,
    ) -> Self {
        Self { loaded, result, verification }
    }

    fn map(&self, title: &str, subtitle: Option<String>) -> HeatMap {
        HeatMap { subtitle, ..heat_map(&self.result, &self.loaded.model, title) }
    }
}

#[pymethods]
impl SweepResult {
    fn __len__(&self) -> usize {
        self.result.cells.len()
    }

    /// Rows (one position through one block) that were computed.
    #[getter]
    fn rows(&self) -> u64 {
        self.result.work.rows
    }

    /// The tidy table: one row a cell, metric and token.
    fn table(&self) -> Table {
        table(&self.result, &self.loaded.model).into()
    }

    /// Means over examples and samples; None where there are neither.
    fn means(&self) -> Option<Table> {
        self.result.has_means().then(|| means_table(&self.result, &self.loaded.model).into())
    }

    /// The cells whose first number changes most, as JSON.
    fn best(&self, most: usize) -> PyResult<String> {
        let best = strongest(&self.result, &self.loaded.model, most);
        Ok(serde_json::to_string(&best).map_err(Failure::from)?)
    }

    /// What was probably meant otherwise: tokens without the space before them.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.result.missing_spaces.iter().map(ToString::to_string).collect()
    }

    /// What comparing with the reference executor showed, as JSON.
    #[getter]
    fn verification(&self) -> Option<String> {
        self.verification.clone()
    }

    /// The heat map as SVG.
    #[pyo3(signature = (title="", subtitle=None))]
    fn to_svg(&self, title: &str, subtitle: Option<String>) -> PyResult<String> {
        Ok(self.map(title, subtitle).to_svg().map_err(Failure::from)?)
    }

    /// The heat map as PNG.
    #[pyo3(signature = (title="", subtitle=None, scale=2.0))]
    fn to_png<'py>(
        &self,
        py: Python<'py>,
        title: &str,
        subtitle: Option<String>,
        scale: f32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let map = self.map(title, subtitle);
        Ok(PyBytes::new(py, &py.detach(|| map.to_png(scale)).map_err(Failure::from)?))
    }

    /// The heat map as text.
    #[pyo3(signature = (title=""))]
    fn to_text(&self, title: &str) -> PyResult<String> {
        // As a notebook, or a terminal of the usual width, shows it.
        let style = Style { colour: Colour::None, width: 100, max_rows: Some(40) };
        Ok(render(&self.map(title, None), &style).map_err(Failure::from)?)
    }
}
