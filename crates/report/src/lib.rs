//! Tidy tables, heat maps, and files that appear whole or not at all.
//!
//! The crate knows nothing of models. What it has:
//! - [`Table`]: typed columns and rows of [`Cell`]s, written in a [`Format`]: CSV, JSON lines or Parquet;
//! - [`HeatMap`]: rows, columns and [`Facet`]s of values, drawn as SVG or PNG, or by [`terminal::render`] as text;
//! - [`Chart`]: curves over steps, in [`Panel`]s of [`Series`];
//! - [`write_whole`]: a file under its final name only once all of it is on the disk;
//! - [`mod@text`]: labels that show spaces and control characters;
//! - [`Error`]: the one error type, with a [hint](Error::hint) where there is something to try.
//!
//! Pictures are drawn with the bundled DejaVu Sans (`assets/LICENSE-DejaVu.txt`), which has no Chinese, Japanese or
//! Korean glyphs and no emoji: a PNG shows boxes for these; an SVG uses whatever fonts its viewer has.
//!
//! ```
//! use causalcone_report::{Axis, Cell, Facet, Format, HeatMap, Kind, Scale, Table, Tick, write_whole};
//!
//! let probabilities = [0.1, 0.7, 0.2, 0.3]; // two layers × two positions
//!
//! let mut table = Table::new([("layer", Kind::Integer), ("position", Kind::Integer), ("value", Kind::Number)])?;
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
//! let directory = tempfile::tempdir()?;
//! let cells = directory.path().join("cells.csv");
//! write_whole(&cells, |w| table.write(Format::Csv, w))?;
//! let svg = map.to_svg()?;
//! write_whole(directory.path().join("heatmap.svg"), |w| w.write_all(svg.as_bytes()))?;
//! assert_eq!(std::fs::read_to_string(cells)?, "layer,position,value\n0,0,0.1\n0,1,0.7\n1,0,0.2\n1,1,0.3\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod atomic;
mod colour;
pub mod error;
pub mod figure;
pub mod lines;
pub mod page;
mod scale;
pub mod table;
pub mod terminal;
pub mod text;

pub use atomic::write_whole;
pub use error::Error;
pub use figure::{Axis, Facet, HeatMap, Tick, picture};
pub use lines::{Chart, Panel, Series, Span};
pub use scale::{Centre, Scale};
pub use table::{Cell, Column, Format, Kind, Table};
