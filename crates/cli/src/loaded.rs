//! An experiment file that was read, and the model that was loaded for it.

use crate::args::FileArgs;
use crate::failure::Failure;
use crate::options::DEFAULT_MODEL;
use crate::options::Weights;
use crate::terminal::Terminal;
use causalcone::jobs::Source;
use causalcone::{ExperimentFile, LoadOptions, Model};
use std::time::Instant;

/// An experiment file and the model it is for.
pub(crate) struct Loaded {
    pub(crate) file: ExperimentFile,
    pub(crate) model: Model,
    /// How many seconds it took to read both.
    pub(crate) load_seconds: f64,
}

impl Loaded {
    /// Reads the file first, so that its mistakes are told before a model is fetched for it.
    pub(crate) fn new(args: &FileArgs, terminal: &Terminal) -> Result<Self, Failure> {
        Self::with(args, |name, options| terminal.load_with(name, options))
    }

    /// The same, its weights not read until something is computed with them.
    pub(crate) fn open(args: &FileArgs, terminal: &Terminal) -> Result<Self, Failure> {
        Self::with(args, |name, options| terminal.open_with(name, options))
    }

    fn with(
        args: &FileArgs,
        load: impl FnOnce(&str, LoadOptions) -> Result<Model, Failure>,
    ) -> Result<Self, Failure> {
        let started = Instant::now();
        let (file, model) = (ExperimentFile::load(&args.file)?, args.model.as_deref());
        if model.is_none() && file.model.is_none() {
            return Err(Failure::input(format!(
                "{}: names no model: add model = \"smollm2\" or give -m",
                args.file.display()
            )));
        }
        let loaded = Self::of(file, model, args.weights, load)?;
        Ok(Self { load_seconds: started.elapsed().as_secs_f64(), ..loaded })
    }

    /// The same, for the library.
    pub(crate) fn source(&self) -> Source<'_> {
        Source { model: &self.model, file: self.file.clone(), load_seconds: self.load_seconds }
    }

    /// Of a file as it was read.
    pub(crate) fn of(
        mut file: ExperimentFile,
        model: Option<&str>,
        weights: Weights,
        load: impl FnOnce(&str, LoadOptions) -> Result<Model, Failure>,
    ) -> Result<Self, Failure> {
        file.weights = weights.given().or(file.weights);
        if let Some(model) = model {
            file.model = Some(model.to_owned());
        }
        let name = file.model.get_or_insert_with(|| DEFAULT_MODEL.into()).clone();
        // An alias is no path, but a path may be relative to the file that names it.
        let path = file.data_path(&name);
        let name = if model.is_none() && path.exists() { path.to_string_lossy().into_owned() } else { name };
        let options = LoadOptions {
            weights: file.weights.unwrap_or_default(),
            keys: file.model_options.clone().unwrap_or_default(),
            ..LoadOptions::default()
        };
        let started = Instant::now();
        let model = load(&name, options)?;
        Ok(Self { file, model, load_seconds: started.elapsed().as_secs_f64() })
    }
}
