//! A model's tensors as the headers of its files describe them.

use super::size::Tally;

/// What the headers of a model's files say of its tensors.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(crate) tally: Tally,
    /// The name of the token embedding, which is vocab × width.
    pub(crate) embedding: String,
}
