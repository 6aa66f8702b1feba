//! Whether a loaded model predicts text as a language model should.
//!
//! Configurations can be wrong without an error: a rotary base, a scale, a norm's epsilon. The answers are then wrong too,
//! and nothing fails. A trained model gives itself away by how well it predicts ordinary text. [`check`] scores a
//! paragraph of English and one of code that are part of this library, in bits per byte, and gives a [`Verdict`].

use crate::decoder::{Decoder, Unedited};
use crate::{Error, Model, Result};
use candle_core::{DType, IndexOp};
use serde::Serialize;

/// The texts that are scored, by name. They are written for this purpose and published nowhere else.
pub const TEXTS: [(&str, &str); 2] =
    [("english", include_str!("english.txt")), ("code", include_str!("code.txt"))];

/// More tokens of a text are not scored: enough for a wrong setting to show, few enough for a large vocabulary.
const MOST_TOKENS: usize = 256;

/// Up to so many bits per byte a text counts as well predicted. SmolLM2-135M needs 0.9 to 1.0; larger models need less.
const GOOD: f64 = 1.5;
/// From here on nothing is predicted: the frequencies of letters alone need about 4.2, a model that has learned which
/// words are frequent about 2.5.
const BROKEN: f64 = 2.5;

/// Another base of the rotary positions that predicts the text better by this part shows that the file's base is wrong.
/// SmolLM2 predicts English 6 % worse with a base that is ten times too small, and never better with another one.
const NOTABLY: f64 = 0.015;

/// How well a text was predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextScore {
    /// Which text.
    pub text: &'static str,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Bytes of text these tokens stand for.
    pub bytes: usize,
    /// −log2 of the probability of these tokens, per byte.
    pub bits_per_byte: f64,
}

/// A base of the rotary positions that predicts text better than that of the files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BetterBase {
    /// The base in the files.
    pub written: f64,
    /// The better one.
    pub better: f64,
    /// Bits per byte of the English text with it.
    pub bits_per_byte: f64,
}

/// What the texts show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextCheck {
    /// Each text.
    pub scores: Vec<TextScore>,
    /// A base that predicts the English text notably better than the files' own, ten times as large or small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better_base: Option<BetterBase>,
    /// What follows.
    pub verdict: Verdict,
}

/// What the scores say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The model predicts text.
    Good,
    /// It predicts text badly: a very small model or one trained on something else, or a setting is wrong.
    Weak,
    /// It predicts text better with another base of the rotary positions than that of its files.
    Base,
    /// It does not predict text: it is untrained, or a setting is wrong.
    Broken,
}

impl Verdict {
    /// The verdict in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Good => "the model predicts text as a trained language model does",
            Self::Weak => {
                "the model predicts text badly: it is very small or trained on something else, or a setting is wrong"
            }
            Self::Base => {
                "the base of the rotary positions (rope_theta, rope.freq_base) is wrong: another one predicts better"
            }
            Self::Broken => {
                "the model does not predict text: it is untrained, or a setting of its files is wrong"
            }
        }
    }

    /// Whether something is wrong.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Base | Self::Broken)
    }
}

/// Scores the bundled texts. The best of them decides, since few models know both prose and code; then the English text is
/// scored with other bases of the rotary positions, since a wrong one changes the scores of a short text only a little.
///
/// ```
/// use causalcone_model::{Model, check};
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;             // random weights
/// let found = check::check(&model)?;
/// assert!(found.scores[0].bits_per_byte > 4.0);
/// assert_eq!(found.verdict, check::Verdict::Broken);
/// # Ok::<(), causalcone_model::Error>(())
/// ```
///
/// # Errors
/// When the model has no tokenizer that can be used.
pub fn check(model: &Model) -> Result<TextCheck> {
    let decoder = model.decoder()?;
    let score = |(name, text): &(&'static str, &str)| score(model, decoder, name, text);
    let scores: Vec<TextScore> = TEXTS.iter().map(score).collect::<Result<_>>()?;
    let best = scores.iter().map(|score| score.bits_per_byte).fold(f64::INFINITY, f64::min);
    if best >= BROKEN {
        return Ok(TextCheck { scores, better_base: None, verdict: Verdict::Broken });
    }
    let better_base = better_base(model, decoder, scores.first())?;
    let verdict = match better_base {
        Some(_) => Verdict::Base,
        None if best <= GOOD => Verdict::Good,
        None => Verdict::Weak,
    };
    Ok(TextCheck { scores, better_base, verdict })
}

/// A base that predicts the first text notably better than its own score, if there is one.
fn better_base(model: &Model, decoder: &Decoder, own: Option<&TextScore>) -> Result<Option<BetterBase>> {
    let (Some(own), Some(rotary)) = (own, model.config().rotaries().first()) else { return Ok(None) };
    let mut found: Option<BetterBase> = None;
    for factor in [10.0, 0.1] {
        let Some(other) = decoder.with_base_times(factor) else { continue };
        let bits_per_byte = score(model, &other, TEXTS[0].0, TEXTS[0].1)?.bits_per_byte;
        let to_beat = found.map_or(own.bits_per_byte * (1.0 - NOTABLY), |found| found.bits_per_byte);
        if bits_per_byte < to_beat {
            found = Some(BetterBase { written: rotary.theta, better: rotary.theta * factor, bits_per_byte });
        }
    }
    Ok(found)
}

/// −log2 p of each token of the text but the first, whose text is not counted either.
fn score(model: &Model, decoder: &Decoder, name: &'static str, text: &str) -> Result<TextScore> {
    let tokenizer = model.needs_tokenizer(text)?;
    let mut ids = tokenizer.prompt(text, None, text.len() + 1)?;
    ids.truncate(MOST_TOKENS.min(model.config().context));
    let labels = ids.get(1..).unwrap_or_default();
    let bytes = tokenizer.decode(labels).len();
    if bytes == 0 {
        let problem = format!("the model's context of {} leaves no token to score", model.config().context);
        return Err(Error::Prompt { problem });
    }
    let bits_per_byte = nats(decoder, &ids)? / std::f64::consts::LN_2 / bytes as f64;
    Ok(TextScore { text: name, tokens: labels.len(), bytes, bits_per_byte })
}

/// The sum of −ln p(token | the tokens before it) over all tokens but the first.
fn nats(decoder: &Decoder, ids: &[u32]) -> Result<f64> {
    let mut sum = 0.0;
    for lengths in decoder.config().shared_passes(1..ids.len()) {
        let logits = decoder.forward(&ids[..lengths.end - 1], &mut Unedited)?;
        let logits = logits.i(lengths.start - 1..lengths.end - 1)?;
        let losses = causalcone_ops::cross_entropy(&logits, &ids[lengths])?;
        sum += losses.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    /// In Phi-3, the rows of a prompt of more than 12 tokens rotate by other angles.
    #[test]
    fn a_text_scores_as_one_run_for_each_of_its_tokens() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/families/phi3");
        let model = Model::load(path).unwrap();
        let decoder = model.decoder().unwrap();
        let ids: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 40).collect();
        for len in [1, 2, 12, 13, 14, 20] {
            let of = |end: usize| {
                let logits = decoder.forward(&ids[..end], &mut Unedited).unwrap();
                let last = logits.get(end - 1).unwrap().to_vec1::<f32>().unwrap();
                causalcone_ops::log_sum_exp(&last) - f64::from(last[ids[end] as usize])
            };
            let expected: f64 = (1..len).map(of).sum();
            let found = nats(decoder, &ids[..len]).unwrap();
            assert!((found - expected).abs() <= 1e-5 * (1.0 + expected), "{len}: {found} is not {expected}");
        }
    }
}
