//! Parameters drawn at random: where training starts, and controls for what was trained.

use super::asked::Op;
use super::kind::{Axis, OpKind, ParameterInfo};
use super::parameters::{Parameters, Problem};
use crate::bounds;
use crate::op::noise::{epsilon, uniform};
use candle_core::{DType, Device, Tensor};
use faer::Mat;
use rayon::prelude::*;
use std::sync::Arc;

impl Op {
    /// The same with all its parameters that have no default drawn for vectors of that width: rotations uniform
    /// over those with `rank` columns; weights, biases and projections uniform within ±1/√width, as torch starts a
    /// linear map; masks, b_enc, b_dec and thresholds 0; a ReFT's source uniform in [0, 1); W_enc normal with
    /// variance 1/width, and W_dec its transpose. The numbers are a function of the seed, the parameter and the
    /// element alone.
    ///
    /// ```
    /// use causalcone_engine::{Op, OpKind};
    /// let op = Op::new(OpKind::LowRankSwap).drawn(32, Some(4), 0).unwrap();
    /// assert_eq!(op.parameters.get("rotation").unwrap().dims(), [32, 4]);
    /// ```
    ///
    /// # Errors
    /// When the op has no such parameters, or the rank is not needed, missing, or more than the width.
    pub fn drawn(mut self, width: usize, rank: Option<usize>, seed: u64) -> Result<Self, Problem> {
        let mut kept: Vec<(&'static str, Tensor)> = Vec::new();
        for Drawn { number, parameter, sizes } in self.to_draw(width, rank)? {
            let tensor = match parameter.name {
                "W_dec" => kept.iter().find(|(name, _)| *name == "W_enc").map(|(_, encoder)| encoder.t()),
                name => Some(draw(name, parameter.orthogonal, &sizes, width, (seed, number as u64))),
            };
            let tensor = tensor.unwrap_or_else(|| Tensor::zeros(sizes, DType::F32, &Device::Cpu));
            let tensor = tensor.and_then(|x| x.contiguous()).map_err(|e| Problem::from(e.to_string()))?;
            kept.push((parameter.name, tensor.clone()));
            self = self.parameter(parameter.name, tensor);
        }
        Ok(self)
    }

    /// The same as [`Op::drawn`], without numbers: for plans, which only ask for shapes.
    pub(crate) fn outlined(mut self, width: usize, rank: Option<usize>) -> Result<Self, Problem> {
        let shapes = self.to_draw(width, rank)?.into_iter().map(|one| (one.parameter.name, one.sizes));
        self.parameters = Arc::new(Parameters::outlined(shapes).map_err(|e| Problem::from(e.to_string()))?);
        Ok(self)
    }

    /// The bytes that [`Op::drawn`] takes.
    pub(crate) fn drawn_bytes(&self, width: usize, rank: Option<usize>) -> Result<u64, Problem> {
        let numbers = |one: &Drawn| one.sizes.iter().product::<usize>();
        let drawn = self.to_draw(width, rank)?;
        Ok(drawn.iter().map(numbers).sum::<usize>() as u64 * size_of::<f32>() as u64)
    }

    /// What [`Op::drawn`] draws, checked: no size is too large to be computed with.
    fn to_draw(&self, width: usize, rank: Option<usize>) -> Result<Vec<Drawn>, Problem> {
        let info = self.kind.info();
        let op = || format!("op \"{}\"", info.name);
        let is_drawn = |parameter: &&ParameterInfo| parameter.default.is_none();
        if !info.parameters.iter().any(|parameter| is_drawn(&parameter)) {
            return Err(format!("{} has no parameters to draw", op()).into());
        }
        let has_rank = info.parameters.iter().any(|parameter| parameter.shape.contains(&Axis::Rank));
        let rank = match (has_rank, rank) {
            (true, Some(rank)) => rank,
            (false, None) => width,
            (true, None) => {
                let hint = Some(format!("write rank = …, from 1 to {width}"));
                return Err(Problem { message: format!("{} needs a rank for what is drawn", op()), hint });
            }
            (false, Some(_)) => return Err(format!("{} has no rank: its parameters are square", op()).into()),
        };
        // An autoencoder may have more latents than dimensions.
        let is_bounded = info.parameters.iter().any(|parameter| parameter.orthogonal);
        if rank == 0 || is_bounded && rank > width {
            let most = format!("the width {width} of what is edited");
            return Err(format!("rank {rank} is not between 1 and {most}").into());
        }
        if let (true, Some((message, hint))) = (has_rank, bounds::RANK.wrong(rank)) {
            return Err(Problem { message, hint: Some(hint) });
        }
        let drawn = info.parameters.iter().enumerate().filter(|(_, parameter)| is_drawn(parameter));
        let drawn = drawn.map(|(number, parameter)| {
            let size = |axis: &Axis| if *axis == Axis::Width { width } else { rank };
            let sizes: Vec<usize> = parameter.shape.iter().map(size).collect();
            let count = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
            if count.is_some_and(|count| count <= bounds::DRAWN) {
                return Ok(Drawn { number, parameter, sizes });
            }
            let most = format!("more than the {} numbers that are drawn", bounds::DRAWN);
            let message = format!("\"{}\" of shape {sizes:?} has {most}", parameter.name);
            Err(Problem { message, hint: Some("lower the rank, or read it from a file".into()) })
        });
        drawn.collect()
    }

    /// [`Op::new`] and [`Op::drawn`].
    ///
    /// # Errors
    /// As [`Op::drawn`].
    pub fn random(kind: OpKind, width: usize, rank: Option<usize>, seed: u64) -> Result<Self, Problem> {
        Self::new(kind).drawn(width, rank, seed)
    }
}

/// A parameter that is to be drawn.
struct Drawn {
    /// Its place in the op's table, which its stream of numbers depends on.
    number: usize,
    parameter: &'static ParameterInfo,
    sizes: Vec<usize>,
}

/// One parameter.
fn draw(
    name: &str,
    orthogonal: bool,
    sizes: &[usize],
    width: usize,
    seed: (u64, u64),
) -> candle_core::Result<Tensor> {
    let count: usize = sizes.iter().product();
    let drawn: Vec<f32> = match name {
        _ if orthogonal => return orthonormal(sizes[0], sizes[1], seed.0),
        // The rows are orthonormal.
        "components" => return orthonormal(sizes[1], sizes[0], seed.0)?.t()?.contiguous(),
        "mask" | "b_enc" | "b_dec" | "threshold" => vec![0.0; count],
        "source" => numbers(count, |i| uniform(seed.0, seed.1, i) as f32),
        "W_enc" => {
            let size = 1.0 / (width as f32).sqrt();
            numbers(count, |i| epsilon(seed.0, seed.1, 0, 0, i) * size)
        }
        _ => {
            let bound = 1.0 / (width as f64).sqrt();
            numbers(count, |i| ((2.0 * uniform(seed.0, seed.1, i) - 1.0) * bound) as f32)
        }
    };
    Tensor::from_vec(drawn, sizes, &Device::Cpu)
}

/// So many numbers, each a function of its place.
fn numbers(count: usize, number: impl Fn(u64) -> f32 + Sync) -> Vec<f32> {
    (0..count).into_par_iter().map(|i| number(i as u64)).collect()
}

/// A matrix of orthonormal columns, uniform over all of them: the orthogonal factor of a matrix of normal numbers,
/// with the signs that make the other factor's diagonal positive.
fn orthonormal(rows: usize, columns: usize, seed: u64) -> candle_core::Result<Tensor> {
    let normal = Mat::from_fn(rows, columns, |i, j| f64::from(epsilon(seed, 0, 0, i as u64, j as u64)));
    let factors = normal.qr();
    let (q, r) = (factors.compute_thin_Q(), factors.thin_R());
    let at = |i: usize, j: usize| if r[(j, j)] < 0.0 { -q[(i, j)] } else { q[(i, j)] };
    let numbers = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
    Tensor::from_vec(numbers.map(|(i, j)| at(i, j) as f32).collect(), (rows, columns), &Device::Cpu)
}

/// A square matrix of orthonormal columns whose first are these; the others are drawn.
pub(crate) fn completed(columns: &Tensor, seed: u64) -> candle_core::Result<Tensor> {
    let (rows, given) = columns.dims2()?;
    let numbers = columns.to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let drawn = |i: usize, j: usize| f64::from(epsilon(seed, 1, 0, i as u64, j as u64));
    let whole =
        Mat::from_fn(rows, rows, |i, j| if j < given { f64::from(numbers[i][j]) } else { drawn(i, j) });
    let q = whole.qr().compute_Q();
    let at = |i: usize, j: usize| if j < given { numbers[i][j] } else { q[(i, j)] as f32 };
    let numbers = (0..rows).flat_map(|i| (0..rows).map(move |j| (i, j)));
    Tensor::from_vec(numbers.map(|(i, j)| at(i, j)).collect(), (rows, rows), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OPS;
    use causalcone_ops::distance_from_orthogonal;

    #[test]
    fn what_is_drawn_fits_every_op() {
        for info in OPS.iter().filter(|info| info.parameters.iter().any(|p| p.default.is_none())) {
            let has_rank = info.parameters.iter().any(|p| p.shape.contains(&Axis::Rank));
            let rank = has_rank.then_some(3);
            let op = Op::random(info.kind, 12, rank, 5).unwrap();
            let again = Op::random(info.kind, 12, rank, 5).unwrap();
            let other = Op::random(info.kind, 12, rank, 6).unwrap();
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let numbers = |op: &Op| op.parameters.iter().flat_map(|(_, x)| flat(x)).collect::<Vec<_>>();
            assert_eq!(numbers(&op), numbers(&again));
            // A mask starts at 0 whatever the seed.
            assert!(numbers(&op) != numbers(&other) || info.name == "sigmoid_mask", "{}", info.name);
            let takes_value = info.value != crate::op::Takes::No;
            let checked = Op { value: takes_value.then_some(crate::Value::Number(0.0)), ..op };
            assert!(checked.operation(12, None).is_ok(), "{}", info.name);
            assert!(Op::random(info.kind, 12, (!has_rank).then_some(3), 5).is_err());
        }
        assert!(Op::random(OpKind::LowRankSwap, 12, Some(13), 5).is_err());
        assert!(Op::random(OpKind::LowRankSwap, 12, Some(0), 5).is_err());
        assert!(Op::random(OpKind::Add, 12, None, 5).is_err());
    }

    #[test]
    fn columns_are_orthonormal_and_can_be_completed() {
        for (rows, columns) in [(1, 1), (7, 3), (40, 40)] {
            let drawn = orthonormal(rows, columns, 3).unwrap();
            assert!(distance_from_orthogonal(&drawn).unwrap() < 1e-6);
            let whole = completed(&drawn, 1).unwrap();
            assert_eq!(whole.dims(), [rows, rows]);
            assert!(distance_from_orthogonal(&whole).unwrap() < 1e-5);
            let first = whole.narrow(1, 0, columns).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(first, drawn.to_vec2::<f32>().unwrap());
        }
    }
}
