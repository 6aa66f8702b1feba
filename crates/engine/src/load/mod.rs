//! From experiment files to experiments.

mod autoencoder;
mod build;
mod making;
mod named;
mod op;
mod train;
mod value;
