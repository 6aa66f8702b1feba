//! Executors: from a plan to readings.

mod cone;
mod executor;
mod memory;
mod reference;
mod runtime;

pub use cone::{Cone, Memo, Session};
pub use executor::{Executor, Sink};
pub(crate) use executor::{Tell, Ticker, go_on, run_cells};
pub use memory::half_of_free_memory;
pub use reference::Reference;
pub use runtime::{Device, ExecutorKind, Runtime};
