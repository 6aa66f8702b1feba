//! Tidy tables, written as CSV, JSON lines or Parquet.
//!
//! A column has a name and a [`ColumnKind`]; any cell may be empty, and a number that is not finite is empty: no file ever
//! holds the text NaN.
//!
//! ```
//! use causalcone_report::{Cell, Format, ColumnKind, Table};
//!
//! let mut table = Table::new([("layer", ColumnKind::Integer), ("token", ColumnKind::Text), ("value", ColumnKind::Number)])?;
//! table.push([Cell::from(0), Cell::from(" Rome"), Cell::from(0.25)])?;
//! table.push([Cell::from(1), Cell::from(","), Cell::from(f64::NAN)])?;
//!
//! let mut file = Vec::new();
//! table.write(Format::Csv, &mut file)?;
//! assert_eq!(file, b"layer,token,value\n0, Rome,0.25\n1,\",\",\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell;
mod column;
mod column_of;
mod format;
mod parquet_file;
mod rows;

pub use cell::{Cell, Column, ColumnKind};
pub use column_of::ColumnOf;
pub use format::Format;
pub use rows::Table;

use crate::Error;
use causalcone_files::write_whole;
use serde::Serializer;
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

impl Format {
    /// The format that the extension of a file name says.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`], if the name has no extension or an unknown one.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        match path.extension() {
            Some(extension) => extension.to_string_lossy().parse(),
            None => Err(Error::UnknownFormat { given: path.display().to_string() }),
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Takes a format's name in any case.
    fn from_str(given: &str) -> Result<Self, Error> {
        Format::ALL
            .into_iter()
            .find(|format| format.name().eq_ignore_ascii_case(given))
            .ok_or_else(|| Error::UnknownFormat { given: given.to_owned() })
    }
}

impl Table {
    /// Writes the table in a format.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, format: Format, w: impl Write + Send) -> io::Result<()> {
        match format {
            Format::Csv => self.write_csv(w),
            Format::Jsonl => self.write_jsonl(w),
            Format::Parquet => self.write_parquet(w),
        }
    }

    /// Writes the table to a file, whole or not at all, in the format that its name ends with; a file that has the name is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] for another name, [`Error::Write`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let unknown = |_| Error::UnknownFormat { given: path.display().to_string() };
        let format = Format::from_path(path).map_err(unknown)?;
        Ok(write_whole(path, |w| self.write(format, w))?)
    }

    /// Writes the table as [`Format::Csv`].
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_csv(&self, w: impl Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(w);
        csv.write_record(self.columns.iter().map(|column| &column.name))?;
        for row in self.rows() {
            for cell in &row {
                csv.write_field(cell.csv().as_bytes())?;
            }
            csv.write_record(None::<&[u8]>)?;
        }
        csv.flush()
    }

    /// Writes the table as [`Format::Jsonl`].
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_jsonl(&self, mut w: impl Write) -> io::Result<()> {
        for row in self.rows() {
            let names = self.columns.iter().map(|column| &column.name);
            serde_json::Serializer::new(&mut w).collect_map(names.zip(&row))?;
            w.write_all(b"\n")?;
        }
        w.flush()
    }

    /// Writes the table as [`Format::Parquet`].
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_parquet(&self, w: impl Write + Send) -> io::Result<()> {
        parquet_file::write(self, w).map_err(|error| match error {
            parquet::errors::ParquetError::External(inner) => io::Error::other(inner),
            other => io::Error::other(other),
        })
    }
}

#[cfg(test)]
mod tests;
