//! A run that grows, compiled: its prompt with the edits made there, and what is edited at each decode step.

use crate::compile::resolve::Selection;
use crate::compile::run_versions::{Compiler, RunVersion, continued};
use crate::experiment::steps::Steps;
use crate::experiment::steps::grows;
use crate::experiment::{EditSpec, Experiment};
use crate::ids::{EditId, RunId};
use crate::op::Value;
use crate::plan::{Edit, Plan, Run};
use crate::{Error, Result};
use causalcone_model::{Indices, Positions};
use std::sync::Arc;

/// Which edits a text is made under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextVersion {
    /// None.
    Original,
    /// All.
    Edited,
}

/// The read run of one example's experiment, ready to grow.
#[derive(Debug)]
pub(super) struct Growing<'m> {
    /// With steps taken off its edits.
    experiment: Experiment<'m>,
    /// Which strength it is of, where there are several.
    scale: Option<f64>,
    /// Whether others of the same prompt have made the text without edits before.
    has_original: bool,
    run: RunId,
    /// Edits of the run that are not made in the prompt's pass.
    later: Vec<EditId>,
    /// Edits of the run that are made at decode steps: where their positions begin, and until when.
    decode: Vec<Decode>,
    /// Whether any edit changes the run.
    is_edited: bool,
}

#[derive(Debug)]
struct Decode {
    edit: EditId,
    steps: Steps,
    until: Vec<u32>,
}

/// A run in a plan, and the runs that its decode steps take values from.
pub(super) struct Placed {
    pub(super) run: usize,
    /// By decode edit.
    sources: Vec<Option<usize>>,
}

impl<'m> Growing<'m> {
    /// The growing runs of one example's experiment: one for each of its scales, if it has any.
    pub(super) fn all(experiment: Experiment<'m>) -> Result<Vec<Self>> {
        let by_scale = experiment.by_scale()?.into_iter().enumerate();
        by_scale
            .map(|(number, (scale, one))| Ok(Self { scale, has_original: number > 0, ..Self::new(one)? }))
            .collect()
    }

    fn new(mut experiment: Experiment<'m>) -> Result<Self> {
        let run = experiment.reading_run()?;
        if let Some(edit) = experiment.collects().next() {
            let problem = "collect reads activations, which a generated text has no place for";
            return Err(Error::part(experiment.edit_name(edit), problem));
        }
        let (mut later, mut decode) = (Vec::new(), Vec::new());
        for index in 0..experiment.edits.len() {
            let id = EditId(index);
            let spec = &mut Arc::make_mut(&mut experiment.edits)[index];
            let (given, until) = (spec.steps.take(), std::mem::take(&mut spec.until));
            let spec = &experiment.edits[index];
            let refuse = |problem: &str, hint: &str| {
                Err(Error::hinted(experiment.edit_name(id), problem, Some(hint.to_owned())))
            };
            if spec.run != run {
                if given.is_some() || !until.is_empty() {
                    let hint = "only the run that is read grows; leave out steps and until";
                    return refuse("has steps, but is of a run that does not grow", hint);
                }
                continue;
            }
            let does_grow = grows(&spec.target.positions);
            let steps = match given {
                Some(steps) if !steps.prompt() && !does_grow => {
                    let hint =
                        "positions that a run grows by are \"last\", \"all\", -1 and ranges without an end";
                    return refuse("is for decode steps, and its positions are the prompt's", hint);
                }
                Some(steps) if does_grow => steps,
                _ if does_grow => Steps::All,
                _ => Steps::Prompt,
            };
            if !until.is_empty() && !steps.decodes() {
                return refuse("has until, and is not made at decode steps", "leave out until");
            }
            if !steps.prompt() {
                later.push(id);
            }
            if steps.decodes() {
                decode.push(Decode { edit: id, steps, until });
            }
        }
        let mut growing =
            Self { experiment, scale: None, has_original: false, run, later, decode, is_edited: false };
        // All that can be wrong with an edit of the prompt, or of the first decode step it may be made in, is found here.
        let expanded = growing.compiler()?.expanded;
        growing.experiment.check_reach(&expanded)?;
        growing.is_edited = expanded.iter().any(|edit| edit.run == run);
        for decode in &growing.decode {
            growing.one_source_position(decode)?;
            growing.expand(decode, &[0], 0)?;
        }
        Ok(growing)
    }

    /// At a decode step there is one position, and one row of a source goes with it.
    fn one_source_position(&self, decode: &Decode) -> Result<()> {
        let spec = &self.experiment.edits[decode.edit.0];
        let Some(Value::Run(source)) = &spec.op.value else { return Ok(()) };
        let positions = source.positions.as_ref().unwrap_or(&spec.target.positions);
        let found = self.experiment.positions(positions, source.run, spec.run).map(|found| found.len());
        let is_all = self.experiment.is_all(positions).unwrap_or(false);
        if let (Ok(1), false) = (&found, is_all) {
            return Ok(());
        }
        let name = &self.experiment.runs[source.run.0].name;
        let given = match found {
            _ if is_all => "all positions".into(),
            Ok(n) => format!("{n} positions"),
            Err(_) => "no position".into(),
        };
        let problem = format!(
            "takes {given} of run \"{name}\", and a decode step has one position, which one row of a source goes with"
        );
        let hint = "give value a position, such as { run = \"…\", positions = \"last\" }, or the edit steps = \"prompt\"";
        Err(Error::hinted(self.experiment.edit_name(decode.edit), problem, Some(hint.into())))
    }

    fn compiler(&self) -> Result<Compiler<'_>> {
        Compiler::new(&self.experiment, &self.later)
    }

    /// The versions of its texts that are to be made: one where nothing edits it.
    pub(super) fn versions(&self) -> &'static [TextVersion] {
        match (self.has_original, self.is_edited) {
            (true, _) => &[TextVersion::Edited],
            (false, true) => &[TextVersion::Original, TextVersion::Edited],
            (false, false) => &[TextVersion::Original],
        }
    }

    /// Whether the text without edits is that of another strength's.
    pub(super) fn has_original(&self) -> bool {
        self.has_original
    }

    pub(super) fn scale(&self) -> Option<f64> {
        self.scale
    }

    pub(super) fn experiment(&self) -> &Experiment<'m> {
        &self.experiment
    }

    pub(super) fn example(&self) -> Option<usize> {
        self.experiment.example()
    }

    pub(super) fn prompt(&self) -> &Arc<[u32]> {
        &self.experiment.runs[self.run.0].ids
    }

    /// Adds the run, grown by some tokens, to a plan.
    pub(super) fn place(&self, plan: &mut Plan, version: TextVersion, grown: &[u32]) -> Result<Placed> {
        let mut compiler = self.compiler()?;
        let mut make = |run, version| compiler.version(plan, run, version, &Selection::default(), None);
        if version == TextVersion::Original {
            let made = make(self.run, RunVersion::Original)?;
            return Ok(Placed { run: self.grown(plan, made, grown, &[])?, sources: Vec::new() });
        }
        let made = make(self.run, RunVersion::Fixed)?;
        let sources = self.decode.iter().map(|decode| {
            let source = match &self.experiment.edits[decode.edit.0].op.value {
                Some(Value::Run(source)) => Some(source.run),
                _ => None,
            };
            source.map(|source| make(source, RunVersion::Fixed)).transpose()
        });
        let sources: Vec<Option<usize>> = sources.collect::<Result<_>>()?;
        Ok(Placed { run: self.grown(plan, made, grown, &sources)?, sources })
    }

    fn grown(&self, plan: &mut Plan, made: usize, grown: &[u32], sources: &[Option<usize>]) -> Result<usize> {
        if grown.is_empty() {
            return Ok(made);
        }
        let mut run: Run = continued(&plan.runs[made], grown);
        if !sources.is_empty() {
            for step in 0..grown.len() {
                let edits = self.edits(grown, step, |decode| sources.get(decode).copied().flatten())?;
                run.edits.extend(edits.into_iter().flat_map(|(_, edits)| edits));
            }
        }
        plan.runs.push(run);
        Ok(plan.runs.len() - 1)
    }

    /// What is edited at a decode step, with the number of the decode edit it is of.
    pub(super) fn edits(
        &self,
        grown: &[u32],
        step: usize,
        source: impl Fn(usize) -> Option<usize>,
    ) -> Result<Vec<(usize, Vec<Arc<Edit>>)>> {
        let seen = &grown[..=step];
        let is_made = |decode: &Decode| {
            decode.steps.decode(step) && !seen.iter().any(|token| decode.until.contains(token))
        };
        let made = self.decode.iter().enumerate().filter(|(_, decode)| is_made(decode));
        made.map(|(number, decode)| {
            let expanded = self.expand(decode, grown, step)?;
            Ok((number, expanded.edits(&Selection::default(), 0, source(number))?))
        })
        .collect()
    }

    /// What decode steps take from other runs of a plan: by decode edit, the edits whose values these are.
    pub(super) fn taken(&self, placed: &Placed) -> Result<Vec<(usize, Vec<Arc<Edit>>)>> {
        let with_source = self.decode.iter().enumerate().zip(&placed.sources);
        let with_source = with_source.filter_map(|(decode, source)| Some((decode, (*source)?)));
        with_source
            .map(|((number, decode), source)| {
                let expanded = self.expand(decode, &[0], 0)?;
                Ok((number, expanded.edits(&Selection::default(), 0, Some(source))?))
            })
            .collect()
    }

    /// An edit at a decode step: the run is as long as it is then, and its last position is edited.
    fn expand(
        &self,
        decode: &Decode,
        grown: &[u32],
        step: usize,
    ) -> Result<crate::compile::resolve::Expanded> {
        let prompt = self.prompt();
        let position = i64::try_from(prompt.len() + step).unwrap_or(i64::MAX);
        let mut one = Experiment { edits: Arc::default(), ..self.experiment.clone() };
        one.runs[self.run.0].ids = prompt.iter().chain(&grown[..=step]).copied().collect();
        let spec = &self.experiment.edits[decode.edit.0];
        let mut edit = EditSpec { name: Some(String::new()), ..spec.clone() };
        if let Some(Value::Run(source)) = &mut edit.op.value {
            source.positions.get_or_insert_with(|| spec.target.positions.clone());
        }
        edit.target.positions = Positions::Indices(Indices::List(vec![position]));
        one.edits = Arc::new(vec![edit]);
        one.expand(EditId(0), None).map_err(|e| self.at_decode(decode, e))
    }

    /// Names the edit, and says that it is a decode step's.
    fn at_decode(&self, decode: &Decode, error: Error) -> Error {
        let part = format!("{} at decode steps", self.experiment.edit_name(decode.edit));
        match error {
            Error::Experiment { problem, hint, .. } => Error::Experiment { part, problem, hint },
            Error::Part { source, .. } => Error::Part { part, source },
            other => other,
        }
    }

    /// Whether a run of this length cannot use the keys and values of a run that is one token shorter.
    pub(super) fn turns(&self, len: usize) -> bool {
        self.experiment.model.config().shared_passes(len - 1..len + 1).count() > 1
    }
}
