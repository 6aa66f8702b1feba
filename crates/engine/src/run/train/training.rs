//! A training, checked, and one whose unedited rows are computed.

use super::examples::{HeldOut, parted};
use super::options::{Objective, Options};
use super::variables::Variables;
use crate::execute::{Runtime, Session};
use crate::experiment::Experiment;
use crate::experiment::sweep::Sweep;
use crate::ids::RunId;
use crate::plan::{AxisChoices, Cell, Coordinates, Plan};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// The bytes that the plan of a cell takes, as long as the fits go on.
const CELL_BYTES: u64 = 3000;

/// A training, compiled and checked.
#[derive(Debug)]
pub struct Training<'m> {
    /// With the examples that are trained on first, then those held out.
    pub(super) experiment: Experiment<'m>,
    pub(super) plan: Plan,
    /// What is trained, a choice of the axes each.
    pub(super) points: Vec<Candidate>,
    /// By example, what should come, where the objective asks.
    pub(super) labels: Vec<Option<u32>>,
    /// How many examples are trained on.
    pub(super) trained: usize,
    /// How many there are.
    examples: usize,
    /// What a target run says, for [`Objective::Kl`].
    targets: Option<Plan>,
    pub(super) options: Options,
}

/// One choice of the axes: by example, its cell of the plan, where it has one.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) at: Coordinates,
    pub(super) cells: Vec<Option<usize>>,
}

/// A training whose unedited rows are computed.
#[derive(Debug)]
pub struct Trainer<'t, 'm> {
    pub(super) training: &'t Training<'m>,
    pub(super) session: Session<'t>,
    /// Of the target run.
    pub(super) targets: Option<Session<'t>>,
}

impl<'m> Training<'m> {
    /// Checks an experiment with a data set. Axes of its sweep make it a search, whose edits are all that train
    /// unless the sweep names some; metrics of the sweep do not matter here.
    ///
    /// # Errors
    /// When there are no examples, or one lacks what the objective needs or does not fit; when all labels are one
    /// token; when nothing would train, or an option does not fit.
    pub fn new(experiment: &Experiment<'m>, held_out: HeldOut, options: Options) -> Result<Self> {
        options.check()?;
        let (examples, trained) = parted(experiment, held_out, options.seed)?;
        let count = examples.len();
        let mut experiment = experiment.clone();
        experiment.examples = Some(Arc::new(examples.into_iter().collect()));
        // Also finds what is wrong with the edits.
        Variables::new(&experiment, &options)?;
        options.prepare(&mut experiment)?;
        let plan = experiment.plan()?;
        let points = choices(&plan, count);
        let labels = labels(&experiment, &options)?;
        let targets = match options.objective {
            Objective::Kl(run) => Some(targets(&experiment, run)?),
            _ => None,
        };
        Ok(Self { experiment, plan, points, labels, trained, examples: count, targets, options })
    }

    /// The model it trains for.
    pub fn model(&self) -> &'m causalcone_model::Model {
        self.experiment.model()
    }

    /// How many fits there are: 1, or one for each choice of the axes.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// How many examples are trained on.
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// How many are held out.
    pub fn held_out(&self) -> usize {
        self.examples - self.trained
    }

    /// How many updates a fit has, unless it stops early.
    pub fn steps(&self) -> usize {
        self.options.steps(self.trained)
    }

    /// Updates between two evaluations.
    pub(super) fn evaluate_every(&self) -> usize {
        let most = self.steps().div_ceil(20);
        let epoch = self.options.steps_of_epoch(self.trained);
        self.options.evaluate.unwrap_or_else(|| epoch.max(most))
    }

    /// Those that are not trained on; all if none is held out.
    pub(super) fn judged(&self) -> Range<usize> {
        if self.trained < self.examples { self.trained..self.examples } else { 0..self.examples }
    }

    /// Computes what does not change while it trains.
    ///
    /// # Errors
    /// When it cannot be done in the memory there is, or fails.
    pub fn trainer(&self, runtime: &Runtime<'_>) -> Result<Trainer<'_, 'm>> {
        let model = self.experiment.model();
        let count = self.plan.cells.len();
        let cone = &runtime.less(count as u64 * CELL_BYTES, &format!("the plan of {count} cells"))?.cone();
        let of_targets = |plan| Session::new(cone, model, plan, &plan.cells.iter().collect::<Vec<_>>());
        let targets = self.targets.as_ref().map(of_targets).transpose()?;
        // The unedited runs' answers come last.
        let originals = self.plan.baselines.iter().map(|baseline| &baseline.original);
        let cells: Vec<&Cell> = self.plan.cells.iter().chain(originals).collect();
        let session = Session::new(cone, model, &self.plan, &cells)?;
        Ok(Trainer { training: self, session, targets })
    }
}

/// The choices of the axes, each with its cell for every example that has it.
fn choices(plan: &Plan, examples: usize) -> Vec<Candidate> {
    let mut by_point: BTreeMap<AxisChoices, Candidate> = BTreeMap::new();
    // The plan has all cells of one example, then those of the next.
    let (mut example, mut last) = (0, None);
    for (cell, at) in plan.cells.iter().map(|cell| &cell.at).enumerate() {
        if last.is_some_and(|last| last != at.example) {
            example += 1;
        }
        last = Some(at.example);
        let empty = || Candidate { at: at.clone(), cells: vec![None; examples] };
        let choice = by_point.entry(at.point).or_insert_with(empty);
        choice.at.example = None;
        choice.at.narrow(at);
        choice.cells[example] = Some(cell);
    }
    by_point.into_values().collect()
}

/// By example, what should come.
fn labels(experiment: &Experiment<'_>, options: &Options) -> Result<Vec<Option<u32>>> {
    let needs = matches!(options.objective, Objective::CrossEntropy);
    let mut labels = Vec::new();
    for instance in experiment.by_example() {
        let instance = instance?;
        let label = instance.label("cross_entropy").map_err(|e| instance.blame(e));
        labels.push(if needs { Some(label?) } else { label.ok() });
    }
    let one = labels.first().copied().flatten();
    if needs && !options.one_label && labels.len() > 1 && labels.iter().all(|label| *label == one) {
        let token = one.map(|id| experiment.model().token_text(id)).unwrap_or_default();
        let problem = format!("all {} labels are {token:?}: there is nothing to tell apart", labels.len());
        let hint = Some("one_label = true trains towards a single token all the same".into());
        return Err(Error::hinted("train", problem, hint));
    }
    Ok(labels)
}

/// The plan of what a run without edits says, example by example.
fn targets(experiment: &Experiment<'_>, run: RunId) -> Result<Plan> {
    if experiment.edits.iter().any(|edit| edit.run == run) {
        let name = experiment.runs.get(run.0).map_or("", |run| &run.name);
        return Err(Error::part("train", format!("run \"{name}\" is the target, and has edits")));
    }
    let mut target = experiment.clone();
    target.edits = Arc::default();
    target.set_sweep(None::<Sweep>);
    target.set_read_run(run);
    target.plan_single()
}
