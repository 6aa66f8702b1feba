//! A loaded model with what is kept for it, and the documents that are read to be run on it.

use crate::arrays::{CallInputs, Constants};
use crate::error::{Failure, Result};
use crate::watch::Watch;
use causalcone::dataset::Example;
use causalcone::{Experiment, ExperimentFile, Memo, Runtime};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::{Arc, Mutex};

/// A model with what is kept of experiments on it.
pub(crate) struct Loaded {
    pub(crate) model: causalcone::Model,
    pub(crate) memo: Mutex<Memo>,
    pub(crate) constants: Mutex<Constants>,
}

/// A document with what belongs to it.
pub(crate) struct Written {
    pub(crate) file: ExperimentFile,
    pub(crate) inputs: Vec<(String, candle_core::Var)>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) has_functions: bool,
}

impl Loaded {
    /// Reads a document.
    pub(crate) fn read(
        &self,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        (listener, wanted): (Option<Py<PyAny>>, &[String]),
    ) -> Result<Written> {
        let watch = Arc::new(Watch::new(listener));
        let CallInputs { inputs, variables } =
            CallInputs::new(&self.constants, arrays, functions, wanted, &watch)?;
        let has_functions = !inputs.closures.is_empty();
        let mut file = ExperimentFile::from_json(document).map_err(Failure::of_document)?;
        file.inputs = inputs;
        Ok(Written { file, inputs: variables, watch, has_functions })
    }
}

impl Written {
    /// The experiment, with the data set that comes as JSON lines.
    pub(crate) fn experiment<'m>(
        &mut self,
        model: &'m causalcone::Model,
        examples: Option<&[String]>,
        runtime: &Runtime<'_>,
    ) -> Result<Experiment<'m>> {
        self.add(examples)?;
        Ok(self.file.experiment_with(model, runtime)?)
    }

    /// Adds the data set.
    pub(crate) fn add(&mut self, examples: Option<&[String]>) -> Result<()> {
        if let Some(examples) = examples {
            let read = |(number, text): (usize, &String)| {
                Example::from_json(text).map_err(|error| {
                    let hint = error.hint();
                    Failure::input(format!("example {number}: {error}"), hint.as_deref())
                })
            };
            self.file.inputs.examples = Some(examples.iter().enumerate().map(read).collect::<Result<_>>()?);
        }
        Ok(())
    }
}
