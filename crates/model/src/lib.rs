//! Language models as files on disk, and as a decoder one can look into.
//!
//! [`Model::load`] finds and reads a model; its [`decoder`](Model::decoder) runs prompts stage by
//! stage and names every activation on the way ([`Site`]); [`Target`] is how one writes down which
//! of them is meant.
//!
//! ```
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;                       // for instance "smollm2"
//! let ids = model.prompt("The capital", None)?;
//! let target = Site::MlpOutput.layers(..).at(Last);
//! assert_eq!(target.site.name(), "mlp_output");
//! assert!(ids.len() > 1);
//! # Ok::<(), causalcone_model::Error>(())
//! ```
//!
//! # Features
//!
//! - `chat` (on by default): chat templates. They need one exact version of minijinja; without the feature there is no
//!   minijinja, and [`Model::chat`] returns an error that names the feature ([`chat`]).
//! - `hub`: downloads from the Hugging Face Hub.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
pub mod check;
mod config;
pub mod decoder;
mod eos_ids;
mod error;
mod families;
pub mod file;
mod layout;
mod load;
pub mod memory;
mod model;
mod paths;
mod progress;
mod site;
pub mod stage;
pub mod store;
pub mod threads;
mod tokenizer;

/// Conversations, and the templates that models come with for them.
#[doc(inline)]
pub use causalcone_chat as chat;

pub use address::{Indices, Positions, Target, Which};
pub use config::{Bias, Config, Norm, PositionEncoding};
pub use error::{Error, LONGEST_MESSAGE, Result, nearest, shortened};
pub use file::Precision;
pub use file::keys::{Defaulted, KeyPolicy, KeyReport};
pub use layout::Layout;
pub use load::{Footprint, LoadOptions};
pub use model::Model;
pub use progress::{Progress, Report, Unit, silent};
pub use site::{Row as SiteRow, Site, Width};
pub use tokenizer::{Spelling, Tokenizer, TokenizerFiles};

#[doc(no_inline)]
pub use address::Positions::Last;
