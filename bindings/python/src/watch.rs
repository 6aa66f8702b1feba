//! Long work seen from Python: progress is told, and Ctrl-C stops it.

use crate::error::{Failure, Result};
use causalcone::{Progress, Runtime};
use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// Calls a Python function as work goes on, and remembers what that raised.
#[derive(Default)]
pub(crate) struct Watch {
    listener: Option<Py<PyAny>>,
    raised: Mutex<Option<PyErr>>,
}

impl Watch {
    /// `listener(what, done, total, unit)` hears of progress; there may be none.
    pub(crate) fn new(listener: Option<Py<PyAny>>) -> Self {
        Self { listener, raised: Mutex::default() }
    }

    /// Hears of progress: stops the work once Ctrl-C was pressed, or the listener has raised something.
    pub(crate) fn tell(&self, progress: Progress<'_>) -> ControlFlow<()> {
        self.call(|py| match &self.listener {
            Some(listener) => {
                let unit = format!("{:?}", progress.unit).to_lowercase();
                listener.call1(py, (progress.what, progress.done, progress.total, unit)).map(|_| ())
            }
            None => Ok(()),
        })
    }

    /// Calls into Python: stops the work if that raises something.
    pub(crate) fn call(&self, f: impl FnOnce(Python<'_>) -> PyResult<()>) -> ControlFlow<()> {
        match Python::attach(|py| py.check_signals().and_then(|()| f(py))) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.raise(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Remembers an exception, unless there is one already.
    pub(crate) fn raise(&self, error: PyErr) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.get_or_insert(error);
    }

    /// The result of the work, or the exception that ended it.
    pub(crate) fn result<T>(&self, result: Result<T>) -> Result<T> {
        match self.raised.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(Failure::Python(error)),
            None => result,
        }
    }
}

/// Runs work without the interpreter's lock, watched.
pub(crate) fn watched<T: Send>(
    py: Python<'_>,
    watch: &Watch,
    work: impl FnOnce(&Runtime<'_>) -> Result<T> + Send,
) -> PyResult<T>
where
    Failure: Send,
{
    let result = py.detach(|| {
        let progress = |progress: Progress<'_>| watch.tell(progress);
        work(&Runtime { progress: &progress, ..Runtime::default() })
    });
    Ok(watch.result(result)?)
}
