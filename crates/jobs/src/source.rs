//! What a job is about: an experiment file, and the model that it is for.
//!
//! ```
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Silent, Source};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), causalcone_jobs::Error> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! let model = Model::load(path)?;
//! let file = ExperimentFile::from_toml("
//!     [runs.base]
//!     ids = [3, 1, 4]
//!     [[edit]]
//!     site = 'mlp_output'
//!     layers = 0
//!     op = 'zero'
//! ")?;
//! let (experiment, left_out) = Source::new(&model, file).experiment(&Runtime::default(), &Silent)?;
//! assert_eq!(experiment.ids(experiment.read_run()?), [3, 1, 4]);
//! assert!(left_out.refused.is_empty());
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::identity::Identity;
use crate::observer::Observer;
use candle_core::Tensor;
use causalcone_engine::{Error as EngineError, Experiment, ExperimentFile, Outline, Refused, Runtime};
use causalcone_model::Model;
use causalcone_model::store::{cached_sha256, sha256_of};
use std::path::Path;

/// An experiment file and the model it is for.
#[derive(Debug, Clone)]
pub struct Source<'m> {
    /// The model.
    pub model: &'m Model,
    /// The experiment.
    pub file: ExperimentFile,
    /// How many seconds it took to load the model: results record it.
    pub load_seconds: f64,
}

/// The examples of a data set that were left out, since they do not fit.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// Which, and why.
    pub refused: Vec<Refused>,
    /// How many examples there are in all; `None` without a data set.
    pub total: Option<usize>,
}

impl LeftOut {
    /// What JSON output says of them: a list wherever there is a data set.
    #[must_use]
    pub fn errors(&self) -> Option<Vec<Refused>> {
        self.total.map(|_| self.refused.clone())
    }

    /// Also these, of examples of another file.
    pub(crate) fn add(&mut self, refused: Vec<Refused>, observer: &dyn Observer) {
        refused.iter().for_each(|one| observer.refused(one));
        self.refused.extend(refused);
    }
}

impl<'m> Source<'m> {
    /// Of a model that was loaded in no time.
    pub fn new(model: &'m Model, file: ExperimentFile) -> Self {
        Self { model, file, load_seconds: 0.0 }
    }

    /// The experiment with the examples that fit it. What its file asks to be drawn or fitted is computed with the
    /// runtime.
    ///
    /// # Errors
    /// When the file does not fit the model or contradicts itself; [`Error::NoExample`] when no example fits.
    pub fn experiment(
        &self,
        runtime: &Runtime<'_>,
        observer: &dyn Observer,
    ) -> Result<(Experiment<'m>, LeftOut)> {
        sifted(self.built(runtime, observer)?, observer)
    }

    /// The same without its sweep.
    ///
    /// # Errors
    /// As [`Source::experiment`].
    pub fn single(
        &self,
        runtime: &Runtime<'_>,
        observer: &dyn Observer,
    ) -> Result<(Experiment<'m>, LeftOut)> {
        let mut experiment = self.built(runtime, observer)?;
        experiment.set_sweep(None);
        sifted(experiment, observer)
    }

    /// The experiment, ready to generate text, with the examples that fit it.
    ///
    /// # Errors
    /// As [`Source::experiment`].
    pub fn growing(
        &self,
        runtime: &Runtime<'_>,
        observer: &dyn Observer,
    ) -> Result<(Experiment<'m>, LeftOut)> {
        let experiment = self.built(runtime, observer)?;
        let total = experiment.example_count();
        sifted_by(experiment, total, observer, Experiment::sift_growing)
    }

    /// The experiment as far as it is planned.
    ///
    /// # Errors
    /// As [`Source::experiment`].
    pub fn outline(&self, observer: &dyn Observer) -> Result<(Outline<'m>, LeftOut)> {
        let outline = self.file.outline(self.model)?;
        let total = outline.example_count();
        sifted_by(outline, total, observer, Outline::sift)
    }

    /// The experiment with all its examples.
    pub(crate) fn built(&self, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<Experiment<'m>> {
        let built = self.file.experiment_with(self.model, runtime);
        observer.finished();
        Ok(built?)
    }

    /// The name of its data set, for people.
    pub(crate) fn examples_name(&self) -> Option<String> {
        let name = Path::new(self.file.examples.as_ref()?);
        Some(name.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// The strengths that are swept, where any are.
    #[must_use]
    pub fn scales(&self) -> Option<&[f64]> {
        self.file.sweep.as_ref()?.scales.as_deref()
    }

    /// The same with the date of the work that is to be resumed: chat templates see what they saw when it began, unless
    /// the file has a date.
    pub(crate) fn at_date_of(&self, folder: &Folder) -> Result<Self> {
        let mut source = self.clone();
        if source.file.date.is_none() {
            source.file.date = folder.earlier_date()?;
        }
        Ok(source)
    }

    /// What this work is, to be compared when it is resumed. The model counts by its hash, whatever it was
    /// called, its weights by how they are kept, whoever asked for it, and the date by what templates saw of it in the
    /// experiment.
    pub(crate) fn identity(&self, experiment: &Experiment<'_>) -> Result<Identity> {
        let file = ExperimentFile { model: None, weights: None, date: None, ..self.file.clone() };
        let mut content = serde_json::to_string(&file).map_err(Error::failed)?;
        for path in file.data_files() {
            content += &cached_sha256(&path)?;
        }
        content += &self.inputs()?;
        Ok(Identity {
            file: sha256_of(content),
            model: self.model.sha256()?.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: file
                .edit
                .iter()
                .find(|edit| edit.op.name() == Some("noise"))
                .map(|edit| edit.seed.unwrap_or(0)),
            weights: self.model.footprint().chosen,
            date: experiment.seen_date(),
        })
    }

    /// What a program gives beside the file, as a text to be hashed; empty if it gives nothing.
    fn inputs(&self) -> Result<String> {
        let inputs = &self.file.inputs;
        if let Some(name) = inputs.closures.keys().next() {
            let message = format!("results of the function \"{name}\" cannot be recorded in a folder");
            return Err(Error::refused(message, "use an op that experiment files can name"));
        }
        let mut text = String::new();
        for (name, tensor) in &inputs.tensors {
            text += &format!("\n{name} {:?} {}", tensor.dims(), sha256_of(bytes(tensor)?));
        }
        // Another version of causalcone, which may write examples differently, resumes nothing anyway.
        text.extend(inputs.examples.iter().flatten().map(|example| format!("\n{example:?}")));
        Ok(text)
    }
}

/// The numbers of a tensor.
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let numbers =
        tensor.flatten_all().and_then(|flat| flat.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>());
    Ok(numbers.map_err(EngineError::from)?.into_iter().flat_map(f32::to_le_bytes).collect())
}

/// An experiment with the examples that fit it.
pub(crate) fn sifted<'m>(
    experiment: Experiment<'m>,
    observer: &dyn Observer,
) -> Result<(Experiment<'m>, LeftOut)> {
    let total = experiment.example_count();
    sifted_by(experiment, total, observer, Experiment::sift)
}

/// The same by a way of sifting, of so many examples.
fn sifted_by<E>(
    mut experiment: E,
    total: Option<usize>,
    observer: &dyn Observer,
    sift: impl Fn(&mut E) -> causalcone_engine::Result<Vec<Refused>>,
) -> Result<(E, LeftOut)> {
    let refused = match sift(&mut experiment) {
        Err(EngineError::Examples { refused, .. }) => {
            refused.iter().for_each(|one| observer.refused(one));
            return Err(Error::NoExample { refused });
        }
        other => other?,
    };
    refused.iter().for_each(|one| observer.refused(one));
    Ok((experiment, LeftOut { refused, total }))
}
