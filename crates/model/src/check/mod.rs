//! Whether a loaded model predicts text as a language model should.
//!
//! Configurations can be wrong without an error: a rotary base, a scale, a norm's epsilon. The answers are then wrong too,
//! and nothing fails. A trained model gives itself away by how well it predicts ordinary text. [`check`] scores a
//! paragraph of English and one of code that are part of this library, in bits per byte, and gives a [`Verdict`].

use crate::decoder::Unedited;
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

/// What the scores say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The model predicts text.
    Good,
    /// It predicts text badly: a very small model or one trained on something else, or a setting is wrong.
    Weak,
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
            Self::Broken => {
                "the model does not predict text: it is untrained, or a setting of its files is wrong"
            }
        }
    }
}

/// Scores the bundled texts. The best of them decides: few models know both prose and code.
///
/// ```
/// use causalcone_model::{Model, check};
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;             // random weights
/// let (scores, verdict) = check::check(&model)?;
/// assert!(scores[0].bits_per_byte > 4.0);
/// assert_eq!(verdict, check::Verdict::Broken);
/// # Ok::<(), causalcone_model::Error>(())
/// ```
///
/// # Errors
/// When the model has no tokenizer that can be used.
pub fn check(model: &Model) -> Result<(Vec<TextScore>, Verdict)> {
    let scores: Vec<TextScore> =
        TEXTS.iter().map(|(name, text)| score(model, name, text)).collect::<Result<_>>()?;
    let best = scores.iter().map(|score| score.bits_per_byte).fold(f64::INFINITY, f64::min);
    let verdict = match best {
        best if best <= GOOD => Verdict::Good,
        best if best < BROKEN => Verdict::Weak,
        _ => Verdict::Broken,
    };
    Ok((scores, verdict))
}

/// −log2 p of each token of the text but the first, whose text is not counted either.
fn score(model: &Model, name: &'static str, text: &str) -> Result<TextScore> {
    let tokenizer = model.needs_tokenizer(text)?;
    let mut ids = tokenizer.prompt(text, None, text.len() + 1)?;
    ids.truncate(MOST_TOKENS.min(model.config().context));
    let labels = ids.get(1..).unwrap_or_default();
    let bytes = tokenizer.decode(labels).len();
    if bytes == 0 {
        let problem = format!("the model's context of {} leaves no token to score", model.config().context);
        return Err(Error::Prompt { problem });
    }
    let logits = model.decoder()?.forward(&ids, &mut Unedited)?.i(..labels.len())?;
    let losses = causalcone_ops::cross_entropy(&logits, labels)?;
    let nats: f64 = losses.to_dtype(DType::F64)?.sum_all()?.to_scalar()?;
    let bits_per_byte = nats / std::f64::consts::LN_2 / bytes as f64;
    Ok(TextScore { text: name, tokens: labels.len(), bytes, bits_per_byte })
}
