//! `top` and `run`: a model's answer, once.

use crate::args::{FileArgs, TopArgs};
use crate::failure::{Failure, all_fit};
use crate::given::Given;
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use candle_core::{DType, Tensor};
use causalcone::chat::{Clock, Date, Message};
use causalcone::jobs::{LeftOut, Warning};
use causalcone::{
    Experiment, Metric, MissingSpace, Precision, Refused, Runtime, TokenLabels, TokenRecord, Top, visible,
};
use serde::Serialize;
use serde_json::Value;

#[derive(Serialize)]
struct TopResult {
    model: String,
    /// How the weights are kept.
    weights: Option<Precision>,
    ids: Vec<u32>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    top: Top,
}

/// `causalcone top`.
pub(crate) fn top(args: &TopArgs, terminal: &Terminal) -> Result<(), Failure> {
    let prompt = args.prompt.as_deref().map(Given::prompt).transpose()?;
    let model = terminal.load(&args.model, args.weights.given())?;
    let clock = Clock::default();
    let ids = match (&args.ids, prompt) {
        (Some(ids), _) => ids.clone(),
        (None, Some(question)) if args.chat => {
            model.chat(&[Message::user(question)], true, args.bos, &clock)?
        }
        (None, prompt) => model.prompt(&prompt.unwrap_or_default(), args.bos)?,
    };
    let mut experiment = Experiment::new(&model);
    let run = experiment.run_ids("base", ids.clone())?;
    let top = experiment.execute()?.original(run).top(args.n);
    let weights = model.footprint().chosen;
    let result = TopResult { model: args.model.clone(), weights, ids, date: clock.seen(), top };
    terminal.result(&result, |result| result.top.to_string())
}

/// The answer of one run, as `run --json` has it.
#[derive(Serialize)]
pub(crate) struct Answers {
    pub(crate) top: Vec<TokenRecord>,
    tokens: Vec<TokenRecord>,
    /// Answers of one token or more; left out where none are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    answers: Vec<AnswerRecord>,
}

#[derive(Serialize)]
struct RunResult {
    model: String,
    /// How the weights are kept.
    weights: Option<Precision>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    #[serde(flatten)]
    answered: Answered,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// What one experiment answered, without and with its edits.
#[derive(Serialize)]
pub(crate) struct Answered {
    original: Answers,
    pub(crate) counterfactual: Answers,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    collected: Vec<CollectedJson>,
}

/// `run` of a file with a data set.
#[derive(Serialize)]
struct ExamplesResult {
    model: String,
    /// How the weights are kept.
    weights: Option<Precision>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
    examples: Vec<ExampleResult>,
    errors: Vec<Refused>,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct ExampleResult {
    example: usize,
    #[serde(flatten)]
    answered: Answered,
}

/// How likely an answer is.
#[derive(Serialize)]
struct AnswerRecord {
    answer: String,
    ids: Vec<u32>,
    prob: Option<f64>,
    logprob: Option<f64>,
}

#[derive(Serialize)]
struct CollectedJson {
    run: String,
    site: &'static str,
    /// The metric it is the gradient of; left out for activations.
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient: Option<&'static str>,
    layer: Option<usize>,
    positions: Vec<usize>,
    heads: Option<Vec<usize>>,
    dims: Option<Vec<usize>>,
    shape: Vec<usize>,
    values: Value,
}

/// `causalcone run`.
pub(crate) fn run(args: &FileArgs, terminal: &Terminal) -> Result<(), Failure> {
    let loaded = Loaded::new(args, terminal)?;
    let (experiment, left_out) = single(&loaded, terminal)?;
    let (model, weights) = (loaded.model.name().to_owned(), loaded.model.footprint().chosen);
    let Some(errors) = left_out.errors() else {
        let (answered, missing) = answer(&experiment)?;
        let (date, warnings) = (experiment.seen_date(), terminal.warn(missing));
        let result = RunResult { model, weights, date, answered, warnings };
        return terminal.result(&result, |result| human(&result.answered));
    };
    let (mut examples, mut warnings) = (Vec::new(), Vec::new());
    for one in experiment.by_example() {
        let one = one?;
        let example = one.example().unwrap_or_default();
        let (answered, missing) = answer(&one)?;
        examples.push(ExampleResult { example, answered });
        warnings.extend(missing);
    }
    let (date, warnings) = (experiment.seen_date(), terminal.warn(warnings));
    let result = ExamplesResult { model, weights, date, examples, errors, warnings };
    terminal.result(&result, |result| table_of(&result.examples))?;
    all_fit(&left_out)
}

/// Runs the experiment of a file once, edited and unedited.
pub(crate) fn run_once(loaded: &Loaded, terminal: &Terminal) -> Result<Answered, Failure> {
    Ok(answer(&single(loaded, terminal)?.0)?.0)
}

/// The experiment of a file without its sweep, and the examples that do not fit it.
fn single<'l>(loaded: &'l Loaded, terminal: &Terminal) -> Result<(Experiment<'l>, LeftOut), Failure> {
    let report = terminal.report();
    let runtime = Runtime { progress: &report, ..Runtime::default() };
    Ok(loaded.source().single(&runtime, terminal)?)
}

/// What an experiment answered, and tokens that were probably meant with a space.
fn answer(experiment: &Experiment<'_>) -> Result<(Answered, Vec<MissingSpace>), Failure> {
    let read_run = experiment.read_run()?;
    // Compiled for what it refuses: an edit that nothing read could show.
    experiment.plan_single()?;
    let outcome = experiment.execute()?;
    let finite = |x: f64| x.is_finite().then_some(x);
    let answers = |answer: causalcone::Answer<'_>, logprob: fn(&causalcone::AnswerProb) -> f64| Answers {
        top: answer.top(experiment.top()).0,
        tokens: answer.distribution.records(experiment.model(), experiment.tokens()),
        answers: outcome
            .answers()
            .iter()
            .map(|said| AnswerRecord {
                answer: experiment.model().text(&said.ids),
                ids: said.ids.to_vec(),
                prob: finite(logprob(said).exp()),
                logprob: finite(logprob(said)),
            })
            .collect(),
    };
    let collected = outcome.collected().iter().map(|collected| -> Result<_, Failure> {
        Ok(CollectedJson {
            run: collected.run.to_string(),
            site: collected.place.site.name(),
            gradient: collected.gradient.map(Metric::name),
            layer: collected.place.layer,
            positions: collected.place.positions.to_vec(),
            heads: collected.place.heads.as_deref().map(<[usize]>::to_vec),
            dims: collected.place.dims.as_deref().map(<[usize]>::to_vec),
            shape: collected.tensor.dims().to_vec(),
            values: nested(&collected.tensor)?,
        })
    });
    let answered = Answered {
        original: answers(outcome.original(read_run), |said| said.original),
        counterfactual: answers(outcome.counterfactual(read_run), |said| said.counterfactual),
        collected: collected.collect::<Result<_, _>>()?,
    };
    Ok((answered, outcome.missing_spaces().to_vec()))
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

fn prob(p: Option<f64>) -> String {
    p.map_or_else(|| "not finite".into(), |p| format!("{p:.6}"))
}

/// A token and its probability; nothing where there is no token.
fn shown(record: Option<&TokenRecord>, labels: &TokenLabels) -> String {
    record.map_or_else(String::new, |record| format!("{:<18} {}", labels.get(record.id), prob(record.prob)))
}

/// Both answers side by side, then the tokens asked for, then what was collected.
fn human(result: &Answered) -> String {
    let mut text = format!("{:<30} {}\n", "original", "counterfactual");
    let (original, edited) = (&result.original, &result.counterfactual);
    let labels =
        TokenLabels::of_records([&original.top, &edited.top, &original.tokens].into_iter().flatten());
    for i in 0..original.top.len().max(edited.top.len()) {
        let (before, after) = (shown(original.top.get(i), &labels), shown(edited.top.get(i), &labels));
        text += format!("{before:<30} {after}").trim_end();
        text += "\n";
    }
    if !original.tokens.is_empty() {
        text += &format!("\n{:<18} {:>10} {:>14}\n", "token", "original", "counterfactual");
        for (before, after) in original.tokens.iter().zip(&edited.tokens) {
            let (token, before, after) = (labels.get(before.id), prob(before.prob), prob(after.prob));
            text += &format!("{token:<18} {before:>10} {after:>14}\n");
        }
    }
    if !original.answers.is_empty() {
        text += &format!("\n{:<18} {:>10} {:>14}\n", "answer", "original", "counterfactual");
        for (before, after) in original.answers.iter().zip(&edited.answers) {
            let (answer, before, after) = (visible(&before.answer), prob(before.prob), prob(after.prob));
            text += &format!("{answer:<18} {before:>10} {after:>14}\n");
        }
    }
    for collected in &result.collected {
        text += &format!("\n{}; the numbers are in --json\n", collected.summary());
    }
    text
}

/// A line an example: the likeliest tokens, then those asked for.
fn table_of(examples: &[ExampleResult]) -> String {
    let mut text = format!("{:<8} {:<30} {}\n", "example", "original", "counterfactual");
    for ExampleResult { example, answered: Answered { original, counterfactual, collected } } in examples {
        let first = original.top.iter().zip(&counterfactual.top).take(1);
        let labels = TokenLabels::of_records(first.clone().flat_map(|(a, b)| [a, b]).chain(&original.tokens));
        let mut number = example.to_string();
        for (before, after) in first.chain(original.tokens.iter().zip(&counterfactual.tokens)) {
            let (before, after) = (shown(Some(before), &labels), shown(Some(after), &labels));
            text += format!("{number:<8} {before:<30} {after}").trim_end();
            text += "\n";
            number.clear();
        }
        for (before, after) in original.answers.iter().zip(&counterfactual.answers) {
            let of = |one: &AnswerRecord| format!("{:<18} {}", visible(&one.answer), prob(one.prob));
            text += format!("{number:<8} {:<30} {}", of(before), of(after)).trim_end();
            text += "\n";
            number.clear();
        }
        for collected in collected {
            text += &format!("{:<8} {}; the numbers are in --json\n", "", collected.summary());
        }
    }
    text
}

impl CollectedJson {
    fn summary(&self) -> String {
        let layer = self.layer.map_or(String::new(), |layer| format!(" of layer {layer}"));
        let (site, positions, shape) = (self.site, &self.positions, &self.shape);
        let what = match self.gradient {
            Some(metric) => format!("gradient of {metric} with respect to"),
            None => "collected".into(),
        };
        format!("{what} {site}{layer} at {positions:?}: shape {shape:?}")
    }
}
