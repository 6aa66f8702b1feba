//! Experiments on language models: what is run, what is edited, what is read.
//!
//! An [`Experiment`] holds runs (prompts), edits ([`Op`]s at sites of a run) and reads. It compiles
//! to a [`plan::Plan`], which an [`Executor`] runs. With a [`Sweep`] each point of its axes is a cell
//! of the plan. [`ExperimentFile`] is the same in writing.
//!
//! ```
//! use causalcone_engine::{Experiment, LayerAxis, Op, Sweep};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! exp.edit(base, Site::MlpOutput.layers(..), Op::add(model.embedding("T")?))?;
//! exp.tokens(vec![model.token_id("T")?])?;
//! exp.sweep(Sweep { layers: Some(LayerAxis::Cumulative), positions: true, ..Sweep::default() });
//! assert_eq!(exp.plan()?.cells.len(), model.config().layers * exp.ids(base).len());
//! # Ok::<(), causalcone_engine::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod align;
mod attribution;
mod axes;
mod bounds;
pub mod causal;
pub mod collection;
mod compile;
pub mod cone;
pub mod control;
pub mod dataset;
mod error;
mod execute;
mod experiment;
mod explain;
pub mod file;
pub mod fit;
pub mod generate;
mod instance;
mod journal;
mod labels;
pub mod lens;
mod means;
mod metric;
pub mod noise;
pub mod op;
mod place;
pub mod plan;
mod positions;
mod resolve;
pub mod saved;
mod spaces;
mod sweep;
pub mod train;
mod verify;
mod versions;

pub use align::{Align, Alignment};
pub use attribution::{Agreement, Method};
pub use collection::{Collection, Gathered};
pub use control::ControlVector;
pub use dataset::{Example, Prompt, Refused};
pub use error::{Error, Result};
pub use execute::{Cone, Executor, Memo, Reference, Session, Sink, collect, half_of_free_memory};
pub use experiment::{Answer, Collected, EditId, Experiment, LayerAxis, Outcome, RunId, Said, Sweep};
pub use explain::{ExplainedRun, Explanation, Outline};
pub use file::ExperimentFile;
pub use journal::{Journal, Values};
pub use labels::TokenLabels;
pub use lens::Lens;
pub use means::{Mean, MeanToken};
pub use metric::{Distribution, Metric, Record, Top, visible};
pub use op::{Joint, Op, OpKind, Source, Value};
pub use saved::Saved;
pub use spaces::MissingSpace;
pub use sweep::{Column, PreparedSweep, Row, SweepResult};
pub use verify::{Mismatch, Verification};
