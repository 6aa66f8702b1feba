//! Tables of any items: each column has a name and a function that computes its cell from an item.

use super::cell::{Cell, Column, ColumnKind};
use super::column::Cells;
use super::rows::Table;
use std::collections::HashSet;

/// A column: a name, and a function that computes the cell of an item `R`.
pub struct ColumnOf<'a, R> {
    name: &'static str,
    kind: ColumnKind,
    /// Of the column's kind, or empty.
    cell: Box<dyn Fn(&R) -> Cell + 'a>,
}

impl<'a, R> ColumnOf<'a, R> {
    /// A column of texts.
    pub fn text<T: Into<String>>(name: &'static str, of: impl Fn(&R) -> Option<T> + 'a) -> Self {
        let cell = move |row: &R| of(row).map(Into::<String>::into).into();
        Self { name, kind: ColumnKind::Text, cell: Box::new(cell) }
    }

    /// A column of whole numbers; one beyond 63 bits makes an empty cell.
    pub fn integer<I: TryInto<i64>>(name: &'static str, of: impl Fn(&R) -> Option<I> + 'a) -> Self {
        let cell = move |row: &R| of(row).and_then(|integer| integer.try_into().ok()).into();
        Self { name, kind: ColumnKind::Integer, cell: Box::new(cell) }
    }

    /// A column of numbers; one that is not finite makes an empty cell.
    pub fn number(name: &'static str, of: impl Fn(&R) -> Option<f64> + 'a) -> Self {
        Self { name, kind: ColumnKind::Number, cell: Box::new(move |row| of(row).into()) }
    }
}

impl Table {
    /// A table with one row for each item. The names of the columns must differ: debug builds check it, release builds leave
    /// out the later column.
    ///
    /// ```
    /// use causalcone_report::{ColumnOf, Table};
    ///
    /// let columns = vec![
    ///     ColumnOf::text("word", |word: &&str| Some(*word)),
    ///     ColumnOf::integer("letters", |word: &&str| Some(word.len())),
    /// ];
    /// let table = Table::of(columns, ["Rome", "Madrid"]);
    /// let mut csv = Vec::new();
    /// table.write_csv(&mut csv)?;
    /// assert_eq!(csv, b"word,letters\nRome,4\nMadrid,6\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn of<R>(mut columns: Vec<ColumnOf<'_, R>>, rows: impl IntoIterator<Item = R>) -> Self {
        let mut seen = HashSet::new();
        let count = columns.len();
        columns.retain(|column| seen.insert(column.name));
        debug_assert_eq!(count, columns.len(), "columns of the same name");
        let mut cells: Vec<Cells> = columns.iter().map(|column| Cells::new(column.kind)).collect();
        let mut len = 0;
        for row in rows {
            cells.iter_mut().zip(&columns).for_each(|(cells, column)| cells.push((column.cell)(&row)));
            len += 1;
        }
        let columns = columns.iter().map(|column| Column { name: column.name.into(), kind: column.kind });
        Table { columns: columns.collect(), cells, len }
    }
}
