//! From an edit as it is written to what it asks for.

use super::autoencoder;
use super::making::Making;
use super::named::metric;
use super::value::{TensorsFile, layers, site};
use crate::error::Within;
use crate::experiment::edit::EditSpec;
use crate::experiment::{Experiment, partition};
use crate::formats::saved::{Saved, merged};
use crate::op::{OPS, Op, OpInfo, OpKind, Subspace};
use crate::schema::{
    DimsFile, EditFile, ExperimentFile, LinkFile, LoadFile, OpFile, ParameterFile, ParametersFile, RandomFile,
};
use crate::{Error, Result};
use candle_core::DType;
use causalcone_model::{Indices, Layout, Target};
use causalcone_ops::Activation;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// What is read once, however many edits name it.
pub(super) struct Shared<'r> {
    /// What is done about values and parameters that are drawn or fitted.
    pub(super) making: Making<'r>,
    /// Bytes of the parameters that were drawn.
    drawn: u64,
    /// Parameters, by what the edits write and the folder it is relative to.
    parameters: HashMap<String, Op>,
    /// Saved interventions, by their path.
    saved: HashMap<PathBuf, Rc<Saved>>,
}

impl<'r> Shared<'r> {
    pub(super) fn new(making: Making<'r>) -> Self {
        Self { making, drawn: 0, parameters: HashMap::new(), saved: HashMap::new() }
    }

    /// Parameters that are drawn, once it is known that they fit in memory beside those before them.
    fn drawn(&mut self, kind: OpKind, width: usize, random: &RandomFile, part: &str) -> Result<Op> {
        let part_name = || part.to_owned();
        let op = Op::new(kind);
        let bytes = op.drawn_bytes(width, random.rank).within(part_name)?;
        let memory = match self.making {
            Making::Outline => return op.outlined(width, random.rank).within(part_name),
            Making::Numbers(runtime) => runtime.memory,
        };
        let needed = self.drawn.saturating_add(bytes);
        if let Some(memory) = memory.filter(|memory| needed > *memory) {
            return Err(Error::memory(part, "the experiment with what is drawn", memory, needed));
        }
        self.drawn = needed;
        op.drawn(width, random.rank, random.random).within(part_name)
    }
}

impl ExperimentFile {
    /// An edit of the experiment; those before it are there already.
    pub(super) fn edit_spec(
        &self,
        experiment: &Experiment<'_>,
        edit: &EditFile,
        part: &str,
        shared: &mut Shared<'_>,
    ) -> Result<EditSpec> {
        let same_name = |other: &&EditFile| other.name.is_some() && other.name == edit.name;
        if self.edit.iter().filter(same_name).count() > 1 {
            return Err(Error::part(part, "another edit has the same name"));
        }
        let run = match &edit.run {
            Some(name) => experiment.find_run(name, part)?,
            None => experiment.default_run(part)?,
        };
        // What a saved edit says of itself is read beside its own weights.
        let (whole, its_file);
        let (edit, of_op, of_value) = match &edit.op {
            OpFile::Load(load) => {
                let saved = self.saved(experiment, load, part, shared)?;
                whole = merged(edit, saved.find(load, part)?, saved.edits(), part)?;
                its_file = saved.file();
                (&whole, &its_file, if edit.value.is_some() { self } else { &its_file })
            }
            _ => (edit, self, self),
        };
        let Some(site_name) = &edit.site else {
            return Err(Error::part(part, "needs a site: what is edited"));
        };
        let (site, layer) = site(site_name, experiment, part)?;
        let at = Target { layers: layers(edit.layers.as_ref(), layer, part)?, ..site.into() };
        let mut op = match &edit.op {
            OpFile::Name(name) => {
                of_op.named_op(experiment, edit, (op_kind(name, part)?, &at), part, shared)?
            }
            OpFile::Link(link) => linked_op(experiment, edit, link, part)?,
            OpFile::Load(_) => return Err(Error::part(part, "a saved intervention cannot load another")),
            OpFile::Given(closure) => self.inputs.op(&closure.given, part)?,
        };
        let value = edit.value.as_ref();
        let value = value.map(|value| of_value.value(experiment, value, &at, (part, shared.making)));
        op.value = value.transpose()?;
        op.scale = factor(edit, op.kind.info(), part)?;
        op.seed = edit.seed.unwrap_or(0);
        op.joint = edit.joint;
        op.gradient = edit.gradient.as_deref().map(|name| metric(name, part)).transpose()?;
        if op.gradient.is_some() && op.kind != OpKind::Collect {
            let hint = Some("gradient is for op = \"collect\"".into());
            let problem = format!("op \"{}\" reads no gradient", op.kind.info().name);
            return Err(Error::hinted(part, problem, hint));
        }
        Ok(EditSpec {
            name: edit.name.clone(),
            run,
            target: Target {
                positions: edit.positions.clone().unwrap_or(at.positions),
                heads: edit.heads.clone(),
                dims: dims(edit, part)?,
                ..at
            },
            op,
            partition: edit.partition.clone(),
            steps: edit.steps,
            until: edit.until.iter().map(|token| token.id(experiment.model, part)).collect::<Result<_>>()?,
        })
    }

    /// A saved intervention, checked against the model.
    fn saved(
        &self,
        experiment: &Experiment<'_>,
        load: &LoadFile,
        part: &str,
        shared: &mut Shared<'_>,
    ) -> Result<Rc<Saved>> {
        let path = self.data_path(&load.load);
        let saved = match shared.saved.get(&path) {
            Some(saved) => saved.clone(),
            None => Rc::new(Saved::open(&path)?),
        };
        saved.check(experiment.model(), load.any_weights, part)?;
        shared.saved.insert(path, saved.clone());
        Ok(saved)
    }

    /// An op by its name, with the parameters and settings written beside it.
    fn named_op(
        &self,
        experiment: &Experiment<'_>,
        edit: &EditFile,
        (kind, at): (OpKind, &Target),
        part: &str,
        shared: &mut Shared<'_>,
    ) -> Result<Op> {
        let mut op = match &edit.parameters {
            None => Op::new(kind),
            Some(parameters) => {
                let fitted_at = match parameters {
                    ParametersFile::Fit(_) | ParametersFile::Random(_) => format!("{at:?} {:?}", edit.dims),
                    _ => String::new(),
                };
                let key = format!("{:?} {} {parameters:?} {fitted_at}", self.folder, kind.info().name);
                let mut op = match shared.parameters.get(&key) {
                    Some(op) => op.clone(),
                    None => {
                        let op =
                            self.parameters(experiment, edit, (kind, at), parameters, (part, &mut *shared))?;
                        shared.parameters.insert(key, op.clone());
                        op
                    }
                };
                // The same tensors, but what trains one edit does not train the other.
                op.parameters = Arc::new((*op.parameters).clone());
                op
            }
        };
        let info = kind.info();
        if let Some((key, _)) = edit.settings().find(|(_, setting)| !info.settings.contains(setting)) {
            return Err(Error::part(part, format!("op \"{}\" has no {key}", info.name)));
        }
        op = op.between(edit.min, edit.max);
        if let Some(name) = &edit.activation {
            op.settings.activation = activation(name, part)?;
        }
        op.settings.add_error = edit.error.unwrap_or(op.settings.add_error);
        op.settings.centre = edit.centre.or(op.settings.centre);
        Ok(op)
    }

    /// The op's own tensors, from wherever they are.
    fn parameters(
        &self,
        experiment: &Experiment<'_>,
        edit: &EditFile,
        (kind, at): (OpKind, &Target),
        parameters: &ParametersFile,
        (part, shared): (&str, &mut Shared<'_>),
    ) -> Result<Op> {
        let device = experiment.model().device();
        match parameters {
            ParametersFile::Fit(fit) => {
                self.fitted_parameters(experiment, fit, (kind, at), (part, shared.making))
            }
            ParametersFile::Random(random) => {
                let width = width_of(experiment, edit, kind, at, part)?;
                shared.drawn(kind, width, random, part)
            }
            ParametersFile::All(name) => match self.data_path(name) {
                path if path.is_dir() => autoencoder::read(&path, name, kind, device, part),
                path => TensorsFile::open(&path, name, part)?.parameters(kind, device, part),
            },
            ParametersFile::Each(each) => {
                let mut op = Op::new(kind);
                for (name, parameter) in each {
                    let part = format!("{part}, parameter \"{name}\"");
                    let tensor = match parameter {
                        ParameterFile::Numbers(numbers) => {
                            numbers.tensor(device, &part)?.to_dtype(DType::F32)?
                        }
                        ParameterFile::From(from) => {
                            let file = TensorsFile::open(&self.data_path(&from.file), &from.file, &part)?;
                            file.take(from.tensor.as_deref(), Some(name), &part)?.to_device(device)?
                        }
                        ParameterFile::Given(given) => self.inputs.tensor(&given.given, &part)?,
                    };
                    op = op.parameter(name, tensor);
                }
                Ok(op)
            }
        }
    }
}

/// How wide a vector the op sees.
fn width_of(
    experiment: &Experiment<'_>,
    edit: &EditFile,
    kind: OpKind,
    at: &Target,
    part: &str,
) -> Result<usize> {
    if edit.joint.is_some() {
        let problem =
            "is joint, so that its parameters depend on its positions or heads and cannot be drawn here";
        let hint = Some("give its tensors: parameters = { rotation = … }".into());
        return Err(Error::hinted(part, problem, hint));
    }
    let width = match at.site.layout(experiment.model().config()) {
        Layout::Rows { width } | Layout::Heads { width, .. } => width,
        Layout::Attention { .. } => {
            let problem = format!("parameters are of vectors, and {} is a matrix of them", at.site.name());
            return Err(Error::part(part, problem));
        }
    };
    match dims(edit, part)? {
        Some(dims) if kind.info().subspace == Subspace::Site => {
            Ok(dims.resolve("dimension", width).within(|| part.into())?.len())
        }
        _ => Ok(width),
    }
}

/// The op of that name.
fn op_kind(name: &str, part: &str) -> Result<OpKind> {
    OpKind::by_name(name).filter(|kind| *kind != OpKind::Custom).ok_or_else(|| {
        let ops = OPS.iter().filter(|info| info.kind != OpKind::Custom);
        let names: Vec<&str> = ops.clone().map(|info| info.name).collect();
        let known = names.iter().copied().chain(ops.filter_map(|info| info.alias));
        let problem = format!("op \"{name}\" is not an op; the ops are {}", names.join(", "));
        Error::unknown(part, name, known, |_| problem)
    })
}

/// The op of an edit before this one, and the very same parameters.
fn linked_op(experiment: &Experiment<'_>, edit: &EditFile, link: &LinkFile, part: &str) -> Result<Op> {
    if edit.parameters.is_some() || edit.settings().next().is_some() {
        let problem = "is linked, so its parameters and settings are those of the other edit";
        return Err(Error::part(part, problem));
    }
    let named = || experiment.edits.iter().filter_map(|other| Some((other.name.as_deref()?, &other.op)));
    let found = named().find(|(name, _)| *name == link.link);
    found.map(|(_, op)| op.clone()).ok_or_else(|| {
        Error::unknown(part, &link.link, named().map(|(name, _)| name), |names| {
            let before = match named().next() {
                None => "none before it has a name".into(),
                Some(_) => format!("those before it: {names}"),
            };
            format!("is linked to \"{}\", which is no edit before it; {before}", link.link)
        })
    })
}

/// An activation function by the name model configurations have; "linear" is none.
fn activation(name: &str, part: &str) -> Result<Option<Activation>> {
    if name == "linear" {
        return Ok(None);
    }
    Activation::by_name(name).map(Some).ok_or_else(|| {
        let known = ["linear"].into_iter().chain(Activation::NAMES.map(|(known, _)| known));
        Error::unknown(part, name, known, |names| {
            format!("\"{name}\" is not an activation; they are {names}")
        })
    })
}

/// The dimensions an edit means, by number.
fn dims(edit: &EditFile, part: &str) -> Result<Option<Indices>> {
    let names: Vec<&str> = match &edit.dims {
        None => return Ok(None),
        Some(DimsFile::Indices(indices)) => return Ok(Some(indices.clone())),
        Some(DimsFile::Part(name)) => vec![name],
        Some(DimsFile::Parts(names)) => names.iter().map(String::as_str).collect(),
    };
    partition::dims_of(&edit.partition, &names, part).map(Some)
}

/// The scale of an op, or the level of noise: each has its own key.
fn factor(edit: &EditFile, info: &OpInfo, part: &str) -> Result<f64> {
    let is_noise = info.kind == OpKind::Noise;
    let is_drawn = is_noise && edit.value.is_none();
    let hinted = |problem: String, hint: &str| Err(Error::hinted(part, problem, Some(hint.into())));
    match (edit.scale, edit.level) {
        (Some(_), _) if is_noise => hinted("noise has a level, and no scale".into(), "write level = …"),
        (Some(_), _) if !info.takes_scale => {
            Err(Error::part(part, format!("op \"{}\" has no scale", info.name)))
        }
        (_, Some(_)) if !is_noise => {
            hinted(format!("op \"{}\" has no level", info.name), "level is for op = \"noise\"")
        }
        (_, None) if is_noise => hinted(
            "noise needs a level".into(),
            "level is its standard deviation; three times that of the word embeddings is usual",
        ),
        _ if edit.seed.is_some() && !is_drawn => {
            hinted(format!("op \"{}\" has no seed here", info.name), "seed is for noise that is drawn")
        }
        (scale, level) => Ok(scale.or(level).unwrap_or(1.0)),
    }
}
