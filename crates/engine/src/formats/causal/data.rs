//! Drawing data sets: pairs of settings, what their interchange says, and how often a language model is right.

use super::file::CausalFile;
use super::model::{CausalModel, Setting};
use crate::bounds;
use crate::execute::{Executor, Runtime};
use crate::metric::Distribution;
use crate::op::noise::below;
use crate::plan::{Cell, Plan, Read, Run};
use crate::{Error, Result};
use causalcone_model::{Model, Progress, Unit};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Examples and held-out examples unless said otherwise.
const EXAMPLES: usize = 100;
/// An example that is wanted is drawn at most so often, before it is said that there are no more.
const MAX_DRAWS: usize = 200;
/// Prompts answered together.
const TOGETHER: usize = 64;
/// Draws between two reports of progress: few enough that work can be stopped at once.
const DRAWS_AT_ONCE: usize = 1 << 14;

/// One example, as a line of a data set has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drawn {
    /// The prompts of `base` and of every source.
    #[serde(flatten)]
    pub prompts: BTreeMap<String, String>,
    /// Where each variable's last token stands in a prompt, as `RUN_VARIABLE`.
    pub positions: BTreeMap<String, usize>,
    /// What the causal model says of the interchange.
    pub label: String,
}

/// What was drawn, and what was found on the way.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DataSet {
    /// The examples.
    pub examples: Vec<Drawn>,
    /// Others, of settings that `examples` has none of.
    pub held_out: Vec<Drawn>,
    /// How many settings the causal model's inputs have.
    pub settings: usize,
    /// How many prompts the language model was asked, where only right ones are used.
    pub asked: usize,
    /// How many of these it answered rightly.
    pub right: usize,
}

/// A setting with its prompt.
#[derive(Clone)]
struct Prompted {
    text: String,
    ids: Vec<u32>,
    /// The position of the last token of every variable in it.
    positions: Vec<(String, usize)>,
    /// Of one token; `None` where it is none, which only matters where an answer is to be right: it cannot be.
    label: Option<u32>,
}

/// Draws for one file and language model.
struct Draw<'a> {
    file: &'a CausalFile,
    causal: CausalModel,
    model: &'a Model,
    runtime: &'a Runtime<'a>,
    prompted: HashMap<Setting, Prompted>,
    is_right: HashMap<Setting, bool>,
}

impl CausalFile {
    /// Draws the data set for a language model, which tells tokens and, where only right prompts are used, answers.
    ///
    /// The base of an example is drawn evenly over the labels, a source evenly over the values that are taken
    /// from it, and then evenly over the settings that have them; no example is drawn twice, and none in which
    /// every source is the base.
    ///
    /// # Errors
    /// When the file contradicts itself, a label is no single token, or there are fewer examples than wanted.
    pub fn draw(&self, model: &Model, runtime: &Runtime<'_>) -> Result<DataSet> {
        let causal = self.causal_model()?;
        self.check(&causal)?;
        let mut settings = causal.settings()?;
        let count = settings.len();
        // An order of its own, and those that are held out first in it.
        for index in (1..count).rev() {
            settings.swap(index, below(index + 1, self.seed, 0, index as u64));
        }
        let part = self.held_out.unwrap_or(0.0);
        let is_held_out = |index: &usize| (*index as f64) < part * count as f64;
        let others = settings.split_off((0..count).filter(is_held_out).count());
        let (held_out, settings) = (settings, others);
        let mut draw =
            Draw { file: self, causal, model, runtime, prompted: HashMap::new(), is_right: HashMap::new() };
        let wanted = [self.examples.unwrap_or(EXAMPLES), self.held_out_examples.unwrap_or(EXAMPLES)];
        let wanted = [wanted[0], if self.held_out.is_some() { wanted[1] } else { 0 }];
        let total = (wanted[0] + wanted[1]) as u64;
        let tell = |done: usize| match (runtime.progress)(Progress {
            what: "drawing",
            done: done as u64,
            total,
            unit: Unit::Examples,
        }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Interrupted),
        };
        let examples = draw.examples(&settings, wanted[0], 1, "examples", &tell)?;
        let held_out =
            draw.examples(&held_out, wanted[1], 2, "held_out_examples", &|done| tell(wanted[0] + done))?;
        let (asked, right) = draw.asked();
        Ok(DataSet { examples, held_out, settings: count, asked, right })
    }

    fn check(&self, causal: &CausalModel) -> Result<()> {
        if self.interchange.is_empty() {
            let hint = Some("write [interchange] source = [\"a variable\"]".into());
            return Err(Error::hinted("interchange", "there is no run that values are taken from", hint));
        }
        if self.interchange.contains_key("base") {
            return Err(Error::part("interchange", "\"base\" is the run that values are put into"));
        }
        let mut taken = HashSet::new();
        for (run, names) in &self.interchange {
            if crate::experiment::dataset::KEYS.contains(&run.as_str()) {
                let problem = format!("\"{run}\" means something else in a data set, and cannot be a run");
                return Err(Error::part("interchange", problem));
            }
            if names.is_empty() {
                return Err(Error::part("interchange", format!("\"{run}\" gives no variable")));
            }
            for name in names {
                causal.find(name)?;
                if !taken.insert(name) {
                    return Err(Error::part("interchange", format!("takes \"{name}\" twice")));
                }
            }
        }
        match self.held_out {
            Some(part) if !(part > 0.0 && part < 1.0) => {
                Err(Error::part("held_out", format!("is {part}, where a part between 0 and 1 fits")))
            }
            None if self.held_out_examples.is_some() => Err(Error::hinted(
                "held_out_examples",
                "there is nothing to draw them from",
                Some("add held_out, the part of the settings that is held out".into()),
            )),
            _ => {
                let counts = [
                    (bounds::CAUSAL_EXAMPLES, self.examples),
                    (bounds::CAUSAL_HELD_OUT_EXAMPLES, self.held_out_examples),
                ];
                counts
                    .into_iter()
                    .try_for_each(|(count, given)| given.map_or(Ok(()), |n| count.check(n).map(drop)))
            }
        }
    }
}

/// A run that values are taken from.
struct SourceRun<'f, 's> {
    run: &'f str,
    names: Vec<&'f str>,
    /// Settings by the values that are taken.
    groups: Vec<Vec<&'s Setting>>,
}

/// Settings by what something says of them.
fn grouped<K: Ord>(settings: &[Setting], say: impl Fn(&Setting) -> Result<K>) -> Result<Vec<Vec<&Setting>>> {
    let mut groups: BTreeMap<K, Vec<&Setting>> = BTreeMap::new();
    for setting in settings {
        groups.entry(say(setting)?).or_default().push(setting);
    }
    Ok(groups.into_values().collect())
}

impl Draw<'_> {
    fn examples<'s>(
        &mut self,
        settings: &'s [Setting],
        wanted: usize,
        stream: u64,
        what: &str,
        tell: &dyn Fn(usize) -> Result<()>,
    ) -> Result<Vec<Drawn>> {
        if wanted == 0 {
            return Ok(Vec::new());
        }
        if settings.is_empty() {
            // Few settings and a large `held_out`: the split gave all of them to the other part.
            let hint = Some("change held_out, or give the inputs more values".into());
            return Err(Error::hinted(what, "there is no setting left to draw them from", hint));
        }
        let by_label = grouped(settings, |setting| self.file.label(&self.causal, setting))?;
        let mut sources: Vec<SourceRun<'_, 's>> = Vec::new();
        for (run, names) in &self.file.interchange {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let values = |setting: &Setting| -> Result<Vec<String>> {
                names.iter().map(|name| Ok(self.causal.value(setting, name)?.to_owned())).collect()
            };
            let groups = grouped(settings, values)?;
            sources.push(SourceRun { run, names, groups });
        }
        let (mut found, mut seen): (Vec<Drawn>, HashSet<Vec<&'s Setting>>) = (Vec::new(), HashSet::new());
        let most = wanted * MAX_DRAWS;
        let mut drawn = 0;
        tell(0)?;
        while found.len() < wanted && drawn < most {
            let mut candidates: Vec<Vec<&'s Setting>> = Vec::new();
            // Where few settings are left, almost every draw repeats an earlier one.
            let until = most.min(drawn + DRAWS_AT_ONCE);
            while candidates.len() < TOGETHER && drawn < until {
                // A group evenly, then one of it.
                let pick = |groups: &[Vec<&'s Setting>], which: usize| {
                    let at = ((drawn * (1 + sources.len()) + which) as u64) * 2;
                    let group = &groups[below(groups.len(), self.file.seed, stream, at)];
                    group[below(group.len(), self.file.seed, stream, at + 1)]
                };
                let of_sources = sources.iter().zip(1..).map(|(source, which)| pick(&source.groups, which));
                let all: Vec<&Setting> = [pick(&by_label, 0)].into_iter().chain(of_sources).collect();
                drawn += 1;
                if all[1..].iter().any(|source| *source != all[0]) && seen.insert(all.clone()) {
                    candidates.push(all);
                }
            }
            let settings: BTreeSet<&Setting> = candidates.iter().flatten().copied().collect();
            self.prepare(&settings)?;
            for all in candidates {
                if found.len() == wanted {
                    break;
                }
                found.extend(self.example(&all, &sources)?);
            }
            tell(found.len())?;
        }
        if found.len() < wanted {
            let (asked, right) = self.asked();
            let asked = if self.file.only_right {
                format!("; the model answers {right} of the {asked} prompts that were asked rightly")
            } else {
                String::new()
            };
            let problem =
                format!("{wanted} are wanted, and in {drawn} draws {} were found{asked}", found.len());
            let hint = Some("ask for fewer, or give the inputs more values".into());
            return Err(Error::hinted(what, problem, hint));
        }
        Ok(found)
    }

    /// The example of a base and its sources; `None` where only others are wanted.
    fn example(&self, all: &[&Setting], sources: &[SourceRun<'_, '_>]) -> Result<Option<Drawn>> {
        if self.file.only_right && !all.iter().all(|s| self.is_right[*s]) {
            return Ok(None);
        }
        let taken = all[1..].iter().zip(sources).map(|(setting, of)| (*setting, of.names.as_slice()));
        let taken: Vec<(&Setting, &[&str])> = taken.collect();
        let swapped = self.causal.interchange(all[0], &taken)?;
        let label = self.file.label(&self.causal, &swapped)?;
        if self.file.only_changed && label == self.file.label(&self.causal, all[0])? {
            return Ok(None);
        }
        self.model.token_id(&label).map_err(|source| Error::Part { part: "label".into(), source })?;
        let runs = ["base"].into_iter().chain(sources.iter().map(|source| source.run));
        let mut example = Drawn { prompts: BTreeMap::new(), positions: BTreeMap::new(), label };
        for (run, setting) in runs.zip(all) {
            let prompted = &self.prompted[*setting];
            example.prompts.insert(run.to_owned(), prompted.text.clone());
            let named = prompted.positions.iter().map(|(name, at)| (format!("{run}_{name}"), *at));
            example.positions.extend(named);
        }
        Ok(Some(example))
    }

    /// How many prompts the model was asked, and how many of them it answered rightly.
    fn asked(&self) -> (usize, usize) {
        (self.is_right.len(), self.is_right.values().filter(|right| **right).count())
    }

    /// Makes the prompts of settings, and asks the model where it is to be right.
    fn prepare(&mut self, settings: &BTreeSet<&Setting>) -> Result<()> {
        for setting in settings {
            if !self.prompted.contains_key(*setting) {
                let prompted = self.prompted(setting)?;
                self.prompted.insert((*setting).clone(), prompted);
            }
        }
        if !self.file.only_right {
            return Ok(());
        }
        let open: Vec<&Setting> =
            settings.iter().copied().filter(|s| !self.is_right.contains_key(*s)).collect();
        let mut plan = Plan::default();
        for (run, setting) in open.iter().enumerate() {
            let ids: Arc<[u32]> = self.prompted[*setting].ids.clone().into();
            let read = Read::Logits { run, position: ids.len() - 1, tokens: None };
            plan.runs.push(Run { name: "base".into(), ids, edits: Vec::new() });
            plan.cells.push(Cell { runs: run..run + 1, reads: vec![read], ..Cell::default() });
        }
        let cells: Vec<&Cell> = plan.cells.iter().collect();
        let mut answers: Vec<Option<u32>> = vec![None; open.len()];
        self.runtime.execute(self.model, &plan, &cells, &mut |cell, readings| {
            let answer = readings.first().map(Distribution::read).transpose()?;
            answers[cell] = answer.and_then(|answer| answer.top_ids(1).first().copied());
            Ok(ControlFlow::Continue(()))
        })?;
        for (setting, answer) in open.into_iter().zip(answers) {
            let label = self.prompted[setting].label;
            let is_right = label.is_some() && answer == label;
            self.is_right.insert(setting.clone(), is_right);
        }
        Ok(())
    }

    fn prompted(&self, setting: &Setting) -> Result<Prompted> {
        let (text, ends) = self.file.filled("prompt", &self.file.prompt, &self.causal, setting)?;
        let in_part = |part: &'static str| move |source| Error::Part { part: part.into(), source };
        let ids = self.model.prompt(&text, None).map_err(in_part("prompt"))?;
        let label = self.file.label(&self.causal, setting)?;
        let label = match self.model.token_id(&label) {
            Err(_) if self.file.only_right => None,
            found => Some(found.map_err(in_part("label"))?),
        };
        let mut positions = Vec::new();
        for (name, end) in ends {
            // The tokens up to there, where the text can be cut there without other tokens.
            let before = self.model.prompt(&text[..end], None).map_err(in_part("prompt"))?;
            if ids.starts_with(&before) && !before.is_empty() {
                positions.push((name.to_owned(), before.len() - 1));
            }
        }
        Ok(Prompted { text, ids, positions, label })
    }
}
