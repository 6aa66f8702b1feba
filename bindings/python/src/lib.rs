//! The compiled half of the Python package `causalcone`: models, and documents run on them.
//!
//! The Python half, `py_src/causalcone`, is what people import; it makes documents of what they write, and objects of
//! what comes back. Nothing here is an interface to rely on.

mod arrays;
mod error;
mod loaded;
mod model;
mod recipes;
mod runs;
mod sweep;
mod table;
mod tensors;
mod trace;
mod watch;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(tensors::read_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(tensors::write_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(recipes::patch, module)?)?;
    module.add_function(wrap_pyfunction!(recipes::check_edit, module)?)?;
    module.add_class::<model::Model>()?;
    module.add_class::<sweep::SweepResult>()?;
    module.add_class::<table::Table>()?;
    module.add_class::<trace::Trace>()
}
