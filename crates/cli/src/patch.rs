//! `patch` and `heads`: activation patching of two prompts, without an experiment file.

use crate::failure::Failure;
use crate::given::Given;
use crate::loaded::Loaded;
use crate::one_line::{Contrast, HeadsArgs, OneLine, PatchArgs};
use crate::terminal::Terminal;
use causalcone::jobs::recipes::{Patch, unedited};
use causalcone::jobs::{Folder, Results, Strongest, Warning, strongest, sweep};
use causalcone::{EngineError, ExperimentFile, Metric, visible};
use causalcone_report::HeatMap;
use causalcone_report::terminal::render;
use serde::Serialize;

/// How many of the strongest cells are listed.
const LISTED: usize = 10;

impl Contrast {
    /// Both prompts.
    fn prompts(&self) -> Result<[String; 2], Failure> {
        if [&self.prompt, &self.from].iter().all(|prompt| *prompt == "-") {
            return Err(Failure::input("PROMPT and --from cannot both be standard input"));
        }
        Ok([Given::prompt(&self.prompt)?, Given::prompt(&self.from)?])
    }
}

/// `causalcone patch`.
pub(crate) fn patch(args: &PatchArgs, terminal: &Terminal) -> Result<(), Failure> {
    let PatchArgs { contrast, site, positions, heads, align, one } = args;
    let [prompt, from] = contrast.prompts()?;
    let patch = Patch {
        site: site.clone(),
        positions: positions.clone(),
        heads: heads.clone(),
        align: *align,
        ..Patch::new(prompt, from, &contrast.answers)
    };
    run(patch, contrast, one, terminal)
}

/// `causalcone heads`.
pub(crate) fn heads(args: &HeadsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let HeadsArgs { contrast, one } = args;
    let [prompt, from] = contrast.prompts()?;
    let patch = Patch::heads(prompt, from, &contrast.answers);
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
    let needs = |metric: &&Metric| metric.needs_tokens() > contrast.answers.len();
    if let Some(metric) = contrast.metric.iter().find(needs) {
        let message = format!("--metric {} needs {} --answers", metric.name(), metric.needs_tokens());
        return Err(Failure::input(message).hint("name another answer, or give --metric prob"));
    }
    if contrast.metric == [Metric::LogitDiff] && contrast.answers.len() > 2 {
        let message =
            format!("--metric logit_diff compares 2 --answers, and {} are given", contrast.answers.len());
        return Err(
            Failure::input(message).hint("name the two answers, or add --metric prob for each of them")
        );
    }
    if one.out.is_none() && (one.again.resume || one.again.force) {
        return Err(Failure::input("--resume and --force are for the folder of --out, which is not given"));
    }
    let patch = Patch {
        model: Some(one.model.clone()),
        layers: contrast.layers.clone(),
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
    // The divergence of a run from itself says nothing of the other prompt.
    let from = match contrast.metric.first() {
        Some(Metric::Kl) => None,
        _ => unedited(&source, "source", &result.columns, &runtime)?.into_iter().next().flatten(),
    };
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
    let prompt = number(summary.prompt);
    let from = summary.from.map(|from| format!("  --from  {from:+.4}\n")).unwrap_or_default();
    let drawn = render(map, &terminal.style()).unwrap_or_default();
    let mut text = format!("{metric}, without edits\n  PROMPT  {prompt}\n{from}\n{drawn}\n");
    text += &format!("strongest of {} cells\n", summary.cells);
    for Ranked { cell, recovered } in &summary.strongest {
        let place = [
            match (&cell.layers, cell.layer) {
                (Some(layers), _) => Some(format!("layers {layers}")),
                (None, layer) => layer.map(|layer| format!("layer {layer}")),
            },
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
