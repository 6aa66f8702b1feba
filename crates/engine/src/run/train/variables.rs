//! What trains: the parameters of edits, as functions of numbers without constraint.

use super::adam::Moments;
use super::options::{Map, Options};
use crate::experiment::Experiment;
use crate::ids::EditId;
use crate::op::{Axis, Bound, OpKind, ParameterInfo, Parameters, completed};
use crate::{Error, Result};
use candle_core::{DType, Tensor, Var, backprop::GradStore};
use causalcone_ops::{Linear, cayley, exponential, householder};
use std::sync::Arc;

/// How far numbers of the Cayley transform turn, of a tall rotation and of a square one; found on the steps of
/// `bench/peers/das_train_pyvene.py`.
const TALL_REACH: f64 = 2.0;
const SQUARE_REACH: f64 = 0.35;

/// One tensor that trains.
#[derive(Debug)]
pub(super) struct Variable {
    /// Its parameter's name.
    pub(super) name: &'static str,
    /// The numbers.
    pub(super) raw: Var,
    how: How,
    pub(super) moments: Moments,
}

/// The parameter as a function of the numbers.
#[derive(Debug, Clone)]
enum How {
    /// Itself.
    Plain,
    /// From where it turns.
    Cayley(Tensor),
    /// What multiplies rows by the transpose of the square matrix that the reflections are multiplied to: frozen, where
    /// candle's product would make that matrix a gradient too.
    Householder(Linear),
    /// From where it turns.
    Exponential(Tensor),
}

/// The parameters of one edit, and of those that are linked to it.
#[derive(Debug)]
struct Group {
    kind: OpKind,
    /// As the plan's operations have them.
    parameters: Arc<Parameters>,
    /// Those of them that do not train, and defaults of those that do.
    start: Parameters,
    variables: Vec<Variable>,
}

/// All that trains.
#[derive(Debug)]
pub(super) struct Variables(Vec<Group>);

impl Variable {
    fn new(parameter: &'static ParameterInfo, start: &Tensor, options: &Options) -> Result<Self> {
        // Away from whatever else has them.
        let start = start.detach().to_dtype(DType::F32)?.copy()?;
        let (raw, how) = match (parameter.orthogonal, options.map) {
            (false, _) => (start, How::Plain),
            (true, Map::Cayley) => (start.zeros_like()?, How::Cayley(start)),
            (true, Map::Householder) => {
                let (rows, columns) = start.dims2()?;
                let base = match &options.base {
                    Some(base) => base.to_dtype(DType::F32)?,
                    None => completed(&start, options.seed)?,
                };
                // Reflections along the axes, and signs that take them back: the identity's first columns.
                let eye = Tensor::eye(rows, DType::F32, start.device())?;
                let base = Linear::new(base.t()?, None)?;
                (eye.narrow(1, 0, columns)?.neg()?.contiguous()?, How::Householder(base))
            }
            (true, Map::Exponential) => {
                let (rows, columns) = start.dims2()?;
                if rows != columns {
                    let problem =
                        format!("a rotation of {rows} × {columns} is not square, as an exponential is");
                    let hint = Some("rotations = \"cayley\" or \"householder\" have any rank".into());
                    return Err(Error::hinted("train", problem, hint));
                }
                (start.zeros_like()?, How::Exponential(start))
            }
        };
        let moments = Moments::zero(raw.elem_count());
        Ok(Self { name: parameter.name, raw: Var::from_tensor(&raw)?, how, moments })
    }

    /// The parameter, which autograd follows.
    fn tensor(&self) -> Result<Tensor> {
        let raw = self.raw.as_tensor();
        Ok(match &self.how {
            How::Plain => raw.clone(),
            How::Cayley(start) => {
                // So that a step turns as far as one of torch's own map at the same learning rate: of Householder
                // reflections where the rotation is tall, of the exponential where it is square, whose every turn is a
                // number of its own.
                let reach = if start.dim(0)? == start.dim(1)? { SQUARE_REACH } else { TALL_REACH };
                cayley(start, &(raw * reach)?)?
            }
            How::Householder(base) => base.forward(&householder(raw)?.t()?)?.t()?.contiguous()?,
            How::Exponential(start) => start.matmul(&exponential(raw)?)?,
        })
    }

    /// The numbers as they are.
    pub(super) fn numbers(&self) -> Result<Vec<f32>> {
        Ok(self.raw.flatten_all()?.to_vec1()?)
    }

    /// Other numbers in their place.
    pub(super) fn set(&self, numbers: Vec<f32>) -> Result<()> {
        let new = Tensor::from_vec(numbers, self.raw.dims(), self.raw.device())?;
        Ok(self.raw.set(&new)?)
    }

    /// Its gradient; zero where nothing depends on it.
    pub(super) fn slopes(&self, grads: &GradStore) -> Result<Vec<f32>> {
        match grads.get(&self.raw) {
            Some(grad) => Ok(grad.flatten_all()?.to_vec1()?),
            None => Ok(vec![0.0; self.raw.elem_count()]),
        }
    }
}

impl Variables {
    /// The parameters of these edits, or of all that have some that train.
    pub(super) fn new(experiment: &Experiment<'_>, options: &Options) -> Result<Self> {
        let trains = |edit: EditId| {
            let info = experiment.edits[edit.0].op.kind.info();
            info.parameters.iter().any(|parameter| parameter.trains)
        };
        let edits: Vec<EditId> = match options.edits.as_slice() {
            [] => (0..experiment.edits.len()).map(EditId).filter(|edit| trains(*edit)).collect(),
            named => named.to_vec(),
        };
        if let Some(edit) = edits.iter().find(|edit| edit.0 >= experiment.edits.len() || !trains(**edit)) {
            let what = match experiment.edits.get(edit.0) {
                Some(spec) => format!("op \"{}\" has no parameters that train", spec.op.kind.info().name),
                None => "is of another experiment".into(),
            };
            return Err(Error::part("train", format!("edit {}: {what}", edit.0)));
        }
        if edits.is_empty() {
            let hint =
                Some("such as op = \"low_rank_swap\" with parameters = { random = 0, rank = 8 }".into());
            return Err(Error::hinted("train", "no edit has parameters that train", hint));
        }
        let mut groups: Vec<Group> = Vec::new();
        for EditId(edit) in edits {
            let op = &experiment.edits[edit].op;
            if groups.iter().any(|group| Arc::ptr_eq(&group.parameters, &op.parameters)) {
                continue;
            }
            let mut start = op.parameters.map(|_, tensor| Ok(tensor.clone()))?;
            let mut variables = Vec::new();
            for parameter in op.kind.info().parameters.iter().filter(|parameter| parameter.trains) {
                let tensor = match (op.parameters.get(parameter.name), parameter.default) {
                    (Some(tensor), _) => tensor.clone(),
                    (None, Some(default)) => filled(op.kind, &op.parameters, parameter, default)?,
                    (None, None) => continue,
                };
                variables.push(Variable::new(parameter, &tensor, options)?);
                start = start.with(parameter.name, tensor);
            }
            groups.push(Group { kind: op.kind, parameters: op.parameters.clone(), start, variables });
        }
        let this = Self(groups);
        this.check(options)?;
        Ok(this)
    }

    fn check(&self, options: &Options) -> Result<()> {
        let infos = || self.0.iter().flat_map(|group| group.kind.info().parameters);
        if options.temperature.is_some() && !infos().any(|parameter| parameter.name == "temperature") {
            return Err(Error::part("train", "no op that trains has a temperature"));
        }
        let has_mask = infos().any(|parameter| ["mask", "boundary"].contains(&parameter.name));
        if options.sparsity > 0.0 && !has_mask {
            return Err(Error::part(
                "train",
                "sparsity is of masks and boundaries, and no op that trains has one",
            ));
        }
        let names = || self.iter().map(|variable| variable.name);
        if let Some(name) = options.learning_rates.keys().find(|name| !names().any(|known| known == *name)) {
            let mut known: Vec<&str> = names().collect();
            known.dedup();
            let problem = format!("learning_rates has \"{name}\", and what trains is {}", known.join(", "));
            return Err(Error::part("train", problem));
        }
        if let Some(base) = &options.base {
            let rotations: Vec<_> =
                self.iter().filter(|variable| matches!(variable.how, How::Householder(_))).collect();
            let fits = match rotations.as_slice() {
                [one] => one.raw.dim(0)?,
                other => {
                    let problem = format!("a base is of one rotation, and {} train", other.len());
                    return Err(Error::part("train", problem));
                }
            };
            if base.dims() != [fits, fits] {
                let problem = format!("the base has shape {:?}, where [{fits}, {fits}] fits", base.dims());
                return Err(Error::part("train", problem));
            }
        }
        Ok(())
    }

    /// All of them, in the order of edits and of the table.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().flat_map(|group| &group.variables)
    }

    /// All of them, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Variable> {
        self.0.iter_mut().flat_map(|group| &mut group.variables)
    }

    /// What stands in for the edits' parameters: what autograd follows, or the same numbers without.
    pub(super) fn bound(&self, temperature: Option<f64>, is_followed: bool) -> Result<Bound> {
        let mut bound = Bound::default();
        for group in &self.0 {
            bound.bind(&group.parameters, group.now(temperature, is_followed)?);
        }
        Ok(bound)
    }

    /// The parameters of an edit as they now are, if they train.
    pub(super) fn of(
        &self,
        parameters: &Arc<Parameters>,
        temperature: Option<f64>,
    ) -> Result<Option<Parameters>> {
        let group = self.0.iter().find(|group| Arc::ptr_eq(&group.parameters, parameters));
        group.map(|group| group.now(temperature, false)).transpose()
    }

    /// The mean of each mask, added up: the part of the coordinates that is exchanged.
    pub(super) fn exchanged(&self, bound: &Bound) -> Result<Option<Tensor>> {
        let mut sum: Option<Tensor> = None;
        for group in &self.0 {
            let Some(now) = bound.get(&group.parameters) else { continue };
            for parameter in group.kind.info().parameters {
                let mean = match (parameter.name, now.get(parameter.name)) {
                    ("boundary", Some(boundary)) => boundary.maximum(1e-3)?.minimum(1.0)?.mean_all()?,
                    ("mask", Some(mask)) => {
                        let temperature = now.get("temperature").cloned();
                        let default = group.kind.info().parameter("temperature").and_then(|p| p.default);
                        let scaled = match temperature {
                            Some(temperature) => mask.broadcast_div(&temperature)?,
                            None => (mask / default.unwrap_or(1.0))?,
                        };
                        (((scaled * 0.5)?.tanh()? + 1.0)? * 0.5)?.mean_all()?
                    }
                    _ => continue,
                };
                sum = Some(match sum {
                    Some(sum) => (sum + mean)?,
                    None => mean,
                });
            }
        }
        Ok(sum)
    }
}

impl Group {
    fn now(&self, temperature: Option<f64>, is_followed: bool) -> Result<Parameters> {
        let mut now = self.start.map(|_, tensor| Ok(tensor.clone()))?;
        for variable in &self.variables {
            let tensor = variable.tensor()?;
            now = now.with(variable.name, if is_followed { tensor } else { tensor.detach() });
        }
        let has_temperature = self.kind.info().parameter("temperature").is_some();
        if let Some(temperature) = temperature.filter(|_| has_temperature) {
            now = now.with("temperature", Tensor::new(temperature as f32, &candle_core::Device::Cpu)?);
        }
        Ok(now)
    }
}

/// A parameter that was left out, at its default, in the shape that the others say.
fn filled(kind: OpKind, given: &Parameters, parameter: &ParameterInfo, default: f64) -> Result<Tensor> {
    let size = |axis: &Axis| {
        let of = |other: &ParameterInfo| {
            let place = other.shape.iter().position(|own| own == axis)?;
            given.get(other.name).map(|tensor| tensor.dims()[place])
        };
        kind.info().parameters.iter().find_map(of).unwrap_or(1)
    };
    let shape: Vec<usize> = parameter.shape.iter().map(size).collect();
    Ok(Tensor::full(default as f32, shape, &candle_core::Device::Cpu)?)
}
