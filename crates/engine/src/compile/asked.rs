//! What a sweep asks for, also where it says nothing, and whether all of an experiment takes part in it.

use crate::compile::resolve::Expanded;
use crate::compile::run_versions::feeding;
use crate::experiment::Experiment;
use crate::experiment::method::Method;
use crate::experiment::sweep::Sweep;
use crate::ids::EditId;
use crate::metric::Metric;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// The methods of a sweep, the exact one unless others are named; it comes first.
pub(crate) fn methods(sweep: &Sweep) -> Vec<Method> {
    let mut methods = sweep.methods.clone();
    if methods.is_empty() {
        methods.push(Method::Exact);
    }
    methods.sort_unstable();
    methods
}

/// The metrics of a sweep, probabilities unless others are named.
pub(crate) fn metrics(sweep: &Sweep) -> Vec<Metric> {
    if sweep.metrics.is_empty() { vec![Metric::Prob] } else { sweep.metrics.clone() }
}

impl Experiment<'_> {
    /// The swept edits: those named, or the first.
    pub(crate) fn swept(&self, sweep: &Sweep) -> Result<Vec<EditId>> {
        if self.edits.is_empty() {
            return Err(Error::part("sweep", "there is no edit to sweep"));
        }
        let edits = if sweep.edits.is_empty() { vec![EditId(0)] } else { sweep.edits.clone() };
        if edits.iter().any(|edit| edit.0 >= self.edits.len()) {
            return Err(Error::part("sweep", "names an edit of another experiment"));
        }
        let distinct: BTreeSet<_> = edits.iter().collect();
        if distinct.len() != edits.len() {
            return Err(Error::part("sweep", "names an edit twice"));
        }
        Ok(edits)
    }

    /// Checks that every edit can change something that is read: an answer, or what is collected.
    pub(crate) fn check_reach(&self, expanded: &[Expanded]) -> Result<()> {
        let read = self.collects().map(|edit| expanded[edit.0].run).chain([self.read_run()?]);
        let matters = feeding(self.runs.len(), read, &expanded.iter());
        match (0..expanded.len()).find(|i| !matters[expanded[*i].run.0]) {
            None => Ok(()),
            Some(i) => {
                let name = &self.runs[expanded[i].run.0].name;
                let problem =
                    format!("changes run \"{name}\", which is neither read nor takes part in what is");
                let hint = Some("give the run to [read], or take a value from it".into());
                Err(Error::hinted(self.edit_name(EditId(i)), problem, hint))
            }
        }
    }

    /// Checks that answers that are asked for can be told.
    pub(super) fn check_answers(&self, sweep: &Sweep, metrics: &[Metric]) -> Result<()> {
        if self.answers.is_empty() {
            return Ok(());
        }
        if !metrics.iter().any(|metric| metric.is_of_answers()) {
            let hint = Some("add \"prob\" or \"logprob\" to metrics".into());
            return Err(Error::hinted("answers", "no metric of this sweep is of answers", hint));
        }
        if methods(sweep) != [Method::Exact] {
            return Err(Error::part("answers", "are told exactly only: slopes are those of the next token"));
        }
        Ok(())
    }
}
