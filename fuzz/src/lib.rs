//! Hostile input for every reader of causalcone.
//!
//! A [`Target`] gives its input to one reader and uses what has been read. [`TARGETS`] is the table of them.
//! [`mutate`] makes hostile inputs of valid ones, [`seeds`] finds the valid ones and the faults of the past, and
//! [`guarded`] fails if a run panics, takes long or allocates much.
//!
//! Three drivers use them: `tests/seeds.rs` is part of the ordinary tests, `tests/libfuzzer.rs` searches by coverage, and
//! `tests/hostile_command.rs` runs the command on hostile files. README.md says how to run them.

mod guard;
pub mod mutate;
mod scene;
pub mod seeds;
mod targets;

pub use guard::{MOST_MEMORY, MOST_TIME, guarded, watch_panics};
pub use scene::{Scene, TEMPORARY, copy, repository};
pub use targets::{TARGETS, Target};
