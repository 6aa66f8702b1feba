//! The cone executor: only rows that an edit can reach and a read can see, each once.
//!
//! It follows a [`ConePlan`](crate::cone::ConePlan): batch by batch, block by block, all live rows of all runs in one
//! matrix, one product a weight. Attention finds keys and values by index, so that what runs share is never copied.

mod apply_edits;
mod attention;
mod executor;
mod job;
mod memo;
mod pass;
mod readout;
mod run;
mod session;
mod state;
mod table;

pub use executor::Cone;
pub(super) use executor::LEAST;
pub use memo::Memo;
pub use session::Session;
