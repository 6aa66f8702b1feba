//! `lens`: what the residual stream says after every layer, and what the answer's logits are made of.

use crate::args::{Again, DEFAULT_MODEL, FileArgs, LensArgs};
use crate::failure::Failure;
use crate::folder::{self, Folder, Results};
use crate::loaded::Loaded;
use crate::sweep::ModelRecord;
use crate::terminal::{Terminal, Warning};
use causalcone::chat::Date;
use causalcone::lens::{Contributor, View};
use causalcone::{ExperimentFile, Lens, Model, Progress, Refused, TokenLabels, Unit, visible};
use causalcone_engine::schema::{ReadFile, RunFile, TokenFile};
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

/// What was seen, for whoever wants to see it again.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a ExperimentFile,
    model: ModelRecord<'a>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    top: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

#[derive(Serialize)]
struct Summary {
    model: String,
    out: String,
    examples: usize,
    files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// `causalcone lens`.
pub(crate) fn lens(args: &LensArgs, terminal: &Terminal) -> Result<(), Failure> {
    let again = Again { resume: false, force: args.force };
    let folder = Folder::claim(&args.out, again, Results::Lens)?;
    let loaded = match (&args.file, &args.prompt) {
        (Some(file), _) => {
            let (file, model) = (file.clone(), args.model.clone());
            Loaded::new(&FileArgs { file, model, weights: args.weights }, terminal)?
        }
        (None, prompt) => {
            let file = prompted(args, prompt.clone().unwrap_or_default());
            Loaded::of(file, None, args.weights, |name, options| terminal.load_with(name, options))?
        }
    };
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let (experiment, left_out) = loaded.single(&runtime, terminal)?;
    let mut lenses: Vec<(Option<usize>, Lens)> = Vec::new();
    let total = experiment.example_count().unwrap_or(1) as u64;
    for (done, one) in experiment.by_example().enumerate() {
        let progress = Progress { what: "looking", done: done as u64, total, unit: Unit::Examples };
        if terminal.progress(progress).is_break() {
            terminal.clear();
            return Err(Failure::interrupted("; nothing was written"));
        }
        let one = one?;
        lenses.push((one.example(), one.lens(&runtime, args.n)?));
    }
    terminal.clear();
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        model: ModelRecord::of(&loaded.model)?,
        date: experiment.seen_date(),
        top: args.n,
        errors: left_out.errors(),
    };
    folder.make()?;
    // Nothing resumes a lens: without all of its files, none of them is of use.
    let files =
        write(&folder, args.format, &lenses, &loaded, &record, terminal).inspect_err(|_| folder.discard())?;
    let model = &loaded.model;
    let missing = lenses.iter_mut().flat_map(|(_, lens)| std::mem::take(&mut lens.missing_spaces)).collect();
    let summary = Summary {
        model: model.name().into(),
        out: folder::shown(&args.out),
        examples: lenses.len(),
        files: files.iter().map(|name| folder.shown(name)).collect(),
        errors: left_out.errors(),
        warnings: terminal.warn(missing),
    };
    terminal.result(&summary, |summary| {
        let seen = lenses.first().map(|(_, lens)| human(lens, model)).unwrap_or_default();
        let more = match summary.examples {
            0 | 1 => String::new(),
            n => format!("the first of {n} examples; the others are in the tables\n"),
        };
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        format!("{seen}{more}\n{files}")
    })?;
    left_out.into_result()
}

/// Writes tables, figures and the record; returns their names.
fn write(
    folder: &Folder,
    format: Format,
    lenses: &[(Option<usize>, Lens)],
    loaded: &Loaded,
    record: &Record<'_>,
    terminal: &Terminal,
) -> Result<Vec<String>, Failure> {
    let model = &loaded.model;
    let mut files = Vec::new();
    for (stem, table) in
        [("lens", lens_table(lenses, model)?), ("contributions", contributions_table(lenses, model)?)]
    {
        let name = format!("{stem}.{}", format.name());
        folder.write(&name, |w| table.write(format, w))?;
        files.push(name);
    }
    if let Some((_, first)) = lenses.first() {
        let of = subtitle(loaded, first, lenses.len());
        for (stem, map) in
            [("lens", lens_map(first, model, &of)), ("contributions", contributions_map(first, model, &of))]
        {
            files.extend(folder.draw(stem, map.to_svg(), terminal)?);
        }
    }
    folder.write("lens.json", |w| Ok(serde_json::to_writer_pretty(w, record)?))?;
    files.push("lens.json".into());
    Ok(files)
}

/// The experiment of a prompt given on the command line.
fn prompted(args: &LensArgs, prompt: String) -> ExperimentFile {
    let run = RunFile { prompt: Some(prompt), ..RunFile::default() };
    let tokens = args.token.iter().cloned().map(TokenFile::Text).collect();
    ExperimentFile {
        model: Some(args.model.clone().unwrap_or_else(|| DEFAULT_MODEL.into())),
        runs: [("base".to_owned(), run)].into(),
        read: Some(ReadFile { tokens, ..ReadFile::default() }),
        ..ExperimentFile::default()
    }
}

/// The versions there are, with their names.
fn views(lens: &Lens) -> Vec<(&'static str, &View)> {
    let edited = lens.counterfactual.iter().map(|view| ("counterfactual", view));
    [("original", &lens.original)].into_iter().chain(edited).collect()
}

fn lens_table(lenses: &[(Option<usize>, Lens)], model: &Model) -> Result<Table, Failure> {
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

fn contributions_table(lenses: &[(Option<usize>, Lens)], model: &Model) -> Result<Table, Failure> {
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

fn subtitle(loaded: &Loaded, lens: &Lens, examples: usize) -> String {
    let ids = &lens.original.ids;
    let prompt: String = ids.iter().map(|id| loaded.model.token_text(*id)).collect();
    let of = if examples > 1 { format!(", the first of {examples} examples") } else { String::new() };
    let name = std::path::Path::new(loaded.model.name())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
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

/// The last position, layer by layer: the likeliest token and those asked for; then the largest contributions.
fn human(lens: &Lens, model: &Model) -> String {
    let mut text = String::new();
    let labels = TokenLabels::new(lens.tokens.iter().copied(), |id| visible(&model.token_text(id)));
    for (version, view) in views(lens) {
        text += &format!("{version}, at the last position\n{:<12} {:<26}", "after", "likeliest");
        for token in &lens.tokens {
            text += &format!(" {:>12}", text::shorten(labels.get(*token), 12));
        }
        text += "\n";
        for depth in &view.depths {
            let Some(sight) = depth.positions.last() else { continue };
            let after = depth.layer.map_or_else(|| "embeddings".into(), |layer| format!("layer {layer}"));
            let best = sight.top.first().map_or_else(String::new, |seen| {
                format!("{:<16} {:.6}", text::shorten(&visible(&model.token_text(seen.token)), 16), seen.prob)
            });
            text += &format!("{after:<12} {best:<26}");
            for seen in &sight.tokens {
                text += &format!(" {:>12.6}", seen.prob);
            }
            text += "\n";
        }
        text += "\n";
    }
    text
}
