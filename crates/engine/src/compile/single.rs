//! Plans without a sweep: what is run once with all edits, what is collected, and what a lens reads.

use crate::Result;
use crate::compile::resolve::Selection;
use crate::compile::run_versions::{Compiler, RunVersion};
use crate::experiment::Experiment;
use crate::ids::RunId;
use crate::plan::{Baselines, Cell, Place, Plan, Read};
use causalcone_model::Site;

/// The plan of a lens.
pub(crate) struct LensPlan {
    pub(crate) plan: Plan,
    /// By cell, the run it reads.
    pub(crate) versions: Vec<usize>,
    /// What each cell reads behind the answer, whole, the logits excepted, of which it is the last row.
    pub(crate) sites: Vec<(Site, Option<usize>)>,
}

impl Experiment<'_> {
    /// The plan of `run`: a cell for each example, the read run with all edits and what they
    /// collect, beside a baseline without any.
    ///
    /// # Errors
    /// When the experiment contradicts itself.
    pub fn plan_single(&self) -> Result<Plan> {
        Self::plan_single_of(&self.instances()?)
    }

    /// The same of some examples' experiments.
    pub(crate) fn plan_single_of(instances: &[Self]) -> Result<Plan> {
        Self::plan_runs(instances, |one| {
            let read_run = one.experiment.read_run()?;
            one.experiment.check_reach(&one.expanded)?;
            Ok(vec![read_run])
        })
    }

    /// The same reading every run, in order.
    pub(crate) fn plan_all_runs(&self) -> Result<Plan> {
        Self::plan_runs(&self.instances()?, |one| Ok((0..one.experiment.runs.len()).map(RunId).collect()))
    }

    /// The plan of what the `collect` edits of some examples read, and of nothing else.
    pub(crate) fn plan_collects(instances: &[Self]) -> Result<Plan> {
        Self::plan_runs(instances, |_| Ok(Vec::new()))
    }

    fn plan_runs(instances: &[Self], read: impl Fn(&Compiler<'_>) -> Result<Vec<RunId>>) -> Result<Plan> {
        let mut plan = Plan::default();
        for (baseline, instance) in instances.iter().enumerate() {
            let mut compiler = Compiler::new(instance, &[]).map_err(|e| instance.blame(e))?;
            let runs = read(&compiler).map_err(|e| instance.blame(e))?;
            let mut cell = |version: RunVersion| -> Result<Cell> {
                let mut reads = Vec::new();
                for run in &runs {
                    let made = compiler.version(&mut plan, *run, version, &Selection::default(), None)?;
                    reads.push(compiler.logits(*run, made, None));
                }
                let collects = instance.collects().filter(|_| version == RunVersion::Fixed);
                for edit in collects {
                    let expanded = compiler.expanded[edit.0].clone();
                    let made =
                        compiler.version(&mut plan, expanded.run, version, &Selection::default(), None)?;
                    let places = expanded.places.chosen(&Selection::default()).into_iter();
                    match instance.edits[edit.0].op.gradient {
                        None => reads.extend(places.map(|place| Read::Activation { run: made, place })),
                        Some(metric) => {
                            let of = |place| compiler.gradient(&mut plan, edit, metric, (made, place));
                            reads.extend(places.map(of).collect::<Result<Vec<_>>>()?);
                        }
                    }
                }
                if let Some(run) = instance.answered_run()?.filter(|run| runs.contains(run)) {
                    let made = compiler.version(&mut plan, run, version, &Selection::default(), None)?;
                    reads.extend(compiler.answer_reads(&mut plan, made)?);
                }
                Ok(Cell { reads, baseline, ..Cell::default() })
            };
            let original = cell(RunVersion::Original)?;
            let mut edited = cell(RunVersion::Fixed)?;
            edited.at.example = instance.example();
            plan.baselines.push(Baselines { original, fixed: None });
            plan.cells.push(edited);
        }
        plan.shared = plan.runs.len();
        Ok(plan)
    }

    /// The plan of a lens: a cell for the read run without edits, and one for it with them if there are any.
    pub(crate) fn plan_lens(&self) -> Result<LensPlan> {
        let mut compiler = Compiler::new(self, &[])?;
        self.check_reach(&compiler.expanded)?;
        let run = self.read_run()?;
        let config = self.model.config();
        let in_blocks: Vec<Site> = config.block.stream();
        let layers = 0..config.layers;
        let of_layer = |layer| in_blocks.iter().map(move |site| (*site, Some(layer)));
        let mut sites: Vec<_> =
            [(Site::Embedding, None)].into_iter().chain(layers.flat_map(of_layer)).collect();
        sites.push((Site::Logits, None));
        let (mut plan, mut versions) = (Plan::default(), Vec::new());
        for version in [RunVersion::Original, RunVersion::Fixed] {
            let made = compiler.version(&mut plan, run, version, &Selection::default(), None)?;
            if versions.contains(&made) {
                continue;
            }
            let last = plan.runs[made].ids.len() - 1;
            let read = |(site, layer): &(Site, Option<usize>)| {
                let place = plan.whole((made, *site, *layer));
                // Of the logits the last row alone.
                let positions = if *site == Site::Logits { [last].into() } else { place.positions };
                Read::Activation { run: made, place: Place { positions, ..place } }
            };
            let reads =
                [compiler.logits(run, made, None)].into_iter().chain(sites.iter().map(read)).collect();
            plan.cells.push(Cell { reads, ..Cell::default() });
            versions.push(made);
        }
        plan.shared = plan.runs.len();
        Ok(LensPlan { plan, versions, sites })
    }
}
