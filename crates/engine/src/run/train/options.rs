//! How a training goes: what is minimised, in which steps.

use super::adam::Adam;
use crate::bounds::{self, Count};
use crate::experiment::Experiment;
use crate::experiment::edit::EditSpec;
use crate::experiment::method::Method;
use crate::ids::{EditId, RunId};
use crate::metric::Metric;
use crate::{Error, Result};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What is minimised, as a mean over the examples of a batch.
#[derive(Clone, Default)]
pub enum Objective {
    /// −ln p of the example's label.
    #[default]
    CrossEntropy,
    /// x(t₁) − x(t₀) of the tokens that are read: the first one's logit above the second one's.
    LogitDiff,
    /// D(q ‖ p) to what another run, which has no edits, says.
    Kl(RunId),
    /// A function of the logits over the vocabulary, examples × tokens, and of which examples (by their place
    /// among those trained on and held out) they are; gives one number an example.
    Custom(Arc<CustomObjective>),
}

/// The closure of [`Objective::Custom`].
pub type CustomObjective = dyn Fn(&Tensor, &[usize]) -> candle_core::Result<Tensor> + Send + Sync;

impl fmt::Debug for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossEntropy => "cross_entropy",
            Self::LogitDiff => "logit_diff",
            Self::Kl(_) => "kl",
            Self::Custom(_) => "custom",
        })
    }
}

/// How long a training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many passes over the examples.
    Epochs(usize),
    /// So many updates.
    Steps(usize),
}

/// How the learning rate falls after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schedule {
    /// It does not.
    #[default]
    Constant,
    /// In a straight line, to nothing after the last step.
    Linear,
    /// Along half a cosine, to nothing after the last step.
    Cosine,
}

impl Schedule {
    /// All of them by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("constant", Self::Constant), ("linear", Self::Linear), ("cosine", Self::Cosine)];

    /// The factor of the learning rate at an update, counted from 0, of so many, with a warm-up of so many.
    pub fn factor(self, step: usize, total: usize, warmup: usize) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
        }
        let done = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - done,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        }
    }
}

/// How rotations are functions of numbers without constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Map {
    /// Cayley's transform of a skew matrix, along which the first rotation turns: [`causalcone_ops::cayley`].
    #[default]
    Cayley,
    /// Householder reflections, as torch and pyvene have them for low ranks: [`causalcone_ops::householder`].
    Householder,
    /// The matrix exponential, as torch and pyvene have it for square ones: [`causalcone_ops::exponential`].
    Exponential,
}

impl Map {
    /// All of them by name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("cayley", Self::Cayley), ("householder", Self::Householder), ("exponential", Self::Exponential)];
}

/// How a training goes. [`Options::default`] is Adam at 1e-3 over ten passes in batches of 16.
#[derive(Debug, Clone)]
pub struct Options {
    /// The edits whose parameters train; empty is all that have some.
    pub edits: Vec<EditId>,
    /// What is minimised.
    pub objective: Objective,
    /// How long.
    pub length: Length,
    /// Examples in a batch.
    pub batch: usize,
    /// Batches in an update, whose gradients are averaged.
    pub accumulate: usize,
    /// The optimiser.
    pub adam: Adam,
    /// The learning rate.
    pub learning_rate: f64,
    /// The learning rates of parameters of some names, in place of it.
    pub learning_rates: BTreeMap<String, f64>,
    /// How it falls.
    pub schedule: Schedule,
    /// Updates over which it rises first.
    pub warmup: usize,
    /// The temperature of masks at the first and at the last update, in a straight line between; `None` leaves it.
    pub temperature: Option<(f64, f64)>,
    /// How much of the loss is the part of the coordinates that masks exchange: this times the mean of each mask
    /// (of a boundary, itself).
    pub sparsity: f64,
    /// How rotations are parametrised.
    pub map: Map,
    /// The square matrix whose first columns are the first rotation, for [`Map::Householder`], where it is not to be
    /// drawn: torch's `base`. One rotation trains then.
    pub base: Option<Tensor>,
    /// The seed of the order of examples, of what is held out, and of what is drawn.
    pub seed: u64,
    /// Updates between two evaluations; `None` is about once a pass, and at most 20 in all.
    pub evaluate: Option<usize>,
    /// Evaluations without a lower loss after which it stops, and the best parameters are taken.
    pub patience: Option<usize>,
    /// Whether all labels may be one token.
    pub one_label: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            edits: Vec::new(),
            objective: Objective::default(),
            length: Length::Epochs(10),
            batch: 16,
            accumulate: 1,
            adam: Adam::default(),
            learning_rate: 1e-3,
            learning_rates: BTreeMap::new(),
            schedule: Schedule::default(),
            warmup: 0,
            temperature: None,
            sparsity: 0.0,
            map: Map::default(),
            base: None,
            seed: 0,
            evaluate: None,
            patience: None,
            one_label: false,
        }
    }
}

impl Options {
    /// Gives an experiment the sweep that its training goes through: its own, of the edits that train unless it names
    /// some; and has it read what the objective needs, so that [`Experiment::sift`] finds the examples that lack it.
    ///
    /// # Errors
    /// When the sweep cannot be trained.
    pub fn prepare(&self, experiment: &mut Experiment<'_>) -> Result<()> {
        let mut sweep = experiment.sweep.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        if sweep.samples.is_some() {
            return Err(Error::part("train", "samples of noise are for sweeps; a training has one"));
        }
        if sweep.methods.iter().any(|method| *method != Method::Exact) {
            return Err(Error::part(
                "train",
                "methods that estimate are for sweeps; a training runs every cell",
            ));
        }
        if sweep.edits.is_empty() {
            let trains = |id: &EditId| self.edits.is_empty() || self.edits.contains(id);
            sweep.edits = experiment.trainable().filter(trains).collect();
        }
        sweep.metrics = vec![match self.objective {
            Objective::CrossEntropy => Metric::Loss,
            Objective::LogitDiff => Metric::LogitDiff,
            Objective::Kl(_) | Objective::Custom(_) => Metric::Kl,
        }];
        experiment.set_sweep(sweep);
        Ok(())
    }

    /// Checks each number by itself.
    pub(super) fn check(&self) -> Result<()> {
        let counts: [(Count, Option<usize>); 6] = [
            (bounds::TRAIN_BATCH, Some(self.batch)),
            (bounds::TRAIN_ACCUMULATE, Some(self.accumulate)),
            match self.length {
                Length::Epochs(n) => (bounds::TRAIN_EPOCHS, Some(n)),
                Length::Steps(n) => (bounds::TRAIN_STEPS, Some(n)),
            },
            (bounds::TRAIN_WARMUP, Some(self.warmup)),
            (bounds::TRAIN_EVALUATE, self.evaluate),
            (bounds::TRAIN_PATIENCE, self.patience),
        ];
        for (count, given) in counts {
            given.map(|given| count.check(given)).transpose()?;
        }
        let rates = self.learning_rates.iter().map(|(name, rate)| (name.as_str(), *rate));
        let above = [("learning_rate", self.learning_rate)].into_iter().chain(rates);
        let temperatures =
            self.temperature.iter().flat_map(|(from, to)| [("temperature", *from), ("temperature", *to)]);
        for (key, x) in above.chain(temperatures) {
            bounds::real("train", key, x, |x| x > 0.0, "a number above 0")?;
        }
        let Adam { beta1, beta2, epsilon, weight_decay, .. } = self.adam;
        for (key, x) in [("weight_decay", weight_decay), ("sparsity", self.sparsity), ("epsilon", epsilon)] {
            bounds::real("train", key, x, |x| x >= 0.0, "0 or a number above it")?;
        }
        for beta in [beta1, beta2] {
            bounds::real("train", "betas", beta, |x| (0.0..1.0).contains(&x), "from 0 to below 1")?;
        }
        if self.base.is_some() && self.map != Map::Householder {
            return Err(Error::part("train", "a base is for rotations by householder"));
        }
        Ok(())
    }

    /// Updates in a pass over so many examples.
    pub(super) fn steps_of_epoch(&self, examples: usize) -> usize {
        examples.div_ceil(self.batch).div_ceil(self.accumulate)
    }

    /// Updates in all, with so many examples.
    pub(super) fn steps(&self, examples: usize) -> usize {
        match self.length {
            Length::Steps(steps) => steps,
            Length::Epochs(epochs) => epochs * self.steps_of_epoch(examples),
        }
    }

    /// The temperature at an update, counted from 0, of so many.
    pub(super) fn temperature_at(&self, step: usize, total: usize) -> Option<f64> {
        self.temperature.map(|(from, to)| {
            let last = total.saturating_sub(1).max(1) as f64;
            from + (to - from) * (step as f64 / last).min(1.0)
        })
    }

    /// The learning rate of a parameter at an update.
    pub(super) fn rate_at(&self, name: &str, step: usize, total: usize) -> f64 {
        let rate = self.learning_rates.get(name).copied().unwrap_or(self.learning_rate);
        rate * self.schedule.factor(step, total, self.warmup)
    }
}

impl Experiment<'_> {
    /// The edits whose ops have parameters that train.
    pub(crate) fn trainable(&self) -> impl Iterator<Item = EditId> + '_ {
        let trains =
            |spec: &EditSpec| spec.op.kind.info().parameters.iter().any(|parameter| parameter.trains);
        self.edits.iter().enumerate().filter(move |(_, spec)| trains(spec)).map(|(i, _)| EditId(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall() {
        let rates = |schedule: Schedule| (0..6).map(|step| schedule.factor(step, 6, 2)).collect::<Vec<_>>();
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&rates(Schedule::Constant), &[1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0]));
        assert!(close(&rates(Schedule::Linear), &[1.0 / 3.0, 2.0 / 3.0, 1.0, 0.75, 0.5, 0.25]));
        let half = 0.5f64.sqrt();
        let falls = [1.0, 0.5 * (1.0 + half), 0.5, 0.5 * (1.0 - half)];
        assert!(close(&rates(Schedule::Cosine)[2..], &falls));
        assert_eq!(Schedule::Linear.factor(0, 1, 0), 1.0);
    }

    #[test]
    fn temperatures_go_from_one_to_the_other() {
        let options = Options { temperature: Some((50.0, 0.5)), ..Options::default() };
        assert_eq!(options.temperature_at(0, 100), Some(50.0));
        assert_eq!(options.temperature_at(99, 100), Some(0.5));
        assert_eq!(options.temperature_at(0, 1), Some(50.0));
        assert_eq!(Options::default().temperature_at(3, 100), None);
    }
}
