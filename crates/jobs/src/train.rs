//! Trainings: parameters fitted step by step, into a folder in which a killed training is resumed, or in memory.
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Again, Folder, Results, Silent, Source, train};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! # let place = tempfile::tempdir()?;
//! let model = Model::load(path)?;
//! let mut file = ExperimentFile::from_toml("
//!     [[edit]]
//!     run = 'base'
//!     name = 'das'
//!     site = 'block_output'
//!     layers = 0
//!     positions = 'last'
//!     op = 'low_rank_swap'
//!     value = { run = 'source' }
//!     parameters = { random = 0, rank = 2 }
//!     [train]
//!     steps = 5
//! ")?;
//! let example = |base: [u32; 3], source: [u32; 3], label: u32| {
//!     Example::new().prompt("base", base.to_vec()).prompt("source", source.to_vec()).label(label)
//! };
//! file.inputs.examples = Some(vec![example([3, 1, 4], [2, 7, 1], 5), example([1, 6, 2], [1, 8, 2], 9)]);
//! let folder = Folder::claim(&place.path().join("out"), Results::Training, Again::Refuse)?;
//! let (source, options) = (Source::new(&model, file), train::Options::default());
//! let trained = train::run(&source, &folder, &options, &Runtime::default(), &Silent)?;
//! assert_eq!((trained.summary.fits, trained.summary.steps), (1, 5));
//! assert!(folder.file("intervention").is_dir() && folder.file("loss.svg").exists());
//!
//! let in_memory = train::fit(&source, None, &options, &Runtime::default(), &Silent)?;
//! assert_eq!(in_memory.scores, trained.fitted.scores);
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::figure::heat_map;
use crate::fitting::{Fitting, Logged, best_of, place};
use crate::folder::Folder;
use crate::observer::Observer;
use crate::record::Ran;
use crate::results::{INTERVENTION, Results};
use crate::source::{LeftOut, Source, sifted};
use crate::tidy::{means_table, table};
use crate::title::titled;
use causalcone_engine::schema::TrainFile;
use causalcone_engine::train::{Fit, HeldOut, Options as TrainOptions, Score, Step, Training};
use causalcone_engine::{Experiment, Refused, Runtime, Saved};
use causalcone_files::IfExists;
use causalcone_report::{Chart, ColumnOf, Format, HeatMap, Panel, Series, Span, Table};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// Updates between two checkpoints where the file does not say.
const CHECKPOINT_EVERY: usize = 50;

/// How a training is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The format of the tables.
    pub format: Format,
    /// How the intervention was made, for people; the options of the training if left out.
    pub how: Option<String>,
    /// Whether examples that do not fit are left out; otherwise the training is refused for the first of them.
    pub skips_examples: bool,
}

impl Default for Options {
    /// Tables in CSV, without the examples that do not fit.
    fn default() -> Self {
        Self { format: Format::default(), how: None, skips_examples: true }
    }
}

/// Seconds each part took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Seconds {
    /// Loading the model.
    pub load: f64,
    /// Unedited rows, and what the objective compares with.
    pub prepare: f64,
    /// All steps.
    pub train: f64,
}

/// What was found of the examples that judge a training.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Judged {
    /// How many there are.
    pub examples: usize,
    /// Whether they were held out.
    pub held_out: bool,
    /// Without edits.
    pub original: Score,
    /// With what was learned, in the best of all fits.
    pub trained: Score,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The model, as it was loaded.
    pub model: String,
    /// The folder.
    pub out: String,
    /// How many fits there are.
    pub fits: usize,
    /// Which fit is best.
    pub best: usize,
    /// Updates made now.
    pub steps: usize,
    /// Updates that were there before.
    pub resumed: usize,
    /// How many examples are trained on.
    pub examples: usize,
    /// How well it generalises.
    pub judged: Judged,
    /// The files that were written.
    pub files: Vec<String>,
    /// How long it took.
    pub seconds: Seconds,
    /// The examples left out; a list wherever there is a data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Refused>>,
}

/// All fits of a training.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The steps of all fits.
    pub steps: Vec<Logged>,
    /// By fit, the scores of the examples that judge it.
    pub scores: Vec<Vec<Score>>,
    /// The same without edits.
    pub originals: Vec<Score>,
    /// Which fit is best: that of the highest accuracy, and of several that of the lowest loss.
    pub best: usize,
    /// How many examples are trained on.
    pub examples: usize,
    /// How many are held out.
    pub held_out: usize,
}

/// A finished training in a folder.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: Summary,
    /// Its fits.
    pub fitted: Fitted,
    /// The heat map of the scores, where there are several fits.
    pub map: Option<HeatMap>,
    /// The examples that were left out.
    pub left_out: LeftOut,
}

/// `train.json`.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    ran: Ran<'a>,
    options: String,
    fits: usize,
    best: usize,
    examples: usize,
    judged: Judged,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// A training as its file asks for it.
struct Asked<'m> {
    experiment: Experiment<'m>,
    held_out: HeldOut,
    options: TrainOptions,
    left_out: LeftOut,
}

impl<'m> Asked<'m> {
    fn new(
        source: &Source<'m>,
        options: &Options,
        runtime: &Runtime<'_>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let mut experiment = source.built(runtime, observer)?;
        let (train, held_out, refused) = source.file.training(&experiment)?;
        if let (false, Some(first)) = (options.skips_examples, refused.first()) {
            return Err(Error::Refused { message: format!("held out: {first}"), hint: first.hint.clone() });
        }
        train.prepare(&mut experiment)?;
        let (experiment, mut left_out) = if options.skips_examples {
            sifted(experiment, observer)?
        } else {
            let total = experiment.example_count();
            (experiment, LeftOut { refused: Vec::new(), total })
        };
        left_out.add(refused, observer);
        Ok(Self { experiment, held_out, options: train, left_out })
    }
}

/// Trains in memory. What the best fit has learned goes to the folder `intervention`, if one is named, which then holds
/// nothing else.
///
/// # Errors
/// When the experiment is refused, the work fails, or the caller asks to stop.
pub fn fit(
    source: &Source<'_>,
    intervention: Option<&Path>,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Fitted> {
    let asked = Asked::new(source, options, runtime, observer)?;
    let mut trained = in_memory(&asked.experiment, asked.held_out, asked.options, runtime, observer)?;
    if let Some(folder) = intervention {
        trained.how = options.how.clone().unwrap_or(trained.how);
        trained.best_with(runtime)?.write(folder, IfExists::Replace)?;
    }
    Ok(trained.fitted)
}

/// Trains the edits of an experiment, in memory.
pub(crate) fn in_memory<'m>(
    experiment: &Experiment<'m>,
    held_out: HeldOut,
    options: TrainOptions,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Trained<'m>> {
    let how = format!("{options:?}");
    let training = Training::new(experiment, held_out, options)?;
    let trainer = training.trainer(runtime)?;
    let originals = trainer.originals()?;
    let mut fitting = Fitting::new(&training, &trainer);
    fitting.run(runtime, observer)?;
    let fitted = Fitted::of(&fitting, originals)?;
    let best = match fitting.best().map(Fit::experiment) {
        Some(Ok(experiment)) => Ok(experiment),
        // The training itself succeeded: its scores and steps are useful without an experiment.
        Some(Err(e)) if e.is_bad_input() => Err((e.to_string(), e.hint())),
        Some(Err(e)) => return Err(e.into()),
        None => Err(("train: no fit has a score".into(), None)),
    };
    Ok(Trained { fitted, best, how })
}

/// A finished training in memory.
#[derive(Debug, Clone)]
pub struct Trained<'m> {
    /// All fits, with their steps and scores.
    pub fitted: Fitted,
    /// The experiment with the parameters of the best fit, or the message and hint of why there is none.
    best: std::result::Result<Experiment<'m>, (String, Option<String>)>,
    /// How it was made, for people.
    how: String,
}

impl<'m> Trained<'m> {
    /// The experiment with the parameters that the best fit has learned, without a sweep.
    ///
    /// # Errors
    /// When the training searched positions, and the lists of positions differ between examples: no single edit has the
    /// best position.
    pub fn experiment(&self) -> Result<&Experiment<'m>> {
        let refused = |(message, hint): &(String, Option<String>)| Error::Refused {
            message: message.clone(),
            hint: hint.clone(),
        };
        self.best.as_ref().map_err(refused)
    }

    /// The edits with the parameters that the best fit has learned, ready to save.
    ///
    /// # Errors
    /// As [`Trained::experiment`]; when an edit is a closure, or the self-test of the saved edits cannot be computed.
    pub fn best(&self) -> Result<Saved> {
        self.best_with(&Runtime::default())
    }

    /// [`Trained::best`], computing the self-test with a runtime.
    ///
    /// # Errors
    /// As [`Trained::best`].
    pub fn best_with(&self, runtime: &Runtime<'_>) -> Result<Saved> {
        Ok(Saved::of(self.experiment()?, &self.how, runtime)?)
    }
}

impl Fitted {
    fn of(fitting: &Fitting<'_, '_>, originals: Vec<Score>) -> Result<Self> {
        let (training, scores) = (fitting.training, fitting.scores());
        if scores.is_empty() {
            return Err(Error::Refused { message: "train: there is nothing to fit".into(), hint: None });
        }
        let best = best_of(&scores).unwrap_or(0);
        let (examples, held_out) = (training.trained(), training.held_out());
        Ok(Self { steps: fitting.log.clone(), scores, originals, best, examples, held_out })
    }

    fn judged(&self) -> Judged {
        Judged {
            examples: self.originals.len(),
            held_out: self.held_out > 0,
            original: Score::mean(&self.originals),
            trained: Score::mean(&self.scores[self.best]),
        }
    }

    /// What the examples that judge it are called.
    #[must_use]
    pub fn judges(&self) -> &'static str {
        if self.held_out > 0 { "examples held out" } else { "examples" }
    }
}

/// Trains in a folder that was claimed for it.
///
/// # Errors
/// When the experiment or the folder is refused, the work fails, or the caller asks to stop; the steps that were made are
/// then in the folder.
pub fn run(
    source: &Source<'_>,
    folder: &Folder,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    folder.must_be_for(Results::Training)?;
    let source = source.at_date_of(folder)?;
    let started = Instant::now();
    let Asked { experiment, held_out, options: train, left_out } =
        Asked::new(&source, options, runtime, observer)?;
    let every = source.file.train.as_ref().map(TrainFile::checkpoint_every).transpose()?;
    let every = every.flatten().unwrap_or(CHECKPOINT_EVERY);
    let train_options = format!("{train:?}");
    let how = options.how.as_deref().unwrap_or(&train_options);
    let training = Training::new(&experiment, held_out, train)?;
    let trainer = training.trainer(runtime)?;
    let originals = trainer.originals()?;
    let identity = source.identity(&experiment)?;
    let prepare = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let mut fitting =
        Fitting::new(&training, &trainer).in_folder(folder, &identity, (every, how), observer)?;
    let resumed = fitting.log.len();
    fitting.run(runtime, observer)?;
    let train = started.elapsed().as_secs_f64();
    let seconds = Seconds { load: source.load_seconds, prepare, train };

    let fitted = Fitted::of(&fitting, originals)?;
    let judged = fitted.judged();
    let (mut files, map) = write_results(&source, folder, (&training, &fitted), options.format, observer)?;
    let record = Record {
        ran: Ran::new(&source, Some(&identity))?,
        options: train_options.clone(),
        fits: training.len(),
        best: fitted.best,
        examples: training.trained(),
        judged,
        seconds,
        errors: left_out.errors(),
    };
    let has_intervention = place(folder)?;
    folder.write_json(Results::Training.last(), &record)?;
    files.extend(has_intervention.then(|| INTERVENTION.into()));
    files.push(Results::Training.last().into());
    let summary = Summary {
        model: source.model.name().into(),
        out: folder.shown(""),
        fits: training.len(),
        best: fitted.best,
        steps: fitted.steps.len() - resumed,
        resumed,
        examples: training.trained(),
        judged,
        files: files.iter().map(|name| folder.shown(name)).collect(),
        seconds,
        errors: left_out.errors(),
    };
    Ok(Outcome { summary, fitted, map, left_out })
}

/// Writes tables and figures; returns the names of their files, and the heat map where there are several fits.
fn write_results(
    source: &Source<'_>,
    folder: &Folder,
    (training, fitted): (&Training<'_>, &Fitted),
    format: Format,
    observer: &dyn Observer,
) -> Result<(Vec<String>, Option<HeatMap>)> {
    let result = training.results(&fitted.scores, &fitted.originals)?;
    let model = source.model;
    let tables = [
        ("log", log_table(&fitted.steps)),
        ("cells", table(&result, model)),
        ("means", means_table(&result, model)),
    ];
    let mut files = Vec::new();
    for (name, table) in tables {
        let name = format!("{name}.{}", format.name());
        folder.write(&name, |w| table.write(format, w))?;
        files.push(name);
    }
    // One fit is one number.
    let map = (training.len() > 1).then(|| {
        let (examples, judges) = (fitted.originals.len(), fitted.judges());
        let subtitle = format!("{}: mean of {examples} {judges}, after training", model.name());
        let map = titled(heat_map(&result, model, ""), source, Some(examples));
        HeatMap { subtitle: Some(subtitle), ..map }
    });
    if let Some(map) = &map {
        files.extend(folder.draw("heatmap", map.to_svg(), observer)?);
    }
    let chart = losses(training, fitted, model.name());
    files.extend(folder.draw("loss", chart.to_svg(), observer)?);
    Ok((files, map))
}

/// The steps as a table.
fn log_table(steps: &[Logged]) -> Table {
    let columns = vec![
        ColumnOf::integer("fit", |logged: &&Logged| Some(logged.fit)),
        ColumnOf::integer("step", |logged: &&Logged| Some(logged.step.step)),
        ColumnOf::integer("epoch", |logged: &&Logged| Some(logged.step.epoch)),
        ColumnOf::number("loss", |logged: &&Logged| Some(logged.step.loss)),
        ColumnOf::number("accuracy", |logged: &&Logged| Some(logged.step.accuracy)),
        ColumnOf::number("penalty", |logged: &&Logged| Some(logged.step.penalty)),
        ColumnOf::number("learning_rate", |logged: &&Logged| Some(logged.step.learning_rate)),
        ColumnOf::number("temperature", |logged: &&Logged| logged.step.temperature),
        ColumnOf::number("judged_loss", |logged: &&Logged| logged.step.evaluation.map(|found| found.loss)),
        ColumnOf::number("judged_accuracy", |logged: &&Logged| {
            logged.step.evaluation.map(|found| found.accuracy)
        }),
    ];
    Table::of(columns, steps)
}

/// The losses and accuracies of the best fit, step by step.
fn losses(training: &Training<'_>, fitted: &Fitted, model: &str) -> Chart {
    let of_best = fitted.steps.iter().filter(|logged| logged.fit == fitted.best);
    let steps: Vec<&Step> = of_best.map(|logged| &logged.step).collect();
    let of = |f: fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        steps.iter().filter_map(|step| Some((step.step as f64, f(step)?))).collect()
    };
    let judged = if fitted.held_out > 0 { "held out" } else { "all" };
    let panel = |label: &str, batch: fn(&Step) -> Option<f64>, all: fn(&Step) -> Option<f64>| Panel {
        y_label: label.into(),
        span: Span::FromZero,
        series: vec![
            Series { name: "batch".into(), points: of(batch) },
            Series { name: judged.into(), points: of(all) },
        ],
    };
    Chart {
        title: format!("training on {} examples", fitted.examples),
        subtitle: Some(match training.len() {
            1 => model.into(),
            fits => format!("{model}, the best of {fits} fits"),
        }),
        x_label: "step".into(),
        panels: vec![
            panel("loss", |step| Some(step.loss), |step| step.evaluation.map(|found| found.loss)),
            panel("accuracy", |step| Some(step.accuracy), |step| step.evaluation.map(|found| found.accuracy)),
        ],
    }
}
