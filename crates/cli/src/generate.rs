//! `generate`: what a run goes on with, without and with its edits.

use crate::args::GenerateArgs;
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use crate::texts::{options, texts};
use causalcone::generate::{Generation, Grown, Texts};
use causalcone::jobs::Observer;
use causalcone::jobs::pairs::{Made, Numbered, Pair, TokenRecord, is_cut, most_tokens, pairs};
use causalcone::jobs::strength_report::{StrengthReport, in_words, moved};
use causalcone::{Experiment, Model, Progress, Refused, Runtime, Unit, visible};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

#[derive(Serialize)]
struct OneResult<'a> {
    model: String,
    #[serde(flatten)]
    pair: Pair,
    seconds: Seconds,
    made: Made<'a>,
}

/// How long it took.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    /// Both texts, from the prompt to their ends.
    generate: f64,
}

/// Of a data set, several samples or several strengths.
#[derive(Serialize)]
struct ManyResult<'a> {
    model: String,
    texts: Vec<Numbered>,
    /// How far they moved, where strengths are swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    scales: Option<Vec<StrengthReport>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    seconds: Seconds,
    made: Made<'a>,
}

/// `causalcone generate`.
pub(crate) fn generate(args: &GenerateArgs, terminal: &Terminal) -> Result<(), Failure> {
    if let Some(out) = &args.out {
        return texts(args, out, terminal);
    }
    if args.again.resume || args.again.force || args.format.is_some() {
        return Err(Failure::input("--resume, --force and --format are for results in a folder")
            .hint("add --out DIR"));
    }
    let loaded = Loaded::new(&args.file, terminal)?;
    let source = loaded.source();
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let options = options(args, &loaded)?;
    let (experiment, left_out) = source.growing(&runtime, terminal)?;
    let examples = experiment.example_count();
    let scales = source.scales();
    let is_one = examples.is_none() && options.samples == 1 && scales.is_none();
    let is_edited = !loaded.file.edit.is_empty();
    let started = Instant::now();
    let texts = if is_one && !terminal.is_json() {
        stream(&experiment, (&options, &runtime), is_edited, terminal)?
    } else {
        let total = most_tokens(&options, &source).saturating_mul(examples.unwrap_or(1) as u64);
        let mut done = 0;
        let texts = experiment.generate_with(&options, &runtime, &mut |_| {
            done += 1;
            terminal.progress(Progress { what: "generating", done, total, unit: Unit::Tokens })
        });
        terminal.finished();
        texts?
    };
    let seconds = Seconds { load: loaded.load_seconds, generate: started.elapsed().as_secs_f64() };
    let model = &loaded.model;
    let is_cut = is_cut(&texts);
    let has_tables = args.table || scales.is_some();
    let mut pairs = pairs(&experiment, &texts, has_tables.then_some(&runtime))?;
    let (name, made) = (model.name().to_owned(), Made::new(&options, &experiment)?);
    match pairs.pop() {
        Some(Numbered { pair, .. }) if is_one => {
            let prompt = model.text(experiment.ids(experiment.read_run()?));
            let result = OneResult { model: name, pair, seconds, made };
            terminal
                .result(&result, |result| after_stream(&result.pair, is_edited.then_some(&prompt), model))?;
        }
        last => {
            pairs.extend(last);
            let scales = scales.map(|_| moved(&pairs, model)).transpose()?;
            let errors = left_out.errors();
            let result = ManyResult { model: name, texts: pairs, scales, errors, seconds, made };
            terminal.result(&result, |result| {
                let moved = result.scales.as_deref().map(in_words).unwrap_or_default();
                many(&result.texts, args.table, model) + &moved
            })?;
        }
    }
    if is_cut {
        return Err(Failure::interrupted("; the texts end where they were"));
    }
    all_fit(&left_out)
}

/// Says the edited text, or the only one, as it comes.
fn stream(
    experiment: &Experiment<'_>,
    (options, runtime): (&Generation, &Runtime<'_>),
    is_edited: bool,
    terminal: &Terminal,
) -> Result<Texts, Failure> {
    let prompt = experiment.model().text(experiment.ids(experiment.read_run()?));
    // What is wrong is told before anything is said.
    let mut begun = false;
    let mut said = 0;
    let mut failed = None;
    let texts = experiment.generate_with(options, runtime, &mut |grown: Grown<'_>| {
        if grown.edited == is_edited {
            let heading = if is_edited { "with the edits" } else { "without edits" };
            let start = if begun { String::new() } else { format!("{heading}\n{}", printable(&prompt)) };
            begun = true;
            let new = grown.text.get(said..).unwrap_or_default();
            said = said.max(grown.text.len());
            let written =
                terminal.say(&format!("{start}{}", printable(new))).and_then(|()| terminal.finish());
            if let Err(failure) = written {
                failed = Some(failure);
                return ControlFlow::Break(());
            }
        }
        terminal.go_on()
    });
    terminal.finished();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let texts = texts?;
    let of_version = if is_edited { &texts.counterfactual } else { &texts.original };
    // What was held back until it was certain.
    let rest = of_version.first().and_then(|text| text.text.get(said..)).unwrap_or_default();
    terminal.say(&printable(rest))?;
    Ok(texts)
}

/// What follows the streamed text: how it ended, the other one, and the tables.
fn after_stream(pair: &Pair, other_prompt: Option<&String>, model: &Model) -> String {
    let edited = &pair.counterfactual;
    let mut text = format!("\n{}\n", edited.ended(model));
    if let Some(prompt) = other_prompt {
        let original = &pair.original;
        let said = printable(&format!("{prompt}{}", original.text));
        text += &format!("\nwithout them\n{said}\n{}\n", original.ended(model));
    }
    text + &tables(pair, other_prompt.is_some())
}

/// The texts of many prompts, strengths or samples.
fn many(texts: &[Numbered], has_tables: bool, model: &Model) -> String {
    let mut text = String::new();
    let mut last = None;
    for Numbered { example, scale, sample, pair } in texts {
        let of_example = example.map_or(String::new(), |example| format!("example {example}, "));
        let of_scale = scale.map_or(String::new(), |scale| format!("scale {scale}, "));
        text += &format!("{of_example}{of_scale}sample {sample}\n");
        // The text without edits is the same at every strength.
        let is_told = scale.is_some() && last.replace((example, sample)) == Some((example, sample));
        let both = [("original", &pair.original), ("counterfactual", &pair.counterfactual)];
        for (name, one) in both.into_iter().skip(usize::from(is_told)) {
            text += &format!("  {name:<15} {} {}\n", visible(&one.text), one.ended(model));
        }
        if has_tables {
            text += &tables(pair, true);
        }
    }
    text
}

fn tables(pair: &Pair, is_edited: bool) -> String {
    let both = [("the text without edits", &pair.original), ("the text with them", &pair.counterfactual)];
    let mut text = String::new();
    for (name, record) in both.into_iter().take(if is_edited { 2 } else { 1 }) {
        let Some(tokens) = &record.tokens else { continue };
        text += &format!("\n{name:<24} {:>10} {:>15} {:>10}\n", "original", "counterfactual", "kl");
        for TokenRecord { token, original, counterfactual, kl, .. } in tokens {
            let kl = kl.map_or("∞".into(), |kl| format!("{kl:.4}"));
            text += &format!("{:<24} {original:>10.6} {counterfactual:>15.6} {kl:>10}\n", visible(token));
        }
    }
    text
}

/// A text as a terminal may have it: nothing in it is a command.
fn printable(text: &str) -> String {
    text.chars()
        .map(
            |c| {
                if c.is_control() && c != '\n' && c != '\t' {
                    c.escape_default().to_string()
                } else {
                    c.into()
                }
            },
        )
        .collect()
}
