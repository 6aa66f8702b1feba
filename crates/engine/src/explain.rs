//! What an experiment will do, before it does it.

use crate::Result;
use crate::align::Alignment;
use crate::execute::Executor;
use crate::experiment::Experiment;
use crate::plan::{Cell, Plan, Read, Taken};
use crate::sweep::PreparedSweep;
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
    /// Which positions pair where a value says how; left out where none does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alignments: Vec<Alignment>,
    /// How many cells there are; 1 for a single experiment.
    pub cells: usize,
    /// The sites that are edited or taken from, with the shape of their tensor.
    pub sites: BTreeMap<&'static str, String>,
    /// How many edits are made over all cells, each layer counted.
    pub edits: usize,
    /// Rows (one position through one block) this executor computes for the cells.
    pub rows_computed: u64,
    /// Rows more for the runs without edits, or without the swept ones, that cells are compared with.
    pub rows_baselines: u64,
    /// Rows of every cell's own edited run and source runs in full.
    pub rows_naive: u64,
    /// Multiplications and additions of all matrix products and of attention, baselines included.
    pub flops: u64,
    /// Forward and backward passes that estimates take besides, of the runs without the swept edits.
    #[serde(skip_serializing_if = "is_none")]
    pub passes: u64,
    /// In how many batches.
    pub batches: u64,
    /// The most bytes held at once beside the weights; 0 where the executor cannot tell.
    pub peak_bytes: u64,
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
        match experiment.sweep {
            Some(_) => Self::of_sweep(experiment, &PreparedSweep::new(experiment)?, executor),
            None => Self::of(experiment, &experiment.plan_single()?, executor),
        }
    }

    /// Explains an experiment whose sweep is prepared already.
    ///
    /// # Errors
    /// When it cannot be run in the memory there is.
    pub fn of_sweep(
        experiment: &Experiment<'_>,
        sweep: &PreparedSweep<'_>,
        executor: &dyn Executor,
    ) -> Result<Self> {
        Ok(Self { passes: sweep.passes()?, ..Self::of(experiment, sweep.plan(), executor)? })
    }

    /// Explains an experiment whose plan is made already.
    fn of(experiment: &Experiment<'_>, plan: &Plan, executor: &dyn Executor) -> Result<Self> {
        let model = experiment.model();
        let config = model.config();
        let cells: Vec<&Cell> = plan.cells.iter().collect();
        let for_cells = executor.estimate(plan, &cells, config)?;
        let all: Vec<&Cell> = plan.baselines().chain(&plan.cells).collect();
        let whole = executor.estimate(plan, &all, config)?;
        let run = |spec: &crate::experiment::RunSpec| ExplainedRun {
            name: spec.name.to_string(),
            ids: spec.ids.to_vec(),
            tokens: spec.ids.iter().map(|&id| model.token_text(id)).collect(),
        };
        Ok(Self {
            model: model.name().into(),
            executor: executor.name(),
            runs: experiment.prompted_runs().iter().map(run).collect(),
            alignments: experiment.alignments()?,
            cells: plan.cells.len(),
            sites: sites(experiment, plan),
            edits: plan.runs.iter().map(|run| run.edits.len()).sum(),
            rows_computed: for_cells.rows,
            rows_baselines: whole.rows - for_cells.rows,
            rows_naive: plan.rows_naive(config.layers),
            flops: whole.flops,
            passes: 0,
            batches: whole.batches,
            peak_bytes: whole.peak_bytes,
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(passes: &u64) -> bool {
    *passes == 0
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
            match &edit.value {
                Some(Taken::Run(source, place)) => add(place.site, plan.runs[*source].ids.len()),
                Some(Taken::Own(place)) => add(place.site, run.ids.len()),
                _ => {}
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
        for alignment in &self.alignments {
            writeln!(f, "aligned        {alignment}")?;
        }
        for (site, shape) in &self.sites {
            writeln!(f, "site           {site}: {shape}")?;
        }
        writeln!(f, "cells          {}", self.cells)?;
        writeln!(f, "edits          {}", self.edits)?;
        writeln!(f, "executor       {}", self.executor)?;
        let times = |n: u64| self.rows_naive as f64 / n.max(1) as f64;
        let (rows, naive) = (self.rows_computed, self.rows_naive);
        writeln!(f, "rows computed  {rows}, and {} for baselines", self.rows_baselines)?;
        writeln!(f, "rows naive     {naive}, {:.1} times as many", times(rows))?;
        writeln!(f, "operations     {:.3} GFLOP", self.flops as f64 / 1e9)?;
        if self.passes > 0 {
            writeln!(f, "estimates      {} forward and backward passes", self.passes)?;
        }
        write!(f, "batches        {}", self.batches)?;
        if self.peak_bytes > 0 {
            write!(f, ", at most {:.0} MiB beside the weights", self.peak_bytes as f64 / f64::from(1 << 20))?;
        }
        Ok(())
    }
}
