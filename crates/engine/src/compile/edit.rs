//! Adding edits to an experiment. Each is resolved when it is added, so that its errors are found there.

use crate::error::Within;
use crate::experiment::edit::EditSpec;
use crate::experiment::{Experiment, partition};
use crate::ids::{EditId, RunId};
use crate::metric::Metric;
use crate::op::{Op, OpKind, Source};
use crate::{Error, Result};
use causalcone_model::{Positions, Target};
use std::sync::Arc;

impl Experiment<'_> {
    /// Adds an edit.
    ///
    /// # Errors
    /// When it does not fit the model or its run. What depends on other edits (cycles) or on
    /// examples is found by [`Experiment::plan`].
    pub fn edit(&mut self, run: RunId, target: impl Into<Target>, op: Op) -> Result<EditId> {
        self.add(EditSpec::new(run, target, op))
    }

    /// Reads activations of a run, with all edits made: what the target names is among the results.
    ///
    /// # Errors
    /// As [`Experiment::edit`].
    pub fn collect(&mut self, run: RunId, target: impl Into<Target>) -> Result<EditId> {
        self.edit(run, target, Op::new(OpKind::Collect))
    }

    /// Reads the gradient of a metric with respect to activations, in the same way.
    ///
    /// # Errors
    /// As [`Experiment::edit`].
    pub fn collect_gradient(&mut self, run: RunId, target: impl Into<Target>, of: Metric) -> Result<EditId> {
        self.edit(run, target, Op { gradient: Some(of), ..Op::new(OpKind::Collect) })
    }

    /// The op of an edit, to link another edit to it: copies of an op have the very same parameters, which train together.
    pub fn op_of(&self, edit: EditId) -> Option<&Op> {
        self.edits.get(edit.0).map(|spec| &spec.op)
    }

    /// Adds an edit with all that a file can say of it.
    ///
    /// # Errors
    /// As [`Experiment::edit`]; when its parts overlap, or a token that ends it is outside the vocabulary.
    pub fn add(&mut self, edit: EditSpec) -> Result<EditId> {
        let number = self.edits.len();
        let part = || edit.part_name(EditId(number));
        partition::check(&edit.partition, &part())?;
        edit.until.iter().try_for_each(|id| self.model.check(&[*id])).within(part)?;
        let source = edit.op.source().map_or(edit.run, |source| source.run);
        if edit.run.0.max(source.0) >= self.runs.len() {
            return Err(Error::part("edit", "names a run of another experiment"));
        }
        let id = EditId(self.edits.len());
        let waits = self.waits_for_examples(&edit);
        Arc::make_mut(&mut self.edits).push(edit);
        if !waits && let Err(e) = self.resolver(id).expand() {
            Arc::make_mut(&mut self.edits).pop();
            return Err(e);
        }
        Ok(id)
    }

    /// Whether an edit can only be checked once there is an example.
    fn waits_for_examples(&self, edit: &EditSpec) -> bool {
        let is_open = |run: RunId| self.runs[run.0].ids.is_empty();
        let is_name = |positions: &Positions| matches!(positions, Positions::Name(_));
        let is_of_example =
            |source: &Source| is_open(source.run) || source.positions.as_ref().is_some_and(is_name);
        is_open(edit.run) || is_name(&edit.target.positions) || edit.op.source().is_some_and(is_of_example)
    }
}
