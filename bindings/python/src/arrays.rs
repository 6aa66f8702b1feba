//! Arrays: NumPy's to tensors and back.

use crate::error::{Failure, Result};
use crate::watch::Watch;
use candle_core::{CpuStorage, Device, Storage, Tensor, Var};
use causalcone::op::Custom;
use causalcone::schema::Inputs;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Constants of more numbers than this are not looked for among earlier ones.
const MOST_NUMBERS: usize = 1 << 16;
/// So many constants are remembered.
const MOST_CONSTANTS: usize = 1024;

/// The numbers of a float32 array in C order, which is what the Python half hands over.
fn numbers<'a>(array: &'a PyReadonlyArrayDyn<'_, f32>) -> Result<&'a [f32]> {
    array
        .as_slice()
        .map_err(|_| Failure::input("an array is not contiguous", Some("np.ascontiguousarray(x)")))
}

/// A tensor with an array's numbers.
fn tensor(array: &PyReadonlyArrayDyn<'_, f32>) -> Result<Tensor> {
    Ok(Tensor::from_slice(numbers(array)?, array.shape(), &Device::Cpu)?)
}

/// An array with a tensor's numbers, which are copied once.
pub(crate) fn to_array<'py>(py: Python<'py>, tensor: &Tensor) -> Result<Bound<'py, PyArrayDyn<f32>>> {
    let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    Ok(PyArray1::from_vec(py, numbers).reshape(tensor.dims())?.to_dyn().clone())
}

/// The tensor of an array that Python code has made.
pub(crate) fn of_object(object: &Bound<'_, PyAny>) -> Result<Tensor> {
    let array: PyReadonlyArrayDyn<'_, f32> =
        object.extract().map_err(|_| Failure::input("something is no array of float32 numbers", None))?;
    tensor(&array)
}

/// Constants by their numbers: equal ones are one tensor, so that experiments one after another are known to make
/// the same edits.
#[derive(Default)]
pub(crate) struct Constants {
    by_hash: HashMap<u64, Vec<Tensor>>,
    count: usize,
}

impl Constants {
    fn tensor(&mut self, array: &PyReadonlyArrayDyn<'_, f32>) -> Result<Tensor> {
        let numbers = numbers(array)?;
        if numbers.len() > MOST_NUMBERS {
            return tensor(array);
        }
        let mut hasher = DefaultHasher::new();
        array.shape().hash(&mut hasher);
        numbers.iter().for_each(|x| x.to_bits().hash(&mut hasher));
        let same = self.by_hash.entry(hasher.finish()).or_default();
        if let Some(found) = same.iter().find(|other| other.dims() == array.shape() && is_of(other, numbers))
        {
            return Ok(found.clone());
        }
        let made = tensor(array)?;
        same.push(made.clone());
        self.count += 1;
        if self.count > MOST_CONSTANTS {
            *self = Self::default();
        }
        Ok(made)
    }
}

/// Whether a tensor has these numbers, bit by bit.
fn is_of(tensor: &Tensor, numbers: &[f32]) -> bool {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(own)) => {
            own.len() == numbers.len() && own.iter().zip(numbers).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        _ => false,
    }
}

/// What a call gives beside its document.
pub(crate) struct CallInputs {
    pub(crate) inputs: Inputs,
    /// The tensors that gradients are wanted of.
    pub(crate) variables: Vec<(String, Var)>,
}

impl CallInputs {
    /// Takes arrays and functions by name; arrays in `wanted` become variables.
    pub(crate) fn new(
        constants: &Mutex<Constants>,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        wanted: &[String],
        watch: &Arc<Watch>,
    ) -> Result<Self> {
        let mut inputs = Self { inputs: Inputs::default(), variables: Vec::new() };
        for (name, array) in arrays.into_iter().flatten() {
            let name: String = name.extract()?;
            let array: PyReadonlyArrayDyn<'_, f32> = array
                .extract()
                .map_err(|_| Failure::input(format!("\"{name}\" is no array of float32 numbers"), None))?;
            let tensor = if wanted.contains(&name) {
                let variable = Var::from_tensor(&tensor(&array)?)?;
                let tensor = variable.as_tensor().clone();
                inputs.variables.push((name.clone(), variable));
                tensor
            } else {
                // Held for this alone: Python may have another thread go on wherever it is called.
                constants.lock().unwrap_or_else(PoisonError::into_inner).tensor(&array)?
            };
            inputs.inputs.tensors.insert(name, tensor);
        }
        for (name, function) in functions.into_iter().flatten() {
            inputs.inputs.closures.insert(name.extract()?, closure(function.unbind(), watch.clone()));
        }
        Ok(inputs)
    }
}

/// A Python function as an op: gets an array, gives one of the same shape. What it raises is raised again once the
/// work has stopped.
fn closure(function: Py<PyAny>, watch: Arc<Watch>) -> Custom {
    Arc::new(move |x: &Tensor| {
        let called = Python::attach(|py| -> Result<Tensor> {
            let array = to_array(py, x)?;
            of_object(&function.bind(py).call1((array,))?)
        });
        called.map_err(|failure| {
            watch.raise(failure.into());
            candle_core::Error::Msg("a Python function raised an exception".into())
        })
    })
}
