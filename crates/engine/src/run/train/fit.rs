//! One fit, step by step.

use super::checkpoint::{Checkpoint, State};
use super::examples::order;
use super::scores::{Score, losses, scores};
use super::training::Trainer;
use super::variables::{Variable, Variables};
use crate::experiment::Experiment;
use crate::experiment::sweep::Each;
use crate::op::Bound;
use crate::{Error, Result};
use causalcone_model::{Indices, Positions, Report, silent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The fit of one choice of the axes: numbers that change step by step.
#[derive(Debug)]
pub struct Fit<'f, 't, 'm> {
    trainer: &'f Trainer<'t, 'm>,
    point: usize,
    /// Those of the examples trained on that have the choice, with their cells.
    examples: Vec<(usize, usize)>,
    variables: Variables,
    state: State,
}

/// What one update did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number, counted from 1.
    pub step: usize,
    /// The pass over the examples it is in, counted from 0.
    pub epoch: usize,
    /// The loss before it, without what sparsity adds: the mean over its examples.
    pub loss: f64,
    /// The accuracy before it.
    pub accuracy: f64,
    /// What sparsity adds to the loss; 0 without.
    pub penalty: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The temperature of masks, where it changes.
    pub temperature: Option<f64>,
    /// What was found after it, where that was looked at.
    pub evaluation: Option<Evaluation>,
}

/// The mean scores of the examples that are held out, or of all if none is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Their mean loss.
    pub loss: f64,
    /// Their mean accuracy: of an interchange, the interchange intervention accuracy.
    pub accuracy: f64,
    /// Whether the loss is the lowest yet.
    pub is_best: bool,
}

impl<'t, 'm> Trainer<'t, 'm> {
    /// Begins the fit of a choice of the axes, counted from 0.
    ///
    /// # Errors
    /// When there is no such choice.
    pub fn fit(&self, point: usize) -> Result<Fit<'_, 't, 'm>> {
        Fit::new(self, point)
    }

    /// Goes on where a fit was left.
    ///
    /// # Errors
    /// When the checkpoint is of another training.
    pub fn resume(&self, checkpoint: &Checkpoint) -> Result<Fit<'_, 't, 'm>> {
        Fit::resume(self, checkpoint)
    }
}

impl<'f, 't, 'm> Fit<'f, 't, 'm> {
    fn new(trainer: &'f Trainer<'t, 'm>, point: usize) -> Result<Self> {
        let training = trainer.training;
        let Some(choice) = training.points.get(point) else {
            return Err(Error::part(
                "train",
                format!("there is no fit {point} of {}", training.points.len()),
            ));
        };
        let cell = |example| Some((example, choice.cells[example]?));
        let examples: Vec<(usize, usize)> = (0..training.trained).filter_map(cell).collect();
        if examples.is_empty() {
            return Err(Error::part("train", format!("fit {point} has no example to train on")));
        }
        let variables = Variables::new(&training.experiment, &training.options)?;
        Ok(Self { trainer, point, examples, variables, state: State { point, ..State::default() } })
    }

    fn resume(trainer: &'f Trainer<'t, 'm>, checkpoint: &Checkpoint) -> Result<Self> {
        let mut fit = Self::new(trainer, checkpoint.state.point)?;
        checkpoint.restore(&mut fit.variables)?;
        fit.state = checkpoint.state.clone();
        Ok(fit)
    }

    /// Which choice of the axes it is of.
    pub fn point(&self) -> usize {
        self.point
    }

    /// How many updates are done.
    pub fn done(&self) -> usize {
        self.state.step
    }

    /// How many examples it trains on.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }

    /// How many updates there are in all.
    pub fn total(&self) -> usize {
        self.trainer.training.options.steps(self.examples.len())
    }

    fn steps_of_epoch(&self) -> usize {
        self.trainer.training.options.steps_of_epoch(self.examples.len())
    }

    /// One update; nothing where all are done, or it has stopped early. With patience the numbers are then those of
    /// the best evaluation.
    ///
    /// # Errors
    /// [`Error::Diverged`] where a loss or gradient is not finite: the numbers stay those before it. When the
    /// computation fails.
    pub fn step(&mut self) -> Result<Option<Step>> {
        let options = &self.trainer.training.options;
        let (step, total) = (self.state.step, self.total());
        if step >= total || self.state.stopped {
            return Ok(None);
        }
        let epoch = step / self.steps_of_epoch();
        let temperature = options.temperature_at(step, total);
        let batches = self.batches(epoch, step % self.steps_of_epoch());
        let bound = self.bound(temperature, true)?;
        let mut slopes: Vec<Vec<f32>> = Vec::new();
        let (mut loss, mut penalty, mut right, mut count) = (0.0, 0.0, 0.0, 0usize);
        for batch in &batches {
            let (examples, cells): (Vec<usize>, Vec<usize>) = batch.iter().copied().unzip();
            let session = &self.trainer.session;
            let (losses, accuracies) = losses(self.trainer, session, (&examples, &cells), &bound)?;
            let mean = losses.mean_all()?;
            let mut whole = mean.clone();
            if options.sparsity > 0.0
                && let Some(exchanged) = self.variables.exchanged(&bound)?
            {
                let added = (exchanged * options.sparsity)?;
                penalty += f64::from(added.to_scalar::<f32>()?) / batches.len() as f64;
                whole = (whole + added)?;
            }
            let grads = (whole / batches.len() as f64)?.backward()?;
            let own = self.variables.iter().map(|variable| variable.slopes(&grads));
            let own: Vec<Vec<f32>> = own.collect::<Result<_>>()?;
            match slopes.is_empty() {
                true => slopes = own,
                false => slopes.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(sum, x)| *sum += x),
            }
            // Of unequal batches each example's loss counts the same here.
            loss += f64::from(mean.to_scalar::<f32>()?) * batch.len() as f64;
            right += accuracies.iter().sum::<f64>();
            count += batch.len();
        }
        let (loss, accuracy) = (loss / count as f64, right / count as f64);
        let what = match slopes.iter().flatten().all(|x| x.is_finite()) {
            _ if !(loss + penalty).is_finite() => Some("the loss"),
            false => Some("a gradient"),
            true => None,
        };
        if let Some(what) = what {
            return Err(Error::Diverged { step: step + 1, what });
        }
        for (variable, slopes) in self.variables.iter_mut().zip(&slopes) {
            let rate = options.rate_at(variable.name, step, total);
            let mut numbers = variable.numbers()?;
            options.adam.update(step + 1, rate, &mut numbers, slopes, &mut variable.moments);
            variable.set(numbers)?;
        }
        self.state.step += 1;
        let evaluation = self.evaluation(total)?;
        let learning_rate = options.learning_rate * options.schedule.factor(step, total, options.warmup);
        Ok(Some(Step {
            step: step + 1,
            epoch,
            loss,
            accuracy,
            penalty,
            learning_rate,
            temperature,
            evaluation,
        }))
    }

    /// The batches of an update of an epoch.
    fn batches(&self, epoch: usize, update: usize) -> Vec<Vec<(usize, usize)>> {
        let options = &self.trainer.training.options;
        let order = order(options.seed, epoch as u64, self.examples.len());
        let examples: Vec<(usize, usize)> = order.into_iter().map(|i| self.examples[i]).collect();
        let batches =
            examples.chunks(options.batch).skip(update * options.accumulate).take(options.accumulate);
        batches.map(<[_]>::to_vec).collect()
    }

    /// Looks at the examples held out, where it is time to; stops where they say so.
    fn evaluation(&mut self, total: usize) -> Result<Option<Evaluation>> {
        let (step, every) = (self.state.step, self.trainer.training.evaluate_every());
        if !step.is_multiple_of(every) && step != total {
            return Ok(None);
        }
        let Score { accuracy, loss } = Score::mean(&self.scores()?);
        let is_best = self.state.best.is_none_or(|best| loss < best);
        let patience = self.trainer.training.options.patience;
        if is_best {
            (self.state.best, self.state.since) = (Some(loss), 0);
            if patience.is_some() {
                self.state.best_numbers =
                    self.variables.iter().map(Variable::numbers).collect::<Result<_>>()?;
            }
        } else {
            self.state.since += 1;
        }
        self.state.stopped = patience.is_some_and(|patience| self.state.since >= patience);
        if (self.state.stopped || step == total) && !self.state.best_numbers.is_empty() {
            for (variable, numbers) in self.variables.iter().zip(&self.state.best_numbers) {
                variable.set(numbers.clone())?;
            }
        }
        Ok(Some(Evaluation { loss, accuracy, is_best }))
    }

    /// The scores of each of the examples held out, or of all if none is, that has the choice of the axes, with the
    /// numbers as they are.
    ///
    /// # Errors
    /// When the computation fails.
    pub fn scores(&self) -> Result<Vec<Score>> {
        self.scores_with(&silent)
    }

    /// [`Fit::scores`], telling how far it is.
    ///
    /// # Errors
    /// As [`Fit::scores`]; [`Error::Interrupted`] where `report` says so: nothing of the fit has changed.
    pub fn scores_with(&self, report: Report<'_>) -> Result<Vec<Score>> {
        let training = self.trainer.training;
        let cells = &training.points[self.point].cells;
        let judged: Vec<(usize, usize)> =
            training.judged().filter_map(|example| Some((example, cells[example]?))).collect();
        let bound = self.bound(self.temperature(), false)?;
        scores(self.trainer, &self.trainer.session, &judged, &bound, report)
    }

    /// What stands in for the edits' parameters. Numbers that an update has made too large have no rotation.
    fn bound(&self, temperature: Option<f64>, is_followed: bool) -> Result<Bound> {
        self.variables.bound(temperature, is_followed).map_err(|e| match e {
            Error::Kernel(_) if self.state.step > 0 => {
                Error::Diverged { step: self.state.step, what: "a rotation" }
            }
            other => other,
        })
    }

    /// The temperature of masks after the last update.
    fn temperature(&self) -> Option<f64> {
        self.trainer.training.options.temperature_at(self.state.step.saturating_sub(1), self.total())
    }

    /// All that is needed to go on from here.
    ///
    /// # Errors
    /// When the numbers cannot be read.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::of(&self.state, &self.variables)
    }

    /// The experiment with what was learned in place of the parameters, at the choice of the axes: with the examples
    /// it was trained on, and without a sweep.
    ///
    /// # Errors
    /// When the choice is one position of a list that differs from example to example: no edit can say which.
    pub fn experiment(&self) -> Result<Experiment<'m>> {
        let training = self.trainer.training;
        let mut experiment = training.experiment.clone();
        let sweep = experiment.sweep.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        let at = &training.points[self.point].at;
        if let Some(examples) = &mut experiment.examples {
            Arc::make_mut(examples).truncate(training.trained);
        }
        for edit in &sweep.edits {
            let spec = &mut Arc::make_mut(&mut experiment.edits)[edit.0];
            if let (false, Some(site)) = (sweep.sites.is_empty(), at.site) {
                spec.target.site = site;
            }
            if sweep.layers.is_some() {
                let layers = at.layers.iter().map(|layer| i64::try_from(*layer).unwrap_or(i64::MAX));
                spec.target.layers = Some(Indices::List(layers.collect()));
            }
            if let (Some(Each), Some(head)) = (sweep.heads, at.head) {
                spec.target.heads = Some(Indices::from(head));
            }
            if let Some(scale) = at.scale.filter(|_| !sweep.scales.is_empty()) {
                spec.op.scale = scale;
            }
            if sweep.positions.is_some() {
                // A list says itself which position a place in it is, from the end too.
                let listed = match &spec.target.positions {
                    Positions::Indices(Indices::List(list)) => list.get(at.point.position).copied(),
                    _ => None,
                };
                spec.target.positions = match (listed, at.position) {
                    (Some(listed), _) => Positions::Indices(Indices::List(vec![listed])),
                    (None, Some(position)) => Positions::Indices(Indices::from(position)),
                    (None, None) => {
                        let problem =
                            "was trained at a place among positions that differ from example to example";
                        let hint = Some("list the positions, or give each a name".into());
                        return Err(Error::hinted(experiment.edit_name(*edit), problem, hint));
                    }
                };
            }
        }
        let mut known: Vec<(Arc<crate::op::Parameters>, Arc<crate::op::Parameters>)> = Vec::new();
        for spec in Arc::make_mut(&mut experiment.edits) {
            let old = spec.op.parameters.clone();
            let shared = known.iter().find(|(other, _)| Arc::ptr_eq(other, &old)).map(|(_, new)| new.clone());
            let new = match shared {
                Some(new) => Some(new),
                None => self.variables.of(&old, self.temperature())?.map(Arc::new),
            };
            if let Some(new) = new {
                known.push((old, new.clone()));
                spec.op.parameters = new;
            }
        }
        Ok(experiment)
    }
}
