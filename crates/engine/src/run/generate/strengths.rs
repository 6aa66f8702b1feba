//! Texts at several strengths of an edit: the one axis that a sweep of growing runs has.

use crate::compile::axes::distinct;
use crate::experiment::Experiment;
use crate::experiment::sweep::Sweep;
use crate::metric::Metric;
use crate::{Error, Result};
use std::sync::Arc;

impl<'m> Experiment<'m> {
    /// The experiments of a sweep over scales, each without a sweep; or this one.
    pub(super) fn by_scale(mut self) -> Result<Vec<(Option<f64>, Self)>> {
        let Some(sweep) = self.sweep.take() else { return Ok(vec![(None, self)]) };
        only_scales(&sweep)?;
        distinct("scales", sweep.scales.iter().map(f64::to_string))?;
        let edits = self.swept(&sweep)?;
        self.check_scales(&sweep, &edits)?;
        let at = |scale: &f64| {
            let mut one = self.clone();
            edits.iter().for_each(|edit| Arc::make_mut(&mut one.edits)[edit.0].op.scale = *scale);
            (Some(*scale), one)
        };
        Ok(sweep.scales.iter().map(at).collect())
    }
}

/// Refuses what a sweep may have besides scales.
fn only_scales(sweep: &Sweep) -> Result<()> {
    let others = [
        ("layers", sweep.layers.is_some()),
        ("positions", sweep.positions.is_some()),
        ("heads", sweep.heads.is_some()),
        ("sites", !sweep.sites.is_empty()),
        ("samples", sweep.samples.is_some()),
        ("metrics", !matches!(sweep.metrics[..], [] | [Metric::Prob])),
        ("methods", !sweep.methods.is_empty()),
        ("steps", sweep.steps.is_some()),
    ];
    let refuse = |problem: String| {
        let hint = Some("give [sweep] scales alone, or use `sweep`".into());
        Err(Error::hinted("sweep", problem, hint))
    };
    if let Some((name, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
        return refuse(format!("{name} are not for texts: a run that grows has scales as its one axis"));
    }
    match sweep.scales.is_empty() {
        true => refuse("has no scales, which are the one axis of a run that grows".into()),
        false => Ok(()),
    }
}
