//! Experiment files: the same experiment in TOML or JSON.
//!
//! The schema is documented in docs/experiment-file.md. Whatever is not in it is an error that
//! suggests the nearest thing that is.

mod edit;
mod inputs;
mod train;

pub use crate::experiment::token::TokenFile;
pub use edit::{
    DimsFile, EditFile, EditRefFile, EditsFile, FitFile, LinkFile, LoadFile, NumberFile, NumbersFile, OpFile,
    ParameterFile, ParametersFile, RandomFile, TensorFile, ValueFile,
};
pub use inputs::{GivenFile, Inputs};
pub use train::{
    BaseFile, HeldOutFile, KlFile, ObjectiveFile, OptimizerFile, RotationsFile, TemperatureFile, TrainFile,
};

use crate::experiment::LayerAxis;
use crate::experiment::dataset::Prompt;
use crate::run::generate::Generation;
use crate::{Error, Result};
use causalcone_model::chat::{Date, Message};
use causalcone_model::file::{DataFile, json};
use causalcone_model::{KeyPolicy, Precision, nearest};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What stands for the layer in the name of a tensor.
pub(crate) const LAYER: &str = "{layer}";

/// A prompt or inline values make a file long, but not longer than this.
const MAX_FILE: u64 = 16 << 20;
/// Values in a file: parsed, each takes up to some hundred bytes. More numbers belong in a
/// safetensors file.
const MAX_VALUES: usize = 1 << 18;
/// The same for TOML, whose parser takes more.
const MAX_TOML_VALUES: usize = 1 << 16;

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
/// assert_eq!(file.edit[0].site.as_deref(), Some("mlp_output"));
/// let error = ExperimentFile::from_toml("modle = 'smollm2'").unwrap_err();
/// assert_eq!(error.hint().as_deref(), Some("did you mean `model`?"));
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentFile {
    /// Alias, directory, file or owner/name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How its weights are kept: "auto", "full", "half" or "packed".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Precision>,
    /// How the configuration of its model is read: keys to ignore, and whether unknown ones are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_options: Option<KeyPolicy>,
    /// The date that chat templates see, the local time if left out: "2026-11-30" or "2026-11-30T08:15:00".
    #[serde(default, deserialize_with = "date", skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
    /// A data set, one example a line: prompts, positions and tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<String>,
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
    /// How it is trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainFile>,
    /// How the read run goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generation>,
    /// The folder that file names in it are relative to.
    #[serde(skip)]
    pub folder: PathBuf,
    /// What a program gives beside it.
    #[serde(skip)]
    pub inputs: Inputs,
}

/// A date as a text, or as one of TOML's own.
fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a date, such as \"2026-11-30\"")]
    enum Written {
        Text(String),
        Toml(toml::value::Datetime),
    }
    let text = match Written::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Toml(date) => date.to_string(),
    };
    text.parse().map(Some).map_err(de::Error::custom)
}

/// `[runs.NAME]`: a prompt, its ids, or a conversation; none where the examples give it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// The text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Token ids instead of a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
    /// A conversation instead of a text, as the model's own template writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<Message>>,
    /// Whether a conversation ends where the model's own turn begins; true if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation_prompt: Option<bool>,
    /// Whether a start-of-text token comes first; the model's own default if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bos: Option<bool>,
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
    /// Answers of one token or more whose probabilities are recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Prompt>,
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
    /// Scales in place of the edit's, or levels of noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<Vec<f64>>,
    /// How many samples of noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// What is recorded, probabilities if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
    /// How cells' numbers are found, exactly if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Points of the path of "integrated", 10 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
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
        parse_toml(text)
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_json(text: &str) -> Result<Self> {
        parse_json(text)
    }

    /// Whether it names something that only a program can give.
    pub fn is_given_something(&self) -> bool {
        let of_op = |op: &OpFile| matches!(op, OpFile::Given(_));
        self.edit.iter().any(|edit| of_op(&edit.op) || edit.gives())
    }
}

/// Reads TOML that follows a schema.
pub(crate) fn parse_toml<T: de::DeserializeOwned>(text: &str) -> Result<T> {
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

/// Reads JSON that follows a schema.
pub(crate) fn parse_json<T: de::DeserializeOwned>(text: &str) -> Result<T> {
    // Once for keys given twice, which serde would let pass inside maps; once for the schema, whose
    // errors then say where.
    json::check(text.as_bytes(), MAX_VALUES)
        .and_then(|()| serde_json::from_str(text))
        .map_err(|e| schema_error(&e.to_string(), &e.to_string()))
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
