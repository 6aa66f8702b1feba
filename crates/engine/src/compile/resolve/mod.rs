//! Resolving edits.

mod expanded;
mod resolver;
mod value;

pub(crate) use expanded::{Expanded, LayerPlaces, Selection};
pub(crate) use resolver::{Resolve, Resolver};
