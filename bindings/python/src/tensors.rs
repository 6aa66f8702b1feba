//! Files of tensors, read by the engine's own readers: nothing of a pickle is run.

use crate::arrays::{of_object, to_array};
use crate::error::{Failure, Result};
use candle_core::Tensor;
use causalcone::files::write_whole;
use causalcone_model::file::{Encoding, Weights};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The tensors of a .safetensors, .npz, or .bin or .pt file of torch's, by name, as float32; those of whole numbers are
/// left out.
#[pyfunction]
pub(crate) fn read_tensors(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let tensors = py.detach(|| read(&path))?;
    let result = PyDict::new(py);
    for (name, tensor) in tensors {
        result.set_item(name, to_array(py, &tensor)?)?;
    }
    Ok(result)
}

/// Writes float32 arrays by name as safetensors, whole or not at all.
#[pyfunction]
pub(crate) fn write_tensors(py: Python<'_>, path: PathBuf, arrays: &Bound<'_, PyDict>) -> PyResult<()> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (name, array) in arrays {
        tensors.insert(name.extract()?, of_object(&array)?);
    }
    let written = py.detach(|| -> Result<()> {
        let bytes = safetensors::serialize(&tensors, None)
            .map_err(|e| Failure::input(format!("{}: {e}", path.display()), None))?;
        Ok(write_whole(&path, |w| w.write_all(&bytes))?)
    });
    Ok(written?)
}

fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    causalcone::threads::start();
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let weights = match ending.as_str() {
        "bin" | "pt" | "pth" => Weights::from_torch(path),
        "npz" | "npy" => Weights::from_numpy(path),
        _ => Weights::from_safetensors(&[path]),
    }?;
    let floats = weights.entries().filter(|entry| !matches!(entry.encoding, Encoding::Other(_)));
    let entries: Vec<_> = floats.map(|entry| (entry.name.clone(), entry.shape.clone())).collect();
    entries
        .into_iter()
        .map(|(name, shape)| {
            let tensor = weights.take(&name, &shape)?;
            Ok((name, tensor))
        })
        .collect()
}
