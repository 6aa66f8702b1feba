//! Folders that pyvene has saved: config.json, and torch's state dict of each intervention that trains or
//! has a source of its own.
//!
//! Rotations are saved as the raw numbers of torch's parametrisation and its base; here they become the
//! rotations they mean. Positions, sources and subspaces are no part of such a folder: the edit that loads
//! an intervention says them. Each is called as pyvene calls it: its key.

use super::format::{BaseModel, Description, Made, VERSION};
use crate::op::{Joint, OpKind, Subspace};
use crate::schema::{
    DimsFile, EditFile, LinkFile, NumberFile, NumbersFile, OpFile, ParameterFile, ParametersFile, ValueFile,
};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::file::{DataFile, Weights, json};
use causalcone_model::{Indices, Site};
use causalcone_ops::{exponential, householder};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The file that says what is in the folder.
pub(super) const CONFIG: &str = "config.json";
const MAX_CONFIG: u64 = 1 << 20;
/// The fields of pyvene's RepresentationConfig, as it writes them.
const FIELDS: usize = 14;
const ROTATION: &str = "rotate_layer.parametrizations.weight";

/// The classes of pyvene and pyreft, by their names.
const CLASSES: [(&str, OpKind); 19] = [
    ("VanillaIntervention", OpKind::Swap),
    ("AdditionIntervention", OpKind::Add),
    ("SubtractionIntervention", OpKind::Subtract),
    ("ZeroIntervention", OpKind::Zero),
    ("CollectIntervention", OpKind::Collect),
    ("SkipIntervention", OpKind::Skip),
    ("RotatedSpaceIntervention", OpKind::RotatedSwap),
    ("LowRankRotatedSpaceIntervention", OpKind::LowRankSwap),
    ("BoundlessRotatedSpaceIntervention", OpKind::BoundlessSwap),
    ("SigmoidMaskRotatedSpaceIntervention", OpKind::SigmoidMaskRotated),
    ("SigmoidMaskIntervention", OpKind::SigmoidMask),
    ("AutoencoderIntervention", OpKind::AutoencoderSwap),
    ("JumpReLUAutoencoderIntervention", OpKind::JumpReluAutoencoder),
    ("LoreftIntervention", OpKind::Loreft),
    ("NoreftIntervention", OpKind::Noreft),
    ("DireftIntervention", OpKind::Direft),
    ("ConsreftIntervention", OpKind::Consreft),
    ("LobireftIntervention", OpKind::Lobireft),
    ("NodireftIntervention", OpKind::Nodireft),
];

/// Reads a folder.
pub(super) fn open(folder: &Path) -> Result<Description> {
    let path = folder.join(CONFIG);
    let refuse = |problem: String| Error::File { path: path.clone(), problem, hint: None };
    let bytes = DataFile::open(&path)?.read_all(MAX_CONFIG)?;
    let config = json::parse(&bytes).map_err(|e| refuse(e.to_string()))?;
    let list = |key: &str| {
        config
            .get(key)
            .and_then(Value::as_array)
            .ok_or_else(|| refuse(format!("has no list \"{key}\": it is not one of pyvene's")))
    };
    let (representations, types) = (list("representations")?, list("intervention_types")?);
    let dimensions = list("intervention_dimensions")?;
    if representations.len() != types.len() || representations.len() != dimensions.len() {
        return Err(refuse("lists different numbers of representations, types and dimensions".into()));
    }
    let mut edits: Vec<EditFile> = Vec::new();
    let mut linked: BTreeMap<String, String> = BTreeMap::new();
    for ((fields, class), dimension) in representations.iter().zip(types).zip(dimensions) {
        let represented = Represented::read(fields).map_err(refuse)?;
        let count = edits.iter().filter_map(|edit| edit.name.as_deref());
        let key = represented.key();
        let count = count.filter(|name| name.rsplit_once('#').is_some_and(|(other, _)| other == key)).count();
        let name = format!("{key}#{count}");
        let mut edit = represented.edit(folder, &name, class, dimension).map_err(|e| match e {
            Error::Experiment { problem, hint, .. } => {
                Error::File { path: path.clone(), problem: format!("\"{name}\": {problem}"), hint }
            }
            other => other,
        })?;
        if let Some(link) = represented.link {
            match linked.get(&link) {
                None => drop(linked.insert(link, name)),
                Some(first) => {
                    edit.op = OpFile::Link(LinkFile { link: first.clone() });
                    edit.parameters = None;
                }
            }
        }
        edits.push(edit);
    }
    if edits.is_empty() {
        return Err(refuse("holds no intervention".into()));
    }
    Ok(Description {
        version: VERSION,
        base: BaseModel::default(),
        edit: edits,
        made: Made { by: "pyvene".into(), how: String::new() },
        test: None,
    })
}

/// One of pyvene's representations.
struct Represented {
    layer: usize,
    component: String,
    unit: String,
    units: usize,
    partition: BTreeMap<String, Indices>,
    link: Option<String>,
}

impl Represented {
    fn read(fields: &Value) -> Result<Self, String> {
        let wrong = || format!("a representation is not pyvene's list of {FIELDS} fields");
        let fields = fields.as_array().filter(|fields| fields.len() == FIELDS).ok_or_else(wrong)?;
        let number = |field: &Value| field.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
        let text = |field: &Value| field.as_str().map(str::to_owned).ok_or_else(wrong);
        if !fields[10].is_null() {
            return Err("a representation has a moe_key, which is not supported".into());
        }
        Ok(Self {
            layer: number(&fields[0])?,
            component: text(&fields[1])?,
            unit: text(&fields[2])?,
            units: number(&fields[3])?,
            partition: partition(&fields[7])?,
            link: fields[9].as_str().map(str::to_owned).or_else(|| fields[9].as_i64().map(|n| n.to_string())),
        })
    }

    fn key(&self) -> String {
        format!("layer_{}_comp_{}_unit_{}_nunit_{}", self.layer, self.component, self.unit, self.units)
    }

    fn edit(&self, folder: &Path, name: &str, class: &Value, dimension: &Value) -> Result<EditFile> {
        let wrong = |problem: String| Error::part(name, problem);
        let class = class.as_str().unwrap_or_default();
        let class = class.trim_end_matches("'>").rsplit(['.', '\'']).next().unwrap_or_default();
        let Some((_, kind)) = CLASSES.iter().find(|(known, _)| *known == class) else {
            let known = CLASSES.map(|(known, _)| known).join(", ");
            return Err(wrong(format!("is a {class:?}; what can be loaded are {known}")));
        };
        let site = Site::all().find(|site| site.name() == self.component);
        let site = site.ok_or_else(|| wrong(format!("\"{}\" is no site", self.component)))?;
        let joint = match (self.unit.as_str(), self.units) {
            ("pos" | "h.pos" | "h", 1) => None,
            ("pos", 2..) => Some(Joint::Positions),
            ("h.pos" | "h", 2..) => Some(Joint::Heads),
            (unit, units) => {
                return Err(wrong(format!("is of {units} units \"{unit}\", where positions or heads fit")));
            }
        };
        let mut state = State::open(folder, name)?;
        let (parameters, width) = state.parameters(*kind)?;
        let source = state.take("source_representation")?;
        // NodiReFT's projection has a bias that nothing is computed with.
        let unused = if *kind == OpKind::Nodireft { "proj_layer.bias" } else { "" };
        state.finish(&["embed_dim", "interchange_dim", "intervention_population", unused])?;
        let info = kind.info();
        let mut edit = EditFile {
            name: Some(name.into()),
            site: Some(self.component.clone()),
            layers: site.is_in_block().then(|| Indices::from(self.layer)),
            op: OpFile::Name(info.name.into()),
            partition: self.partition.clone(),
            // What is done to each number by itself knows no joint vectors.
            joint: joint.filter(|_| info.is_of_rows),
            ..EditFile::default()
        };
        if !parameters.is_empty() {
            edit.parameters = Some(ParametersFile::Each(parameters));
        }
        let width = width.or(source.as_ref().map(Tensor::elem_count));
        if let Some(source) = source {
            let values = numbers(&source.flatten_all()?)?;
            edit.value = Some(Box::new(ValueFile { values: Some(values), ..ValueFile::default() }));
        }
        edit.dims = dims(*kind, dimension.as_u64(), width, self.units).map_err(wrong)?;
        Ok(edit)
    }
}

/// The dimensions that pyvene's interchange_dim means, as each class has it.
fn dims(
    kind: OpKind,
    dimension: Option<u64>,
    width: Option<usize>,
    units: usize,
) -> Result<Option<DimsFile>, String> {
    let Some(n) = dimension.and_then(|n| i64::try_from(n).ok()) else { return Ok(None) };
    let is_whole = width.is_some_and(|width| i64::try_from(width).is_ok_and(|width| width == n));
    let first = || Some(DimsFile::Indices(Indices::Range(0, Some(n))));
    Ok(match (kind, kind.info().subspace) {
        // One latent, by its number.
        (OpKind::AutoencoderSwap, _) => Some(DimsFile::Indices(Indices::List(vec![n]))),
        (OpKind::JumpReluAutoencoder, _) => first(),
        // These look at no interchange_dim.
        (OpKind::LowRankSwap | OpKind::SigmoidMask, _) | (_, Subspace::None) => None,
        _ if is_whole => None,
        _ if units > 1 => {
            return Err(format!(
                "its interchange_dim {n} is of {units} units together, and may be part of them"
            ));
        }
        _ => first(),
    })
}

/// pyvene's partitions are lists of parts; a part of two numbers is a range.
fn partition(field: &Value) -> Result<BTreeMap<String, Indices>, String> {
    let wrong = || "a subspace_partition is no list of lists of numbers".to_string();
    if field.is_null() {
        return Ok(BTreeMap::new());
    }
    let parts = field.as_array().ok_or_else(wrong)?.iter().enumerate();
    parts
        .map(|(index, part)| {
            let numbers: Option<Vec<i64>> =
                part.as_array().ok_or_else(wrong)?.iter().map(Value::as_i64).collect();
            Ok((
                index.to_string(),
                match numbers.ok_or_else(wrong)?.as_slice() {
                    [start, end] => Indices::Range(*start, Some(*end)),
                    list => Indices::List(list.to_vec()),
                },
            ))
        })
        .collect()
}

/// The state dict of an intervention; none where pyvene saves none.
struct State {
    weights: Option<Weights>,
    taken: Vec<String>,
    name: String,
}

type Parameters = BTreeMap<String, ParameterFile>;

impl State {
    fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("intkey_{name}.bin"));
        let exists = path.symlink_metadata().is_ok();
        let weights = exists.then(|| Weights::from_torch(&path)).transpose()?;
        Ok(Self { weights, taken: Vec::new(), name: name.into() })
    }

    /// A tensor, if there is one of that name.
    fn take(&mut self, name: &str) -> Result<Option<Tensor>> {
        let Some(weights) = &self.weights else { return Ok(None) };
        let Some(entry) = weights.entries().find(|entry| entry.name == name) else { return Ok(None) };
        self.taken.push(name.into());
        Ok(Some(weights.take(name, &entry.shape.clone())?))
    }

    fn need(&mut self, name: &str) -> Result<Tensor> {
        let found = self.take(name)?;
        found.ok_or_else(|| Error::part(&self.name, format!("its file lacks \"{name}\"")))
    }

    /// The rotation that torch's raw numbers mean: base · map(original), or as it is.
    fn rotation(&mut self) -> Result<Tensor> {
        if let Some(plain) = self.take("rotate_layer")? {
            return Ok(plain);
        }
        let original = self.need(&format!("{ROTATION}.original"))?;
        let (rows, columns) = original.dims2()?;
        let turned = if rows == columns { exponential(&original)? } else { householder(&original)? };
        Ok(match self.take(&format!("{ROTATION}.0.base"))? {
            Some(base) => base.matmul(&turned)?,
            None => turned,
        })
    }

    /// The op's parameters by our names, and how wide they are.
    fn parameters(&mut self, kind: OpKind) -> Result<(Parameters, Option<usize>)> {
        let mut found: BTreeMap<&str, Tensor> = BTreeMap::new();
        let has = |name: &str| kind.info().parameter(name).is_some();
        if has("rotation") {
            found.insert("rotation", self.rotation()?);
        }
        if has("weight") {
            // pyreft's LoReFT writes these two without their module's name.
            let module = if kind == OpKind::Loreft { "" } else { "learned_source." };
            found.insert("weight", self.need(&format!("{module}weight"))?);
            found.insert("bias", self.need(&format!("{module}bias"))?);
        }
        if has("source") {
            found.insert("source", self.need("learned_source")?);
        }
        if has("projection") {
            found.insert("projection", self.need("proj_layer.weight")?);
        }
        if has("projection_bias")
            && let Some(bias) = self.take("proj_layer.bias")?
        {
            found.insert("projection_bias", bias);
        }
        if has("boundary") {
            found.insert("boundary", self.need("intervention_boundaries")?.reshape(())?);
        }
        if has("mask") {
            let name = if kind == OpKind::SigmoidMask { "mask" } else { "masks" };
            found.insert("mask", self.need(name)?);
        }
        if has("temperature") {
            found.insert("temperature", self.need("temperature")?.reshape(())?);
        }
        match kind {
            OpKind::AutoencoderSwap => {
                found.insert("W_enc", self.need("autoencoder.encoder.0.weight")?.t()?.contiguous()?);
                found.insert("b_enc", self.need("autoencoder.encoder.0.bias")?);
                found.insert("W_dec", self.need("autoencoder.decoder.0.weight")?.t()?.contiguous()?);
                found.insert("b_dec", self.need("autoencoder.decoder.0.bias")?);
            }
            OpKind::JumpReluAutoencoder => {
                for name in ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"] {
                    found.insert(name, self.need(name)?);
                }
            }
            _ => {}
        }
        let width = ["rotation", "W_enc"].iter().find_map(|name| found.get(name)).map(|x| x.dims()[0]);
        let width = width.or_else(|| found.get("mask").map(Tensor::elem_count));
        let written = found
            .iter()
            .map(|(name, tensor)| Ok(((*name).to_string(), ParameterFile::Numbers(numbers(tensor)?))));
        Ok((written.collect::<Result<_>>()?, width))
    }

    /// That everything in the file was used but what says nothing new.
    fn finish(&self, ignored: &[&str]) -> Result<()> {
        let Some(weights) = &self.weights else { return Ok(()) };
        let is_known = |name: &str| self.taken.iter().any(|taken| taken == name) || ignored.contains(&name);
        match weights.entries().find(|entry| !is_known(&entry.name)) {
            None => Ok(()),
            Some(extra) => {
                let problem =
                    format!("its file holds \"{}\", which is not used: the answers would differ", extra.name);
                Err(Error::part(&self.name, problem))
            }
        }
    }
}

/// The numbers of a tensor of at most two axes.
fn numbers(tensor: &Tensor) -> Result<NumbersFile> {
    let wide = |row: Vec<f32>| row.into_iter().map(|x| NumberFile(x.into())).collect::<Vec<_>>();
    Ok(match tensor.rank() {
        0 => NumbersFile::One(NumberFile(tensor.to_scalar::<f32>()?.into())),
        1 => NumbersFile::Row(wide(tensor.to_vec1()?)),
        _ => NumbersFile::Rows(tensor.to_vec2()?.into_iter().map(wide).collect()),
    })
}
