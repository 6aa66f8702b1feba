//! Generated texts two by two, as results have them: of each prompt the text without edits, and with them.

use crate::error::Result;
use crate::record::ModelRecord;
use crate::source::Source;
use causalcone_engine::generate::{Continuation, End, Generation, Texts, TokenScore};
use causalcone_engine::{Experiment, Runtime};
use causalcone_model::Model;
use causalcone_model::chat::Date;
use serde::{Deserialize, Serialize};

/// One text of one prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TextRecord {
    /// What was generated, without the prompt.
    pub text: String,
    /// Its token ids.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub end: End,
    /// What both versions make of its tokens, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<TokenRecord>>,
}

impl TextRecord {
    /// What both versions make of its tokens; empty where nobody asked.
    #[must_use]
    pub fn tokens(&self) -> &[TokenRecord] {
        self.tokens.as_deref().unwrap_or_default()
    }

    /// Why a text ended, and after how much.
    #[must_use]
    pub fn ended(&self, model: &Model) -> String {
        let tokens = match self.ids.len() {
            1 => "1 token".to_owned(),
            n => format!("{n} tokens"),
        };
        let why = match self.end {
            End::MaxTokens => "the most that were asked for".into(),
            End::Eos => "the model ended it".into(),
            End::Stop => "a stop text came".into(),
            End::Context => format!("the model's context of {} is full", model.config().context),
            End::NotFinite => "the model's numbers overflowed".into(),
            End::Interrupted => "interrupted".into(),
        };
        format!("[{tokens}: {why}]")
    }
}

/// As [`TokenScore`], with a KL only where it is a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its text.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability without edits.
    pub original: f64,
    /// Its probability with them.
    pub counterfactual: f64,
    /// D(edited ‖ original) of the next token there, in nats.
    pub kl: Option<f64>,
}

/// Both texts of one prompt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// Without edits.
    pub original: TextRecord,
    /// With them.
    pub counterfactual: TextRecord,
}

/// What made the texts.
#[derive(Debug, Clone, Serialize)]
pub struct Made<'a> {
    causalcone: &'static str,
    generate: &'a Generation,
    model: ModelRecord<'a>,
    /// The date that the chat template asked for, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    date: Option<Date>,
}

impl<'a> Made<'a> {
    /// Of an experiment whose texts were made with these options.
    ///
    /// # Errors
    /// When the files of the model cannot be read.
    pub fn new(generate: &'a Generation, experiment: &Experiment<'a>) -> Result<Self> {
        let (model, date) = (ModelRecord::of(experiment.model())?, experiment.seen_date());
        Ok(Self { causalcone: env!("CARGO_PKG_VERSION"), generate, model, date })
    }
}

/// Both texts of one prompt, with where they belong: a line of `texts.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    /// The number of the example; left out without a data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<usize>,
    /// The strength of the edits, where strengths are swept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The number of the sample, counted from 0.
    pub sample: usize,
    /// The texts.
    #[serde(flatten)]
    pub pair: Pair,
}

/// The most tokens of a prompt's texts, all versions together.
#[must_use]
pub fn most_tokens(options: &Generation, source: &Source<'_>) -> u64 {
    let versions = 1 + source.scales().map_or(1, <[f64]>::len);
    let context = source.model.config().context;
    // More texts than are made are refused by the engine.
    let of_text = options.max_tokens.min(context) as u64;
    of_text.saturating_mul(options.samples as u64).saturating_mul(versions as u64)
}

/// Whether the user has ended some of them.
#[must_use]
pub fn is_cut(texts: &Texts) -> bool {
    texts.original.iter().chain(&texts.counterfactual).any(|text| text.end == End::Interrupted)
}

/// The texts two by two, with the table of each where a runtime is given to make it.
///
/// # Errors
/// When an example does not fit, or the work fails.
pub fn pairs(
    experiment: &Experiment<'_>,
    texts: &Texts,
    table_by: Option<&Runtime<'_>>,
) -> Result<Vec<Numbered>> {
    let asks = table_by.filter(|_| !is_cut(texts));
    let model = experiment.model();
    // Texts are in the order of examples.
    let mut examples = experiment.by_example();
    let mut one: Option<Experiment<'_>> = None;
    let mut record = |text: &Continuation| -> Result<TextRecord> {
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
