//! Tokens that were probably meant with a space before them.
//!
//! Most tokenizers keep the space between two words at the start of the second: `" Madrid"` is what follows
//! `"The capital of Spain is"`, and `"Madrid"` is another token that is almost never likely there.

use crate::metric::Distribution;
use causalcone_model::Model;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// How many times as likely the token with a space must be.
const FACTOR: f64 = 10.0;
/// How likely it must be, where that is known: of two tokens that nobody expects, neither is what was meant.
const LIKELY: f64 = 0.01;

/// A token or an answer that is read, and the token of the same text with a space before it, which the unedited model
/// finds far likelier.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MissingSpace {
    /// The number of the example; left out where there is no data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<usize>,
    /// The text that is read.
    pub token: String,
    /// The ids of its tokens.
    pub ids: Arc<[u32]>,
    /// Its probability; `None` where only logits are read.
    pub prob: Option<f64>,
    /// The same text with a space before it.
    pub likelier: String,
    /// The id of this token.
    pub likelier_id: u32,
    /// Its probability; `None` where only logits are read.
    pub likelier_prob: Option<f64>,
    /// How many times as likely it is; `None` where that is past all floats.
    pub ratio: Option<f64>,
}

impl MissingSpace {
    /// Whether both are of the same example and tokens. Their probabilities may differ in the last digits, as they were
    /// computed beside other cells.
    pub(crate) fn is_about_the_same(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.example, one.ids.clone(), one.likelier_id);
        key(self) == key(other)
    }
}

impl fmt::Display for MissingSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(example) = self.example {
            write!(f, "example {example}: ")?;
        }
        let what = if self.ids.len() == 1 { "token" } else { "answer" };
        write!(f, "{what} {:?} ", self.token)?;
        let number = |p: f64| if p < 1e-3 { format!("{p:.1e}") } else { format!("{p:.3}") };
        let likelier = &self.likelier;
        match (self.prob, self.likelier_prob, self.ratio) {
            (Some(own), Some(other), _) => {
                write!(f, "has probability {}, {likelier:?} {}", number(own), number(other))?;
            }
            (.., Some(ratio)) => {
                write!(f, "is far less likely than {likelier:?}, by a factor of {ratio:.0}")?;
            }
            _ => write!(f, "is far less likely than {likelier:?}")?,
        }
        write!(f, "; did you mean {likelier:?}?")
    }
}

/// What is read, and the token that it is with a space before it.
#[derive(Debug, Clone)]
pub(crate) struct Spaced {
    ids: Arc<[u32]>,
    pub(crate) spaced: u32,
}

/// Those of these that are one token, too, with a space before them.
pub(crate) fn spaced<'a>(model: &Model, read: impl IntoIterator<Item = &'a [u32]>) -> Vec<Spaced> {
    let Some(tokenizer) = model.tokenizer() else { return Vec::new() };
    let of = |ids: &[u32]| {
        let first = tokenizer.token(*ids.first()?);
        if first.is_empty() || first.starts_with(char::is_whitespace) {
            return None;
        }
        let text = format!(" {}", text_of(model, ids));
        let spaced = model.token_id(&text).ok().filter(|id| tokenizer.token(*id) == text)?;
        Some(Spaced { ids: ids.into(), spaced })
    };
    read.into_iter().filter_map(of).collect()
}

/// The text of a token, or of several in a row.
fn text_of(model: &Model, ids: &[u32]) -> String {
    match ids {
        [id] => model.token_text(*id),
        _ => model.text(ids),
    }
}

impl Spaced {
    /// Whether the token with a space is far likelier, given the natural logarithms of both probabilities.
    fn found(&self, model: &Model, example: Option<usize>, own: f64, other: f64) -> Option<MissingSpace> {
        let ratio = (other - own).exp();
        (ratio >= FACTOR).then(|| MissingSpace {
            example,
            token: text_of(model, &self.ids),
            ids: self.ids.clone(),
            prob: Some(own.exp()),
            likelier: model.token_text(self.spaced),
            likelier_id: self.spaced,
            likelier_prob: Some(other.exp()),
            ratio: Some(ratio).filter(|ratio| ratio.is_finite()),
        })
    }

    /// Of a whole distribution. `answers` are the ids of answers with the natural logarithms of their probabilities.
    pub(crate) fn among<'a>(
        all: &[Self],
        model: &Model,
        example: Option<usize>,
        original: &Distribution,
        answers: &(impl Iterator<Item = (&'a Arc<[u32]>, f64)> + Clone),
    ) -> Vec<MissingSpace> {
        let own = |ids: &Arc<[u32]>| match &**ids {
            [id] => Some(original.logprob(*id)),
            _ => answers.clone().find(|(other, _)| *other == ids).map(|(_, logprob)| logprob),
        };
        let found = |one: &Self| {
            let spaced = original.logprob(one.spaced);
            (spaced >= LIKELY.ln()).then(|| one.found(model, example, own(&one.ids)?, spaced)).flatten()
        };
        all.iter().filter_map(found).collect()
    }

    /// Of the logits of single tokens: those that are read, and those with a space, one for each of `all`.
    pub(crate) fn among_logits(
        all: &[Self],
        model: &Model,
        example: Option<usize>,
        (tokens, read): (&[u32], &Distribution),
        spaced: &Distribution,
    ) -> Vec<MissingSpace> {
        let found = |(one, column): (&Self, u32)| {
            let own = tokens.iter().zip(0..).find(|(id, _)| one.ids[..] == [**id])?.1;
            let found = one.found(model, example, read.logit(own), spaced.logit(column))?;
            Some(MissingSpace { prob: None, likelier_prob: None, ..found })
        };
        all.iter().zip(0..).filter_map(found).collect()
    }
}
