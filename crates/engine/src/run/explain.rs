//! What an experiment will do, before it does it.

use crate::Result;
use crate::compile::align::Alignment;
use crate::cone::Work;
use crate::error::Refused;
use crate::execute::{Executor, Runtime};
use crate::experiment::Experiment;
use crate::plan::{Cell, Plan, Read};
use crate::run::prepared::PreparedSweep;
use causalcone_model::chat::Date;
use causalcone_model::{Config, Site};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

/// A plan in figures.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The model's name.
    pub model: String,
    /// The executor that would run it.
    pub executor: &'static str,
    /// The prompts.
    pub runs: Vec<ExplainedRun>,
    /// The date that chat templates wrote into the prompts; none where no template asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
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

/// An experiment as far as it is planned: nothing in it was drawn or fitted. [`ExperimentFile::outline`] makes it.
///
/// [`ExperimentFile::outline`]: crate::ExperimentFile::outline
#[derive(Debug)]
pub struct Outline<'m>(pub(crate) Experiment<'m>);

impl Outline<'_> {
    /// [`Experiment::sift`].
    ///
    /// # Errors
    /// As [`Experiment::sift`].
    pub fn sift(&mut self) -> Result<Vec<Refused>> {
        self.0.sift()
    }

    /// [`Experiment::example_count`].
    pub fn example_count(&self) -> Option<usize> {
        self.0.example_count()
    }
}

/// Examples of an experiment without a sweep that are planned together.
const TOGETHER: usize = 1024;

/// What plans sum up to.
#[derive(Clone, Default)]
struct Figures {
    cells: usize,
    edits: usize,
    rows_naive: u64,
    passes: u64,
    /// Of the cells alone, and with their baselines.
    for_cells: Work,
    whole: Work,
}

impl AddAssign<&Self> for Figures {
    fn add_assign(&mut self, other: &Self) {
        self.cells += other.cells;
        self.edits += other.edits;
        self.rows_naive += other.rows_naive;
        self.passes += other.passes;
        self.for_cells += other.for_cells;
        self.whole += other.whole;
    }
}

impl Figures {
    fn of(plan: &Plan, config: &Config, runtime: &Runtime<'_>) -> Result<Self> {
        let cells: Vec<&Cell> = plan.cells.iter().collect();
        let all: Vec<&Cell> = plan.baselines().chain(&plan.cells).collect();
        Ok(Self {
            cells: cells.len(),
            edits: plan.runs.iter().map(|run| run.edits.len()).sum(),
            rows_naive: plan.rows_naive(config.layers),
            passes: 0,
            for_cells: runtime.estimate(plan, &cells, config)?,
            whole: runtime.estimate(plan, &all, config)?,
        })
    }
}

impl Explanation {
    /// Explains an experiment: its sweep if it has one, else its single run.
    ///
    /// # Errors
    /// When the experiment contradicts itself, or cannot be run in the memory there is; nothing is computed.
    pub fn new(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Self> {
        match experiment.sweep {
            Some(_) => Self::of_sweep(experiment, &PreparedSweep::new(experiment)?, runtime),
            None => Self::of_single(experiment, runtime),
        }
    }

    /// The same of an outline.
    ///
    /// # Errors
    /// As [`Explanation::new`].
    pub fn of_outline(outline: &Outline<'_>, runtime: &Runtime<'_>) -> Result<Self> {
        Self::new(&outline.0, runtime)
    }

    /// Explains an experiment whose sweep is prepared already.
    ///
    /// # Errors
    /// When it cannot be run in the memory there is.
    pub fn of_sweep(
        experiment: &Experiment<'_>,
        sweep: &PreparedSweep<'_>,
        runtime: &Runtime<'_>,
    ) -> Result<Self> {
        let runtime = &sweep.beside_record(runtime)?;
        let (mut figures, mut sites) = (Figures::default(), BTreeMap::new());
        let mut last: Option<((usize, usize), Figures)> = None;
        for cells in sweep.survey.stretches() {
            let kind = sweep.survey.kind(&cells);
            // The samples of an example differ by their noise alone.
            let own = match last.take().filter(|(of, _)| Some(*of) == kind) {
                Some((_, figures)) => figures,
                None => {
                    let stretch = sweep.stretch(cells)?;
                    let config = experiment.model().config();
                    add_sites(experiment, &stretch.plan, &mut sites);
                    Figures { passes: stretch.passes()?, ..Figures::of(&stretch.plan, config, runtime)? }
                }
            };
            figures += &own;
            last = kind.map(|kind| (kind, own));
        }
        Self::of(experiment, sites, &figures, (runtime, sweep.record_bytes()))
    }

    /// Explains an experiment without a sweep.
    fn of_single(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Self> {
        let (mut figures, mut sites) = (Figures::default(), BTreeMap::new());
        experiment.check_size()?;
        let examples = experiment.example_count().unwrap_or(1);
        for start in (0..examples).step_by(TOGETHER) {
            let instances: Vec<_> =
                experiment.by_example_in(start..start + TOGETHER).collect::<Result<_>>()?;
            let plan = Experiment::plan_single_of(&instances)?;
            add_sites(experiment, &plan, &mut sites);
            figures += &Figures::of(&plan, experiment.model().config(), runtime)?;
        }
        Self::of(experiment, sites, &figures, (runtime, 0))
    }

    fn of(
        experiment: &Experiment<'_>,
        sites: BTreeMap<&'static str, String>,
        figures: &Figures,
        (runtime, record): (&Runtime<'_>, u64),
    ) -> Result<Self> {
        let model = experiment.model();
        let run = |spec: crate::experiment::RunSpec| ExplainedRun {
            name: spec.name.to_string(),
            ids: spec.ids.to_vec(),
            tokens: spec.ids.iter().map(|&id| model.token_text(id)).collect(),
        };
        let Figures { cells, edits, rows_naive, passes, for_cells, whole } = figures;
        Ok(Self {
            model: model.name().into(),
            executor: runtime.name(),
            runs: experiment.prompted_runs().map(run).collect(),
            date: experiment.seen_date(),
            alignments: experiment.alignments()?,
            cells: *cells,
            sites,
            edits: *edits,
            rows_computed: for_cells.rows,
            rows_baselines: whole.rows - for_cells.rows,
            rows_naive: *rows_naive,
            flops: whole.flops,
            passes: *passes,
            batches: whole.batches,
            peak_bytes: if whole.peak_bytes == 0 { 0 } else { whole.peak_bytes + record },
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_none(passes: &u64) -> bool {
    *passes == 0
}

/// Adds the sites a plan touches, with the shapes of their tensors.
fn add_sites(experiment: &Experiment<'_>, plan: &Plan, found: &mut BTreeMap<&'static str, String>) {
    let mut add = |site: Site, rows: usize| {
        let shape = site.layout(experiment.model().config()).shape(rows);
        found.insert(site.name(), shape);
    };
    for run in &plan.runs {
        for edit in &run.edits {
            add(edit.place.site, run.ids.len());
            if let Some((source, place)) = edit.source() {
                add(place.site, source.map_or(run, |source| &plan.runs[source]).ids.len());
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
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model          {}", self.model)?;
        for run in &self.runs {
            let tokens: Vec<String> = run.tokens.iter().map(|token| crate::labels::visible(token)).collect();
            writeln!(f, "run            {}: {} tokens: {}", run.name, run.ids.len(), tokens.join(" "))?;
        }
        if let Some(date) = &self.date {
            writeln!(f, "date           {date}, which the chat template asked for")?;
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
