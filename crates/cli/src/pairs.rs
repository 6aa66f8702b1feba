//! The texts that `generate` makes, two by two as results have them, and the options that they are made with.

use crate::args::GenerateArgs;
use crate::failure::Failure;
use crate::loaded::Loaded;
use crate::sweep::ModelRecord;
use causalcone::chat::Date;
use causalcone::generate::{Continuation, End, Generation, Texts, TokenScore};
use causalcone::{Experiment, Model, Runtime};
use serde::{Deserialize, Serialize};

/// One text of one prompt.
#[derive(Serialize, Deserialize)]
pub(crate) struct TextRecord {
    pub(crate) text: String,
    ids: Vec<u32>,
    end: End,
    /// What both versions make of its tokens, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<Vec<TokenRecord>>,
}

impl TextRecord {
    pub(crate) fn tokens(&self) -> &[TokenRecord] {
        self.tokens.as_deref().unwrap_or_default()
    }
}

/// As [`TokenScore`], with a KL only where it is a number.
#[derive(Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) token: String,
    pub(crate) id: u32,
    pub(crate) original: f64,
    pub(crate) counterfactual: f64,
    pub(crate) kl: Option<f64>,
}

/// Both texts of one prompt.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pair {
    pub(crate) original: TextRecord,
    pub(crate) counterfactual: TextRecord,
}

/// What made the texts.
#[derive(Serialize)]
pub(crate) struct Made<'a> {
    causalcone: &'static str,
    generate: &'a Generation,
    model: ModelRecord<'a>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
}

impl<'a> Made<'a> {
    pub(crate) fn new(generate: &'a Generation, experiment: &Experiment<'a>) -> Result<Self, Failure> {
        let (model, date) = (ModelRecord::of(experiment.model())?, experiment.seen_date());
        Ok(Self { causalcone: env!("CARGO_PKG_VERSION"), generate, model, date })
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Numbered {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) example: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<f64>,
    pub(crate) sample: usize,
    #[serde(flatten)]
    pub(crate) pair: Pair,
}

/// The file's options, and what the command line says instead.
pub(crate) fn options(args: &GenerateArgs, loaded: &Loaded) -> Result<Generation, Failure> {
    let mut options = loaded.file.generate.clone().unwrap_or_default();
    options.max_tokens = args.max_tokens.unwrap_or(options.max_tokens);
    options.seed = args.seed.unwrap_or(options.seed);
    options.check(&loaded.model)?;
    Ok(options)
}

/// The strengths that are swept, where any are.
pub(crate) fn scales(loaded: &Loaded) -> Option<&[f64]> {
    loaded.file.sweep.as_ref()?.scales.as_deref()
}

/// The most tokens of a prompt's texts, all versions together.
pub(crate) fn most_tokens(options: &Generation, loaded: &Loaded) -> u64 {
    let versions = 1 + scales(loaded).map_or(1, <[f64]>::len);
    let context = loaded.model.config().context;
    // More texts than are made are refused by the engine.
    let of_text = options.max_tokens.min(context) as u64;
    of_text.saturating_mul(options.samples as u64).saturating_mul(versions as u64)
}

/// Whether the user has ended some of them.
pub(crate) fn is_cut(texts: &Texts) -> bool {
    texts.original.iter().chain(&texts.counterfactual).any(|text| text.end == End::Interrupted)
}

/// The texts two by two, with the table of each where a runtime is given to make it.
pub(crate) fn pairs(
    experiment: &Experiment<'_>,
    texts: &Texts,
    table_by: Option<&Runtime<'_>>,
) -> Result<Vec<Numbered>, Failure> {
    let asks = table_by.filter(|_| !is_cut(texts));
    let model = experiment.model();
    // Texts are in the order of examples.
    let mut examples = experiment.by_example();
    let mut one: Option<Experiment<'_>> = None;
    let mut record = |text: &Continuation| -> Result<TextRecord, Failure> {
        while asks.is_some() && one.as_ref().is_none_or(|one| one.example() != text.example) {
            one = examples.next().transpose()?;
            if one.is_none() {
                break;
            }
        }
        let score = |(one, runtime): (&Experiment<'_>, _)| one.score(text, runtime);
        let tokens = one.as_ref().zip(asks).map(score).transpose()?;
        let named = |TokenScore { id, original, counterfactual, kl }: TokenScore| {
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

/// Why a text ended, and after how much.
pub(crate) fn ended(text: &TextRecord, model: &Model) -> String {
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
