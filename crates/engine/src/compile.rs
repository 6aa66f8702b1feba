//! From an experiment to its plan: which runs there are, in which order, and what each cell edits.

use crate::attribution::{Method, Moves, whole};
use crate::axes::{Axes, check_size};
use crate::experiment::{EditId, Experiment, RunId, Sweep};
use crate::metric::Metric;
use crate::plan::{Baselines, Cell, Place, Plan, Read};
use crate::resolve::{Choice, Expanded};
use crate::spaces::Spaced;
use crate::versions::{Compiler, Version};
use crate::{Error, Result};
use causalcone_model::Site;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The sweep of one example, checked.
struct Swept<'a> {
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
    /// The plan's number of its first baseline, and whether there is one for each sample.
    baseline: usize,
    by_sample: bool,
    methods: Vec<Method>,
}

/// A sweep's plan, and what it is about.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    /// By baseline.
    pub(crate) bases: Vec<Basis>,
    /// By cell, where there are estimates.
    pub(crate) moves: Vec<Moves>,
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
        Ok(self.plan_sweep()?.plan)
    }

    /// The plan, and what it is about.
    pub(crate) fn plan_sweep(&self) -> Result<Compiled> {
        let instances = self.instances()?;
        let mut examples = Vec::with_capacity(instances.len());
        for instance in &instances {
            examples.push(Swept::new(instance).map_err(|e| instance.blame(e))?);
        }
        check_size(examples.iter().map(Swept::cells).sum(), examples.iter().map(Swept::noise).sum())?;
        let (mut plan, mut bases, mut moves) = (Plan::default(), Vec::new(), Vec::new());
        for example in &mut examples {
            example.baselines(&mut plan)?;
            bases.resize(plan.baselines.len(), example.basis());
        }
        plan.shared = plan.runs.len();
        for example in examples {
            example.compile(&mut plan, &mut moves)?;
        }
        Ok(Compiled { plan, bases, moves })
    }

    /// Checks one example's experiment, or its sweep if it has one, without compiling it.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.sweep {
            Some(_) => {
                let swept = Swept::new(self)?;
                check_size(swept.cells(), swept.noise())
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
        Self::plan_runs(&self.instances()?, |one| {
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
        let in_blocks = [
            Site::BlockInput,
            Site::AttentionValueOutput,
            Site::AttentionOutput,
            Site::BlockMiddle,
            Site::MlpOutput,
            Site::BlockOutput,
        ];
        let config = self.model.config();
        let in_blocks = in_blocks.into_iter().filter(|site| config.lacks(*site).is_none());
        let layers = 0..config.layers;
        let of_layer = |layer| in_blocks.clone().map(move |site| (site, Some(layer)));
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
                let place = whole(&plan, (made, *site, *layer));
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
        let baseline = 0;
        Ok(Self {
            compiler,
            edits,
            axes,
            samples,
            read_run,
            single,
            label,
            spaced,
            baseline,
            by_sample,
            methods,
        })
    }

    fn cells(&self) -> u128 {
        self.axes.iter().map(Axes::count).sum::<u128>() * self.samples.unwrap_or(1) as u128
    }

    /// How many numbers of noise its samples take.
    fn noise(&self) -> u128 {
        let all = self.compiler.expanded.iter().zip(&self.compiler.swept);
        let fixed: u128 = all.filter(|(_, swept)| !**swept).map(|(edit, _)| edit.noise() as u128).sum();
        let swept: u128 = self.axes.iter().map(Axes::noise).sum();
        (fixed + swept) * self.samples.unwrap_or(1) as u128
    }

    fn basis(&self) -> Basis {
        let experiment = self.compiler.experiment;
        let edited = experiment.edits[self.edits[0].0].run;
        let prompt = experiment.runs[edited.0].ids.clone();
        let (tokens, answers) = (experiment.tokens.clone().into(), experiment.answers.clone().into());
        let (example, spaced) = (experiment.example(), self.spaced.clone());
        Basis { prompt, tokens, answers, label: self.label, example, spaced }
    }

    fn each_sample(samples: Option<usize>) -> impl Iterator<Item = Option<usize>> {
        (0..samples.unwrap_or(1)).map(move |sample| samples.map(|_| sample))
    }

    /// Adds the runs that its cells share, and the baselines: one, or one a sample.
    fn baselines(&mut self, plan: &mut Plan) -> Result<()> {
        self.baseline = plan.baselines.len();
        let all = Choice::default();
        let runs = self.compiler.experiment.runs.len();
        let original = self.compiler.version(plan, self.read_run, Version::Original, &all, None)?;
        for sample in Self::each_sample(self.samples) {
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

    /// Adds its cells, sample by sample, and what moves in each where that is estimated. Cells that are only
    /// estimated run nothing.
    fn compile(mut self, plan: &mut Plan, moves: &mut Vec<Moves>) -> Result<()> {
        let axes = std::mem::take(&mut self.axes);
        let is_exact = self.methods.contains(&Method::Exact);
        let is_estimated = self.methods.iter().any(|method| *method != Method::Exact);
        for sample in Self::each_sample(self.samples) {
            for (site, axes) in axes.iter().enumerate() {
                for (edit, expanded) in self.edits.iter().zip(&axes.moving) {
                    self.compiler.expanded[edit.0] = expanded.clone();
                }
                for (choice, point) in axes.choices(site) {
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
                    let mut at = axes.coordinates(&choice, point);
                    at.example = self.compiler.experiment.example();
                    at.sample = sample;
                    let baseline = self.baseline + sample.filter(|_| self.by_sample).unwrap_or(0);
                    let runs = start..plan.runs.len();
                    plan.cells.push(Cell { runs, reads, baseline, at });
                }
            }
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
