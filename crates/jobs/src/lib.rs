//! Jobs: work that leaves results in a folder, as the command, the Python package and other programs run it.
//!
//! A job takes a [`Source`] (an experiment file and the model it is for), a [`Folder`] that was claimed for its results, its
//! options, a [`Runtime`](causalcone_engine::Runtime) and an [`Observer`]. It writes tables, figures and a record of what ran,
//! and returns a summary that can be written as JSON. A job never prints; it stops where the runtime's progress says so, and a
//! folder claimed with [`Again::Resume`] continues what was interrupted.
//!
//! | job | results |
//! |---|---|
//! | [`sweep::run`] | every cell of a sweep, with a heat map |
//! | [`collect::run`] | activations over a data set |
//! | [`train::run`] | trained edits; [`train::fit`] trains in memory |
//! | [`texts::run`] | generated texts |
//! | [`lens::run`] | what every layer says |
//!
//! [`table`], [`means_table`] and [`heat_map`] are made of the result of any sweep. Where no folder is wanted,
//! [`ExperimentExt`] sweeps and trains in memory.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod collect;
mod error;
mod figure;
mod fitting;
mod fluent;
mod folder;
mod identity;
pub mod lens;
mod observer;
pub mod pairs;
mod ranking;
pub mod recipes;
mod record;
mod results;
mod source;
pub mod strength_report;
pub mod sweep;
pub mod texts;
mod tidy;
mod title;
pub mod train;

pub use error::{Error, FolderError, Result};
pub use figure::heat_map;
pub use fitting::Logged;
pub use fluent::{ExperimentExt, SweepBuilder, Swept};
pub use folder::{Again, Folder, shown};
pub use observer::{Observer, Silent};
pub use ranking::{Strongest, strongest};
pub use record::{ModelRecord, Summary, Warning};
pub use results::Results;
pub use source::{LeftOut, Source};
pub use tidy::{means_table, table};
