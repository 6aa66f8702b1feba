//! From a value as it is written to what it is.

use super::making::Making;
use crate::error::Within;
use crate::experiment::Experiment;
use crate::experiment::dataset::Examples;
use crate::formats::control_vector::ControlVector;
use crate::op::{Op, OpKind, Parameters, Source, Value};
use crate::run::statistics::{self, ByLayer, Fitted};
use crate::schema::{ExperimentFile, FitFile, LAYER, NumberFile, NumbersFile, ValueFile};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_model::file::Weights;
use causalcone_model::{Indices, Positions, Site, Target};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

impl ExperimentFile {
    /// The value of an edit at these places, all positions of them.
    pub(super) fn value(
        &self,
        experiment: &Experiment<'_>,
        value: &ValueFile,
        at: &Target,
        (part, making): (&str, Making<'_>),
    ) -> Result<Value> {
        let found = self.unscaled(experiment, value, at, (part, making))?;
        if let Some(norm) = value.norm.filter(|norm| !(norm.is_finite() && *norm > 0.0)) {
            return Err(Error::part(part, format!("norm {norm} of its value is no number above 0")));
        }
        let change = |layer: u64, tensor: Tensor| -> Result<Tensor> {
            let tensor = match value.random {
                Some(seed) => statistics::random_like(&tensor, seed, layer)?,
                None => tensor,
            };
            Ok(match value.norm {
                Some(norm) => statistics::with_norm(&tensor, norm)?,
                None => tensor,
            })
        };
        Ok(match found {
            found if value.norm.is_none() && value.random.is_none() => found,
            Value::Tensor(tensor) => Value::Tensor(change(0, tensor)?),
            Value::Layers(by_layer) => {
                let changed = |(layer, tensor)| Ok((layer, change(layer as u64, tensor)?));
                Value::Layers(by_layer.into_iter().map(changed).collect::<Result<_>>()?)
            }
            Value::Number(_) | Value::Run(_) => {
                let problem = "norm and random of a value are for constant vectors, not for a run's activations or one number";
                return Err(Error::part(part, problem));
            }
        })
    }

    fn unscaled(
        &self,
        experiment: &Experiment<'_>,
        value: &ValueFile,
        at: &Target,
        (part, making): (&str, Making<'_>),
    ) -> Result<Value> {
        let model = experiment.model();
        let device = model.device();
        let fitted = value.mean.as_ref().or(value.pca.as_ref());
        let kinds = [
            value.run.is_some(),
            value.mean.is_some(),
            value.pca.is_some(),
            value.embedding.is_some(),
            value.file.is_some(),
            value.values.is_some(),
            value.given.is_some(),
        ];
        if kinds.iter().filter(|given| **given).count() != 1 {
            return Err(Error::part(
                part,
                "value needs exactly one of run, mean, pca, embedding, file, values or, of a program, given",
            ));
        }
        let of_run = value.layers.is_some() || value.heads.is_some() || value.align.is_some();
        let of_either = value.site.is_some() || value.positions.is_some();
        if of_run && value.run.is_none() || of_either && value.run.is_none() && fitted.is_none() {
            return Err(Error::part(
                part,
                "layers, heads and align of a value need value = { run = … }, site and positions that or { mean = … } or { pca = … }",
            ));
        }
        if (value.minus.is_some() || value.examples.is_some()) && fitted.is_none() {
            let problem = "minus and examples of a value need value = { mean = … } or { pca = … }";
            return Err(Error::part(part, problem));
        }
        if let Some(run) = fitted {
            return self.fitted_value(experiment, run, value, at, (part, making));
        }
        if value.tensor.is_some() && value.file.is_none() {
            return Err(Error::part(part, "tensor needs value = { file = … }"));
        }
        if let Some(token) = &value.embedding {
            return Ok(Value::Tensor(model.embedding_of(token.id(model, part)?)?));
        }
        if let Some(name) = &value.given {
            return Ok(Value::Tensor(self.inputs.tensor(name, part)?));
        }
        if let Some(file) = &value.file {
            return self.value_of_file(file, value.tensor.as_deref(), device, part);
        }
        if let Some(run) = &value.run {
            let site = value.site.as_ref().map(|name| site(name, experiment, part)).transpose()?;
            return Ok(Value::Run(Source {
                run: experiment.find_run(run, part)?,
                site: site.map(|(site, _)| site),
                layers: layers(value.layers.as_ref(), site.and_then(|(_, layer)| layer), part)?,
                positions: value.positions.clone(),
                heads: value.heads.clone(),
                align: value.align,
            }));
        }
        match &value.values {
            Some(NumbersFile::One(number)) => Ok(Value::Number(number.0)),
            Some(numbers) => Ok(Value::Tensor(numbers.tensor(device, part)?)),
            None => Err(Error::part(part, "value is empty")),
        }
    }

    /// What is fitted to a run's activations over a data set, or to what they have more than another run's: the
    /// mean, or the first principal component.
    fn fitted_value(
        &self,
        experiment: &Experiment<'_>,
        run: &str,
        value: &ValueFile,
        at: &Target,
        (part, making): (&str, Making<'_>),
    ) -> Result<Value> {
        let mut at = at.clone();
        let (file, examples) = self.examples_for(value, run, part)?;
        if let Some(name) = &value.site {
            let (own, layer) = site(name, experiment, part)?;
            at.site = own;
            at.layers = layers(at.layers.as_ref(), layer, part)?;
        } else if self.sweep.as_ref().is_some_and(|sweep| sweep.sites.is_some()) {
            let problem = "its value is fitted at the edit's site, which the sweep changes";
            return Err(Error::hinted(part, problem, Some("give the value a site".into())));
        }
        at.positions = value.positions.clone().unwrap_or(at.positions);
        let runs: Vec<&str> = [Some(run), value.minus.as_deref()].into_iter().flatten().collect();
        let collecting = self.collecting(experiment, (file, examples), &runs, &at, part)?;
        let fitted = match (&value.pca, runs.len()) {
            (None, _) => Fitted::Means,
            (Some(_), 1) => Fitted::Components,
            (Some(_), _) => Fitted::Contrast,
        };
        if let Making::Numbers(_) = making {
            load_weights(experiment)?;
        }
        let found = fit(&collecting, fitted, making).map_err(|error| fitting(file, part, error))?;
        let mut found = on_device(found, experiment.model().device())?;
        Ok(match found.remove(&None) {
            Some(outside) => Value::Tensor(outside),
            None => Value::Layers(found.into_iter().filter_map(|(l, t)| Some((l?, t))).collect()),
        })
    }

    /// The data set that a value is fitted to, with a name for messages: the value's own, or the experiment's.
    fn examples_for<'v>(
        &'v self,
        value: &'v ValueFile,
        run: &str,
        part: &str,
    ) -> Result<(&'v str, Examples)> {
        match (&value.examples, &self.inputs.examples, &self.examples) {
            (Some(file), ..) | (None, None, Some(file)) => Ok((file, Examples::open(&self.data_path(file))?)),
            (None, Some(given), _) => Ok(("the data set", given.iter().cloned().collect())),
            (None, None, None) => {
                let fits = if value.pca.is_some() { "pca" } else { "mean" };
                let problem =
                    format!("value = {{ {fits} = \"{run}\" }} needs a data set, and the experiment has none");
                let hint = "add examples = \"FILE\" to the value: a JSON object for each example, one a line";
                Err(Error::hinted(part, problem, Some(hint.into())))
            }
        }
    }

    /// The principal components that an op's parameters are fitted to be.
    pub(super) fn fitted_parameters(
        &self,
        experiment: &Experiment<'_>,
        fit: &FitFile,
        (kind, at): (OpKind, &Target),
        (part, making): (&str, Making<'_>),
    ) -> Result<Op> {
        if kind != OpKind::PcaSwap {
            let problem =
                format!("principal components are for op \"pca_swap\", not \"{}\"", kind.info().name);
            return Err(Error::part(part, problem));
        }
        if self.sweep.as_ref().is_some_and(|sweep| sweep.sites.is_some()) {
            let problem = "its parameters are fitted at the edit's site, which the sweep changes";
            return Err(Error::part(part, problem));
        }
        let positions = fit.positions.clone().unwrap_or(Positions::Indices(Indices::All));
        let at = Target { positions, ..at.clone() };
        let examples = Examples::open(&self.data_path(&fit.examples))?;
        let collecting = self.collecting(experiment, (&fit.examples, examples), &[&fit.pca], &at, part)?;
        let of_file = |error| fitting(&fit.examples, part, error);
        let one_layer = |count: usize| match count {
            1 => Ok(()),
            _ => {
                let problem = format!("components are of one layer, and it names {count}");
                Err(Error::hinted(part, problem, Some("write an edit for each layer".into())))
            }
        };
        let Making::Numbers(runtime) = making else {
            let found = statistics::outline(&collecting, Fitted::Components).map_err(of_file)?.swap_remove(0);
            one_layer(found.len())?;
            let shape = found.into_values().next().unwrap_or_default();
            let width = shape.check_rank(fit.rank, &collecting).map_err(of_file)?;
            let shapes = [("components", vec![fit.rank, width]), ("mean", vec![width]), ("std", vec![width])];
            return Ok(Op { parameters: Arc::new(Parameters::outlined(shapes)?), ..Op::new(kind) });
        };
        load_weights(experiment)?;
        let found = statistics::components(&collecting, runtime, fit.rank, fit.standardise);
        let found = found.map_err(of_file)?.swap_remove(0);
        one_layer(found.len())?;
        let mut op = Op::new(kind);
        for found in found.into_values() {
            op = op.parameter("components", found.components);
            op = op.parameter("mean", found.mean).parameter("std", found.std);
        }
        Ok(op)
    }

    /// An experiment that collects from some runs of a data set, at the date of the one it is for.
    fn collecting<'m>(
        &self,
        experiment: &Experiment<'m>,
        (file, examples): (&str, Examples),
        names: &[&str],
        at: &Target,
        part: &str,
    ) -> Result<Experiment<'m>> {
        let mut collecting = Experiment::new(experiment.model());
        collecting.clock = experiment.clock.clone();
        let mut runs = BTreeMap::new();
        let first = match examples.iter().find_map(Result::ok) {
            Some(first) => first,
            // No line is an example: what is wrong with the first of them.
            None => examples.iter().next().transpose().map_err(Error::refused)?.unwrap_or_default(),
        };
        for name in first.prompts.keys() {
            runs.insert(name.as_str(), collecting.open_run(name)?);
        }
        for name in names {
            let Some(run) = runs.get(name) else {
                let problem =
                    |has: &str| format!("{file} has no prompts for \"{name}\"; it has them for {has}");
                return Err(Error::unknown(part, name, runs.into_keys(), problem));
            };
            collecting.collect(*run, at.clone())?;
        }
        collecting.examples = Some(Arc::new(examples));
        Ok(collecting)
    }

    /// A value from a file: one tensor, or one a layer where its name says so.
    fn value_of_file(&self, file: &str, tensor: Option<&str>, device: &Device, part: &str) -> Result<Value> {
        let path = self.data_path(file);
        if has_extension(&path, "gguf") {
            if tensor.is_some() {
                let problem = format!("{file} is a control vector, which has one tensor a layer to be used");
                return Err(Error::hinted(part, problem, Some("leave tensor out".into())));
            }
            return Ok(Value::Layers(on_device(ControlVector::read(&path)?.directions, device)?));
        }
        let tensors = TensorsFile::open(&path, file, part)?;
        let Some((before, after)) = tensor.and_then(|name| name.split_once(LAYER)) else {
            return Ok(Value::Tensor(tensors.take(tensor, None, part)?.to_device(device)?));
        };
        let mut by_layer = BTreeMap::new();
        for name in tensors.names() {
            let number = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            // As it is written: no sign, no zeros before it.
            if let Some(layer) = number.and_then(|n| n.parse::<usize>().ok().filter(|l| l.to_string() == n)) {
                by_layer.insert(layer, tensors.take(Some(name), None, part)?.to_device(device)?);
            }
        }
        if by_layer.is_empty() {
            return Err(tensors.lacks(&format!("{before}{LAYER}{after}"), part));
        }
        Ok(Value::Layers(by_layer))
    }
}

/// That something cannot be fitted to a data set.
fn fitting(file: &str, part: &str, error: Error) -> Error {
    match error {
        Error::Interrupted => Error::Interrupted,
        error => Error::hinted(part, format!("what is fitted to {file}: {error}"), error.hint()),
    }
}

/// Loads the weights before rows are computed, so that the computation gets the memory that the weights leave.
fn load_weights(experiment: &Experiment<'_>) -> Result<()> {
    experiment.model().decoder()?;
    Ok(())
}

/// Values fitted to what an experiment collects; for an outline ones of their shapes, which any op takes.
fn fit(collecting: &Experiment<'_>, fitted: Fitted, making: Making<'_>) -> Result<ByLayer<Tensor>> {
    let Making::Numbers(runtime) = making else {
        let one = |(layer, shape): (_, statistics::Shape)| {
            if fitted != Fitted::Means {
                shape.check_rank(1, collecting)?;
            }
            Ok((layer, Tensor::ones(shape.of_mean, DType::F32, &Device::Cpu)?))
        };
        return statistics::outline(collecting, fitted)?.swap_remove(0).into_iter().map(one).collect();
    };
    match fitted {
        Fitted::Means => {
            let mut means = statistics::means(collecting, runtime)?;
            let minus = means.split_off(1).pop().unwrap_or_default();
            let less = |(layer, mean): (_, Tensor)| {
                Ok((layer, minus.get(&layer).map_or(Ok(mean.clone()), |minus| mean - minus)?))
            };
            means.swap_remove(0).into_iter().map(less).collect()
        }
        Fitted::Components => {
            let found = statistics::components(collecting, runtime, 1, false)?.swap_remove(0);
            found.into_iter().map(|(layer, found)| Ok((layer, found.components.get(0)?))).collect()
        }
        Fitted::Contrast => statistics::contrast(collecting, runtime),
    }
}

/// Tensors on a device.
fn on_device<K: Ord>(tensors: BTreeMap<K, Tensor>, device: &Device) -> Result<BTreeMap<K, Tensor>> {
    tensors.into_iter().map(|(layer, tensor)| Ok((layer, tensor.to_device(device)?))).collect()
}

/// A file of tensors by name.
pub(super) struct TensorsFile<'a> {
    file: &'a str,
    weights: Weights,
}

impl<'a> TensorsFile<'a> {
    /// Opens a file that is called `file` in messages.
    pub(super) fn open(path: &Path, file: &'a str, part: &str) -> Result<Self> {
        let is_numpy = has_extension(path, "npz") || has_extension(path, "npy");
        let weights = if is_numpy { Weights::from_numpy(path) } else { Weights::from_safetensors(&[path]) };
        Ok(Self { file, weights: weights.within(|| part.into())? })
    }

    /// The names of its tensors, in order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.weights.entries().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// A tensor: the one of that name; if none is named, the only one, or the one of its usual name.
    pub(super) fn take(&self, name: Option<&str>, usual: Option<&str>, part: &str) -> Result<Tensor> {
        let mut entries = self.weights.entries();
        let found = match name {
            Some(name) => entries.find(|entry| entry.name == name),
            None if self.weights.entries().count() == 1 => entries.next(),
            None => entries.find(|entry| Some(entry.name.as_str()) == usual),
        };
        let Some(entry) = found else {
            return Err(match name.or(usual) {
                Some(name) => self.lacks(name, part),
                None => Error::part(part, format!("no tensor is named; {}", self.holds())),
            });
        };
        self.weights.take(&entry.name, &entry.shape).within(|| part.into())
    }

    /// All its tensors, as the parameters of an op that has those of these names.
    pub(super) fn parameters(&self, kind: OpKind, device: &Device, part: &str) -> Result<Op> {
        let info = kind.info();
        let mut op = Op::new(kind);
        for name in self.names() {
            if info.parameter(name).is_none() {
                let known: Vec<&str> = info.parameters.iter().map(|parameter| parameter.name).collect();
                let has = if known.is_empty() { "none".into() } else { known.join(", ") };
                let problem = format!(
                    "{} holds \"{name}\", which is no parameter of op \"{}\"; it has {has}",
                    self.file, info.name
                );
                return Err(Error::part(part, problem));
            }
            op = op.parameter(name, self.take(Some(name), None, part)?.to_device(device)?);
        }
        Ok(op)
    }

    /// That there is no such tensor.
    pub(super) fn lacks(&self, name: &str, part: &str) -> Error {
        Error::part(part, format!("there is no tensor \"{name}\"; {}", self.holds()))
    }

    fn holds(&self) -> String {
        let mut names = self.names();
        let more = if names.len() > 20 { ", …" } else { "" };
        names.truncate(20);
        format!("{} holds {}{more}", self.file, names.join(", "))
    }
}

impl NumbersFile {
    /// A number, a row, or a matrix of equally long rows.
    pub(super) fn tensor(&self, device: &Device, part: &str) -> Result<Tensor> {
        let plain = |numbers: &[NumberFile]| numbers.iter().map(|number| number.0).collect::<Vec<f64>>();
        Ok(match self {
            Self::One(number) => Tensor::new(number.0, device)?,
            Self::Row(row) => Tensor::new(plain(row), device)?,
            Self::Rows(rows) => {
                let width = rows.first().map_or(0, Vec::len);
                if width == 0 || rows.iter().any(|row| row.len() != width) {
                    return Err(Error::part(part, "the rows of values are empty or of different lengths"));
                }
                Tensor::from_vec(plain(&rows.concat()), (rows.len(), width), device)?
            }
        })
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
}

/// The site of that name, and the layer that a TransformerLens name says.
pub(super) fn site(name: &str, experiment: &Experiment<'_>, part: &str) -> Result<(Site, Option<usize>)> {
    Site::parse_for(name, experiment.model().config()).within(|| part.into())
}

/// The layers of an edit or value, which a TransformerLens name may have given already.
pub(super) fn layers(given: Option<&Indices>, named: Option<usize>, part: &str) -> Result<Option<Indices>> {
    let named = named.map(Indices::from);
    match (given, named) {
        (Some(given), Some(named)) if *given != named => {
            Err(Error::part(part, format!("layers = {given}, but the site's name says layer {named}")))
        }
        (Some(given), _) => Ok(Some(given.clone())),
        (None, named) => Ok(named),
    }
}
