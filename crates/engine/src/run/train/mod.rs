//! Training: the parameters of interventions fitted to what a model should say.
//!
//! Only the cone runs: the weights are frozen, and rows that no trained edit reaches are computed once and kept
//! ([`Session`](crate::Session)). A [`Training`] is an experiment with a data set, checked; its sweep, if it has
//! one, makes it a search: one fit for each choice of the axes, all on the same kept rows. A [`Trainer`] has
//! computed those; a [`Fit`] goes step by step, can be left at any of them and gone on from a [`Checkpoint`], bit by
//! bit the same.
//!
//! ```
//! use causalcone_engine::train::{Length, Options, Training};
//! use causalcone_engine::{Runtime, Example, Experiment, Op, OpKind};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! let source = exp.open_run("source")?;
//! let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 0).unwrap().value(source);
//! exp.edit(base, Site::BlockOutput.layers(0).at(Last), op)?;
//! exp.set_examples(vec![
//!     Example::new().prompt("base", vec![3, 1, 4]).prompt("source", vec![2, 7, 1]).label(5),
//!     Example::new().prompt("base", vec![1, 6]).prompt("source", vec![1, 8]).label(9),
//! ]);
//! let options = Options { length: Length::Steps(20), learning_rate: 0.05, ..Options::default() };
//! let training = Training::new(&exp, Default::default(), options)?;
//! let trainer = training.trainer(&Runtime::default())?;
//! let mut fit = trainer.fit(0)?;
//! let mut losses = Vec::new();
//! while let Some(step) = fit.step()? {
//!     losses.push(step.loss);
//! }
//! assert!(losses[19] < losses[0]);
//! let trained = fit.experiment()?; // the same edits, with what was learned
//! # assert_eq!(trained.example_count(), Some(2));
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod adam;
mod checkpoint;
mod examples;
mod fit;
mod options;
mod results;
mod scores;
mod training;
mod variables;

pub use adam::Adam;
pub use checkpoint::Checkpoint;
pub use examples::HeldOut;
pub use fit::{Evaluation, Fit, Step};
pub use options::{CustomObjective, Length, Map, Objective, Options, Schedule};
pub use scores::Score;
pub use training::{Trainer, Training};
