//! What is asked, as data: runs, edits, reads, axes to sweep, and the examples of a data set.

pub mod dataset;
pub(crate) mod edit;
pub(crate) mod method;
pub(crate) mod partition;
pub(crate) mod per_example;
pub(crate) mod spaces;
pub(crate) mod steps;
pub(crate) mod sweep;
pub(crate) mod token;

use crate::error::{Origin, Within};
use crate::experiment::dataset::Examples;
use crate::experiment::edit::EditSpec;
use crate::experiment::spaces::{Spaced, spaced};
use crate::experiment::steps::Steps;
use crate::experiment::sweep::Sweep;
use crate::experiment::token::TokenFile;
use crate::ids::{EditId, RunId};
use crate::op::{OpKind, Parameters};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::chat::{Clock, Date};
use causalcone_model::{Indices, Model, nearest};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A prompt.
#[derive(Debug, Clone)]
pub(crate) struct RunSpec {
    pub(crate) name: Arc<str>,
    /// Empty where the examples give the prompt.
    pub(crate) ids: Arc<[u32]>,
    /// Whether a start-of-text token comes before the texts of examples.
    pub(crate) bos: Option<bool>,
}

/// Runs, the edits made to them, and what is read of them.
///
/// ```
/// use causalcone_engine::{Experiment, Op};
/// use causalcone_model::{Last, Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;                       // for instance "smollm2"
/// let mut exp = Experiment::new(&model);
/// let spain = exp.run("The capital of Spain is")?;
/// let italy = exp.run("The capital of Italy is")?;
/// exp.edit(spain, Site::BlockOutput.layers(0).at(Last), Op::swap(italy))?;
/// let result = exp.execute()?;
/// print!("{}", result.counterfactual(spain).top(10));
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Experiment<'m> {
    pub(crate) model: &'m Model,
    pub(crate) runs: Vec<RunSpec>,
    /// Shared by the experiments of all examples, as are the sweep and the data set.
    pub(crate) edits: Arc<Vec<EditSpec>>,
    pub(crate) read_run: Option<RunId>,
    pub(crate) top: usize,
    pub(crate) tokens: Vec<u32>,
    /// Answers of one token or more, by their ids.
    pub(crate) answers: Vec<Arc<[u32]>>,
    pub(crate) sweep: Option<Arc<Sweep>>,
    /// The data set, with those of its lines that are no examples.
    pub(crate) examples: Option<Arc<Examples>>,
    /// The example this is the experiment of.
    pub(crate) origin: Option<Origin>,
    /// The positions that example has names for.
    pub(crate) names: BTreeMap<String, Indices>,
    /// What that example says should come, as JSON.
    pub(crate) label: Option<String>,
    /// What chat templates read the date of. All examples share it.
    pub(crate) clock: Clock,
}

impl<'m> Experiment<'m> {
    /// An experiment without runs.
    pub fn new(model: &'m Model) -> Self {
        Self {
            model,
            runs: Vec::new(),
            edits: Arc::default(),
            read_run: None,
            top: 10,
            tokens: Vec::new(),
            answers: Vec::new(),
            sweep: None,
            examples: None,
            origin: None,
            names: BTreeMap::new(),
            label: None,
            clock: Clock::default(),
        }
    }

    /// Gives chat templates this date, instead of the local time. Set it before the first conversation.
    pub fn set_date(&mut self, date: Date) {
        self.clock = Clock::new(Some(date));
    }

    /// The date that chat templates have seen; none where no template has asked for it.
    pub fn seen_date(&self) -> Option<Date> {
        self.clock.seen()
    }

    /// The model it is for.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Adds a run of a text, named by its number.
    ///
    /// # Errors
    /// When the text cannot be a prompt of this model.
    pub fn run(&mut self, prompt: &str) -> Result<RunId> {
        let ids = self.model.prompt(prompt, None)?;
        self.run_ids(&self.runs.len().to_string(), ids)
    }

    /// Adds a run of token ids, with a name for messages.
    ///
    /// # Errors
    /// When there are none or too many, or one is outside the vocabulary; when the name is taken.
    pub fn run_ids(&mut self, name: &str, ids: Vec<u32>) -> Result<RunId> {
        self.model.check(&ids).within(|| format!("run \"{name}\""))?;
        self.add_run(RunSpec { name: name.into(), ids: ids.into(), bos: None })
    }

    pub(crate) fn add_run(&mut self, run: RunSpec) -> Result<RunId> {
        if self.runs.iter().any(|other| other.name == run.name) {
            return Err(Error::part(format!("run \"{}\"", run.name), "is given twice"));
        }
        self.runs.push(run);
        Ok(RunId(self.runs.len() - 1))
    }

    /// The token ids of a run; none for a run of another experiment, or one whose prompt the
    /// examples give.
    pub fn ids(&self, run: RunId) -> &[u32] {
        self.runs.get(run.0).map_or(&[], |run| &run.ids)
    }

    /// The run of that name.
    ///
    /// # Errors
    /// When there is none; says which there are.
    pub fn find_run(&self, name: &str, part: &str) -> Result<RunId> {
        let found = self.runs.iter().position(|run| &*run.name == name).map(RunId);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.runs.iter().map(|run| &*run.name).collect();
            let hint = nearest(name, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let problem = format!("there is no run \"{name}\"; the runs are: {}", names.join(", "));
            Error::hinted(part, problem, hint)
        })
    }

    /// Puts other tensors in place of the parameters of all edits, such as variables that train; what linked
    /// edits share is asked for once, for the first of them.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor, Var};
    /// use causalcone_engine::{Experiment, Op, OpKind};
    /// use causalcone_model::{Model, Site};
    ///
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
    /// let model = Model::load(path)?;
    /// let mut exp = Experiment::new(&model);
    /// let base = exp.run("The capital of Spain is")?;
    /// let rotation = Tensor::eye(32, DType::F32, &Device::Cpu)?.narrow(1, 0, 2)?.contiguous()?;
    /// let source = Tensor::zeros(2, DType::F32, &Device::Cpu)?;
    /// let op = Op::new(OpKind::Consreft).parameter("rotation", rotation).parameter("source", source);
    /// exp.edit(base, Site::BlockOutput.layers(0), op)?;
    /// let mut trained = Vec::new();
    /// exp.map_parameters(|_, name, tensor| {
    ///     let variable = Var::from_tensor(tensor)?;
    ///     trained.push((name.to_owned(), variable.clone()));
    ///     Ok(variable.as_tensor().clone())
    /// })?;
    /// assert_eq!(trained.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// What `f` returns.
    pub fn map_parameters(
        &mut self,
        mut f: impl FnMut(EditId, &str, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        let mut mapped: Vec<(Arc<Parameters>, Arc<Parameters>)> = Vec::new();
        for (index, edit) in Arc::make_mut(&mut self.edits).iter_mut().enumerate() {
            let old = edit.op.parameters.clone();
            edit.op.parameters = match mapped.iter().find(|(other, _)| Arc::ptr_eq(other, &old)) {
                Some((_, new)) => new.clone(),
                None => Arc::new(old.map(|name, tensor| f(EditId(index), name, tensor))?),
            };
            mapped.push((old, edit.op.parameters.clone()));
        }
        Ok(())
    }

    /// Reads this run, in place of the one named base, or the only one.
    pub fn set_read_run(&mut self, run: RunId) {
        self.read_run = Some(run);
    }

    /// Lists so many of the likeliest tokens; 10 unless set.
    pub fn set_top(&mut self, n: usize) {
        self.top = n;
    }

    /// Records the probabilities of these tokens, by id.
    ///
    /// # Errors
    /// When one is outside the vocabulary or given twice.
    pub fn set_tokens(&mut self, ids: impl IntoIterator<Item = u32>) -> Result<()> {
        let ids: Vec<u32> = ids.into_iter().collect();
        ids.iter().try_for_each(|id| self.model.check(&[*id])).within(|| "read".into())?;
        let mut seen = HashSet::new();
        if let Some(id) = ids.iter().find(|id| !seen.insert(**id)) {
            let token = self.model.token_text(*id);
            return Err(Error::part("read", format!("token {token:?} (id {id}) is listed twice")));
        }
        self.tokens = ids;
        Ok(())
    }

    /// Records the probabilities of these answers, each by the ids of its tokens: how likely the model is to say them
    /// after the prompt of the run that is read. Edits are of the prompt; what comes after it is not edited.
    ///
    /// ```
    /// use causalcone_engine::{Experiment, Op};
    /// use causalcone_model::{Model, Site};
    ///
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
    /// let model = Model::load(path)?;
    /// let mut exp = Experiment::new(&model);
    /// let base = exp.run_ids("base", vec![3, 1, 4])?;
    /// exp.edit(base, Site::MlpOutput.layers(0), Op::zero())?;
    /// exp.set_answers(vec![vec![9], vec![9, 2, 6]])?;
    /// let outcome = exp.execute()?;
    /// let [short, long] = outcome.answers() else { unreachable!() };
    /// assert_eq!(short.counterfactual, outcome.counterfactual(base).distribution.logprob(9));
    /// assert!(long.counterfactual < short.counterfactual, "the same and two tokens more");
    /// # Ok::<(), causalcone_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// When one is empty, has an id outside the vocabulary, or is given twice.
    pub fn set_answers(&mut self, answers: impl IntoIterator<Item = Vec<u32>>) -> Result<()> {
        let answers: Vec<Vec<u32>> = answers.into_iter().collect();
        let mut seen = HashSet::new();
        for ids in &answers {
            ids.iter().try_for_each(|id| self.model.check(&[*id])).within(|| "answers".into())?;
            if ids.is_empty() {
                return Err(Error::part("answers", "one is empty: it has no token"));
            }
            if !seen.insert(ids) {
                let text = self.model.text(ids);
                return Err(Error::part("answers", format!("{text:?} is listed twice")));
            }
        }
        self.answers = answers.into_iter().map(Into::into).collect();
        Ok(())
    }

    /// The answers whose probabilities are recorded, by their ids.
    pub fn answers(&self) -> &[Arc<[u32]>] {
        &self.answers
    }

    /// How many of the likeliest tokens are listed.
    pub fn top(&self) -> usize {
        self.top
    }

    /// The tokens whose probabilities are recorded.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What is read, a label too, and is one token also with a space before it.
    pub(crate) fn spaced(&self, label: Option<u32>) -> Vec<Spaced> {
        let label = label.filter(|label| !self.tokens.contains(label));
        let tokens = self.tokens.iter().chain(&label).map(std::slice::from_ref);
        spaced(self.model, tokens.chain(self.answers.iter().map(|answer| &**answer)))
    }

    /// The token that should come next: the example's label, or the first of the tokens that are read.
    pub(crate) fn label(&self, what: &str) -> Result<u32> {
        let Some(written) = &self.label else {
            return self.tokens.first().copied().ok_or_else(|| {
                let problem = format!("\"{what}\" needs to know which token should come");
                let hint = "give each example a label, or [read] tokens, of which it is the first";
                Error::hinted("label", problem, Some(hint.into()))
            });
        };
        let wrong = || format!("{written} is neither a text that is one token nor a token id");
        let token: TokenFile = serde_json::from_str(written).map_err(|_| Error::part("label", wrong()))?;
        token.id(self.model, "label")
    }

    /// Sweeps these axes; `None` makes it a single experiment.
    pub fn set_sweep(&mut self, sweep: impl Into<Option<Sweep>>) {
        self.sweep = sweep.into().map(Arc::new);
    }

    /// The run called `base`, or the only one.
    ///
    /// # Errors
    /// When there is neither.
    pub fn default_run(&self, part: &str) -> Result<RunId> {
        match (self.runs.len(), self.runs.iter().position(|run| &*run.name == "base")) {
            (_, Some(base)) => Ok(RunId(base)),
            (1, None) => Ok(RunId(0)),
            (0, None) => Err(Error::part(part, "there is no run: add [runs.base] with a prompt")),
            _ => Err(Error::part(part, "must name its run, as there are several and none is called base")),
        }
    }

    /// The run that all edits are of.
    fn only_edited_run(&self) -> Option<RunId> {
        let first = self.edits.first()?.run;
        self.edits.iter().all(|edit| edit.run == first).then_some(first)
    }

    /// The run that is read: the one that was set, else the run called `base` or the only run, else the only run that is
    /// edited.
    ///
    /// # Errors
    /// As [`Experiment::default_run`].
    pub fn read_run(&self) -> Result<RunId> {
        let Some(run) = self.read_run else {
            return self.default_run("read").or_else(|refused| self.only_edited_run().ok_or(refused));
        };
        if run.0 < self.runs.len() {
            Ok(run)
        } else {
            Err(Error::part("read", "names a run of another experiment"))
        }
    }

    /// The run whose answers are read, if any are.
    pub(crate) fn answered_run(&self) -> Result<Option<RunId>> {
        if self.answers.is_empty() { Ok(None) } else { self.read_run().map(Some) }
    }

    /// What an edit is called in messages.
    pub(crate) fn edit_name(&self, id: EditId) -> String {
        self.edits[id.0].part_name(id)
    }

    /// The number of the example this is the experiment of, where it is of one.
    pub fn example(&self) -> Option<usize> {
        self.origin.as_ref().map(|origin| origin.number)
    }

    /// The name of the run that an edit is of; empty for an edit of another experiment.
    pub fn run_name_of(&self, edit: EditId) -> &str {
        let spec = self.edits.get(edit.0);
        spec.and_then(|spec| self.runs.get(spec.run.0)).map_or("", |run| &run.name)
    }

    /// Refuses edits of certain steps where no run grows.
    pub(crate) fn no_steps(&self) -> Result<()> {
        let is_stepped =
            |edit: &EditSpec| edit.steps.is_some_and(|steps| steps != Steps::All) || !edit.until.is_empty();
        let Some(index) = self.edits.iter().position(is_stepped) else { return Ok(()) };
        let problem = "steps and until are of a run that grows, and here none does";
        let hint = Some("use `generate`, or leave them out".into());
        Err(Error::hinted(self.edit_name(EditId(index)), problem, hint))
    }

    /// Refuses edits that only read; `results` has no place for what they read.
    pub(crate) fn no_collects(&self, results: &str) -> Result<()> {
        let Some(edit) = self.collects().next() else { return Ok(()) };
        let problem = format!("collect reads activations, which {results} has no place for");
        Err(Error::part(self.edit_name(edit), problem))
    }

    /// The edits that only read.
    pub(crate) fn collects(&self) -> impl Iterator<Item = EditId> + '_ {
        let kinds = self.edits.iter().enumerate();
        kinds.filter(|(_, edit)| edit.op.kind == OpKind::Collect).map(|(index, _)| EditId(index))
    }
}
