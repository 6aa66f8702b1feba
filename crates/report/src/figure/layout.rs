//! Where everything of a figure goes, in CSS pixels; nothing here writes SVG.

use super::map::{HeatMap, Tick};
use crate::scale::{BarTick, Range, ticks};
use crate::text;

pub(super) const MARGIN: f64 = 24.0;
pub(super) const TITLE_SIZE: f64 = 15.0;
pub(super) const TITLE_LINE: f64 = 20.0;
pub(super) const SUBTITLE_SIZE: f64 = 11.0;
pub(super) const SUBTITLE_LINE: f64 = 15.0;
/// The size of facet titles and axis labels.
pub(super) const LABEL_SIZE: f64 = 11.0;
/// The size of row, column and colour bar labels.
pub(super) const TICK_SIZE: f64 = 10.0;
/// The least distance between the baselines of tick labels.
const TICK_LINE: f64 = 11.0;
/// Above each panel, for its title.
pub(super) const HEADER: f64 = 20.0;
pub(super) const PANEL_GAP: f64 = 18.0;
/// Between a panel and its tick labels.
pub(super) const TICK_GAP: f64 = 7.0;
const AXIS_LABEL_HEIGHT: f64 = 20.0;
pub(super) const BAR_GAP: f64 = 28.0;
pub(super) const BAR_WIDTH: f64 = 13.0;
const BAR_HEIGHT: f64 = 200.0;
/// From the colour bar down to the first swatch below it, and from one swatch to the next.
pub(super) const SWATCH_DROP: f64 = 16.0;
pub(super) const SWATCH_HEIGHT: f64 = 12.0;
/// Labels of columns are cut to this many characters, those of rows, which stand beside the panel, to more.
const COLUMN_CHARS: usize = 14;
const ROW_CHARS: usize = 28;
const TOKEN_CHARS: usize = 12;
/// A row of cells with words is at least so high.
const WORD_LINE: f64 = 14.0;
/// A cell is made no wider than this for its word, which is then cut.
const MAX_WORD: f64 = 64.0;
/// What is left free beside the widest word.
pub(super) const WORD_GAP: f64 = 6.0;
/// Width over height that the panels together come near to.
const GOOD_ASPECT: f64 = 1.4;

/// A label of a tick, as it is drawn; either part may be empty.
pub(super) struct TickLabel {
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) token: String,
}

/// How column labels stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// The token on one line, the position below.
    Level,
    /// Both on one line, read from bottom to top.
    Upright,
}

/// A figure's measures.
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) title: Vec<String>,
    pub(super) subtitle: Vec<String>,
    pub(super) cell_width: f64,
    pub(super) cell_height: f64,
    pub(super) panel_width: f64,
    pub(super) panel_height: f64,
    /// Panels side by side.
    pub(super) across: usize,
    /// The left and upper edge of the first panel.
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) row_labels: Vec<TickLabel>,
    pub(super) column_labels: Vec<TickLabel>,
    pub(super) stand: Stand,
    /// The lower edge of the column labels below the last panels.
    pub(super) labels_bottom: f64,
    pub(super) bar_left: f64,
    pub(super) bar_height: f64,
    pub(super) bar_ticks: Vec<BarTick>,
}

impl Layout {
    pub(super) fn of(map: &HeatMap, range: &Range) -> Self {
        let facets = map.facets.len();
        let words = widest(map.words().map(|word| text::pixels(&word, TICK_SIZE)));
        let least = if words > 0.0 { WORD_LINE } else { 0.0 };
        let cell_height = cell_size(map.rows(), 500.0, 22.0, 66.0).max(least);
        let (cell_width, stand) = columns(map, words);
        let panel_width = cell_width * map.columns() as f64;
        let panel_height = cell_height * map.rows() as f64;

        let row_labels = labels(&map.y.ticks, cell_height);
        let column_labels = column_labels(map, cell_width, stand);
        let labels_height = TICK_GAP + column_labels_height(&column_labels, stand);
        let across = across(facets, panel_width, panel_height);
        let down = facets.div_ceil(across);
        let panels_width = span(across, panel_width, PANEL_GAP);
        let panels_height = span(down, panel_height, PANEL_GAP + HEADER);

        let y_label = if map.y.label.is_empty() { 0.0 } else { AXIS_LABEL_HEIGHT };
        let row_labels_width = widest(row_labels.iter().map(TickLabel::width));
        let left = MARGIN + y_label + row_labels_width + TICK_GAP;
        let bar_left = left + panels_width + BAR_GAP;
        let bar_height = panel_height.clamp(72.0, BAR_HEIGHT);
        let most_ticks = if bar_height < 120.0 { 5 } else { 6 };
        let bar_ticks = ticks(range.low, range.high, most_ticks);
        let width = (bar_left + bar_block_width(map, &bar_ticks) + MARGIN).max(360.0).ceil();

        let title = wrapped(&map.title, width - 2.0 * MARGIN, TITLE_SIZE);
        let subtitle = wrapped(map.subtitle.as_deref().unwrap_or(""), width - 2.0 * MARGIN, SUBTITLE_SIZE);
        let heading = TITLE_LINE * title.len() as f64 + SUBTITLE_LINE * subtitle.len() as f64;
        let top = MARGIN + heading + if heading > 0.0 { 10.0 } else { 0.0 } + HEADER;
        let labels_bottom = top + panels_height + labels_height;
        let x_label = if map.x.label.is_empty() { 0.0 } else { AXIS_LABEL_HEIGHT };
        let swatches = match swatches(map).len() {
            0 => 0.0,
            count => SWATCH_DROP * count as f64 + SWATCH_HEIGHT,
        };
        let height = (labels_bottom + x_label).max(top + bar_height + swatches) + MARGIN;
        Layout {
            width,
            height: height.ceil(),
            title,
            subtitle,
            cell_width,
            cell_height,
            panel_width,
            panel_height,
            across,
            left,
            top,
            row_labels,
            column_labels,
            stand,
            labels_bottom,
            bar_left,
            bar_height,
            bar_ticks,
        }
    }

    /// The left and upper edge of a facet's panel.
    pub(super) fn panel(&self, facet: usize) -> (f64, f64) {
        let (row, column) = (facet / self.across, facet % self.across);
        let x = self.left + column as f64 * (self.panel_width + PANEL_GAP);
        let y = self.top + row as f64 * (self.panel_height + PANEL_GAP + HEADER);
        (x, y)
    }

    /// The width of all panels side by side.
    pub(super) fn panels_width(&self) -> f64 {
        span(self.across, self.panel_width, PANEL_GAP)
    }

    /// The upper edge of a row of cells, from the upper edge of the panel: the first row is at the bottom.
    pub(super) fn row_top(&self, row: usize) -> f64 {
        self.panel_height - (row + 1) as f64 * self.cell_height
    }
}

impl TickLabel {
    fn of(index: usize, tick: &Tick, most: usize) -> Self {
        let token = tick.token.as_deref().map(text::token).unwrap_or_default();
        TickLabel {
            index,
            name: text::shorten(&text::prose(&tick.label), most),
            token: text::shorten(&token, TOKEN_CHARS),
        }
    }

    /// The width on one line.
    fn width(&self) -> f64 {
        let gap = if self.token.is_empty() || self.name.is_empty() { 0.0 } else { TICK_SIZE * 0.6 };
        text::pixels(&self.name, TICK_SIZE) + gap + text::pixels(&self.token, TICK_SIZE)
    }

    /// The width of the wider of two lines.
    fn stacked_width(&self) -> f64 {
        text::pixels(&self.name, TICK_SIZE).max(text::pixels(&self.token, TICK_SIZE))
    }
}

/// A whole number of pixels for a cell, so that `count` of them take about `target`; enough for a label each, if there
/// are no more than 64, and no more than `most`, unless together they would take less than `least_span`.
fn cell_size(count: usize, target: f64, most: f64, least_span: f64) -> f64 {
    let least = match count {
        0..=64 => TICK_LINE,
        65..=200 => 4.0,
        201..=500 => 2.0,
        _ => 1.0,
    };
    let most = most.max((least_span / count as f64).floor());
    (target / count as f64).floor().clamp(least, most)
}

/// The width of the columns, and how their labels stand: level, if they fit with the columns made wider.
fn columns(map: &HeatMap, words: f64) -> (f64, Stand) {
    let count = map.columns();
    let target = 840.0 / map.facets.len().min(3) as f64;
    let words = if words > 0.0 { words.min(MAX_WORD).ceil() + WORD_GAP } else { 0.0 };
    let width = cell_size(count, target, 32.0, 96.0).max(words);
    let all = map.x.ticks.iter().enumerate().map(|(index, tick)| TickLabel::of(index, tick, COLUMN_CHARS));
    let needed = widest(all.map(|label| label.stacked_width())).ceil() + 8.0;
    let has_tokens = map.x.ticks.iter().any(|tick| tick.token.is_some());
    if needed <= 72.0 && needed * count as f64 <= target.max(420.0) {
        (width.max(needed), Stand::Level)
    } else if needed <= width {
        (width, Stand::Level)
    } else if has_tokens || needed > 72.0 {
        (width, Stand::Upright)
    } else {
        (width, Stand::Level)
    }
}

/// The labels there is room for, if each needs a line.
fn labels(ticks: &[Tick], cell: f64) -> Vec<TickLabel> {
    thinned(ticks, step(cell, TICK_LINE), ROW_CHARS)
}

fn column_labels(map: &HeatMap, cell_width: f64, stand: Stand) -> Vec<TickLabel> {
    let needed = match stand {
        Stand::Upright => TICK_LINE,
        Stand::Level => {
            widest(thinned(&map.x.ticks, 1, COLUMN_CHARS).iter().map(TickLabel::stacked_width)) + 6.0
        }
    };
    thinned(&map.x.ticks, step(cell_width, needed), COLUMN_CHARS)
}

fn thinned(ticks: &[Tick], step: usize, most: usize) -> Vec<TickLabel> {
    let every = ticks.iter().enumerate().step_by(step);
    every.map(|(index, tick)| TickLabel::of(index, tick, most)).collect()
}

/// Every how many cells there is a label: even above 1, so that where two sites alternate the same one is labelled.
fn step(cell: f64, needed: f64) -> usize {
    let decades = (0..6).map(|power| 10_usize.pow(power));
    let mut steps = decades.flat_map(|ten| if ten == 1 { [1, 2, 4] } else { [ten, 2 * ten, 4 * ten] });
    steps.find(|step| *step as f64 * cell >= needed).unwrap_or(usize::MAX)
}

fn column_labels_height(labels: &[TickLabel], stand: Stand) -> f64 {
    match stand {
        Stand::Upright => widest(labels.iter().map(TickLabel::width)),
        Stand::Level => {
            let lines =
                [labels.iter().any(|l| !l.token.is_empty()), labels.iter().any(|l| !l.name.is_empty())];
            lines.into_iter().filter(|line| *line).count() as f64 * (TICK_LINE + 1.0)
        }
    }
}

/// How many panels side by side make the best page.
fn across(facets: usize, panel_width: f64, panel_height: f64) -> usize {
    let badness = |across: usize| {
        let down = facets.div_ceil(across);
        let width = span(across, panel_width, PANEL_GAP);
        let height = span(down, panel_height, PANEL_GAP + HEADER);
        let holes = (across * down - facets) as f64;
        (width / height / GOOD_ASPECT).ln().abs() + 0.15 * holes
    };
    (1..=facets).min_by(|a, b| badness(*a).total_cmp(&badness(*b))).unwrap_or(1)
}

/// The length of `count` things with gaps between them.
fn span(count: usize, each: f64, gap: f64) -> f64 {
    count as f64 * (each + gap) - gap
}

fn bar_block_width(map: &HeatMap, bar_ticks: &[BarTick]) -> f64 {
    let labels = bar_ticks.iter().map(|tick| text::pixels(&tick.label, TICK_SIZE));
    let bar = BAR_WIDTH + TICK_GAP + widest(labels);
    let swatches = swatches(map).into_iter();
    let swatches = swatches.map(|(_, legend)| BAR_WIDTH + TICK_GAP + text::pixels(&legend, TICK_SIZE));
    bar.max(widest(swatches)).max(text::pixels(&value_label(map), LABEL_SIZE))
}

/// What a swatch below the colour bar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swatch {
    /// The middle of a diverging scale.
    Centre,
    /// Cells without a value.
    Empty,
}

/// The swatches below the colour bar with their legends.
pub(super) fn swatches(map: &HeatMap) -> Vec<(Swatch, String)> {
    let centre = map.scale.legend().map(|legend| (Swatch::Centre, text::shorten(&legend, 24)));
    let empty = map.has_empty_cells().then(|| (Swatch::Empty, "no value".to_owned()));
    centre.into_iter().chain(empty).collect()
}

/// What stands above the colour bar.
pub(super) fn value_label(map: &HeatMap) -> String {
    text::shorten(&text::prose(&map.value_label), 24)
}

fn widest(widths: impl Iterator<Item = f64>) -> f64 {
    widths.fold(0.0, f64::max)
}

/// Lines of whole words that are no wider than `most`; a longer word is cut.
fn wrapped(raw: &str, most: f64, size: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text::prose(raw).split_whitespace() {
        let longer = lines.last().map(|line| format!("{line} {word}"));
        match longer.filter(|line| text::pixels(line, size) <= most) {
            Some(longer) => {
                lines.pop();
                lines.push(longer);
            }
            None => lines.push(text::shorten_pixels(word, most, size)),
        }
    }
    lines
}
