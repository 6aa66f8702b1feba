//! The reference executor: one run at a time, every layer, every position, edits applied where
//! they stand. Short and obviously right; it is the oracle of every other one and stays for good.

use super::executor::{Executor, Sink, go_on, no_gradients};
use crate::cone::{Flops, Work};
use crate::plan::{Cell, Edit, Plan, Read, TensorKey};
use crate::reading::Reading;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::decoder::Tap;
use causalcone_model::{Config, Model, Site};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The executor that takes no short cut but one: a shared run is run once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// The tensors of finished runs that others still need.
type Kept = HashMap<usize, HashMap<TensorKey, Tensor>>;

impl Executor for Reference {
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<Work> {
        no_gradients(cells)?;
        let flops = Flops::new(model.config());
        let mut work = Work::default();
        let shared: BTreeSet<usize> =
            cells.iter().flat_map(|cell| plan.needed(cell)).filter(|run| *run < plan.shared).collect();
        let wanted = wanted(plan, cells);
        let mut run_one = |run: usize, kept: &mut Kept| -> Result<()> {
            work += flops.run(model.config(), plan.runs[run].ids.len());
            let tensors = forward(model, plan, run, &wanted, kept)?;
            kept.insert(run, tensors);
            Ok(())
        };
        let mut kept = Kept::new();
        for run in shared {
            run_one(run, &mut kept)?;
        }
        for (index, cell) in cells.iter().enumerate() {
            for run in plan.needed(cell).into_iter().filter(|run| *run >= plan.shared) {
                run_one(run, &mut kept)?;
            }
            let readings =
                cell.reads.iter().map(|read| reading(model, read, &kept)).collect::<Result<_>>()?;
            kept.retain(|run, _| *run < plan.shared);
            go_on(sink(index, readings)?)?;
        }
        Ok(work)
    }

    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work> {
        // A cell's own runs are its own; what all share is run once.
        let needed: HashSet<usize> = cells.iter().flat_map(|cell| plan.needed(cell)).collect();
        let flops = Flops::new(config);
        let mut work = Work::default();
        for run in needed {
            work += flops.run(config, plan.runs[run].ids.len());
        }
        Ok(work)
    }

    fn name(&self) -> &'static str {
        "reference"
    }
}

/// Every tensor of a run that some value or read takes from.
fn wanted(plan: &Plan, cells: &[&Cell]) -> HashSet<(usize, TensorKey)> {
    let mut wanted = HashSet::new();
    for cell in cells {
        for read in &cell.reads {
            wanted.insert(match read {
                Read::Activation { run, place } => (*run, place.tensor()),
                Read::Logits { .. } | Read::Gradient(_) => (read.run(), (Site::Logits, None)),
            });
        }
        let needed = plan.needed(cell).into_iter();
        for (run, edit) in needed.flat_map(|run| plan.runs[run].edits.iter().map(move |edit| (run, edit))) {
            wanted.extend(edit.source().map(|(source, place)| (source.unwrap_or(run), place.tensor())));
        }
    }
    wanted
}

/// Runs one run whole and keeps its wanted tensors, as they are after its edits.
fn forward(
    model: &Model,
    plan: &Plan,
    run: usize,
    wanted: &HashSet<(usize, TensorKey)>,
    kept: &Kept,
) -> Result<HashMap<TensorKey, Tensor>> {
    let mut edits: HashMap<TensorKey, Vec<&Edit>> = HashMap::new();
    for edit in &plan.runs[run].edits {
        edits.entry(edit.place.tensor()).or_default().push(edit);
    }
    let mut pass = RunPass { model, run, edits, wanted, kept, tensors: HashMap::new() };
    // What can only be found while running is told with the run it was found in.
    model.decoder()?.forward(&plan.runs[run].ids, &mut pass).map_err(|e| match e {
        Error::Model(source) if source.is_bad_input() => {
            Error::Part { part: format!("run \"{}\"", plan.runs[run].name), source }
        }
        other => other,
    })?;
    Ok(pass.tensors)
}

/// One forward pass: edits what the run edits, keeps what is wanted.
struct RunPass<'a> {
    model: &'a Model,
    run: usize,
    edits: HashMap<TensorKey, Vec<&'a Edit>>,
    wanted: &'a HashSet<(usize, TensorKey)>,
    kept: &'a Kept,
    tensors: HashMap<TensorKey, Tensor>,
}

impl Tap for RunPass<'_> {
    type Error = Error;

    fn at(&mut self, site: Site, layer: Option<usize>, mut x: Tensor) -> Result<Tensor> {
        let key = (site, layer);
        let config = self.model.config();
        for edit in self.edits.get(&key).into_iter().flatten() {
            let value = edit.value_from(|run, place| {
                let whole = match run {
                    Some(run) => tensor(self.kept, run, place.tensor())?,
                    None => self.tensors.get(&place.tensor()).ok_or_else(|| {
                        Error::internal("an edit takes a tensor of its run that is not there yet")
                    })?,
                };
                place.take(whole, config)
            })?;
            x = edit.place.edit(&x, config, |block| edit.op.apply(edit.scale, block, value.as_ref()))?;
        }
        if self.wanted.contains(&(self.run, key)) {
            self.tensors.insert(key, x.clone());
        }
        Ok(x)
    }
}

fn reading(model: &Model, read: &Read, kept: &Kept) -> Result<Reading> {
    Ok(match read {
        Read::Logits { run, position, tokens } => {
            let row = tensor(kept, *run, (Site::Logits, None))?.get(*position)?;
            Reading::Logits(match tokens {
                Some(tokens) => row.index_select(&Tensor::new(&**tokens, row.device())?, 0)?,
                None => row,
            })
        }
        Read::Activation { run, place } => {
            Reading::Activation(place.take(tensor(kept, *run, place.tensor())?, model.config())?)
        }
        Read::Gradient(_) => return Err(Error::internal("a gradient is no activation")),
    })
}

fn tensor(kept: &Kept, run: usize, key: TensorKey) -> Result<&Tensor> {
    let found = kept.get(&run).and_then(|tensors| tensors.get(&key));
    found.ok_or_else(|| {
        let layer = key.1.map_or_else(String::new, |layer| format!(" of layer {layer}"));
        Error::internal(format!("run {run} is read at {}{layer} before it is run", key.0.name()))
    })
}
