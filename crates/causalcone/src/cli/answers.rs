//! `top` and `run`: a model's answer, once.

use super::failure::Failure;
use super::terminal::Terminal;
use super::{FileArgs, Loaded, TopArgs};
use crate::{Experiment, Record, Top, visible};
use candle_core::{DType, Tensor};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
struct TopResult {
    model: String,
    ids: Vec<u32>,
    top: Top,
}

/// `causalcone top`.
pub(super) fn top(args: &TopArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let model = terminal.load(&args.model)?;
    let ids = match (&args.ids, &args.prompt) {
        (Some(ids), _) => ids.clone(),
        (None, prompt) => model.prompt(prompt.as_deref().unwrap_or_default(), args.bos)?,
    };
    let mut experiment = Experiment::new(&model);
    let run = experiment.run_ids("base", ids.clone())?;
    let top = experiment.execute()?.original(run).top(args.n);
    terminal.result(&TopResult { model: args.model.clone(), ids, top }, |result| result.top.to_string())
}

/// The answer of one run, as `run --json` has it.
#[derive(Serialize)]
pub(super) struct Answers {
    pub(super) top: Vec<Record>,
    tokens: Vec<Record>,
}

#[derive(Serialize)]
pub(super) struct RunResult {
    model: String,
    original: Answers,
    pub(super) counterfactual: Answers,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collected: Vec<CollectedJson>,
}

#[derive(Serialize)]
struct CollectedJson {
    run: String,
    site: &'static str,
    layer: Option<usize>,
    positions: Vec<usize>,
    heads: Option<Vec<usize>>,
    dims: Option<Vec<usize>>,
    shape: Vec<usize>,
    values: Value,
}

/// `causalcone run`.
pub(super) fn run(args: &FileArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let loaded = Loaded::new(&args.file, args.model.as_deref(), terminal)?;
    let result = run_once(&loaded)?;
    terminal.result(&result, human)
}

/// Runs an experiment once, edited and unedited.
pub(super) fn run_once(loaded: &Loaded) -> Result<RunResult, Failure> {
    let experiment = loaded.experiment()?;
    let read_run = experiment.reading_run()?;
    // Compiled for what it refuses: an edit that nothing read could show.
    experiment.plan_single()?;
    let outcome = experiment.execute()?;
    let answers = |answer: crate::Answer<'_>| Answers {
        top: answer.top(experiment.listed()).0,
        tokens: answer.distribution.records(&loaded.model, experiment.read_tokens()),
    };
    let collected = outcome.collected().iter().map(|collected| -> Result<_, Failure> {
        Ok(CollectedJson {
            run: collected.run.to_string(),
            site: collected.place.site.name(),
            layer: collected.place.layer,
            positions: collected.place.positions.to_vec(),
            heads: collected.place.heads.as_deref().map(<[usize]>::to_vec),
            dims: collected.place.dims.as_deref().map(<[usize]>::to_vec),
            shape: collected.tensor.dims().to_vec(),
            values: nested(&collected.tensor)?,
        })
    });
    Ok(RunResult {
        model: loaded.model.name().to_owned(),
        original: answers(outcome.original(read_run)),
        counterfactual: answers(outcome.counterfactual(read_run)),
        collected: collected.collect::<Result<_, _>>()?,
    })
}

/// A tensor as lists in lists; numbers that are not finite are null.
fn nested(tensor: &Tensor) -> Result<Value, Failure> {
    let failed = |e: candle_core::Error| Failure::run(e.to_string());
    if tensor.rank() <= 1 {
        let numbers =
            tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).map_err(failed)?;
        return Ok(numbers.into_iter().map(Value::from).collect());
    }
    let rows = tensor.dim(0).map_err(failed)?;
    (0..rows).map(|row| nested(&tensor.get(row).map_err(failed)?)).collect()
}

/// Both answers side by side, then the tokens asked for, then what was collected.
fn human(result: &RunResult) -> String {
    let prob = |p: Option<f64>| p.map_or_else(|| "not finite".into(), |p| format!("{p:.6}"));
    let cell = |record: Option<&Record>| match record {
        Some(record) => format!("{:<18} {}", visible(&record.token), prob(record.prob)),
        None => String::new(),
    };
    let mut text = format!("{:<30} {}\n", "original", "counterfactual");
    let (original, edited) = (&result.original, &result.counterfactual);
    for i in 0..original.top.len().max(edited.top.len()) {
        text += format!("{:<30} {}", cell(original.top.get(i)), cell(edited.top.get(i))).trim_end();
        text += "\n";
    }
    if !original.tokens.is_empty() {
        text += &format!("\n{:<18} {:>10} {:>14}\n", "token", "original", "counterfactual");
        for (before, after) in original.tokens.iter().zip(&edited.tokens) {
            text += &format!(
                "{:<18} {:>10} {:>14}\n",
                visible(&before.token),
                prob(before.prob),
                prob(after.prob)
            );
        }
    }
    for collected in &result.collected {
        let layer = collected.layer.map_or(String::new(), |layer| format!(" of layer {layer}"));
        let (site, positions, shape) = (collected.site, &collected.positions, &collected.shape);
        text += &format!(
            "\ncollected {site}{layer} at {positions:?}: shape {shape:?}; the numbers are in --json\n"
        );
    }
    text
}
