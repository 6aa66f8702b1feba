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

    /// The entropy, −Σ p·ln p, in nats.
    ///
    /// ```
    /// use causalcone_engine::Distribution;
    /// assert!((Distribution::new(vec![2.0; 8]).entropy() - 8f64.ln()).abs() < 1e-12);
    /// assert_eq!(Distribution::new(vec![0.0, f32::NEG_INFINITY]).entropy(), 0.0);
    /// ```
    pub fn entropy(&self) -> f64 {
        let term = |x: &f32| {
            let logprob = f64::from(*x) - self.log_sum;
            if logprob == f64::NEG_INFINITY { 0.0 } else { logprob.exp() * logprob }
        };
        let sum: f64 = self.logits.iter().map(term).sum();
        // Of a sure answer it is 0, not −0; logits that are no numbers have none.
        if sum == 0.0 { 0.0 } else { -sum }
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
    /// The rank of each token among all, 1 for the likeliest.
    Rank,
    /// The entropy of the distribution, −Σ p·ln p, in nats.
    Entropy,
}

impl Metric {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 9] = [
        ("prob", Self::Prob),
        ("logit", Self::Logit),
        ("logprob", Self::Logprob),
        ("logit_diff", Self::LogitDiff),
        ("kl", Self::Kl),
        ("accuracy", Self::Accuracy),
        ("loss", Self::Loss),
        ("rank", Self::Rank),
        ("entropy", Self::Entropy),
    ];

    /// Its name in files and tables.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// How many tokens it needs at least.
    pub fn needs_tokens(self) -> usize {
        match self {
            Self::Prob | Self::Logit | Self::Logprob | Self::Rank => 1,
            Self::LogitDiff => 2,
            Self::Kl | Self::Accuracy | Self::Loss | Self::Entropy => 0,
        }
    }

    /// Whether it is about the label: what the example says should come, or the first of the tokens.
    pub fn needs_label(self) -> bool {
        matches!(self, Self::Accuracy | Self::Loss)
    }

    /// Whether there is one number for each token (true) or one for the cell (false).
    pub fn is_per_token(self) -> bool {
        matches!(self, Self::Prob | Self::Logit | Self::Logprob | Self::Rank)
    }

    /// Whether it changes by steps, so that it has no gradient.
    pub fn is_stepwise(self) -> bool {
        matches!(self, Self::Accuracy | Self::Rank)
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
            // Σ |p·(ln p + H)| is at most twice the entropy.
            Self::Entropy => 2.0 * value.abs(),
            Self::Accuracy | Self::Rank => 0.0,
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
            Self::Rank => each(|edited, id| edited.rank(id) as f64),
            Self::Entropy => vec![edited.entropy()],
        }
    }

    /// How much each of its [numbers](Self::values) changes with each logit of `edited`. Those of a metric that changes by
    /// steps are no numbers.
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
            Self::Rank => vec![vec![f32::NAN; edited.logits.len()]; tokens.len()],
            // −p·(ln p + H)
            Self::Entropy => {
                let entropy = edited.entropy();
                let logprobs = edited.logits.iter().map(|x| f64::from(*x) - edited.log_sum);
                vec![logprobs.map(|logprob| slope_of_entropy(logprob, entropy) as f32).collect()]
            }
            Self::Loss => vec![label.map_or_else(Vec::new, |label| row(&[(label, -1.0)], 1.0))],
        }
    }
}

/// −p·(ln p + H): how much the entropy H changes with the logit of a token of this ln p.
fn slope_of_entropy(logprob: f64, entropy: f64) -> f64 {
    if logprob == f64::NEG_INFINITY { 0.0 } else { -logprob.exp() * (logprob + entropy) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slopes_of_entropy_are_finite_differences() {
        let logits = [0.3f32, -1.2, 2.0, 0.0, 1.1];
        let at = |i: usize, step: f32| {
            let mut moved = logits;
            moved[i] += step;
            Distribution::new(moved.to_vec()).entropy()
        };
        let here = Distribution::new(logits.to_vec());
        let slopes = Metric::Entropy.slopes(&here, &here, &[], None).remove(0);
        for (i, slope) in slopes.into_iter().enumerate() {
            // A step of 2⁻⁸ is exact in f32, and leaves an error of its square.
            let difference = (at(i, 1.0 / 256.0) - at(i, -1.0 / 256.0)) * 128.0;
            assert!((difference - f64::from(slope)).abs() < 1e-4, "{i}: {slope} is not {difference}");
        }
        assert!(Distribution::new(vec![f32::NAN, 1.0]).entropy().is_nan());
    }
}
