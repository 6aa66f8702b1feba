//! `generate`: what a run goes on with, without and with its edits.

use super::failure::Failure;
use super::terminal::Terminal;
use super::{GenerateArgs, Loaded};
use crate::generate::{Beside, Continuation, End, Generation, Grown, Texts};
use crate::{Cone, Config, Experiment, Model, Progress, Refused, Unit, visible};
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// One text of one prompt.
#[derive(Serialize)]
struct TextRecord {
    text: String,
    ids: Vec<u32>,
    end: End,
    /// What both versions make of its tokens, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<TokenRecord>>,
}

#[derive(Serialize)]
struct TokenRecord {
    token: String,
    #[serde(flatten)]
    beside: Beside,
}

/// Both texts of one prompt.
#[derive(Serialize)]
struct Pair {
    original: TextRecord,
    counterfactual: TextRecord,
}

#[derive(Serialize)]
struct OneResult {
    model: String,
    #[serde(flatten)]
    pair: Pair,
    seconds: Seconds,
}

/// How long it took.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    /// Both texts, from the prompt to their ends.
    generate: f64,
}

/// Of a data set, or several samples.
#[derive(Serialize)]
struct ManyResult {
    model: String,
    texts: Vec<Numbered>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    seconds: Seconds,
}

#[derive(Serialize)]
pub(super) struct Numbered {
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<usize>,
    sample: usize,
    #[serde(flatten)]
    pair: Pair,
}

/// `causalcone generate`.
pub(super) fn generate(args: &GenerateArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    if let Some(out) = &args.out {
        return super::texts::texts(args, out, terminal);
    }
    if args.again.resume || args.again.force {
        return Err(Failure::input("--resume and --force are for results in a folder").hint("add --out DIR"));
    }
    let started = Instant::now();
    let loaded = Loaded::new(&args.file.file, args.file.model.as_deref(), terminal)?;
    let load = started.elapsed().as_secs_f64();
    let options = options(args, &loaded)?;
    let (experiment, left_out) = loaded.growing(terminal)?;
    let examples = experiment.example_count();
    let is_one = examples.is_none() && options.samples == 1;
    let is_edited = !loaded.file.edit.is_empty();
    let started = Instant::now();
    let texts = if is_one && !terminal.is_json() {
        stream(&experiment, &options, is_edited, terminal)?
    } else {
        let total = examples.unwrap_or(1) as u64 * most_tokens(&options, loaded.model.config());
        let mut done = 0;
        let texts = experiment.generate_with(&options, &mut |_| {
            done += 1;
            terminal.progress(Progress { what: "generating", done, total, unit: Unit::Tokens })
        });
        terminal.clear();
        texts?
    };
    let seconds = Seconds { load, generate: started.elapsed().as_secs_f64() };
    let model = &loaded.model;
    let is_cut = is_cut(&texts);
    let mut pairs = pairs(&experiment, &texts, args)?;
    let name = model.name().to_owned();
    match pairs.pop() {
        Some(Numbered { pair, .. }) if is_one => {
            let prompt = model.text(experiment.ids(experiment.reading_run()?));
            let result = OneResult { model: name, pair, seconds };
            terminal
                .result(&result, |result| after_stream(&result.pair, is_edited.then_some(&prompt), model))?;
        }
        last => {
            pairs.extend(last);
            let result = ManyResult { model: name, texts: pairs, errors: left_out.errors(), seconds };
            terminal.result(&result, |result| many(&result.texts, model))?;
        }
    }
    if is_cut {
        return Err(Failure::run("interrupted; texts end where they were"));
    }
    left_out.into_result()
}

/// The file's options, and what the command line says instead.
pub(super) fn options(args: &GenerateArgs, loaded: &Loaded) -> Result<Generation, Failure> {
    let mut options = loaded.file.generate.clone().unwrap_or_default();
    options.max_tokens = args.max_tokens.unwrap_or(options.max_tokens);
    options.seed = args.seed.unwrap_or(options.seed);
    options.check(&loaded.model)?;
    Ok(options)
}

/// The most tokens of a prompt's texts, both versions together.
pub(super) fn most_tokens(options: &Generation, config: &Config) -> u64 {
    2 * options.samples as u64 * options.max_tokens.min(config.context) as u64
}

/// Whether the user has ended some of them.
pub(super) fn is_cut(texts: &Texts) -> bool {
    texts.original.iter().chain(&texts.counterfactual).any(|text| text.end == End::Interrupted)
}

/// The texts two by two, with the table of each if that is asked for.
pub(super) fn pairs(
    experiment: &Experiment<'_>,
    texts: &Texts,
    args: &GenerateArgs,
) -> Result<Vec<Numbered>, Failure> {
    let asks = args.table && !is_cut(texts);
    let model = experiment.model();
    // Texts are in the order of examples.
    let mut examples = experiment.by_example();
    let mut one: Option<Experiment<'_>> = None;
    let mut record = |text: &Continuation| -> Result<TextRecord, Failure> {
        while asks && one.as_ref().is_none_or(|one| one.example() != text.example) {
            one = examples.next().transpose()?;
            if one.is_none() {
                break;
            }
        }
        let beside = |one: &Experiment<'_>| one.beside(text, &Cone::default());
        let tokens = one.as_ref().filter(|_| asks).map(beside).transpose()?;
        let named = |beside: Beside| TokenRecord { token: model.token_text(beside.id), beside };
        let tokens = tokens.map(|tokens| tokens.into_iter().map(named).collect());
        Ok(TextRecord { text: text.text.clone(), ids: text.ids.clone(), end: text.end, tokens })
    };
    // A text that was not begun has no other to stand beside.
    let both = texts.original.iter().zip(&texts.counterfactual);
    both.map(|(original, counterfactual)| {
        let pair = Pair { original: record(original)?, counterfactual: record(counterfactual)? };
        Ok(Numbered { example: original.example, sample: original.sample, pair })
    })
    .collect()
}

/// Says the edited text, or the only one, as it comes.
fn stream(
    experiment: &Experiment<'_>,
    options: &Generation,
    is_edited: bool,
    terminal: &mut Terminal,
) -> Result<Texts, Failure> {
    let prompt = experiment.model().text(experiment.ids(experiment.reading_run()?));
    // What is wrong is told before anything is said.
    let mut begun = false;
    let mut said = 0;
    let mut failed = None;
    let texts = experiment.generate_with(options, &mut |grown: Grown<'_>| {
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
    terminal.clear();
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
    let mut text = format!("\n{}\n", ended(edited, model));
    if let Some(prompt) = other_prompt {
        let original = &pair.original;
        let said = printable(&format!("{prompt}{}", original.text));
        text += &format!("\nwithout them\n{said}\n{}\n", ended(original, model));
    }
    text + &tables(pair, other_prompt.is_some())
}

/// The texts of many prompts or samples.
fn many(texts: &[Numbered], model: &Model) -> String {
    let mut text = String::new();
    for Numbered { example, sample, pair } in texts {
        let example = example.map_or(String::new(), |example| format!("example {example}, "));
        text += &format!("{example}sample {sample}\n");
        for (name, one) in [("original", &pair.original), ("counterfactual", &pair.counterfactual)] {
            text += &format!("  {name:<15} {} {}\n", visible(&one.text), ended(one, model));
        }
        text += &tables(pair, true);
    }
    text
}

/// Why a text ended, and after how much.
fn ended(text: &TextRecord, model: &Model) -> String {
    let tokens = match text.ids.len() {
        1 => "1 token".to_owned(),
        n => format!("{n} tokens"),
    };
    let why = match text.end {
        End::MaxTokens => "the most that were asked for".into(),
        End::Eos => "the model ended it".into(),
        End::Stop => "a stop text came".into(),
        End::Context => format!("the model's context of {} is full", model.config().context),
        End::NotFinite => "the model's numbers overflowed".into(),
        End::Interrupted => "interrupted".into(),
    };
    format!("[{tokens}: {why}]")
}

fn tables(pair: &Pair, is_edited: bool) -> String {
    let both = [("the text without edits", &pair.original), ("the text with them", &pair.counterfactual)];
    let mut text = String::new();
    for (name, record) in both.into_iter().take(if is_edited { 2 } else { 1 }) {
        let Some(tokens) = &record.tokens else { continue };
        text += &format!("\n{name:<24} {:>10} {:>15} {:>10}\n", "original", "counterfactual", "kl");
        for TokenRecord { token, beside } in tokens {
            let (original, edited, kl) = (beside.original, beside.counterfactual, beside.kl);
            text += &format!("{:<24} {original:>10.6} {edited:>15.6} {kl:>10.4}\n", visible(token));
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
