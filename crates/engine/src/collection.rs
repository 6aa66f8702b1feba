//! Activations over a data set: what an experiment's `collect` edits read, in chunks that fit into memory.
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! use causalcone_engine::{Collection, Cone, Experiment, Op};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! exp.edit(base, Site::BlockOutput.layers(..), Op::collect())?;
//! exp.examples(vec![
//!     Example::new().prompt("base", "The capital of Spain is"),
//!     Example::new().prompt("base", "Rome is the capital of"),
//! ]);
//! let collection = Collection::new(&exp, 1 << 20)?;
//! for chunk in 0..collection.chunks().len() {
//!     for gathered in collection.gather(chunk, &Cone::default())? {
//!         println!("{}: {:?}", gathered.example, gathered.collected[0].tensor.dims());
//!     }
//! }
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use crate::execute::{Executor, collect};
use crate::experiment::{Collected, EditId, Experiment};
use crate::metric::Metric;
use crate::plan::{Place, Read, Reading};
use crate::{Error, Result};
use causalcone_model::Layout;
use std::ops::Range;

/// What is collected of a data set, planned.
#[derive(Debug)]
pub struct Collection<'m> {
    instances: Vec<Experiment<'m>>,
    /// What each `collect` edit reads in each instance, a layer each.
    places: Vec<Vec<(EditId, Vec<Place>)>>,
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
pub struct Taken<'a> {
    /// The example, by its number.
    pub example: usize,
    /// The edit.
    pub edit: EditId,
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// Of which metric it reads the gradient, if not activations.
    pub gradient: Option<Metric>,
    /// The token ids of its run.
    pub ids: &'a [u32],
    /// What is read, a layer each; positions and heads are those of all of them.
    pub places: &'a [Place],
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
        let instances = experiment.instances()?;
        let mut places = Vec::with_capacity(instances.len());
        let (mut chunks, mut start, mut size) = (Vec::new(), 0, 0u64);
        for (index, instance) in instances.iter().enumerate() {
            let of = instance.collects().map(|edit| Ok((edit, instance.expand(edit, None)?.places())));
            let of: Vec<(EditId, Vec<Place>)> =
                of.collect::<Result<_>>().map_err(|e: Error| instance.blame(e))?;
            let numbers = |(edit, places): &(EditId, Vec<Place>)| {
                let positions = instance.runs[instance.edits[edit.0].run.0].ids.len();
                places.iter().map(|place| instance.numbers(place, positions) as u64).sum::<u64>()
            };
            let own = of.iter().map(numbers).sum::<u64>() * 4;
            if size > 0 && size + own > bytes {
                chunks.push(start..index);
                (start, size) = (index, 0);
            }
            size += own;
            places.push(of);
        }
        chunks.push(start..instances.len());
        Ok(Self { instances, places, chunks })
    }

    /// The chunks, each a stretch of the examples.
    pub fn chunks(&self) -> &[Range<usize>] {
        &self.chunks
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// What is read in a chunk, without reading it.
    pub fn taken(&self, chunk: usize) -> Vec<Taken<'_>> {
        let examples = self.chunks.get(chunk).cloned().unwrap_or_default();
        let of = |index: usize| {
            let instance = &self.instances[index];
            self.places[index].iter().map(move |(edit, places)| {
                let spec = &instance.edits[edit.0];
                Taken {
                    example: instance.example().unwrap_or(0),
                    edit: *edit,
                    name: spec.name.as_deref(),
                    gradient: spec.op.gradient,
                    ids: &instance.runs[spec.run.0].ids,
                    places,
                }
            })
        };
        examples.flat_map(of).collect()
    }

    /// Computes a chunk.
    ///
    /// # Errors
    /// When a computation fails.
    pub fn gather(&self, chunk: usize, executor: &dyn Executor) -> Result<Vec<Gathered>> {
        let examples = self.chunks.get(chunk).cloned().unwrap_or_default();
        let instances = &self.instances[examples];
        let Some(first) = instances.first() else { return Ok(Vec::new()) };
        let plan = Experiment::plan_collects(instances)?;
        let cells: Vec<_> = plan.cells.iter().collect();
        let readings = collect(executor, first.model, &plan, &cells)?;
        let gathered = cells.iter().zip(readings).zip(instances).map(|((cell, readings), instance)| {
            let pair = |(read, reading): (&Read, Reading)| match reading {
                Reading::Activation(tensor) => Collected::new(&plan, read, tensor),
                Reading::Logits(_) => None,
            };
            let collected = cell.reads.iter().zip(readings).filter_map(pair).collect();
            Gathered { example: instance.example().unwrap_or(0), collected }
        });
        Ok(gathered.collect())
    }
}

impl Experiment<'_> {
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
