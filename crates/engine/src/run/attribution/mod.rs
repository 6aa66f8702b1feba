//! Attribution patching: what a cell would change, told from slopes instead of by running it.
//!
//! A cell's edits turn an activation b into op(b). To first order a metric m then changes by the inner
//! product ⟨∂m/∂b, op(b) − b⟩ (Nanda 2023, "Attribution patching"): one forward and one backward pass of
//! the run without the swept edits give the slopes at every site, layer and position at once, and with
//! them an estimate of every cell. [`Method::Integrated`] takes the mean of the slopes along a path
//! from the prompt of the edited run to that of the run its value is from (Hanna et al. 2024, "Have faith
//! in faithfulness": EAP-IG): a few passes, and often much closer to what [`Method::Exact`] gives.
//!
//! ```
//! use causalcone_engine::{Runtime, Each, Experiment, LayerAxis, Method, Metric, Op, PreparedSweep, Sweep};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let spain = exp.run("The capital of Spain is")?;
//! let italy = exp.run("The capital of Italy is")?;
//! exp.edit(spain, Site::MlpOutput.layers(..), Op::swap(italy))?;
//! exp.set_read_run(spain);
//! exp.set_tokens(vec![model.token_id("T")?, model.token_id("R")?])?;
//! exp.set_sweep(Sweep {
//!     layers: Some(LayerAxis::Each),
//!     positions: Some(Each),
//!     metrics: vec![Metric::LogitDiff],
//!     methods: vec![Method::Exact, Method::Attribution, Method::Integrated],
//!     ..Sweep::default()
//! });
//! let result = PreparedSweep::new(&exp)?.run(&Runtime::default())?;
//! for agreement in result.agreement() {
//!     println!("{}: r = {:?}", agreement.method.name(), agreement.correlation);
//! }
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod agreement;
mod gradient;
mod probe;

pub use agreement::Agreement;
pub(crate) use gradient::collect;
pub(crate) use probe::{ProbeKey, Probes, key};

use crate::cone::Work;
use crate::execute::{Executor, Ticker};
use crate::experiment::method::Method;
use crate::metric::Distribution;
use crate::op::{OpKind, Operation};
use crate::plan::{Cell, Edit, Moves, Place, Plan, Read};
use crate::reading::Reading;
use crate::run::journal::Values;
use crate::run::prepared::{PreparedSweep, Stretch};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::{Progress, Report, Site, Unit};
use probe::{MAX_BYTES, MAX_ROWS};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

/// What an edit changes: of which tensor, where, by how much.
struct Change {
    of: ProbeKey,
    place: Place,
    by: Vec<f32>,
}

/// Slopes of each column of one method.
type Slopes = Vec<HashMap<ProbeKey, Tensor>>;

/// One baseline of a pass.
struct Subject {
    baseline: usize,
    cells: Vec<usize>,
    /// The read run without any edit, and without the swept ones.
    original: Read,
    fixed: Read,
    /// What edits change.
    moved: BTreeSet<ProbeKey>,
    /// What values are taken from, besides.
    taken: BTreeSet<ProbeKey>,
    /// Edited runs, and the runs their values come from.
    paths: BTreeMap<usize, usize>,
}

/// What a run without the swept edits gave, at one point of the path.
struct Seen {
    fixed: Distribution,
    logits: Tensor,
}

/// The same where the path begins, and what is compared with it.
struct Start {
    seen: Seen,
    original: Distribution,
    activations: HashMap<ProbeKey, Tensor>,
}

impl Seen {
    fn new(reading: Option<Reading>) -> Result<Self> {
        match reading {
            Some(Reading::Logits(logits)) => Ok(Self { fixed: Distribution::new(logits.to_vec1()?), logits }),
            _ => Err(Error::internal("a run gave no logits")),
        }
    }
}

impl PreparedSweep<'_> {
    /// The methods that estimate.
    pub(crate) fn estimating(&self) -> impl Iterator<Item = Method> + '_ {
        self.methods.iter().copied().filter(|method| *method != Method::Exact)
    }
}

impl Stretch<'_, '_> {
    /// The numbers of cells by the methods that estimate, in their order.
    ///
    /// # Errors
    /// When a computation fails, or `report` wishes it to stop.
    pub(crate) fn estimates(
        &self,
        executor: &dyn Executor,
        wanted: &[usize],
        report: Report<'_>,
    ) -> Result<(HashMap<usize, Values>, Work)> {
        let chunks = self.chunks(wanted)?;
        let total = self.passes_over(&chunks);
        let mut done = 0;
        let mut tell = |passes: u64| {
            done += passes;
            match report(Progress { what: "differentiating", done, total, unit: Unit::Passes }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Interrupted),
            }
        };
        let (mut estimates, mut work) = (HashMap::new(), Work::default());
        let mut ticker = Ticker::new();
        tell(0)?;
        for chunk in &chunks {
            let mut plan = self.runs();
            let moved = chunk.iter().flat_map(|subject| subject.moved.iter().copied());
            let probes = Probes::add(self.sweep.model(), &mut plan, moved)?;
            let starts = self.starts(executor, &plan, chunk, &mut work)?;
            let mut by_method: Vec<Slopes> = Vec::new();
            for method in self.sweep.estimating() {
                by_method.push(match method {
                    Method::Integrated => {
                        self.along_the_path(executor, chunk, &starts, &mut work, &mut tell)?
                    }
                    _ => {
                        let seen: Vec<&Seen> = starts.iter().map(|start| &start.seen).collect();
                        let slopes = self.slopes(chunk, &starts, &seen, &probes)?;
                        tell(1)?;
                        slopes
                    }
                });
            }
            for (subject, start) in chunk.iter().zip(&starts) {
                let at = self.numbers((&start.seen.fixed, &[]), &start.original, subject.baseline)?;
                for cell in &subject.cells {
                    if ticker.is_due() {
                        tell(0)?;
                    }
                    let changes = self.changes(&self.moves[*cell], &start.activations)?;
                    let mut values = Values::new();
                    for slopes in &by_method {
                        for (slope, value) in slopes.iter().zip(&at) {
                            let rise = self.rise(slope, &changes)?;
                            values.push(value.map(|value| value + rise).filter(|x| x.is_finite()));
                        }
                    }
                    estimates.insert(*cell, values);
                }
            }
        }
        Ok((estimates, work))
    }

    /// How many forward and backward passes the estimates of all its cells take.
    pub(crate) fn passes(&self) -> Result<u64> {
        if self.moves.is_empty() {
            return Ok(0);
        }
        let all: Vec<usize> = (0..self.plan.cells.len()).collect();
        Ok(self.passes_over(&self.chunks(&all)?))
    }

    fn passes_over(&self, chunks: &[Vec<Subject>]) -> u64 {
        let steps = |method: Method| if method == Method::Integrated { self.sweep.steps } else { 1 };
        (chunks.len() * self.sweep.estimating().map(steps).sum::<usize>()) as u64
    }

    /// The runs without swept edits, and nothing else.
    fn runs(&self) -> Plan {
        let plan = &self.plan;
        Plan { runs: plan.runs[..plan.shared].to_vec(), shared: plan.shared, ..Plan::default() }
    }

    /// The baselines of these cells, as many together as a pass takes; none of them changes a run of another, so
    /// that the slopes of a sum over them are those of each.
    fn chunks(&self, wanted: &[usize]) -> Result<Vec<Vec<Subject>>> {
        let mut by_baseline: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for cell in wanted {
            by_baseline.entry(self.plan.cells[*cell].baseline).or_default().push(*cell);
        }
        let columns = self.sweep.numbers_per_method();
        let mut chunks: Vec<Vec<Subject>> = Vec::new();
        let (mut rows, mut bytes, mut changed) = (0, 0, BTreeSet::new());
        for (baseline, cells) in by_baseline {
            let subject = self.subject(baseline, cells)?;
            let len = |run: &usize| self.plan.runs[*run].ids.len();
            let runs: BTreeSet<usize> = subject.moved.iter().map(|(run, ..)| *run).collect();
            let own: usize = runs.iter().map(len).sum();
            let numbers = |key: &ProbeKey| key.1.layout(self.sweep.model().config()).numbers(len(&key.0));
            let slopes = subject.moved.iter().map(numbers).sum::<usize>() * size_of::<f32>() * columns;
            let is_apart = runs.is_disjoint(&changed);
            match chunks.last_mut() {
                Some(chunk) if is_apart && rows + own <= MAX_ROWS && bytes + slopes <= MAX_BYTES => {
                    chunk.push(subject);
                    (rows, bytes) = (rows + own, bytes + slopes);
                    changed.extend(runs);
                }
                _ => {
                    chunks.push(vec![subject]);
                    (rows, bytes, changed) = (own, slopes, runs);
                }
            }
        }
        Ok(chunks)
    }

    fn subject(&self, baseline: usize, cells: Vec<usize>) -> Result<Subject> {
        let of = &self.plan.baselines[baseline];
        let read = |cell: &Cell| {
            let found = cell.reads.first().cloned();
            found.ok_or_else(|| Error::internal("a baseline reads nothing"))
        };
        let original = read(&of.original)?;
        let fixed = of.fixed.as_ref().map_or_else(|| Ok(original.clone()), read)?;
        let (mut moved, mut taken, mut paths) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for (run, edit) in cells.iter().flat_map(|cell| &self.moves[*cell]) {
            moved.insert(key(*run, &edit.place));
            if let Some((source, place)) = edit.source() {
                taken.insert(key(source.unwrap_or(*run), place));
                paths.extend(source.map(|source| (*run, source)));
            }
        }
        if self.sweep.methods.contains(&Method::Integrated) {
            let ends = paths.iter().flat_map(|(run, source)| [*run, *source]);
            taken.extend(ends.map(|run| (run, Site::Embedding, None)));
        }
        Ok(Subject { baseline, cells, original, fixed, moved, taken, paths })
    }

    /// Runs the subjects of a pass where the path begins.
    fn starts(
        &self,
        executor: &dyn Executor,
        plan: &Plan,
        chunk: &[Subject],
        work: &mut Work,
    ) -> Result<Vec<Start>> {
        let keys =
            |subject: &Subject| subject.moved.union(&subject.taken).copied().collect::<Vec<ProbeKey>>();
        let reads = |subject: &Subject| {
            let tensors = keys(subject).into_iter();
            let tensors = tensors.map(|key| Read::Activation { run: key.0, place: plan.whole(key) });
            [subject.fixed.clone(), subject.original.clone()].into_iter().chain(tensors).collect()
        };
        let found = self.read(executor, plan, chunk.iter().map(reads), work)?;
        let start = |(subject, readings): (&Subject, Vec<Reading>)| {
            let mut readings = readings.into_iter();
            let seen = Seen::new(readings.next())?;
            let original = Seen::new(readings.next())?.fixed;
            let pair = |(key, reading)| match reading {
                Reading::Activation(tensor) | Reading::Logits(tensor) => (key, tensor.detach()),
            };
            Ok(Start {
                seen,
                original,
                activations: keys(subject).into_iter().zip(readings).map(pair).collect(),
            })
        };
        chunk.iter().zip(found).map(start).collect()
    }

    /// Reads some things of each subject.
    fn read(
        &self,
        executor: &dyn Executor,
        plan: &Plan,
        reads: impl Iterator<Item = Vec<Read>>,
        work: &mut Work,
    ) -> Result<Vec<Vec<Reading>>> {
        let cells: Vec<Cell> = reads.map(|reads| Cell { reads, ..Cell::default() }).collect();
        let cells: Vec<&Cell> = cells.iter().collect();
        let mut found: Vec<Vec<Reading>> = vec![Vec::new(); cells.len()];
        *work += executor.execute(self.sweep.model(), plan, &cells, &mut |index, readings| {
            found[index] = readings;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The slopes of every column: those of different subjects are of different tensors, so that one
    /// sum over all of them has them all.
    fn slopes(&self, chunk: &[Subject], starts: &[Start], seen: &[&Seen], probes: &Probes) -> Result<Slopes> {
        let of_logits = |((subject, start), seen): ((&Subject, &Start), &&Seen)| {
            self.slopes_of_logits(&seen.fixed, &start.original, subject.baseline)
        };
        let rows: Vec<_> = chunk.iter().zip(starts).zip(seen).map(of_logits).collect();
        let mut slopes = Vec::with_capacity(self.sweep.numbers_per_method());
        for column in 0..self.sweep.numbers_per_method() {
            let mut sum: Option<Tensor> = None;
            for (rows, seen) in rows.iter().zip(seen) {
                let row = Tensor::new(rows[column].as_slice(), seen.logits.device())?;
                let number = (&seen.logits * row)?.sum_all()?;
                sum = Some(match sum {
                    Some(sum) => (sum + number)?,
                    None => number,
                });
            }
            slopes.push(sum.map(|sum| probes.slopes(&sum)).transpose()?.unwrap_or_default());
        }
        Ok(slopes)
    }

    /// The mean of the slopes at the middles of equal parts of the path from the embeddings of each
    /// edited run to those of its source.
    fn along_the_path(
        &self,
        executor: &dyn Executor,
        chunk: &[Subject],
        starts: &[Start],
        work: &mut Work,
        tell: &mut impl FnMut(u64) -> Result<()>,
    ) -> Result<Slopes> {
        let mut sums: Slopes = vec![HashMap::new(); self.sweep.numbers_per_method()];
        for step in 0..self.sweep.steps {
            let part = (step as f64 + 0.5) / self.sweep.steps as f64;
            let mut plan = self.runs();
            for (subject, start) in chunk.iter().zip(starts) {
                for (&run, &source) in &subject.paths {
                    let at = |run| {
                        let found = start.activations.get(&(run, Site::Embedding, None));
                        found.ok_or_else(|| Error::internal("a run has no embeddings"))
                    };
                    let (from, to) = (at(run)?, at(source)?);
                    let rows = ((from * (1.0 - part))? + (to * part)?)?;
                    let place = plan.whole((run, Site::Embedding, None));
                    let op = Arc::new(Operation::plain(OpKind::Swap));
                    let value = Some(rows.into());
                    plan.runs[run].edits.push(Arc::new(Edit { op, scale: 1.0, place, value }));
                }
            }
            let moved = chunk.iter().flat_map(|subject| subject.moved.iter().copied());
            let probes = Probes::add(self.sweep.model(), &mut plan, moved)?;
            let reads = chunk.iter().map(|subject| vec![subject.fixed.clone()]);
            let found = self.read(executor, &plan, reads, work)?.into_iter();
            let seen: Vec<Seen> =
                found.map(|found| Seen::new(found.into_iter().next())).collect::<Result<_>>()?;
            let seen: Vec<&Seen> = seen.iter().collect();
            for (sums, slopes) in sums.iter_mut().zip(self.slopes(chunk, starts, &seen, &probes)?) {
                for (key, slope) in slopes {
                    let slope = (slope / self.sweep.steps as f64)?;
                    let sum = sums.remove(&key).map_or(Ok(slope.clone()), |sum| sum + slope)?;
                    sums.insert(key, sum);
                }
            }
            tell(1)?;
        }
        Ok(sums)
    }

    /// What the edits of a cell change, given the tensors as they stand without them. Edits of one
    /// tensor see what those before them made of it.
    fn changes(&self, moves: &Moves, activations: &HashMap<ProbeKey, Tensor>) -> Result<Vec<Change>> {
        let config = self.sweep.model().config();
        let find = |key: ProbeKey| {
            activations.get(&key).ok_or_else(|| Error::internal("an edited tensor was not read"))
        };
        let mut edited: HashMap<ProbeKey, Tensor> = HashMap::new();
        let mut changes = Vec::with_capacity(moves.len());
        for (index, (run, edit)) in moves.iter().enumerate() {
            let of = key(*run, &edit.place);
            let x = match edited.get(&of) {
                Some(x) => x.clone(),
                None => find(of)?.clone(),
            };
            let value = edit
                .value_from(|source, place| place.take(find(key(source.unwrap_or(*run), place))?, config))?;
            let block = edit.place.take(&x, config)?;
            let new = edit.op.apply(edit.scale, &block, value.as_ref())?.detach();
            let by = (&new - &block)?.flatten_all()?.to_vec1()?;
            changes.push(Change { of, place: edit.place.clone(), by });
            if moves[index + 1..].iter().any(|(run, next)| key(*run, &next.place) == of) {
                edited.insert(of, edit.place.edit(&x, config, |_| Ok(new))?);
            }
        }
        Ok(changes)
    }

    /// How much changes raise a number with these slopes. Where it has none (what a query may not see is
    /// such a place), not even an infinite change matters.
    fn rise(&self, slopes: &HashMap<ProbeKey, Tensor>, changes: &[Change]) -> Result<f64> {
        let mut rise = 0.0;
        for change in changes {
            let Some(slope) = slopes.get(&change.of) else { continue };
            let slope =
                change.place.take(slope, self.sweep.model().config())?.flatten_all()?.to_vec1::<f32>()?;
            let terms = slope.iter().zip(&change.by).filter(|(slope, _)| **slope != 0.0);
            rise += terms.map(|(slope, by)| f64::from(*slope) * f64::from(*by)).sum::<f64>();
        }
        Ok(rise)
    }
}
