//! What is fitted to activations over a data set, to be the value of an edit.
//!
//! ```
//! use causalcone_engine::dataset::Example;
//! use causalcone_engine::{Experiment, Op, OpKind, Runtime, Value, statistics};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.open_run("base")?;
//! let edit = exp.collect(base, Site::BlockOutput.layers(..).at(Last))?;
//! exp.set_examples(vec![
//!     Example::new().prompt("base", "The capital of Spain is"),
//!     Example::new().prompt("base", "Rome is the capital of"),
//! ]);
//! let means = statistics::means(&exp, &Runtime::default())?;
//! assert_eq!(means[edit.index()][&Some(1)].dims(), [32]);
//! let components = statistics::components(&exp, &Runtime::default(), 2, false)?;
//! assert_eq!(components[edit.index()][&Some(1)].components.dims(), [2, 32]);
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::ids::EditId;
use crate::op::noise::epsilon;
use crate::plan::Place;
use crate::plan::collected::Collected;
use crate::run::collection::Collection;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_model::Layout;
use faer::{Mat, Side};
use std::collections::BTreeMap;

/// Bytes of activations in memory at a time.
const CHUNK: u64 = 64 << 20;

/// Bytes of products of dimensions in memory: of all layers of 768 dimensions, or one of 11 000.
const MOST_PRODUCTS: usize = 1 << 30;

/// By layer; `None` outside the blocks.
pub type ByLayer<T> = BTreeMap<Option<usize>, T>;

/// The means of what an experiment collects, over all examples and positions: a vector for each layer (`None`
/// outside the blocks), for each edit in file order (nothing for one that is no `collect`). On sites by head a
/// mean is 1 × heads × width. Sums are in f64.
///
/// # Errors
/// When it collects nothing, or from attention matrices, or cannot be run.
pub fn means(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<Vec<ByLayer<Tensor>>> {
    /// The sum of rows, of how many, and how one is laid out.
    struct Sum {
        sum: Vec<f64>,
        rows: usize,
        shape: Vec<usize>,
    }
    let mut sums: Vec<ByLayer<Sum>> = (0..experiment.edits.len()).map(|_| BTreeMap::new()).collect();
    each_example(experiment, runtime, |collected| {
        for (edit, collected) in collected {
            let shape = match collected.tensor.dims() {
                [_, width] => vec![*width],
                [_, heads, width] if !collected.place.site.is_attention_matrix() => vec![1, *heads, *width],
                _ => return Err(no_vectors(experiment, *edit, &collected.place)),
            };
            let width = shape.iter().product();
            let empty = || Sum { sum: vec![0.0; width], rows: 0, shape };
            let sum = sums[edit.index()].entry(collected.place.layer).or_insert_with(empty);
            for row in collected.tensor.flatten_all()?.to_vec1::<f32>()?.chunks(width) {
                sum.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
                sum.rows += 1;
            }
        }
        Ok(())
    })?;
    let mean = |(layer, Sum { sum, rows, shape }): (Option<usize>, Sum)| {
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / rows as f64) as f32).collect();
        Ok((layer, Tensor::from_vec(mean, shape, &Device::Cpu)?))
    };
    sums.into_iter().map(|by_layer| by_layer.into_iter().map(mean).collect()).collect()
}

/// Principal components of activations, as [`PcaSwap`](crate::op::OpKind::PcaSwap) takes them.
#[derive(Debug, Clone)]
pub struct Components {
    /// The directions of most variance, most first: k × d, orthonormal rows. Of each the number of the largest
    /// magnitude is positive.
    pub components: Tensor,
    /// What was taken off first: the mean, d.
    pub mean: Tensor,
    /// What it was then divided by, d: the standard deviations, or ones.
    pub std: Tensor,
    /// The part of the variance that each explains.
    pub explained: Vec<f64>,
}

/// The principal components of what an experiment collects, over all examples and positions, for each layer of
/// each edit as in [`means`]: the `rank` eigenvectors of the covariance with the largest eigenvalues, of the
/// correlation if `standardise` (a dimension that never changes is then left as it is). In f64.
///
/// # Errors
/// As [`means`]; on sites by head; when there are fewer rows, or dimensions, than components asked for.
pub fn components(
    experiment: &Experiment<'_>,
    runtime: &Runtime<'_>,
    rank: usize,
    standardise: bool,
) -> Result<Vec<ByLayer<Components>>> {
    let mut found: Vec<ByLayer<Moments>> = (0..experiment.edits.len()).map(|_| BTreeMap::new()).collect();
    each_example(experiment, runtime, |collected| {
        for (edit, collected) in collected {
            let rows = rows_of(experiment, *edit, collected)?;
            add_moments(&mut found[edit.index()], collected.place.layer, &rows, experiment, *edit)?;
        }
        Ok(())
    })?;
    let of = |(edit, by_layer): (usize, ByLayer<Moments>)| {
        let one = |(layer, moments): (Option<usize>, Moments)| {
            Ok((layer, moments.components(rank, standardise, &experiment.edit_name(EditId(edit)))?))
        };
        by_layer.into_iter().map(one).collect()
    };
    found.into_iter().enumerate().map(of).collect()
}

/// For each layer the direction u, a vector of length 1, along which the activations of two runs differ most:
/// Σ(d·u)² over their differences d, row by row, is largest, and towards the first: Σ d·u is not negative. The
/// experiment collects twice, from the same site and layers. In f64.
///
/// The differences are not centred, so that a difference all pairs share counts; it is the first component of
/// the pairs each centred on its own mean.
///
/// # Errors
/// As [`components`]; when it does not collect just twice, or the two have different numbers of rows.
pub fn contrast(experiment: &Experiment<'_>, runtime: &Runtime<'_>) -> Result<ByLayer<Tensor>> {
    let mut found: ByLayer<Moments> = BTreeMap::new();
    each_example(experiment, runtime, |collected| {
        let (first, second) = collected.split_at(collected.len() / 2);
        let pairs_up = |((_, a), (_, b)): (&(EditId, Collected), &(EditId, Collected))| {
            (a.place.site, a.place.layer) == (b.place.site, b.place.layer)
        };
        if first.len() != second.len() || !first.iter().zip(second).all(pairs_up) {
            return Err(Error::part("contrast", "needs the same site and layers of two runs"));
        }
        for ((edit, ours), (_, theirs)) in first.iter().zip(second) {
            let (a, b) = (rows_of(experiment, *edit, ours)?, rows_of(experiment, *edit, theirs)?);
            check_pairs(a.dim(0)?, b.dim(0)?, experiment, *edit)?;
            add_moments(&mut found, ours.place.layer, &(a - b)?, experiment, *edit)?;
        }
        Ok(())
    })?;
    let one = |(layer, moments): (Option<usize>, Moments)| {
        let (_, vectors) = eigen(&moments.products, moments.sum.len())?;
        let towards: f64 = vectors[0].iter().zip(&moments.sum).map(|(u, sum)| u * sum).sum();
        let sign = if towards < 0.0 { -1.0 } else { 1.0 };
        let direction: Vec<f32> = vectors[0].iter().map(|u| (sign * u) as f32).collect();
        Ok((layer, Tensor::new(direction, &Device::Cpu)?))
    };
    found.into_iter().map(one).collect()
}

/// Checks that rows of two runs pair up.
fn check_pairs(ours: usize, theirs: usize, experiment: &Experiment<'_>, edit: EditId) -> Result<()> {
    if ours == theirs {
        return Ok(());
    }
    let problem = format!("its runs have {ours} and {theirs} positions there, which do not pair up");
    let hint = Some("name as many positions in both, such as positions = \"last\"".into());
    Err(Error::hinted(experiment.edit_name(edit), problem, hint))
}

/// Checks that the products of a layer's dimensions fit into memory beside those of the layers found before.
fn check_products<T>(
    found: &ByLayer<T>,
    layer: Option<usize>,
    width: usize,
    experiment: &Experiment<'_>,
    edit: EditId,
) -> Result<()> {
    let layers = found.len() + 1;
    if found.contains_key(&layer) || layers * width * width * size_of::<f64>() <= MOST_PRODUCTS {
        return Ok(());
    }
    let problem =
        format!("{width} dimensions of so many layers take more than {} MiB to fit", MOST_PRODUCTS >> 20);
    Err(Error::hinted(experiment.edit_name(edit), problem, Some("name fewer layers".into())))
}

/// Sums over rows: of each dimension, and of the products of any two.
struct Moments {
    rows: usize,
    sum: Vec<f64>,
    products: Vec<f64>,
}

impl Moments {
    fn new(width: usize) -> Self {
        Self { rows: 0, sum: vec![0.0; width], products: vec![0.0; width * width] }
    }

    fn add(&mut self, rows: &Tensor) -> Result<()> {
        let x = rows.to_dtype(DType::F64)?;
        let products = x.t()?.contiguous()?.matmul(&x)?.flatten_all()?.to_vec1::<f64>()?;
        let sum = x.sum(0)?.to_vec1::<f64>()?;
        self.rows += x.dim(0)?;
        self.sum.iter_mut().zip(sum).for_each(|(all, sum)| *all += sum);
        self.products.iter_mut().zip(products).for_each(|(all, product)| *all += product);
        Ok(())
    }

    fn components(&self, rank: usize, standardise: bool, part: &str) -> Result<Components> {
        let (d, n) = (self.sum.len(), self.rows as f64);
        check_rank(rank, d, self.rows, part)?;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let at = |i: usize, j: usize| self.products[i * d + j] / n - mean[i] * mean[j];
        let std: Vec<f64> = (0..d)
            .map(|i| at(i, i).max(0.0).sqrt())
            .map(|std| if standardise && std > 0.0 { std } else { 1.0 })
            .collect();
        let covariance: Vec<f64> = (0..d * d).map(|k| at(k / d, k % d) / (std[k / d] * std[k % d])).collect();
        let (values, vectors) = eigen(&covariance, d)?;
        let total: f64 = values.iter().sum();
        let signed = vectors.iter().take(rank).flat_map(|vector| {
            let largest = vector.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
            let sign = if largest < 0.0 { -1.0 } else { 1.0 };
            vector.iter().map(move |x| (sign * x) as f32)
        });
        let row = |numbers: &[f64]| {
            let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
            Tensor::new(numbers, &Device::Cpu)
        };
        Ok(Components {
            components: Tensor::from_vec(signed.collect(), (rank, d), &Device::Cpu)?,
            mean: row(&mean)?,
            std: row(&std)?,
            explained: values.iter().take(rank).map(|value| value / total).collect(),
        })
    }
}

fn check_rank(rank: usize, width: usize, rows: usize, part: &str) -> Result<()> {
    let most = width.min(rows);
    if (1..=most).contains(&rank) {
        return Ok(());
    }
    let problem =
        format!("{rank} components cannot be fitted to {rows} rows of {width} numbers; 1 to {most} can");
    Err(Error::part(part, problem))
}

/// What would be fitted to what an experiment collects from one layer, told without computing it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// The shape of a mean.
    pub(crate) of_mean: Vec<usize>,
    /// The edit that collects it, and how many rows.
    edit: usize,
    rows: usize,
}

impl Shape {
    /// Checks that so many components can be fitted; gives the width of each.
    pub(crate) fn check_rank(&self, rank: usize, experiment: &Experiment<'_>) -> Result<usize> {
        let part = experiment.edit_name(EditId(self.edit));
        let [width] = self.of_mean[..] else { return Err(Error::part(part, "components are of whole rows")) };
        check_rank(rank, width, self.rows, &part)?;
        Ok(width)
    }
}

/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitted {
    /// [`means`].
    Means,
    /// [`components`].
    Components,
    /// [`contrast`].
    Contrast,
}

/// What would be fitted, by edit and layer: everything but the numbers.
///
/// # Errors
/// As [`means`], [`components`] or [`contrast`], but for what only a computation finds.
pub(crate) fn outline(experiment: &Experiment<'_>, fitted: Fitted) -> Result<Vec<ByLayer<Shape>>> {
    let collection = Collection::new(experiment, CHUNK)?;
    let mut found: Vec<ByLayer<Shape>> = vec![BTreeMap::new(); experiment.edits.len()];
    for chunk in 0..collection.chunks().len() {
        let taken = collection.taken(chunk)?;
        if fitted == Fitted::Contrast {
            for of_example in taken.chunk_by(|a, b| a.example == b.example) {
                let [ours, theirs] = of_example else { continue };
                for (a, b) in ours.places.iter().zip(&theirs.places) {
                    check_pairs(a.positions.len(), b.positions.len(), experiment, ours.edit)?;
                }
            }
        }
        for taken in taken {
            for place in &taken.places {
                let wide = |width: usize| place.dims.as_ref().map_or(width, |dims| dims.len());
                let of_mean = match place.site.layout(experiment.model().config()) {
                    Layout::Rows { width } => vec![wide(width)],
                    Layout::Heads { heads, width } => {
                        vec![1, place.heads.as_ref().map_or(heads, |heads| heads.len()), wide(width)]
                    }
                    Layout::Attention { .. } => return Err(no_vectors(experiment, taken.edit, place)),
                };
                let found = &mut found[taken.edit.index()];
                if let ([width], true) = (&of_mean[..], fitted != Fitted::Means) {
                    check_products(found, place.layer, *width, experiment, taken.edit)?;
                }
                let shape = found.entry(place.layer).or_default();
                let rows = shape.rows + place.positions.len();
                *shape = Shape { of_mean, edit: taken.edit.index(), rows };
            }
        }
    }
    Ok(found)
}

/// The eigenvalues of a symmetric matrix, largest first, and their eigenvectors.
fn eigen(matrix: &[f64], d: usize) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let matrix = Mat::from_fn(d, d, |i, j| matrix[i * d + j]);
    let found = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| {
        Error::part("fit", "the eigenvectors of the covariance were not found: no convergence")
    })?;
    let values = (0..d).rev().map(|i| found.S().column_vector()[i]).collect();
    let vectors = (0..d).rev().map(|j| (0..d).map(|i| found.U()[(i, j)]).collect()).collect();
    Ok((values, vectors))
}

fn add_moments(
    found: &mut ByLayer<Moments>,
    layer: Option<usize>,
    rows: &Tensor,
    experiment: &Experiment<'_>,
    edit: EditId,
) -> Result<()> {
    let width = rows.dim(1)?;
    check_products(found, layer, width, experiment, edit)?;
    found.entry(layer).or_insert_with(|| Moments::new(width)).add(rows)
}

/// Calls `take` with all that is collected of each example: by edit in file order, a layer each.
fn each_example(
    experiment: &Experiment<'_>,
    runtime: &Runtime<'_>,
    mut take: impl FnMut(&[(EditId, Collected)]) -> Result<()>,
) -> Result<()> {
    let collection = Collection::new(experiment, CHUNK)?;
    for chunk in 0..collection.chunks().len() {
        let edits = collection.taken(chunk)?;
        let mut edits = edits.iter().flat_map(|one| one.places.iter().map(|_| one.edit));
        for gathered in collection.gather_for("fitting", chunk, runtime)? {
            let collected = gathered.collected.into_iter().zip(edits.by_ref());
            take(&collected.map(|(collected, edit)| (edit, collected)).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// What is collected, as rows of one width.
fn rows_of(experiment: &Experiment<'_>, edit: EditId, collected: &Collected) -> Result<Tensor> {
    match collected.tensor.dims() {
        [_, _] => Ok(collected.tensor.clone()),
        _ => Err(no_vectors(experiment, edit, &collected.place)),
    }
}

fn no_vectors(experiment: &Experiment<'_>, edit: EditId, place: &Place) -> Error {
    let problem = format!("what is fitted here is of whole rows, not of {}", place.site.name());
    Error::part(experiment.edit_name(edit), problem)
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
/// uniform, drawn from ([`noise::epsilon`](crate::op::noise::epsilon)) the seed, the layer and the row.
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
