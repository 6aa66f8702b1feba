//! What is fitted to activations over a data set, to be the value of an edit.
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! use causalcone_engine::{Cone, Experiment, Op, OpKind, Value, fit};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! let edit = exp.edit(base, Site::BlockOutput.layers(..).at(Last), Op::collect())?;
//! exp.examples(vec![
//!     Example::new().prompt("base", "The capital of Spain is"),
//!     Example::new().prompt("base", "Rome is the capital of"),
//! ]);
//! let means = fit::means(&exp, &Cone::default())?;
//! assert_eq!(means[edit.index()][&Some(1)].dims(), [32]);
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use crate::collection::Collection;
use crate::execute::Executor;
use crate::experiment::Experiment;
use crate::noise::epsilon;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// Bytes of activations in memory at a time.
const CHUNK: u64 = 64 << 20;

/// The means of what an experiment collects, over all examples and positions: a vector for each layer (`None`
/// outside the blocks), for each edit in file order (nothing for one that is no `collect`). Sums are in f64.
///
/// # Errors
/// When it collects nothing, or from a site whose rows are no vectors of one width, or cannot be run.
pub fn means(
    experiment: &Experiment<'_>,
    executor: &dyn Executor,
) -> Result<Vec<BTreeMap<Option<usize>, Tensor>>> {
    let collection = Collection::new(experiment, CHUNK)?;
    // By edit and layer: the sum, and of how many rows.
    type Sums = BTreeMap<Option<usize>, (Vec<f64>, usize)>;
    let mut sums = vec![Sums::new(); experiment.edits.len()];
    for chunk in 0..collection.chunks().len() {
        let taken = collection.taken(chunk);
        let taken = taken.iter().flat_map(|one| one.places.iter().map(|place| (one.edit, place.layer)));
        let gathered = collection.gather(chunk, executor)?;
        for ((edit, layer), collected) in taken.zip(gathered.iter().flat_map(|one| &one.collected)) {
            let Ok((rows, width)) = collected.tensor.dims2() else {
                let problem =
                    format!("a mean is of whole rows, and {} has heads", collected.place.site.name());
                return Err(Error::part(experiment.edit_name(edit), problem));
            };
            let (sum, count) = sums[edit.index()].entry(layer).or_insert_with(|| (vec![0.0; width], 0));
            let numbers = collected.tensor.flatten_all()?.to_vec1::<f32>()?;
            for row in numbers.chunks(width) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            *count += rows;
        }
    }
    let mean = |(layer, (sum, count)): (Option<usize>, (Vec<f64>, usize))| {
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / count as f64) as f32).collect();
        Ok((layer, Tensor::new(mean, &Device::Cpu)?))
    };
    sums.into_iter().map(|by_layer| by_layer.into_iter().map(mean).collect()).collect()
}

/// A value with each row (of the last axis) scaled to a Euclidean norm, its direction kept; zero rows stay zero.
///
/// # Errors
/// When it is on a device that fails.
pub fn with_norm(value: &Tensor, norm: f64) -> Result<Tensor> {
    by_row(value, |_, row| {
        let own = length(row);
        let factor = if own == 0.0 { 0.0 } else { norm / own };
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    })
}

/// The control of a value: each row replaced by a random direction of the same norm. The directions are
/// uniform, drawn from ([`noise::epsilon`](crate::noise::epsilon)) the seed, the layer and the row.
///
/// # Errors
/// When it is on a device that fails.
pub fn random_like(value: &Tensor, seed: u64, layer: u64) -> Result<Tensor> {
    by_row(value, |index, row| {
        let norm = length(row);
        for (dimension, x) in row.iter_mut().enumerate() {
            *x = epsilon(seed, layer, 0, index as u64, dimension as u64);
        }
        let factor = norm / length(row);
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    })
}

fn length(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn by_row(value: &Tensor, change: impl Fn(usize, &mut [f32])) -> Result<Tensor> {
    let width = value.dims().last().copied().unwrap_or(1).max(1);
    let mut numbers = value.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    numbers.chunks_mut(width).enumerate().for_each(|(index, row)| change(index, row));
    Ok(Tensor::from_vec(numbers, value.dims(), value.device())?)
}
