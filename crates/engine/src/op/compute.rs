//! From an op with all it needs to its result.

use super::table::OpInfo;
use super::{Custom, Joint, OpKind, Parameters, Settings};
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// An op ready to be computed: everything about it but the scale and the value, which differ by cell.
#[derive(Clone)]
pub struct Operation {
    /// What is done.
    pub kind: OpKind,
    /// The closure of [`OpKind::Custom`].
    pub custom: Option<Custom>,
    /// The op's tensors, as wide as what is edited.
    pub parameters: Arc<Parameters>,
    /// Which coordinates of the op's own basis are meant; `None` is all.
    pub subspace: Option<Arc<[usize]>>,
    /// What is taken together as one vector.
    pub joint: Option<Joint>,
    /// What else is set.
    pub settings: Settings,
}

/// What makes two operations the same: closures and parameters are equal to themselves only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OperationKey {
    kind: OpKind,
    custom: Option<usize>,
    parameters: usize,
    subspace: Option<Arc<[usize]>>,
    joint: Option<Joint>,
    settings: Settings,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().name)?;
        match &self.subspace {
            Some(subspace) => write!(f, " in {subspace:?}"),
            None => Ok(()),
        }
    }
}

/// What an op computes with: rows of width d, where it is one of rows.
pub(super) struct Input<'a> {
    pub(super) op: &'a Operation,
    pub(super) scale: f64,
    pub(super) base: Tensor,
    value: Option<Tensor>,
}

impl Operation {
    /// An op without parameters, over all it is applied to.
    pub fn plain(kind: OpKind) -> Self {
        Self {
            kind,
            custom: None,
            parameters: Arc::default(),
            subspace: None,
            joint: None,
            settings: Settings::default(),
        }
    }

    /// Its row of the table.
    pub fn info(&self) -> &'static OpInfo {
        self.kind.info()
    }

    /// Whether each row it edits depends on all of them.
    pub(crate) fn couples_rows(&self) -> bool {
        let joint = matches!(self.joint, Some(Joint::Positions | Joint::All));
        joint || self.kind == OpKind::Custom
    }

    pub(crate) fn key(&self) -> OperationKey {
        OperationKey {
            kind: self.kind,
            custom: self.custom.as_ref().map(|f| Arc::as_ptr(f).cast::<()>() as usize),
            // All ops without parameters are alike.
            parameters: if self.parameters.is_empty() { 0 } else { Arc::as_ptr(&self.parameters) as usize },
            subspace: self.subspace.clone(),
            joint: self.joint,
            settings: self.settings,
        }
    }

    /// Computes the op: `base` and the result have one shape (positions × width; positions × heads ×
    /// width on head sites; heads × query rows × key columns on attention matrices), `value` one that
    /// broadcasts to it. Differentiable in both and in the parameters.
    ///
    /// # Errors
    /// When a kind that needs a value has none, a closure fails or changes the shape, or parameters
    /// do not fit the width.
    pub fn apply(&self, scale: f64, base: &Tensor, value: Option<&Tensor>) -> Result<Tensor> {
        let info = self.info();
        let value = value.map(|value| value.broadcast_as(base.shape())).transpose()?;
        if !info.is_of_rows {
            return (info.compute)(&Input { op: self, scale, base: base.clone(), value });
        }
        let rows = |x: &Tensor| Joint::rows(self.joint, x);
        let value = value.as_ref().map(rows).transpose()?;
        let new = (info.compute)(&Input { op: self, scale, base: rows(base)?, value })?;
        Ok(Joint::put_back(self.joint, &new, base.dims())?)
    }
}

impl Input<'_> {
    /// The value, as wide as the base.
    pub(super) fn value(&self) -> Result<Tensor> {
        self.value.clone().ok_or_else(|| Error::part(self.op.info().name, "needs a value"))
    }

    /// The value if there is one.
    pub(super) fn maybe_value(&self) -> Option<&Tensor> {
        self.value.as_ref()
    }

    /// A value times the scale. A scale of 1 is left out, so that adding −inf to a score stays exact.
    pub(super) fn scaled(&self, x: Tensor) -> Result<Tensor> {
        Ok(if self.scale == 1.0 { x } else { (x * self.scale)? })
    }

    /// A parameter; its default where it was left out.
    pub(super) fn parameter(&self, name: &'static str) -> Result<Tensor> {
        if let Some(tensor) = self.op.parameters.get(name) {
            return Ok(tensor.clone());
        }
        let default = self.op.info().parameter(name).and_then(|parameter| parameter.default);
        match default {
            Some(default) => {
                Ok(Tensor::new(default as f32, self.base.device())?.to_dtype(self.base.dtype())?)
            }
            None => Err(Error::part(self.op.info().name, format!("needs the parameter \"{name}\""))),
        }
    }

    /// Coordinates with those of the subspace taken from `other`.
    pub(super) fn exchanged(&self, own: &Tensor, other: &Tensor) -> Result<Tensor> {
        Ok(match &self.op.subspace {
            None => other.clone(),
            Some(subspace) => {
                let taken = causalcone_ops::select(other, 1, subspace)?;
                causalcone_ops::replace(own, 1, subspace, &taken)?
            }
        })
    }
}
