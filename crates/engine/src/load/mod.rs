//! From experiment files to experiments.

mod autoencoder;
mod build;
mod making;
mod named;
mod op;
mod self_test;
mod train;
mod value;
