//! TODO
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod atomic;
mod colour;
mod error;
pub mod figure;
mod scale;
pub mod table;
pub mod terminal;
pub mod text;

pub use atomic::write_whole;
pub use error::Error;
pub use figure::{Axis, Facet, HeatMap, Tick};
pub use scale::Scale;
pub use table::{Cell, Column, Format, Kind, Table};
