//! `patch` and `heads`: activation patching of two prompts, without an experiment file.

use crate::args::{Again, DEFAULT_MODEL, formats};
use crate::failure::Failure;
use crate::loaded::Loaded;
use crate::options::{Memory, Weights};
use crate::terminal::Terminal;
use causalcone::jobs::recipes::{Patch, unedited};
use causalcone::jobs::{Folder, Results, Strongest, Warning, strongest, sweep};
use causalcone::{Align, Each, EngineError, ExperimentFile, Indices, LayerAxis, Metric, Positions, visible};
use causalcone_report::terminal::render;
use causalcone_report::{Format, HeatMap};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use std::path::PathBuf;
use std::str::FromStr;

/// How many of the strongest cells are listed.
const LISTED: usize = 10;

/// What commands that need no experiment file have in common.
#[derive(Debug, Args)]
pub(crate) struct OneLine {
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    model: String,
    #[command(flatten)]
    weights: Weights,
    /// Print the experiment file that this command runs, and run nothing
    #[arg(long)]
    print_experiment: bool,
    /// Also write the results to a folder: table, figures and record, as `sweep` does
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Format of the table
    #[arg(long, default_value = "csv", value_parser = formats())]
    format: Format,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    again: Again,
}

/// The two prompts and the answers that are compared.
#[derive(Debug, Args)]
pub(crate) struct Contrast {
    /// The prompt whose run is patched
    prompt: String,
    /// The prompt that activations are copied from
    #[arg(long, value_name = "PROMPT")]
    from: String,
    /// Answers of one token each, mostly with the space before the word; logit_diff is the first minus the second
    #[arg(long, value_name = "TOKEN", num_args = 1.., required = true)]
    answers: Vec<String>,
    /// What is recorded; can be given several times, the first is drawn and ranked
    #[arg(long, value_name = "METRIC", default_value = "logit_diff", value_parser = metrics())]
    metric: Vec<Metric>,
    /// Layers: each, cumulative, window=N, all together, or some: 3, 0..10, 3,5,7
    #[arg(long, value_name = "LAYERS", default_value = "each", allow_hyphen_values = true)]
    layers: Layers,
}

#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    contrast: Contrast,
    /// The site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v or any other name of a site
    #[arg(long, value_name = "SITE", default_value = "resid_pre")]
    site: String,
    /// Positions: each, all together, last, or some: 3, -1, 2..5, 1,4
    #[arg(long, value_name = "POSITIONS", default_value = "each", allow_hyphen_values = true)]
    positions: Places,
    /// Heads, one at a time, for sites with heads: each, or some: 3, 0..4, 1,7
    #[arg(long, value_name = "HEADS", allow_hyphen_values = true)]
    heads: Option<Heads>,
    /// How positions pair if the prompts have different lengths: tokens, left or right
    #[arg(long, value_name = "HOW", value_parser = aligns())]
    align: Option<Align>,
    #[command(flatten)]
    one: OneLine,
}

#[derive(Debug, Args)]
pub(crate) struct HeadsArgs {
    #[command(flatten)]
    contrast: Contrast,
    #[command(flatten)]
    one: OneLine,
}

/// `--layers`.
#[derive(Debug, Clone)]
struct Layers(Indices, Option<LayerAxis>);

impl FromStr for Layers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let window = text.strip_prefix("window=").map(str::parse::<usize>);
        Ok(match (text, window) {
            ("each", _) => Self(Indices::All, Some(LayerAxis::Each)),
            ("cumulative", _) => Self(Indices::All, Some(LayerAxis::Cumulative)),
            ("all", _) => Self(Indices::All, None),
            (_, Some(Ok(width))) => Self(Indices::All, Some(LayerAxis::Window(width))),
            (_, Some(Err(_))) => return Err("a window is a number of layers: window=3".into()),
            (some, None) => Self(indices(some)?, Some(LayerAxis::Each)),
        })
    }
}

/// `--positions`.
#[derive(Debug, Clone)]
struct Places(Positions, Option<Each>);

impl FromStr for Places {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "each" => Self(Positions::Indices(Indices::All), Some(Each)),
            "all" => Self(Positions::Indices(Indices::All), None),
            "last" => Self(Positions::Last, None),
            some => Self(Positions::Indices(indices(some)?), Some(Each)),
        })
    }
}

/// `--heads`.
#[derive(Debug, Clone)]
struct Heads(Indices);

impl FromStr for Heads {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "each" { Ok(Self(Indices::All)) } else { indices(text).map(Self) }
    }
}

/// A number, several, or a range.
fn indices(text: &str) -> Result<Indices, String> {
    let list: Result<Vec<i64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    match list {
        Ok(list) => Ok(Indices::List(list)),
        Err(_) => text.parse().map_err(|_| "give numbers or a range: 3, 3,5,7, 0..10 or -5..".into()),
    }
}

/// The metrics, by name.
fn metrics() -> impl TypedValueParser<Value = Metric> {
    let by_name = |name: String| Metric::ALL.into_iter().find(|(known, _)| *known == name);
    PossibleValuesParser::new(Metric::ALL.map(|(name, _)| name))
        .try_map(move |name| by_name(name).map(|(_, metric)| metric).ok_or("no metric"))
}

/// The ways of pairing positions, by name.
fn aligns() -> impl TypedValueParser<Value = Align> {
    const ALL: [Align; 3] = [Align::Tokens, Align::Left, Align::Right];
    PossibleValuesParser::new(ALL.map(Align::name))
        .try_map(|name| ALL.into_iter().find(|align| align.name() == name).ok_or("no way of pairing"))
}

/// `causalcone patch`.
pub(crate) fn patch(args: &PatchArgs, terminal: &Terminal) -> Result<(), Failure> {
    let PatchArgs { contrast, site, positions: Places(positions, position_axis), heads, align, one } = args;
    let patch = Patch {
        site: site.clone(),
        positions: positions.clone(),
        position_axis: *position_axis,
        heads: heads.as_ref().map(|Heads(heads)| heads.clone()),
        align: *align,
        ..Patch::new(&contrast.prompt, &contrast.from, &contrast.answers)
    };
    run(patch, contrast, one, terminal)
}

/// `causalcone heads`.
pub(crate) fn heads(args: &HeadsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let HeadsArgs { contrast, one } = args;
    let patch = Patch::heads(&contrast.prompt, &contrast.from, &contrast.answers);
    run(patch, contrast, one, terminal)
}

/// What was found.
#[derive(Serialize)]
struct Summary {
    model: String,
    /// The metric that is ranked.
    metric: &'static str,
    answers: Vec<String>,
    /// That metric of both prompts without edits.
    prompt: Option<f64>,
    from: Option<f64>,
    cells: usize,
    strongest: Vec<Ranked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// A cell, and how much of the way from the prompt's number to that of the other prompt it goes.
#[derive(Serialize)]
struct Ranked {
    #[serde(flatten)]
    cell: Strongest,
    /// `None` where both prompts have the same number.
    recovered: Option<f64>,
}

fn run(patch: Patch, contrast: &Contrast, one: &OneLine, terminal: &Terminal) -> Result<(), Failure> {
    let Layers(layers, layer_axis) = contrast.layers.clone();
    let patch = Patch {
        model: Some(one.model.clone()),
        layers,
        layer_axis,
        metrics: contrast.metric.clone(),
        ..patch
    };
    let file = ExperimentFile { weights: one.weights.given(), ..patch.file()? };
    if one.print_experiment {
        let text = file.to_toml()?;
        return terminal.result(&serde_json::json!({ "experiment": text }), |_| text.clone());
    }
    let folder = match &one.out {
        Some(out) => Some(Folder::claim(out, Results::Sweep, one.again.into())?),
        None => None,
    };
    let loaded = Loaded::of(file, None, one.weights, |name, options| terminal.load_with(name, options))?;
    let (source, report) = (loaded.source(), terminal.report());
    let runtime = one.memory.runtime(&loaded.model, &report);
    let (result, map, files, warnings) = match &folder {
        Some(folder) => {
            let options = sweep::Options { format: one.format, verify: None };
            let swept = sweep::run(&source, folder, &options, &runtime, terminal).map_err(with_flags)?;
            (swept.result, swept.map, swept.summary.files, swept.summary.warnings)
        }
        None => {
            let swept = sweep::in_memory(&source, &runtime, terminal).map_err(with_flags)?;
            (swept.result, swept.map, Vec::new(), swept.warnings)
        }
    };
    let from = unedited(&source, "source", &result.columns, &runtime)?.into_iter().next().flatten();
    let prompt = result.base.first().and_then(|values| values.first().copied().flatten());
    let recovered = |value: f64| {
        let (from, prompt) = (from?, prompt?);
        ((from - prompt).abs() > 1e-6).then(|| (value - prompt) / (from - prompt))
    };
    let ranked = |cell: Strongest| Ranked { recovered: recovered(cell.value), cell };
    let summary = Summary {
        model: loaded.model.name().into(),
        metric: contrast.metric.first().map_or("", |metric| metric.name()),
        answers: contrast.answers.clone(),
        prompt,
        from,
        cells: result.cells.len(),
        strongest: strongest(&result, &loaded.model, LISTED).into_iter().map(ranked).collect(),
        out: one.out.as_ref().map(|out| out.display().to_string()),
        files,
        warnings,
    };
    terminal.result(&summary, |summary| human(summary, &map, terminal))
}

/// A failure with the options of the command as its hint.
fn with_flags(error: causalcone::Error) -> Failure {
    let is_unaligned = matches!(&error, causalcone::Error::Engine(EngineError::Unaligned { .. }));
    let failure = Failure::from(error);
    match is_unaligned {
        true => failure.hint("give --align tokens, left or right, or patch some --positions, such as last"),
        false => failure,
    }
}

fn human(summary: &Summary, map: &HeatMap, terminal: &Terminal) -> String {
    let number = |x: Option<f64>| x.map_or_else(|| "not finite".into(), |x| format!("{x:+.4}"));
    let answers: Vec<String> = summary.answers.iter().map(|answer| visible(answer)).collect();
    let metric = match (summary.metric, answers.as_slice()) {
        ("logit_diff", [first, second, ..]) => format!("logit_diff, {first} minus {second}"),
        ("prob" | "logit" | "logprob", [first, ..]) => format!("{} of {first}", summary.metric),
        (metric, _) => metric.into(),
    };
    let (prompt, from) = (number(summary.prompt), number(summary.from));
    let drawn = render(map, &terminal.style()).unwrap_or_default();
    let mut text = format!("{metric}, without edits\n  PROMPT  {prompt}\n  --from  {from}\n\n{drawn}\n");
    text += &format!("strongest of {} cells\n", summary.cells);
    for Ranked { cell, recovered } in &summary.strongest {
        let place = [
            cell.layer.map(|layer| format!("layer {layer}")),
            cell.head.map(|head| format!("head {head}")),
            cell.position.map(|position| {
                let token = cell.token.as_deref().map(|token| format!(" {}", visible(token)));
                format!("position {position}{}", token.unwrap_or_default())
            }),
        ];
        let place: Vec<String> = place.into_iter().flatten().collect();
        let recovered = recovered.map(|part| format!("  recovered {part:+.3}")).unwrap_or_default();
        text += &format!(
            "  {:<34} {:+.4}  change {:+.4}{recovered}\n",
            place.join("  "),
            cell.value,
            cell.change
        );
    }
    text + &summary.files.iter().map(|file| format!("  {file}\n")).collect::<String>()
}
