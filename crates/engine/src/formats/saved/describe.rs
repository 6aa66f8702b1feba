//! From an experiment to its description and tensors.

use super::format::{BaseModel, Description, Made, VERSION, WEIGHTS};
use super::intervention::Saved;
use super::test;
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::experiment::edit::EditSpec;
use crate::ids::EditId;
use crate::op::{Op, OpKind, Value};
use crate::schema::{
    DimsFile, EditFile, LinkFile, NumberFile, NumbersFile, OpFile, ParameterFile, ParametersFile, TensorFile,
    ValueFile,
};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_ops::Activation;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

impl Saved {
    /// All edits of an experiment, and what the model then answers as their self-test. `how` says for people
    /// how they were made.
    ///
    /// # Errors
    /// When an edit is a closure, there is none, or the experiment cannot be run.
    pub fn of(experiment: &Experiment<'_>, how: &str, runtime: &Runtime<'_>) -> Result<Self> {
        if experiment.edits.is_empty() {
            return Err(Error::part("save", "there is no edit to save"));
        }
        experiment.no_steps()?;
        let mut tensors = BTreeMap::new();
        let mut edits: Vec<EditFile> = Vec::new();
        for index in 0..experiment.edits.len() {
            let edit = describe(experiment, EditId(index), &mut tensors)?;
            if edits.iter().any(|other| other.name == edit.name) {
                let problem = "has the name that an edit without one is given";
                return Err(Error::part(experiment.edit_name(EditId(index)), problem));
            }
            edits.push(edit);
        }
        let description = Description {
            version: VERSION,
            base: BaseModel::of(experiment.model)?,
            edit: edits,
            made: Made { by: format!("causalcone {}", env!("CARGO_PKG_VERSION")), how: how.into() },
            test: Some(test::expected(experiment, runtime)?),
        };
        description.check().map_err(|problem| Error::part("save", problem))?;
        Ok(Self { description, tensors, folder: PathBuf::new() })
    }
}

/// The name under which an edit is saved: its own, or its number.
fn name_of(spec: &EditSpec, index: usize) -> String {
    spec.name.clone().unwrap_or_else(|| format!("edit{index}"))
}

/// One edit, with its tensors put among the others.
fn describe(
    experiment: &Experiment<'_>,
    id: EditId,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<EditFile> {
    let spec = &experiment.edits[id.0];
    let (op, target) = (&spec.op, &spec.target);
    let info = op.kind.info();
    let name = name_of(spec, id.0);
    if op.kind == OpKind::Custom {
        return Err(Error::part(experiment.edit_name(id), "is a closure, which cannot be saved"));
    }
    // Parameters that several edits share are there once.
    let same =
        |other: &EditSpec| !op.parameters.is_empty() && Arc::ptr_eq(&other.op.parameters, &op.parameters);
    let linked = experiment.edits[..id.0].iter().position(same);
    let of_op = linked.is_none();
    let parameters = if of_op { parameters(op, &name, tensors)? } else { None };
    let value = value(experiment, op, &name, tensors)?;
    let is_noise = op.kind == OpKind::Noise;
    let settings = &op.settings;
    let activation = settings.activation.and_then(|activation| {
        Activation::NAMES.iter().find(|(_, known)| *known == activation).map(|(name, _)| (*name).to_string())
    });
    Ok(EditFile {
        name: Some(name),
        run: Some(experiment.runs[spec.run.0].name.to_string()),
        site: Some(target.site.name().into()),
        layers: target.layers.clone(),
        positions: Some(target.positions.clone()),
        heads: target.heads.clone(),
        dims: target.dims.clone().map(DimsFile::Indices),
        partition: spec.partition.clone(),
        op: match linked {
            Some(other) => OpFile::Link(LinkFile { link: name_of(&experiment.edits[other], other) }),
            None => OpFile::Name(info.name.into()),
        },
        parameters,
        joint: op.joint,
        activation: activation.filter(|_| of_op),
        min: settings.min().filter(|_| of_op),
        max: settings.max().filter(|_| of_op),
        error: settings.add_error.then_some(true).filter(|_| of_op),
        centre: settings.centre.filter(|_| of_op),
        gradient: op.gradient.map(|metric| metric.name().into()),
        value: value.map(Box::new),
        scale: Some(op.scale).filter(|scale| info.takes_scale && !is_noise && *scale != 1.0),
        level: Some(op.scale).filter(|_| is_noise),
        seed: Some(op.seed).filter(|seed| is_noise && op.value.is_none() && *seed != 0),
        steps: None,
        until: Vec::new(),
    })
}

/// The parameters of an edit's op, where it has any.
fn parameters(op: &Op, name: &str, tensors: &mut BTreeMap<String, Tensor>) -> Result<Option<ParametersFile>> {
    let mut each = BTreeMap::new();
    for (parameter, tensor) in op.parameters.iter() {
        let kept = keep(tensors, format!("{name}.{parameter}"), tensor)?;
        each.insert(parameter.to_string(), ParameterFile::From(kept));
    }
    Ok((!each.is_empty()).then_some(ParametersFile::Each(each)))
}

/// The value of an edit, where it has one.
fn value(
    experiment: &Experiment<'_>,
    op: &Op,
    name: &str,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Option<ValueFile>> {
    Ok(match &op.value {
        None => None,
        Some(Value::Number(number)) => {
            Some(ValueFile { values: Some(NumbersFile::One(NumberFile(*number))), ..ValueFile::default() })
        }
        Some(Value::Tensor(tensor)) => Some(in_file(keep(tensors, format!("{name}.value"), tensor)?)),
        Some(Value::Layers(by_layer)) => {
            for (layer, tensor) in by_layer {
                keep(tensors, format!("{name}.value.{layer}"), tensor)?;
            }
            Some(in_file(TensorFile {
                file: WEIGHTS.into(),
                tensor: Some(format!("{name}.value.{{layer}}")),
            }))
        }
        Some(Value::Run(source)) => Some(ValueFile {
            run: Some(experiment.runs[source.run.0].name.to_string()),
            site: source.site.map(|site| site.name().into()),
            layers: source.layers.clone(),
            positions: source.positions.clone(),
            heads: source.heads.clone(),
            align: source.align,
            ..ValueFile::default()
        }),
    })
}

/// Puts a tensor among the others, as files have them.
fn keep(tensors: &mut BTreeMap<String, Tensor>, key: String, tensor: &Tensor) -> Result<TensorFile> {
    let plain = tensor.detach().to_dtype(DType::F32)?.to_device(&Device::Cpu)?.contiguous()?;
    tensors.insert(key.clone(), plain);
    Ok(TensorFile { file: WEIGHTS.into(), tensor: Some(key) })
}

fn in_file(tensor: TensorFile) -> ValueFile {
    ValueFile { file: Some(tensor.file), tensor: tensor.tensor, ..ValueFile::default() }
}
