//! With what work is done: one [`Runtime`] goes from whoever asks for work down to the executor that does it.
//!
//! ```
//! use causalcone_engine::{Experiment, Op, Runtime};
//! use causalcone_model::{Model, Progress, Site};
//! use std::ops::ControlFlow;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run_ids("base", vec![3, 1, 4])?;
//! exp.edit(base, Site::MlpOutput.layers(0), Op::zero())?;
//! let told = |p: Progress<'_>| { println!("{}: {} of {}", p.what, p.done, p.total); ControlFlow::Continue(()) };
//! let runtime = Runtime { memory: Some(64 << 20), progress: &told, ..Runtime::default() };
//! let outcome = exp.execute_with(&runtime)?;
//! assert_ne!(outcome.original(base).distribution.logits(), outcome.counterfactual(base).distribution.logits());
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use super::cone::{Cone, LEAST};
use super::executor::{Executor, Sink};
use super::memory::half_of_free_memory;
use super::reference::Reference;
use crate::cone::Work;
use crate::plan::{Cell, Plan};
use crate::{Error, Result};
use causalcone_model::threads::{self, Threads};
use causalcone_model::{Config, Model, Report, silent};
use std::fmt;
use std::str::FromStr;

/// With what work is done, and who hears of it.
#[derive(Clone, Copy)]
pub struct Runtime<'r> {
    /// Where kernels compute.
    pub device: Device,
    /// What runs plans.
    pub executor: ExecutorKind<'r>,
    /// Bytes that work may take beside the weights; `None` is as much as it likes. Executors other than the cone executor
    /// keep to no limit.
    pub memory: Option<u64>,
    /// The threads that kernels run on: those of the process.
    pub threads: Threads,
    /// Hears how far work is, and can stop it.
    pub progress: Report<'r>,
}

/// A device that kernels compute on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, and its memory.
    #[default]
    Cpu,
}

/// Which executor runs plans.
#[derive(Clone, Copy, Default)]
pub enum ExecutorKind<'r> {
    /// The cone executor ([`Cone`]).
    #[default]
    Cone,
    /// The reference executor ([`Reference`]).
    Reference,
    /// One of the caller's own.
    Own(&'r dyn Executor),
}

impl Default for Runtime<'_> {
    /// The cone executor, in half of the memory that is free now, without anybody who hears of progress.
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            executor: ExecutorKind::Cone,
            memory: half_of_free_memory(),
            threads: threads::start(),
            progress: &silent,
        }
    }
}

impl<'r> Runtime<'r> {
    /// The reference executor.
    pub fn reference() -> Self {
        Self { executor: ExecutorKind::Reference, ..Self::default() }
    }

    /// So many bytes to work in; `None` is as many as it likes.
    pub fn within(memory: Option<u64>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// An executor of one's own.
    pub fn own(executor: &'r dyn Executor) -> Self {
        Self { executor: ExecutorKind::Own(executor), ..Self::default() }
    }

    /// Does something with the executor.
    fn by<T>(&self, f: impl FnOnce(&dyn Executor) -> T) -> T {
        match self.executor {
            ExecutorKind::Cone => f(&self.cone()),
            ExecutorKind::Reference => f(&Reference),
            ExecutorKind::Own(executor) => f(executor),
        }
    }

    /// The cone executor with this memory.
    pub(crate) fn cone(&self) -> Cone {
        Cone { memory: self.memory }
    }

    /// The same with so many bytes less to work in, which are held by `what` meanwhile.
    ///
    /// # Errors
    /// When that is all there is; says how much would do.
    pub(crate) fn less(self, bytes: u64, what: &str) -> Result<Self> {
        let (ExecutorKind::Cone, Some(memory)) = (self.executor, self.memory) else { return Ok(self) };
        match memory.checked_sub(bytes).filter(|rest| *rest > 0) {
            Some(rest) => Ok(Self { memory: Some(rest), ..self }),
            None => Err(Error::memory("memory", what, memory, bytes.saturating_add(LEAST))),
        }
    }
}

/// A runtime runs plans by the executor it names.
impl Executor for Runtime<'_> {
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<Work> {
        self.by(|executor| executor.execute(model, plan, cells, sink))
    }

    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work> {
        self.by(|executor| executor.estimate(plan, cells, config))
    }

    fn name(&self) -> &'static str {
        self.by(|executor| executor.name())
    }
}

impl fmt::Debug for Runtime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, memory, threads, .. } = self;
        write!(f, "{} on {device:?} in {memory:?} bytes with {} threads", self.name(), threads.made)
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "cpu" => Ok(Self::Cpu),
            // Naming another device is no reason to compute on this one.
            _ => Err(Error::part(format!("device {name}"), "this build computes on cpu only")),
        }
    }
}
