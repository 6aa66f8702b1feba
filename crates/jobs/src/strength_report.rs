//! How far texts move under edits: a table of their tokens, figures, and a page with the texts.

use crate::error::Result;
use crate::folder::Folder;
use crate::observer::Observer;
use crate::pairs::{Numbered, TextRecord, TokenRecord};
use crate::record::short_name;
use causalcone_engine::visible;
use causalcone_model::Model;
use causalcone_report::page::{Grid, Page, PagePart, Passage, Piece, Section};
use causalcone_report::{Cell, Chart, ColumnKind, Format, Panel, Series, Span, Table, text};
use serde::Serialize;

/// Texts on the page; all are in the lines.
const SHOWN: usize = 400;
/// Rows of the table. More are refused before any work.
pub(crate) const MOST_STEPS: usize = 4_000_000;

const STEPS: [(&str, ColumnKind); 10] = [
    ("example", ColumnKind::Integer),
    ("scale", ColumnKind::Number),
    ("sample", ColumnKind::Integer),
    ("text", ColumnKind::Text),
    ("step", ColumnKind::Integer),
    ("id", ColumnKind::Integer),
    ("token", ColumnKind::Text),
    ("original", ColumnKind::Number),
    ("counterfactual", ColumnKind::Number),
    ("kl", ColumnKind::Number),
];

/// A mean that grows.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, x: f64) {
        if x.is_finite() {
            self.sum += x;
            self.count += 1;
        }
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// e to the mean: a perplexity of surprises. Without a number where it is past all floats.
    fn perplexity(self) -> Option<f64> {
        self.get().map(f64::exp).filter(|x| x.is_finite())
    }
}

/// The texts of one strength, all prompts and samples together.
#[derive(Debug, Default)]
struct Strength {
    scale: Option<f64>,
    texts: usize,
    /// KL at each step of the edited texts.
    kl: Vec<Mean>,
    /// −ln of the unedited model's probability of each token: of the edited texts, and of its own.
    edited: Mean,
    original: Mean,
}

/// How far the texts of one strength moved.
#[derive(Debug, Clone, Serialize)]
pub struct StrengthReport {
    /// The strength of the edits, where strengths are swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// How many texts there are.
    pub texts: usize,
    /// Mean over the tokens of the edited texts of D(edited ‖ original), in nats.
    pub kl: Option<f64>,
    /// Of the edited texts under the unedited model.
    pub perplexity: Option<f64>,
    /// Of the texts without edits, under the same.
    pub original_perplexity: Option<f64>,
}

/// How far texts moved at each strength: texts with the scores of their tokens.
///
/// # Errors
/// Never for texts of this library; the table of their tokens checks its own rows.
pub fn moved(texts: &[Numbered], model: &Model) -> Result<Vec<StrengthReport>> {
    let mut movement = Movement::new(model)?;
    texts.iter().try_for_each(|one| movement.add(one, ""))?;
    Ok(movement.moved())
}

/// What texts did, as they come.
pub(crate) struct Movement<'m> {
    model: &'m Model,
    table: Table,
    strengths: Vec<Strength>,
    /// A section for each prompt and sample.
    sections: Vec<Section>,
    shown: usize,
    texts: usize,
    last: Option<(Option<usize>, usize)>,
}

impl<'m> Movement<'m> {
    pub(crate) fn new(model: &'m Model) -> Result<Self> {
        Ok(Self {
            model,
            table: Table::new(STEPS.to_vec())?,
            strengths: Vec::new(),
            sections: Vec::new(),
            shown: 0,
            texts: 0,
            last: None,
        })
    }

    /// Takes in the texts of a prompt; `prompt` is told once for those that follow each other.
    pub(crate) fn add(&mut self, one: &Numbered, prompt: &str) -> Result<()> {
        let Numbered { example, scale, sample, pair } = one;
        let found = self.strengths.iter().position(|strength| strength.scale == *scale);
        let at = found.unwrap_or_else(|| {
            self.strengths.push(Strength { scale: *scale, ..Strength::default() });
            self.strengths.len() - 1
        });
        let strength = &mut self.strengths[at];
        strength.texts += 1;
        for (step, token) in pair.counterfactual.tokens().iter().enumerate() {
            strength.kl.resize(strength.kl.len().max(step + 1), Mean::default());
            strength.kl[step].add(token.kl.unwrap_or(f64::NAN));
            strength.edited.add(-token.original.ln());
        }
        pair.original.tokens().iter().for_each(|token| strength.original.add(-token.original.ln()));
        for (name, record) in [("original", &pair.original), ("counterfactual", &pair.counterfactual)] {
            for (step, token) in record.tokens().iter().enumerate() {
                self.table.push(vec![
                    (*example).into(),
                    (*scale).into(),
                    (*sample).into(),
                    name.into(),
                    step.into(),
                    token.id.into(),
                    token.token.clone().into(),
                    token.original.into(),
                    token.counterfactual.into(),
                    Cell::from(token.kl),
                ])?;
            }
        }
        self.texts += 1;
        let is_new = self.last != Some((*example, *sample));
        if self.shown < SHOWN {
            self.shown += 1;
            if is_new {
                let mut original = passage("without edits".into(), &pair.original, prompt, self.model);
                if scale.is_some() {
                    // Each strength would move it otherwise.
                    for piece in &mut original.pieces {
                        (piece.shade, piece.hint) = (0.0, String::new());
                    }
                }
                self.sections
                    .push(Section { title: heading(one, prompt), parts: vec![PagePart::Passage(original)] });
            }
            let name = scale.map_or("with the edits".into(), |scale| format!("scale {scale}"));
            let edited = passage(name, &pair.counterfactual, prompt, self.model);
            if let Some(section) = self.sections.last_mut() {
                section.parts.push(PagePart::Passage(edited));
            }
        }
        self.last = Some((*example, *sample));
        Ok(())
    }

    /// How far they moved, strength by strength.
    pub(crate) fn moved(&self) -> Vec<StrengthReport> {
        let all = self.strengths.iter();
        all.map(|strength| {
            let mut kl = Mean::default();
            for step in &strength.kl {
                (kl.sum, kl.count) = (kl.sum + step.sum, kl.count + step.count);
            }
            StrengthReport {
                scale: strength.scale,
                texts: strength.texts,
                kl: kl.get(),
                perplexity: strength.edited.perplexity(),
                original_perplexity: strength.original.perplexity(),
            }
        })
        .collect()
    }

    /// Writes the table, the figures and the page; says the names of the files.
    pub(crate) fn write(
        self,
        folder: &Folder,
        format: Format,
        about: &str,
        observer: &dyn Observer,
    ) -> Result<Vec<String>> {
        let steps = format!("steps.{}", format.name());
        folder.write(&steps, |w| self.table.write(format, w))?;
        let mut files = vec![steps];
        let moved = self.moved();
        let mut parts = Vec::new();
        let by_scale = (moved.len() > 1).then(|| ("scales", scales_chart(&moved, about)));
        for (stem, chart) in by_scale.into_iter().chain([("kl", self.kl_chart(about))]) {
            let svg = chart.to_svg();
            parts.extend(svg.as_ref().ok().cloned().map(PagePart::Figure));
            files.extend(folder.draw(stem, svg, observer)?);
        }
        parts.push(PagePart::Grid(grid(&moved)));
        parts.push(PagePart::Note(
            "Perplexity is the unedited model's: of the edited texts, and of its own. KL is D(edited ‖ original) of the \
             next token, in nats, on the way through the edited texts. The darker a token is marked, the further the \
             edits moved what could be said there; point at it for its numbers."
                .into(),
        ));
        if self.shown < self.texts {
            let (shown, texts) = (self.shown, self.texts);
            parts
                .push(PagePart::Note(format!("The first {shown} of {texts} texts; all are in texts.jsonl.")));
        }
        let mut sections = vec![Section { title: String::new(), parts }];
        sections.extend(self.sections);
        let page = Page { title: "Texts under edits".into(), subtitle: Some(about.into()), sections };
        let html = page.to_html()?;
        folder.write("report.html", |w| w.write_all(html.as_bytes()))?;
        files.push("report.html".into());
        Ok(files)
    }

    /// KL as texts go on, a curve for each strength.
    fn kl_chart(&self, about: &str) -> Chart {
        let series = |strength: &Strength| Series {
            name: strength.scale.map_or("with the edits".into(), |scale| format!("scale {scale}")),
            points: steps(&strength.kl),
        };
        Chart {
            title: "how far edits move what comes next".into(),
            subtitle: Some(about.into()),
            x_label: "step of the edited text".into(),
            panels: vec![Panel {
                y_label: "KL (nats)".into(),
                span: Span::FromZero,
                series: self.strengths.iter().map(series).collect(),
            }],
        }
    }
}

fn steps(kl: &[Mean]) -> Vec<(f64, f64)> {
    let means = kl.iter().enumerate().map(|(step, mean)| (step as f64, mean.get()));
    means.filter_map(|(step, mean)| Some((step, mean?))).collect()
}

/// KL and perplexity over the strengths.
fn scales_chart(moved: &[StrengthReport], about: &str) -> Chart {
    let curve = |name: &str, y: fn(&StrengthReport) -> Option<f64>| {
        let mut points: Vec<(f64, f64)> =
            moved.iter().filter_map(|one| Some((one.scale?, y(one)?))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.into(), points }
    };
    Chart {
        title: "how far texts move with strength".into(),
        subtitle: Some(about.into()),
        x_label: "scale".into(),
        panels: vec![
            Panel {
                y_label: "KL (nats a token)".into(),
                span: Span::FromZero,
                series: vec![curve("edited text", |one| one.kl)],
            },
            Panel {
                y_label: "unedited perplexity".into(),
                span: Span::Log,
                series: vec![
                    curve("edited text", |one| one.perplexity),
                    curve("its own text", |one| one.original_perplexity),
                ],
            },
        ],
    }
}

/// A number of a few digits, or nothing.
fn short(x: Option<f64>) -> String {
    match x {
        None => "–".into(),
        Some(x) if x != 0.0 && !(1e-3..1e6).contains(&x.abs()) => format!("{x:.2e}"),
        Some(x) if x.abs() < 100.0 => format!("{x:.3}"),
        Some(x) => format!("{x:.0}"),
    }
}

fn grid(moved: &[StrengthReport]) -> Grid {
    let row = |one: &StrengthReport| {
        let name = one.scale.map_or("with the edits".into(), |scale| scale.to_string());
        vec![
            name,
            one.texts.to_string(),
            short(one.kl),
            short(one.perplexity),
            short(one.original_perplexity),
        ]
    };
    let head = ["scale", "texts", "KL (nats a token)", "perplexity", "of its own text"];
    Grid { head: head.map(String::from).into(), rows: moved.iter().map(row).collect() }
}

/// The same for a terminal.
#[must_use]
pub fn in_words(moved: &[StrengthReport]) -> String {
    let mut lines = format!("{:<12} {:>10} {:>12} {:>16}\n", "scale", "kl", "perplexity", "of its own text");
    for one in moved {
        let name = one.scale.map_or("the edits".into(), |scale| scale.to_string());
        let (kl, perplexity, own) = (short(one.kl), short(one.perplexity), short(one.original_perplexity));
        lines += &format!("{name:<12} {kl:>10} {perplexity:>12} {own:>16}\n");
    }
    lines
}

fn heading(one: &Numbered, prompt: &str) -> String {
    let example = one.example.map_or(String::new(), |example| format!("{example}: "));
    let sample = if one.sample > 0 { format!(", sample {}", one.sample) } else { String::new() };
    format!("{example}{}{sample}", text::shorten(&text::prose(prompt), 80))
}

fn passage(name: String, record: &TextRecord, prompt: &str, model: &Model) -> Passage {
    let mut surprise = Mean::default();
    record.tokens().iter().for_each(|token| surprise.add(-token.original.ln()));
    let about = match record.tokens() {
        [] => Vec::new(),
        _ => vec![format!("perplexity {}", short(surprise.perplexity()))],
    };
    Passage { name, about, lead: prompt.into(), pieces: pieces(record, model), end: record.ended(model) }
}

/// A text token by token, as far as its tokens say it; characters that are several tokens stay whole.
fn pieces(record: &TextRecord, model: &Model) -> Vec<Piece> {
    const LONGEST: usize = 8;
    let mut pieces = Vec::new();
    let (mut rest, mut start) = (record.text.as_str(), 0);
    let tokens = record.tokens();
    for end in 1..=tokens.len() {
        let ids = || tokens[start..end].iter().map(|token| token.id).collect::<Vec<_>>();
        let said = match end - start {
            1 => tokens[start].token.clone(),
            _ => model.text(&ids()),
        };
        if said.ends_with('\u{fffd}') && end - start < LONGEST && end < tokens.len() {
            continue;
        }
        // A stop text may begin in the middle of a token, and the last one may be no part of the text.
        let said = if rest.starts_with(&said) { said } else { common(rest, &said).to_owned() };
        let parts = &tokens[start..end];
        rest = &rest[said.len()..];
        start = end;
        if said.is_empty() {
            break;
        }
        let kl = parts.iter().filter_map(|token| token.kl).fold(0.0, f64::max);
        let hint = parts.iter().map(hint).collect::<Vec<_>>().join("; ");
        pieces.push(Piece { text: said, shade: 0.8 * (1.0 - (-kl / 2.0).exp()), hint });
    }
    if !rest.is_empty() {
        pieces.push(Piece { text: rest.into(), ..Piece::default() });
    }
    pieces
}

fn hint(token: &TokenRecord) -> String {
    let (original, edited) = (short(Some(token.original)), short(Some(token.counterfactual)));
    let said = visible(&token.token);
    format!("{said}: {original} without edits, {edited} with them, KL {}", short(token.kl))
}

/// How two texts begin alike.
fn common<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    &a[..same]
}

/// What the figures are of.
pub(crate) fn about(model: &Model, texts: usize) -> String {
    let name = short_name(model);
    let of = if texts == 1 { String::new() } else { format!(", {texts} texts a strength") };
    text::shorten(&format!("{name}{of}"), 90)
}
