//! From an experiment file to the experiment it describes.

use super::making::Making;
use super::named::{metric, named};
use super::op::Shared;
use super::value::site;
use crate::bounds;
use crate::error::Within;
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::experiment::dataset::Prompt;
use crate::experiment::dataset::{Example, Examples};
use crate::experiment::method::Method;
use crate::experiment::sweep::{Each, Sweep};
use crate::ids::EditId;
use crate::metric::Metric;
use crate::run::explain::Outline;
use crate::schema::{
    EditFile, EditRefFile, EditsFile, ExperimentFile, ObjectiveFile, OpFile, RunFile, SweepFile, TokenFile,
    TrainFile,
};
use crate::{Error, Result};
use causalcone_model::chat::Clock;
use causalcone_model::{Model, Site};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

impl ExperimentFile {
    /// Where a file that the experiment names is: beside the experiment file, else as it is written.
    pub fn data_path(&self, name: &str) -> PathBuf {
        let beside = self.folder.join(name);
        if beside.exists() { beside } else { name.into() }
    }

    /// The files it names, besides the model: examples, values, parameters, saved interventions.
    pub fn data_files(&self) -> Vec<PathBuf> {
        let saved = self.edit.iter().filter_map(|edit| match &edit.op {
            OpFile::Load(load) => Some(load.load.as_str()),
            _ => None,
        });
        let names = self.edit.iter().flat_map(EditFile::files).chain(saved);
        let of_training = self.train.iter().flat_map(TrainFile::files);
        let names = names.chain(of_training);
        names.chain(self.examples.as_deref()).flat_map(|name| files_at(self.data_path(name))).collect()
    }

    /// The experiment this describes, for a loaded model. Lines of its examples that cannot be read
    /// are found by [`Experiment::sift`], as are those that do not fit.
    ///
    /// # Errors
    /// When it does not fit the model or contradicts itself.
    pub fn experiment<'m>(&self, model: &'m Model) -> Result<Experiment<'m>> {
        self.experiment_with(model, &Runtime::default())
    }

    /// The same with a runtime of one's own: what is drawn must fit into its memory, and what is fitted to data sets is
    /// computed by it.
    ///
    /// # Errors
    /// As [`ExperimentFile::experiment`]; [`Error::Interrupted`] where whoever hears of progress says so.
    pub fn experiment_with<'m>(&self, model: &'m Model, runtime: &Runtime<'_>) -> Result<Experiment<'m>> {
        self.build(model, Making::Numbers(runtime))
    }

    /// The same as far as plans need it: nothing is drawn or fitted to a data set, however long that would take.
    ///
    /// # Errors
    /// As [`ExperimentFile::experiment`].
    pub fn outline<'m>(&self, model: &'m Model) -> Result<Outline<'m>> {
        Ok(Outline(self.build(model, Making::Outline)?))
    }

    fn build<'m>(&self, model: &'m Model, making: Making<'_>) -> Result<Experiment<'m>> {
        let examples = match (&self.examples, &self.inputs.examples) {
            (Some(_), Some(_)) => return Err(Error::part("examples", "are given, and named as a file too")),
            (Some(name), None) => Some(Examples::open(&self.data_path(name))?),
            (None, given) => given.clone().map(Examples::numbered),
        };
        let runs = self.declared_runs(examples.as_ref());
        for (part, n, most) in [("runs", runs.len(), bounds::RUNS), ("edit", self.edit.len(), bounds::EDITS)]
        {
            if n > most {
                return Err(Error::part(
                    part,
                    format!("{n} are more than the {most} one experiment may have"),
                ));
            }
        }
        let mut experiment = Experiment::new(model);
        experiment.clock = Clock::new(self.date);
        for (name, run) in runs {
            let part = || format!("run \"{name}\"");
            let bos = run.and_then(|run| run.bos);
            if run.is_some_and(|run| run.generation_prompt.is_some() && run.messages.is_none()) {
                return Err(Error::part(part(), "generation_prompt is for messages"));
            }
            let ids = match run.map(|run| (&run.prompt, &run.ids, &run.messages)) {
                None | Some((None, None, None)) if examples.is_some() => {
                    experiment.add_open_run(name, bos)?;
                    continue;
                }
                Some((Some(prompt), None, None)) => model.prompt(prompt, bos).within(part)?,
                Some((None, Some(ids), None)) if bos.is_none() => ids.clone(),
                Some((None, Some(_), None)) => return Err(Error::bos_of_ids(part())),
                Some((None, None, Some(messages))) => {
                    let generation_prompt = run.and_then(|run| run.generation_prompt).unwrap_or(true);
                    model.chat(messages, generation_prompt, bos, &experiment.clock).within(part)?
                }
                _ => return Err(Error::part(part(), "needs one of prompt, ids and messages")),
            };
            experiment.run_ids(name, ids)?;
        }
        experiment.examples = examples.map(Arc::new);
        let mut shared = Shared::new(making);
        for (index, edit) in self.edit.iter().enumerate() {
            let part = match &edit.name {
                Some(name) => format!("edit \"{name}\""),
                None => format!("edit {index}"),
            };
            let spec = self.edit_spec(&experiment, edit, &part, &mut shared)?;
            experiment.add(spec)?;
        }
        if let Some(read) = &self.read {
            if let Some(run) = &read.run {
                experiment.set_read_run(experiment.find_run(run, "read")?);
            }
            experiment.set_top(bounds::READ_TOP.check(read.top.unwrap_or(10))?);
            let id = |token: &TokenFile| token.id(model, "read");
            experiment.set_tokens(read.tokens.iter().map(id).collect::<Result<Vec<_>>>()?)?;
            let ids = |answer: &Prompt| answer.ids(model, "answers");
            experiment.set_answers(read.answers.iter().map(ids).collect::<Result<Vec<_>>>()?)?;
        }
        experiment.read_run()?;
        if let Some(sweep) = &self.sweep {
            let spec = self.sweep_spec(sweep, &experiment)?;
            experiment.set_sweep(spec);
        }
        Ok(experiment)
    }

    /// The runs: those with a table; with examples also those that something else names, and `base`
    /// where they give it or nothing else says what is edited. What examples call otherwise is a
    /// mistake of theirs.
    fn declared_runs(&self, examples: Option<&Examples>) -> BTreeMap<&str, Option<&RunFile>> {
        let mut runs: BTreeMap<&str, Option<&RunFile>> =
            self.runs.iter().map(|(name, run)| (name.as_str(), Some(run))).collect();
        let Some(examples) = examples else { return runs };
        let of_edits = self.edit.iter().filter_map(|edit| edit.run.as_deref());
        let of_values = self.edit.iter().filter_map(|edit| edit.value.as_ref()?.run.as_deref());
        let of_read = self.read.iter().filter_map(|read| read.run.as_deref());
        let of_train = self.train.iter().filter_map(|train| match &train.objective {
            Some(ObjectiveFile::Kl(kl)) => Some(kl.kl.as_str()),
            _ => None,
        });
        let named: BTreeSet<&str> = of_edits.chain(of_values).chain(of_read).chain(of_train).collect();
        let is_base = |example: Example| example.prompts.contains_key("base");
        let needs_base =
            self.runs.is_empty() && (named.is_empty() || self.edit.iter().any(|edit| edit.run.is_none()));
        if needs_base || examples.iter().filter_map(Result::ok).any(is_base) {
            runs.entry("base").or_default();
        }
        for name in named {
            runs.entry(name).or_default();
        }
        runs
    }

    /// The edit that is meant.
    pub(super) fn edit_ref(&self, reference: &EditRefFile, part: &str) -> Result<EditId> {
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
            Error::part(part, format!("there is no edit {given}; there are {}, {names}", self.edit.len()))
        })
    }

    fn sweep_spec(&self, sweep: &SweepFile, experiment: &Experiment<'_>) -> Result<Sweep> {
        let find = |reference: &EditRefFile| self.edit_ref(reference, "sweep");
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
            names => names.unwrap_or_default().iter().map(|name| match site(name, experiment, "sweep")? {
                (site, None) => Ok(site),
                (_, Some(_)) => {
                    Err(Error::part("sweep", format!("{name} names a layer, where sites are listed")))
                }
            }),
        };
        let metrics = match sweep.metrics.as_deref() {
            Some([]) => return empty("metrics"),
            names => names.unwrap_or_default().iter().map(|name| metric(name, "sweep")),
        };
        let methods = match sweep.methods.as_deref() {
            Some([]) => return empty("methods"),
            names => {
                names.unwrap_or_default().iter().map(|name| named("method", name, &Method::ALL, "sweep"))
            }
        };
        let scales = match sweep.scales.as_deref() {
            Some([]) => return empty("scales"),
            // As the same number: adding 0 makes 0 of −0.
            scales => scales.unwrap_or_default().iter().map(|scale| scale + 0.0).collect(),
        };
        Ok(Sweep {
            edits,
            layers: sweep.layers.map(|axis| axis.0),
            positions: sweep.positions.map(|_| Each),
            heads: sweep.heads.map(|_| Each),
            sites: sites.collect::<Result<Vec<Site>>>()?,
            scales,
            samples: sweep.samples,
            metrics: metrics.collect::<Result<Vec<Metric>>>()?,
            methods: methods.collect::<Result<Vec<Method>>>()?,
            steps: sweep.steps,
        })
    }
}

/// The file of that path, or all that are in the folder.
fn files_at(path: PathBuf) -> Vec<PathBuf> {
    let Ok(held) = std::fs::read_dir(&path) else {
        return vec![path];
    };
    let mut held: Vec<PathBuf> =
        held.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    held.sort();
    held
}
