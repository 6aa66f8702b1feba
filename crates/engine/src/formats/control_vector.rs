//! Control vectors: steering directions in the GGUF files that llama.cpp and repeng exchange.
//!
//! Such a file has a tensor `direction.N` for some blocks N, counted from 0; what runs it adds direction N to
//! the output of block N, at every position. That is an edit of ours: `op = "add"` at `block_output`, so one
//! is read as the value of an edit (`value = { file = "happy.gguf" }`), and edits of that kind are written as
//! one. There is no `direction.0`: the programs that read these files refuse it.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_engine::{ControlVector, Experiment, Op, OpKind};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! let direction = Tensor::arange(0f32, 32.0, &Device::Cpu)?;
//! exp.edit(base, Site::BlockOutput.layers(1), Op::new(OpKind::Add).value(direction).scaled(0.5))?;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("up.gguf");
//! ControlVector::of(&exp)?.save(&path)?;
//! let found = ControlVector::read(&path)?;
//! assert_eq!(found.directions[&1].to_vec1::<f32>()?[3], 1.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::experiment::Experiment;
use crate::ids::EditId;
use crate::op::OpKind;
use crate::{Error, Result};
use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use causalcone_files::IfExists;
use causalcone_model::file::{DataFile, Weights, gguf};
use causalcone_model::{Indices, Positions, Site};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

const ARCHITECTURE: &str = "general.architecture";
const CONTROL_VECTOR: &str = "controlvector";
const MODEL_HINT: &str = "controlvector.model_hint";
const LAYER_COUNT: &str = "controlvector.layer_count";
/// No model has as many blocks.
const MAX_LAYERS: usize = 1 << 16;

/// Directions to add to the outputs of blocks.
#[derive(Debug, Clone)]
pub struct ControlVector {
    /// The family of the model it was made for, where the file says it.
    pub model_hint: Option<String>,
    /// By block, from 1: a vector as wide as the residual stream, f32.
    pub directions: BTreeMap<usize, Tensor>,
}

impl ControlVector {
    /// Reads a GGUF file.
    ///
    /// # Errors
    /// When it is malformed, no control vector, or has a direction for what is no block, or directions of
    /// different widths.
    pub fn read(path: &Path) -> Result<Self> {
        let file = DataFile::open(path)?;
        let header = gguf::read(&file)?;
        let refuse = |problem: String, hint: Option<&str>| Error::File {
            path: path.into(),
            problem,
            hint: hint.map(Into::into),
        };
        let key = |name: &str| header.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let text = |name: &str| match key(name) {
            None => Ok(None),
            Some(gguf::Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(refuse(format!("{name} is no text"), None)),
        };
        match text(ARCHITECTURE)?.as_deref() {
            Some(CONTROL_VECTOR) => {}
            other => {
                let found = match other {
                    Some(name) => format!("is of architecture {name:?}"),
                    None => "names no architecture".into(),
                };
                let problem = format!("{found}; a control vector is of architecture {CONTROL_VECTOR:?}");
                return Err(refuse(problem, Some("a model is given as model = … or --model")));
            }
        }
        let model_hint = text(MODEL_HINT)?;
        let mut places = BTreeMap::new();
        for entry in &header.tensors {
            let number = entry.name.strip_prefix("direction.");
            let layer = number.and_then(|n| n.parse::<usize>().ok().filter(|layer| layer.to_string() == n));
            let Some(layer) = layer.filter(|layer| (1..MAX_LAYERS).contains(layer)) else {
                let problem = format!("tensor \"{}\" is no direction of a block from 1 on", entry.name);
                return Err(refuse(problem, Some("they are called direction.1, direction.2, …")));
            };
            if entry.shape.len() != 1 {
                let problem = format!("{} has shape {:?}, where a vector fits", entry.name, entry.shape);
                return Err(refuse(problem, None));
            }
            places.insert(layer, entry.clone());
        }
        let Some(width) = places.values().next().map(|entry| entry.shape[0]) else {
            return Err(refuse("holds no direction".into(), None));
        };
        if let Some(other) = places.values().find(|entry| entry.shape[0] != width) {
            let problem = format!("{} is {} wide, and others {width}", other.name, other.shape[0]);
            return Err(refuse(problem, None));
        }
        let weights = Weights::from_gguf(file, &header)?;
        let mut directions = BTreeMap::new();
        for (layer, entry) in places {
            directions.insert(layer, weights.take(&entry.name, &entry.shape)?);
        }
        Ok(Self { model_hint, directions })
    }

    /// What the edits of an experiment add to the outputs of blocks; those of the same block are summed.
    ///
    /// # Errors
    /// When an edit is anything but vectors added to all positions of `block_output`, in blocks from 1 on.
    pub fn of(experiment: &Experiment<'_>) -> Result<Self> {
        experiment.no_steps()?;
        let config = experiment.model().config();
        let mut sums: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (index, edit) in experiment.edits.iter().enumerate() {
            let (id, target, op) = (EditId(index), &edit.target, &edit.op);
            let refuse = |problem: &str| {
                let hint = "save it as a folder: --out without .gguf".to_string();
                let problem = format!("{problem}, which no control vector can say");
                Error::hinted(experiment.edit_name(id), problem, Some(hint))
            };
            if op.kind != OpKind::Add || target.site != Site::BlockOutput {
                let (op, site) = (op.kind.info().name, target.site.name());
                return Err(refuse(&format!("is op \"{op}\" at {site}, not \"add\" at block_output")));
            }
            if edit.run != experiment.edits[0].run {
                return Err(refuse("is in another run than the first edit"));
            }
            if target.positions != Positions::Indices(Indices::All) {
                return Err(refuse("is at some positions and not at all"));
            }
            if target.dims.is_some() {
                return Err(refuse("is of some dimensions and not of all"));
            }
            for (layer, row) in experiment.resolver(id).expand()?.added(config.width)? {
                let Some(row) = row else {
                    return Err(refuse("takes its value from a run, or has one a position"));
                };
                if layer == 0 {
                    return Err(refuse("is in block 0"));
                }
                let sum = sums.entry(layer).or_insert_with(|| vec![0.0; config.width]);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        if sums.is_empty() {
            return Err(Error::part("save", "there is no edit to save"));
        }
        let tensor = |(layer, sum)| Ok((layer, Tensor::new(sum, &Device::Cpu)?));
        let directions = sums.into_iter().map(tensor).collect::<Result<_>>()?;
        Ok(Self { model_hint: Some(config.family.into()), directions })
    }

    /// Writes the GGUF file, whole or not at all. It replaces a file of that name.
    ///
    /// # Errors
    /// As [`ControlVector::write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write(path.as_ref(), IfExists::Replace)
    }

    /// Writes the GGUF file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written, or the name is taken by something that may not be replaced.
    pub fn write(&self, path: &Path, if_exists: IfExists) -> Result<()> {
        use gguf_file::Value;
        let layers = u32::try_from(self.directions.len()).unwrap_or(u32::MAX);
        let mut metadata =
            vec![(ARCHITECTURE, Value::String(CONTROL_VECTOR.into())), (LAYER_COUNT, Value::U32(layers))];
        metadata.extend(self.model_hint.clone().map(|hint| (MODEL_HINT, Value::String(hint))));
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let tensors = self.directions.iter().map(|(layer, direction)| {
            Ok((format!("direction.{layer}"), QTensor::quantize(direction, GgmlDType::F32)?))
        });
        let tensors: Vec<(String, QTensor)> = tensors.collect::<Result<_>>()?;
        let tensors: Vec<(&str, &QTensor)> =
            tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut bytes = Cursor::new(Vec::new());
        gguf_file::write(&mut bytes, &metadata, &tensors)?;

        Ok(if_exists.write(path, |w| w.write_all(bytes.get_ref()))?)
    }
}
