//! Versions of runs: with none of the edits, with those that stay, with all of them as a cell has
//! them; each once in a plan.

use crate::compile::resolve::{Expanded, Selection};
use crate::experiment::Experiment;
use crate::ids::{EditId, RunId};
use crate::metric::Metric;
use crate::op::OpKind;
use crate::plan::{Cell, Edit, Gradient, Place, Plan, Read, Run};
use crate::{Error, Result};
use causalcone_model::Config;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Which edits a version of a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RunVersion {
    /// None.
    Original,
    /// All but the swept ones.
    Fixed,
    /// All, the swept ones as the cell has them.
    Edited,
}

/// Adds runs of one example to a plan, each version of a run once.
pub(crate) struct Compiler<'a> {
    pub(crate) experiment: &'a Experiment<'a>,
    pub(crate) expanded: Vec<Expanded>,
    /// By edit: whether it is swept.
    pub(crate) swept: Vec<bool>,
    /// By run: whether a swept edit reaches it.
    pub(crate) reached: Vec<bool>,
    /// By run: whether noise reaches it, with the edits of [`RunVersion::Fixed`], and with all.
    pub(crate) noisy: [Vec<bool>; 2],
    /// By run, version and, where noise reaches it, sample.
    pub(crate) made: HashMap<(RunId, RunVersion, Option<usize>), usize>,
    /// By version of a run and what follows its prompt.
    continued: HashMap<(usize, Arc<[u32]>), usize>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(experiment: &'a Experiment<'a>, swept_edits: &[EditId]) -> Result<Self> {
        experiment.no_steps()?;
        let ids = (0..experiment.edits.len()).map(EditId);
        let expanded: Vec<Expanded> =
            ids.map(|id| experiment.resolver(id).expand()).collect::<Result<_>>()?;
        let mut swept = vec![false; expanded.len()];
        for edit in swept_edits {
            swept[edit.0] = true;
        }
        check_acyclic(experiment, &expanded)?;
        let runs = experiment.runs.len();
        let is_noise = |edit: usize| expanded[edit].noise() > 0;
        let reached = reached_by(runs, &expanded, |_| true, |edit| swept[edit]);
        let fixed = reached_by(runs, &expanded, |edit| !swept[edit], is_noise);
        let all = reached_by(runs, &expanded, |_| true, is_noise);
        Ok(Self {
            experiment,
            expanded,
            swept,
            reached,
            noisy: [fixed, all],
            made: HashMap::new(),
            continued: HashMap::new(),
        })
    }

    /// Logits at the last position of a version of a run.
    pub(crate) fn logits(&self, run: RunId, made: usize, tokens: Option<Arc<[u32]>>) -> Read {
        Read::Logits { run: made, position: self.experiment.runs[run.0].ids.len() - 1, tokens }
    }

    /// What answers of several tokens are made of, after a version of a run: of each in turn the logits of its second
    /// token, its third …
    ///
    /// # Errors
    /// When one does not fit the context behind the prompt.
    pub(crate) fn answer_reads(&mut self, plan: &mut Plan, made: usize) -> Result<Vec<Read>> {
        let mut reads = Vec::new();
        for answer in &self.experiment.answers {
            let prompt = plan.runs[made].ids.len();
            let lengths = prompt + 1..prompt + answer.len();
            reads.extend(next_tokens(self.experiment.model.config(), lengths, |length| {
                self.continued(plan, made, &answer[..length - prompt])
            })?);
        }
        Ok(reads)
    }

    /// A version of a run that goes on after its prompt, with the same edits of it.
    fn continued(&mut self, plan: &mut Plan, made: usize, more: &[u32]) -> Result<usize> {
        let key = (made, more.into());
        if let Some(continued) = self.continued.get(&key) {
            return Ok(*continued);
        }
        let run = continued(&plan.runs[made], more);
        let checked = self.experiment.model.check(&run.ids);
        checked
            .map_err(|source| Error::Part { part: format!("run \"{}\" with an answer", run.name), source })?;
        plan.runs.push(run);
        self.continued.insert(key, plan.runs.len() - 1);
        Ok(plan.runs.len() - 1)
    }

    /// The read of a gradient with respect to a place of a run, with all edits made.
    pub(crate) fn gradient(
        &mut self,
        plan: &mut Plan,
        edit: EditId,
        metric: Metric,
        (run, place): (usize, Place),
    ) -> Result<Read> {
        let experiment = self.experiment;
        let refuse = |problem: String, hint: Option<String>| {
            Err(Error::hinted(experiment.edit_name(edit), problem, hint))
        };
        let tokens = experiment.tokens();
        if metric.is_stepwise() {
            let hint = Some("use \"loss\" or \"logit_diff\"".into());
            return refuse(format!("metric \"{}\" is not differentiable", metric.name()), hint);
        }
        if tokens.len() < metric.needs_tokens() || metric.is_per_token() && tokens.len() > 1 {
            let (fits, name) = (metric.needs_tokens(), metric.name());
            let (fits, given) = (format!("{fits} of [read] tokens"), tokens.len());
            let hint = metric
                .is_per_token()
                .then(|| "a gradient is of one number: of one token, or \"logit_diff\"".into());
            return refuse(format!("the gradient of \"{name}\" needs {fits}, and there are {given}"), hint);
        }
        let label = metric.needs_label().then(|| experiment.label(metric.name())).transpose()?;
        let read_run = experiment.read_run()?;
        let mut answer = |version| -> Result<Read> {
            let made = self.version(plan, read_run, version, &Selection::default(), None)?;
            Ok(self.logits(read_run, made, None))
        };
        let (original, answer) = (answer(RunVersion::Original)?, answer(RunVersion::Fixed)?);
        let cell = Cell { reads: vec![answer.clone()], ..Cell::default() };
        if !plan.needed(&cell).contains(&run) {
            let name = &experiment.runs[read_run.0].name;
            let problem =
                format!("has no gradient: run \"{name}\", which is read, takes nothing from its run");
            return refuse(problem, None);
        }
        let tokens = tokens.into();
        Ok(Read::Gradient(Box::new(Gradient { metric, tokens, label, answer, original, run, place })))
    }

    /// The plan's number of a version of a run; adds it, after the runs it takes from, if it is new.
    pub(crate) fn version(
        &mut self,
        plan: &mut Plan,
        run: RunId,
        version: RunVersion,
        choice: &Selection,
        sample: Option<usize>,
    ) -> Result<usize> {
        let version = self.simplest(run, version);
        let is_noisy = match version {
            RunVersion::Original => false,
            RunVersion::Fixed => self.noisy[0][run.0],
            RunVersion::Edited => self.noisy[1][run.0],
        };
        let sample = sample.filter(|_| is_noisy);
        if let Some(made) = self.made.get(&(run, version, sample)) {
            return Ok(*made);
        }
        let mut edits = Vec::new();
        for index in 0..self.expanded.len() {
            if self.expanded[index].run != run || !self.applies(index, version) {
                continue;
            }
            let source = self.expanded[index].source();
            let source =
                source.map(|source| self.version(plan, source, version, choice, sample)).transpose()?;
            let chosen = if self.swept[index] { choice } else { &Selection::default() };
            edits.extend(self.expanded[index].edits(chosen, sample.unwrap_or(0), source));
        }
        let spec = &self.experiment.runs[run.0];
        plan.runs.push(Run { name: spec.name.clone(), ids: spec.ids.clone(), edits });
        self.made.insert((run, version, sample), plan.runs.len() - 1);
        Ok(plan.runs.len() - 1)
    }

    /// The version with the fewest edits that is the same run.
    fn simplest(&self, run: RunId, version: RunVersion) -> RunVersion {
        let version =
            if version == RunVersion::Edited && !self.reached[run.0] { RunVersion::Fixed } else { version };
        let is_edited =
            (0..self.expanded.len()).any(|i| self.expanded[i].run == run && self.applies(i, version));
        if is_edited { version } else { RunVersion::Original }
    }

    fn applies(&self, edit: usize, version: RunVersion) -> bool {
        let changes = self.experiment.edits[edit].op.kind != OpKind::Collect;
        changes && (version == RunVersion::Edited || version == RunVersion::Fixed && !self.swept[edit])
    }
}

/// Reads the next token's logits after a growing text, once for each of its lengths. `place` adds the text of a length to
/// the plan and returns its run; lengths that can share a pass ([`Config::shared_passes`]) share a run.
pub(crate) fn next_tokens(
    config: &Config,
    lengths: Range<usize>,
    mut place: impl FnMut(usize) -> Result<usize>,
) -> Result<Vec<Read>> {
    let mut reads = Vec::with_capacity(lengths.len());
    for stretch in config.shared_passes(lengths) {
        let run = place(stretch.end - 1)?;
        reads.extend(stretch.map(|length| Read::Logits { run, position: length - 1, tokens: None }));
    }
    Ok(reads)
}

/// A run that goes on after its prompt, with the same edits of it.
pub(crate) fn continued(run: &Run, more: &[u32]) -> Run {
    let prompt = run.ids.len();
    // A row of an attention matrix has as many key columns as the run is long: those of the prompt are meant.
    let edit = |edit: &Arc<Edit>| match edit.place.dims {
        None if edit.place.site.is_attention_matrix() => {
            let place = Place { dims: Some((0..prompt).collect()), ..edit.place.clone() };
            Arc::new(Edit { place, ..(**edit).clone() })
        }
        _ => edit.clone(),
    };
    Run {
        name: run.name.clone(),
        ids: run.ids.iter().chain(more).copied().collect(),
        edits: run.edits.iter().map(edit).collect(),
    }
}

/// By run: whether one of these edits changes it, or it takes a value from a run that is so reached.
fn reached_by(
    runs: usize,
    edits: &[Expanded],
    applies: impl Fn(usize) -> bool,
    starts: impl Fn(usize) -> bool,
) -> Vec<bool> {
    settled(vec![false; runs], |before, reached| {
        for (index, edit) in edits.iter().enumerate().filter(|(index, _)| applies(*index)) {
            reached[edit.run.0] |= starts(index) || edit.source().is_some_and(|source| before[source.0]);
        }
    })
}

/// By run: whether it is read, or a run that is read takes values from it by these edits, directly or not.
pub(super) fn feeding<'e>(
    runs: usize,
    read: impl IntoIterator<Item = RunId>,
    edits: &(impl Iterator<Item = &'e Expanded> + Clone),
) -> Vec<bool> {
    let mut feeds = vec![false; runs];
    read.into_iter().for_each(|run| feeds[run.0] = true);
    settled(feeds, |before, feeds| {
        for edit in edits.clone().filter(|edit| before[edit.run.0]) {
            feeds[edit.source().unwrap_or(edit.run).0] = true;
        }
    })
}

/// Repeats a step until it changes no mark. The step gets the marks before it, and those to change.
fn settled(mut marks: Vec<bool>, step: impl Fn(&[bool], &mut [bool])) -> Vec<bool> {
    loop {
        let before = marks.clone();
        step(&before, &mut marks);
        if marks == before {
            return marks;
        }
    }
}

/// Values must not go round in circles.
fn check_acyclic(experiment: &Experiment<'_>, expanded: &[Expanded]) -> Result<()> {
    // A run can be run once every run it takes from is.
    let can_run = settled(vec![false; experiment.runs.len()], |before, can_run| {
        can_run.fill(true);
        for edit in expanded {
            can_run[edit.run.0] &= edit.source().is_none_or(|source| before[source.0]);
        }
    });
    let runs = experiment.runs.iter().zip(can_run);
    let stuck: Vec<&str> = runs.filter_map(|(run, can_run)| (!can_run).then_some(&*run.name)).collect();
    if stuck.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "the runs {} take values from each other in a circle, so none of them can be run first",
        stuck.join(", ")
    );
    Err(Error::part("edits", problem))
}
