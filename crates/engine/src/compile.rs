//! From an experiment to its plan: which runs there are, in which order, and what each cell edits.

use crate::experiment::{EditId, Experiment, RunId, Sweep};
use crate::metric::Metric;
use crate::op::OpKind;
use crate::plan::{Baselines, Cell, Plan, Read, Run};
use crate::resolve::{Choice, Expanded};
use crate::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Which edits a version of a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    /// None.
    Original,
    /// All but the swept ones.
    Fixed,
    /// All, the swept ones as the cell has them.
    Edited,
}

/// Adds runs to a plan, each version of a run once.
struct Compiler<'a> {
    experiment: &'a Experiment<'a>,
    expanded: Vec<Expanded>,
    /// By edit: whether it is swept.
    swept: Vec<bool>,
    /// By run: whether a swept edit reaches it.
    reached: Vec<bool>,
    plan: Plan,
    made: HashMap<(RunId, Version), usize>,
}

impl Experiment<'_> {
    /// Compiles the experiment with its sweep.
    ///
    /// # Errors
    /// When the experiment has no sweep or contradicts itself: everything that can be wrong is
    /// found here, before any work.
    pub fn plan(&self) -> Result<Plan> {
        let sweep = self.sweep.as_ref().ok_or_else(|| {
            Error::hinted(
                "sweep",
                "this experiment has no [sweep]",
                Some("a single experiment is for `run`".into()),
            )
        })?;
        if let Some(edit) = self.collects().next() {
            return Err(Error::part(
                self.edit_name(edit),
                "collect reads activations, which a sweep has no place for",
            ));
        }
        let edits = self.swept(sweep)?;
        let metrics = metrics(sweep);
        let read_run = self.reading_run()?;
        let mut compiler = Compiler::new(self, &edits)?;
        if !compiler.reached[read_run.0] {
            let problem =
                format!("the swept edit cannot change run \"{}\", which is read", self.runs[read_run.0].name);
            return Err(Error::part("sweep", problem));
        }
        self.check_reach(&compiler.expanded)?;
        for metric in &metrics {
            if self.tokens.len() < metric.needs_tokens() {
                let (name, needs, has) = (metric.name(), metric.needs_tokens(), self.tokens.len());
                return Err(Error::part(
                    "sweep",
                    format!("metric \"{name}\" needs at least {needs} tokens, and [read] has {has}"),
                ));
            }
        }
        // Logits of single tokens need only their own rows of the unembedding.
        let single = metrics.iter().all(|m| matches!(m, Metric::Logit | Metric::LogitDiff));
        let tokens: Option<Arc<[u32]>> = single.then(|| self.tokens.clone().into());
        let position = self.runs[read_run.0].ids.len() - 1;
        let read = |run: usize| vec![Read::Logits { run, position, tokens: tokens.clone() }];

        let original = compiler.version(read_run, Version::Original, &Choice::default())?;
        let fixed = compiler.version(read_run, Version::Fixed, &Choice::default())?;
        for run in 0..self.runs.len() {
            if !compiler.reached[run] {
                compiler.version(RunId(run), Version::Fixed, &Choice::default())?;
            }
        }
        let has_others = compiler.swept.contains(&false);
        compiler.plan.shared = compiler.plan.runs.len();
        compiler.plan.baselines = vec![Baselines {
            original: Cell { reads: read(original), ..Cell::default() },
            fixed: has_others.then(|| Cell { reads: read(fixed), ..Cell::default() }),
        }];
        let sites = self.axes(sweep, &edits, &compiler.expanded)?;
        for axes in &sites {
            for (edit, expanded) in edits.iter().zip(&axes.moving) {
                compiler.expanded[edit.0] = expanded.clone();
            }
            for choice in axes.choices() {
                let start = compiler.plan.runs.len();
                compiler.made.retain(|(_, version), _| *version != Version::Edited);
                let run = compiler.version(read_run, Version::Edited, &choice)?;
                let runs = start..compiler.plan.runs.len();
                let at = axes.coordinates(&choice);
                compiler.plan.cells.push(Cell { runs, reads: read(run), baseline: 0, at });
            }
        }
        Ok(compiler.plan)
    }

    /// Compiles one pass: a cell that reads every run without edits, one that reads every run with
    /// them, and one for what `collect` edits read.
    pub(crate) fn plan_once(&self) -> Result<Plan> {
        let mut compiler = Compiler::new(self, &[])?;
        let mut cells = Vec::new();
        for version in [Version::Original, Version::Fixed] {
            let mut reads = Vec::new();
            for (index, spec) in self.runs.iter().enumerate() {
                let run = compiler.version(RunId(index), version, &Choice::default())?;
                reads.push(Read::Logits { run, position: spec.ids.len() - 1, tokens: None });
            }
            cells.push(Cell { reads, ..Cell::default() });
        }
        let mut reads = Vec::new();
        for edit in self.collects() {
            let expanded = compiler.expanded[edit.0].clone();
            let run = compiler.version(expanded.run, Version::Fixed, &Choice::default())?;
            reads.extend(expanded.places().into_iter().map(|place| Read::Activation { run, place }));
        }
        cells.push(Cell { reads, ..Cell::default() });
        compiler.plan.shared = compiler.plan.runs.len();
        compiler.plan.cells = cells;
        Ok(compiler.plan)
    }

    /// The plan of `run`: one cell, the read run with all edits, beside its baseline without any.
    ///
    /// # Errors
    /// When the experiment contradicts itself.
    pub fn plan_single(&self) -> Result<Plan> {
        let mut compiler = Compiler::new(self, &[])?;
        let read_run = self.reading_run()?;
        self.check_reach(&compiler.expanded)?;
        let position = self.runs[read_run.0].ids.len() - 1;
        let read = |run: usize| vec![Read::Logits { run, position, tokens: None }];
        let original = compiler.version(read_run, Version::Original, &Choice::default())?;
        let edited = compiler.version(read_run, Version::Fixed, &Choice::default())?;
        compiler.plan.shared = compiler.plan.runs.len();
        let original = Cell { reads: read(original), ..Cell::default() };
        compiler.plan.baselines = vec![Baselines { original, fixed: None }];
        compiler.plan.cells = vec![Cell { reads: read(edited), ..Cell::default() }];
        Ok(compiler.plan)
    }

    /// Checks that every edit can change something that is read: an answer, or what is collected.
    fn check_reach(&self, expanded: &[Expanded]) -> Result<()> {
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

    /// The swept edits: those named, or the first.
    fn swept(&self, sweep: &Sweep) -> Result<Vec<EditId>> {
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

/// The metrics of a sweep, probabilities unless others are named.
pub(crate) fn metrics(sweep: &Sweep) -> Vec<Metric> {
    if sweep.metrics.is_empty() { vec![Metric::Prob] } else { sweep.metrics.clone() }
}

impl<'a> Compiler<'a> {
    fn new(experiment: &'a Experiment<'a>, swept_edits: &[EditId]) -> Result<Self> {
        let expanded: Vec<Expanded> =
            (0..experiment.edits.len()).map(|i| experiment.expand(EditId(i), None)).collect::<Result<_>>()?;
        let mut swept = vec![false; expanded.len()];
        for edit in swept_edits {
            swept[edit.0] = true;
        }
        check_acyclic(experiment, &expanded)?;
        // A run is reached if a swept edit changes it, or it takes a value from a reached run.
        let mut reached = vec![false; experiment.runs.len()];
        loop {
            let before = reached.clone();
            for (edit, is_swept) in expanded.iter().zip(&swept) {
                reached[edit.run.0] |= *is_swept || edit.source().is_some_and(|source| before[source.0]);
            }
            if reached == before {
                break;
            }
        }
        Ok(Self { experiment, expanded, swept, reached, plan: Plan::default(), made: HashMap::new() })
    }

    /// The plan's number of a version of a run; adds it, after the runs it takes from, if it is new.
    fn version(&mut self, run: RunId, version: Version, choice: &Choice) -> Result<usize> {
        let version = self.simplest(run, version);
        if let Some(made) = self.made.get(&(run, version)) {
            return Ok(*made);
        }
        let mut edits = Vec::new();
        for index in 0..self.expanded.len() {
            if self.expanded[index].run != run || !self.applies(index, version) {
                continue;
            }
            let source = self.expanded[index].source();
            let source = source.map(|source| self.version(source, version, choice)).transpose()?;
            let chosen = if self.swept[index] { choice } else { &Choice::default() };
            edits.extend(self.expanded[index].edits(chosen, source)?);
        }
        let spec = &self.experiment.runs[run.0];
        self.plan.runs.push(Run { name: spec.name.clone(), ids: spec.ids.clone(), edits });
        self.made.insert((run, version), self.plan.runs.len() - 1);
        Ok(self.plan.runs.len() - 1)
    }

    /// The version with the fewest edits that is the same run.
    fn simplest(&self, run: RunId, version: Version) -> Version {
        let version =
            if version == Version::Edited && !self.reached[run.0] { Version::Fixed } else { version };
        let is_edited =
            (0..self.expanded.len()).any(|i| self.expanded[i].run == run && self.applies(i, version));
        if is_edited { version } else { Version::Original }
    }

    fn applies(&self, edit: usize, version: Version) -> bool {
        let changes = self.experiment.edits[edit].op.kind != OpKind::Collect;
        changes && (version == Version::Edited || version == Version::Fixed && !self.swept[edit])
    }
}

/// Values must not go round in circles.
fn check_acyclic(experiment: &Experiment<'_>, expanded: &[Expanded]) -> Result<()> {
    let mut settled = vec![false; experiment.runs.len()];
    loop {
        // A run is settled once every run it takes from is.
        let mut waits = vec![false; settled.len()];
        for edit in expanded {
            waits[edit.run.0] |= edit.source().is_some_and(|source| !settled[source.0]);
        }
        let next: Vec<bool> = waits.into_iter().map(|waits| !waits).collect();
        if next == settled {
            break;
        }
        settled = next;
    }
    let stuck: Vec<&str> =
        experiment.runs.iter().zip(&settled).filter(|(_, ok)| !**ok).map(|(run, _)| &*run.name).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "the runs {} take values from each other in a circle, so none of them can be run first",
        stuck.join(", ")
    );
    Err(Error::part("edits", problem))
}
