//! Training: the parameters of interventions fitted to what a model should say.
//!
//! Only the cone runs: the weights are frozen, and rows that no trained edit reaches are computed once and kept
//! ([`Session`]). A [`Training`] is an experiment with a data set, checked; its sweep, if it has one, makes it a
//! search: one fit for each choice of the axes, all on the same kept rows. A [`Trainer`] has computed those; a
//! [`Fit`] goes step by step, can be left at any of them and gone on from a [`Checkpoint`], bit by bit the same.
//!
//! ```
//! use causalcone_engine::train::{Length, Options, Training};
//! use causalcone_engine::{Cone, Example, Experiment, Op, OpKind};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! let source = exp.open_run("source")?;
//! let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 0).unwrap().value(source);
//! exp.edit(base, Site::BlockOutput.layers(0).at(Last), op)?;
//! exp.examples(vec![
//!     Example::new().prompt("base", vec![3, 1, 4]).prompt("source", vec![2, 7, 1]).label(5),
//!     Example::new().prompt("base", vec![1, 6]).prompt("source", vec![1, 8]).label(9),
//! ]);
//! let options = Options { length: Length::Steps(20), learning_rate: 0.05, ..Options::default() };
//! let training = Training::new(&exp, Default::default(), options)?;
//! let trainer = training.trainer(&Cone::default())?;
//! let mut fit = trainer.fit(0)?;
//! let mut losses = Vec::new();
//! while let Some(step) = fit.step()? {
//!     losses.push(step.loss);
//! }
//! assert!(losses[19] < losses[0]);
//! let trained = fit.experiment()?; // the same edits, with what was learned
//! # assert_eq!(trained.example_count(), Some(2));
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod adam;
mod checkpoint;
mod fit;
mod options;
mod scores;
mod variables;

pub use adam::Adam;
pub use checkpoint::Checkpoint;
pub use fit::{Evaluation, Fit, Step};
pub use options::{CustomObjective, Length, Map, Objective, Options, Schedule};
pub use scores::Score;

use crate::dataset::Example;
use crate::execute::{Cone, Session};
use crate::experiment::{EditSpec, Experiment, Sweep};
use crate::ids::{EditId, RunId};
use crate::method::Method;
use crate::metric::Metric;
use crate::noise::below;
use crate::op::Bound;
use crate::plan::{Cell, Coordinates, Plan, Point};
use crate::prepared::{Column, SweepResult};
use crate::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use variables::Variables;

/// Examples that are not trained on, but that tell how well it generalises.
#[derive(Debug, Clone, Default)]
pub enum HeldOut {
    /// None.
    #[default]
    None,
    /// This part of the data set, drawn by the seed.
    Part(f64),
    /// These.
    Examples(Vec<Example>),
}

/// The bytes that the plan of a cell takes, as long as the fits go on.
const CELL_BYTES: u64 = 3000;

/// A training, compiled and checked.
#[derive(Debug)]
pub struct Training<'m> {
    /// With the examples that are trained on first, then those held out.
    experiment: Experiment<'m>,
    plan: Plan,
    /// What is trained, a choice of the axes each.
    points: Vec<Choice>,
    /// By example, what should come, where the objective asks.
    labels: Vec<Option<u32>>,
    /// How many examples are trained on.
    trained: usize,
    /// How many there are.
    examples: usize,
    /// What a target run says, for [`Objective::Kl`].
    targets: Option<Plan>,
    options: Options,
}

/// One choice of the axes: by example, its cell of the plan, where it has one.
#[derive(Debug)]
struct Choice {
    at: Coordinates,
    cells: Vec<Option<usize>>,
}

/// A training whose unedited rows are computed.
#[derive(Debug)]
pub struct Trainer<'t, 'm> {
    training: &'t Training<'m>,
    session: Session<'t>,
    /// Of the target run.
    targets: Option<Session<'t>>,
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
    fn evaluate_every(&self) -> usize {
        let most = self.steps().div_ceil(20);
        let epoch = self.options.steps_of_epoch(self.trained);
        self.options.evaluate.unwrap_or_else(|| epoch.max(most))
    }

    /// Those that are not trained on; all if none is held out.
    fn judged(&self) -> Range<usize> {
        if self.trained < self.examples { self.trained..self.examples } else { 0..self.examples }
    }

    /// Computes what does not change while it trains.
    ///
    /// # Errors
    /// When it cannot be done in the memory there is, or fails.
    pub fn trainer(&self, cone: &Cone) -> Result<Trainer<'_, 'm>> {
        let model = self.experiment.model();
        let count = self.plan.cells.len();
        let cone = &cone.less(count as u64 * CELL_BYTES, &format!("the plan of {count} cells"))?;
        let of_targets = |plan| Session::new(cone, model, plan, &plan.cells.iter().collect::<Vec<_>>());
        let targets = self.targets.as_ref().map(of_targets).transpose()?;
        // The unedited runs' answers come last.
        let originals = self.plan.baselines.iter().map(|baseline| &baseline.original);
        let cells: Vec<&Cell> = self.plan.cells.iter().chain(originals).collect();
        let session = Session::new(cone, model, &self.plan, &cells)?;
        Ok(Trainer { training: self, session, targets })
    }

    /// The table of a search from the scores of each fit's [judged examples](Fit::scores), and those of the model
    /// without edits: accuracy and loss of every example at every choice of the axes. `scores` has one list a fit.
    ///
    /// # Errors
    /// When there are not as many scores as there are fits and examples.
    pub fn results(&self, scores: &[Vec<Score>], originals: &[Score]) -> Result<SweepResult> {
        let judged = self.judged();
        let mut result = SweepResult {
            cells: Vec::new(),
            values: Vec::new(),
            columns: [Metric::Accuracy, Metric::Loss]
                .map(|metric| Column { metric, token: None, method: Method::Exact })
                .to_vec(),
            baseline_of: Vec::new(),
            prompts: Vec::new(),
            tokens: Vec::new(),
            answers: Vec::new(),
            base: originals.iter().map(Score::values).collect(),
            fixed: vec![None; originals.len()],
            missing_spaces: Vec::new(),
            work: crate::cone::Work::default(),
        };
        let wrong = || Error::part("train", "the scores are not those of this training");
        if scores.len() != self.points.len() || originals.len() != judged.len() {
            return Err(wrong());
        }
        for (choice, scores) in self.points.iter().zip(scores) {
            let cells = judged.clone().filter_map(|example| Some((example, choice.cells[example]?)));
            let mut scores = scores.iter();
            for (example, cell) in cells {
                result.cells.push(self.plan.cells[cell].at.clone());
                result.values.push(scores.next().ok_or_else(wrong)?.values());
                result.baseline_of.push(example - judged.start);
            }
        }
        for instance in self.experiment.by_example_in(judged.clone()) {
            let instance = instance?;
            let run = instance.edits.first().map_or(RunId(0), |edit| edit.run);
            result.prompts.push(instance.runs[run.0].ids.clone());
            result.tokens.push(instance.tokens.clone().into());
            result.answers.push(instance.answers.clone().into());
        }
        Ok(result)
    }

    /// How many numbers [`Training::results`] has of each fit, before its means: the cells of the judged examples.
    pub fn judged_cells(&self, point: usize) -> usize {
        self.points
            .get(point)
            .map_or(0, |choice| self.judged().filter(|e| choice.cells[*e].is_some()).count())
    }
}

impl<'t, 'm> Trainer<'t, 'm> {
    /// Begins the fit of a choice of the axes, counted from 0.
    ///
    /// # Errors
    /// When there is no such choice.
    pub fn fit(&self, point: usize) -> Result<Fit<'_, 't, 'm>> {
        Fit::new(self, point)
    }

    /// Goes on where a fit was left.
    ///
    /// # Errors
    /// When the checkpoint is of another training.
    pub fn resume(&self, checkpoint: &Checkpoint) -> Result<Fit<'_, 't, 'm>> {
        Fit::resume(self, checkpoint)
    }

    /// What the model says of the judged examples (those held out, or all) without any edit.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn originals(&self) -> Result<Vec<Score>> {
        let first = self.training.plan.cells.len();
        let cells: Vec<(usize, usize)> =
            self.training.judged().map(|example| (example, first + example)).collect();
        scores::scores(self, &self.session, &cells, &Bound::default(), &causalcone_model::silent)
    }
}

impl Experiment<'_> {
    /// The edits whose ops have parameters that train.
    pub(crate) fn trainable(&self) -> impl Iterator<Item = EditId> + '_ {
        let trains =
            |spec: &EditSpec| spec.op.kind.info().parameters.iter().any(|parameter| parameter.trains);
        self.edits.iter().enumerate().filter(move |(_, spec)| trains(spec)).map(|(i, _)| EditId(i))
    }
}

/// The examples, those trained on first, and how many these are.
fn parted(experiment: &Experiment<'_>, held_out: HeldOut, seed: u64) -> Result<(Vec<Example>, usize)> {
    let Some(given) = &experiment.examples else {
        let hint = Some("examples = \"FILE\", one example a line".into());
        return Err(Error::hinted("train", "there are no examples to train on", hint));
    };
    let mut all: Vec<Example> = Vec::with_capacity(given.len());
    for example in given.iter() {
        all.push(example.map_err(Error::refused)?);
    }
    let trained = match held_out {
        HeldOut::None => all.len(),
        HeldOut::Part(part) => {
            if !(part > 0.0 && part < 1.0) {
                return Err(Error::part(
                    "train",
                    format!("held_out {part} is no part: between 0 and 1 fits"),
                ));
            }
            // That part of them, rounded, and at least one.
            let is_held = |i: &usize| *i as f64 + 0.5 <= all.len() as f64 * part;
            let held = (0..all.len()).filter(is_held).count().max(1);
            let order = order(seed, u64::MAX, all.len());
            let trained = all.len().saturating_sub(held);
            all = order.into_iter().map(|i| all[i].clone()).collect();
            // As they were among themselves.
            all[..trained].sort_by_key(Example::number);
            all[trained..].sort_by_key(Example::number);
            trained
        }
        HeldOut::Examples(held) => {
            let trained = all.len();
            let next = all.iter().map(|example| example.number() + 1).max().unwrap_or(0);
            all.extend(held.into_iter().enumerate().map(|(i, mut example)| {
                example.origin.number = next + i;
                example
            }));
            trained
        }
    };
    if trained == 0 {
        return Err(Error::part("train", "there are no examples to train on"));
    }
    Ok((all, trained))
}

/// Numbers below n in an order that the seed and the epoch say (Fisher and Yates).
fn order(seed: u64, epoch: u64, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(i + 1, seed, epoch, i as u64));
    }
    order
}

/// The choices of the axes, each with its cell for every example that has it.
fn choices(plan: &Plan, examples: usize) -> Vec<Choice> {
    let mut by_point: BTreeMap<Point, Choice> = BTreeMap::new();
    // The plan has all cells of one example, then those of the next.
    let (mut example, mut last) = (0, None);
    for (cell, at) in plan.cells.iter().map(|cell| &cell.at).enumerate() {
        if last.is_some_and(|last| last != at.example) {
            example += 1;
        }
        last = Some(at.example);
        let empty = || Choice { at: at.clone(), cells: vec![None; examples] };
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
    target.sweep(None::<Sweep>);
    target.read(run);
    target.plan_single()
}

/// The logits of a target, or nothing.
fn target_logits(trainer: &Trainer<'_, '_>, examples: &[usize]) -> Result<Option<Tensor>> {
    let targets = trainer.targets.as_ref();
    targets.map(|session| Ok(session.logits(examples, &Bound::default())?.detach())).transpose()
}
