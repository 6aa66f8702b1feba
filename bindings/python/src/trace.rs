//! Gradients for Python's own autograd: what was read, and its slope with respect to arrays that were given.

use crate::arrays::{of_object, to_array};
use crate::error::{Failure, Result};
use candle_core::{Tensor, Var};
use causalcone::Collected;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What an experiment read, with the computation behind it.
#[pyclass(frozen, module = "causalcone._native")]
pub(crate) struct Trace {
    outputs: Vec<Collected>,
    variables: Vec<(String, Var)>,
}

impl Trace {
    pub(crate) fn new(outputs: Vec<Collected>, variables: Vec<(String, Var)>) -> Self {
        Self { outputs, variables }
    }

    fn slope(&self, cotangents: &[Option<Tensor>]) -> Result<Vec<(String, Tensor)>> {
        let mut sum: Option<Tensor> = None;
        for (output, cotangent) in self.outputs.iter().zip(cotangents) {
            let Some(cotangent) = cotangent else { continue };
            if cotangent.dims() != output.tensor.dims() {
                let (has, is) = (cotangent.dims(), output.tensor.dims());
                return Err(Failure::input(
                    format!("a cotangent of shape {has:?} for an output of {is:?}"),
                    None,
                ));
            }
            let part = (&output.tensor * cotangent)?.sum_all()?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        let store = sum.map(|sum| sum.backward()).transpose()?;
        let of = |variable: &Var| match store.as_ref().and_then(|store| store.get(variable)) {
            Some(gradient) => Ok(gradient.clone()),
            None => variable.as_tensor().zeros_like(),
        };
        self.variables.iter().map(|(name, variable)| Ok((name.clone(), of(variable)?))).collect()
    }
}

#[pymethods]
impl Trace {
    /// What was read, in file order, a layer each.
    fn outputs(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let array = |one: &Collected| Ok(to_array(py, &one.tensor)?.into_any().unbind());
        Ok(self.outputs.iter().map(array).collect::<Result<_>>()?)
    }

    /// The gradients of Σ cotangent · output, by the names of the arrays; a cotangent may be None.
    fn backward<'py>(
        &self,
        py: Python<'py>,
        cotangents: Vec<Option<Bound<'py, PyAny>>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let cotangents: Vec<Option<Tensor>> =
            cotangents.iter().map(|one| one.as_ref().map(of_object).transpose()).collect::<Result<_>>()?;
        let slopes = py.detach(|| self.slope(&cotangents))?;
        let result = PyDict::new(py);
        for (name, slope) in slopes {
            result.set_item(name, to_array(py, &slope)?)?;
        }
        Ok(result)
    }
}
