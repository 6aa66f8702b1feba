//! Adding edits to an experiment. Each is resolved when it is added, so that its errors are found there.

use crate::experiment::{EditSpec, Experiment};
use crate::ids::{EditId, RunId};
use crate::op::{Op, Source};
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
        self.add_edit(EditSpec::new(run, target.into(), op))
    }

    pub(crate) fn add_edit(&mut self, edit: EditSpec) -> Result<EditId> {
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
