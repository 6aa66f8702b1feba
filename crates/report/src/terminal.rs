//! Heat maps as text for a terminal: coloured cells, or numbers and shades where there is no colour.
//!
//! Rows are drawn bottom to top like in a picture, facets side by side as far as there is room, and a facet with more
//! columns than the terminal is continued below. No label can send an escape sequence to the terminal.
//!
//! ```
//! use causalcone_report::terminal::{Colour, Style, render};
//! use causalcone_report::{Axis, Facet, HeatMap, Scale, Tick};
//!
//! let map = HeatMap {
//!     title: "The capital".to_owned(),
//!     subtitle: None,
//!     x: Axis { label: "position".to_owned(), ticks: vec![Tick::token("0", "The"), Tick::token("1", " capital")] },
//!     y: Axis { label: "site".to_owned(), ticks: vec![Tick::new("attn_o0"), Tick::new("mlp_o0")] },
//!     facets: vec![Facet { title: "Rome".to_owned(), values: vec![Some(0.01), Some(0.02), Some(0.38), None], ..Facet::default() }],
//!     value_label: "probability".to_owned(),
//!     scale: Scale::FromZero,
//! };
//! let style = Style { colour: Colour::None, width: 80, max_rows: None };
//! let text = "\
//! The capital
//!
//!         Rome
//!  mlp_o0  .38   ·
//! attn_o0  .01 .02
//!            0   1
//!
//! position: 0 The  1 _capital
//! rows: site
//! probability: 0 to 0.38
//! · no value
//! ";
//! assert_eq!(render(&map, &style)?, text);
//! # Ok::<(), causalcone_report::Error>(())
//! ```

use crate::colour::ColourMap;
use crate::scale::Range;
use crate::text::{self, shorten_columns, terminal_columns};
use crate::{Error, Facet, HeatMap, Scale};
use std::ops;

/// A terminal narrower than this is written to as if it had this many columns.
pub const MIN_WIDTH: usize = 32;

/// Between panels side by side.
const GAP: usize = 3;
/// Names of columns are cut to this many columns of the terminal.
const NAME: usize = 8;
const EMPTY: &str = "·";
const RESET: &str = "\x1b[0m";

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Which colours it shows.
    pub colour: Colour,
    /// Its columns; no line is longer, unless there are fewer than [`MIN_WIDTH`].
    pub width: usize,
    /// The most rows of cells of a panel; of more, every third, fifth … is drawn, and a line says so.
    pub max_rows: Option<usize>,
}

/// The colours of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// None: cells are numbers of two decimals, or shades where those are too wide.
    None,
    /// The 256 colours of xterm.
    Ansi256,
    /// Red, green and blue of 8 bits each.
    TrueColor,
}

impl Colour {
    /// The colours that the environment asks for, by the usual rules; `env` looks a variable up.
    ///
    /// `NO_COLOR`, if not empty, means none. `CLICOLOR_FORCE`, unless empty or 0, means colours everywhere. Otherwise
    /// there are none where the output is no terminal, where `CLICOLOR` is 0, or where `TERM` is `dumb`. `COLORTERM`
    /// says whether it is [`Colour::TrueColor`].
    #[must_use]
    pub fn from_env(is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name| env(name).unwrap_or_default();
        let forced = !matches!(var("CLICOLOR_FORCE").as_str(), "" | "0");
        let wanted = forced || (is_terminal && var("CLICOLOR") != "0" && var("TERM") != "dumb");
        if !wanted || !var("NO_COLOR").is_empty() {
            return Colour::None;
        }
        match var("COLORTERM").as_str() {
            "truecolor" | "24bit" => Colour::TrueColor,
            _ => Colour::Ansi256,
        }
    }

    /// The escape sequence for the background of a fraction of the scale; nothing without colours.
    fn background(self, colours: ColourMap, fraction: f64) -> String {
        match self {
            Colour::None => String::new(),
            Colour::Ansi256 => format!("\x1b[48;5;{}m", colours.xterm_at(fraction)),
            Colour::TrueColor => {
                let [red, green, blue] = colours.at(fraction).0;
                format!("\x1b[48;2;{red};{green};{blue}m")
            }
        }
    }
}

/// Draws a heat map; every line ends in a newline.
///
/// # Errors
/// Those of [`HeatMap::to_svg`].
pub fn render(map: &HeatMap, style: &Style) -> Result<String, Error> {
    let range = map.check()?;
    let screen = Screen::of(map, &range, style);
    let mut lines = screen.headings();
    for strip in screen.panels().chunks(screen.across) {
        lines.extend(screen.strip(strip));
        lines.push(String::new());
    }
    lines.extend(screen.tokens());
    lines.extend(screen.rows_label());
    lines.extend(screen.scale());
    lines.extend(screen.notes());
    Ok(lines.iter().map(|line| format!("{}\n", line.trim_end())).collect())
}

/// How cells are drawn, and how many columns of the terminal each takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Painted(usize),
    Numbers(usize),
    Shades(usize),
}

impl Look {
    fn cell(self) -> usize {
        match self {
            Look::Painted(cell) | Look::Numbers(cell) | Look::Shades(cell) => cell,
        }
    }
}

/// Some columns of a facet.
struct Panel<'a> {
    facet: &'a Facet,
    columns: ops::Range<usize>,
}

/// A heat map and how it is laid out.
struct Screen<'a> {
    map: &'a HeatMap,
    range: &'a Range,
    colour: Colour,
    width: usize,
    look: Look,
    /// Columns for the row labels.
    margin: usize,
    /// The rows that are drawn, from the top.
    rows: Vec<usize>,
    /// Columns of a panel.
    panel: usize,
    /// Panels side by side.
    across: usize,
}

impl<'a> Screen<'a> {
    fn of(map: &'a HeatMap, range: &'a Range, style: &Style) -> Self {
        let width = style.width.max(MIN_WIDTH);
        let labels = map.y.ticks.iter().map(|tick| terminal_columns(&tick.whole()));
        let margin = labels.max().unwrap_or(0).min(width / 3);
        let room = width - margin - 1;
        let look = look(map, style.colour, room);
        let cells = (map.columns() * look.cell()).min(room / look.cell() * look.cell());
        let titles = map.facets.iter().map(|facet| terminal_columns(&text::prose(&facet.title)));
        let panel = cells.max(titles.max().unwrap_or(0).min(20).min(room));
        let most = style.max_rows.unwrap_or(usize::MAX).max(1);
        let every = match map.rows().div_ceil(most) {
            1 => 1,
            every => every | 1, // odd: where two sites alternate, some rows of both are drawn
        };
        let mut rows: Vec<usize> = (0..map.rows()).step_by(every).collect();
        rows.reverse();
        Screen {
            map,
            range,
            colour: style.colour,
            width,
            look,
            margin,
            rows,
            panel,
            across: ((room + GAP) / (panel + GAP)).max(1),
        }
    }

    fn headings(&self) -> Vec<String> {
        let texts = [self.map.title.as_str(), self.map.subtitle.as_deref().unwrap_or("")];
        let texts = texts.into_iter().filter(|text| !text.is_empty());
        let mut lines: Vec<String> =
            texts.map(|text| shorten_columns(&text::prose(text), self.width)).collect();
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines
    }

    /// Every facet, in as many pieces as it takes.
    fn panels(&self) -> Vec<Panel<'a>> {
        let (columns, most) = (self.map.columns(), self.panel / self.look.cell());
        let pieces = |facet| {
            let starts = (0..columns).step_by(most);
            starts.map(move |start| Panel { facet, columns: start..(start + most).min(columns) })
        };
        self.map.facets.iter().flat_map(pieces).collect()
    }

    /// Panels side by side: titles, rows, names of the columns.
    fn strip(&self, panels: &[Panel<'_>]) -> Vec<String> {
        let mut lines = Vec::new();
        if panels.iter().any(|panel| !panel.facet.title.is_empty()) {
            lines.push(
                self.beside("", panels, |panel| {
                    shorten_columns(&text::prose(&panel.facet.title), self.panel)
                }),
            );
        }
        for row in &self.rows {
            let label = self.map.y.ticks[*row].whole();
            lines.push(self.beside(&label, panels, |panel| self.cells(panel, *row)));
        }
        lines.push(self.beside("", panels, |panel| self.names(panel)));
        lines
    }

    /// One line: a label and a piece of each panel.
    fn beside(&self, label: &str, panels: &[Panel<'_>], piece: impl Fn(&Panel<'_>) -> String) -> String {
        let label = shorten_columns(label, self.margin);
        let mut line = format!("{}{label} ", spaces(self.margin - terminal_columns(&label)));
        for (index, panel) in panels.iter().enumerate() {
            if index > 0 {
                line.push_str(&spaces(GAP));
            }
            let piece = piece(panel);
            let blank = self.panel - shown_columns(&piece);
            line.push_str(&piece);
            line.push_str(&spaces(blank));
        }
        line
    }

    fn cells(&self, panel: &Panel<'_>, row: usize) -> String {
        let values = panel.columns.clone().map(|column| self.map.value(panel.facet, row, column));
        let cells: String = values.map(|value| self.cell(value)).collect();
        match self.look {
            Look::Painted(_) => cells + RESET,
            _ => cells,
        }
    }

    fn cell(&self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return match self.look {
                Look::Painted(cell) => format!("{RESET}{EMPTY:<cell$}"),
                Look::Numbers(cell) => format!("{EMPTY:>cell$}"),
                Look::Shades(cell) => EMPTY.repeat(cell),
            };
        };
        match self.look {
            Look::Painted(cell) => {
                self.colour.background(self.range.colours, self.range.fraction(value)) + &spaces(cell)
            }
            Look::Numbers(cell) => format!("{:>cell$}", short_number(value)),
            Look::Shades(cell) => shade(self.map.scale, self.range.fraction(value)).to_string().repeat(cell),
        }
    }

    /// The names of the columns below them, as many as there is room for.
    fn names(&self, panel: &Panel<'_>) -> String {
        let cell = self.look.cell();
        let mut line = String::new();
        let mut taken = 0;
        for (index, column) in panel.columns.clone().enumerate() {
            let name = shorten_columns(&text::prose(&self.map.x.ticks[column].label), NAME);
            let name_width = terminal_columns(&name);
            let indent =
                if matches!(self.look, Look::Numbers(_)) { cell.saturating_sub(name_width) } else { 0 };
            let start = index * cell + indent;
            let room = start + name_width <= self.panel && (taken == 0 || start > taken);
            if room && name_width > 0 {
                line.push_str(&spaces(start - taken));
                line.push_str(&name);
                taken = start + name_width;
            }
        }
        line
    }

    /// The tokens of the columns, on as many lines as they take.
    fn tokens(&self) -> Vec<String> {
        let with_token = self.map.x.ticks.iter().filter_map(|tick| Some((tick, tick.token.as_ref()?)));
        let entries =
            with_token.map(|(tick, token)| format!("{} {}", text::prose(&tick.label), text::token(token)));
        let mut lines: Vec<String> = Vec::new();
        let mut line = match self.map.x.label.as_str() {
            "" => String::new(),
            label => shorten_columns(&text::prose(label), self.width / 2) + ": ",
        };
        for entry in entries {
            let entry = shorten_columns(&entry, self.width);
            let fits = terminal_columns(&line) + terminal_columns(&entry) <= self.width;
            if !fits {
                lines.push(std::mem::take(&mut line));
            }
            line.push_str(&entry);
            line.push_str("  ");
        }
        let any = self.map.x.ticks.iter().any(|tick| tick.token.is_some());
        if any {
            lines.push(line);
        }
        lines
    }

    /// What the rows are.
    fn rows_label(&self) -> Option<String> {
        let label = text::prose(&self.map.y.label);
        (!label.is_empty()).then(|| shorten_columns(&format!("rows: {label}"), self.width))
    }

    /// What the values are and the two ends of the scale, with the colours or shades between them.
    fn scale(&self) -> Vec<String> {
        let label = text::prose(&self.map.value_label);
        let [low, high] = [self.range.low, self.range.high].map(text::number);
        let ends = match self.look {
            Look::Numbers(_) => format!("{low} to {high}"),
            _ => {
                let bar = (self.width - 2 - low.len() - high.len()).min(20);
                format!("{low} {} {high}", self.bar(bar))
            }
        };
        let one_line = format!("{label}: {ends}");
        if label.is_empty() {
            vec![ends]
        } else if shown_columns(&one_line) <= self.width {
            vec![one_line]
        } else {
            vec![shorten_columns(&label, self.width), ends]
        }
    }

    fn bar(&self, columns: usize) -> String {
        let fractions = (0..columns).map(|i| (i as f64 + 0.5) / columns as f64);
        match self.colour {
            Colour::None => fractions.map(|fraction| shade(self.map.scale, fraction)).collect(),
            colour => {
                let cells = fractions.map(|fraction| colour.background(self.range.colours, fraction) + " ");
                cells.collect::<String>() + RESET
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(legend) = self.map.scale.legend() {
            lines.push(shorten_columns(&format!("{legend}, the middle of the scale"), self.width));
        }
        if self.map.has_empty_cells() {
            lines.push(format!("{EMPTY} no value"));
        }
        if self.rows.len() < self.map.rows() {
            lines.push(format!("{} of {} rows are shown", self.rows.len(), self.map.rows()));
        }
        lines
    }
}

/// How cells are drawn in a panel of at most `room` columns.
fn look(map: &HeatMap, colour: Colour, room: usize) -> Look {
    let pair = if map.columns() * 2 <= room { 2 } else { 1 };
    if colour != Colour::None {
        return Look::Painted(pair);
    }
    let values = map.facets.iter().flat_map(|facet| &facet.values).flatten();
    let widths = values.map(|value| short_number(*value).len());
    let cell = widths.max().unwrap_or(1) + 1;
    if map.columns() * cell <= room { Look::Numbers(cell) } else { Look::Shades(pair) }
}

/// A number with two decimals and no zero before the point.
fn short_number(value: f64) -> String {
    let digits = format!("{value:.2}");
    if digits.len() > 7 {
        return text::number(value);
    }
    match digits.as_str() {
        "0.00" | "-0.00" => ".00".to_owned(),
        digits => match digits.strip_prefix("-0") {
            Some(rest) => format!("-{rest}"),
            None => digits.strip_prefix('0').unwrap_or(digits).to_owned(),
        },
    }
}

/// One of five characters for a fraction of the scale.
fn shade(scale: Scale, fraction: f64) -> char {
    let shades = match scale {
        Scale::Diverging(_) => ['=', '-', ' ', '+', '#'],
        _ => [' ', '░', '▒', '▓', '█'],
    };
    let fifth = (1..5).rev().find(|fifth| fraction * 5.0 >= *fifth as f64);
    shades[fifth.unwrap_or(0)]
}

/// The columns a text takes once its escape sequences (only ours, all ending in m) are acted upon.
fn shown_columns(text: &str) -> usize {
    let mut pieces = text.split('\x1b');
    let first = pieces.next().map_or(0, terminal_columns);
    let rest = pieces.map(|piece| terminal_columns(piece.split_once('m').map_or("", |(_, after)| after)));
    first + rest.sum::<usize>()
}

fn spaces(count: usize) -> String {
    " ".repeat(count)
}

#[cfg(test)]
mod tests;
