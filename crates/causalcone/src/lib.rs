//! Interventions on the inside of language models.
//!
//! causalcone runs a prompt through a model, changes some activations on the way, and reads what
//! the model then says. Here the word vector of " Rome" is added to the MLP output of every layer at
//! the last position of a prompt about Spain:
//!
//! ```
//! use causalcone::{Experiment, Last, Model, Op, Site};
//!
//! let model = Model::load("smollm2")?;        // fetched once, then from the local cache
//! let rome = model.embedding(" Rome")?;
//!
//! let mut exp = Experiment::new(&model);
//! let spain = exp.run("The capital of Spain is")?;
//! exp.edit(spain, Site::MlpOutput.layers(..).at(Last), Op::add(rome))?;
//!
//! let result = exp.execute()?;
//! print!("{}", result.counterfactual(spain).top(10));
//!
//! let before = result.original(spain).prob(" Rome")?;
//! let after = result.counterfactual(spain).prob(" Rome")?;
//! assert!(after > before);
//! # Ok::<(), causalcone::Error>(())
//! ```
//!
//! The types one meets: [`Model`]; [`Site`], a named activation, and [`Target`], which part of it;
//! [`Experiment`] with its [`Op`]s and [`Value`]s; [`Sweep`], the axes of many cells, and
//! [`SweepResult`]; [`Example`], one of many prompts; [`ExperimentFile`], the same in writing;
//! [`table`], [`means_table`] and [`heat_map`] for results; [`jobs`], work that leaves results in a folder.
//!
//! # Features
//!
//! - `chat` (on by default): chat templates. They need one exact version of minijinja; without the feature,
//!   [`Model::chat`] returns an error that names it.
//! - `hub`: downloads from the Hugging Face Hub.

pub use causalcone_engine::{
    Agreement, Align, Alignment, Answer, AnswerProb, Collected, Collection, Column, Cone, ControlVector,
    Device, Distribution, EditId, Error as EngineError, Example, Executor, ExecutorKind, Experiment,
    ExperimentFile, Explanation, Joint, Journal, LayerAxis, Lens, Mean, MeanToken, Memo, Method, Metric,
    MissingSpace, Op, OpKind, Outcome, Outline, PreparedSweep, Prompt, Reference, Refused, RunId, Runtime,
    Saved, Session, Source, Sweep, SweepResult, TokenLabels, TokenRecord, Top, Value, Values, Verification,
    causal, collection, cone, dataset, generate, lens, noise, op, plan, saved, schema, train, visible,
};
pub use causalcone_jobs::{self as jobs, Error, Result, heat_map, means_table, table};
pub use causalcone_model::{
    Config, Defaulted, Error as ModelError, Footprint, Indices, KeyPolicy, KeyReport, Layout, LoadOptions,
    Model, Positions, Precision, Progress, Report, Site, Target, Tokenizer, Unit, Which, chat, check,
    decoder, memory, silent, store, threads,
};
pub use causalcone_report as report;

#[doc(no_inline)]
pub use causalcone_model::Last;

/// Files that appear whole or not at all.
pub mod files {
    pub use causalcone_files::{Error, Result, write_new, write_whole};
}
