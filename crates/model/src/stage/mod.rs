//! A block as data: its stages, what each of them computes, and what it reads.
//!
//! [`Stages`] is the only description of a block. The decoder walks it, and everything that has to know how tensors depend
//! on one another is derived from it: how far an edit reaches, which rows a read needs, how much work that is, which sites a
//! family has. A family with another block is another list of stages.
//!
//! ```
//! use causalcone_model::Site;
//! use causalcone_model::stage::{Halves, Kernel, Norms, Stages};
//!
//! let block = Stages::decoder(Norms::Before, Halves::InTurn, true);
//! let output = block.find(Site::MlpOutput).unwrap();
//! assert!(matches!(block[output].kernel, Kernel::Linear(_)));
//! assert_eq!(block[block[output].reads[0].stage].site, Some(Site::MlpHidden));
//! ```

mod builder;
mod list;
mod standard;

pub use builder::Builder;
pub use list::{Attention, ENTERING, Kernel, Matrix, Mixing, Read, Stage, Stages};
pub use standard::{Halves, Norms};
