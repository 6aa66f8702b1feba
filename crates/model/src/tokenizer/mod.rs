//! Text to token ids and back, the same ids as the model's own tokenizer gives.
//!
//! The `tokenizers` crate does the splitting; what it is given is checked here first
//! ([`Recipe`](recipe::Recipe)), because it panics on some files and silently mis-splits on others. Truncation and
//! padding that a file asks for are never applied. The start-of-text token (BOS) is explicit:
//! [`Tokenizer::encode`] never adds one, [`Tokenizer::prompt`] adds at most one.

mod beside;
mod class;
mod config;
mod directory;
mod encode;
mod from_json;
mod from_model;
mod from_vocab;
mod gguf;
mod object;
mod pieces;
mod proto;
mod recipe;
mod words;

pub use directory::TokenizerFiles;
pub use encode::Tokenizer;
pub use recipe::Spelling;
