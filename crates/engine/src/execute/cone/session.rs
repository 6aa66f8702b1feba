//! The same cells again and again, as training wants them: prompts once, edits each time.

use super::{Cone, run, table::Store};
use crate::Result;
use crate::cone::{ConePlan, Work};
use crate::plan::{Cell, Plan, Reading};
use causalcone_model::Model;
use std::ops::ControlFlow;

/// Cells whose unedited rows are computed and kept, so that a run computes edited rows only.
///
/// A run reads the edits' constants as they then are: a [`Var`](candle_core::Var) that was set since
/// the last run counts with its new value, and gradients of the readings flow back to it. Weights are
/// frozen.
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
/// exp.tokens(vec![9, 2])?;
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
    /// The batches of prompts without edits, whose rows are in the store.
    clean: usize,
    store: Store,
    readings: Vec<(usize, Vec<Reading>)>,
    work: Work,
}

impl<'a> Session<'a> {
    /// Plans cells and computes their unedited rows.
    ///
    /// # Errors
    /// As [`Executor::execute`](crate::Executor::execute).
    pub fn new(cone: &Cone, model: &'a Model, plan: &'a Plan, cells: &[&Cell]) -> Result<Self> {
        let cone = ConePlan::with_prompts_first(plan, cells, model.config(), cone.memory)?;
        let clean = cone.clean_batches();
        let mut store = Store::default();
        let mut readings = Vec::new();
        let work = run(model, plan, &cone, 0..clean, &mut store, &mut |cell, reading| {
            readings.push((cell, reading));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Self { model, plan, cone, clean, store, readings, work })
    }

    /// The readings of all cells, in the order they were given; those of edited runs are computed anew.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn run(&self) -> Result<Vec<Vec<Reading>>> {
        let mut readings = vec![Vec::new(); self.cone.reads.len()];
        for (cell, reading) in &self.readings {
            readings[*cell].clone_from(reading);
        }
        let batches = self.clean..self.cone.schedule.batches.len();
        let mut store = self.store.clone();
        run(self.model, self.plan, &self.cone, batches, &mut store, &mut |cell, reading| {
            readings[cell] = reading;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(readings)
    }

    /// What was done once, for all runs.
    pub fn work(&self) -> Work {
        self.work
    }
}
