//! Tidy tables, handed to pandas, polars, pyarrow and DuckDB through Arrow's C stream.

use crate::error::Failure;
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, RecordBatchIterator, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use causalcone::report::{self, Cell, ColumnKind};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyList};
use std::path::PathBuf;
use std::sync::Arc;

/// A table: typed columns, of which any cell may be empty.
#[pyclass(frozen, module = "causalcone._native")]
pub(crate) struct Table(pub(crate) report::Table);

#[pymethods]
impl Table {
    /// The columns' names, in order.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.0.columns().iter().map(|column| column.name.clone()).collect()
    }

    /// What each column holds: "text", "integer" or "number".
    #[getter]
    fn kinds(&self) -> Vec<&'static str> {
        let kind = |column: &report::Column| match column.kind {
            ColumnKind::Text => "text",
            ColumnKind::Integer => "integer",
            ColumnKind::Number => "number",
        };
        self.0.columns().iter().map(kind).collect()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// The cells of a column, None where one is empty.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyList>> {
        let Some(index) = self.0.columns().iter().position(|column| column.name == name) else {
            let message = format!("there is no column {name:?}; there are {}", self.columns().join(", "));
            return Err(Failure::input(message, None).into());
        };
        let cells: Vec<Py<PyAny>> =
            self.0.column(index).map(|cell| object(py, cell)).collect::<PyResult<_>>()?;
        PyList::new(py, cells)
    }

    /// Writes the table: CSV, JSON lines or Parquet, as the name ends.
    fn write(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        Ok(py.detach(|| self.0.save(path)).map_err(Failure::from)?)
    }

    /// The table as a text.
    fn to_csv(&self) -> PyResult<String> {
        let mut text = Vec::new();
        self.0.write_csv(&mut text)?;
        Ok(String::from_utf8(text)?)
    }

    /// Arrow's PyCapsule protocol.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        // A consumer may ask for other types; the protocol lets the producer keep its own.
        let _ = requested_schema;
        let batch = self.batch().map_err(|e| Failure::input(e.to_string(), None))?;
        let schema = batch.schema();
        let reader = RecordBatchIterator::new([Ok::<_, ArrowError>(batch)], schema);
        PyCapsule::new_with_value(py, FFI_ArrowArrayStream::new(Box::new(reader)), c"arrow_array_stream")
    }
}

impl Table {
    fn batch(&self) -> std::result::Result<RecordBatch, ArrowError> {
        let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for (index, column) in self.0.columns().iter().enumerate() {
            let cells = self.0.column(index);
            let (kind, array): (DataType, ArrayRef) = match column.kind {
                ColumnKind::Text => {
                    let texts = cells.map(|cell| match cell {
                        Cell::Text(text) => Some(text),
                        _ => None,
                    });
                    (DataType::Utf8, Arc::new(texts.collect::<StringArray>()))
                }
                ColumnKind::Integer => {
                    let integers = cells.map(|cell| match cell {
                        Cell::Integer(integer) => Some(integer),
                        _ => None,
                    });
                    (DataType::Int64, Arc::new(integers.collect::<Int64Array>()))
                }
                ColumnKind::Number => {
                    let numbers = cells.map(|cell| match cell {
                        Cell::Number(number) => Some(number),
                        _ => None,
                    });
                    (DataType::Float64, Arc::new(numbers.collect::<Float64Array>()))
                }
            };
            fields.push(Field::new(&column.name, kind, true));
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}

fn object(py: Python<'_>, cell: Cell) -> PyResult<Py<PyAny>> {
    match cell {
        Cell::Empty => Ok(py.None()),
        Cell::Text(text) => text.into_py_any(py),
        Cell::Integer(integer) => integer.into_py_any(py),
        Cell::Number(number) => number.into_py_any(py),
    }
}

impl From<report::Table> for Table {
    fn from(table: report::Table) -> Self {
        Self(table)
    }
}
