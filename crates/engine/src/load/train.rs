//! From the `[train]` table to a training.

use super::named::one_of;
use super::value::TensorsFile;
use crate::error::Refused;
use crate::experiment::Experiment;
use crate::experiment::dataset::Examples;
use crate::ids::EditId;
use crate::run::train::{Adam, HeldOut, Length, Map, Objective, Options, Schedule};
use crate::schema::{
    BaseFile, ExperimentFile, HeldOutFile, ObjectiveFile, OptimizerFile, RotationsFile, TrainFile,
};
use crate::{Error, Result};
use std::sync::Arc;

impl ExperimentFile {
    /// What `[train]` asks for: the options, what is held out, and which lines of that cannot be used.
    ///
    /// # Errors
    /// When there is no `[train]`, or it names what is not there.
    pub fn training(&self, experiment: &Experiment<'_>) -> Result<(Options, HeldOut, Vec<Refused>)> {
        let Some(train) = &self.train else {
            let hint = Some("add a table [train]; it may be empty".into());
            return Err(Error::hinted("train", "the experiment has no [train]", hint));
        };
        let default = Options::default();
        let edits = train.edits.iter().flatten().map(|edit| self.edit_ref(edit, "train"));
        let edits: Vec<EditId> = edits.collect::<Result<_>>()?;
        if train.edits.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::part("train", "edits = [] names no edit"));
        }
        let objective = objective(train, experiment)?;
        let length = match (train.epochs, train.steps) {
            (Some(_), Some(_)) => {
                return Err(Error::part("train", "has epochs and steps, of which one fits"));
            }
            (None, Some(steps)) => Length::Steps(steps),
            (Some(epochs), None) => Length::Epochs(epochs),
            (None, None) => default.length,
        };
        let (map, base) = match &train.rotations {
            None => (Map::default(), None),
            Some(RotationsFile::Name(name)) => (by_name("rotations", name, &Map::NAMES)?, None),
            Some(RotationsFile::Base(BaseFile { base })) => {
                let file = TensorsFile::open(&self.data_path(&base.file), &base.file, "train")?;
                (Map::Householder, Some(file.take(base.tensor.as_deref(), Some("base"), "train")?))
            }
        };
        let schedule = train.schedule.as_ref().map(|name| by_name("schedule", name, &Schedule::NAMES));
        let options = Options {
            edits,
            objective,
            length,
            batch: train.batch.unwrap_or(default.batch),
            accumulate: train.accumulate.unwrap_or(default.accumulate),
            adam: adam(train),
            learning_rate: train.learning_rate.unwrap_or(default.learning_rate),
            learning_rates: train.learning_rates.clone(),
            schedule: schedule.transpose()?.unwrap_or_default(),
            warmup: train.warmup.unwrap_or(0),
            temperature: train.temperature.map(|t| (t.from, t.to)),
            sparsity: train.sparsity.unwrap_or(0.0),
            map,
            base,
            seed: train.seed.unwrap_or(0),
            evaluate: train.evaluate,
            patience: train.patience,
            one_label: train.one_label,
        };
        let (held_out, refused) = self.held_out(train, experiment, &options)?;
        Ok((options, held_out, refused))
    }

    /// What is held out, and which lines of its file cannot be used.
    fn held_out(
        &self,
        train: &TrainFile,
        experiment: &Experiment<'_>,
        options: &Options,
    ) -> Result<(HeldOut, Vec<Refused>)> {
        Ok(match &train.held_out {
            None => (HeldOut::None, Vec::new()),
            Some(HeldOutFile::Part(part)) => (HeldOut::Part(*part), Vec::new()),
            Some(HeldOutFile::File(name)) => {
                let mut alone = experiment.clone();
                alone.examples = Some(Arc::new(Examples::open(&self.data_path(name))?));
                options.prepare(&mut alone)?;
                let refused = alone.sift()?;
                let held_out =
                    alone.examples.iter().flat_map(|examples| examples.iter()).filter_map(Result::ok);
                (HeldOut::Examples(held_out.collect()), refused)
            }
        })
    }
}

/// What is minimised.
fn objective(train: &TrainFile, experiment: &Experiment<'_>) -> Result<Objective> {
    match &train.objective {
        None => Ok(Objective::CrossEntropy),
        Some(ObjectiveFile::Kl(kl)) => Ok(Objective::Kl(experiment.find_run(&kl.kl, "train")?)),
        Some(ObjectiveFile::Name(name)) => {
            let known = [("cross_entropy", Objective::CrossEntropy), ("logit_diff", Objective::LogitDiff)];
            by_name("objective", name, &known)
        }
    }
}

/// The optimiser.
fn adam(train: &TrainFile) -> Adam {
    let plain = Adam::default();
    let [beta1, beta2] = train.betas.unwrap_or([plain.beta1, plain.beta2]);
    Adam {
        beta1,
        beta2,
        epsilon: train.epsilon.unwrap_or(plain.epsilon),
        weight_decay: train.weight_decay.unwrap_or(plain.weight_decay),
        decoupled: train.optimizer == Some(OptimizerFile::AdamW),
    }
}

fn by_name<T: Clone>(key: &str, name: &str, known: &[(&'static str, T)]) -> Result<T> {
    one_of(name, known, "train", |names| format!("{key} \"{name}\" is not one of {names}"))
}
