//! A resolved experiment: no names and no texts, only token ids, indices and numbers.
//!
//! A [`Plan`] is what executors run. It is made by
//! [`Experiment::plan`](crate::Experiment::plan) and checked whole: whatever could be wrong with an
//! experiment is an error there, before any work.

pub use crate::reading::Reading;

pub(crate) mod collected;
mod place;

use crate::Result;
use crate::metric::Metric;
use crate::op::Operation;
use crate::op::noise::Noise;
use candle_core::Tensor;
use causalcone_model::Site;
use std::ops::Range;
use std::sync::Arc;

/// Runs, and cells that read them.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// All runs. A run takes values only from runs before it. The first [`Plan::shared`] belong to
    /// no cell in particular.
    pub runs: Vec<Run>,
    /// How many runs all cells may take values from.
    pub shared: usize,
    /// The cells, in order.
    pub cells: Vec<Cell>,
    /// The baselines that cells are compared with.
    pub baselines: Vec<Baselines>,
}

/// The cells without edits, or without those that are swept.
#[derive(Debug, Clone, Default)]
pub struct Baselines {
    /// The read run with none of the experiment's edits.
    pub original: Cell,
    /// The read run with all edits but the swept ones, where there are others.
    pub fixed: Option<Cell>,
}

/// One point of a sweep: some runs of its own, and what is read of them.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Its own runs.
    pub runs: Range<usize>,
    /// What is read, in order.
    pub reads: Vec<Read>,
    /// Which of the plan's baselines it is compared with.
    pub baseline: usize,
    /// Where it stands in the sweep.
    pub at: Coordinates,
}

impl Cell {
    /// The gradients among its reads.
    pub(crate) fn gradients(&self) -> impl Iterator<Item = &Gradient> {
        self.reads.iter().filter_map(|read| match read {
            Read::Gradient(gradient) => Some(&**gradient),
            Read::Logits { .. } | Read::Activation { .. } => None,
        })
    }
}

/// The columns of a cell; `None` where a column is not one value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coordinates {
    /// The example, counted from 0 over the lines of the data set that are not blank.
    pub example: Option<usize>,
    /// The sample of the noise, where samples are swept.
    pub sample: Option<usize>,
    /// Which choice of each axis it is: what cells of different examples have in common.
    pub point: AxisChoices,
    /// The swept edits' site.
    pub site: Option<Site>,
    /// The layer edited; the last one of those edited together where layers accumulate.
    pub layer: Option<usize>,
    /// All layers edited, in order.
    pub layers: Vec<usize>,
    /// The head edited.
    pub head: Option<usize>,
    /// The position edited.
    pub position: Option<usize>,
    /// The scale, where the op has one.
    pub scale: Option<f64>,
}

/// The choices a cell is made of, each counted from 0 along its axis; 0 on an axis that is not swept.
/// Examples may list different layers or positions: the third choice of one goes with the third of
/// another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AxisChoices {
    /// Which of the sites.
    pub site: usize,
    /// Which set of layers.
    pub layers: usize,
    /// Which head of those listed.
    pub head: usize,
    /// Which position of those listed.
    pub position: usize,
    /// Which of the scales.
    pub scale: usize,
}

/// A prompt with the edits made to it.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its name in the experiment.
    pub name: Arc<str>,
    /// Its token ids.
    pub ids: Arc<[u32]>,
    /// Its edits, in file order.
    pub edits: Vec<Arc<Edit>>,
}

/// One edit of one tensor.
#[derive(Clone)]
pub struct Edit {
    /// What is done.
    pub op: Arc<Operation>,
    /// The op's scale.
    pub scale: f64,
    /// What it is done to.
    pub place: Place,
    /// With what.
    pub value: Option<ValueSource>,
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {:?} of {:?} by {}", self.op, self.place, self.value, self.scale)
    }
}

impl Edit {
    /// The activations that its value is: of which run (`None` for the edited run itself), and where.
    pub(crate) fn source(&self) -> Option<(Option<usize>, &Place)> {
        match &self.value {
            Some(ValueSource::Run(run, place)) => Some((Some(*run), place)),
            Some(ValueSource::Own(place)) => Some((None, place)),
            Some(ValueSource::Constant(_)) | None => None,
        }
    }

    /// Its value. `take` returns the activations of [`Edit::source`].
    pub(crate) fn value_from(
        &self,
        take: impl FnOnce(Option<usize>, &Place) -> Result<Tensor>,
    ) -> Result<Option<Tensor>> {
        match &self.value {
            Some(ValueSource::Constant(constant)) => Ok(Some(constant.tensor()?)),
            _ => self.source().map(|(run, place)| take(run, place)).transpose(),
        }
    }
}

/// A value, ready to be taken.
#[derive(Debug, Clone)]
pub enum ValueSource {
    /// Numbers given.
    Constant(Constant),
    /// Activations of an earlier run of the plan.
    Run(usize, Place),
    /// Activations of the edited run itself, of a tensor before the edit's in the same layer.
    Own(Place),
}

impl From<Tensor> for ValueSource {
    fn from(rows: Tensor) -> Self {
        Self::Constant(Constant { rows: rows.into(), row: None, head: None })
    }
}

/// Numbers given: what cells share is one tensor, of which a cell of one position or head may mean one row.
#[derive(Debug, Clone)]
pub struct Constant {
    /// One number; one row; or one row a position (with an axis for heads between, on head sites).
    pub rows: Numbers,
    /// Only this row of it.
    pub row: Option<usize>,
    /// Only this head of it.
    pub head: Option<usize>,
}

impl Constant {
    /// Whether it is the same for every position.
    pub(crate) fn is_one_row(&self) -> bool {
        self.row.is_some() || self.rows.rows().is_none_or(|rows| rows == 1)
    }

    /// What is meant, of a shape that broadcasts to the place's block.
    ///
    /// # Errors
    /// When the row or head is not there.
    pub fn tensor(&self) -> candle_core::Result<Tensor> {
        let rows = match (&self.rows.0, self.row) {
            (Made::Given(rows), None) => rows.clone(),
            (Made::Given(rows), Some(row)) => rows.narrow(0, row, 1)?,
            (Made::Noise(noise, sample), row) => noise.tensor(*sample, row)?,
        };
        match self.head {
            Some(head) => rows.narrow(1, head, 1),
            None => Ok(rows),
        }
    }
}

/// The numbers of a [`Constant`]: a tensor, or noise, which is drawn when it is computed with. Until then it takes no
/// memory, however many samples there are.
#[derive(Debug, Clone)]
pub struct Numbers(Made);

#[derive(Debug, Clone)]
enum Made {
    Given(Tensor),
    /// A sample of it.
    Noise(Arc<Noise>, usize),
}

/// Equal for the same numbers, however often they are cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NumbersId(Identity);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Identity {
    Given(candle_core::TensorId),
    /// Where the noise is in memory, which it is as long as any plan holds it; and the sample.
    Noise(usize, usize),
}

impl From<Tensor> for Numbers {
    fn from(tensor: Tensor) -> Self {
        Self(Made::Given(tensor))
    }
}

impl Numbers {
    pub(crate) fn noise(noise: Arc<Noise>, sample: usize) -> Self {
        Self(Made::Noise(noise, sample))
    }

    /// By what equal constants are known.
    pub fn id(&self) -> NumbersId {
        NumbersId(match &self.0 {
            Made::Given(tensor) => Identity::Given(tensor.id()),
            Made::Noise(noise, sample) => Identity::Noise(Arc::as_ptr(noise) as usize, *sample),
        })
    }

    /// How many rows; nothing where it is a single number.
    pub(crate) fn rows(&self) -> Option<usize> {
        match &self.0 {
            Made::Given(tensor) => tensor.dims().first().copied(),
            Made::Noise(noise, _) => Some(noise.rows()),
        }
    }

    /// How many heads, where there is an axis for them.
    pub(crate) fn heads(&self) -> Option<usize> {
        match &self.0 {
            Made::Given(tensor) => (tensor.rank() == 3).then(|| tensor.dims()[1]),
            Made::Noise(noise, _) => noise.heads(),
        }
    }

    /// The bytes it holds while nothing is computed.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Made::Given(tensor) => tensor.elem_count() * tensor.dtype().size_in_bytes(),
            Made::Noise(..) => 0,
        }
    }
}

/// A block of one tensor: which positions, heads and dimensions of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The site.
    pub site: Site,
    /// The layer, for sites of a block.
    pub layer: Option<usize>,
    /// Positions (query rows of an attention matrix).
    pub positions: Arc<[usize]>,
    /// Heads; `None` is all of them, or a site without.
    pub heads: Option<Arc<[usize]>>,
    /// Dimensions (key columns of an attention matrix); `None` is all.
    pub dims: Option<Arc<[usize]>>,
}

/// A tensor of a run: its site (never a view of heads) and its layer.
pub(crate) type TensorKey = (Site, Option<usize>);

/// Something taken out of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// Logits at one position.
    Logits {
        /// The run.
        run: usize,
        /// The position.
        position: usize,
        /// Of these tokens only; `None` is all.
        tokens: Option<Arc<[u32]>>,
    },
    /// Activations.
    Activation {
        /// The run.
        run: usize,
        /// Which.
        place: Place,
    },
    /// The gradient of a number of the answer. [`collect`](crate::collect) reads it, with any executor.
    Gradient(Box<Gradient>),
}

impl Read {
    /// The run it reads.
    pub fn run(&self) -> usize {
        match self {
            Self::Logits { run, .. } | Self::Activation { run, .. } => *run,
            // Its activations are of a run that the answer depends on.
            Self::Gradient(gradient) => gradient.answer.run(),
        }
    }
}

/// A gradient to be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// Of which number.
    pub metric: Metric,
    /// The tokens it is about.
    pub tokens: Arc<[u32]>,
    /// The label it is about.
    pub label: Option<u32>,
    /// The logits it is computed from, all of them.
    pub answer: Read,
    /// Those it is compared with, where the metric compares.
    pub original: Read,
    /// With respect to activations of which run, after its edits.
    pub run: usize,
    /// Which.
    pub place: Place,
}

/// The swept edits of a cell, each with the run it is of as it stands without them.
pub(crate) type Moves = Vec<(usize, Arc<Edit>)>;

impl Plan {
    /// All of a tensor of a run.
    pub(crate) fn whole(&self, (run, site, layer): (usize, Site, Option<usize>)) -> Place {
        let positions = (0..self.runs[run].ids.len()).collect();
        Place { site, layer, positions, heads: None, dims: None }
    }

    /// The runs a cell needs, its own and shared ones, in order: those it reads and all that values
    /// come from, directly or not.
    pub fn needed(&self, cell: &Cell) -> Vec<usize> {
        let mut needed = std::collections::BTreeSet::new();
        let mut open: Vec<usize> = cell.reads.iter().map(Read::run).chain(cell.runs.clone()).collect();
        while let Some(run) = open.pop() {
            if needed.insert(run) {
                open.extend(self.sources(run));
            }
        }
        needed.into_iter().collect()
    }

    /// The runs that a run takes values from.
    pub fn sources(&self, run: usize) -> impl Iterator<Item = usize> + '_ {
        self.runs[run].edits.iter().filter_map(|edit| edit.source()?.0)
    }

    /// The cells that others are compared with: those without edits first.
    pub fn baselines(&self) -> impl Iterator<Item = &Cell> {
        let originals = self.baselines.iter().map(|baseline| &baseline.original);
        originals.chain(self.baselines.iter().filter_map(|baseline| baseline.fixed.as_ref()))
    }

    /// Rows (one position through one block) of every cell's own runs and source runs in full.
    pub fn rows_naive(&self, layers: usize) -> u64 {
        let rows = |cell: &Cell| self.needed(cell).into_iter().map(|run| self.rows(run, layers)).sum::<u64>();
        self.cells.iter().map(rows).sum()
    }

    /// Rows of one run in full.
    pub fn rows(&self, run: usize, layers: usize) -> u64 {
        self.runs[run].ids.len() as u64 * layers as u64
    }
}
