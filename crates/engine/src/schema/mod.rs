//! Experiment files: the same experiment in TOML or JSON.
//!
//! The schema is documented in docs/experiment-file.md. Whatever is not in it is an error that
//! suggests the nearest thing that is.

mod edit;
mod inputs;
mod lenient;
mod text;
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

use crate::experiment::dataset::Prompt;
use crate::experiment::sweep::LayerAxis;
use crate::run::generate::Generation;
use crate::{Error, Result, parse};
use causalcone_model::chat::{Date, Message};
use causalcone_model::file::DataFile;
use causalcone_model::{KeyPolicy, Precision};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What stands for the layer in the name of a tensor.
pub(crate) const LAYER: &str = "{layer}";

/// A prompt or inline values make a file long, but not longer than this.
const MAX_FILE: u64 = 16 << 20;

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
    #[serde(default, deserialize_with = "lenient::one_or_many", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, deserialize_with = "lenient::one_or_many", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(
        default,
        deserialize_with = "lenient::some_one_or_many",
        skip_serializing_if = "Option::is_none"
    )]
    pub sites: Option<Vec<String>>,
    /// Scales in place of the edit's, or levels of noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scales: Option<Vec<f64>>,
    /// How many samples of noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// What is recorded, probabilities if left out.
    #[serde(
        default,
        deserialize_with = "lenient::some_one_or_many",
        skip_serializing_if = "Option::is_none"
    )]
    pub metrics: Option<Vec<String>>,
    /// How cells' numbers are found, exactly if left out.
    #[serde(
        default,
        deserialize_with = "lenient::some_one_or_many",
        skip_serializing_if = "Option::is_none"
    )]
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
                    other if let Some(Ok(width)) = other.strip_prefix("window=").map(str::parse) => {
                        Ok(LayerAxis::Window(width))
                    }
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
        let text = String::from_utf8(bytes).map_err(|_| Error::File {
            path: path.into(),
            problem: "is not UTF-8 text".into(),
            hint: None,
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let is_json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        let parsed = if is_json { parse::json(text) } else { parse::toml(text) };
        let mut file: Self = parsed.map_err(|e| e.in_file(path))?;
        file.folder = path.parent().unwrap_or(Path::new("")).into();
        Ok(file)
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_toml(text: &str) -> Result<Self> {
        Ok(parse::toml(text)?)
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_json(text: &str) -> Result<Self> {
        Ok(parse::json(text)?)
    }
}
