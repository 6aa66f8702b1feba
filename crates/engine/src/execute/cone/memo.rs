//! One experiment after another on the same model, as a loop in a notebook makes them: what they have in common is
//! computed once.

use super::super::executor::no_gradients;
use super::super::runtime::Runtime;
use super::job::Job;
use super::table::Store;
use crate::cone::{ConePlan, Forest, NodeId, Portion, Work};
use crate::experiment::Experiment;
use crate::op::{Bound, OpKind};
use crate::plan::collected::Collected;
use crate::plan::{Cell, Constant, Numbers, NumbersId, Plan, Read, ValueSource};
use crate::reading::Reading;
use crate::{Error, Result};
use causalcone_model::Model;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// A forest that has grown beyond this is dropped with all that was kept: planning goes over all of its nodes.
const MOST_NODES: usize = 4096;

/// Rows of earlier experiments, kept for later ones.
///
/// A row is known by what it depends on: the tokens up to it and the edits in its past. So a prompt that was run
/// before is not run again, and an experiment whose first edits are those of an earlier one goes on from there.
/// Edits are the same if their op, scale and place are, and their constants are the same tensors
/// ([`TensorId`](candle_core::TensorId)), which must not change; parameters and closures are equal to themselves only.
///
/// What is kept is bounded: what was used longest ago is dropped first.
///
/// ```
/// use causalcone_engine::{Experiment, Memo, Op, Runtime};
/// use causalcone_model::{Last, Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let vector = model.embedding_of(9)?;
/// let mut memo = Memo::new(64 << 20);
/// let mut rows = Vec::new();
/// for layers in 1..=3 {
///     let mut exp = Experiment::new(&model);
///     let base = exp.run_ids("base", vec![3, 1, 4, 1, 5])?;
///     exp.edit(base, Site::MlpOutput.layers(0..layers).at(Last), Op::add(vector.clone()))?;
///     exp.collect(base, Site::FinalNorm)?;
///     let collected = memo.collect(&exp, &Runtime::default())?;
///     assert_eq!(collected[0].tensor.dims(), [5, model.config().width]);
///     rows.push(memo.last_work().rows);
/// }
/// assert!(rows[2] < rows[0], "the third goes on where the second was edited");
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Memo {
    forest: Option<Forest>,
    /// What each experiment left.
    kept: Vec<Leaves>,
    /// By node, which of these have rows of it.
    holders: HashMap<NodeId, Vec<u64>>,
    /// Counts experiments.
    clock: u64,
    bytes: usize,
    /// The constants and parameters that the forest's edits hold, and their bytes.
    held: HashSet<NumbersId>,
    held_bytes: usize,
    limit: usize,
    work: Work,
}

/// How one experiment is run.
#[derive(Clone, Copy)]
struct How {
    /// Bytes it may take.
    memory: Option<u64>,
    /// Whether edited rows are kept.
    keeps_edited: bool,
}

/// What one experiment left.
#[derive(Debug)]
struct Leaves {
    number: u64,
    store: Store<'static>,
    bytes: usize,
    used: u64,
}

impl Memo {
    /// One that keeps at most so many bytes between experiments; none at 0.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most bytes kept between experiments.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What the last experiment took.
    pub fn last_work(&self) -> Work {
        self.work
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { limit: self.limit, work: self.work, ..Self::default() };
    }

    /// What an experiment's `collect` edits read, in file order, a layer each; nothing else is computed.
    ///
    /// # Errors
    /// When the experiment has a data set, gradients or nothing to collect, contradicts itself, or a computation fails.
    pub fn collect(&mut self, experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Vec<Collected>> {
        self.collected(experiment, How { memory: runtime.memory, keeps_edited: true })
    }

    /// [`Memo::collect`] through which gradients flow back to the constants and parameters that are
    /// [variables](candle_core::Var): edited rows are computed anew and not kept.
    ///
    /// # Errors
    /// As [`Memo::collect`].
    pub fn trace(&mut self, experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Vec<Collected>> {
        self.collected(experiment, How { memory: runtime.memory, keeps_edited: false })
    }

    fn collected(&mut self, experiment: &Experiment<'_>, how: How) -> Result<Vec<Collected>> {
        if experiment.examples.is_some() {
            return Err(Error::part(
                "examples",
                "a memo runs one experiment at a time: give it those of by_example",
            ));
        }
        experiment.no_steps()?;
        if experiment.collects().next().is_none() {
            let hint = Some("add an edit with op = \"collect\"".into());
            return Err(Error::hinted("collect", "no edit collects anything", hint));
        }
        let plan = Experiment::plan_collects(std::slice::from_ref(experiment))?;
        let Some(cell) = plan.cells.first() else { return Ok(Vec::new()) };
        // What a closure gives may differ from call to call, and it may hold much.
        let is_pure = experiment.edits.iter().all(|edit| edit.op.kind != OpKind::Custom);
        let readings = self.run(
            experiment.model(),
            &plan,
            cell,
            How { keeps_edited: how.keeps_edited && is_pure, ..how },
        )?;
        let pair = |(read, reading): (&Read, Reading)| match reading {
            Reading::Activation(tensor) => Collected::new(&plan, read, tensor),
            Reading::Logits(_) => None,
        };
        Ok(cell.reads.iter().zip(readings).filter_map(pair).collect())
    }

    fn run(&mut self, model: &Model, plan: &Plan, cell: &Cell, how: How) -> Result<Vec<Reading>> {
        no_gradients(&[cell])?;
        let is_full = self.forest.as_ref().is_some_and(|forest| forest.nodes().len() > MOST_NODES);
        if is_full || self.held_bytes > self.limit {
            self.clear();
        }
        let mut forest = self.forest.take().unwrap_or_else(|| Forest::new(model.config()));
        if !how.keeps_edited {
            // What is not kept is planned apart, so that the forest does not hold its edits.
            forest.insert_prompts(plan);
            let cone = ConePlan::grown(forest.clone(), plan, &[cell]);
            let ran = self.run_cone(model, plan, &cone, how);
            return self.put_back(ran, forest);
        }
        self.hold(plan);
        let cone = ConePlan::grown(forest, plan, &[cell]);
        let ran = self.run_cone(model, plan, &cone, how);
        self.put_back(ran, cone.forest)
    }

    /// The forest goes on to the next experiment; after an error nothing does, as some of its rows may be missing.
    fn put_back(&mut self, ran: Result<Vec<Reading>>, forest: Forest) -> Result<Vec<Reading>> {
        match ran {
            Ok(_) => self.forest = Some(forest),
            Err(_) => self.clear(),
        }
        ran
    }

    /// Counts what the edits of a plan hold.
    fn hold(&mut self, plan: &Plan) {
        for edit in plan.runs.iter().flat_map(|run| &run.edits) {
            if let Some(ValueSource::Constant(Constant { rows, .. })) = &edit.value
                && self.held.insert(rows.id())
            {
                self.held_bytes += rows.bytes();
            }
            for tensor in edit.op.parameters.iter().map(|(_, tensor)| Numbers::from(tensor.clone())) {
                if self.held.insert(tensor.id()) {
                    self.held_bytes += tensor.bytes();
                }
            }
        }
    }

    fn run_cone(&mut self, model: &Model, plan: &Plan, cone: &ConePlan, how: How) -> Result<Vec<Reading>> {
        self.clock += 1;
        let mut used: Vec<u64> = Vec::new();
        let lacking = cone.nodes_of(&[0], |node, at, rows| {
            let mut holders = self.holders.get(&node).into_iter().flatten();
            let holder =
                holders.find(|number| self.leaves(**number).is_some_and(|l| l.store.has(node, at, rows)));
            used.extend(holder.filter(|number| !used.contains(number)).copied().as_slice());
            holder.is_some()
        });
        for leaves in self.kept.iter_mut().filter(|leaves| used.contains(&leaves.number)) {
            leaves.used = self.clock;
        }
        let is_kept = |id: NodeId| how.keeps_edited || cone.forest.nodes()[id].edit.is_none();
        let (first, rest): (Vec<_>, Vec<_>) = lacking.into_iter().partition(|(_, id)| is_kept(*id));
        let below =
            self.kept.iter().filter(|leaves| used.contains(&leaves.number)).map(|leaves| &leaves.store);
        let below: Vec<&Store<'static>> = below.collect();
        let mut readings = Vec::new();
        let bound = Bound::default();
        let mut run = |nodes: &[_], later: &[_], store: &mut Store<'_>, keeps_all: bool| -> Result<Work> {
            // Readings are made once nothing is left to compute.
            let (cells, later_cells): (&[usize], &[usize]) =
                if later.is_empty() { (&[0], &[]) } else { (&[], &[0]) };
            let part = Portion { nodes, cells, later, later_cells };
            let schedule = cone.schedule_of(&part, model.config(), how.memory)?;
            let job = Job { model, plan, cone, bound: &bound, keeps_all };
            job.run(&schedule, store, &mut |delivery, batch| {
                delivery.deliver(batch, &mut |_, found| {
                    readings = found;
                    Ok(ControlFlow::Continue(()))
                })
            })
        };
        // What could not be kept is not held either: a long prompt takes the memory that it always takes.
        let keeps_all = cone.all_bytes(&first, model.config()) <= self.limit as u64;
        let mut store = Store::over(below.clone());
        let mut work = run(&first, &rest, &mut store, keeps_all)?;
        let store = store.alone();
        if !rest.is_empty() {
            let mut all = below;
            all.push(&store);
            work += run(&rest, &[], &mut Store::over(all), false)?;
        }
        self.work = work;
        if keeps_all {
            self.keep(store);
        }
        Ok(readings)
    }

    fn leaves(&self, number: u64) -> Option<&Leaves> {
        let found = self.kept.binary_search_by_key(&number, |leaves| leaves.number);
        found.ok().map(|index| &self.kept[index])
    }

    /// Keeps what an experiment left, as far as there is room.
    fn keep(&mut self, store: Store<'static>) {
        let (nodes, bytes) = (store.nodes(), store.bytes());
        if nodes.is_empty() || bytes > self.limit {
            return;
        }
        self.bytes += bytes;
        while self.bytes > self.limit {
            let oldest = self.kept.iter().enumerate().min_by_key(|(_, leaves)| (leaves.used, leaves.number));
            let Some(oldest) = oldest.map(|(index, _)| index) else { break };
            let dropped = self.kept.remove(oldest);
            self.bytes -= dropped.bytes;
            for node in dropped.store.nodes() {
                if let Some(holders) = self.holders.get_mut(&node) {
                    holders.retain(|number| *number != dropped.number);
                }
            }
        }
        let number = self.clock;
        for node in nodes {
            self.holders.entry(node).or_default().push(number);
        }
        self.kept.push(Leaves { number, store, bytes, used: number });
    }
}
