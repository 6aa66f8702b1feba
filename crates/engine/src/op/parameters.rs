//! What belongs to an op: its tensors, and what else is set about it.

use super::kind::Setting;
use crate::Error;
use crate::error::Within;
use candle_core::{DType, Device, Tensor};
use causalcone_ops::Activation;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// The tensors of an op, by name. Edits that share one `Parameters` are linked: what trains one, trains
/// all. A clone is linked to none.
#[derive(Debug, Default, Clone)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
    /// What is wrong with their numbers, once that was looked at.
    pub(super) checked: OnceLock<Option<String>>,
}

/// What cannot be done, and what could be meant.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// What does not fit.
    pub message: String,
    /// What would.
    pub hint: Option<String>,
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self { message, hint: None }
    }
}

impl<T> Within<T> for Result<T, Problem> {
    fn within(self, part: impl FnOnce() -> String) -> crate::Result<T> {
        self.map_err(|problem| Error::hinted(part(), problem.message, problem.hint))
    }
}

impl Parameters {
    /// Tensors of these shapes that hold nothing: each is one number, repeated. What their numbers must be is not asked.
    pub(crate) fn outlined(
        shapes: impl IntoIterator<Item = (&'static str, Vec<usize>)>,
    ) -> candle_core::Result<Self> {
        let empty = |(name, shape): (&str, Vec<usize>)| {
            let one = Tensor::ones((), DType::F32, &Device::Cpu)?;
            Ok((name.to_owned(), one.broadcast_as(shape)?))
        };
        let tensors = shapes.into_iter().map(empty).collect::<candle_core::Result<_>>()?;
        Ok(Self { tensors, checked: OnceLock::from(None) })
    }

    /// The same and another tensor, in place of one of that name.
    pub(crate) fn with(&self, name: &str, tensor: Tensor) -> Self {
        let mut tensors = self.tensors.clone();
        tensors.insert(name.into(), tensor);
        Self { tensors, checked: OnceLock::new() }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The same with other tensors of the same names and shapes.
    pub(crate) fn map(
        &self,
        mut f: impl FnMut(&str, &Tensor) -> crate::Result<Tensor>,
    ) -> crate::Result<Self> {
        let mapped = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), f(name, tensor)?));
        let tensors = self.tensors.iter().map(mapped).collect::<crate::Result<_>>()?;
        Ok(Self { tensors, checked: OnceLock::new() })
    }
}

/// What can be set about an op besides its tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The activation function of the ReFT family; the identity if `None`.
    pub activation: Option<Activation>,
    /// Whether what an autoencoder does not reconstruct is added back.
    pub add_error: bool,
    /// Whether b_dec is subtracted before an autoencoder encodes; as the op has it if `None`.
    pub centre: Option<bool>,
    /// The bounds of [`OpKind::Clamp`](super::OpKind::Clamp), as bits, so that equal settings can be known.
    bounds: [Option<u64>; 2],
}

impl Settings {
    /// The same with bounds.
    #[must_use]
    pub fn between(mut self, min: Option<f64>, max: Option<f64>) -> Self {
        self.bounds = [min.map(f64::to_bits), max.map(f64::to_bits)];
        self
    }

    /// The lower bound.
    pub fn min(&self) -> Option<f64> {
        self.bounds[0].map(f64::from_bits)
    }

    /// The upper bound.
    pub fn max(&self) -> Option<f64> {
        self.bounds[1].map(f64::from_bits)
    }

    /// Each setting that is not as it is if left out.
    pub(super) fn given(&self) -> impl Iterator<Item = (Setting, &'static str)> {
        let given = [
            (self.activation.is_some(), Setting::Activation, "activation"),
            (self.add_error, Setting::AddError, "error"),
            (self.centre.is_some(), Setting::Centre, "centre"),
            (self.bounds != [None; 2], Setting::Bounds, "min or max"),
        ];
        given.into_iter().filter(|(is_given, ..)| *is_given).map(|(_, setting, name)| (setting, name))
    }
}
