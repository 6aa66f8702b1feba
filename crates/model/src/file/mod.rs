//! Reading untrusted files: everything is bounded by the file's size before it is believed.
//!
//! The libraries below us are no security boundary: [`gguf`] and [`safetensors`] check a whole
//! header themselves before any byte of it reaches a tensor library, and [`Weights`] then reads
//! tensors by position, so a file that shrinks meanwhile is an error and not a crash. So it is with NumPy's
//! arrays and with what torch.save writes, whose pickles are read and never run.

mod archive;
mod data_file;
mod entry;
pub mod gguf;
pub mod json;
pub(crate) mod keys;
mod npy;
mod pickle;
mod precision;
pub mod safetensors;
pub(crate) mod split;
pub(crate) mod torch;
mod weights;

pub use data_file::DataFile;
pub(crate) use entry::Form;
pub use entry::{Encoding, Entry, Order};
pub use precision::Precision;
pub(crate) use weights::Stored;
pub use weights::Weights;
