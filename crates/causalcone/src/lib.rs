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
//! Every layer and position of it, one at a time, as a table and as a picture:
//!
//! ```
//! # let place = tempfile::tempdir()?;
//! # std::env::set_current_dir(&place)?;
//! use causalcone::prelude::*;
//!
//! let model = Model::load("smollm2")?;
//! let mut exp = Experiment::new(&model);
//! let spain = exp.run("The capital of Spain is")?;
//! exp.edit(spain, Site::MlpOutput.layers(..).at(..), Op::add(model.embedding(" Rome")?))?;
//! exp.set_tokens(vec![model.token_id(" Rome")?])?;
//!
//! let swept = exp.sweep().layers(Each).positions(Each).run()?;
//! swept.table().save("cells.csv")?;
//! swept.heat_map("adding Rome").save("heatmap.png")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The types one meets: [`Model`]; [`Site`], a named activation, and [`Target`], which part of it;
//! [`Experiment`] with its [`Op`]s and [`Value`]s; [`ExperimentExt`], which sweeps and trains it;
//! [`SweepResult`]; [`Example`], one of many prompts; [`ExperimentFile`], the same in writing;
//! [`table`], [`means_table`] and [`heat_map`] for results; [`jobs`], work that leaves results in a folder. [`Tensor`] is
//! of [`candle`], which is re-exported: a program need not depend on its exact version.
//!
//! # Features
//!
//! - `chat` (on by default): chat templates. They need one exact version of minijinja; without the feature,
//!   [`Model::chat`] returns an error that names it.
//! - `hub`: downloads from the Hugging Face Hub.

pub use candle_core as candle;
#[doc(no_inline)]
pub use candle_core::Tensor;
pub use causalcone_engine::cone::Work;
pub use causalcone_engine::plan::{Coordinates, Place};
pub use causalcone_engine::{
    Agreement, Align, Alignment, Answer, AnswerProb, Collected, Collection, Column, ControlVector, Device,
    Distribution, Each, EditId, EditSpec, Error as EngineError, Example, ExecutorKind, Experiment,
    ExperimentFile, Explanation, Joint, Journal, LayerAxis, Lens, Mean, MeanToken, Memo, Method, Metric,
    MissingSpace, Op, OpKind, Outcome, Outline, PreparedSweep, Prompt, Refused, RunId, Runtime, Saved,
    Source, Sweep, SweepResult, TokenLabels, TokenRecord, Top, Value, Values, Verification, causal,
    collection, dataset, generate, lens, noise, op, saved, schema, train, visible,
};
pub use causalcone_jobs::train::Trained;
pub use causalcone_jobs::{
    self as jobs, Error, ExperimentExt, Result, SweepBuilder, Swept, heat_map, means_table, table,
};
pub use causalcone_model::{
    Config, Defaulted, Error as ModelError, Footprint, Indices, KeyPolicy, KeyReport, Layout, LoadOptions,
    Model, Positions, Precision, Progress, Report, Site, Target, Tokenizer, Unit, Which, chat, check, memory,
    silent, store, threads,
};
pub use causalcone_report as report;

#[doc(no_inline)]
pub use causalcone_model::Last;

/// What most programs use: `use causalcone::prelude::*`.
pub mod prelude {
    pub use crate::generate::{Generation, Steps};
    pub use crate::train::{HeldOut, Length, Options as TrainOptions};
    pub use crate::{
        Each, EditSpec, Example, Experiment, ExperimentExt, Last, LayerAxis, Method, Metric, Model, Op,
        OpKind, Positions, Runtime, Saved, Site, Sweep, Tensor, Value,
    };
}

/// Files that appear whole or not at all.
pub mod files {
    pub use causalcone_files::{Error, IfExists, Result, write_new, write_whole};
}
