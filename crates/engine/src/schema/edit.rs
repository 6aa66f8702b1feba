//! The schema of edits.

use super::inputs::GivenFile;
use super::lenient;
use crate::experiment::steps::Steps;
use crate::experiment::token::TokenFile;
use crate::op::{Align, Joint, Setting};
use causalcone_model::{Indices, Positions};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// `[[edit]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditFile {
    /// A name for `[sweep] edit` and for messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The run edited: base, or the only one, if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The site; a saved intervention may give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Layers; none for sites outside the blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Indices>,
    /// Positions, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Heads, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<Indices>,
    /// Dimensions, all if left out; of the op's own basis where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dims: Option<DimsFile>,
    /// Names for parts of the dimensions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partition: BTreeMap<String, Indices>,
    /// The op.
    pub op: OpFile,
    /// The op's own tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<ParametersFile>,
    /// What is taken together as one vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joint: Option<Joint>,
    /// The activation function of the ReFT family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<String>,
    /// The lower bound of clamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The upper bound of clamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Whether what an autoencoder does not reconstruct is added back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<bool>,
    /// Whether an autoencoder subtracts b_dec before it encodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub centre: Option<bool>,
    /// The metric whose gradient a `collect` reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<String>,
    /// The op's value.
    #[serde(default, deserialize_with = "value", skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<ValueFile>>,
    /// The op's scale, 1 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The level of noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<f64>,
    /// The seed of noise, 0 if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// In which passes of a run that grows it is made, all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Steps>,
    /// Tokens that end it.
    #[serde(default, deserialize_with = "lenient::one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub until: Vec<TokenFile>,
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

/// `op`: by name; or that of a saved intervention, or of another edit, with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "the name of an op, { load = \"FOLDER\", name = \"…\" } or { link = \"another edit\" }"
)]
pub enum OpFile {
    /// An op by its name.
    Name(String),
    /// A saved intervention.
    Load(LoadFile),
    /// The op of another edit, by that edit's name, and the very same parameters.
    Link(LinkFile),
    /// A closure of the program that wrote this.
    Given(GivenFile),
}

impl EditFile {
    /// The files it names.
    pub fn files(&self) -> Vec<&str> {
        let (all, fitted) = match &self.parameters {
            Some(ParametersFile::All(file)) => (Some(file.as_str()), None),
            Some(ParametersFile::Fit(fit)) => (None, Some(fit.examples.as_str())),
            _ => (None, None),
        };
        let examples = self.value.iter().filter_map(|value| value.examples.as_deref()).chain(fitted);
        self.in_files().map(|(file, _)| file).chain(all).chain(examples).collect()
    }

    /// The settings of its op that it gives, each by its key.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&'static str, Setting)> + use<> {
        let all = [
            (self.activation.is_some(), "activation", Setting::Activation),
            (self.min.is_some(), "min", Setting::Bounds),
            (self.max.is_some(), "max", Setting::Bounds),
            (self.error.is_some(), "error", Setting::AddError),
            (self.centre.is_some(), "centre", Setting::Centre),
        ];
        all.into_iter().filter(|(is_given, ..)| *is_given).map(|(_, key, setting)| (key, setting))
    }

    /// The tensors it names by name.
    pub(crate) fn tensors(&self) -> Vec<&str> {
        self.in_files().filter_map(|(_, tensor)| tensor).collect()
    }

    /// Tensors of files, each with its name if that is given.
    fn in_files(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let of_value =
            self.value.iter().filter_map(|value| Some((value.file.as_deref()?, value.tensor.as_deref())));
        let each = self.parameters.iter().filter_map(|parameters| match parameters {
            ParametersFile::Each(each) => Some(each.values()),
            _ => None,
        });
        let of_parameters = each.flatten().filter_map(|parameter| match parameter {
            ParameterFile::From(from) => Some((from.file.as_str(), from.tensor.as_deref())),
            ParameterFile::Numbers(_) | ParameterFile::Given(_) => None,
        });
        of_value.chain(of_parameters)
    }
}

impl Default for OpFile {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl OpFile {
    /// Its name, where it is one by name.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// What is done, for people.
impl fmt::Display for OpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Load(LoadFile { load, name: None, .. }) => f.write_str(load),
            Self::Load(LoadFile { load, name: Some(name), .. }) => write!(f, "{name} of {load}"),
            Self::Link(LinkFile { link }) => write!(f, "the op of {link}"),
            Self::Given(GivenFile { given }) => write!(f, "the closure {given}"),
        }
    }
}

/// A saved intervention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadFile {
    /// Its folder.
    pub load: String,
    /// Which of those in the folder, if it holds several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it may have been made for other weights of the same shapes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_weights: bool,
}

/// Another edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFile {
    /// Its name.
    pub link: String,
}

/// `dims`: by number, or by the names of parts of a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"all\", a number, a list, a range, or names of a partition's parts")]
pub enum DimsFile {
    /// By number.
    Indices(Indices),
    /// The part of that name.
    Part(String),
    /// The parts of these names, in this order.
    Parts(Vec<String>),
}

/// `parameters`: all of one file, or each by name, or fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a safetensors or npz file, an autoencoder's folder, a table of parameters by name, or { pca = \"RUN\", examples = \"FILE\", rank = … } or { random = SEED, rank = … }"
)]
pub enum ParametersFile {
    /// A file that has them by their names, or the folder of an autoencoder.
    All(String),
    /// Principal components of activations.
    Fit(FitFile),
    /// Drawn at random.
    Random(RandomFile),
    /// Each by its name.
    Each(BTreeMap<String, ParameterFile>),
}

/// Principal components, fitted to a data set at the edit's site and layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitFile {
    /// The run of the data set.
    pub pca: String,
    /// The data set, one example a line.
    pub examples: String,
    /// How many components.
    pub rank: usize,
    /// Which positions of each example; all if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Whether dimensions are divided by their standard deviations first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standardise: bool,
}

/// Parameters drawn at random, for training to begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomFile {
    /// The seed.
    pub random: u64,
    /// How many coordinates, where the op has a rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

/// One of the op's own tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "numbers, or { file = \"FILE\", tensor = \"…\" }")]
pub enum ParameterFile {
    /// Numbers.
    Numbers(NumbersFile),
    /// A tensor of a file.
    From(TensorFile),
    /// A tensor of the program that wrote this.
    Given(GivenFile),
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorFile {
    /// A safetensors or npz file.
    pub file: String,
    /// Which tensor: the only one, or the one of the parameter's own name if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
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
    /// How positions `"all"` of both runs pair where the runs differ in length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub align: Option<Align>,
    /// A run of a data set of its own, over which the mean is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<String>,
    /// A run of a data set of its own, whose activations' first principal component it is; with `minus` that of
    /// the differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pca: Option<String>,
    /// With `mean` or `pca`: another run of it, which is taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minus: Option<String>,
    /// With `mean` or `pca`: the data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<String>,
    /// The Euclidean norm that every row is scaled to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<f64>,
    /// A seed: every row is replaced by a random direction of the same norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<u64>,
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
    /// A tensor of the program that wrote this, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
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

/// Reads a value: a table, or the name of a run.
fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<ValueFile>>, D::Error> {
    struct Written;
    impl<'de> Visitor<'de> for Written {
        type Value = ValueFile;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(
                "a table such as { run = \"source\" } or { values = [0.5, 1.0] }, or the name of a run",
            )
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<ValueFile, E> {
            Ok(ValueFile { run: Some(name.into()), ..ValueFile::default() })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ValueFile, A::Error> {
            ValueFile::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Written).map(|value| Some(Box::new(value)))
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
