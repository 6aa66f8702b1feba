//! The kinds of file that tables are written to.

use std::fmt;

/// The kinds of file a table is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header line. Empty cells and empty texts look the same.
    #[default]
    Csv,
    /// JSON lines: one object a row, empty cells are null.
    Jsonl,
    /// Parquet, uncompressed, without Arrow's schema: UTF8, INT64 and DOUBLE columns, all optional.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 3] = [Format::Csv, Format::Jsonl, Format::Parquet];

    /// The format's name, which is also the extension of its files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
