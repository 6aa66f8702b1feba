//! Lenses: what the residual stream says after every layer, and what the answer's logits are made of.
//!
//! ```
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Again, Folder, Results, Silent, Source, lens};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! # let place = tempfile::tempdir()?;
//! let model = Model::load(path)?;
//! let file = ExperimentFile::from_toml("[runs.base]\nids = [3, 1, 4]")?;
//! let folder = Folder::claim(&place.path().join("out"), Results::Lens, Again::Refuse)?;
//! let options = lens::Options::default();
//! let seen = lens::run(&Source::new(&model, file), &folder, &options, &Runtime::default(), &Silent)?;
//! // The embeddings, then every layer.
//! assert_eq!(seen.lenses[0].original.depths.len(), 1 + model.config().layers);
//! assert!(folder.file("lens.csv").exists() && folder.file("contributions.svg").exists());
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::folder::{Folder, shown};
use crate::observer::Observer;
use crate::record::{Ran, Warning, short_name};
use crate::results::Results;
use crate::source::{LeftOut, Source};
use causalcone_engine::lens::{Contributor, View};
use causalcone_engine::{Lens, Refused, Runtime, TokenLabels};
use causalcone_model::chat::Date;
use causalcone_model::{Model, Progress, Unit};
use causalcone_report::{Axis, Cell, Centre, ColumnKind, Facet, Format, HeatMap, Scale, Table, Tick, text};
use serde::Serialize;

const LENS: [(&str, ColumnKind); 11] = [
    ("example", ColumnKind::Integer),
    ("version", ColumnKind::Text),
    ("layer", ColumnKind::Integer),
    ("position", ColumnKind::Integer),
    ("input", ColumnKind::Text),
    ("input_id", ColumnKind::Integer),
    ("token", ColumnKind::Text),
    ("id", ColumnKind::Integer),
    ("rank", ColumnKind::Integer),
    ("prob", ColumnKind::Number),
    ("logit", ColumnKind::Number),
];

const CONTRIBUTIONS: [(&str, ColumnKind); 8] = [
    ("example", ColumnKind::Integer),
    ("version", ColumnKind::Text),
    ("part", ColumnKind::Text),
    ("layer", ColumnKind::Integer),
    ("head", ColumnKind::Integer),
    ("token", ColumnKind::Text),
    ("id", ColumnKind::Integer),
    ("logit", ColumnKind::Number),
];

/// How a lens is used.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many of the likeliest tokens the table has at each place.
    pub top: usize,
    /// The format of the tables.
    pub format: Format,
}

impl Default for Options {
    /// The five likeliest tokens, and tables in CSV.
    fn default() -> Self {
        Self { top: 5, format: Format::default() }
    }
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The model, as it was loaded.
    pub model: String,
    /// The folder.
    pub out: String,
    /// How many examples were looked at; 1 where there is no data set.
    pub examples: usize,
    /// The files that were written.
    pub files: Vec<String>,
    /// The examples left out; a list wherever there is a data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Refused>>,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// What was seen.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: Summary,
    /// A lens for each example.
    pub lenses: Vec<Lens>,
    /// The examples that were left out.
    pub left_out: LeftOut,
}

/// `lens.json`.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    ran: Ran<'a>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    top: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// A lens with the number of its example.
type Numbered = (Option<usize>, Lens);

/// A lens for each example of an experiment.
struct Looked {
    lenses: Vec<Numbered>,
    left_out: LeftOut,
    /// The date that the chat template asked for, if it did.
    date: Option<Date>,
}

fn look(source: &Source<'_>, top: usize, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<Looked> {
    let (experiment, left_out) = source.single(runtime, observer)?;
    let mut lenses: Vec<Numbered> = Vec::new();
    let total = experiment.example_count().unwrap_or(1) as u64;
    for (done, one) in experiment.by_example().enumerate() {
        let progress = Progress { what: "looking", done: done as u64, total, unit: Unit::Examples };
        if (runtime.progress)(progress).is_break() {
            observer.finished();
            return Err(Error::Interrupted { kept: "; nothing was written" });
        }
        let one = one?;
        lenses.push((one.example(), one.lens(runtime, top)?));
    }
    observer.finished();
    Ok(Looked { lenses, left_out, date: experiment.seen_date() })
}

/// Lenses in memory.
#[derive(Debug)]
pub struct Computed {
    /// A lens for each example.
    pub lenses: Vec<Lens>,
    /// The tokens at each depth and position: `lens.csv`.
    pub tokens: Table,
    /// Direct logit attribution: `contributions.csv`.
    pub contributions: Table,
    /// The examples that were left out.
    pub left_out: LeftOut,
    /// Tokens that probably lack a leading space.
    pub warnings: Vec<Warning>,
}

/// Looks at each example of an experiment, in memory. `top` is how many of the likeliest tokens the table has at each place.
///
/// # Errors
/// When the experiment is refused, the work fails, or the caller asks to stop.
pub fn in_memory(
    source: &Source<'_>,
    top: usize,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Computed> {
    let Looked { mut lenses, left_out, .. } = look(source, top, runtime, observer)?;
    let (tokens, contributions) =
        (lens_table(&lenses, source.model)?, contributions_table(&lenses, source.model)?);
    let warnings = missing_spaces(&mut lenses, observer);
    let lenses = lenses.into_iter().map(|(_, lens)| lens).collect();
    Ok(Computed { lenses, tokens, contributions, left_out, warnings })
}

/// Reports the tokens that probably lack a leading space.
fn missing_spaces(lenses: &mut [Numbered], observer: &dyn Observer) -> Vec<Warning> {
    let missing = lenses.iter_mut().flat_map(|(_, lens)| std::mem::take(&mut lens.missing_spaces));
    let missing: Vec<_> = missing.collect();
    observer.missing_spaces(&missing);
    missing.into_iter().map(Warning::from).collect()
}

/// Looks at each example of an experiment, and writes tables and figures into a folder that was claimed for them.
///
/// # Errors
/// When the experiment or the folder is refused, the work fails, or the caller asks to stop; nothing is then written.
pub fn run(
    source: &Source<'_>,
    folder: &Folder,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    folder.must_be_for(Results::Lens)?;
    let Looked { mut lenses, left_out, date } = look(source, options.top, runtime, observer)?;
    let record = Record { ran: Ran::new(source, None)?, date, top: options.top, errors: left_out.errors() };
    folder.make()?;
    // Nothing resumes a lens: without all of its files, none of them is of use.
    let files = write(folder, options.format, &lenses, source.model, &record, observer)
        .inspect_err(|_| folder.discard())?;
    let warnings = missing_spaces(&mut lenses, observer);
    let summary = Summary {
        model: source.model.name().into(),
        out: shown(folder.path()),
        examples: lenses.len(),
        files: files.iter().map(|name| folder.shown(name)).collect(),
        errors: left_out.errors(),
        warnings,
    };
    Ok(Outcome { summary, lenses: lenses.into_iter().map(|(_, lens)| lens).collect(), left_out })
}

/// Writes tables, figures and the record; returns their names.
fn write(
    folder: &Folder,
    format: Format,
    lenses: &[Numbered],
    model: &Model,
    record: &Record<'_>,
    observer: &dyn Observer,
) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (stem, table) in
        [("lens", lens_table(lenses, model)?), ("contributions", contributions_table(lenses, model)?)]
    {
        let name = format!("{stem}.{}", format.name());
        folder.write(&name, |w| table.write(format, w))?;
        files.push(name);
    }
    if let Some((_, first)) = lenses.first() {
        let of = subtitle(model, first, lenses.len());
        for (stem, map) in
            [("lens", lens_map(first, model, &of)), ("contributions", contributions_map(first, model, &of))]
        {
            files.extend(folder.draw(stem, map.to_svg(), observer)?);
        }
    }
    folder.write_json(Results::Lens.last(), record)?;
    files.push(Results::Lens.last().into());
    Ok(files)
}

/// The versions there are, with their names.
#[must_use]
pub fn views(lens: &Lens) -> Vec<(&'static str, &View)> {
    let edited = lens.counterfactual.iter().map(|view| ("counterfactual", view));
    [("original", &lens.original)].into_iter().chain(edited).collect()
}

fn lens_table(lenses: &[Numbered], model: &Model) -> Result<Table> {
    let mut table = Table::new(LENS.to_vec())?;
    for (example, lens) in lenses {
        for (version, view) in views(lens) {
            for depth in &view.depths {
                for (position, sight) in depth.positions.iter().enumerate() {
                    let others = sight.tokens.iter().filter(|seen| !sight.top.contains(seen));
                    for seen in sight.top.iter().chain(others) {
                        let finite = |x: f64| x.is_finite().then_some(x);
                        table.push(vec![
                            (*example).into(),
                            Some(version.to_owned()).into(),
                            depth.layer.into(),
                            Some(position).into(),
                            view.ids.get(position).map(|id| model.token_text(*id)).into(),
                            view.ids.get(position).copied().into(),
                            Some(model.token_text(seen.token)).into(),
                            seen.token.into(),
                            Some(seen.rank).into(),
                            finite(seen.prob).into(),
                            finite(seen.logit).into(),
                        ])?;
                    }
                }
            }
        }
    }
    Ok(table)
}

fn contributions_table(lenses: &[Numbered], model: &Model) -> Result<Table> {
    let mut table = Table::new(CONTRIBUTIONS.to_vec())?;
    for (example, lens) in lenses {
        for (version, view) in views(lens) {
            for contribution in &view.contributions {
                for (token, logit) in lens.tokens.iter().zip(&contribution.logits) {
                    let part = contribution.part;
                    let row: Vec<Cell> = vec![
                        (*example).into(),
                        Some(version.to_owned()).into(),
                        Some(part.name().to_owned()).into(),
                        part.layer().into(),
                        part.head().into(),
                        Some(model.token_text(*token)).into(),
                        (*token).into(),
                        logit.is_finite().then_some(*logit).into(),
                    ];
                    table.push(row)?;
                }
            }
        }
    }
    Ok(table)
}

fn subtitle(model: &Model, lens: &Lens, examples: usize) -> String {
    let ids = &lens.original.ids;
    let prompt: String = ids.iter().map(|id| model.token_text(*id)).collect();
    let of = if examples > 1 { format!(", the first of {examples} examples") } else { String::new() };
    let name = short_name(model);
    text::shorten(&format!("{name}: {}{of}", text::prose(&prompt)), 90)
}

/// Labels of tokens as figures write them.
fn drawn_labels(model: &Model, ids: impl Iterator<Item = u32>) -> TokenLabels {
    TokenLabels::new(ids, |id| text::token(&model.token_text(id)))
}

/// The likeliest token after every layer at every position.
fn lens_map(lens: &Lens, model: &Model, of: &str) -> HeatMap {
    let tick = |(position, id): (usize, &u32)| Tick::token(position.to_string(), model.token_text(*id));
    let depth =
        |layer: Option<usize>| layer.map_or_else(|| "embeddings".into(), |layer| format!("layer {layer}"));
    let best = views(lens).into_iter().flat_map(|(_, view)| &view.depths).flat_map(|depth| &depth.positions);
    let labels = drawn_labels(model, best.filter_map(|sight| sight.top.first()).map(|seen| seen.token));
    let facet = |(version, view): (&'static str, &View)| {
        let best = || view.depths.iter().flat_map(|depth| &depth.positions).map(|sight| sight.top.first());
        Facet {
            title: version.into(),
            values: best().map(|seen| seen.map(|seen| seen.prob)).collect(),
            words: best()
                .map(|seen| seen.map_or_else(String::new, |seen| labels.get(seen.token).into()))
                .collect(),
        }
    };
    HeatMap {
        title: "likeliest token after each layer".into(),
        subtitle: Some(of.into()),
        x: Axis { label: "position".into(), ticks: lens.original.ids.iter().enumerate().map(tick).collect() },
        y: Axis {
            label: "residual stream after".into(),
            ticks: lens.original.depths.iter().map(|at| Tick::new(depth(at.layer))).collect(),
        },
        facets: views(lens).into_iter().map(facet).collect(),
        value_label: "probability".into(),
        scale: Scale::FromZero,
    }
}

/// What each head and MLP puts into the logits: of the first token, less those of the second if there is one.
fn contributions_map(lens: &Lens, model: &Model, of: &str) -> HeatMap {
    let parts = || lens.original.contributions.iter().map(|c| c.part);
    let layers = parts().filter_map(Contributor::layer).max().map_or(1, |last| last + 1);
    let heads = parts().filter_map(Contributor::head).max().map_or(0, |last| last + 1);
    // Heads, then the MLP of each layer; what else there is, is in the table.
    let columns = heads + 1;
    let place = |part: Contributor| match part {
        Contributor::Head { layer, head } => Some(layer * columns + head),
        Contributor::Mlp { layer } => Some(layer * columns + heads),
        Contributor::Embedding
        | Contributor::AttentionBias { .. }
        | Contributor::Edit { .. }
        | Contributor::NormBias => None,
    };
    let difference = |logits: &[f64]| match logits {
        [first, second, ..] => first - second,
        [one] => *one,
        [] => f64::NAN,
    };
    let facet = |(version, view): (&'static str, &View)| {
        let mut values = vec![None; layers * columns];
        for contribution in &view.contributions {
            if let Some(place) = place(contribution.part) {
                values[place] = Some(difference(&contribution.logits));
            }
        }
        Facet { title: version.into(), values, ..Facet::default() }
    };
    let labels = drawn_labels(model, lens.tokens.iter().copied());
    let what = match lens.tokens.as_slice() {
        [first, second, ..] => {
            format!("logit of {} less that of {}", labels.get(*first), labels.get(*second))
        }
        [one] => format!("logit of {}", labels.get(*one)),
        [] => String::new(),
    };
    let head = (0..heads).map(|head| Tick::new(head.to_string()));
    let layer = (0..layers).map(|layer| Tick::new(format!("layer {layer}")));
    HeatMap {
        title: format!("what the {what} is made of"),
        subtitle: Some(of.into()),
        x: Axis { label: "head".into(), ticks: head.chain([Tick::new("MLP")]).collect() },
        y: Axis { label: String::new(), ticks: layer.collect() },
        facets: views(lens).into_iter().map(facet).collect(),
        value_label: "contribution (logits)".into(),
        scale: Scale::Diverging(Centre::ZERO),
    }
}
