//! From an experiment to its plan: which runs there are, in which order, and what each cell edits.

pub mod align;
mod asked;
pub(crate) mod axes;
mod edit;
mod estimable;
pub(crate) mod positions;
pub(crate) mod resolve;
pub(crate) mod run_versions;
mod single;
mod survey;
mod swept;

pub(crate) use asked::{methods, metrics};
pub(crate) use single::LensPlan;
pub(crate) use survey::Survey;
pub(crate) use swept::Basis;

use crate::Result;
use crate::compile::axes::check_size;
use crate::compile::run_versions::Compiler;
use crate::error::Refused;
use crate::experiment::Experiment;
use crate::plan::{Moves, Plan};
use std::ops::Range;
use swept::Swept;

/// The plan of some of a sweep's cells, and what they are about.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    /// By baseline.
    pub(crate) bases: Vec<Basis>,
    /// By cell, where there are estimates.
    pub(crate) moves: Vec<Moves>,
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
            let own = survey.within(example, &cells);
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

    /// Takes out the examples that do not fit the experiment, and says why. The sweep counts if there
    /// is one. Without this a plan is refused for the first of them.
    ///
    /// # Errors
    /// When none is left: the one reason if they all have the same, which then lies in the experiment
    /// itself.
    pub fn sift(&mut self) -> Result<Vec<Refused>> {
        self.sift_by(Self::check)
    }

    /// Checks one example's experiment, or its sweep if it has one, without compiling it.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.sweep {
            Some(_) => {
                check_size(Swept::new(self)?.cells())?;
                Ok(())
            }
            None => {
                self.read_run()?;
                self.check_reach(&Compiler::new(self, &[])?.expanded)
            }
        }
    }
}
