//! A model, and all that is run on it.
//!
//! Experiments come as documents, JSON in the schema of experiment files, beside what a document cannot hold: arrays
//! and functions, by name ([`Gift`](crate::arrays::Gift)). So names, checks, messages and hints are the command's.

use crate::arrays::{of_object, to_array};
use crate::error::{Failure, Result};
use crate::loaded::Loaded;
use crate::sweep::SweepResult;
use crate::trace::Trace;
use crate::watch::{Watch, watched};
use causalcone::chat::{Clock, Message};
use causalcone::generate::{Generation, Texts};
use causalcone::plan::Place;
use causalcone::train::{Fit, Score, Training};
use causalcone::{
    Collection, Cone, Executor, Explanation, LoadOptions, Memo, Precision, PreparedSweep, Progress,
    Reference, Saved, Unit,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// What was read of a run: its name, the site, the layer, the positions, the numbers.
type Found = (String, &'static str, Option<usize>, Vec<usize>, Py<PyAny>);

/// A loaded model.
#[pyclass(frozen, module = "causalcone._native")]
pub(crate) struct Model {
    /// None once it is closed; work under way keeps its own hold.
    loaded: RwLock<Option<Arc<Loaded>>>,
}

#[pymethods]
impl Model {
    /// Loads a model.
    #[staticmethod]
    #[pyo3(signature = (name, weights=None, keep=256 << 20, listener=None, options=None))]
    fn load(
        py: Python<'_>,
        name: &str,
        weights: Option<&str>,
        keep: usize,
        listener: Option<Py<PyAny>>,
        options: Option<&str>,
    ) -> PyResult<Self> {
        let weights = match weights {
            None => Precision::default(),
            Some(weights) => serde_json::from_value(Value::String(weights.into()))
                .map_err(|e| Failure::input(format!("weights: {e}"), None))?,
        };
        let keys = options.map(serde_json::from_str).transpose();
        let keys = keys.map_err(|e| Failure::input(format!("model_options: {e}"), None))?.unwrap_or_default();
        let options = LoadOptions { weights, keys, ..LoadOptions::default() };
        refuse_forks()?;
        let watch = Watch::new(listener);
        let model =
            watched(py, &watch, |report| Ok(causalcone::Model::load_with_options(name, &options, report)?))?;
        let (memo, constants) = (Mutex::new(Memo::new(keep)), Mutex::default());
        Ok(Self { loaded: RwLock::new(Some(Arc::new(Loaded { model, memo, constants }))) })
    }

    /// Frees the weights once nothing runs on them any more.
    fn close(&self) {
        self.loaded.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    #[getter]
    fn closed(&self) -> bool {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Its shape and name, as JSON.
    fn info(&self) -> PyResult<String> {
        let loaded = self.get()?;
        let (model, config) = (&loaded.model, loaded.model.config());
        let shape = json!({
            "name": model.name(), "family": config.family, "layers": config.layers, "width": config.width,
            "heads": config.heads, "kv_heads": config.kv_heads, "head_dim": config.head_dim,
            "mlp_width": config.mlp_width, "vocab": config.vocab, "context": config.context, "tied": config.tied,
            "parameters": config.parameters(), "logit_softcap": config.logit_softcap,
            "embedding_scale": config.embedding_scale, "gated": config.is_gated(),
            "keys": model.key_report(), "warning": model.key_report().warning(), "problems": model.problems(),
            "weights": model.footprint().chosen, "memory": model.footprint(),
            "has_tokenizer": model.tokenizer().is_some(), "ends": model.ends().unwrap_or_default(),
            "sites": config.sites().map(causalcone::Site::name).collect::<Vec<_>>(),
            "bos": model.tokenizer().and_then(causalcone::Tokenizer::bos),
            "eos": model.tokenizer().and_then(causalcone::Tokenizer::eos),
            "eos_ends_texts": model.eos_that_ends_nothing().is_none(),
            "adds_bos": model.tokenizer().is_some_and(causalcone::Tokenizer::adds_bos),
            "files": model.files().iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        });
        Ok(shape.to_string())
    }

    /// SHA-256 of its files.
    fn sha256(&self, py: Python<'_>) -> PyResult<String> {
        let loaded = self.get()?;
        Ok(py.detach(|| loaded.model.sha256().map(str::to_owned)).map_err(Failure::from)?)
    }

    /// The ids of a text: as a prompt, or as it stands within one.
    #[pyo3(signature = (text, prompt=true, bos=None))]
    fn encode(&self, text: &str, prompt: bool, bos: Option<bool>) -> PyResult<Vec<u32>> {
        let loaded = self.get()?;
        let model = &loaded.model;
        if prompt {
            return Ok(model.prompt(text, bos).map_err(Failure::from)?);
        }
        let Some(tokenizer) = model.tokenizer() else {
            let hint = Some("give token ids");
            return Err(Failure::input(format!("{} has no tokenizer", model.name()), hint).into());
        };
        Ok(tokenizer.encode_inside(text, model.config().context).map_err(Failure::from)?)
    }

    /// The ids of a conversation, as the model's own template writes it.
    #[pyo3(signature = (messages, generation_prompt=true, bos=None, date=None))]
    fn chat(
        &self,
        messages: &str,
        generation_prompt: bool,
        bos: Option<bool>,
        date: Option<&str>,
    ) -> PyResult<Vec<u32>> {
        let messages: Vec<Message> = serde_json::from_str(messages).map_err(Failure::from)?;
        let date = date.map(str::parse).transpose();
        let clock = Clock::new(date.map_err(|problem: String| Failure::input(problem, None))?);
        Ok(self.get()?.model.chat(&messages, generation_prompt, bos, &clock).map_err(Failure::from)?)
    }

    /// The text of tokens in a row.
    #[pyo3(signature = (ids, skip_special=false))]
    fn decode(&self, ids: Vec<u32>, skip_special: bool) -> PyResult<String> {
        let loaded = self.get()?;
        let is_special = |id: u32| loaded.model.tokenizer().is_some_and(|tokenizer| tokenizer.is_special(id));
        let ids: Vec<u32> = ids.into_iter().filter(|id| !(skip_special && is_special(*id))).collect();
        Ok(loaded.model.text(&ids))
    }

    /// The text of one token.
    fn token(&self, id: u32) -> PyResult<String> {
        Ok(self.get()?.model.token_text(id))
    }

    /// The tokens of the vocabulary as it spells them, by id; nothing without a tokenizer.
    fn pieces(&self) -> PyResult<Vec<Option<String>>> {
        let loaded = self.get()?;
        let ids = 0..u32::try_from(loaded.model.config().vocab).unwrap_or(u32::MAX);
        let of = |tokenizer: &causalcone::Tokenizer| ids.map(|id| tokenizer.piece(id)).collect();
        Ok(loaded.model.tokenizer().map_or_else(Vec::new, of))
    }

    /// The tensors of its files that the model is made of: names and shapes.
    fn tensors(&self) -> PyResult<Vec<(String, Vec<usize>)>> {
        let loaded = self.get()?;
        Ok(loaded.model.tensors().into_iter().map(|one| (one.name.clone(), one.shape.clone())).collect())
    }

    /// The id of a text that is one token.
    fn token_id(&self, text: &str) -> PyResult<u32> {
        Ok(self.get()?.model.token_id(text).map_err(Failure::from)?)
    }

    /// The word embeddings of tokens, n × d.
    fn embeddings(&self, py: Python<'_>, ids: Vec<u32>) -> PyResult<Py<PyAny>> {
        let loaded = self.get()?;
        let rows = py.detach(|| -> Result<_> {
            ids.iter().try_for_each(|id| loaded.model.check(&[*id]))?;
            Ok(loaded.model.decoder()?.token_embeddings(&ids)?)
        })?;
        Ok(to_array(py, &rows)?.into_any().unbind())
    }

    /// The logits of rows behind the last norm, n × d to n × vocab.
    fn unembed(&self, py: Python<'_>, rows: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let loaded = self.get()?;
        let rows = of_object(rows)?;
        let width = loaded.model.config().width;
        if rows.rank() != 2 || rows.dims()[1] != width {
            let message = format!("unembed: rows of shape {:?}, where n × {width} fits", rows.dims());
            return Err(Failure::input(message, None).into());
        }
        let logits = py.detach(|| loaded.model.decoder()?.unembed(&rows)).map_err(Failure::from)?;
        Ok(to_array(py, &logits)?.into_any().unbind())
    }

    /// Bytes kept of earlier experiments, and the most that may be.
    fn kept(&self) -> PyResult<(usize, usize)> {
        let loaded = self.get()?;
        let memo = loaded.memo.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((memo.bytes(), memo.limit()))
    }

    /// Keeps at most so many bytes of earlier experiments; what there is is forgotten.
    fn keep(&self, py: Python<'_>, bytes: usize) -> PyResult<()> {
        let loaded = self.get()?;
        py.detach(|| *loaded.memo.lock().unwrap_or_else(PoisonError::into_inner) = Memo::new(bytes));
        Ok(())
    }

    /// What a document's `collect` edits read, in file order, a layer each. Rows are kept for the next call.
    #[pyo3(signature = (document, arrays=None, functions=None))]
    fn collect(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Found>> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (None, &[]))?;
        let watch = written.watch.clone();
        let found = watched(py, &watch, |report| {
            let experiment = written.experiment(&loaded.model, None, report)?;
            // A function may itself run something on this model.
            Ok(if written.has_functions {
                Memo::new(0).collect(&experiment)?
            } else {
                loaded.memo.lock().unwrap_or_else(PoisonError::into_inner).collect(&experiment)?
            })
        })?;
        found.iter().map(|one| found_of(py, &one.run, &one.place, &one.tensor)).collect()
    }

    /// The same, to be differentiated with respect to the arrays named in `wanted`.
    fn trace(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        wanted: Vec<String>,
    ) -> PyResult<Trace> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, None, (None, &wanted))?;
        let watch = written.watch.clone();
        let found = watched(py, &watch, |report| {
            let experiment = written.experiment(&loaded.model, None, report)?;
            Ok(loaded.memo.lock().unwrap_or_else(PoisonError::into_inner).trace(&experiment)?)
        })?;
        Ok(Trace::new(found, written.gift))
    }

    /// A single experiment: of every run its logits at the last position, without and with the edits; what is
    /// collected; how likely answers are.
    #[pyo3(signature = (document, arrays=None, functions=None, reference=false))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        document: &str,
        arrays: Option<&Bound<'py, PyDict>>,
        functions: Option<&Bound<'py, PyDict>>,
        reference: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (None, &[]))?;
        let watch = written.watch.clone();
        let names: Vec<String> = written.file.runs.keys().cloned().collect();
        let (ids, originals, counterfactuals, collected, answers, date, warnings) =
            watched(py, &watch, |report| {
                let experiment = written.experiment(&loaded.model, None, report)?;
                let cone = Cone::default();
                let executor: &dyn Executor = if reference { &Reference } else { &cone };
                let outcome = experiment.execute_with(executor)?;
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
                let warnings: Vec<String> =
                    outcome.missing_spaces().iter().map(ToString::to_string).collect();
                Ok((ids, originals, counterfactuals, outcome.collected().to_vec(), answers, date, warnings))
            })?;
        let result = PyDict::new(py);
        let arrays = |rows: Vec<Vec<f32>>| {
            PyList::new(py, rows.into_iter().map(|row| numpy::PyArray1::from_vec(py, row)))
        };
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

    /// All cells of a sweep.
    #[pyo3(signature = (document, arrays=None, functions=None, examples=None, memory=None, verify=None, listener=None))]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the Python function")]
    fn sweep(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
        memory: Option<u64>,
        verify: Option<usize>,
        listener: Option<Py<PyAny>>,
    ) -> PyResult<SweepResult> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (listener, &[]))?;
        let watch = written.watch.clone();
        let (result, verification) = watched(py, &watch, |report| {
            let experiment = written.experiment(&loaded.model, examples.as_deref(), report)?;
            let prepared = PreparedSweep::new(&experiment)?;
            let executor = memory.map_or_else(Cone::default, |memory| Cone { memory: Some(memory) });
            let result = prepared.resume(&executor, std::collections::BTreeMap::new(), report, |_| Ok(()))?;
            // None verifies nothing, 0 all.
            let sample = verify.map(|sample| Some(sample).filter(|sample| *sample > 0));
            let verification = sample.map(|sample| prepared.verify(&result, sample, report)).transpose()?;
            Ok((result, verification))
        })?;
        let verification = verification.map(|found| json!(found).to_string());
        Ok(SweepResult::new(loaded, result, verification))
    }

    /// What an experiment will do, as JSON.
    #[pyo3(signature = (document, arrays=None, functions=None, examples=None))]
    fn explain(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
    ) -> PyResult<String> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (None, &[]))?;
        let watch = written.watch.clone();
        watched(py, &watch, |_| {
            written.add(examples.as_deref())?;
            let outline = written.file.outline(&loaded.model)?;
            Ok(json!(Explanation::of_outline(&outline, &Cone::default())?).to_string())
        })
    }

    /// How runs go on, as JSON: the texts without and with the edits.
    #[pyo3(signature = (document, arrays=None, functions=None, examples=None, listener=None))]
    fn generate(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
        listener: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (listener, &[]))?;
        let watch = written.watch.clone();
        watched(py, &watch, |report| {
            let options: Generation = written.file.generate.clone().unwrap_or_default();
            let experiment = written.experiment(&loaded.model, examples.as_deref(), report)?;
            let count = experiment.example_count().unwrap_or(1) as u64;
            let most = options.max_tokens.min(loaded.model.config().context) as u64;
            let total = most.saturating_mul(options.samples as u64).saturating_mul(2 * count);
            let mut done = 0;
            let texts = experiment.generate_with(&options, &mut |_| {
                done += 1;
                report(Progress { what: "generating", done, total, unit: Unit::Tokens })
            })?;
            Ok(texts_of(&texts).to_string())
        })
    }

    /// Collects over a data set, chunk by chunk: `sink` gets a list of (example, edit, ids, found).
    #[pyo3(signature = (document, sink, arrays=None, functions=None, examples=None, chunk=64 << 20, listener=None))]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the Python function")]
    fn gather(
        &self,
        py: Python<'_>,
        document: &str,
        sink: Py<PyAny>,
        arrays: Option<&Bound<'_, PyDict>>,
        functions: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
        chunk: u64,
        listener: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, functions, (listener, &[]))?;
        let watch = written.watch.clone();
        watched(py, &watch, |report| {
            let experiment = written.experiment(&loaded.model, examples.as_deref(), report)?;
            let collection = Collection::new(&experiment, chunk)?;
            for (index, chunk) in collection.chunks().iter().enumerate() {
                let gathered = collection.gather_with(index, &Cone::default(), "collecting", report)?;
                let (done, total) = (chunk.end as u64, collection.len() as u64);
                let flow = watch.call(|py| {
                    let mut all = Vec::new();
                    for one in &gathered {
                        let found = one.collected.iter().map(|c| found_of(py, &c.run, &c.place, &c.tensor));
                        all.push((one.example, found.collect::<PyResult<Vec<Found>>>()?));
                    }
                    sink.call1(py, (all,)).map(|_| ())
                });
                let told = report(Progress { what: "collecting", done, total, unit: Unit::Examples });
                if flow.is_break() || told.is_break() {
                    return Err(causalcone::Error::Interrupted.into());
                }
            }
            Ok(())
        })
    }

    /// Trains; gives losses and scores as JSON, and writes the fitted edits to a folder.
    #[pyo3(signature = (document, arrays=None, examples=None, folder=None, listener=None))]
    fn train(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
        folder: Option<PathBuf>,
        listener: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, None, (listener, &[]))?;
        let watch = written.watch.clone();
        watched(py, &watch, |report| {
            let mut experiment = written.experiment(&loaded.model, examples.as_deref(), report)?;
            let (options, held_out, refused) = written.file.training(&experiment)?;
            if let Some(refused) = refused.first() {
                return Err(Failure::input(format!("held out: {refused}"), refused.hint.as_deref()));
            }
            options.prepare(&mut experiment)?;
            let how = format!("{options:?}");
            let training = Training::new(&experiment, held_out, options)?;
            let trainer = training.trainer(&Cone::default())?;
            let originals = trainer.originals()?;
            let mut best: Option<(Score, Fit<'_, '_, '_>)> = None;
            let mut fits = Vec::new();
            for point in 0..training.len() {
                let mut fit = trainer.fit(point)?;
                let mut steps = Vec::new();
                while let Some(step) = fit.step()? {
                    let (done, total) = (step.step as u64, fit.total() as u64);
                    steps.push(json!(step));
                    let told = report(Progress { what: "training", done, total, unit: Unit::Steps });
                    if told.is_break() {
                        return Err(causalcone::Error::Interrupted.into());
                    }
                }
                let score = Score::mean(&fit.scores()?);
                fits.push(json!({"steps": steps, "accuracy": score.accuracy, "loss": score.loss}));
                if best.as_ref().is_none_or(|(best, _)| score.beats(best)) {
                    best = Some((score, fit));
                }
            }
            let original = Score::mean(&originals);
            let Some((_, fit)) = best else {
                return Err(Failure::input("train: there is nothing to fit", None));
            };
            let point = fit.point();
            if let Some(folder) = &folder {
                Saved::of(&fit.experiment()?, &how, &Cone::default())?.write(folder, true)?;
            }
            Ok(json!({
                "fits": fits, "best": point, "original": {"accuracy": original.accuracy, "loss": original.loss},
                "examples": training.trained(), "held_out": training.held_out(),
            })
            .to_string())
        })
    }

    /// Writes the edits of an experiment to a folder.
    #[pyo3(signature = (document, folder, how, arrays=None))]
    fn save(
        &self,
        py: Python<'_>,
        document: &str,
        folder: PathBuf,
        how: &str,
        arrays: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let loaded = self.get()?;
        let mut written = loaded.read(document, arrays, None, (None, &[]))?;
        let watch = written.watch.clone();
        watched(py, &watch, |report| {
            let experiment = written.experiment(&loaded.model, None, report)?;
            Ok(Saved::of(&experiment, how, &Cone::default())?.write(&folder, true)?)
        })
    }

    /// The edits of a folder as documents, and whether its self-test passes.
    fn saved(&self, py: Python<'_>, folder: PathBuf) -> PyResult<String> {
        let loaded = self.get()?;
        let found = py.detach(|| -> Result<Value> {
            let saved = Saved::open(&folder)?;
            let has_test = saved.description.test.is_some();
            let test = has_test.then(|| saved.test(&loaded.model, &Cone::default())).transpose()?;
            let passed = test.map(|test| test.passed());
            Ok(json!({"edit": saved.edits(), "passed": passed, "how": saved.description.made.how}))
        })?;
        Ok(found.to_string())
    }
}

impl Model {
    fn get(&self) -> Result<Arc<Loaded>> {
        refuse_forks()?;
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Failure::Closed)
    }
}

/// Refuses to work in a process that was forked from one that has: the threads that compute stayed behind there, and
/// would be waited for without an end.
fn refuse_forks() -> Result<()> {
    static FIRST: OnceLock<u32> = OnceLock::new();
    if *FIRST.get_or_init(std::process::id) == std::process::id() {
        return Ok(());
    }
    let problem = "this process was forked from one that has used causalcone, whose threads are not in it";
    Err(Failure::input(
        problem,
        Some("start processes by multiprocessing's \"spawn\", and load the model there"),
    ))
}

fn found_of(py: Python<'_>, run: &str, place: &Place, tensor: &candle_core::Tensor) -> PyResult<Found> {
    let array = to_array(py, tensor)?.into_any().unbind();
    Ok((run.to_owned(), place.site.name(), place.layer, place.positions.to_vec(), array))
}

fn texts_of(texts: &Texts) -> Value {
    let one = |text: &causalcone::generate::Continuation| {
        json!({
            "example": text.example, "scale": text.scale, "sample": text.sample, "ids": text.ids,
            "text": text.text, "logprobs": text.logprobs, "end": text.end,
        })
    };
    let all = |texts: &[_]| texts.iter().map(one).collect::<Vec<_>>();
    json!({"original": all(&texts.original), "counterfactual": all(&texts.counterfactual)})
}
