//! From an experiment file to the experiment it describes.

use super::{
    EditFile, EditRefFile, EditsFile, ExperimentFile, NumberFile, NumbersFile, RunFile, SweepFile, TokenFile,
    ValueFile,
};
use crate::dataset::{self, Example, Refused};
use crate::error::Within;
use crate::experiment::{EditId, EditSpec, Experiment, Sweep};
use crate::metric::Metric;
use crate::op::{OPS, Op, OpInfo, OpKind, Source, Value};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::file::Weights;
use causalcone_model::{Error as ModelError, Indices, Model, Positions, Site, Target, nearest};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// More runs or edits than anyone writes; their names are looked up in each other.
const MAX_RUNS: usize = 1024;
const MAX_EDITS: usize = 4096;

impl ExperimentFile {
    /// Where a file that the experiment names is: beside the experiment file, else as it is written.
    pub fn data_path(&self, name: &str) -> PathBuf {
        let beside = self.folder.join(name);
        if beside.exists() { beside } else { name.into() }
    }

    /// The experiment this describes, for a loaded model. Lines of its examples that cannot be read
    /// are found by [`Experiment::sift`], as are those that do not fit.
    ///
    /// # Errors
    /// When it does not fit the model or contradicts itself.
    pub fn experiment<'m>(&self, model: &'m Model) -> Result<Experiment<'m>> {
        let examples = self.examples.as_ref().map(|name| dataset::load(&self.data_path(name))).transpose()?;
        let runs = self.declared_runs(examples.as_deref());
        for (part, n, most) in [("runs", runs.len(), MAX_RUNS), ("edit", self.edit.len(), MAX_EDITS)] {
            if n > most {
                return Err(Error::part(
                    part,
                    format!("{n} are more than the {most} one experiment may have"),
                ));
            }
        }
        let mut experiment = Experiment::new(model);
        for (name, run) in runs {
            let part = || format!("run \"{name}\"");
            let bos = run.and_then(|run| run.bos);
            let ids = match run.map(|run| (&run.prompt, &run.ids)) {
                None | Some((None, None)) if examples.is_some() => {
                    experiment.add_open_run(name, bos)?;
                    continue;
                }
                Some((Some(prompt), None)) => model.prompt(prompt, bos).within(part)?,
                Some((None, Some(ids))) if bos.is_none() => ids.clone(),
                Some((None, Some(_))) => return Err(Error::bos_of_ids(part())),
                _ => return Err(Error::part(part(), "needs either prompt or ids")),
            };
            experiment.run_ids(name, ids)?;
        }
        experiment.examples = examples;
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

    /// The runs: those with a table; with examples also those that something else names, and `base`
    /// where they give it or nothing else says what is edited. What examples call otherwise is a
    /// mistake of theirs.
    fn declared_runs(
        &self,
        examples: Option<&[Result<Example, Refused>]>,
    ) -> BTreeMap<&str, Option<&RunFile>> {
        let mut runs: BTreeMap<&str, Option<&RunFile>> =
            self.runs.iter().map(|(name, run)| (name.as_str(), Some(run))).collect();
        let Some(examples) = examples else { return runs };
        let of_edits = self.edit.iter().filter_map(|edit| edit.run.as_deref());
        let of_values = self.edit.iter().filter_map(|edit| edit.value.as_ref()?.run.as_deref());
        let of_read = self.read.iter().filter_map(|read| read.run.as_deref());
        let named: BTreeSet<&str> = of_edits.chain(of_values).chain(of_read).collect();
        let is_base = |example: &Example| example.prompts.contains_key("base");
        let needs_base =
            self.runs.is_empty() && (named.is_empty() || self.edit.iter().any(|edit| edit.run.is_none()));
        if needs_base || examples.iter().flatten().any(is_base) {
            runs.entry("base").or_default();
        }
        for name in named {
            runs.entry(name).or_default();
        }
        runs
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
        let scale = factor(edit, info, part)?;
        let value = edit.value.as_ref().map(|value| self.value(experiment, value, part)).transpose()?;
        let op = Op { kind: info.kind, value, scale, seed: edit.seed.unwrap_or(0), custom: None };
        let positions = edit.positions.clone().unwrap_or(Positions::Indices(Indices::All));
        let target = Target { site, layers, positions, heads: edit.heads.clone(), dims: edit.dims.clone() };
        Ok(EditSpec { name: edit.name.clone(), run, target, op })
    }

    fn value(&self, experiment: &Experiment<'_>, value: &ValueFile, part: &str) -> Result<Value> {
        let model = experiment.model();
        let device = model.decoder().device();
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
            samples: sweep.samples,
            metrics: metrics.collect::<Result<Vec<Metric>>>()?,
        })
    }
}

impl TokenFile {
    /// The id it means.
    pub(crate) fn id(&self, model: &Model, part: &str) -> Result<u32> {
        let id = match self {
            Self::Id(id) => model.decoder().check(&[*id]).map(|()| *id),
            Self::Text(text) => model.token_id(text),
        };
        id.map_err(|source| Error::Part { part: part.into(), source })
    }
}

/// The scale of an op, or the level of noise: each has its own key.
fn factor(edit: &EditFile, info: &OpInfo, part: &str) -> Result<f64> {
    let is_noise = info.kind == OpKind::Noise;
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
        _ if edit.seed.is_some() && !is_noise => {
            hinted(format!("op \"{}\" has no seed", info.name), "seed is for op = \"noise\"")
        }
        (scale, level) => Ok(scale.or(level).unwrap_or(1.0)),
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
