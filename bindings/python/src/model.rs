//! A model, and all that is run on it.
//!
//! Experiments come as documents, JSON in the schema of experiment files, beside what a document cannot hold: arrays
//! and functions, by name ([`CallInputs`](crate::arrays::CallInputs)). So names, checks, messages and hints are the command's.

use crate::arrays::{of_object, to_array};
use crate::error::{Failure, Result};
use crate::loaded::Loaded;
use crate::runs::{self, Destination, Found};
use crate::sweep::SweepResult;
use crate::trace::Trace;
use crate::watch::{Watch, watched};
use causalcone::chat::{Clock, Message};
use causalcone::files::IfExists;
use causalcone::{Explanation, LoadOptions, Memo, Precision, PreparedSweep, Runtime, Saved};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

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
        let model = watched(py, &watch, |runtime| {
            Ok(causalcone::Model::load_with_options(name, &options, runtime.progress)?)
        })?;
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
            "normed_after": config.block.is_normed_after(causalcone::Site::AttentionOutput),
            "keys": model.key_report(), "warning": model.key_report().warning(), "problems": model.problems(),
            "weights": model.footprint().chosen, "memory": model.footprint(),
            "has_tokenizer": model.tokenizer().is_some(), "ends": model.eos_ids().unwrap_or_default(),
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
        let written = loaded.read(document, arrays, functions, (None, &[]))?;
        runs::collect(py, &loaded, written)
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
        let found = watched(py, &watch, |runtime| {
            let experiment = written.experiment(&loaded.model, None, runtime)?;
            Ok(loaded.memo.lock().unwrap_or_else(PoisonError::into_inner).trace(&experiment, runtime)?)
        })?;
        Ok(Trace::new(found, written.inputs))
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
        let written = loaded.read(document, arrays, functions, (None, &[]))?;
        runs::run(py, &loaded, written, reference)
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
        let (result, verification) = watched(py, &watch, |runtime| {
            let runtime = &Runtime { memory: memory.or(runtime.memory), ..*runtime };
            let experiment = written.experiment(&loaded.model, examples.as_deref(), runtime)?;
            let prepared = PreparedSweep::new(&experiment)?;
            let result = prepared.run(runtime)?;
            // None verifies nothing, 0 all.
            let sample = verify.map(|sample| Some(sample).filter(|sample| *sample > 0));
            let verification =
                sample.map(|sample| prepared.verify(&result, sample, runtime.progress)).transpose()?;
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
        watched(py, &watch, |runtime| {
            written.add(examples.as_deref())?;
            let outline = written.file.outline(&loaded.model)?;
            Ok(json!(Explanation::of_outline(&outline, runtime)?).to_string())
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
        let written = loaded.read(document, arrays, functions, (listener, &[]))?;
        runs::generate(py, &loaded, written, examples.as_deref())
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
        let written = loaded.read(document, arrays, functions, (listener, &[]))?;
        runs::gather(py, &loaded, written, examples.as_deref(), &sink, chunk)
    }

    /// Trains; gives losses and scores as JSON. What was learned goes to `folder`, or all results to `out`.
    #[pyo3(signature = (document, arrays=None, examples=None, folder=None, listener=None, out=None, resume=false))]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of the Python function")]
    fn train(
        &self,
        py: Python<'_>,
        document: &str,
        arrays: Option<&Bound<'_, PyDict>>,
        examples: Option<Vec<String>>,
        folder: Option<PathBuf>,
        listener: Option<Py<PyAny>>,
        out: Option<PathBuf>,
        resume: bool,
    ) -> PyResult<String> {
        let loaded = self.get()?;
        let written = loaded.read(document, arrays, None, (listener, &[]))?;
        let destination = match out {
            Some(out) => Destination::Results { out, resume },
            None => Destination::Intervention(folder),
        };
        runs::train(py, &loaded, written, examples.as_deref(), &destination)
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
        watched(py, &watch, |runtime| {
            let experiment = written.experiment(&loaded.model, None, runtime)?;
            Ok(Saved::of(&experiment, how, runtime)?.write(&folder, IfExists::Replace)?)
        })
    }

    /// The edits of a folder as documents, and whether its self-test passes.
    fn saved(&self, py: Python<'_>, folder: PathBuf) -> PyResult<String> {
        let loaded = self.get()?;
        let found = py.detach(|| -> Result<Value> {
            let saved = Saved::open(&folder)?;
            let has_test = saved.description.test.is_some();
            let test = has_test.then(|| saved.test(&loaded.model, &Runtime::default())).transpose()?;
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
