//! Cells, and the columns they are in.

use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// What the cells of a column hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// UTF-8 text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A floating-point number of 64 bits.
    Number,
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnKind::Text => "text",
            ColumnKind::Integer => "an integer",
            ColumnKind::Number => "a number",
        })
    }
}

/// One cell of a table. `From` makes one of text, integers, floats and options of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing; fits any column.
    Empty,
    /// For a column of [`ColumnKind::Text`].
    Text(String),
    /// For a column of [`ColumnKind::Integer`].
    Integer(i64),
    /// For a column of [`ColumnKind::Number`].
    Number(f64),
}

impl Cell {
    /// What the cell holds; `None` if it is empty.
    #[must_use]
    pub fn kind(&self) -> Option<ColumnKind> {
        match self {
            Cell::Empty => None,
            Cell::Text(_) => Some(ColumnKind::Text),
            Cell::Integer(_) => Some(ColumnKind::Integer),
            Cell::Number(_) => Some(ColumnKind::Number),
        }
    }

    /// The text of the cell in a CSV file: numbers with the fewest digits that read back as the same number.
    pub(super) fn csv(&self) -> Cow<'_, str> {
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
    pub kind: ColumnKind,
}
