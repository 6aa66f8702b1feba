//! What an experiment will do, before it does it.

use crate::Result;
use crate::execute::Executor;
use crate::experiment::Experiment;
use crate::plan::{Cell, Plan, Read};
use causalcone_model::Site;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A plan in figures.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The model's name.
    pub model: String,
    /// The executor that would run it.
    pub executor: &'static str,
    /// The prompts.
    pub runs: Vec<ExplainedRun>,
    /// How many cells there are; 1 for a single experiment.
    pub cells: usize,
    /// The sites that are edited or taken from, with the shape of their tensor.
    pub sites: BTreeMap<&'static str, String>,
    /// How many edits are made over all cells, each layer counted.
    pub edits: usize,
    /// Rows (one position through one block) this executor computes for the cells; the baselines
    /// they are compared with are counted on neither side.
    pub rows_computed: u64,
    /// Rows of every cell's own edited run and source runs in full.
    pub rows_naive: u64,
}

/// A prompt in figures.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedRun {
    /// Its name.
    pub name: String,
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Their texts.
    pub tokens: Vec<String>,
}

impl Explanation {
    /// Explains an experiment: its sweep if it has one, else its single run.
    ///
    /// # Errors
    /// When the experiment contradicts itself; nothing is computed.
    pub fn new(experiment: &Experiment<'_>, executor: &dyn Executor) -> Result<Self> {
        let plan = if experiment.sweep.is_some() { experiment.plan()? } else { experiment.plan_single()? };
        Ok(Self::of(experiment, &plan, executor))
    }

    /// Explains an experiment whose plan is made already.
    pub fn of(experiment: &Experiment<'_>, plan: &Plan, executor: &dyn Executor) -> Self {
        let model = experiment.model();
        let layers = model.config().layers;
        let cells: Vec<&Cell> = plan.cells.iter().collect();
        let run = |spec: &crate::experiment::RunSpec| ExplainedRun {
            name: spec.name.to_string(),
            ids: spec.ids.to_vec(),
            tokens: spec.ids.iter().map(|&id| model.token_text(id)).collect(),
        };
        Self {
            model: model.name().into(),
            executor: executor.name(),
            runs: experiment.prompted_runs().iter().map(run).collect(),
            cells: plan.cells.len(),
            sites: sites(experiment, plan),
            edits: plan.runs.iter().map(|run| run.edits.len()).sum(),
            rows_computed: executor.rows_computed(plan, &cells, layers),
            rows_naive: plan.rows_naive(layers),
        }
    }
}

/// The sites a plan touches and the shapes of their tensors.
fn sites(experiment: &Experiment<'_>, plan: &Plan) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let mut add = |site: Site, rows: usize| {
        let shape = site.layout(experiment.model().config()).shape(rows);
        found.insert(site.name(), shape);
    };
    for run in &plan.runs {
        for edit in &run.edits {
            add(edit.place.site, run.ids.len());
            if let Some(crate::plan::Taken::Run(source, place)) = &edit.value {
                add(place.site, plan.runs[*source].ids.len());
            }
        }
    }
    for cell in &plan.cells {
        for read in &cell.reads {
            if let Read::Activation { run, place } = read {
                add(place.site, plan.runs[*run].ids.len());
            }
        }
    }
    found
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model          {}", self.model)?;
        for run in &self.runs {
            let tokens: Vec<String> = run.tokens.iter().map(|token| crate::visible(token)).collect();
            writeln!(f, "run            {}: {} tokens: {}", run.name, run.ids.len(), tokens.join(" "))?;
        }
        for (site, shape) in &self.sites {
            writeln!(f, "site           {site}: {shape}")?;
        }
        writeln!(f, "cells          {}", self.cells)?;
        writeln!(f, "edits          {}", self.edits)?;
        writeln!(f, "executor       {}", self.executor)?;
        writeln!(f, "rows computed  {}", self.rows_computed)?;
        write!(f, "rows naive     {}", self.rows_naive)
    }
}
