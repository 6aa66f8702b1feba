//! `generate`: what a run goes on with, without and with its edits.

use super::failure::Failure;
use super::interrupt;
use super::moved::{Moved, Movement, summary};
use super::sweep::ModelRecord;
use super::terminal::Terminal;
use super::{GenerateArgs, Loaded};
use crate::chat::Date;
use crate::generate::{Beside, Continuation, End, Generation, Grown, Texts};
use crate::{Cone, Experiment, Model, Progress, Refused, Unit, visible};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::Instant;

/// One text of one prompt.
#[derive(Serialize, Deserialize)]
pub(super) struct TextRecord {
    pub(super) text: String,
    ids: Vec<u32>,
    end: End,
    /// What both versions make of its tokens, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<TokenRecord>>,
}

impl TextRecord {
    pub(super) fn tokens(&self) -> &[TokenRecord] {
        self.tokens.as_deref().unwrap_or_default()
    }
}

/// As [`Beside`], with a KL only where it is a number.
#[derive(Serialize, Deserialize)]
pub(super) struct TokenRecord {
    pub(super) token: String,
    pub(super) id: u32,
    pub(super) original: f64,
    pub(super) counterfactual: f64,
    pub(super) kl: Option<f64>,
}

/// Both texts of one prompt.
#[derive(Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) original: TextRecord,
    pub(super) counterfactual: TextRecord,
}

/// What made the texts.
#[derive(Serialize)]
pub(super) struct Made<'a> {
    causalcone: &'static str,
    generate: &'a Generation,
    model: ModelRecord<'a>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
}

impl<'a> Made<'a> {
    pub(super) fn new(generate: &'a Generation, experiment: &Experiment<'a>) -> Result<Self, Failure> {
        let (model, date) = (ModelRecord::of(experiment.model())?, experiment.seen_date());
        Ok(Self { causalcone: env!("CARGO_PKG_VERSION"), generate, model, date })
    }
}

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
    scales: Option<Vec<Moved>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    seconds: Seconds,
    made: Made<'a>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Numbered {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) example: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<f64>,
    pub(super) sample: usize,
    #[serde(flatten)]
    pub(super) pair: Pair,
}

/// `causalcone generate`.
pub(super) fn generate(args: &GenerateArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    if let Some(out) = &args.out {
        return super::texts::texts(args, out, terminal);
    }
    if args.again.resume || args.again.force || args.format.is_some() {
        return Err(Failure::input("--resume, --force and --format are for results in a folder")
            .hint("add --out DIR"));
    }
    let started = Instant::now();
    let loaded = Loaded::new(&args.file, terminal)?;
    let load = started.elapsed().as_secs_f64();
    let options = options(args, &loaded)?;
    let (experiment, left_out) = loaded.growing(terminal)?;
    let examples = experiment.example_count();
    let scales = scales(&loaded);
    let is_one = examples.is_none() && options.samples == 1 && scales.is_none();
    let is_edited = !loaded.file.edit.is_empty();
    let started = Instant::now();
    let texts = if is_one && !terminal.is_json() {
        stream(&experiment, &options, is_edited, terminal)?
    } else {
        let total = most_tokens(&options, &loaded).saturating_mul(examples.unwrap_or(1) as u64);
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
    let has_tables = args.table || scales.is_some();
    let mut pairs = pairs(&experiment, &texts, has_tables)?;
    let (name, made) = (model.name().to_owned(), Made::new(&options, &experiment)?);
    match pairs.pop() {
        Some(Numbered { pair, .. }) if is_one => {
            let prompt = model.text(experiment.ids(experiment.reading_run()?));
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
                let moved = result.scales.as_deref().map(summary).unwrap_or_default();
                many(&result.texts, args.table, model) + &moved
            })?;
        }
    }
    if is_cut {
        return Err(interrupt::failure("; the texts end where they were"));
    }
    left_out.into_result()
}

/// How far texts moved at each strength.
fn moved(pairs: &[Numbered], model: &Model) -> Result<Vec<Moved>, Failure> {
    let mut movement = Movement::new(model)?;
    pairs.iter().try_for_each(|one| movement.add(one, ""))?;
    Ok(movement.moved())
}

/// The file's options, and what the command line says instead.
pub(super) fn options(args: &GenerateArgs, loaded: &Loaded) -> Result<Generation, Failure> {
    let mut options = loaded.file.generate.clone().unwrap_or_default();
    options.max_tokens = args.max_tokens.unwrap_or(options.max_tokens);
    options.seed = args.seed.unwrap_or(options.seed);
    options.check(&loaded.model)?;
    Ok(options)
}

/// The strengths that are swept, where any are.
pub(super) fn scales(loaded: &Loaded) -> Option<&[f64]> {
    loaded.file.sweep.as_ref()?.scales.as_deref()
}

/// The most tokens of a prompt's texts, all versions together.
pub(super) fn most_tokens(options: &Generation, loaded: &Loaded) -> u64 {
    let versions = 1 + scales(loaded).map_or(1, <[f64]>::len);
    let context = loaded.model.config().context;
    // More texts than are made are refused by the engine.
    let of_text = options.max_tokens.min(context) as u64;
    of_text.saturating_mul(options.samples as u64).saturating_mul(versions as u64)
}

/// Whether the user has ended some of them.
pub(super) fn is_cut(texts: &Texts) -> bool {
    texts.original.iter().chain(&texts.counterfactual).any(|text| text.end == End::Interrupted)
}

/// The texts two by two, with the table of each if that is asked for.
pub(super) fn pairs(
    experiment: &Experiment<'_>,
    texts: &Texts,
    has_tables: bool,
) -> Result<Vec<Numbered>, Failure> {
    let asks = has_tables && !is_cut(texts);
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
        let named = |Beside { id, original, counterfactual, kl }: Beside| {
            let kl = kl.is_finite().then_some(kl);
            TokenRecord { token: model.token_text(id), id, original, counterfactual, kl }
        };
        let tokens = tokens.map(|tokens| tokens.into_iter().map(named).collect());
        Ok(TextRecord { text: text.text.clone(), ids: text.ids.clone(), end: text.end, tokens })
    };
    // A text that was not begun has no other to stand beside.
    let both = texts.original.iter().zip(&texts.counterfactual);
    both.map(|(original, counterfactual)| {
        let pair = Pair { original: record(original)?, counterfactual: record(counterfactual)? };
        Ok(Numbered { example: original.example, scale: original.scale, sample: original.sample, pair })
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
            text += &format!("  {name:<15} {} {}\n", visible(&one.text), ended(one, model));
        }
        if has_tables {
            text += &tables(pair, true);
        }
    }
    text
}

/// Why a text ended, and after how much.
pub(super) fn ended(text: &TextRecord, model: &Model) -> String {
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
