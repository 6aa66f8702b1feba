//! Tidy tables, written as CSV, JSON lines or Parquet.
//!
//! A column has a name and a [`Kind`]; any cell may be empty, and a number that is not finite is empty: no file ever
//! holds the text NaN.
//!
//! ```
//! use causalcone_report::{Cell, Format, Kind, Table};
//!
//! let mut table = Table::new([("layer", Kind::Integer), ("token", Kind::Text), ("value", Kind::Number)])?;
//! table.push([Cell::from(0), Cell::from(" Rome"), Cell::from(0.25)])?;
//! table.push([Cell::from(1), Cell::from(","), Cell::from(f64::NAN)])?;
//!
//! let mut file = Vec::new();
//! table.write(Format::Csv, &mut file)?;
//! assert_eq!(file, b"layer,token,value\n0, Rome,0.25\n1,\",\",\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod column;
mod parquet_file;

use crate::Error;
use column::Cells;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

/// What the cells of a column hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A floating-point number of 64 bits.
    Number,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Text => "text",
            Kind::Integer => "an integer",
            Kind::Number => "a number",
        })
    }
}

/// One cell of a table. `From` makes one of text, integers, floats and options of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing; fits any column.
    Empty,
    /// For a column of [`Kind::Text`].
    Text(String),
    /// For a column of [`Kind::Integer`].
    Integer(i64),
    /// For a column of [`Kind::Number`].
    Number(f64),
}

impl Cell {
    /// What the cell holds; `None` if it is empty.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Cell::Empty => None,
            Cell::Text(_) => Some(Kind::Text),
            Cell::Integer(_) => Some(Kind::Integer),
            Cell::Number(_) => Some(Kind::Number),
        }
    }

    /// The text of the cell in a CSV file: numbers with the fewest digits that read back as the same number.
    fn csv(&self) -> Cow<'_, str> {
        match self {
            Cell::Empty => Cow::Borrowed(""),
            Cell::Text(text) => Cow::Borrowed(text),
            Cell::Integer(integer) => Cow::Owned(integer.to_string()),
            Cell::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<i32> for Cell {
    fn from(integer: i32) -> Self {
        Cell::Integer(integer.into())
    }
}

impl From<u32> for Cell {
    fn from(integer: u32) -> Self {
        Cell::Integer(integer.into())
    }
}

impl From<i64> for Cell {
    fn from(integer: i64) -> Self {
        Cell::Integer(integer)
    }
}

impl From<usize> for Cell {
    /// For counts and indices: one beyond 63 bits, which no memory holds, makes an empty cell.
    fn from(index: usize) -> Self {
        i64::try_from(index).map_or(Cell::Empty, Cell::Integer)
    }
}

impl From<f64> for Cell {
    /// A number that is not finite makes an empty cell.
    fn from(number: f64) -> Self {
        if number.is_finite() { Cell::Number(number) } else { Cell::Empty }
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(cell: Option<T>) -> Self {
        cell.map_or(Cell::Empty, Into::into)
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Empty => serializer.serialize_none(),
            Cell::Text(text) => serializer.serialize_str(text),
            Cell::Integer(integer) => serializer.serialize_i64(*integer),
            Cell::Number(number) => serializer.serialize_f64(*number),
        }
    }
}

/// The name and type of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name, as in the file's header.
    pub name: String,
    /// What its cells hold.
    pub kind: Kind,
}

/// The kinds of file a table is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header line. Empty cells and empty texts look the same.
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

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

/// A table with named, typed columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
    cells: Vec<Cells>,
    len: usize,
}

impl Table {
    /// A table without rows.
    ///
    /// # Errors
    /// [`Error::DuplicateColumn`], if two columns have the same name.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Kind)>) -> Result<Self, Error> {
        let mut table = Table { columns: Vec::new(), cells: Vec::new(), len: 0 };
        for (name, kind) in columns {
            let name = name.into();
            if table.columns.iter().any(|column| column.name == name) {
                return Err(Error::DuplicateColumn { name });
            }
            table.columns.push(Column { name, kind });
            table.cells.push(Cells::new(kind));
        }
        Ok(table)
    }

    /// Adds a row, one cell for each column. A number that is not finite is stored as an empty cell.
    ///
    /// # Errors
    /// [`Error::RowWidth`] or [`Error::CellKind`], if the cells do not fit the columns; the table is unchanged then.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) -> Result<(), Error> {
        let row: Vec<Cell> = row.into_iter().map(finite).collect();
        if row.len() != self.columns.len() {
            return Err(Error::RowWidth { expected: self.columns.len(), found: row.len() });
        }
        for (column, cell) in self.columns.iter().zip(&row) {
            if let Some(found) = cell.kind().filter(|found| *found != column.kind) {
                return Err(Error::CellKind { column: column.name.clone(), expected: column.kind, found });
            }
        }
        self.cells.iter_mut().zip(row).for_each(|(cells, cell)| cells.push(cell));
        self.len += 1;
        Ok(())
    }

    /// The columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows, in the order they were added.
    pub fn rows(&self) -> impl Iterator<Item = Vec<Cell>> + '_ {
        (0..self.len).map(|row| self.cells.iter().map(|cells| cells.get(row)).collect())
    }

    /// The cells of a column, by its place; none where there is no such column.
    pub fn column(&self, column: usize) -> impl Iterator<Item = Cell> + '_ {
        self.column_of(column, 0..self.len)
    }

    fn column_of(&self, column: usize, rows: Range<usize>) -> impl Iterator<Item = Cell> + '_ {
        self.cells.get(column).into_iter().flat_map(move |cells| rows.clone().map(move |row| cells.get(row)))
    }

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

/// The cell, empty if it is a number that is not finite.
fn finite(cell: Cell) -> Cell {
    match cell {
        Cell::Number(number) => Cell::from(number),
        other => other,
    }
}

#[cfg(test)]
mod tests;
