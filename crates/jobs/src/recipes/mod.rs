//! Recipes: experiments that everybody runs, made of a few arguments. Each is an [`ExperimentFile`] and nothing else, so that
//! what a one-line command does can be printed, changed and run again.
//!
//! ```
//! use causalcone_jobs::recipes::Patch;
//!
//! # fn main() -> Result<(), causalcone_jobs::Error> {
//! let patch = Patch::new("Mary gave a drink to", "John gave a drink to", [" Mary", " John"]);
//! assert!(patch.file()?.to_toml()?.contains("value = { run = \"source\" }"));
//! # Ok(())
//! # }
//! ```
//!
//! [`ExperimentFile`]: causalcone_engine::ExperimentFile

mod choice;
mod patch;
mod unedited;

pub use choice::{HeadChoice, LayerChoice, PositionChoice};
pub use patch::Patch;
pub use unedited::unedited;
