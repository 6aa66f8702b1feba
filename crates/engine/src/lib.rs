//! Experiments on language models: what is run, what is edited, what is read.
//!
//! An [`Experiment`] holds runs (prompts), edits ([`Op`]s at sites of a run) and reads. It compiles
//! to a [`plan::Plan`], which an [`Executor`] runs. With a [`Sweep`] each point of its axes is a cell
//! of the plan. [`ExperimentFile`] is the same in writing.
//!
//! ```
//! use causalcone_engine::{Each, Experiment, LayerAxis, Op, Sweep};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! exp.edit(base, Site::MlpOutput.layers(..), Op::add(model.embedding("T")?))?;
//! exp.set_tokens(vec![model.token_id("T")?])?;
//! exp.set_sweep(Sweep { layers: Some(LayerAxis::Cumulative), positions: Some(Each), ..Sweep::default() });
//! assert_eq!(exp.plan()?.cells.len(), model.config().layers * exp.ids(base).len());
//! # Ok::<(), causalcone_engine::Error>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod bounds;
mod compile;
pub mod cone;
mod error;
mod execute;
mod experiment;
mod formats;
mod ids;
mod labels;
mod load;
mod metric;
pub mod op;
mod parse;
pub mod plan;
mod reading;
mod run;
pub mod schema;

pub use compile::align::{self, Alignment};
pub use error::{Error, Refused, Result};
pub use execute::{
    Cone, Device, Executor, ExecutorKind, Memo, Reference, Runtime, Session, Sink, half_of_free_memory,
};
pub use experiment::Experiment;
pub use experiment::dataset::{self, Example, Prompt};
pub use experiment::edit::EditSpec;
pub use experiment::method::Method;
pub use experiment::spaces::MissingSpace;
pub use experiment::sweep::{Each, LayerAxis, Sweep};
pub use formats::causal;
pub use formats::control_vector::{self, ControlVector};
pub use formats::saved::{self, Saved};
pub use ids::{EditId, RunId};
pub use labels::{TokenLabels, visible};
pub use metric::{Distribution, Metric, TokenRecord, Top};
pub use op::{Align, Joint, Op, OpKind, Source, Value, noise};
pub use plan::collected::Collected;
pub use run::attribution::Agreement;
pub use run::collect::collect;
pub use run::collection::{self, Collection, Gathered};
pub use run::explain::{ExplainedRun, Explanation, Outline};
pub use run::journal::{Journal, Values};
pub use run::lens::{self, Lens};
pub use run::means::{Mean, MeanToken};
pub use run::prepared::{Column, PreparedSweep, Row, SweepResult};
pub use run::single::{Answer, AnswerProb, Outcome};
pub use run::verify::{Mismatch, Verification};
pub use run::{generate, statistics, train};
pub use schema::ExperimentFile;
