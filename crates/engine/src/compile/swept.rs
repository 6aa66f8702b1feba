//! The sweep of one example: what can be wrong with it, its baselines and its cells.

use super::asked::{methods, metrics};
use crate::compile::axes::Axes;
use crate::compile::resolve::{Expanded, Selection};
use crate::compile::run_versions::{Compiler, RunVersion};
use crate::experiment::Experiment;
use crate::experiment::method::Method;
use crate::experiment::spaces::Spaced;
use crate::ids::{EditId, RunId};
use crate::metric::Metric;
use crate::plan::{Baselines, Cell, Moves, Plan, Read};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// The sweep of one example, checked.
pub(super) struct Swept<'a> {
    compiler: Compiler<'a>,
    edits: Vec<EditId>,
    axes: Vec<Axes>,
    samples: Option<usize>,
    read_run: RunId,
    /// Tokens whose logits are all that is read; `None` where whole distributions are.
    single: Option<Arc<[u32]>>,
    label: Option<u32>,
    /// What is read and has a token with a space before it.
    spaced: Arc<[Spaced]>,
    /// The plan's number of its first baseline, the sample of that, and whether there is one for each sample.
    baseline: usize,
    first_sample: usize,
    by_sample: bool,
    methods: Vec<Method>,
}

/// What the numbers of a baseline, and of cells compared with it, are about.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// The token ids of the run that is edited: what positions count.
    pub(crate) prompt: Arc<[u32]>,
    /// The tokens that are read.
    pub(crate) tokens: Arc<[u32]>,
    /// The answers that are read, by the ids of their tokens.
    pub(crate) answers: Arc<[Arc<[u32]>]>,
    /// What should come, where a metric asks.
    pub(crate) label: Option<u32>,
    /// The example, where there is a data set.
    pub(crate) example: Option<usize>,
    /// What is read and has a token with a space before it.
    pub(crate) spaced: Arc<[Spaced]>,
}

impl<'a> Swept<'a> {
    /// Checks all that can be wrong with the sweep of one example.
    pub(super) fn new(experiment: &'a Experiment<'a>) -> Result<Self> {
        let sweep = experiment.sweep.as_ref().ok_or_else(|| {
            Error::hinted(
                "sweep",
                "this experiment has no [sweep]",
                Some("a single experiment is for `run`".into()),
            )
        })?;
        experiment.no_collects("a sweep")?;
        let edits = experiment.swept(sweep)?;
        let metrics = metrics(sweep);
        let read_run = experiment.read_run()?;
        let compiler = Compiler::new(experiment, &edits)?;
        if !compiler.reached[read_run.0] {
            let name = &experiment.runs[read_run.0].name;
            let problem = format!("the swept edit cannot change run \"{name}\", which is read");
            return Err(Error::part("sweep", problem));
        }
        experiment.check_reach(&compiler.expanded)?;
        for metric in &metrics {
            let answers = if metric.is_of_answers() { experiment.answers.len() } else { 0 };
            if experiment.tokens.len() + answers < metric.needs_tokens() {
                let (name, needs, has) = (metric.name(), metric.needs_tokens(), experiment.tokens.len());
                let of =
                    if experiment.origin.is_some() { "the example and [read] have" } else { "[read] has" };
                return Err(Error::part(
                    "sweep",
                    format!("metric \"{name}\" needs at least {needs} tokens, and {of} {has}"),
                ));
            }
        }
        experiment.check_answers(sweep, &metrics)?;
        let label = match metrics.iter().find(|metric| metric.needs_label()) {
            Some(metric) => Some(experiment.label(metric.name())?),
            None => None,
        };
        // Logits of single tokens need only their own rows of the unembedding.
        let single = metrics.iter().all(|m| matches!(m, Metric::Logit | Metric::LogitDiff));
        let single = single.then(|| experiment.tokens.clone().into());
        let axes = experiment.axes(sweep, &edits, &compiler.expanded)?;
        let moving: Vec<&[Expanded]> = axes.iter().map(|axes| &*axes.moving).collect();
        experiment.check_methods(sweep, &metrics, &edits, &compiler, &moving)?;
        let samples = experiment.samples(sweep)?;
        let by_sample = samples.is_some() && compiler.noisy[0][read_run.0];
        let methods = methods(sweep);
        let spaced = experiment.spaced(label).into();
        Ok(Self {
            compiler,
            edits,
            axes,
            samples,
            read_run,
            single,
            label,
            spaced,
            baseline: 0,
            first_sample: 0,
            by_sample,
            methods,
        })
    }

    /// How many cells it has.
    pub(super) fn cells(&self) -> u128 {
        self.cells_of_sample() * self.samples.unwrap_or(1) as u128
    }

    /// How many of them a sample has.
    pub(super) fn cells_of_sample(&self) -> u128 {
        self.axes.iter().map(Axes::count).sum()
    }

    /// What its numbers are about.
    pub(super) fn basis(&self) -> Basis {
        let experiment = self.compiler.experiment;
        let edited = experiment.edits[self.edits[0].0].run;
        let prompt = experiment.runs[edited.0].ids.clone();
        let (tokens, answers) = (experiment.tokens.clone().into(), experiment.answers.clone().into());
        let (example, spaced) = (experiment.example(), self.spaced.clone());
        Basis { prompt, tokens, answers, label: self.label, example, spaced }
    }

    /// Adds the runs that some of its cells share, and their baselines: one, or one a sample.
    pub(super) fn baselines(&mut self, plan: &mut Plan, cells: &Range<usize>) -> Result<()> {
        self.baseline = plan.baselines.len();
        let all = Selection::default();
        let runs = self.compiler.experiment.runs.len();
        let of_sample = self.cells_of_sample() as usize;
        let samples = cells.start / of_sample..cells.end.div_ceil(of_sample);
        self.first_sample = samples.start;
        let original = self.compiler.version(plan, self.read_run, RunVersion::Original, &all, None)?;
        for sample in samples {
            let sample = self.samples.map(|_| sample);
            let fixed = self.compiler.version(plan, self.read_run, RunVersion::Fixed, &all, sample)?;
            for run in 0..runs {
                if !self.compiler.reached[run] {
                    self.compiler.version(plan, RunId(run), RunVersion::Fixed, &all, sample)?;
                }
            }
            if self.by_sample || plan.baselines.len() == self.baseline {
                let has_others = self.compiler.swept.contains(&false);
                let mut reads = self.read(plan, original)?;
                if self.single.is_some() && !self.spaced.is_empty() {
                    // Where whole distributions are read, they have these logits.
                    let spaced = self.spaced.iter().map(|one| one.spaced).collect();
                    reads.push(self.compiler.logits(self.read_run, original, Some(spaced)));
                }
                let original = Cell { reads, ..Cell::default() };
                let fixed = has_others.then(|| self.read(plan, fixed)).transpose()?;
                let fixed = fixed.map(|reads| Cell { reads, ..Cell::default() });
                plan.baselines.push(Baselines { original, fixed });
            }
        }
        Ok(())
    }

    /// Adds some of its cells, sample by sample, and what moves in each where that is estimated. Cells that are only
    /// estimated run nothing.
    pub(super) fn compile(
        mut self,
        plan: &mut Plan,
        moves: &mut Vec<Moves>,
        cells: Range<usize>,
    ) -> Result<()> {
        let axes = std::mem::take(&mut self.axes);
        let is_exact = self.methods.contains(&Method::Exact);
        let is_estimated = self.methods.iter().any(|method| *method != Method::Exact);
        let counts: Vec<usize> = axes.iter().map(|axes| axes.count() as usize).collect();
        let of_sample: usize = counts.iter().sum();
        let mut at_site = None;
        for cell in cells {
            let (number, mut in_site) = (cell / of_sample, cell % of_sample);
            let mut site = 0;
            while in_site >= counts[site] {
                in_site -= counts[site];
                site += 1;
            }
            if at_site.replace(site) != Some(site) {
                for (edit, expanded) in self.edits.iter().zip(&axes[site].moving) {
                    self.compiler.expanded[edit.0] = expanded.clone();
                }
            }
            let sample = self.samples.map(|_| number);
            let (choice, point) = axes[site].choice(site, in_site);
            let start = plan.runs.len();
            self.compiler.made.retain(|(_, version, _), _| *version != RunVersion::Edited);
            let mut reads = Vec::new();
            if is_exact {
                let version = RunVersion::Edited;
                let run = self.compiler.version(plan, self.read_run, version, &choice, sample)?;
                reads = self.read(plan, run)?;
            }
            if is_estimated {
                moves.push(self.moves(plan, &choice, sample)?);
            }
            let mut at = axes[site].coordinates(&choice, point);
            at.example = self.compiler.experiment.example();
            at.sample = sample;
            let of_sample = if self.by_sample { number - self.first_sample } else { 0 };
            let runs = start..plan.runs.len();
            plan.cells.push(Cell { runs, reads, baseline: self.baseline + of_sample, at });
        }
        Ok(())
    }

    /// The swept edits of a cell, of runs as they stand without them, which are all in the plan.
    fn moves(&mut self, plan: &mut Plan, choice: &Selection, sample: Option<usize>) -> Result<Moves> {
        let mut moves = Moves::new();
        for edit in &self.edits {
            let expanded = self.compiler.expanded[edit.0].clone();
            let mut fixed = |run: RunId| {
                self.compiler.version(plan, run, RunVersion::Fixed, &Selection::default(), sample)
            };
            let (run, source) = (fixed(expanded.run)?, expanded.source().map(fixed).transpose()?);
            let edits = expanded.edits(choice, sample.unwrap_or(0), source).into_iter();
            moves.extend(edits.map(|edit| (run, edit)));
        }
        Ok(moves)
    }

    fn read(&mut self, plan: &mut Plan, run: usize) -> Result<Vec<Read>> {
        let mut reads = vec![self.compiler.logits(self.read_run, run, self.single.clone())];
        reads.extend(self.compiler.answer_reads(plan, run)?);
        Ok(reads)
    }
}
