//! The same cells again and again, as training wants them: prompts once, edits each time.

use super::super::executor::no_gradients;
use super::executor::Cone;
use super::job::Job;
use super::readout::Delivery;
use super::table::Store;
use crate::cone::{Batch, ConePlan, NodeId, NodeRead, Portion, Work};
use crate::op::Bound;
use crate::plan::{Cell, Plan};
use crate::reading::Reading;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::Model;
use std::ops::ControlFlow;

/// Cells whose unedited rows are computed and kept, so that a run computes edited rows only.
///
/// A run reads the edits' constants as they then are: a [`Var`](candle_core::Var) that was set since
/// the last run counts with its new value, and gradients of the readings flow back to it; other tensors can
/// stand in for the edits' parameters ([`Bound`]). Weights are frozen.
///
/// Rows are kept as far as half of the memory goes, for the first cells; those of others are computed in each
/// run, apart from edited ones, so that no gradient goes through them.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use causalcone_engine::plan::Reading;
/// use causalcone_engine::{Cone, Experiment, Op, Session};
/// use causalcone_model::{Last, Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4, 1, 5])?;
/// let vector = Var::zeros(model.config().width, candle_core::DType::F32, &Device::Cpu)?;
/// exp.edit(base, Site::BlockOutput.layers(0).at(Last), Op::add(vector.as_tensor().clone()))?;
/// exp.set_tokens(vec![9, 2])?;
/// let plan = exp.plan_single()?;
/// let cells: Vec<_> = plan.cells.iter().collect();
/// let session = Session::new(&Cone::default(), &model, &plan, &cells)?;
/// for _ in 0..3 {
///     let Reading::Logits(logits) = &session.run()?[0][0] else { panic!() };
///     let gradients = logits.get(9)?.sub(&logits.get(2)?)?.backward()?;
///     let slope = gradients.get(&vector).unwrap();
///     vector.set(&(vector.as_tensor() + (slope * 0.1)?)?)?; // towards token 9
/// }
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct Session<'a> {
    model: &'a Model,
    plan: &'a Plan,
    cone: ConePlan,
    memory: Option<u64>,
    /// Unedited rows, for good.
    store: Store<'static>,
    /// By node, whether its rows are in the store.
    stored: Vec<bool>,
    work: Work,
}

impl<'a> Session<'a> {
    /// Plans cells and computes their unedited rows.
    ///
    /// # Errors
    /// As [`Executor::execute`](crate::Executor::execute).
    pub fn new(cone: &Cone, model: &'a Model, plan: &'a Plan, cells: &[&Cell]) -> Result<Self> {
        no_gradients(cells)?;
        let (memory, config) = (cone.memory, model.config());
        let cone = ConePlan::new(plan, cells, config, memory)?;
        let all: Vec<usize> = (0..cells.len()).collect();
        let is_edited = |id: NodeId| cone.forest.nodes()[id].edit.is_some();
        let (edited, clean): (Vec<_>, Vec<_>) =
            cone.nodes_of(&all, |_, _, _| false).into_iter().partition(|(_, id)| is_edited(*id));
        let whole = Portion { nodes: &clean, cells: &[], later: &edited, later_cells: &all };
        let kept = cone.kept_bytes(&whole, config);
        // The first cells' rows, as far as memory goes.
        let room = memory.map_or(u64::MAX, |memory| memory / 2);
        let (mut stored, mut bytes) = (vec![false; cone.forest.nodes().len()], 0u64);
        for cell in all.iter().copied() {
            let new = cone.nodes_of(&[cell], |id, _, _| stored[id]);
            let new: Vec<NodeId> = new.into_iter().map(|(_, id)| id).filter(|id| !is_edited(*id)).collect();
            bytes += new.iter().map(|id| kept.get(id).copied().unwrap_or(0)).sum::<u64>();
            if bytes > room {
                break;
            }
            new.into_iter().for_each(|id| stored[id] = true);
        }
        let nodes: Vec<_> = clean.iter().copied().filter(|(_, id)| stored[*id]).collect();
        let others: Vec<_> = clean.into_iter().filter(|(_, id)| !stored[*id]).chain(edited).collect();
        let part = Portion { nodes: &nodes, cells: &[], later: &others, later_cells: &all };
        let schedule = cone.schedule_of(&part, config, memory)?;
        let mut store = Store::default();
        let job = Job { model, plan, cone: &cone, bound: &Bound::default(), keeps_all: false };
        let work = job.run(&schedule, &mut store, &mut |_, _| Ok(0))?;
        Ok(Self { model, plan, cone, memory, store, stored, work })
    }

    /// The readings of all cells, in the order they were given; those of edited runs are computed anew.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn run(&self) -> Result<Vec<Vec<Reading>>> {
        let all: Vec<usize> = (0..self.cone.reads.len()).collect();
        let mut readings = vec![Vec::new(); all.len()];
        self.run_some(&all, &Bound::default(), |delivery, batch| {
            delivery.deliver(batch, &mut |cell, reading| {
                readings[cell] = reading;
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok(readings)
    }

    /// The logits that some cells read first, cells × tokens, in the order in which the cells are listed; `bound`
    /// stands in for parameters.
    ///
    /// # Errors
    /// When a cell reads no logits first, or cells read different numbers of them; when the computation fails.
    pub fn logits(&self, cells: &[usize], bound: &Bound) -> Result<Tensor> {
        #[expect(clippy::redundant_closure_for_method_calls, reason = "the method itself is of one lifetime")]
        self.stacked(cells, bound, |delivery, cells| delivery.stacked(cells))
    }

    /// What the unembedding makes their logits of, a row a cell; `None` where not all of these cells read the whole
    /// answer first, as the model makes it.
    ///
    /// # Errors
    /// As [`Session::logits`].
    pub fn normed(&self, cells: &[usize], bound: &Bound) -> Result<Option<Tensor>> {
        let is_whole = |cell: &usize| match self.cone.reads.get(*cell).and_then(|reads| reads.first()) {
            Some(NodeRead::Logits { owner, tokens: None, .. }) => {
                let forest = &self.cone.forest;
                forest.nodes()[*owner].start != forest.anatomy().logits()
            }
            _ => false,
        };
        if !cells.iter().all(is_whole) {
            return Ok(None);
        }
        self.stacked(cells, bound, |delivery, cells| Ok((delivery.normed_rows(cells)?, 0))).map(Some)
    }

    /// What is taken of each batch of some cells, in the order in which these are listed.
    fn stacked(
        &self,
        cells: &[usize],
        bound: &Bound,
        take: impl Fn(&Delivery<'_>, &[usize]) -> Result<(Option<Tensor>, u64)>,
    ) -> Result<Tensor> {
        let (mut order, mut parts): (Vec<usize>, Vec<Tensor>) = (Vec::new(), Vec::new());
        self.run_some(cells, bound, |delivery, batch| {
            let (stacked, flops) = take(delivery, &batch.cells)?;
            order.extend(&batch.cells);
            parts.extend(stacked);
            Ok(flops)
        })?;
        let all = match parts.len() {
            0 => return Err(Error::part("session", "no cell was asked for")),
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 0)?,
        };
        if order == cells {
            return Ok(all);
        }
        let place = |cell: &usize| order.iter().position(|other| other == cell).unwrap_or(0);
        Ok(causalcone_ops::select(&all, 0, &cells.iter().map(place).collect::<Vec<_>>())?)
    }

    fn run_some(
        &self,
        cells: &[usize],
        bound: &Bound,
        mut take: impl FnMut(&Delivery<'_>, &Batch) -> Result<u64>,
    ) -> Result<Work> {
        let mut nodes = self.cone.nodes_of(cells, |id, _, _| self.stored[id]);
        for (wave, id) in &mut nodes {
            *wave += usize::from(self.cone.forest.nodes()[*id].edit.is_some());
        }
        nodes.sort_unstable();
        let part = Portion { nodes: &nodes, cells, later: &[], later_cells: &[] };
        let schedule = self.cone.schedule_of(&part, self.model.config(), self.memory)?;
        let job = Job { model: self.model, plan: self.plan, cone: &self.cone, bound, keeps_all: false };
        job.run(&schedule, &mut Store::over(vec![&self.store]), &mut take)
    }

    /// What was done once, for all runs.
    pub fn work(&self) -> Work {
        self.work
    }
}
