//! An op with all it needs.

use super::asked::Custom;
use super::joint::Joint;
use super::kind::OpKind;
use super::parameters::{Parameters, Settings};
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
}
