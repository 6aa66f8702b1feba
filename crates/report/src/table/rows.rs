//! A table in memory: its columns, and the rows that are added to them.

use super::cell::{Cell, Column, ColumnKind};
use super::column::Cells;
use crate::Error;
use std::ops::Range;

/// A table with named, typed columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) cells: Vec<Cells>,
    pub(super) len: usize,
}

impl Table {
    /// A table without rows.
    ///
    /// # Errors
    /// [`Error::DuplicateColumn`], if two columns have the same name.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, ColumnKind)>) -> Result<Self, Error> {
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

    pub(super) fn column_of(&self, column: usize, rows: Range<usize>) -> impl Iterator<Item = Cell> + '_ {
        self.cells.get(column).into_iter().flat_map(move |cells| rows.clone().map(move |row| cells.get(row)))
    }
}

/// The cell, empty if it is a number that is not finite.
fn finite(cell: Cell) -> Cell {
    match cell {
        Cell::Number(number) => Cell::from(number),
        other => other,
    }
}
