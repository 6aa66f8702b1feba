//! A heat map as data, and what one that can be drawn must have.

use crate::Error;
use crate::scale::{Range, Scale};
use crate::text;

/// The most cells a figure may have, over all facets.
pub const MAX_CELLS: usize = 500_000;

/// A heat map. Values are read row by row, from the first row, which is drawn at the bottom.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    /// The heading; may be empty.
    pub title: String,
    /// A line of explanation below the title.
    pub subtitle: Option<String>,
    /// The columns, left to right.
    pub x: Axis,
    /// The rows, bottom to top.
    pub y: Axis,
    /// The panels, one for each token or metric; at least one.
    pub facets: Vec<Facet>,
    /// What the values are, with their unit: "probability", "logit difference".
    pub value_label: String,
    /// How values become colours, in all facets alike.
    pub scale: Scale,
}

/// One axis of a heat map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What the axis is: "position", "layer"; may be empty.
    pub label: String,
    /// One for each row or column; at least one.
    pub ticks: Vec<Tick>,
}

/// The name of a row or column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The name: a position, a site.
    pub label: String,
    /// The token there, as raw text, with its leading space.
    pub token: Option<String>,
}

impl Tick {
    /// A name.
    #[must_use]
    pub fn new(label: impl Into<String>) -> Self {
        Tick { label: label.into(), token: None }
    }

    /// A name and the raw text of the token there.
    #[must_use]
    pub fn token(label: impl Into<String>, token: impl Into<String>) -> Self {
        Tick { label: label.into(), token: Some(token.into()) }
    }

    /// The whole name, for tooltips.
    pub(crate) fn whole(&self) -> String {
        let label = text::prose(&self.label);
        match &self.token {
            Some(token) => format!("{label} ({})", text::token(token)),
            None => label,
        }
    }
}

/// One panel of a heat map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facet {
    /// What the panel is of; may be empty. Pass a token through [`text::token`] to show its spaces.
    pub title: String,
    /// One value for each row and column, the first row first. What is `None` or not finite is drawn as empty.
    pub values: Vec<Option<f64>>,
    /// A word to be written in each cell, such as the token whose value it is, in the order of the values; none if
    /// empty. As titles are: a token should have passed through [`text::token`].
    pub words: Vec<String>,
}

impl Facet {
    /// The value of a cell, if it has a finite one.
    fn value(&self, index: usize) -> Option<f64> {
        self.values.get(index).copied().flatten().filter(|value| value.is_finite())
    }
}

impl HeatMap {
    pub(crate) fn rows(&self) -> usize {
        self.y.ticks.len()
    }

    pub(crate) fn columns(&self) -> usize {
        self.x.ticks.len()
    }

    /// The value of a cell of a facet, if it has a finite one.
    pub(crate) fn value(&self, facet: &Facet, row: usize, column: usize) -> Option<f64> {
        facet.value(row * self.columns() + column)
    }

    /// Refuses a figure that cannot be drawn; says what range of values it shows.
    pub(crate) fn check(&self) -> Result<Range, Error> {
        let sizes = [("rows", self.rows()), ("columns", self.columns()), ("facets", self.facets.len())];
        if let Some((missing, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(Error::EmptyFigure { title: self.title.clone(), missing });
        }
        let cells = self.rows().saturating_mul(self.columns());
        for facet in &self.facets {
            let words = if facet.words.is_empty() { cells } else { facet.words.len() };
            if let Some(found) = [facet.values.len(), words].into_iter().find(|found| *found != cells) {
                let (rows, columns) = (self.rows(), self.columns());
                return Err(Error::FacetSize { facet: facet.title.clone(), rows, columns, found });
            }
        }
        at_most(cells.saturating_mul(self.facets.len()) as u64, MAX_CELLS as u64, "cells")?;
        let values = self.facets.iter().flat_map(|facet| &facet.values);
        let finite = values.flatten().copied().filter(|value| value.is_finite());
        Ok(Range::of(self.scale, finite))
    }

    /// The words of all facets, as they are shown.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> + '_ {
        self.facets.iter().flat_map(|facet| &facet.words).map(|word| text::prose(word))
    }

    /// Whether a cell of any facet has no value.
    pub(crate) fn has_empty_cells(&self) -> bool {
        let mut values = self.facets.iter().flat_map(|facet| &facet.values);
        values.any(|value| value.is_none_or(|value| !value.is_finite()))
    }
}

/// Refuses more than `limit` of something.
pub(crate) fn at_most(found: u64, limit: u64, unit: &'static str) -> Result<(), Error> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { unit, found, limit })
}
