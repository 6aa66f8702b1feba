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
mod collect;
mod collected;
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
mod ids;
mod instance;
mod journal;
mod labels;
pub mod lens;
mod load;
mod means;
mod method;
mod metric;
pub mod noise;
pub mod op;
mod outcome;
mod place;
pub mod plan;
mod positions;
mod prepared;
mod reading;
mod resolve;
pub mod saved;
mod spaces;
mod steps;
mod sweep;
mod token;
pub mod train;
mod verify;
mod versions;

pub use align::Alignment;
pub use attribution::Agreement;
pub use collect::collect;
pub use collected::Collected;
pub use collection::{Collection, Gathered};
pub use control::ControlVector;
pub use dataset::{Example, Prompt};
pub use error::{Error, Refused, Result};
pub use execute::{Cone, Executor, Memo, Reference, Session, Sink, half_of_free_memory};
pub use experiment::{Experiment, LayerAxis, Sweep};
pub use explain::{ExplainedRun, Explanation, Outline};
pub use file::ExperimentFile;
pub use ids::{EditId, RunId};
pub use journal::{Journal, Values};
pub use labels::{TokenLabels, visible};
pub use lens::Lens;
pub use means::{Mean, MeanToken};
pub use method::Method;
pub use metric::{Distribution, Metric, Record, Top};
pub use op::{Align, Joint, Op, OpKind, Source, Value};
pub use outcome::{Answer, Outcome, Said};
pub use prepared::{Column, PreparedSweep, Row, SweepResult};
pub use saved::Saved;
pub use spaces::MissingSpace;
pub use verify::{Mismatch, Verification};
