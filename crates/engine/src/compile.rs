//! From an experiment to its plan: which runs there are, in which order, and what each cell edits.

use crate::axes::{Axes, check_size};
use crate::experiment::{Experiment, Sweep};
use crate::ids::{EditId, RunId};
use crate::method::Method;
use crate::metric::Metric;
use crate::plan::Moves;
use crate::plan::{Baselines, Cell, Place, Plan, Read};
use crate::resolve::{Choice, Expanded};
use crate::spaces::Spaced;
use crate::versions::{Compiler, Version};
use crate::{Error, Result};
use causalcone_model::Site;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// The sweep of one example, checked.
pub(crate) struct Swept<'a> {
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

/// The plan of some of a sweep's cells, and what they are about.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    /// By baseline.
    pub(crate) bases: Vec<Basis>,
    /// By cell, where there are estimates.
    pub(crate) moves: Vec<Moves>,
}

/// How the cells of a sweep are numbered: example by example, then sample by sample.
#[derive(Debug)]
pub(crate) struct Survey {
    /// By example the number of its first cell; then the number of all cells.
    starts: Vec<usize>,
    /// By example, how many cells a sample has.
    of_sample: Vec<usize>,
    /// How many tokens and answers each example reads: all as many as the first.
    pub(crate) reads: (usize, usize),
    /// The most examples that are run together, where metrics compare each cell with the whole distribution of its
    /// original.
    most_originals: Option<usize>,
}

/// The most bytes of originals that are held for that, beyond the first.
const ORIGINALS_BYTES: usize = 16 << 20;

/// Cells that are planned and run together. What a plan and an executor hold for a cell is a few kilobytes.
const TOGETHER: usize = 4096;

impl Survey {
    /// Counts the cells of a sweep, and checks all that can be wrong with it. Nothing is kept of the examples.
    pub(crate) fn new(experiment: &Experiment<'_>) -> Result<Self> {
        experiment.check_size()?;
        let metrics = experiment.sweep.as_deref().map(metrics).unwrap_or_default();
        let of_originals = ORIGINALS_BYTES / (experiment.model().config().vocab * size_of::<f32>()).max(1);
        let most_originals =
            metrics.iter().any(|metric| metric.needs_original()).then_some(of_originals.max(1));
        let mut survey = Self { starts: vec![0], of_sample: Vec::new(), reads: (0, 0), most_originals };
        let mut cells = 0;
        for instance in experiment.by_example() {
            let instance = instance?;
            let mut swept = Swept::new(&instance).map_err(|e| instance.blame(e))?;
            cells += swept.cells();
            let end = check_size(cells)?;
            // What can only be found by compiling is the same in all cells.
            swept.baselines(&mut Plan::default(), &(0..1)).map_err(|e| instance.blame(e))?;
            survey.of_sample.push(swept.cells_of_sample() as usize);
            survey.starts.push(end);
            survey.reads = (instance.tokens.len(), instance.answers.len());
        }
        Ok(survey)
    }

    /// How many there are.
    pub(crate) fn cells(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The example that a cell is of.
    fn example(&self, cell: usize) -> usize {
        self.starts.partition_point(|start| *start <= cell).saturating_sub(1)
    }

    /// Whether metrics compare each cell with the whole distribution of its original.
    pub(crate) fn keeps_originals(&self) -> bool {
        self.most_originals.is_some()
    }

    /// How many originals are held at most, where metrics compare with them.
    pub(crate) fn originals(&self) -> usize {
        self.most_originals.map_or(0, |most| most.min(self.of_sample.len()))
    }

    /// The examples that some cells are of.
    fn examples(&self, cells: &Range<usize>) -> Range<usize> {
        if cells.is_empty() { 0..0 } else { self.example(cells.start)..self.example(cells.end - 1) + 1 }
    }

    /// All cells, in stretches that are run one after the other: several small examples, or a part of a large one, of
    /// whole samples where these fit.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = self.end(start);
            let stretch = start..end;
            start = end;
            (!stretch.is_empty()).then_some(stretch)
        })
    }

    fn end(&self, start: usize) -> usize {
        if start >= self.cells() {
            return start;
        }
        let example = self.example(start);
        let own = self.starts[example + 1];
        if own - self.starts[example] <= TOGETHER {
            // As many examples as fit, of which none is large.
            let last = self.starts.partition_point(|end| *end <= start + TOGETHER) - 1;
            let most = self.most_originals.map_or(last, |most| last.min(example + most));
            return self.starts[most].max(own);
        }
        let of_sample = self.of_sample[example];
        let end = match TOGETHER / of_sample {
            // A part of one sample.
            0 => {
                let sample = (start - self.starts[example]) / of_sample;
                (start + TOGETHER).min(self.starts[example] + (sample + 1) * of_sample)
            }
            samples => start + samples * of_sample,
        };
        end.min(own)
    }

    /// What stretches have in common that differ by the samples alone: these have the same plan but for the noise.
    pub(crate) fn kind(&self, stretch: &Range<usize>) -> Option<(usize, usize)> {
        let example = self.example(stretch.start);
        let is_of_samples = stretch.end <= self.starts[example + 1]
            && (stretch.start - self.starts[example]).is_multiple_of(self.of_sample[example])
            && stretch.len().is_multiple_of(self.of_sample[example]);
        is_of_samples.then_some((example, stretch.len()))
    }
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

/// The plan of a lens.
pub(crate) struct LensPlan {
    pub(crate) plan: Plan,
    /// By cell, the run it reads.
    pub(crate) versions: Vec<usize>,
    /// What each cell reads behind the answer, whole, the logits excepted, of which it is the last row.
    pub(crate) sites: Vec<(Site, Option<usize>)>,
}

impl Experiment<'_> {
    /// Compiles the experiment with its sweep.
    ///
    /// # Errors
    /// When the experiment has no sweep or contradicts itself: everything that can be wrong is
    /// found here, before any work.
    pub fn plan(&self) -> Result<Plan> {
        let survey = Survey::new(self)?;
        Ok(self.plan_cells(&survey, 0..survey.cells())?.plan)
    }

    /// The plan of some of the sweep's cells, which are numbered example by example, sample by sample; and what they
    /// are about. It is a whole plan, with the baselines of these cells.
    pub(crate) fn plan_cells(&self, survey: &Survey, cells: Range<usize>) -> Result<Compiled> {
        let examples = survey.examples(&cells);
        let instances: Vec<Self> = self.by_example_in(examples.clone()).collect::<Result<_>>()?;
        let mut swept = Vec::with_capacity(instances.len());
        for (example, instance) in examples.zip(&instances) {
            let start = survey.starts[example];
            let own = cells.start.max(start) - start..cells.end.min(survey.starts[example + 1]) - start;
            swept.push((Swept::new(instance).map_err(|e| instance.blame(e))?, own));
        }
        let (mut plan, mut bases, mut moves) = (Plan::default(), Vec::new(), Vec::new());
        for (example, cells) in &mut swept {
            example.baselines(&mut plan, cells)?;
            bases.resize(plan.baselines.len(), example.basis());
        }
        plan.shared = plan.runs.len();
        for (example, cells) in swept {
            example.compile(&mut plan, &mut moves, cells)?;
        }
        Ok(Compiled { plan, bases, moves })
    }

    /// Checks one example's experiment, or its sweep if it has one, without compiling it.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.sweep {
            Some(_) => {
                check_size(Swept::new(self)?.cells())?;
                Ok(())
            }
            None => {
                self.reading_run()?;
                self.check_reach(&Compiler::new(self, &[])?.expanded)
            }
        }
    }

    /// The plan of `run`: a cell for each example, the read run with all edits and what they
    /// collect, beside a baseline without any.
    ///
    /// # Errors
    /// When the experiment contradicts itself.
    pub fn plan_single(&self) -> Result<Plan> {
        Self::plan_single_of(&self.instances()?)
    }

    /// The same of some examples' experiments.
    pub(crate) fn plan_single_of(instances: &[Self]) -> Result<Plan> {
        Self::plan_runs(instances, |one| {
            let read_run = one.experiment.reading_run()?;
            one.experiment.check_reach(&one.expanded)?;
            Ok(vec![read_run])
        })
    }

    /// The same reading every run, in order.
    pub(crate) fn plan_all_runs(&self) -> Result<Plan> {
        Self::plan_runs(&self.instances()?, |one| Ok((0..one.experiment.runs.len()).map(RunId).collect()))
    }

    /// The plan of what the `collect` edits of some examples read, and of nothing else.
    pub(crate) fn plan_collects(instances: &[Self]) -> Result<Plan> {
        Self::plan_runs(instances, |_| Ok(Vec::new()))
    }

    /// The plan of a lens: a cell for the read run without edits, and one for it with them if there are any.
    pub(crate) fn plan_lens(&self) -> Result<LensPlan> {
        let mut compiler = Compiler::new(self, &[])?;
        self.check_reach(&compiler.expanded)?;
        let run = self.reading_run()?;
        let config = self.model.config();
        let in_blocks: Vec<Site> = config.block.stream();
        let layers = 0..config.layers;
        let of_layer = |layer| in_blocks.iter().map(move |site| (*site, Some(layer)));
        let mut sites: Vec<_> =
            [(Site::Embedding, None)].into_iter().chain(layers.flat_map(of_layer)).collect();
        sites.push((Site::Logits, None));
        let (mut plan, mut versions) = (Plan::default(), Vec::new());
        for version in [Version::Original, Version::Fixed] {
            let made = compiler.version(&mut plan, run, version, &Choice::default(), None)?;
            if versions.contains(&made) {
                continue;
            }
            let last = plan.runs[made].ids.len() - 1;
            let read = |(site, layer): &(Site, Option<usize>)| {
                let place = plan.whole((made, *site, *layer));
                // Of the logits the last row alone.
                let positions = if *site == Site::Logits { [last].into() } else { place.positions };
                Read::Activation { run: made, place: Place { positions, ..place } }
            };
            let reads =
                [compiler.logits(run, made, None)].into_iter().chain(sites.iter().map(read)).collect();
            plan.cells.push(Cell { reads, ..Cell::default() });
            versions.push(made);
        }
        plan.shared = plan.runs.len();
        Ok(LensPlan { plan, versions, sites })
    }

    fn plan_runs(instances: &[Self], read: impl Fn(&Compiler<'_>) -> Result<Vec<RunId>>) -> Result<Plan> {
        let mut plan = Plan::default();
        for (baseline, instance) in instances.iter().enumerate() {
            let mut compiler = Compiler::new(instance, &[]).map_err(|e| instance.blame(e))?;
            let runs = read(&compiler).map_err(|e| instance.blame(e))?;
            let mut cell = |version: Version| -> Result<Cell> {
                let mut reads = Vec::new();
                for run in &runs {
                    let made = compiler.version(&mut plan, *run, version, &Choice::default(), None)?;
                    reads.push(compiler.logits(*run, made, None));
                }
                let collects = instance.collects().filter(|_| version == Version::Fixed);
                for edit in collects {
                    let expanded = compiler.expanded[edit.0].clone();
                    let made =
                        compiler.version(&mut plan, expanded.run, version, &Choice::default(), None)?;
                    let places = expanded.places().into_iter();
                    match instance.edits[edit.0].op.gradient {
                        None => reads.extend(places.map(|place| Read::Activation { run: made, place })),
                        Some(metric) => {
                            let of = |place| compiler.gradient(&mut plan, edit, metric, (made, place));
                            reads.extend(places.map(of).collect::<Result<Vec<_>>>()?);
                        }
                    }
                }
                if let Some(run) = instance.answered_run()?.filter(|run| runs.contains(run)) {
                    let made = compiler.version(&mut plan, run, version, &Choice::default(), None)?;
                    reads.extend(compiler.answer_reads(&mut plan, made)?);
                }
                Ok(Cell { reads, baseline, ..Cell::default() })
            };
            let original = cell(Version::Original)?;
            let mut edited = cell(Version::Fixed)?;
            edited.at.example = instance.example();
            plan.baselines.push(Baselines { original, fixed: None });
            plan.cells.push(edited);
        }
        plan.shared = plan.runs.len();
        Ok(plan)
    }

    /// Checks that every edit can change something that is read: an answer, or what is collected.
    pub(crate) fn check_reach(&self, expanded: &[Expanded]) -> Result<()> {
        let mut matters = vec![false; self.runs.len()];
        matters[self.reading_run()?.0] = true;
        for edit in self.collects() {
            matters[expanded[edit.0].run.0] = true;
        }
        // What a run that matters takes its values from matters too.
        loop {
            let before = matters.clone();
            for edit in expanded.iter().filter(|edit| before[edit.run.0]) {
                if let Some(source) = edit.source() {
                    matters[source.0] = true;
                }
            }
            if matters == before {
                break;
            }
        }
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
    fn check_answers(&self, sweep: &Sweep, metrics: &[Metric]) -> Result<()> {
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
}

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

impl<'a> Swept<'a> {
    /// Checks all that can be wrong with the sweep of one example.
    fn new(experiment: &'a Experiment<'a>) -> Result<Self> {
        let sweep = experiment.sweep.as_ref().ok_or_else(|| {
            Error::hinted(
                "sweep",
                "this experiment has no [sweep]",
                Some("a single experiment is for `run`".into()),
            )
        })?;
        if let Some(edit) = experiment.collects().next() {
            return Err(Error::part(
                experiment.edit_name(edit),
                "collect reads activations, which a sweep has no place for",
            ));
        }
        let edits = experiment.swept(sweep)?;
        let metrics = metrics(sweep);
        let read_run = experiment.reading_run()?;
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
        experiment.check_methods(sweep, &metrics, &edits, &compiler.expanded, &moving)?;
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

    fn cells(&self) -> u128 {
        self.cells_of_sample() * self.samples.unwrap_or(1) as u128
    }

    fn cells_of_sample(&self) -> u128 {
        self.axes.iter().map(Axes::count).sum()
    }

    fn basis(&self) -> Basis {
        let experiment = self.compiler.experiment;
        let edited = experiment.edits[self.edits[0].0].run;
        let prompt = experiment.runs[edited.0].ids.clone();
        let (tokens, answers) = (experiment.tokens.clone().into(), experiment.answers.clone().into());
        let (example, spaced) = (experiment.example(), self.spaced.clone());
        Basis { prompt, tokens, answers, label: self.label, example, spaced }
    }

    /// Adds the runs that some of its cells share, and their baselines: one, or one a sample.
    fn baselines(&mut self, plan: &mut Plan, cells: &Range<usize>) -> Result<()> {
        self.baseline = plan.baselines.len();
        let all = Choice::default();
        let runs = self.compiler.experiment.runs.len();
        let of_sample = self.cells_of_sample() as usize;
        let samples = cells.start / of_sample..cells.end.div_ceil(of_sample);
        self.first_sample = samples.start;
        let original = self.compiler.version(plan, self.read_run, Version::Original, &all, None)?;
        for sample in samples {
            let sample = self.samples.map(|_| sample);
            let fixed = self.compiler.version(plan, self.read_run, Version::Fixed, &all, sample)?;
            for run in 0..runs {
                if !self.compiler.reached[run] {
                    self.compiler.version(plan, RunId(run), Version::Fixed, &all, sample)?;
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
    fn compile(mut self, plan: &mut Plan, moves: &mut Vec<Moves>, cells: Range<usize>) -> Result<()> {
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
            self.compiler.made.retain(|(_, version, _), _| *version != Version::Edited);
            let mut reads = Vec::new();
            if is_exact {
                let version = Version::Edited;
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
    fn moves(&mut self, plan: &mut Plan, choice: &Choice, sample: Option<usize>) -> Result<Moves> {
        let mut moves = Moves::new();
        for edit in &self.edits {
            let expanded = self.compiler.expanded[edit.0].clone();
            let mut fixed =
                |run: RunId| self.compiler.version(plan, run, Version::Fixed, &Choice::default(), sample);
            let (run, source) = (fixed(expanded.run)?, expanded.source().map(fixed).transpose()?);
            let edits = expanded.edits(choice, sample.unwrap_or(0), source)?;
            moves.extend(edits.into_iter().map(|edit| (run, edit)));
        }
        Ok(moves)
    }

    fn read(&mut self, plan: &mut Plan, run: usize) -> Result<Vec<Read>> {
        let mut reads = vec![self.compiler.logits(self.read_run, run, self.single.clone())];
        reads.extend(self.compiler.answer_reads(plan, run)?);
        Ok(reads)
    }
}
