//! Work that leaves results in a folder, and what is made of results: tables and heat maps.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod figure;
mod tidy;

pub use figure::heat_map;
pub use tidy::{means_table, table};
