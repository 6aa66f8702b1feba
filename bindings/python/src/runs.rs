//! Documents run on a model: what comes of them, as Python objects or JSON.

use crate::arrays::to_array;
use crate::loaded::{Loaded, Written};
use crate::watch::watched;
use causalcone::Place;
use causalcone::generate::{Continuation, Generation, Texts};
use causalcone::jobs::train::{self, Fitted};
use causalcone::jobs::{Again, Folder, Results, Silent, Source};
use causalcone::train::Score;
use causalcone::{Collection, EngineError, ExecutorKind, Memo, Progress, Runtime, Unit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::PoisonError;

/// What was read of a run: its name, the site, the layer, the positions, the numbers.
pub(crate) type Found = (String, &'static str, Option<usize>, Vec<usize>, Py<PyAny>);

/// What `collect` edits read. Rows are kept for the next call.
pub(crate) fn collect(py: Python<'_>, loaded: &Loaded, mut written: Written) -> PyResult<Vec<Found>> {
    let watch = written.watch.clone();
    let found = watched(py, &watch, |runtime| {
        let experiment = written.experiment(&loaded.model, None, runtime)?;
        // A function may itself run something on this model.
        Ok(if written.has_functions {
            Memo::new(0).collect(&experiment, runtime)?
        } else {
            loaded.memo.lock().unwrap_or_else(PoisonError::into_inner).collect(&experiment, runtime)?
        })
    })?;
    found.iter().map(|one| found_of(py, &one.run, &one.place, &one.tensor)).collect()
}

/// A single experiment: its logits, what is collected, how likely answers are.
pub(crate) fn run<'py>(
    py: Python<'py>,
    loaded: &Loaded,
    mut written: Written,
    reference: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let watch = written.watch.clone();
    let names: Vec<String> = written.file.runs.keys().cloned().collect();
    let (ids, originals, counterfactuals, collected, answers, date, warnings) =
        watched(py, &watch, |runtime| {
            let experiment = written.experiment(&loaded.model, None, runtime)?;
            let executor = if reference { ExecutorKind::Reference } else { ExecutorKind::Cone };
            let outcome = experiment.execute_with(&Runtime { executor, ..*runtime })?;
            let (mut ids, mut originals, mut counterfactuals) = (Vec::new(), Vec::new(), Vec::new());
            for name in &names {
                let run = experiment.find_run(name, "run")?;
                ids.push(experiment.ids(run).to_vec());
                originals.push(outcome.original(run).distribution.logits().to_vec());
                counterfactuals.push(outcome.counterfactual(run).distribution.logits().to_vec());
            }
            let answers: Vec<_> = outcome
                .answers()
                .iter()
                .map(|said| (said.ids.to_vec(), said.original, said.counterfactual))
                .collect();
            let date = experiment.seen_date().map(|date| date.to_string());
            let warnings: Vec<String> = outcome.missing_spaces().iter().map(ToString::to_string).collect();
            Ok((ids, originals, counterfactuals, outcome.collected().to_vec(), answers, date, warnings))
        })?;
    let result = PyDict::new(py);
    let arrays =
        |rows: Vec<Vec<f32>>| PyList::new(py, rows.into_iter().map(|row| numpy::PyArray1::from_vec(py, row)));
    result.set_item("runs", names)?;
    result.set_item("ids", ids)?;
    result.set_item("originals", arrays(originals)?)?;
    result.set_item("counterfactuals", arrays(counterfactuals)?)?;
    let found = collected.iter().map(|one| found_of(py, &one.run, &one.place, &one.tensor));
    result.set_item("collected", found.collect::<PyResult<Vec<Found>>>()?)?;
    result.set_item("answers", answers)?;
    result.set_item("date", date)?;
    result.set_item("warnings", warnings)?;
    Ok(result)
}

/// How runs go on, as JSON.
pub(crate) fn generate(
    py: Python<'_>,
    loaded: &Loaded,
    mut written: Written,
    examples: Option<&[String]>,
) -> PyResult<String> {
    let watch = written.watch.clone();
    watched(py, &watch, |runtime| {
        let options: Generation = written.file.generate.clone().unwrap_or_default();
        let experiment = written.experiment(&loaded.model, examples, runtime)?;
        let count = experiment.example_count().unwrap_or(1) as u64;
        let most = options.max_tokens.min(loaded.model.config().context) as u64;
        let total = most.saturating_mul(options.samples as u64).saturating_mul(2 * count);
        let mut done = 0;
        let texts = experiment.generate_with(&options, runtime, &mut |_| {
            done += 1;
            (runtime.progress)(Progress { what: "generating", done, total, unit: Unit::Tokens })
        })?;
        Ok(texts_of(&texts).to_string())
    })
}

/// Collects over a data set; `sink` gets it chunk by chunk.
pub(crate) fn gather(
    py: Python<'_>,
    loaded: &Loaded,
    mut written: Written,
    examples: Option<&[String]>,
    sink: &Py<PyAny>,
    chunk: u64,
) -> PyResult<()> {
    let watch = written.watch.clone();
    watched(py, &watch, |runtime| {
        let experiment = written.experiment(&loaded.model, examples, runtime)?;
        let collection = Collection::new(&experiment, chunk)?;
        for (index, chunk) in collection.chunks().iter().enumerate() {
            let gathered = collection.gather(index, runtime)?;
            let (done, total) = (chunk.end as u64, collection.len() as u64);
            let flow = watch.call(|py| {
                let mut all = Vec::new();
                for one in &gathered {
                    let found = one.collected.iter().map(|c| found_of(py, &c.run, &c.place, &c.tensor));
                    all.push((one.example, found.collect::<PyResult<Vec<Found>>>()?));
                }
                sink.call1(py, (all,)).map(|_| ())
            });
            let told = (runtime.progress)(Progress { what: "collecting", done, total, unit: Unit::Examples });
            if flow.is_break() || told.is_break() {
                return Err(EngineError::Interrupted.into());
            }
        }
        Ok(())
    })
}

/// Where a training leaves what it makes.
pub(crate) enum Destination {
    /// What was learned goes to this folder, if to any.
    Intervention(Option<PathBuf>),
    /// All results go to a folder, in which a training that was interrupted is resumed.
    Results {
        /// The folder.
        out: PathBuf,
        /// Whether it holds a training to be resumed.
        resume: bool,
    },
}

/// Trains; gives losses and scores as JSON.
pub(crate) fn train(
    py: Python<'_>,
    loaded: &Loaded,
    mut written: Written,
    examples: Option<&[String]>,
    destination: &Destination,
) -> PyResult<String> {
    let watch = written.watch.clone();
    watched(py, &watch, |runtime| {
        written.add(examples)?;
        let source = Source::new(&loaded.model, written.file);
        let options = train::Options { skips_examples: false, ..train::Options::default() };
        let fitted = match destination {
            Destination::Intervention(folder) => {
                train::fit(&source, folder.as_deref(), &options, runtime, &Silent)?
            }
            Destination::Results { out, resume } => {
                let again = if *resume { Again::Resume } else { Again::Refuse };
                let folder = Folder::claim(out, Results::Training, again)?;
                train::run(&source, &folder, &options, runtime, &Silent)?.fitted
            }
        };
        Ok(json_of(&fitted).to_string())
    })
}

fn json_of(fitted: &Fitted) -> Value {
    let mut fits: Vec<Value> = Vec::new();
    for (fit, scores) in fitted.scores.iter().enumerate() {
        let steps = fitted.steps.iter().filter(|logged| logged.fit == fit);
        let (steps, score) =
            (steps.map(|logged| json!(logged.step)).collect::<Vec<_>>(), Score::mean(scores));
        fits.push(json!({"steps": steps, "accuracy": score.accuracy, "loss": score.loss}));
    }
    json!({
        "fits": fits, "best": fitted.best, "original": Score::mean(&fitted.originals),
        "examples": fitted.examples, "held_out": fitted.held_out,
    })
}

fn found_of(py: Python<'_>, run: &str, place: &Place, tensor: &candle_core::Tensor) -> PyResult<Found> {
    let array = to_array(py, tensor)?.into_any().unbind();
    Ok((run.to_owned(), place.site.name(), place.layer, place.positions.to_vec(), array))
}

fn texts_of(texts: &Texts) -> Value {
    let one = |text: &Continuation| {
        json!({
            "example": text.example, "scale": text.scale, "sample": text.sample, "ids": text.ids,
            "text": text.text, "logprobs": text.logprobs, "end": text.end,
        })
    };
    let all = |texts: &[_]| texts.iter().map(one).collect::<Vec<_>>();
    json!({"original": all(&texts.original), "counterfactual": all(&texts.counterfactual)})
}
