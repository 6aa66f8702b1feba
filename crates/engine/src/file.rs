//! Experiment files: the same experiment in TOML or JSON.
//!
//! The schema is documented in docs/experiment-file.md. Whatever is not in it is an error that
//! suggests the nearest thing that is.

use crate::experiment::{EditId, EditSpec, Experiment, LayerAxis, Sweep};
use crate::metric::Metric;
use crate::op::{OPS, Op, OpKind, Source, Value};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::file::{DataFile, Weights, json};
use causalcone_model::{Error as ModelError, Indices, Model, Positions, Site, Target, nearest};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// A prompt or inline values make a file long, but not longer than this.
const MAX_FILE: u64 = 16 << 20;
/// Values in a file: parsed, each takes up to some hundred bytes. More numbers belong in a
/// safetensors file.
const MAX_VALUES: usize = 1 << 18;
/// The same for TOML, whose parser takes more.
const MAX_TOML_VALUES: usize = 1 << 16;
/// More runs or edits than anyone writes; their names are looked up in each other.
const MAX_RUNS: usize = 1024;
const MAX_EDITS: usize = 4096;

/// An experiment as written.
///
/// ```
/// use causalcone_engine::ExperimentFile;
/// let file = ExperimentFile::from_toml("
///     model = 'smollm2'
///     [runs.base]
///     prompt = 'The capital of Spain is'
///     [[edit]]
///     site = 'mlp_output'
///     layers = 'all'
///     op = 'zero'
/// ")?;
/// assert_eq!(file.edit[0].site, "mlp_output");
/// let error = ExperimentFile::from_toml("modle = 'smollm2'").unwrap_err();
/// assert_eq!(error.hint().as_deref(), Some("did you mean `model`?"));
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentFile {
    /// Alias, directory, file or owner/name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The runs by name.
    #[serde(default)]
    pub runs: BTreeMap<String, RunFile>,
    /// The edits, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edit: Vec<EditFile>,
    /// What is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadFile>,
    /// What is swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepFile>,
    /// The folder that file names in it are relative to.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// `[runs.NAME]`: a prompt or its ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Token ids instead of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
    /// Whether a start-of-text token comes first; the model's own default if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos: Option<bool>,
}

/// `[[edit]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    /// A name for `[sweep] edit` and for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The run edited: base, or the only one, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The site.
    pub site: String,
    /// Layers; none for sites outside the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Indices>,
    /// Positions, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Heads, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<Indices>,
    /// Dimensions, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dims: Option<Indices>,
    /// The op's name.
    pub op: String,
    /// The op's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueFile>,
    /// The op's scale, 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
}

/// `value`: of a run, a token's embedding, a tensor of a file, or numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueFile {
    /// A run to take activations from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Another site of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Other layers of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Indices>,
    /// Other positions of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Other heads of that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<Indices>,
    /// A token whose embedding is taken, as a text or an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<TokenFile>,
    /// A safetensors file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The tensor in that file; may be left out if it holds one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// Numbers: one for everything, a list for each row, or a list of rows, one a position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<NumbersFile>,
}

/// Inline numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, a list of numbers, or a list of equally long lists of numbers")]
pub enum NumbersFile {
    /// One number.
    One(NumberFile),
    /// A row.
    Row(Vec<NumberFile>),
    /// A row a position.
    Rows(Vec<Vec<NumberFile>>),
}

/// A number. JSON has no way to write the −inf that a score may be, so it may be the text "-inf".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberFile(pub f64);

impl Serialize for NumberFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for NumberFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(x) => Ok(Self(x)),
            Written::Text(text) if text == "-inf" => Ok(Self(f64::NEG_INFINITY)),
            Written::Text(_) => Err(de::Error::custom("the only number written as a text is \"-inf\"")),
        }
    }
}

/// A token, as a text or an id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text that is one token, or a token id")]
pub enum TokenFile {
    /// By id.
    Id(u32),
    /// By text.
    Text(String),
}

/// `[read]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadFile {
    /// The run read: base, or the only one, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// How many of the likeliest tokens, 10 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<usize>,
    /// Tokens whose numbers are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenFile>,
}

/// `[sweep]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// The swept edit, by index or name, or a list of edits that move together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<EditsFile>,
    /// "each", "cumulative" or { window = n }.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerAxisFile>,
    /// "each".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<EachFile>,
    /// "each".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<EachFile>,
    /// Sites in place of the edit's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<String>>,
    /// Scales in place of the edit's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<Vec<f64>>,
    /// What is recorded, probabilities if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
}

/// One edit, or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "an edit's index or name, or a list of them")]
pub enum EditsFile {
    /// One.
    One(EditRefFile),
    /// Several that move together.
    Many(Vec<EditRefFile>),
}

/// An edit, by index or name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "an edit's index or name")]
pub enum EditRefFile {
    /// By index.
    Index(usize),
    /// By name.
    Name(String),
}

/// The one thing an axis over positions or heads can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EachFile {
    /// One at a time.
    Each,
}

/// How layers are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerAxisFile(pub LayerAxis);

impl Serialize for LayerAxisFile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            LayerAxis::Each => serializer.serialize_str("each"),
            LayerAxis::Cumulative => serializer.serialize_str("cumulative"),
            LayerAxis::Window(width) => serializer.collect_map([("window", width)]),
        }
    }
}

impl<'de> Deserialize<'de> for LayerAxisFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Axis;
        impl<'de> Visitor<'de> for Axis {
            type Value = LayerAxis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"each\", \"cumulative\" or { window = 3 }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<LayerAxis, E> {
                match text {
                    "each" => Ok(LayerAxis::Each),
                    "cumulative" => Ok(LayerAxis::Cumulative),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LayerAxis, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Window {
                    window: usize,
                }
                let window = Window::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(LayerAxis::Window(window.window))
            }
        }
        deserializer.deserialize_any(Axis).map(LayerAxisFile)
    }
}

impl ExperimentFile {
    /// Reads a file; a name that ends in .json is JSON, anything else TOML.
    ///
    /// # Errors
    /// When the file cannot be read or does not follow the schema.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = DataFile::open(path)?.read_all(MAX_FILE)?;
        let refuse = |problem: String, hint| Error::File { path: path.into(), problem, hint };
        let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".into(), None))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let parsed = if is_json { Self::from_json(text) } else { Self::from_toml(text) };
        let mut file = parsed.map_err(|e| match e {
            Error::Experiment { problem, hint, .. } => refuse(problem, hint),
            other => other,
        })?;
        file.folder = path.parent().unwrap_or(Path::new("")).into();
        Ok(file)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_toml(text: &str) -> Result<Self> {
        // Each value but the first follows one of these, if not in a text.
        let values = text.bytes().filter(|b| b",=[{\n".contains(b)).count();
        if values > MAX_TOML_VALUES {
            return Err(Error::hinted(
                "experiment",
                format!("{values} lines and values are more than the {MAX_TOML_VALUES} such a file may have"),
                Some("put long lists of numbers into a safetensors file: value = { file = … }".into()),
            ));
        }
        toml::from_str(text).map_err(|e| match e.span() {
            // The parser would show the line.
            Some(span) if line_around(text, span.start).len() > 200 => {
                let line = text.bytes().take(span.start).filter(|b| *b == b'\n').count() + 1;
                schema_error(&format!("TOML parse error at line {line}: {}", e.message()), e.message())
            }
            _ => schema_error(e.to_string().trim_end(), e.message()),
        })
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_json(text: &str) -> Result<Self> {
        // Once for keys given twice, which serde would let pass inside maps; once for the schema,
        // whose errors then say where.
        json::check(text.as_bytes(), MAX_VALUES)
            .and_then(|()| serde_json::from_str(text))
            .map_err(|e| schema_error(&e.to_string(), &e.to_string()))
    }

    /// Where a file that the experiment names is: beside the experiment file, else as it is written.
    pub fn data_path(&self, name: &str) -> PathBuf {
        let beside = self.folder.join(name);
        if beside.exists() { beside } else { name.into() }
    }

    /// The experiment this describes, for a loaded model.
    ///
    /// # Errors
    /// When it does not fit the model or contradicts itself.
    pub fn experiment<'m>(&self, model: &'m Model) -> Result<Experiment<'m>> {
        for (part, n, most) in [("runs", self.runs.len(), MAX_RUNS), ("edit", self.edit.len(), MAX_EDITS)] {
            if n > most {
                return Err(Error::part(
                    part,
                    format!("{n} are more than the {most} one experiment may have"),
                ));
            }
        }
        let mut experiment = Experiment::new(model);
        for (name, run) in &self.runs {
            let part = || format!("run \"{name}\"");
            let ids = match (&run.prompt, &run.ids) {
                (Some(prompt), None) => {
                    model.prompt(prompt, run.bos).map_err(|source| Error::Part { part: part(), source })?
                }
                (None, Some(ids)) if run.bos.is_none() => ids.clone(),
                (None, Some(_)) => {
                    return Err(Error::part(part(), "bos is for prompts; ids are taken as they are"));
                }
                _ => return Err(Error::part(part(), "needs either prompt or ids")),
            };
            experiment.run_ids(name, ids)?;
        }
        for (index, edit) in self.edit.iter().enumerate() {
            let part = match &edit.name {
                Some(name) => format!("edit \"{name}\""),
                None => format!("edit {index}"),
            };
            let spec = self.edit_spec(&experiment, edit, &part)?;
            experiment.add_edit(spec)?;
        }
        if let Some(read) = &self.read {
            if let Some(run) = &read.run {
                experiment.read(experiment.find_run(run, "read")?);
            }
            experiment.top(read.top.unwrap_or(10));
            let id = |token: &TokenFile| token.id(model, "read");
            experiment.tokens(read.tokens.iter().map(id).collect::<Result<_>>()?)?;
        }
        experiment.reading_run()?;
        if let Some(sweep) = &self.sweep {
            experiment.sweep(self.sweep_spec(sweep)?);
        }
        Ok(experiment)
    }

    fn edit_spec(&self, experiment: &Experiment<'_>, edit: &EditFile, part: &str) -> Result<EditSpec> {
        let same_name = |other: &&EditFile| other.name.is_some() && other.name == edit.name;
        if self.edit.iter().filter(same_name).count() > 1 {
            return Err(Error::part(part, "another edit has the same name"));
        }
        let run = match &edit.run {
            Some(name) => experiment.find_run(name, part)?,
            None => experiment.default_run(part)?,
        };
        let (site, layer) = site(&edit.site, part)?;
        let layers = layers(edit.layers.as_ref(), layer, part)?;
        let Some(info) = OPS.iter().find(|info| info.name == edit.op && info.kind != OpKind::Custom) else {
            let known: Vec<&str> =
                OPS.iter().filter(|info| info.kind != OpKind::Custom).map(|info| info.name).collect();
            let hint =
                nearest(&edit.op, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let problem = format!("op \"{}\" is not an op; the ops are {}", edit.op, known.join(", "));
            return Err(Error::hinted(part, problem, hint));
        };
        if edit.scale.is_some() && !info.takes_scale {
            return Err(Error::part(part, format!("op \"{}\" has no scale", info.name)));
        }
        let value = edit.value.as_ref().map(|value| self.value(experiment, value, part)).transpose()?;
        let op = Op { kind: info.kind, value, scale: edit.scale.unwrap_or(1.0), custom: None };
        let positions = edit.positions.clone().unwrap_or(Positions::Indices(Indices::All));
        let target = Target { site, layers, positions, heads: edit.heads.clone(), dims: edit.dims.clone() };
        Ok(EditSpec { name: edit.name.clone(), run, target, op })
    }

    fn value(&self, experiment: &Experiment<'_>, value: &ValueFile, part: &str) -> Result<Value> {
        let model = experiment.model();
        let device = model.decoder().token_embedding().device();
        let kinds =
            [value.run.is_some(), value.embedding.is_some(), value.file.is_some(), value.values.is_some()];
        if kinds.iter().filter(|given| **given).count() != 1 {
            return Err(Error::part(part, "value needs exactly one of run, embedding, file or values"));
        }
        let of_run = value.site.is_some()
            || value.layers.is_some()
            || value.positions.is_some()
            || value.heads.is_some();
        if of_run && value.run.is_none() {
            return Err(Error::part(
                part,
                "site, layers, positions and heads of a value need value = { run = … }",
            ));
        }
        if value.tensor.is_some() && value.file.is_none() {
            return Err(Error::part(part, "tensor needs value = { file = … }"));
        }
        if let Some(token) = &value.embedding {
            return Ok(Value::Tensor(model.embedding_of(token.id(model, part)?)?));
        }
        if let Some(file) = &value.file {
            return Ok(Value::Tensor(self.tensor(file, value.tensor.as_deref(), part)?.to_device(device)?));
        }
        if let Some(run) = &value.run {
            let (site, layer) = match &value.site {
                None => (None, None),
                Some(name) => {
                    let (site, layer) = site(name, part)?;
                    (Some(site), layer)
                }
            };
            return Ok(Value::Run(Source {
                run: experiment.find_run(run, part)?,
                site,
                layers: layers(value.layers.as_ref(), layer, part)?,
                positions: value.positions.clone(),
                heads: value.heads.clone(),
            }));
        }
        Ok(match value.values.as_ref() {
            Some(NumbersFile::Row(row)) => Value::Tensor(Tensor::new(plain(row), device)?),
            Some(NumbersFile::Rows(rows)) => {
                let width = rows.first().map_or(0, Vec::len);
                if width == 0 || rows.iter().any(|row| row.len() != width) {
                    return Err(Error::part(part, "the rows of values are empty or of different lengths"));
                }
                Value::Tensor(Tensor::from_vec(plain(&rows.concat()), (rows.len(), width), device)?)
            }
            Some(NumbersFile::One(number)) => Value::Number(number.0),
            None => return Err(Error::part(part, "value is empty")),
        })
    }

    /// A tensor of a safetensors file: by name, or the only one.
    fn tensor(&self, file: &str, tensor: Option<&str>, part: &str) -> Result<Tensor> {
        let path = self.data_path(file);
        let within = |source: ModelError| Error::Part { part: part.into(), source };
        let weights = Weights::from_safetensors(&[path]).map_err(within)?;
        let mut names: Vec<&str> = weights.entries().map(|entry| entry.name.as_str()).collect();
        let Some(entry) = (match tensor {
            Some(name) => weights.entries().find(|entry| entry.name == name),
            None => weights.entries().next().filter(|_| names.len() == 1),
        }) else {
            let given =
                tensor.map_or("no tensor is named".into(), |name| format!("there is no tensor \"{name}\""));
            names.sort_unstable();
            let more = if names.len() > 20 { ", …" } else { "" };
            names.truncate(20);
            return Err(Error::part(part, format!("{given}; {file} holds {}{more}", names.join(", "))));
        };
        weights.take(&entry.name, &entry.shape).map_err(within)
    }

    fn sweep_spec(&self, sweep: &SweepFile) -> Result<Sweep> {
        let find = |reference: &EditRefFile| -> Result<EditId> {
            let index = match reference {
                EditRefFile::Index(index) => (*index < self.edit.len()).then_some(*index),
                EditRefFile::Name(name) => self.edit.iter().position(|edit| edit.name.as_ref() == Some(name)),
            };
            index.map(EditId).ok_or_else(|| {
                let names: Vec<String> = self.edit.iter().filter_map(|edit| edit.name.clone()).collect();
                let names = if names.is_empty() {
                    "none has a name".into()
                } else {
                    format!("their names: {}", names.join(", "))
                };
                let given = match reference {
                    EditRefFile::Index(index) => index.to_string(),
                    EditRefFile::Name(name) => format!("\"{name}\""),
                };
                Error::part(
                    "sweep",
                    format!("there is no edit {given}; there are {}, {names}", self.edit.len()),
                )
            })
        };
        let edits = match &sweep.edit {
            None => Vec::new(),
            Some(EditsFile::One(one)) => vec![find(one)?],
            Some(EditsFile::Many(many)) if many.is_empty() => {
                return Err(Error::part("sweep", "edit = [] names no edit"));
            }
            Some(EditsFile::Many(many)) => many.iter().map(find).collect::<Result<_>>()?,
        };
        let empty = |key: &str| Err(Error::part("sweep", format!("{key} = [] leaves nothing to sweep")));
        let sites = match sweep.sites.as_deref() {
            Some([]) => return empty("sites"),
            names => names.unwrap_or_default().iter().map(|name| match site(name, "sweep")? {
                (site, None) => Ok(site),
                (_, Some(_)) => {
                    Err(Error::part("sweep", format!("{name} names a layer, where sites are listed")))
                }
            }),
        };
        let metrics = match sweep.metrics.as_deref() {
            Some([]) => return empty("metrics"),
            names => names.unwrap_or_default().iter().map(|name| metric(name)),
        };
        let scales = match sweep.scales.as_deref() {
            Some([]) => return empty("scales"),
            // As the same number: adding 0 makes 0 of −0.
            scales => scales.unwrap_or_default().iter().map(|scale| scale + 0.0).collect(),
        };
        Ok(Sweep {
            edits,
            layers: sweep.layers.map(|axis| axis.0),
            positions: sweep.positions.is_some(),
            heads: sweep.heads.is_some(),
            sites: sites.collect::<Result<Vec<Site>>>()?,
            scales,
            metrics: metrics.collect::<Result<Vec<Metric>>>()?,
        })
    }
}

impl TokenFile {
    fn id(&self, model: &Model, part: &str) -> Result<u32> {
        let id = match self {
            Self::Id(id) => model.decoder().check(&[*id]).map(|()| *id),
            Self::Text(text) => model.token_id(text),
        };
        id.map_err(|source| Error::Part { part: part.into(), source })
    }
}

fn plain(numbers: &[NumberFile]) -> Vec<f64> {
    numbers.iter().map(|number| number.0).collect()
}

fn site(name: &str, part: &str) -> Result<(Site, Option<usize>)> {
    Site::parse(name).map_err(|source| Error::Part { part: part.into(), source })
}

/// The layers of an edit or value, which a TransformerLens name may have given already.
fn layers(given: Option<&Indices>, named: Option<usize>, part: &str) -> Result<Option<Indices>> {
    let named = named.map(Indices::from);
    match (given, named) {
        (Some(given), Some(named)) if *given != named => {
            Err(Error::part(part, format!("layers = {given}, but the site's name says layer {named}")))
        }
        (Some(given), _) => Ok(Some(given.clone())),
        (None, named) => Ok(named),
    }
}

fn metric(name: &str) -> Result<Metric> {
    let known = Metric::ALL.iter().find(|(known, _)| *known == name);
    known.map(|(_, metric)| *metric).ok_or_else(|| {
        let names = Metric::ALL.map(|(name, _)| name);
        let hint = nearest(name, names).map(|near| format!("did you mean \"{near}\"?"));
        Error::hinted(
            "sweep",
            format!("\"{name}\" is not a metric; the metrics are {}", names.join(", ")),
            hint,
        )
    })
}

/// The line that a byte of a text is in.
fn line_around(text: &str, at: usize) -> &[u8] {
    let (before, after) = text.as_bytes().split_at(at.min(text.len()));
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let end = after.iter().position(|b| *b == b'\n').unwrap_or(after.len());
    &text.as_bytes()[start..before.len() + end]
}

/// An error of the schema; an unknown key gets the nearest known one as a hint.
fn schema_error(problem: &str, message: &str) -> Error {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = match quoted.next() {
        Some(unknown) if message.starts_with("unknown field") || message.starts_with("unknown variant") => {
            nearest(unknown, quoted).map(|near| format!("did you mean `{near}`?"))
        }
        _ => None,
    };
    // What is quoted in it may be long.
    let mut short: String = problem.chars().take(1000).collect();
    if short.len() < problem.len() {
        short.push('…');
    }
    Error::hinted("experiment", short, hint)
}
