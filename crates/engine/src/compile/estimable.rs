//! What a sweep must be for its cells to be estimated: whatever slopes cannot tell is refused by name.

use crate::bounds;
use crate::compile::resolve::Expanded;
use crate::compile::run_versions::{Compiler, feeding};
use crate::experiment::Experiment;
use crate::experiment::method::Method;
use crate::experiment::sweep::Sweep;
use crate::ids::{EditId, RunId};
use crate::metric::Metric;
use crate::op::OpKind;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

impl Experiment<'_> {
    /// Checks the methods of a sweep; `moving` has its edits, at each of its sites.
    pub(crate) fn check_methods(
        &self,
        sweep: &Sweep,
        metrics: &[Metric],
        edits: &[EditId],
        compiler: &Compiler<'_>,
        moving: &[&[Expanded]],
    ) -> Result<()> {
        let methods = &sweep.methods;
        if methods.iter().collect::<BTreeSet<_>>().len() != methods.len() {
            return Err(Error::part("sweep", "methods lists one twice"));
        }
        match sweep.steps {
            Some(_) if !methods.contains(&Method::Integrated) => {
                let hint = Some("add \"integrated\" to methods, or leave steps out".into());
                return Err(Error::hinted("sweep", "steps are of the path of method \"integrated\"", hint));
            }
            Some(steps) => drop(bounds::SWEEP_STEPS.check(steps)?),
            None => {}
        }
        let Some(method) = methods.iter().find(|method| **method != Method::Exact) else { return Ok(()) };
        let method = format!("method \"{}\"", method.name());
        if let Some(metric) = metrics.iter().find(|metric| metric.is_stepwise()) {
            let hint = Some("use \"loss\" or \"logit_diff\", or methods = [\"exact\"]".into());
            let problem =
                format!("{method} needs a gradient, and metric \"{}\" is not differentiable", metric.name());
            return Err(Error::hinted("sweep", problem, hint));
        }
        let has_others = compiler.swept.contains(&false);
        if metrics.contains(&Metric::Kl) && methods.contains(&Method::Attribution) && !has_others {
            let hint = Some("use methods = [\"integrated\"], or another metric".into());
            let problem = "method \"attribution\" says nothing of metric \"kl\": where nothing is edited its slope is 0";
            return Err(Error::hinted("sweep", problem, hint));
        }
        self.check_linear(&method, edits, compiler, moving)?;
        if methods.contains(&Method::Integrated) {
            self.check_paths(edits, &compiler.expanded)?;
        }
        Ok(())
    }

    /// That what edits change can be told from the runs without them.
    fn check_linear(
        &self,
        method: &str,
        edits: &[EditId],
        compiler: &Compiler<'_>,
        moving: &[&[Expanded]],
    ) -> Result<()> {
        let (expanded, swept) = (&compiler.expanded, &compiler.swept);
        // The runs that the read run depends on without the swept edits.
        let fixed = expanded.iter().zip(swept).filter(|(_, is_swept)| !**is_swept).map(|(edit, _)| edit);
        let feeds = feeding(self.runs.len(), [self.read_run()?], &fixed);
        for edit in edits {
            if !feeds[expanded[edit.0].run.0] {
                let problem = format!(
                    "reaches the run that is read only through another swept edit, which {method} takes as not made"
                );
                let hint = Some("sweep only the edit that comes first, or use methods = [\"exact\"]".into());
                return Err(Error::hinted(self.edit_name(*edit), problem, hint));
            }
        }
        for moving in moving {
            for (id, edit) in edits.iter().zip(*moving) {
                let is_after = |other: usize| {
                    let is_edit = !swept[other] && self.edits[other].op.kind != OpKind::Collect;
                    let (next, places) = (&expanded[other], &edit.places);
                    is_edit
                        && other > id.0
                        && (next.run, next.places.site.tensor()) == (edit.run, places.site.tensor())
                        && next.places.layers.iter().any(|layer| places.layers.contains(layer))
                };
                if let Some(other) = (0..expanded.len()).find(|other| is_after(*other)) {
                    let problem = format!(
                        "edits the same tensor after a swept edit, so that {method} cannot see what was there before"
                    );
                    let hint = Some("put it before the swept edit, or use methods = [\"exact\"]".into());
                    return Err(Error::hinted(self.edit_name(EditId(other)), problem, hint));
                }
            }
        }
        Ok(())
    }

    /// That every edited run has one other end.
    fn check_paths(&self, edits: &[EditId], expanded: &[Expanded]) -> Result<()> {
        let mut ends: BTreeMap<RunId, RunId> = BTreeMap::new();
        for id in edits {
            let edit = &expanded[id.0];
            let refuse = |problem: String| {
                let hint = Some("use methods = [\"exact\", \"attribution\"]".into());
                Err(Error::hinted(self.edit_name(*id), problem, hint))
            };
            let Some(source) = edit.source() else {
                return refuse(
                    "takes no value from a run, which is where the path of method \"integrated\" would lead"
                        .into(),
                );
            };
            let name = |run: RunId| &self.runs[run.0].name;
            let len = |run: RunId| self.runs[run.0].ids.len();
            if len(edit.run) != len(source) {
                return refuse(format!(
                    "takes from run \"{}\" of {} tokens, where the path of method \"integrated\" leads from {} tokens to as many",
                    name(source),
                    len(source),
                    len(edit.run)
                ));
            }
            if let Some(other) = ends.insert(edit.run, source).filter(|other| *other != source) {
                return refuse(format!(
                    "takes from run \"{}\" and another swept edit from \"{}\", where the path of method \"integrated\" leads to one",
                    name(source),
                    name(other)
                ));
            }
        }
        Ok(())
    }
}
