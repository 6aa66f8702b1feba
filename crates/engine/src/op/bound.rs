//! What stands in for the parameters of edits.

use super::operation::Operation;
use super::parameters::Parameters;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// Tensors that stand in for the parameters of edits while a plan runs, such as those that train.
#[derive(Debug, Clone, Default)]
pub struct Bound(HashMap<usize, (Arc<Parameters>, Arc<Parameters>)>);

impl Bound {
    /// Has `by` stand in for `parameters`, wherever edits share these.
    pub fn bind(&mut self, parameters: &Arc<Parameters>, by: Parameters) {
        self.0.insert(Arc::as_ptr(parameters) as usize, (parameters.clone(), Arc::new(by)));
    }

    /// What stands in for these.
    pub(crate) fn get(&self, parameters: &Arc<Parameters>) -> Option<&Parameters> {
        self.0.get(&(Arc::as_ptr(parameters) as usize)).map(|(_, by)| &**by)
    }

    /// The operation with what stands in.
    pub(crate) fn of<'o>(&self, operation: &'o Operation) -> Cow<'o, Operation> {
        match self.0.get(&(Arc::as_ptr(&operation.parameters) as usize)) {
            Some((_, by)) => Cow::Owned(Operation { parameters: by.clone(), ..operation.clone() }),
            None => Cow::Borrowed(operation),
        }
    }
}
