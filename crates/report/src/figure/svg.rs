//! Writes a figure as SVG.

use super::layout::{
    BAR_WIDTH, LABEL_SIZE, Layout, MARGIN, SUBTITLE_LINE, SUBTITLE_SIZE, SWATCH_DROP, SWATCH_HEIGHT, Stand,
    Swatch, TICK_GAP, TICK_SIZE, TITLE_LINE, TITLE_SIZE, TickLabel, WORD_GAP, swatches, value_label,
};
use super::map::{Facet, HeatMap};
use crate::scale::Range;
use crate::text;
use std::borrow::Cow;

const INK: &str = "#222222";
const FAINT_INK: &str = "#6b6b6b";
pub(crate) const LINE: &str = "#9a9a9a";
/// From the middle of a line of text down to its baseline, in font sizes.
pub(crate) const MIDDLE: f64 = 0.36;

pub(super) fn draw(map: &HeatMap, range: &Range) -> String {
    let layout = Layout::of(map, range);
    let mut out = Out(String::new());
    out.open(map, &layout);
    out.definitions(map, range);
    out.headings(&layout);
    for (index, facet) in map.facets.iter().enumerate() {
        out.panel(map, range, &layout, index, facet);
    }
    out.axis_labels(map, &layout);
    out.colour_bar(map, range, &layout);
    out.0.push_str("</svg>\n");
    out.0
}

/// Where a text stands by its coordinates.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) size: f64,
    pub(crate) ink: &'static str,
    pub(crate) anchor: Anchor,
    /// Whether it is read from bottom to top.
    pub(crate) upright: bool,
}

pub(crate) const TICK: Style = Style { size: TICK_SIZE, ink: INK, anchor: Anchor::Middle, upright: false };
pub(crate) const LABEL: Style = Style { size: LABEL_SIZE, ..TICK };

/// The document so far.
pub(crate) struct Out(pub(crate) String);

impl Out {
    pub(crate) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn open(&mut self, map: &HeatMap, layout: &Layout) {
        self.begin((layout.width, layout.height), &text::prose(&map.title));
    }

    /// Opens a document of that size, white all over.
    pub(crate) fn begin(&mut self, (width, height): (f64, f64), title: &str) {
        let (width, height, title) = (px(width), px(height), escaped(title).into_owned());
        self.line(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"'DejaVu Sans', Verdana, sans-serif\">"
        ));
        self.line(&format!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"));
    }

    /// The gradient of the colour bar, whose stops are the colour map's anchors, and the hatching of empty cells.
    fn definitions(&mut self, map: &HeatMap, range: &Range) {
        self.line("<defs>");
        self.line("<linearGradient id=\"scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">");
        let anchors = range.colours.anchors();
        for (index, anchor) in anchors.iter().enumerate() {
            let offset = px(100.0 * index as f64 / (anchors.len() - 1) as f64);
            self.line(&format!("<stop offset=\"{offset}%\" stop-color=\"{}\"/>", anchor.hex()));
        }
        self.line("</linearGradient>");
        if map.has_empty_cells() {
            self.line("<pattern id=\"empty\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">");
            self.line("<rect width=\"6\" height=\"6\" fill=\"#eeeeee\"/>");
            self.line("<path d=\"M-1,1 l2,-2 M0,6 l6,-6 M5,7 l2,-2\" stroke=\"#c4c4c4\"/>");
            self.line("</pattern>");
        }
        self.line("</defs>");
    }

    fn headings(&mut self, layout: &Layout) {
        let title = Style { size: TITLE_SIZE, anchor: Anchor::Start, ..TICK };
        let mut y = MARGIN;
        for line in &layout.title {
            self.text(title, MARGIN, y + TITLE_SIZE * 0.76, line);
            y += TITLE_LINE;
        }
        let subtitle = Style { size: SUBTITLE_SIZE, ink: FAINT_INK, ..title };
        for line in &layout.subtitle {
            self.text(subtitle, MARGIN, y + SUBTITLE_SIZE, line);
            y += SUBTITLE_LINE;
        }
    }

    fn panel(&mut self, map: &HeatMap, range: &Range, layout: &Layout, index: usize, facet: &Facet) {
        let (x, y) = layout.panel(index);
        let (width, height) = (px(layout.panel_width), px(layout.panel_height));
        self.facet_title(layout, x, y, facet);
        self.line(&format!("<g transform=\"translate({},{})\">", px(x), px(y)));
        if map.has_empty_cells() {
            self.line(&format!("<rect width=\"{width}\" height=\"{height}\" fill=\"url(#empty)\"/>"));
        }
        self.line("<g shape-rendering=\"crispEdges\">");
        self.cells(map, range, layout, facet);
        self.line("</g>");
        self.hairlines(map, layout);
        self.words(map, range, layout, facet);
        let frame = format!("width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"{LINE}\"");
        self.line(&format!("<rect {frame} stroke-width=\"0.6\" pointer-events=\"none\"/>"));
        if index.is_multiple_of(layout.across) {
            self.row_labels(map, layout);
        }
        if index + layout.across >= map.facets.len() {
            self.column_labels(map, layout);
        }
        self.line("</g>");
    }

    fn facet_title(&mut self, layout: &Layout, x: f64, y: f64, facet: &Facet) {
        let style = Style { anchor: Anchor::Start, ..LABEL };
        let whole = text::prose(&facet.title);
        let short = text::shorten_pixels(&whole, layout.panel_width, LABEL_SIZE);
        self.with_tooltip(&whole, &short, |out| out.text(style, x, y - 7.0, &short));
    }

    /// One rectangle a cell; an empty one is there for its tooltip only.
    fn cells(&mut self, map: &HeatMap, range: &Range, layout: &Layout, facet: &Facet) {
        let (width, height) = (px(layout.cell_width), px(layout.cell_height));
        let columns: Vec<String> =
            map.x.ticks.iter().map(|tick| escaped(&tick.whole()).into_owned()).collect();
        for (row, tick) in map.y.ticks.iter().enumerate() {
            let y = px(layout.row_top(row));
            let whole = tick.whole();
            let name = escaped(&whole);
            for (column, column_name) in columns.iter().enumerate() {
                let x = px(column as f64 * layout.cell_width);
                let (fill, value) = match map.value(facet, row, column) {
                    Some(value) => (format!("fill=\"{}\"", range.colour(value).hex()), text::number(value)),
                    None => ("fill=\"none\" pointer-events=\"all\"".to_owned(), "no value".to_owned()),
                };
                let word = facet.words.get(row * map.columns() + column).map(|word| text::prose(word));
                let word = word.map_or(String::new(), |word| format!("{} ", escaped(&word)));
                self.line(&format!(
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" {fill}>\
                     <title>{name}, {column_name}: {word}{value}</title></rect>"
                ));
            }
        }
    }

    /// The word of each cell, as much of it as fits.
    fn words(&mut self, map: &HeatMap, range: &Range, layout: &Layout, facet: &Facet) {
        for (index, word) in facet.words.iter().enumerate() {
            let (row, column) = (index / map.columns(), index % map.columns());
            let whole = text::prose(word);
            let short = text::shorten_pixels(&whole, layout.cell_width - WORD_GAP / 2.0, TICK_SIZE);
            let is_dark = map.value(facet, row, column).is_some_and(|value| range.colour(value).is_dark());
            let style = Style { ink: if is_dark { "#ffffff" } else { INK }, ..TICK };
            let x = (column as f64 + 0.5) * layout.cell_width;
            let y = layout.row_top(row) + layout.cell_height / 2.0 + TICK_SIZE * MIDDLE;
            self.text(style, x, y, &short);
        }
    }

    /// Faint lines between cells that are large enough to be looked at one by one.
    fn hairlines(&mut self, map: &HeatMap, layout: &Layout) {
        if layout.cell_width.min(layout.cell_height) < 8.0 {
            return;
        }
        let (width, height) = (px(layout.panel_width), px(layout.panel_height));
        let mut path = String::new();
        for row in 1..map.rows() {
            path.push_str(&format!("M0,{}h{width}", px(row as f64 * layout.cell_height)));
        }
        for column in 1..map.columns() {
            path.push_str(&format!("M{},0v{height}", px(column as f64 * layout.cell_width)));
        }
        if !path.is_empty() {
            let stroke = "stroke=\"#ffffff\" stroke-opacity=\"0.3\" stroke-width=\"0.5\"";
            self.line(&format!("<path d=\"{path}\" {stroke} pointer-events=\"none\"/>"));
        }
    }

    fn row_labels(&mut self, map: &HeatMap, layout: &Layout) {
        for label in &layout.row_labels {
            let middle = layout.row_top(label.index) + layout.cell_height / 2.0;
            if layout.row_labels.len() < map.rows() {
                self.tick_mark(-3.0, middle, 0.0, middle);
            }
            let style = Style { anchor: Anchor::End, ..TICK };
            let whole = map.y.ticks[label.index].whole();
            self.label(style, -TICK_GAP, middle + TICK_SIZE * MIDDLE, label, &whole);
        }
    }

    fn column_labels(&mut self, map: &HeatMap, layout: &Layout) {
        let bottom = layout.panel_height;
        for label in &layout.column_labels {
            let middle = (label.index as f64 + 0.5) * layout.cell_width;
            if layout.column_labels.len() < map.columns() {
                self.tick_mark(middle, bottom, middle, bottom + 3.0);
            }
            let whole = map.x.ticks[label.index].whole();
            match layout.stand {
                Stand::Upright => {
                    let style = Style { anchor: Anchor::End, upright: true, ..TICK };
                    self.label(style, middle + TICK_SIZE * MIDDLE, bottom + TICK_GAP, label, &whole);
                }
                Stand::Level => {
                    self.stacked_label(middle, bottom + TICK_GAP + TICK_SIZE * 0.8, label, &whole);
                }
            }
        }
    }

    /// A tick's name and token on one line, the name fainter if there is a token.
    fn label(&mut self, style: Style, x: f64, y: f64, label: &TickLabel, whole: &str) {
        let (name, token) = (escaped(&label.name), escaped(&label.token));
        let shown = match (label.name.is_empty(), label.token.is_empty()) {
            (_, true) => name.into_owned(),
            (true, false) => token.into_owned(),
            (false, false) => {
                format!("{token}<tspan dx=\"{}\" fill=\"{FAINT_INK}\">{name}</tspan>", px(TICK_SIZE * 0.6))
            }
        };
        self.with_tooltip(whole, &label.name, |out| out.markup(style, x, y, &shown));
    }

    /// A tick's token above its name.
    fn stacked_label(&mut self, x: f64, y: f64, label: &TickLabel, whole: &str) {
        self.with_tooltip(whole, &label.name, |out| {
            if label.token.is_empty() {
                out.text(TICK, x, y, &label.name);
            } else {
                out.text(TICK, x, y, &label.token);
                out.text(Style { ink: FAINT_INK, ..TICK }, x, y + TICK_SIZE * 1.2, &label.name);
            }
        });
    }

    pub(crate) fn tick_mark(&mut self, x1: f64, y1: f64, x2: f64, y2: f64) {
        let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(px);
        self.line(&format!(
            "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"{LINE}\" stroke-width=\"0.8\"/>"
        ));
    }

    fn axis_labels(&mut self, map: &HeatMap, layout: &Layout) {
        let middle = layout.left + layout.panels_width() / 2.0;
        // Nothing else is on its line.
        let room = 2.0 * (middle.min(layout.width - middle) - MARGIN / 2.0);
        let x_label = text::shorten_pixels(&text::prose(&map.x.label), room, LABEL_SIZE);
        self.text(LABEL, middle, layout.labels_bottom + LABEL_SIZE + 4.0, &x_label);
        let y_label =
            text::shorten_pixels(&text::prose(&map.y.label), layout.panel_height + 2.0 * MARGIN, LABEL_SIZE);
        let style = Style { upright: true, ..LABEL };
        self.text(style, MARGIN + LABEL_SIZE * 0.8, layout.top + layout.panel_height / 2.0, &y_label);
    }

    fn colour_bar(&mut self, map: &HeatMap, range: &Range, layout: &Layout) {
        let (x, y, height) = (layout.bar_left, layout.top, layout.bar_height);
        let place = |y: f64, height: f64| {
            format!("x=\"{}\" y=\"{}\" width=\"{BAR_WIDTH}\" height=\"{}\"", px(x), px(y), px(height))
        };
        let stroke = format!("stroke=\"{LINE}\" stroke-width=\"0.6\"");
        self.text(Style { anchor: Anchor::Start, ..LABEL }, x, y - 7.0, &value_label(map));
        self.line(&format!("<rect {} fill=\"url(#scale)\" {stroke}/>", place(y, height)));
        let labels = x + BAR_WIDTH + TICK_GAP;
        let style = Style { anchor: Anchor::Start, ..TICK };
        for tick in &layout.bar_ticks {
            let tick_y = y + height * (1.0 - range.fraction(tick.value));
            self.tick_mark(x + BAR_WIDTH, tick_y, x + BAR_WIDTH + 3.0, tick_y);
            self.text(style, labels, tick_y + TICK_SIZE * MIDDLE, &tick.label);
        }
        let mut top = y + height;
        for (swatch, legend) in swatches(map) {
            top += SWATCH_DROP;
            let fill = match swatch {
                Swatch::Centre => range.colours.at(0.5).hex(),
                Swatch::Empty => "url(#empty)".to_owned(),
            };
            self.line(&format!("<rect {} fill=\"{fill}\" {stroke}/>", place(top, SWATCH_HEIGHT)));
            self.text(style, labels, top + SWATCH_HEIGHT / 2.0 + TICK_SIZE * MIDDLE, &legend);
        }
    }

    /// Draws something that is read as `shown`, with the whole text as its tooltip where that says more.
    fn with_tooltip(&mut self, whole: &str, shown: &str, draw: impl FnOnce(&mut Self)) {
        if whole == shown {
            return draw(self);
        }
        self.line(&format!("<g><title>{}</title>", escaped(whole)));
        draw(self);
        self.line("</g>");
    }

    pub(crate) fn text(&mut self, style: Style, x: f64, y: f64, content: &str) {
        self.markup(style, x, y, &escaped(content));
    }

    fn markup(&mut self, style: Style, x: f64, y: f64, markup: &str) {
        if markup.is_empty() {
            return;
        }
        let Style { size, ink, .. } = style;
        let (x, y) = (px(x), px(y));
        let anchor = match style.anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let place = if style.upright {
            format!("transform=\"translate({x},{y}) rotate(-90)\"")
        } else {
            format!("x=\"{x}\" y=\"{y}\"")
        };
        self.line(&format!("<text {place} font-size=\"{size}\" fill=\"{ink}\"{anchor}>{markup}</text>"));
    }
}

/// A length with at most two decimals.
pub(crate) fn px(length: f64) -> String {
    let rounded = (length * 100.0).round() / 100.0;
    format!("{}", if rounded == 0.0 { 0.0 } else { rounded })
}

/// The text with the characters that XML gives a meaning written as entities.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    Cow::Owned(text.replace('>', "&gt;").replace('"', "&quot;"))
}
