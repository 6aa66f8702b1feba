//! What users run: single experiments, sweeps, activations of data sets, statistics, trainings, texts, lenses.

pub(crate) mod attribution;
pub(crate) mod collect;
pub mod collection;
pub(crate) mod explain;
pub mod generate;
pub(crate) mod journal;
pub mod lens;
pub(crate) mod means;
pub(crate) mod prepared;
pub(crate) mod single;
pub mod statistics;
mod sweep;
pub mod train;
pub(crate) mod verify;
