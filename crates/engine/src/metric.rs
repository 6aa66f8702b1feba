//! Next-token distributions, and the numbers a sweep records of them.

use crate::labels::{TokenLabels, visible};
use crate::reading::Reading;
use crate::{Error, Result};
use causalcone_model::Model;
use causalcone_ops::{divergence, log_sum_exp};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// The logits of one position over the whole vocabulary.
#[derive(Debug, Clone)]
pub struct Distribution {
    logits: Vec<f32>,
    log_sum: f64,
}

/// One token of a distribution.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenRecord {
    /// Its text as it stands in running text, or its decimal id where there is no tokenizer.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability; `None` where it is not finite.
    pub prob: Option<f64>,
    /// Its logit; `None` where it is not finite.
    pub logit: Option<f64>,
}

impl Distribution {
    /// From logits, one a token.
    pub fn new(logits: Vec<f32>) -> Self {
        Self { log_sum: log_sum_exp(&logits), logits }
    }

    /// From what a read of logits gave.
    pub(crate) fn read(reading: &Reading) -> Result<Self> {
        match reading {
            Reading::Logits(row) => Ok(Self::new(row.to_vec1()?)),
            Reading::Activation(_) => Err(Error::part("read", "gave activations in place of logits")),
        }
    }

    /// The logits.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The logit of a token.
    pub fn logit(&self, id: u32) -> f64 {
        self.logits.get(id as usize).map_or(f64::NAN, |x| f64::from(*x))
    }

    /// The natural logarithm of a token's probability.
    pub fn logprob(&self, id: u32) -> f64 {
        self.logit(id) - self.log_sum
    }

    /// The probability of a token.
    pub fn prob(&self, id: u32) -> f64 {
        self.logprob(id).exp()
    }

    /// D(self ‖ other) = Σ p·(log p − log q), in nats.
    ///
    /// ```
    /// use causalcone_engine::Distribution;
    /// let (p, q) = (Distribution::new(vec![0.0, 0.0]), Distribution::new(vec![3f32.ln(), 0.0]));
    /// assert_eq!(p.kl(&p), 0.0);
    /// assert!((p.kl(&q) - 0.5 * (4.0f64 / 3.0).ln()).abs() < 1e-7);
    /// ```
    pub fn kl(&self, other: &Self) -> f64 {
        let sum = divergence((&self.logits, self.log_sum), (&other.logits, other.log_sum));
        // Never negative; rounding of the sum may leave −1e-17 where the two are equal.
        if sum < 0.0 { 0.0 } else { sum }
    }

    /// The place of a token among all, 1 for the likeliest; of equal ones the smaller id comes first.
    pub fn rank(&self, id: u32) -> usize {
        let own = self.logits.get(id as usize).copied().unwrap_or(f32::NAN);
        let is_before = |(other, x): (u32, &f32)| x.total_cmp(&own).then(id.cmp(&other)).is_gt();
        1 + (0..).zip(&self.logits).filter(|other| is_before(*other)).count()
    }

    /// The ids of the likeliest tokens, best first; equal ones by id.
    pub fn top_ids(&self, n: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = (0..).take(self.logits.len()).collect();
        let order = |a: &u32, b: &u32| {
            let (x, y) = (self.logits[*a as usize], self.logits[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        if n < ids.len() {
            ids.select_nth_unstable_by(n, order);
            ids.truncate(n);
        }
        ids.sort_unstable_by(order);
        ids
    }

    /// The likeliest tokens with their texts.
    pub fn top(&self, model: &Model, n: usize) -> Top {
        Top(self.records(model, &self.top_ids(n)))
    }

    /// These tokens with their texts.
    pub fn records(&self, model: &Model, ids: &[u32]) -> Vec<TokenRecord> {
        let finite = |x: f64| x.is_finite().then_some(x);
        let record = |&id: &u32| TokenRecord {
            token: model.token_text(id),
            id,
            prob: finite(self.prob(id)),
            logit: finite(self.logit(id)),
        };
        ids.iter().map(record).collect()
    }
}

/// The likeliest tokens, best first. Displays as the tutorial prints them, a leading space as `_`.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Top(
    /// The tokens.
    pub Vec<TokenRecord>,
);

impl TokenLabels {
    /// Labels of the tokens of records, as a terminal shows them.
    pub fn of_records<'a>(records: impl IntoIterator<Item = &'a TokenRecord>) -> Self {
        Self::of_texts(&records.into_iter().map(|record| (record.id, visible(&record.token))).collect())
    }
}

impl fmt::Display for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = TokenLabels::of_records(&self.0);
        for record in &self.0 {
            let prob = record.prob.map_or_else(|| "not finite".into(), |p| format!("{p:.6}"));
            writeln!(f, "{:<20} {prob}", labels.get(record.id))?;
        }
        Ok(())
    }
}

/// The natural logarithms of the probabilities of answers, given the distribution of their first token and, of each in turn,
/// those of its others.
pub(crate) fn answer_logprobs(
    answers: &[Arc<[u32]>],
    first: &Distribution,
    rows: &[Reading],
) -> Result<Vec<f64>> {
    let mut rows = rows.iter();
    let of = |ids: &Arc<[u32]>| -> Result<f64> {
        let mut sum = first.logprob(ids[0]);
        for (id, row) in ids[1..].iter().zip(&mut rows) {
            sum += Distribution::read(row)?.logprob(*id);
        }
        Ok(sum)
    };
    answers.iter().map(of).collect()
}

/// A number recorded of every cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The probability of each token.
    Prob,
    /// The logit of each token.
    Logit,
    /// The natural logarithm of the probability of each token.
    Logprob,
    /// The logit of the first token minus that of the second.
    LogitDiff,
    /// D(original ‖ edited) over the whole vocabulary, in nats.
    Kl,
    /// 1 where the label is the likeliest token, else 0; its mean over examples is the accuracy.
    Accuracy,
    /// −ln p of the label, in nats: the cross-entropy.
    Loss,
}

impl Metric {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("prob", Self::Prob),
        ("logit", Self::Logit),
        ("logprob", Self::Logprob),
        ("logit_diff", Self::LogitDiff),
        ("kl", Self::Kl),
        ("accuracy", Self::Accuracy),
        ("loss", Self::Loss),
    ];

    /// Its name in files and tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// How many tokens it needs at least.
    pub fn needs_tokens(self) -> usize {
        match self {
            Self::Prob | Self::Logit | Self::Logprob => 1,
            Self::LogitDiff => 2,
            Self::Kl | Self::Accuracy | Self::Loss => 0,
        }
    }

    /// Whether it is about the label: what the example says should come, or the first of the tokens.
    pub fn needs_label(self) -> bool {
        matches!(self, Self::Accuracy | Self::Loss)
    }

    /// Whether there is one number for each token (true) or one for the cell (false).
    pub fn is_per_token(self) -> bool {
        matches!(self, Self::Prob | Self::Logit | Self::Logprob)
    }

    /// Whether there is one number for each answer too.
    pub fn is_of_answers(self) -> bool {
        matches!(self, Self::Prob | Self::Logprob)
    }

    /// Its number for an answer whose probability has this natural logarithm; `None` where it is of none.
    pub(crate) fn of_answer(self, logprob: f64) -> Option<f64> {
        match self {
            Self::Prob => Some(logprob.exp()),
            Self::Logprob => Some(logprob),
            _ => None,
        }
    }

    /// Whether it compares with the unedited distribution.
    pub(crate) fn needs_original(self) -> bool {
        self == Self::Kl
    }

    /// About how much its number changes where logits change by 2⁻¹⁶: logits of real models are up to some hundred, where
    /// an f32 resolves 2⁻¹⁷ and sums of products in another order differ by a few times that. Smaller differences between
    /// cells are rounding.
    pub(crate) fn resolution(self, value: f64) -> f64 {
        const LOGIT: f64 = 1.0 / (1 << 16) as f64;
        let slope = match self {
            Self::Prob => value * (1.0 - value),
            Self::Logprob => -value.exp_m1(),
            Self::Loss => -(-value).exp_m1(),
            Self::Logit | Self::LogitDiff => value.abs().max(1.0),
            // It is half the variance of the changes.
            Self::Kl => (2.0 * value.max(0.0)).sqrt() + LOGIT,
            Self::Accuracy => 0.0,
        };
        slope.max(0.0) * LOGIT
    }

    /// Its numbers for a distribution, given the tokens, the label, and the unedited distribution.
    pub fn values(
        self,
        edited: &Distribution,
        original: &Distribution,
        tokens: &[u32],
        label: Option<u32>,
    ) -> Vec<f64> {
        let each = |f: fn(&Distribution, u32) -> f64| tokens.iter().map(|&id| f(edited, id)).collect();
        match self {
            Self::Prob => each(Distribution::prob),
            Self::Logit => each(Distribution::logit),
            Self::Logprob => each(Distribution::logprob),
            Self::LogitDiff => {
                let pair = tokens.first_chunk::<2>();
                vec![pair.map_or(f64::NAN, |[a, b]| edited.logit(*a) - edited.logit(*b))]
            }
            Self::Kl => vec![original.kl(edited)],
            Self::Accuracy => {
                let is_best = |label| edited.top_ids(1) == [label];
                vec![label.map_or(f64::NAN, |label| f64::from(u8::from(is_best(label))))]
            }
            Self::Loss => vec![label.map_or(f64::NAN, |label| -edited.logprob(label))],
        }
    }

    /// How much each of its [numbers](Self::values) changes with each logit of `edited`. That of accuracy,
    /// which jumps, is no number.
    pub(crate) fn slopes(
        self,
        edited: &Distribution,
        original: &Distribution,
        tokens: &[u32],
        label: Option<u32>,
    ) -> Vec<Vec<f32>> {
        // So much of single logits, and so much of ln Σ exp, whose slopes are the probabilities.
        let row = |single: &[(u32, f64)], log_sum: f64| {
            let prob = |logit: &f32| log_sum * (f64::from(*logit) - edited.log_sum).exp();
            let mut row: Vec<f64> =
                edited.logits.iter().map(|x| if log_sum == 0.0 { 0.0 } else { prob(x) }).collect();
            for (token, part) in single {
                if let Some(slope) = row.get_mut(*token as usize) {
                    *slope += part;
                }
            }
            row.into_iter().map(|x| x as f32).collect::<Vec<f32>>()
        };
        let each = |f: &dyn Fn(u32) -> Vec<f32>| tokens.iter().map(|id| f(*id)).collect();
        match self {
            // p·(e − p)
            Self::Prob => each(&|id| row(&[(id, edited.prob(id))], -edited.prob(id))),
            Self::Logit => each(&|id| row(&[(id, 1.0)], 0.0)),
            Self::Logprob => each(&|id| row(&[(id, 1.0)], -1.0)),
            Self::LogitDiff => {
                let pair = tokens.first_chunk::<2>();
                vec![pair.map(|[a, b]| row(&[(*a, 1.0), (*b, -1.0)], 0.0)).unwrap_or_default()]
            }
            // What it is now, less what it was.
            Self::Kl => {
                let was = original.logits.iter().map(|x| (f64::from(*x) - original.log_sum).exp() as f32);
                vec![row(&[], 1.0).into_iter().zip(was).map(|(p, was)| p - was).collect()]
            }
            Self::Accuracy => vec![vec![f32::NAN; edited.logits.len()]],
            Self::Loss => vec![label.map_or_else(Vec::new, |label| row(&[(label, -1.0)], 1.0))],
        }
    }
}
