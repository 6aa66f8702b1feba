//! Sweeps: every cell, a table, a heat map, and a record of what ran.
//!
//! ```
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Again, Folder, Results, Silent, Source, sweep};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! # let place = tempfile::tempdir()?;
//! let model = Model::load(path)?;
//! let file = ExperimentFile::from_toml("
//!     [runs.base]
//!     ids = [3, 1, 4]
//!     [[edit]]
//!     site = 'mlp_output'
//!     layers = 'all'
//!     op = 'zero'
//!     [read]
//!     tokens = [7]
//!     [sweep]
//!     layers = 'each'
//!     positions = 'each'
//! ")?;
//! let folder = Folder::claim(&place.path().join("out"), Results::Sweep, Again::Refuse)?;
//! let options = sweep::Options::default();
//! let swept = sweep::run(&Source::new(&model, file), &folder, &options, &Runtime::default(), &Silent)?;
//! assert_eq!(swept.summary.cells, 3 * model.config().layers);
//! assert!(folder.file("cells.csv").exists() && folder.file("heatmap.png").exists());
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::figure::heat_map;
use crate::folder::Folder;
use crate::observer::Observer;
use crate::record::{Ran, Warning};
use crate::results::Results;
use crate::source::{LeftOut, Source};
use crate::tidy::{means_table, table};
use crate::title::titled;
use causalcone_engine::cone::Work;
use causalcone_engine::{Agreement, Explanation, PreparedSweep, Refused, Runtime, SweepResult, Verification};
use causalcone_report::{Format, HeatMap};
use serde::Serialize;
use std::time::Instant;

/// How a sweep is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The format of the tables.
    pub format: Format,
    /// Which cells are computed again by the reference executor and compared.
    pub verify: Option<Verify>,
}

/// Which cells are computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// All.
    All,
    /// So many, spread over the sweep.
    Sample(usize),
}

/// Seconds each part took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Seconds {
    /// Loading the model.
    pub load: f64,
    /// Everything after loading until the table is written.
    pub sweep: f64,
    /// Drawing and writing the heat map.
    pub figure: f64,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The model, as it was loaded.
    pub model: String,
    /// The folder.
    pub out: String,
    /// How many cells there are.
    pub cells: usize,
    /// How many of these were there before.
    pub resumed: usize,
    /// How well estimates agree with the exact numbers; empty where there are not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agreement: Vec<Agreement>,
    /// The files that were written.
    pub files: Vec<String>,
    /// How long it took.
    pub seconds: Seconds,
    /// What the reference executor said, where it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
    /// The examples left out; a list wherever there is a data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Refused>>,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// A finished sweep.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: Summary,
    /// Its numbers.
    pub result: SweepResult,
    /// The heat map that was drawn.
    pub map: HeatMap,
    /// The examples that were left out.
    pub left_out: LeftOut,
}

/// `experiment.json`.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    ran: Ran<'a>,
    plan: &'a Explanation,
    /// What was then really done, which is less where cells came from a journal.
    done: Work,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<&'a Verification>,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// A finished sweep in memory.
#[derive(Debug)]
pub struct Computed {
    /// Its numbers.
    pub result: SweepResult,
    /// The heat map.
    pub map: HeatMap,
    /// The examples that were left out.
    pub left_out: LeftOut,
    /// Tokens that probably lack a leading space.
    pub warnings: Vec<Warning>,
}

/// Runs a sweep in memory.
///
/// # Errors
/// When the experiment is refused, the work fails, or the caller asks to stop.
pub fn in_memory(source: &Source<'_>, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<Computed> {
    let (experiment, left_out) = source.experiment(runtime, observer)?;
    let result = PreparedSweep::new(&experiment)?.run(runtime);
    observer.finished();
    let mut result = result?;
    let missing = std::mem::take(&mut result.missing_spaces);
    observer.missing_spaces(&missing);
    let map = titled(heat_map(&result, source.model, ""), source, experiment.example_count());
    Ok(Computed { result, map, left_out, warnings: missing.into_iter().map(Warning::from).collect() })
}

/// Runs a sweep into a folder that was claimed for one.
///
/// # Errors
/// When the experiment or the folder is refused, the work fails, numbers are not the reference executor's, or the caller
/// asks to stop; finished cells are then in the folder.
pub fn run(
    source: &Source<'_>,
    folder: &Folder,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    folder.must_be_for(Results::Sweep)?;
    let source = source.at_date_of(folder)?;
    let started = Instant::now();
    let (experiment, left_out) = source.experiment(runtime, observer)?;
    let prepared = PreparedSweep::new(&experiment)?;
    let plan = Explanation::of_sweep(&experiment, &prepared, runtime)?;
    let identity = source.identity(&experiment)?;
    let cells = prepared.cells();
    let (mut journal, done) = folder.journal(&identity, (cells, prepared.columns().len()), observer)?;
    let resumed = done.len();
    let result = prepared.resume(runtime, done, |finished| journal.append(finished.iter().cloned()));
    observer.finished();
    let mut result = result.map_err(|e| Error::keeping(e, "; finished cells are in the journal"))?;

    let missing = std::mem::take(&mut result.missing_spaces);
    observer.missing_spaces(&missing);
    let tables = write_tables(&source, folder, options.format, &result)?;
    let sweep = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let map = titled(heat_map(&result, source.model, ""), &source, experiment.example_count());
    let figures = folder.draw("heatmap", map.to_svg(), observer)?;
    let seconds = Seconds { load: source.load_seconds, sweep, figure: started.elapsed().as_secs_f64() };

    let verified = match options.verify {
        Some(verify) => Some(verified(&prepared, &result, verify, runtime, observer)?),
        None => None,
    };
    let record = Record {
        ran: Ran::new(&source, Some(&identity))?,
        plan: &plan,
        done: result.work,
        verified: verified.as_ref(),
        seconds,
        errors: left_out.errors(),
    };
    folder.write_json(Results::Sweep.last(), &record)?;
    let names = tables.iter().chain(&figures).map(String::as_str).chain([Results::Sweep.last()]);
    let summary = Summary {
        model: source.model.name().into(),
        out: folder.shown(""),
        cells,
        resumed,
        agreement: result.agreement(),
        files: names.map(|name| folder.shown(name)).collect(),
        seconds,
        verified,
        errors: left_out.errors(),
        warnings: missing.into_iter().map(Warning::from).collect(),
    };
    Ok(Outcome { summary, result, map, left_out })
}

/// Writes the table of cells, and that of means where there are some; returns their names.
fn write_tables(
    source: &Source<'_>,
    folder: &Folder,
    format: Format,
    result: &SweepResult,
) -> Result<Vec<String>> {
    let name = format!("cells.{}", format.name());
    let cells = table(result, source.model);
    folder.write(&name, |w| cells.write(format, w))?;
    let mut names = vec![name];
    if result.has_means() {
        let name = format!("means.{}", format.name());
        let means = means_table(result, source.model);
        folder.write(&name, |w| means.write(format, w))?;
        names.push(name);
    }
    Ok(names)
}

/// Compares cells with the reference executor; the results stay whatever it finds.
fn verified(
    prepared: &PreparedSweep<'_>,
    result: &SweepResult,
    verify: Verify,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Verification> {
    let sample = match verify {
        Verify::All => None,
        Verify::Sample(count) => Some(count),
    };
    let verification = prepared.verify(result, sample, runtime.progress);
    observer.finished();
    let verification = verification?;
    let Some(first) = verification.wrong.first() else { return Ok(verification) };
    let number = |x: Option<f64>| x.map_or_else(|| "nothing finite".into(), |x| x.to_string());
    let token = first.token.map(|id| format!(" of token {id}")).unwrap_or_default();
    let (wrong, numbers, cell, metric) =
        (verification.wrong.len(), verification.numbers, first.cell, first.metric);
    let message = format!(
        "{wrong} of {numbers} numbers are not the reference executor's; the first is {metric}{token} in cell {cell}: {} in place of {}",
        number(first.value),
        number(first.reference)
    );
    let hint = "this is a defect of causalcone: please report it with the experiment file";
    Err(Error::Failed { message, hint: Some(hint.into()) })
}
