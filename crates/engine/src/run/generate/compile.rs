//! A run that grows, compiled: its prompt with the edits made there, and what is edited at each decode step.

use crate::compile::resolve::{Resolver, Selection};
use crate::compile::run_versions::{Compiler, RunVersion, continued};
use crate::experiment::Experiment;
use crate::experiment::steps::{Steps, grows};
use crate::ids::{EditId, RunId};
use crate::plan::{Edit, Place, Plan};
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
        let run = experiment.read_run()?;
        experiment.no_collects("a generated text")?;
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
            growing.edits_at(decode, &[0], 0, None)?;
        }
        Ok(growing)
    }

    /// At a decode step there is one position, and one row of a source goes with it.
    fn one_source_position(&self, decode: &Decode) -> Result<()> {
        let resolver = self.experiment.resolver(decode.edit);
        let Some(source) = resolver.edit.op.source() else { return Ok(()) };
        let positions = source.positions.as_ref().unwrap_or(resolver.positions);
        let given = match resolver.positions_in(positions, source.run) {
            _ if resolver.is_all(positions).unwrap_or(false) => "all positions".into(),
            Ok(found) if found.len() == 1 => return Ok(()),
            Ok(found) => format!("{} positions", found.len()),
            Err(_) => "no position".into(),
        };
        let name = &self.experiment.runs[source.run.0].name;
        let problem = format!(
            "takes {given} of run \"{name}\", and a decode step has one position, which one row of a source goes with"
        );
        let hint = "give value a position, such as { run = \"…\", positions = \"last\" }, or the edit steps = \"prompt\"";
        Err(resolver.hinted(problem, Some(hint.into())))
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
        let (of_prompt, decode) = match version {
            TextVersion::Original => (RunVersion::Original, &[][..]),
            TextVersion::Edited => (RunVersion::Fixed, &*self.decode),
        };
        let mut make = |run| compiler.version(plan, run, of_prompt, &Selection::default(), None);
        let mut run = make(self.run)?;
        let sources = decode.iter().map(|decode| {
            let source = self.experiment.edits[decode.edit.0].op.source();
            source.map(|source| make(source.run)).transpose()
        });
        let sources: Vec<Option<usize>> = sources.collect::<Result<_>>()?;
        if !grown.is_empty() {
            let mut whole = continued(&plan.runs[run], grown);
            for step in (0..grown.len()).filter(|_| !sources.is_empty()) {
                whole.edits.extend(self.edits(grown, step, |number| sources[number])?);
            }
            run = plan.runs.len();
            plan.runs.push(whole);
        }
        Ok(Placed { run, sources })
    }

    /// What is edited at a decode step. `source` returns the run that the decode edit of a number takes its value from.
    pub(super) fn edits(
        &self,
        grown: &[u32],
        step: usize,
        source: impl Fn(usize) -> Option<usize>,
    ) -> Result<Vec<Arc<Edit>>> {
        let mut edits = Vec::new();
        for (number, decode) in self.decode.iter().enumerate() {
            let is_over = grown[..=step].iter().any(|token| decode.until.contains(token));
            if decode.steps.decode(step) && !is_over {
                edits.extend(self.edits_at(decode, grown, step, source(number))?);
            }
        }
        Ok(edits)
    }

    /// What decode steps take from other runs of a plan: the number of the decode edit, the run, and the place there.
    pub(super) fn taken(&self, placed: &Placed) -> Result<Vec<(usize, usize, Place)>> {
        let mut taken = Vec::new();
        for (number, source) in placed.sources.iter().enumerate() {
            let Some(run) = *source else { continue };
            for edit in self.edits_at(&self.decode[number], &[0], 0, Some(run))? {
                taken.extend(edit.source().map(|(_, place)| (number, run, place.clone())));
            }
        }
        Ok(taken)
    }

    /// An edit as it is at a decode step, a layer each: its run is as long as at that step, and edited at its last
    /// position.
    fn edits_at(
        &self,
        decode: &Decode,
        grown: &[u32],
        step: usize,
        source: Option<usize>,
    ) -> Result<Vec<Arc<Edit>>> {
        let resolver = self.experiment.resolver(decode.edit);
        let mut runs = resolver.runs.to_vec();
        let ids = &mut runs[self.run.0].ids;
        let last = i64::try_from(ids.len() + step).unwrap_or(i64::MAX);
        *ids = ids.iter().chain(&grown[..=step]).copied().collect();
        let positions = Positions::Indices(Indices::List(vec![last]));
        let part = format!("{} at decode steps", resolver.part);
        let expanded = Resolver { runs: &runs, positions: &positions, part, ..resolver }.expand()?;
        Ok(expanded.edits(&Selection::default(), 0, source))
    }

    /// Whether a run of this length cannot use the keys and values of a run that is one token shorter.
    pub(super) fn turns(&self, len: usize) -> bool {
        self.experiment.model.config().shared_passes(len - 1..len + 1).count() > 1
    }
}
