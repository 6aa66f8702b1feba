//! Line charts: one or several curves over steps, in panels one under the other.
//!
//! ```
//! use causalcone_report::{Chart, Panel, Series, Span};
//!
//! let losses = (0..50).map(|step| (step as f64, 2.0 * (-step as f64 / 10.0).exp())).collect();
//! let chart = Chart {
//!     title: "training".to_owned(),
//!     subtitle: None,
//!     x_label: "step".to_owned(),
//!     panels: vec![Panel {
//!         y_label: "loss".to_owned(),
//!         span: Span::FromZero,
//!         series: vec![Series { name: "batch".to_owned(), points: losses }],
//!     }],
//! };
//! assert!(chart.to_svg()?.starts_with("<svg"));
//! # Ok::<(), causalcone_report::Error>(())
//! ```

use crate::Error;
use crate::figure::svg::{Anchor, LABEL, LINE, MIDDLE, Out, Style, TICK, escaped, px};
use crate::figure::{at_most, png, save};
use crate::scale::{BarTick, log_ticks, ticks};
use crate::text;
use std::path::Path;

/// The most points of a chart that are drawn.
pub const MAX_POINTS: u64 = 1_000_000;

const WIDTH: f64 = 560.0;
const PANEL_HEIGHT: f64 = 150.0;
const GAP: f64 = 26.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 110.0;
const MARGIN: f64 = 16.0;
const TITLE_SIZE: f64 = 15.0;
/// Told apart by those who see few colours, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
/// For curves that have no colour of their own left.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"5 2\"", " stroke-dasharray=\"1.5 1.5\""];

/// A line chart.
#[derive(Debug, Clone, Default)]
pub struct Chart {
    /// What it is of.
    pub title: String,
    /// More about it.
    pub subtitle: Option<String>,
    /// What runs along x, in all panels.
    pub x_label: String,
    /// The panels, from the top.
    pub panels: Vec<Panel>,
}

/// Curves that share a vertical axis.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// What the axis is of.
    pub y_label: String,
    /// What the axis goes over.
    pub span: Span,
    /// The curves.
    pub series: Vec<Series>,
}

/// What a vertical axis goes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Span {
    /// From the least to the greatest number.
    #[default]
    Data,
    /// The same, and 0.
    FromZero,
    /// From the least to the greatest, in equal steps for equal ratios; numbers that are not above 0 are left out.
    Log,
}

impl Span {
    /// Where a number stands on the axis, in no unit.
    fn place(self, y: f64) -> f64 {
        if self == Self::Log { y.log10() } else { y }
    }

    fn ticks(self, low: f64, high: f64) -> Vec<BarTick> {
        if self == Self::Log { log_ticks(low, high, 6) } else { ticks(low, high, 5) }
    }
}

/// A curve. Points that are not finite are left out.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Its points, in the order of x.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

impl Chart {
    /// The figure as an SVG document, the same every time. Sizes are in CSS pixels.
    ///
    /// # Errors
    /// [`Error::EmptyFigure`] where there is no point; [`Error::TooLarge`] above [`MAX_POINTS`].
    pub fn to_svg(&self) -> Result<String, Error> {
        let of_panel = |panel: &'_ Panel| {
            panel.series.iter().flat_map(|series| panel.points(series)).collect::<Vec<_>>()
        };
        let points = || self.panels.iter().flat_map(of_panel);
        let count = points().count();
        if count == 0 {
            return Err(Error::EmptyFigure { title: self.title.clone(), missing: "points" });
        }
        at_most(count as u64, MAX_POINTS, "points")?;
        let across = ends(points().map(|(x, _)| x), false);
        let title = text::shorten_pixels(&text::prose(&self.title), WIDTH - 2.0 * MARGIN, TITLE_SIZE);
        let subtitle = self.subtitle.as_deref().map(text::prose).unwrap_or_default();
        let top = MARGIN + TITLE_SIZE + if subtitle.is_empty() { 18.0 } else { 36.0 };
        let height = top + self.panels.iter().map(|panel| panel.height() + GAP).sum::<f64>() + 26.0;
        let mut out = Out(String::new());
        out.begin((WIDTH, height), &text::prose(&self.title));
        let heading = Style { size: TITLE_SIZE, anchor: Anchor::Start, ..TICK };
        out.text(heading, MARGIN, MARGIN + TITLE_SIZE * 0.76, &title);
        let second = text::shorten_pixels(&subtitle, WIDTH - 2.0 * MARGIN, 11.0);
        out.text(Style { size: 11.0, ..heading }, MARGIN, MARGIN + TITLE_SIZE + 14.0, &second);
        let mut at = top;
        for (index, panel) in self.panels.iter().enumerate() {
            panel.draw(&mut out, at, across, index + 1 == self.panels.len());
            at += panel.height() + GAP;
        }
        let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
        out.text(
            LABEL,
            middle,
            height - 10.0,
            &text::shorten_pixels(&text::prose(&self.x_label), WIDTH, 12.0),
        );
        out.line("</svg>");
        Ok(out.0)
    }

    /// The figure as a PNG file, as [`HeatMap::to_png`](crate::HeatMap::to_png).
    ///
    /// # Errors
    /// Those of [`Chart::to_svg`] and of the renderer.
    pub fn to_png(&self, scale: f32) -> Result<Vec<u8>, Error> {
        png::draw(&self.to_svg()?, scale)
    }

    /// Writes the figure to a file, whole or not at all: an SVG document or, at twice its size, a PNG picture, as the name
    /// ends; a file that has the name is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownFigure`] for another name; those of [`Chart::to_png`]; [`Error::Write`] if the file cannot be
    /// written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        save(|| self.to_svg(), path.as_ref())
    }
}

impl Panel {
    /// Curves have a line each in the legend beside the panel.
    fn height(&self) -> f64 {
        PANEL_HEIGHT.max(16.0 * self.series.len() as f64 + 4.0)
    }

    /// The points of a curve that can be drawn, in units of the axis.
    fn points<'a>(&self, series: &'a Series) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        let span = self.span;
        series.finite().map(move |(x, y)| (x, span.place(y))).filter(|(_, y)| y.is_finite())
    }

    fn draw(&self, out: &mut Out, top: f64, (left, right): (f64, f64), is_last: bool) {
        let panel_height = self.height();
        let all = self.series.iter().flat_map(|series| self.points(series));
        let (low, high) = ends(all.map(|(_, y)| y), self.span == Span::FromZero);
        let width = WIDTH - LEFT - RIGHT;
        let x_of = |x: f64| LEFT + width * ((x - left) / (right - left));
        let y_of = |y: f64| top + panel_height * (1.0 - (y - low) / (high - low));
        for tick in self.span.ticks(low, high) {
            let y = y_of(tick.value);
            out.line(&format!(
                "<path d=\"M{},{}h{}\" stroke=\"#e6e6e6\" stroke-width=\"0.8\"/>",
                px(LEFT),
                px(y),
                px(width)
            ));
            let style = Style { anchor: Anchor::End, ..TICK };
            out.text(style, LEFT - 6.0, y + TICK.size * MIDDLE, &tick.label);
        }
        for tick in ticks(left, right, 7) {
            let x = x_of(tick.value);
            out.tick_mark(x, top + panel_height, x, top + panel_height + 3.0);
            if is_last {
                out.text(TICK, x, top + panel_height + 14.0, &tick.label);
            }
        }
        let frame = format!("x=\"{}\" y=\"{}\"", px(LEFT), px(top));
        let size = format!("width=\"{}\" height=\"{}\"", px(width), px(panel_height));
        out.line(&format!("<rect {frame} {size} fill=\"none\" stroke=\"{LINE}\" stroke-width=\"0.6\"/>"));
        let style = Style { upright: true, ..LABEL };
        let label = text::shorten_pixels(&text::prose(&self.y_label), panel_height, LABEL.size);
        out.text(style, MARGIN + LABEL.size * 0.8, top + panel_height / 2.0, &label);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let dashes = DASHES[index / COLOURS.len() % DASHES.len()];
            let points: Vec<String> =
                self.points(series).map(|(x, y)| format!("{},{}", px(x_of(x)), px(y_of(y)))).collect();
            let name = text::prose(&series.name);
            out.line(&format!("<g><title>{}</title>", escaped(&name)));
            match points.as_slice() {
                [one] => {
                    let (x, y) = one.split_once(',').unwrap_or_default();
                    out.line(&format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"2\" fill=\"{colour}\"/>"));
                }
                points => out.line(&format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"{dashes}/>",
                    points.join(" ")
                )),
            }
            out.line("</g>");
            let y = top + 10.0 + 16.0 * index as f64;
            let x = WIDTH - RIGHT + 10.0;
            out.line(&format!(
                "<path d=\"M{},{}h14\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
                px(x),
                px(y)
            ));
            let style = Style { anchor: Anchor::Start, ..TICK };
            let short = text::shorten_pixels(&name, RIGHT - 34.0, TICK.size);
            out.text(style, x + 19.0, y + TICK.size * MIDDLE, &short);
        }
    }
}

/// The least and the greatest of some numbers, apart from each other.
fn ends(numbers: impl Iterator<Item = f64>, from_zero: bool) -> (f64, f64) {
    let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
    let low = if from_zero { low.min(0.0) } else { low };
    match (low.is_finite() && high.is_finite(), low < high) {
        (true, true) => (low, high),
        (true, false) => (low - 0.5, low + 0.5),
        (false, _) => (0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: &[(f64, f64)]) -> Chart {
        let series = |name: &str| Series { name: name.into(), points: points.to_vec() };
        let panel = |label: &str| Panel {
            y_label: label.into(),
            span: Span::FromZero,
            series: vec![series("batch"), series("held <out>")],
        };
        Chart {
            title: "loss & accuracy".into(),
            subtitle: Some("smollm2".into()),
            x_label: "step".into(),
            panels: vec![panel("loss (nats)"), panel("accuracy")],
        }
    }

    #[test]
    fn a_chart_is_a_picture_with_its_curves() {
        let points: Vec<_> = (0..100).map(|i| (f64::from(i), f64::from(i).sqrt())).collect();
        let chart = chart(&points);
        let svg = chart.to_svg().unwrap();
        assert_eq!(svg, chart.to_svg().unwrap());
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert!(svg.contains("loss &amp; accuracy") && svg.contains("held &lt;out&gt;"));
        assert!(png::parse(&svg).is_ok());
        assert!(chart.to_png(1.0).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn odd_points_are_drawn_or_left_out() {
        for points in [
            vec![(1.0, 2.0)],
            vec![(0.0, 3.0), (1.0, 3.0)],
            vec![(0.0, f64::NAN), (1.0, 1e300), (2.0, -1e300)],
            vec![(0.0, 1e-300), (1.0, 2e-300)],
        ] {
            let svg = chart(&points).to_svg().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(png::parse(&svg).is_ok());
        }
        let mut logarithmic = chart(&[(0.0, 0.0), (1.0, 3.0), (2.0, 4e9), (3.0, -1.0)]);
        logarithmic.panels.iter_mut().for_each(|panel| panel.span = Span::Log);
        let svg = logarithmic.to_svg().unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf") && svg.contains(">100<"), "{svg}");
        logarithmic.panels.iter_mut().flat_map(|p| &mut p.series).for_each(|s| s.points = vec![(0.0, 0.0)]);
        assert!(matches!(logarithmic.to_svg(), Err(Error::EmptyFigure { .. })));
        assert!(matches!(chart(&[(0.0, f64::NAN)]).to_svg(), Err(Error::EmptyFigure { .. })));
    }
}
