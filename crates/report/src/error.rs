//! The one error type of the crate: what was being done, to what, and what would help.
//!
//! ```
//! use causalcone_report::{Error, Format};
//!
//! let error: Error = "xls".parse::<Format>().unwrap_err();
//! assert_eq!(error.to_string(), "\"xls\" is not a table format");
//! assert_eq!(error.hint().as_deref(), Some("use csv, jsonl or parquet"));
//! ```

use crate::table::{ColumnKind, Format};
use std::path::PathBuf;

/// Anything that can go wrong while tables and figures are made and written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A word, or the extension of a file name, that names no [`Format`].
    #[error("{given:?} is not a table format")]
    UnknownFormat {
        /// What was given.
        given: String,
    },
    /// The name of a file that figures are not written as.
    #[error("{}: a figure is written as .svg or .png", path.display())]
    UnknownFigure {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] causalcone_files::Error),
    /// Two columns of a table have the same name.
    #[error("the table has two columns named {name:?}")]
    DuplicateColumn {
        /// The name given twice.
        name: String,
    },
    /// A row does not have one cell for each column.
    #[error("the row has {found} cells, the table {expected} columns")]
    RowWidth {
        /// How many columns the table has.
        expected: usize,
        /// How many cells the row has.
        found: usize,
    },
    /// A cell does not fit the type of its column.
    #[error("column {column:?} holds {expected}, the cell {found}")]
    CellKind {
        /// The column's name.
        column: String,
        /// What the column holds.
        expected: ColumnKind,
        /// What the cell holds.
        found: ColumnKind,
    },
    /// A figure without rows, columns or facets.
    #[error("the figure {title:?} has no {missing}")]
    EmptyFigure {
        /// The figure's title.
        title: String,
        /// What there is none of: "rows", "columns" or "facets".
        missing: &'static str,
    },
    /// A facet does not have one value for each row and column.
    #[error("facet {facet:?} has {found} values, but {rows} rows × {columns} columns")]
    FacetSize {
        /// The facet's title.
        facet: String,
        /// Rows of the figure.
        rows: usize,
        /// Columns of the figure.
        columns: usize,
        /// How many values the facet has.
        found: usize,
    },
    /// A figure with more cells, or a picture with more pixels, than is sensible to draw.
    #[error("the heat map would have {found} {unit}; at most {limit} are drawn")]
    TooLarge {
        /// What is counted: "cells" or "pixels".
        unit: &'static str,
        /// How many there would be.
        found: u64,
        /// How many there may be.
        limit: u64,
    },
    /// A scale for a picture that is not a positive, finite number.
    #[error("{scale} is no scale for a picture")]
    PictureScale {
        /// What was given.
        scale: f32,
    },
    /// The SVG renderer or the PNG encoder failed.
    #[error("drawing the picture: {message}")]
    Picture {
        /// What it said.
        message: String,
    },
}

impl Error {
    /// What the user might do about it, as a phrase to print after the error; `None` where the error says it all.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::UnknownFormat { .. } => {
                let [most @ .., last] = Format::ALL.map(|format| format.to_string());
                Some(format!("use {} or {last}", most.join(", ")))
            }
            Error::UnknownFigure { .. } => Some("end the file name with .svg or .png".to_owned()),
            Error::Write(source) => source.hint(),
            Error::TooLarge { unit: "pixels", .. } => {
                Some("take a smaller scale, or write an SVG".to_owned())
            }
            Error::TooLarge { .. } => {
                Some("sweep fewer layers, positions or tokens in one figure".to_owned())
            }
            Error::PictureScale { .. } => Some("1 is the size of the SVG, 2 is for dense screens".to_owned()),
            _ => None,
        }
    }

    /// Whether what was asked for is at fault (true) or the work failed (false). What is drawn is made by programs: that it
    /// cannot be drawn is not for a user to mend.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        match self {
            Error::UnknownFormat { .. } | Error::UnknownFigure { .. } => true,
            Error::Write(source) => source.is_bad_input(),
            _ => false,
        }
    }
}
