//! From an experiment to its plan: which runs there are, in which order, and what each cell edits.

use crate::experiment::{EditId, Experiment, LayerAxis, RunId, Sweep};
use crate::metric::Metric;
use crate::op::OpKind;
use crate::plan::{Baselines, Cell, Coordinates, Plan, Read, Run};
use crate::resolve::{Choice, Expanded};
use crate::{Error, Result};
use causalcone_model::Site;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// More cells than this are a mistake: refused with their number before any work.
const MAX_CELLS: u128 = 4_000_000;

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

        let original = compiler.version(read_run, Version::Original, &[])?;
        let fixed = compiler.version(read_run, Version::Fixed, &[])?;
        for run in 0..self.runs.len() {
            if !compiler.reached[run] {
                compiler.version(RunId(run), Version::Fixed, &[])?;
            }
        }
        compiler.plan.shared = compiler.plan.runs.len();
        compiler.plan.baselines = Baselines {
            original: Cell { reads: read(original), ..Cell::default() },
            fixed: (fixed != original).then(|| Cell { reads: read(fixed), ..Cell::default() }),
        };
        for (choices, at, expanded) in self.cells(sweep, &edits, &compiler.expanded)? {
            let start = compiler.plan.runs.len();
            compiler.made.retain(|(_, version), _| *version != Version::Edited);
            for (edit, expanded) in edits.iter().zip(expanded) {
                compiler.expanded[edit.0] = expanded;
            }
            let run = compiler.version(read_run, Version::Edited, &choices)?;
            let runs = start..compiler.plan.runs.len();
            compiler.plan.cells.push(Cell { runs, reads: read(run), at });
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
                let run = compiler.version(RunId(index), version, &[])?;
                reads.push(Read::Logits { run, position: spec.ids.len() - 1, tokens: None });
            }
            cells.push(Cell { reads, ..Cell::default() });
        }
        let mut reads = Vec::new();
        for edit in self.collects() {
            let expanded = compiler.expanded[edit.0].clone();
            let run = compiler.version(expanded.run, Version::Fixed, &[])?;
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
        let position = self.runs[read_run.0].ids.len() - 1;
        let read = |run: usize| vec![Read::Logits { run, position, tokens: None }];
        let original = compiler.version(read_run, Version::Original, &[])?;
        let edited = compiler.version(read_run, Version::Fixed, &[])?;
        compiler.plan.shared = compiler.plan.runs.len();
        compiler.plan.baselines.original = Cell { reads: read(original), ..Cell::default() };
        compiler.plan.cells = vec![Cell { reads: read(edited), ..Cell::default() }];
        Ok(compiler.plan)
    }

    /// The swept edits: those named, or the first.
    fn swept(&self, sweep: &Sweep) -> Result<Vec<EditId>> {
        if self.edits.is_empty() {
            return Err(Error::part("sweep", "there is no edit to sweep"));
        }
        let edits = if sweep.edits.is_empty() { vec![EditId(0)] } else { sweep.edits.clone() };
        let distinct: BTreeSet<_> = edits.iter().collect();
        if distinct.len() != edits.len() {
            return Err(Error::part("sweep", "names an edit twice"));
        }
        Ok(edits)
    }

    /// Every cell: what each swept edit takes of its lists, where the cell stands, and the edits at
    /// the cell's site.
    #[allow(clippy::type_complexity, reason = "used in one place, where the parts are named")]
    fn cells(
        &self,
        sweep: &Sweep,
        edits: &[EditId],
        expanded: &[Expanded],
    ) -> Result<Vec<(Vec<Option<Choice>>, Coordinates, Vec<Expanded>)>> {
        let at_sites: Vec<Vec<Expanded>> = if sweep.sites.is_empty() {
            vec![edits.iter().map(|edit| expanded[edit.0].clone()).collect()]
        } else {
            let at =
                |site: &Site| edits.iter().map(|edit| self.expand(*edit, Some(*site))).collect::<Result<_>>();
            sweep.sites.iter().map(at).collect::<Result<_>>()?
        };
        let mut planned = 0u128;
        let mut cells = Vec::new();
        for moving in at_sites {
            let layers = layer_choices(sweep.layers, &moving)?;
            let heads =
                choices("heads", sweep.heads, &moving, |edit| edit.heads.as_ref().map_or(0, Vec::len))?;
            let positions = choices("positions", sweep.positions, &moving, |edit| edit.positions.len())?;
            let scales: Vec<Option<f64>> = match sweep.scales.as_slice() {
                [] => vec![None],
                scales => scales.iter().map(|scale| Some(*scale)).collect(),
            };
            self.check_scales(&scales, &moving)?;
            planned += [layers.len(), heads.len(), positions.len(), scales.len()]
                .iter()
                .map(|n| *n as u128)
                .product::<u128>();
            if planned > MAX_CELLS {
                let problem =
                    format!("has {planned} cells or more, which is past the {MAX_CELLS} one sweep may have");
                return Err(Error::hinted(
                    "sweep",
                    problem,
                    Some("sweep fewer layers, positions, heads or scales".into()),
                ));
            }
            for layers in &layers {
                for &head in &heads {
                    for &position in &positions {
                        for &scale in &scales {
                            let choice = Choice { layers: layers.clone(), position, head, scale };
                            let at = coordinates(sweep, &moving, &choice);
                            let mut of_edits = vec![None; self.edits.len()];
                            for edit in edits {
                                of_edits[edit.0] = Some(choice.clone());
                            }
                            cells.push((of_edits, at, moving.clone()));
                        }
                    }
                }
            }
        }
        Ok(cells)
    }

    fn check_scales(&self, scales: &[Option<f64>], moving: &[Expanded]) -> Result<()> {
        for scale in scales.iter().flatten() {
            if !scale.is_finite() {
                return Err(Error::part("sweep", format!("scale {scale} is not a finite number")));
            }
            if moving.iter().all(|edit| edit.scale(&Choice::default()).is_none()) {
                return Err(Error::part("sweep", "scales need an op with a scale: add, subtract or scale"));
            }
        }
        Ok(())
    }
}

/// The metrics of a sweep, probabilities unless others are named.
pub(crate) fn metrics(sweep: &Sweep) -> Vec<Metric> {
    if sweep.metrics.is_empty() { vec![Metric::Prob] } else { sweep.metrics.clone() }
}

/// The layers of each cell, as a stretch of the edits' lists.
fn layer_choices(
    axis: Option<LayerAxis>,
    moving: &[Expanded],
) -> Result<Vec<Option<std::ops::Range<usize>>>> {
    let Some(axis) = axis else { return Ok(vec![None]) };
    if let Some(edit) = moving.iter().find(|edit| !edit.site.is_in_block()) {
        return Err(Error::part("sweep", format!("{} has no layers to sweep", edit.site.name())));
    }
    let n = common("layers", moving, |edit| edit.layers.len())?;
    Ok(match axis {
        LayerAxis::Each => (0..n).map(|i| Some(i..i + 1)).collect(),
        LayerAxis::Cumulative => (0..n).map(|i| Some(0..i + 1)).collect(),
        LayerAxis::Window(width) if (1..=n).contains(&width) => {
            (0..=n - width).map(|i| Some(i..i + width)).collect()
        }
        LayerAxis::Window(width) => {
            return Err(Error::part(
                "sweep",
                format!("a window of {width} layers does not fit the {n} the edit lists"),
            ));
        }
    })
}

/// An axis over positions or heads: each in turn, or all together.
fn choices(
    what: &str,
    each: bool,
    moving: &[Expanded],
    len: impl Fn(&Expanded) -> usize,
) -> Result<Vec<Option<usize>>> {
    if !each {
        return Ok(vec![None]);
    }
    match common(what, moving, len)? {
        0 => Err(Error::part(
            "sweep",
            format!("{what} = \"each\" needs an edit that lists {what}, such as {what} = \"all\""),
        )),
        n => Ok((0..n).map(Some).collect()),
    }
}

/// The length all moving edits' lists have.
fn common(what: &str, moving: &[Expanded], len: impl Fn(&Expanded) -> usize) -> Result<usize> {
    let lens: Vec<usize> = moving.iter().map(len).collect();
    match lens.iter().all(|n| *n == lens[0]) {
        true => Ok(lens[0]),
        false => Err(Error::part(
            "sweep",
            format!("edits that move together must list as many {what}; these list {lens:?}"),
        )),
    }
}

/// Where a cell stands: a column holds a value only if it is the same for all that is edited.
fn coordinates(sweep: &Sweep, moving: &[Expanded], choice: &Choice) -> Coordinates {
    fn one<T: PartialEq + Copy>(values: impl IntoIterator<Item = T>) -> Option<T> {
        let mut values = values.into_iter();
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    }
    let layers_of = |edit: &Expanded| -> Vec<usize> {
        let chosen = choice.layers.clone().unwrap_or(0..edit.layers.len());
        edit.layers[chosen].iter().filter_map(|(layer, _)| *layer).collect()
    };
    let all = |list: &[usize], chosen: Option<usize>| match chosen {
        Some(i) => vec![list[i]],
        None => list.to_vec(),
    };
    let layer = match sweep.layers {
        Some(LayerAxis::Cumulative) => one(moving.iter().filter_map(|edit| layers_of(edit).last().copied())),
        _ => one(moving.iter().flat_map(layers_of)),
    };
    Coordinates {
        site: one(moving.iter().map(|edit| edit.site)),
        layer,
        layers: moving.first().map(layers_of).unwrap_or_default(),
        head: one(moving
            .iter()
            .flat_map(|edit| edit.heads.as_ref().map_or(Vec::new(), |heads| all(heads, choice.head)))),
        position: one(moving.iter().flat_map(|edit| all(&edit.positions, choice.position))),
        scale: one(moving.iter().filter_map(|edit| edit.scale(choice))),
    }
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
    fn version(&mut self, run: RunId, version: Version, choices: &[Option<Choice>]) -> Result<usize> {
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
            let source = source.map(|source| self.version(source, version, choices)).transpose()?;
            let choice = choices.get(index).cloned().flatten().unwrap_or_default();
            edits.extend(self.expanded[index].edits(&choice, source)?);
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
    for _ in 0..settled.len() {
        for run in 0..settled.len() {
            settled[run] = expanded
                .iter()
                .filter(|edit| edit.run.0 == run)
                .all(|edit| edit.source().is_none_or(|source| settled[source.0]));
        }
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
