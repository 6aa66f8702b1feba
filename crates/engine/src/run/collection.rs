//! Activations over a data set: what an experiment's `collect` edits read, in chunks that fit into memory.
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! use causalcone_engine::{Collection, Experiment, Runtime};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! exp.collect(base, Site::BlockOutput.layers(..))?;
//! exp.set_examples(vec![
//!     Example::new().prompt("base", "The capital of Spain is"),
//!     Example::new().prompt("base", "Rome is the capital of"),
//! ]);
//! let collection = Collection::new(&exp, 1 << 20)?;
//! for chunk in 0..collection.chunks().len() {
//!     for gathered in collection.gather(chunk, &Runtime::default())? {
//!         println!("{}: {:?}", gathered.example, gathered.collected[0].tensor.dims());
//!     }
//! }
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use crate::compile::resolve::Selection;
use crate::execute::{Executor, Runtime, go_on};
use crate::experiment::Experiment;
use crate::ids::EditId;
use crate::metric::Metric;
use crate::plan::collected::Collected;
use crate::plan::{Place, Plan, Read};
use crate::reading::Reading;
use crate::run::collect::collect_with;
use crate::{Error, Result};
use causalcone_model::{Layout, Progress, Unit};
use std::ops::Range;
use std::sync::Arc;

/// Examples that are planned and run together: what is held for each while they run is a few kilobytes.
const TOGETHER: usize = 1024;

/// What is collected of a data set, planned. Only the data set and the chunks are held: the experiments of a chunk's
/// examples are made when it is computed.
#[derive(Debug)]
pub struct Collection<'m> {
    experiment: Experiment<'m>,
    examples: usize,
    chunks: Vec<Range<usize>>,
}

/// What was collected of one example.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// The example, by its number; 0 where there is no data set.
    pub example: usize,
    /// By edit in file order, a layer each.
    pub collected: Vec<Collected>,
}

/// Where what one `collect` edit reads of one example stands.
#[derive(Debug, Clone)]
pub struct CollectedRead<'a> {
    /// The example, by its number.
    pub example: usize,
    /// The edit.
    pub edit: EditId,
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// Of which metric it reads the gradient, if not activations.
    pub gradient: Option<Metric>,
    /// The token ids of its run.
    pub ids: Arc<[u32]>,
    /// What is read, a layer each; positions and heads are those of all of them.
    pub places: Vec<Place>,
}

impl<'m> Collection<'m> {
    /// Plans what an experiment collects, in chunks of about so many bytes of activations. Where a chunk
    /// ends depends on the experiment and that number alone.
    ///
    /// # Errors
    /// When it collects nothing, or contradicts itself.
    pub fn new(experiment: &Experiment<'m>, bytes: u64) -> Result<Self> {
        if experiment.collects().next().is_none() {
            let hint = Some("add an edit with op = \"collect\"".into());
            return Err(Error::hinted("collect", "no edit collects anything", hint));
        }
        experiment.check_size()?;
        let (mut chunks, mut start, mut size, mut examples) = (Vec::new(), 0, 0u64, 0);
        for (index, instance) in experiment.by_example().enumerate() {
            let instance = instance?;
            let mut own = 0;
            for (edit, places) in instance.read_places()? {
                let positions = instance.runs[instance.edits[edit.0].run.0].ids.len();
                own += places.iter().map(|place| instance.numbers(place, positions) as u64 * 4).sum::<u64>();
            }
            if size > 0 && size + own > bytes {
                chunks.push(start..index);
                (start, size) = (index, 0);
            }
            size += own;
            examples = index + 1;
        }
        chunks.push(start..examples);
        Ok(Self { experiment: experiment.clone(), examples, chunks })
    }

    /// The chunks, each a stretch of the examples.
    pub fn chunks(&self) -> &[Range<usize>] {
        &self.chunks
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.examples
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.examples == 0
    }

    /// What is read in a chunk, without reading it.
    ///
    /// # Errors
    /// When an example does not fit, which [`Collection::new`] has found already.
    pub fn taken(&self, chunk: usize) -> Result<Vec<CollectedRead<'_>>> {
        self.taken_of(self.chunks.get(chunk).cloned().unwrap_or_default())
    }

    /// What is read of the first example: the edits, sites and layers are the same in all.
    ///
    /// # Errors
    /// As [`Collection::taken`].
    pub fn first(&self) -> Result<Vec<CollectedRead<'_>>> {
        self.taken_of(0..1)
    }

    fn taken_of(&self, examples: Range<usize>) -> Result<Vec<CollectedRead<'_>>> {
        let mut taken = Vec::new();
        for instance in self.experiment.by_example_in(examples) {
            let instance = instance?;
            for (edit, places) in instance.read_places()? {
                let spec = &self.experiment.edits[edit.0];
                taken.push(CollectedRead {
                    example: instance.example().unwrap_or(0),
                    edit,
                    name: spec.name.as_deref(),
                    gradient: spec.op.gradient,
                    ids: instance.runs[spec.run.0].ids.clone(),
                    places,
                });
            }
        }
        Ok(taken)
    }

    /// Checks, before anything is computed, that all of it can be, in the memory there is.
    ///
    /// # Errors
    /// When it cannot; [`Error::Interrupted`] where whoever hears of progress says so.
    pub fn check(&self, runtime: &Runtime<'_>) -> Result<()> {
        for start in (0..self.examples).step_by(TOGETHER) {
            let (done, total) = (start as u64, self.examples as u64);
            go_on((runtime.progress)(Progress { what: "checking", done, total, unit: Unit::Examples }))?;
            let (_, plan) = self.plan(start..self.examples.min(start + TOGETHER))?;
            runtime.estimate(
                &plan,
                &plan.cells.iter().collect::<Vec<_>>(),
                self.experiment.model.config(),
            )?;
        }
        Ok(())
    }

    /// Some examples, and the plan of what is collected from them.
    fn plan(&self, examples: Range<usize>) -> Result<(Vec<Experiment<'m>>, Plan)> {
        let instances: Vec<_> = self.experiment.by_example_in(examples).collect::<Result<_>>()?;
        let plan = Experiment::plan_collects(&instances)?;
        Ok((instances, plan))
    }

    /// Computes a chunk.
    ///
    /// # Errors
    /// When a computation fails; [`Error::Interrupted`] where whoever hears of progress says so.
    pub fn gather(&self, chunk: usize, runtime: &Runtime<'_>) -> Result<Vec<Gathered>> {
        self.gather_for("collecting", chunk, runtime)
    }

    /// [`Collection::gather`] for some work.
    pub(crate) fn gather_for(
        &self,
        what: &str,
        chunk: usize,
        runtime: &Runtime<'_>,
    ) -> Result<Vec<Gathered>> {
        let examples = self.chunks.get(chunk).cloned().unwrap_or_default();
        let total = self.examples as u64;
        let mut gathered = Vec::with_capacity(examples.len());
        for start in examples.clone().step_by(TOGETHER) {
            let mut tell = |done: usize| {
                let done = (start + done) as u64;
                (runtime.progress)(Progress { what, done, total, unit: Unit::Examples })
            };
            go_on(tell(0))?;
            let (instances, plan) = self.plan(start..examples.end.min(start + TOGETHER))?;
            let cells: Vec<_> = plan.cells.iter().collect();
            let readings = collect_with(runtime, self.experiment.model, &plan, &cells, &mut tell)?;
            let pairs = cells.iter().zip(readings).zip(&instances);
            gathered.extend(pairs.map(|((cell, readings), instance)| {
                let pair = |(read, reading): (&Read, Reading)| match reading {
                    Reading::Activation(tensor) => Collected::new(&plan, read, tensor),
                    Reading::Logits(_) => None,
                };
                let collected = cell.reads.iter().zip(readings).filter_map(pair).collect();
                Gathered { example: instance.example().unwrap_or(0), collected }
            }));
        }
        Ok(gathered)
    }
}

impl Experiment<'_> {
    /// What each `collect` edit reads, a layer each.
    fn read_places(&self) -> Result<Vec<(EditId, Vec<Place>)>> {
        let places = |edit| Ok((edit, self.resolver(edit).expand()?.places.chosen(&Selection::default())));
        self.collects().map(places).collect::<Result<_>>().map_err(|e: Error| self.blame(e))
    }

    /// How many numbers there are in a place of a run of so many positions.
    fn numbers(&self, place: &Place, positions: usize) -> usize {
        let (heads, width) = match place.site.layout(self.model.config()) {
            Layout::Rows { width } => (1, width),
            Layout::Heads { heads, width } => (heads, width),
            Layout::Attention { heads } => (heads, positions),
        };
        let heads = place.heads.as_ref().map_or(heads, |heads| heads.len());
        place.positions.len() * heads * place.dims.as_ref().map_or(width, |dims| dims.len())
    }
}
