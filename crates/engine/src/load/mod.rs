//! From experiment files to experiments.

mod autoencoder;
mod build;
mod op;
mod train;
mod value;
