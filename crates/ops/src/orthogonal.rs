//! Matrices of orthonormal columns, as differentiable functions of matrices without constraint.
//!
//! - [`cayley`] is what causalcone trains with: the Cayley transform of a skew-symmetric matrix, along which
//!   a given matrix turns. It reaches every rotation but those with a half turn, never leaves the
//!   orthogonal group, and costs about four products of d × k matrices for a low rank k, and one inverse,
//!   by products of blocks, for a full one: a small part of a training step. No retraction follows a step.
//! - [`householder`] and [`exponential`] are those of torch's `parametrizations.orthogonal`, which pyvene
//!   trains with, so that what it saved and how it learned can be followed.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_ops::cayley;
//!
//! let start = Tensor::new(&[[1f32], [0.0]], &Device::Cpu)?;
//! let turn = Tensor::new(&[[0f32], [2.0]], &Device::Cpu)?;
//! // A quarter of a turn: tan(90° / 2) = 2 / 2.
//! assert_eq!(cayley(&start, &turn)?.to_vec2::<f32>()?, [[0.0], [1.0]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use crate::Linear;
use crate::kernel::{floats, is_fast, is_trained};
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Matrices up to this size are inverted number by number.
const SMALL: usize = 32;
/// The largest row sum of what the series of the exponential is summed for.
const NEAR: f64 = 0.5;
/// The number of terms: the rest of the series of e^½ is below 1e-16.
const TERMS: usize = 14;

/// `(I − ½A)⁻¹(I + ½A)·start` with `A = x·startᵀ − start·xᵀ`, for `start` d × k of orthonormal columns and
/// any `x` of the same shape: `start` where x is 0, and of orthonormal columns everywhere.
///
/// For ranks below d / 2 the inverse is of a 2k × 2k matrix (Woodbury): A = U·Wᵀ with U = [x, −start] and
/// W = [start, x], so the result is start + U·(I − ½Wᵀ·U)⁻¹·Wᵀ·start.
///
/// # Errors
/// When the shapes differ or are not of tall matrices.
pub fn cayley(start: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (d, k) = x.dims2()?;
    if start.dims() != x.dims() || k > d {
        candle_core::bail!("cayley of {:?} and {:?}: two equal tall matrices fit", start.dims(), x.dims());
    }
    if 2 * k >= d && is_fast([start, x]) && !is_trained([start]) {
        return x.contiguous()?.apply_op1(Turn { start: start.contiguous()?, inverse: OnceLock::new() });
    }
    if 2 * k >= d {
        let a = (x.matmul(&start.t()?)? - start.matmul(&x.t()?)?)?;
        let half = (a * 0.5)?;
        let eye = Tensor::eye(d, x.dtype(), x.device())?;
        let turned = (&eye + &half)?.matmul(start)?;
        return inverse(&(eye - half)?)?.matmul(&turned);
    }
    let u = Tensor::cat(&[x, &start.neg()?], 1)?;
    let w = Tensor::cat(&[start, x], 1)?.t()?;
    let inner = (Tensor::eye(2 * k, x.dtype(), x.device())? - (w.matmul(&u)? * 0.5)?)?;
    start + u.matmul(&inverse(&inner)?.matmul(&w.matmul(start)?)?)?
}

/// [`cayley`] as a kernel, for ranks whose inverse is of a whole d × d matrix: autograd through it would take each
/// product's two slopes, and candle's products are half as fast as ours.
///
/// With M = I − ½A the result is y = M⁻¹·(2I − M)·start = 2·M⁻¹·start − start. For a slope g of y, h = M⁻ᵀ·g and
/// z = start + y the slope of A is ½·h·zᵀ, of which A = x·startᵀ − start·xᵀ takes what is skew:
/// dx = ½·(h·zᵀ − z·hᵀ)·start.
struct Turn {
    start: Tensor,
    /// M⁻¹, from the one to the other.
    inverse: OnceLock<Tensor>,
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "cayley"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Tensor::from_slice(floats(x, layout)?, layout.shape(), &Device::Cpu)?;
        let half = (product(&x, &self.start.t()?)? * 0.5)?;
        let inverse = blocks(&((Tensor::eye(x.dim(0)?, DType::F32, &Device::Cpu)? - &half)? + half.t()?)?)?;
        let y = ((product(&inverse, &self.start)? * 2.0)? - &self.start)?;
        // Made once a graph, by whoever comes first.
        let _ = self.inverse.set(inverse);
        Ok((CpuStorage::F32(y.flatten_all()?.to_vec1()?), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(inverse) = self.inverse.get() else { bail!("cayley's slope before its value") };
        let h = product(&inverse.t()?, grad)?;
        let z = (&self.start + y.detach())?;
        let of = |a: &Tensor, b: &Tensor| product(a, &product(&b.t()?, &self.start)?);
        Ok(Some(((of(&h, &z)? - of(&z, &h)?)? * 0.5)?))
    }
}

/// a·b, without gradients: by our own products where they can do it.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Linear::new(b.detach(), None)?.forward(&a.detach().contiguous()?)
}

/// The first k columns of H₁·H₂·…·Hₖ for a d × k matrix, where Hᵢ = I − τᵢ·vᵢ·vᵢᵀ, vᵢ has the numbers of column
/// i below the diagonal under a 1, and τᵢ = 2 / |vᵢ|²; column i of the product has the sign of the diagonal's
/// number i. It is torch's map "orthogonal_map = householder".
///
/// All reflections are one product: H₁·…·Hₖ = I − V·T·Vᵀ with T⁻¹ = diag(1/τ) + what is above the diagonal of Vᵀ·V.
///
/// # Errors
/// When x is not a tall matrix.
pub fn householder(x: &Tensor) -> Result<Tensor> {
    let (d, k) = x.dims2()?;
    if k > d {
        candle_core::bail!("householder of {:?}: a tall matrix fits", x.dims());
    }
    let (device, dtype) = (x.device(), x.dtype());
    let eye = |rows: usize| mask((rows, k), |i, j| i == j, dtype, device);
    let below = (x * mask((d, k), |i, j| i > j, dtype, device)?)?;
    let v = (&below + eye(d)?)?;
    let products = v.t()?.matmul(&v)?;
    // Half of |vᵢ|² is 1/τᵢ.
    let parts = mask((k, k), |i, j| i <= j, dtype, device)?.sub(&(eye(k)? * 0.5)?)?;
    let t = inverse(&(products * parts)?)?;
    let q = (eye(d)? - v.matmul(&t.matmul(&v.narrow(0, 0, k)?.t()?)?)?)?;
    // The signs are no parameters: torch does not differentiate them either.
    let signs = (x.detach().narrow(0, 0, k)? * eye(k)?)?.sum(0)?;
    q.broadcast_mul(&truncated(&signs)?)
}

/// e^A for the skew-symmetric A with the numbers of x below the diagonal: torch's map "orthogonal_map =
/// matrix_exp" of a square matrix.
///
/// Scaling and squaring: the series is summed for A / 2ˢ, whose row sums are at most ½, and squared s times.
///
/// # Errors
/// When x is not square.
pub fn exponential(x: &Tensor) -> Result<Tensor> {
    let (d, k) = x.dims2()?;
    if k != d {
        candle_core::bail!("exponential of {:?}: a square matrix fits", x.dims());
    }
    let (device, dtype) = (x.device(), x.dtype());
    let below = (x * mask((d, d), |i, j| i > j, dtype, device)?)?;
    let a = (&below - below.t()?)?;
    let size = a.detach().abs()?.sum(1)?.max(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if !size.is_finite() {
        candle_core::bail!("exponential of a matrix that is not finite");
    }
    let squarings = (size / NEAR).log2().ceil().max(0.0) as i32;
    let a = (a * 0.5f64.powi(squarings))?;
    let eye = Tensor::eye(d, dtype, device)?;
    // Horner: 1 + A·(1 + A/2·(1 + A/3·(…))).
    let mut sum = eye.clone();
    for term in (1..=TERMS).rev() {
        sum = (&eye + (a.matmul(&sum)? * (1.0 / term as f64))?)?;
    }
    for _ in 0..squarings {
        sum = sum.matmul(&sum)?;
    }
    Ok(sum)
}

/// The inverse of a matrix whose symmetric part is positive definite, such as 1 − A for a skew A, or that
/// is triangular: the blocks that are inverted on the way have inverses too.
///
/// # Errors
/// When x is not square, or has no inverse.
fn inverse(x: &Tensor) -> Result<Tensor> {
    let y = blocks(&x.detach())?;
    // Newton's step is y again, but for its rounding, and has the inverse's gradient −y·dx·y.
    (&y * 2.0)? - y.matmul(&x.matmul(&y)?)?
}

/// The inverse by blocks: of [[a, b], [c, d]] through the inverses of a and of s = d − c·a⁻¹·b.
fn blocks(x: &Tensor) -> Result<Tensor> {
    let n = x.dim(0)?;
    if n <= SMALL {
        return small(x);
    }
    let (m, rest) = (n / 2, n - n / 2);
    let part = |i: usize, rows: usize, j: usize, columns: usize| {
        x.narrow(0, i, rows)?.narrow(1, j, columns)?.contiguous()
    };
    let (a, b, c, d) =
        (part(0, m, 0, m)?, part(0, m, m, rest)?, part(m, rest, 0, m)?, part(m, rest, m, rest)?);
    let a = blocks(&a)?;
    let (ab, ca) = (product(&a, &b)?, product(&c, &a)?);
    let s = blocks(&(d - product(&c, &ab)?)?)?;
    let (top_right, bottom_left) = (product(&ab, &s)?.neg()?, product(&s, &ca)?.neg()?);
    let top_left = (a - product(&ab, &bottom_left)?)?;
    let top = Tensor::cat(&[top_left, top_right], 1)?;
    Tensor::cat(&[top, Tensor::cat(&[bottom_left, s], 1)?], 0)
}

/// The inverse of a small matrix by Gauss and Jordan, in f64.
fn small(x: &Tensor) -> Result<Tensor> {
    let mut rows = x.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let n = rows.len();
    for (i, row) in rows.iter_mut().enumerate() {
        if row.len() != n {
            candle_core::bail!("inverse of {:?}: a square matrix fits", x.dims());
        }
        row.extend((0..n).map(|j| f64::from(u8::from(i == j))));
    }
    for column in 0..n {
        let best = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, best.unwrap_or(column));
        let pivot = rows[column][column];
        if !(pivot.abs() > 0.0 && pivot.is_finite()) {
            candle_core::bail!("inverse of a matrix that has none");
        }
        rows[column].iter_mut().for_each(|number| *number /= pivot);
        let pivots = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row[column];
            row.iter_mut().zip(&pivots).for_each(|(number, pivot)| *number -= factor * pivot);
        }
    }
    let numbers: Vec<f64> = rows.into_iter().flat_map(|row| row.into_iter().skip(n)).collect();
    Tensor::from_vec(numbers, (n, n), x.device())?.to_dtype(x.dtype())
}

/// Ones where the row and the column fit, else zeros.
fn mask(
    (rows, columns): (usize, usize),
    fits: impl Fn(usize, usize) -> bool,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let numbers: Vec<f32> =
        (0..rows * columns).map(|at| f32::from(u8::from(fits(at / columns, at % columns)))).collect();
    Tensor::from_vec(numbers, (rows, columns), device)?.to_dtype(dtype)
}

/// Numbers without what comes after the point, as torch's conversion to integers has it.
fn truncated(x: &Tensor) -> Result<Tensor> {
    x.sign()? * x.abs()?.floor()?
}

/// How far the products of the columns of a matrix are from those of orthonormal ones, at most.
///
/// # Errors
/// When x is not a matrix of floats.
pub fn distance_from_orthogonal(x: &Tensor) -> Result<f64> {
    let x = x.detach().to_dtype(DType::F32)?.contiguous()?;
    let k = x.dim(D::Minus1)?;
    let products = x.t()?.matmul(&x)?;
    let off = (products - Tensor::eye(k, DType::F32, x.device())?)?.abs()?.max_all()?;
    Ok(f64::from(off.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, noise};

    fn orthonormal(d: usize, k: usize, seed: u64) -> Tensor {
        // Signs on the diagonal, as the map needs them.
        let signed = (noise((d, k), seed)
            + mask((d, k), |i, j| i == j, DType::F32, &Device::Cpu).unwrap() * 5.0)
            .unwrap();
        let near_one = mask((d, k), |i, j| i == j, DType::F32, &Device::Cpu).unwrap();
        let off = mask((d, k), |i, j| i != j, DType::F32, &Device::Cpu).unwrap();
        householder(&((signed * off).unwrap() + near_one).unwrap()).unwrap()
    }

    #[test]
    fn all_maps_give_orthonormal_columns() {
        for (d, k) in [(1, 1), (5, 1), (8, 3), (12, 5), (8, 8), (70, 3), (70, 70), (101, 60)] {
            let start = orthonormal(d, k, 1);
            assert!(distance_from_orthogonal(&start).unwrap() < 1e-5, "householder {d} × {k}");
            let turned = cayley(&start, &noise((d, k), 2)).unwrap();
            // The first of many roundings of numbers near 1.
            assert!(distance_from_orthogonal(&turned).unwrap() < 1e-5, "cayley {d} × {k}");
            let same = cayley(&start, &start.zeros_like().unwrap()).unwrap();
            assert!(
                (same - &start).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6
            );
            if d == k {
                let turned = exponential(&noise((d, d), 3)).unwrap();
                assert!(distance_from_orthogonal(&turned).unwrap() < 1e-4, "exponential {d}");
            }
        }
        assert!(householder(&noise((2, 3), 1)).is_err() && exponential(&noise((3, 2), 1)).is_err());
        assert!(cayley(&noise((3, 2), 1), &noise((3, 1), 1)).is_err());
    }

    /// Both ways to compute the transform are of one function.
    #[test]
    fn the_low_rank_transform_is_the_full_one() {
        let (start, x) = (orthonormal(9, 4, 1), noise((9, 4), 2));
        let a = (x.matmul(&start.t().unwrap()).unwrap() - start.matmul(&x.t().unwrap()).unwrap()).unwrap();
        let half = (a * 0.5).unwrap();
        let eye = Tensor::eye(9, DType::F32, &Device::Cpu).unwrap();
        let full = small(&(&eye - &half).unwrap()).unwrap().matmul(&(eye + half).unwrap()).unwrap();
        let off = (full.matmul(&start).unwrap() - cayley(&start, &x).unwrap()).unwrap();
        assert!(off.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
    }

    #[test]
    fn slopes_are_those_of_finite_differences() {
        // Numbers near 1, summed over a few products.
        for (d, k) in [(5, 1), (8, 3), (6, 6), (9, 5), (40, 40)] {
            let start = orthonormal(d, k, 1);
            check(&[noise((d, k), 2)], 1e-5, |x| cayley(&start.to_dtype(x[0].dtype())?, &x[0]));
            // The diagonal holds signs, which do not count as parameters.
            let off = mask((d, k), |i, j| i > j, DType::F32, &Device::Cpu).unwrap();
            let signs = mask((d, k), |i, j| i == j, DType::F32, &Device::Cpu).unwrap();
            check(&[noise((d, k), 3)], 1e-5, |x| {
                let to = |y: &Tensor| y.to_dtype(x[0].dtype());
                householder(&((&x[0] * to(&off)?)? + to(&signs)?)?)
            });
        }
        check(&[noise((6, 6), 4)], 1e-5, |x| exponential(&x[0]));
        check(&[noise((40, 40), 5)], 1e-4, |x| {
            let eye = Tensor::eye(40, x[0].dtype(), x[0].device())?;
            inverse(&(eye + ((&x[0] - x[0].t()?)? * 0.2)?)?)
        });
    }
}
