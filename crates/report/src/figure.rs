//! Heat maps: values over rows and columns, in facets that share one colour scale.
//!
//! A [`HeatMap`] is data. It is drawn as SVG, with a tooltip for every cell, as PNG, and, by
//! [`terminal`](crate::terminal), as text. Labels may hold anything: they are shown as [`text`](crate::text) says.
//!
//! ```
//! use causalcone_report::{Axis, Facet, HeatMap, Scale, Tick};
//!
//! let map = HeatMap {
//!     title: "The capital of Spain is".to_owned(),
//!     subtitle: None,
//!     x: Axis { label: "position".to_owned(), ticks: vec![Tick::token("0", "The"), Tick::token("1", " capital")] },
//!     y: Axis { label: "site".to_owned(), ticks: vec![Tick::new("attn_o0"), Tick::new("mlp_o0")] },
//!     facets: vec![Facet {
//!         title: "Rome".to_owned(),
//!         values: vec![Some(0.01), Some(0.02), Some(0.3), None], // attn_o0's row first
//!         ..Facet::default()
//!     }],
//!     value_label: "probability".to_owned(),
//!     scale: Scale::FromZero,
//! };
//! let svg = map.to_svg()?;
//! assert!(svg.contains("<title>mlp_o0, 0 (The): 0.3</title>"));
//! # Ok::<(), causalcone_report::Error>(())
//! ```

mod layout;
mod map;
pub(crate) mod png;
pub(crate) mod svg;

pub(crate) use map::at_most;
pub use map::{Axis, Facet, HeatMap, MAX_CELLS, Tick};

use crate::Error;
use causalcone_files::write_whole;
use std::path::Path;

impl HeatMap {
    /// The figure as an SVG document, the same every time. Sizes are in CSS pixels.
    ///
    /// # Errors
    /// [`Error::EmptyFigure`], [`Error::FacetSize`] or, above [`MAX_CELLS`], [`Error::TooLarge`].
    pub fn to_svg(&self) -> Result<String, Error> {
        let range = self.check()?;
        Ok(svg::draw(self, &range))
    }

    /// The figure as a PNG file of `scale` pixels for a pixel of the SVG, drawn with the crate's own font.
    ///
    /// # Errors
    /// Those of [`HeatMap::to_svg`]; [`Error::PictureScale`], if the scale is not positive and finite;
    /// [`Error::TooLarge`], if the picture would have more than 64 million pixels; [`Error::Picture`], if the renderer
    /// fails.
    pub fn to_png(&self, scale: f32) -> Result<Vec<u8>, Error> {
        png::draw(&self.to_svg()?, scale)
    }

    /// Writes the figure to a file, whole or not at all: an SVG document or, at twice its size, a PNG picture, as the name
    /// ends; a file that has the name is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownFigure`] for another name; those of [`HeatMap::to_png`]; [`Error::Write`] if the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        save(|| self.to_svg(), path.as_ref())
    }
}

/// An SVG document of this crate as a PNG file: [`HeatMap::to_png`] of what is drawn already.
///
/// # Errors
/// Those of [`HeatMap::to_png`].
pub fn picture(svg: &str, scale: f32) -> Result<Vec<u8>, Error> {
    png::draw(svg, scale)
}

/// Writes a figure as an SVG document or a PNG picture. The name is checked before anything is drawn.
pub(crate) fn save(svg: impl FnOnce() -> Result<String, Error>, path: &Path) -> Result<(), Error> {
    let is = |extension: &str| path.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension));
    let bytes = if is("svg") {
        svg()?.into_bytes()
    } else if is("png") {
        picture(&svg()?, 2.0)?
    } else {
        return Err(Error::UnknownFigure { path: path.into() });
    };
    Ok(write_whole(path, |w| w.write_all(&bytes))?)
}

#[cfg(test)]
mod tests;
