//! The cells of one column, packed: a sweep has millions of them.

use super::cell::{Cell, ColumnKind};
use std::collections::HashMap;
use std::sync::Arc;

/// The cells of a column, each in 4 to 9 bytes. A text is stored once, however many cells have it.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    Text(Texts),
    /// Numbers, and whether a cell is there.
    Integer(Vec<i64>, Vec<bool>),
    /// A cell that is not there is NaN, which no cell can hold.
    Number(Vec<f64>),
}

impl PartialEq for Cells {
    /// Cells that are not there are equal.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            (Self::Integer(one, there), Self::Integer(other, also)) => one == other && there == also,
            (Self::Number(one), Self::Number(other)) => {
                one.len() == other.len()
                    && one.iter().zip(other).all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Texts {
    /// By cell, one more than the place of its text; 0 is no text.
    cells: Vec<u32>,
    texts: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
}

impl Texts {
    fn push(&mut self, text: String) {
        let place = match self.places.get(text.as_str()) {
            Some(place) => *place,
            None => {
                let text: Arc<str> = text.into();
                self.texts.push(text.clone());
                let place = u32::try_from(self.texts.len()).unwrap_or(0);
                self.places.insert(text, place);
                place
            }
        };
        self.cells.push(place);
    }

    fn get(&self, row: usize) -> Option<&str> {
        let place = self.cells.get(row)?.checked_sub(1)?;
        self.texts.get(place as usize).map(|text| &**text)
    }
}

impl Cells {
    pub(super) fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text => Self::Text(Texts::default()),
            ColumnKind::Integer => Self::Integer(Vec::new(), Vec::new()),
            ColumnKind::Number => Self::Number(Vec::new()),
        }
    }

    /// Adds a cell of the column's kind; any other counts as empty.
    pub(super) fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Self::Text(texts), Cell::Text(text)) => texts.push(text),
            (Self::Text(texts), _) => texts.cells.push(0),
            (Self::Integer(numbers, there), cell) => {
                let number = if let Cell::Integer(number) = cell { Some(number) } else { None };
                numbers.push(number.unwrap_or_default());
                there.push(number.is_some());
            }
            (Self::Number(numbers), Cell::Number(number)) => numbers.push(number),
            (Self::Number(numbers), _) => numbers.push(f64::NAN),
        }
    }

    /// The cell of a row; empty past the last.
    pub(super) fn get(&self, row: usize) -> Cell {
        match self {
            Self::Text(texts) => texts.get(row).into(),
            Self::Integer(numbers, there) => {
                let is_there = there.get(row).copied().unwrap_or_default();
                numbers.get(row).filter(|_| is_there).copied().into()
            }
            Self::Number(numbers) => numbers.get(row).copied().into(),
        }
    }
}
