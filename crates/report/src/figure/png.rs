//! SVG to PNG, with the font of this crate and none of the machine's, so that every machine draws the same.

use super::map::at_most;
use crate::Error;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use std::sync::{Arc, LazyLock};

const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// The most pixels of a picture: 256 MB while it is drawn.
const MAX_PIXELS: u64 = 64_000_000;

static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    Arc::new(fonts)
});

/// The document as usvg reads it.
pub(crate) fn parse(svg: &str) -> Result<Tree, Error> {
    let options =
        Options { fontdb: FONTS.clone(), font_family: "DejaVu Sans".to_owned(), ..Options::default() };
    Tree::from_str(svg, &options).map_err(failed)
}

pub(crate) fn draw(svg: &str, scale: f32) -> Result<Vec<u8>, Error> {
    if !scale.is_finite() || scale <= 0.0 {
        return Err(Error::PictureScale { scale });
    }
    let tree = parse(svg)?;
    let [width, height] = [tree.size().width(), tree.size().height()].map(|side| pixels(side * scale));
    at_most(u64::from(width) * u64::from(height), MAX_PIXELS, "pixels")?;
    let mut pixmap = Pixmap::new(width, height).ok_or_else(|| failed("no memory for its pixels"))?;
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(failed)
}

/// A length in whole pixels, at least 1.
fn pixels(length: f32) -> u32 {
    u32::try_from(length.ceil() as i64).unwrap_or(u32::MAX).max(1)
}

fn failed(error: impl Into<Box<dyn std::error::Error>>) -> Error {
    Error::Picture { message: error.into().to_string() }
}
