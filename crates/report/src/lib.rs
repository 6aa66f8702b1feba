//! Tidy tables and heat maps.
//!
//! The crate knows nothing of models. What it has:
//! - [`Table`]: typed columns and rows of [`Cell`]s, written in a [`Format`]: CSV, JSON lines or Parquet;
//! - [`HeatMap`]: rows, columns and [`Facet`]s of values, drawn as SVG or PNG, or by [`terminal::render`] as text;
//! - [`Chart`]: curves over steps, in [`Panel`]s of [`Series`];
//! - [`mod@text`]: labels that show spaces and control characters;
//! - [`Error`]: the one error type, with a [hint](Error::hint) where there is something to try.
//!
//! Pictures are drawn with the bundled DejaVu Sans (`assets/LICENSE-DejaVu.txt`), which has no Chinese, Japanese or
//! Korean glyphs and no emoji: a PNG shows boxes for these; an SVG uses whatever fonts its viewer has.
//!
//! ```
//! use causalcone_report::{Axis, Cell, Facet, Format, HeatMap, ColumnKind, Scale, Table, Tick};
//!
//! let probabilities = [0.1, 0.7, 0.2, 0.3]; // two layers × two positions
//!
//! let mut table = Table::new([("layer", ColumnKind::Integer), ("position", ColumnKind::Integer), ("value", ColumnKind::Number)])?;
//! for (cell, value) in (0_u32..).zip(probabilities) {
//!     table.push([Cell::from(cell / 2), Cell::from(cell % 2), Cell::from(value)])?;
//! }
//! let map = HeatMap {
//!     title: "The capital".to_owned(),
//!     subtitle: None,
//!     x: Axis { label: "position".to_owned(), ticks: vec![Tick::token("0", "The"), Tick::token("1", " capital")] },
//!     y: Axis { label: "layer".to_owned(), ticks: vec![Tick::new("0"), Tick::new("1")] },
//!     facets: vec![Facet { title: "_Rome".to_owned(), values: probabilities.map(Some).to_vec(), ..Facet::default() }],
//!     value_label: "probability".to_owned(),
//!     scale: Scale::FromZero,
//! };
//!
//! let mut cells = Vec::new();
//! table.write(Format::Csv, &mut cells)?;
//! assert_eq!(String::from_utf8(cells)?, "layer,position,value\n0,0,0.1\n0,1,0.7\n1,0,0.2\n1,1,0.3\n");
//! assert!(map.to_svg()?.starts_with("<svg"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod chart;
mod colour;
pub mod error;
pub mod figure;
pub mod page;
mod scale;
pub mod table;
pub mod terminal;
pub mod text;

pub use chart::{Chart, Panel, Series, Span};
pub use error::Error;
pub use figure::{Axis, Facet, HeatMap, Tick, picture};
pub use scale::{Centre, Scale};
pub use table::{Cell, Column, ColumnKind, ColumnOf, Format, Table};
