//! Rotary position embedding, in the rotate-half form of Hugging Face checkpoints.

use crate::kernel::{Held, by_rows, floats, is_fast};
use crate::simd;
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use pulp::{Simd, WithSimd};
use std::collections::HashMap;

/// The angular frequencies `theta^(−2i/D)` of heads of which the first D numbers turn.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use causalcone_ops::{Rope, Standing};
///
/// let rows = [0, 1].map(|position| Standing { position, length: 2 });
/// let rotation = Rope::new(2, 10_000.0).at(&rows, DType::F32, &Device::Cpu)?;
/// let x = Tensor::new(&[[[1f32, 0.0], [1.0, 0.0]]], &Device::Cpu)?; // 1 head, 2 rows, D = 2
/// let y = rotation.forward(&x)?.to_vec3::<f32>()?;
/// assert_eq!(y[0][0], [1.0, 0.0]);               // position 0 stands still
/// assert_eq!(y[0][1], [1f32.cos(), 1f32.sin()]); // position 1 turns by one radian
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f64>,
    /// The frequencies in prompts of more tokens than this.
    long: Option<(usize, Vec<f64>)>,
    magnitude: f64,
}

/// Where a row stands, and in a prompt of how many tokens: some models turn all rows of a long prompt by other angles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Its position, from 0.
    pub position: usize,
    /// The prompt's length.
    pub length: usize,
}

impl Rope {
    /// Frequencies for heads that turn in an even number of dimensions, with base `theta`.
    pub fn new(width: usize, theta: f64) -> Self {
        let frequencies = (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64)).collect();
        Self { frequencies, long: None, magnitude: 1.0 }
    }

    /// Each frequency divided by its factor.
    #[must_use]
    pub fn divided_by(mut self, factors: &[f64]) -> Self {
        self.frequencies.iter_mut().zip(factors).for_each(|(frequency, factor)| *frequency /= factor);
        self
    }

    /// The frequencies of `long` for every row of a prompt of more than `most` tokens.
    #[must_use]
    pub fn beyond(mut self, most: usize, long: Self) -> Self {
        self.long = Some((most, long.frequencies));
        self
    }

    /// Turned vectors become `magnitude` times as long.
    #[must_use]
    pub fn stretched(mut self, magnitude: f64) -> Self {
        self.magnitude = magnitude;
        self
    }

    /// The rotation of rows that stand there.
    ///
    /// Angles are computed in f64 and only their cosines and sines are rounded, so far positions
    /// keep their precision. Positions that come again cost a copy.
    ///
    /// # Errors
    /// When the tables cannot be put on the device.
    pub fn at(&self, rows: &[Standing], dtype: DType, device: &Device) -> Result<Rotation> {
        let half = self.frequencies.len();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        cos.reserve_exact(rows.len() * half);
        sin.reserve_exact(rows.len() * half);
        let mut first_row: HashMap<(usize, bool), usize> = HashMap::new();
        for (row, &Standing { position, length }) in rows.iter().enumerate() {
            let long = self.long.as_ref().filter(|(most, _)| length > *most);
            let first = *first_row.entry((position, long.is_some())).or_insert(row);
            if first < row {
                cos.extend_from_within(first * half..(first + 1) * half);
                sin.extend_from_within(first * half..(first + 1) * half);
                continue;
            }
            for frequency in long.map_or(&self.frequencies, |(_, long)| long) {
                let (s, c) = (position as f64 * frequency).sin_cos();
                cos.push(c * self.magnitude);
                sin.push(s * self.magnitude);
            }
        }
        let table = |values: Vec<f64>| {
            Tensor::from_vec(values, (rows.len(), half), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
        };
        Ok(Rotation { cos: table(cos)?, sin: table(sin)? })
    }
}

/// Cosines and sines for the rows of one tensor, made by [`Rope::at`].
#[derive(Debug, Clone)]
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Rotates `x` (heads × rows × head_dim): of the first D numbers, feature i turns together with feature
    /// i + D/2; what a wider head has beyond them stays.
    ///
    /// # Errors
    /// When `x` has another number of rows, or is too narrow.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, half) = self.cos.dims2()?;
        let fits = x.dim(D::Minus1)? >= 2 * half && x.dim(D::Minus2)? == rows;
        if !fits || !is_fast([x, &self.cos]) || x.elem_count() == 0 {
            return self.composed(x);
        }
        let (head_dim, order) = (x.dim(D::Minus1)?, Order::HeadsFirst);
        x.contiguous()?.apply_op1(Turn { rotation: self.clone(), head_dim, order, sign: 1.0 })
    }

    /// Rotates every head of `x` (rows × heads·D), row i standing at the rotation's i-th position: the
    /// numbers of [`forward`](Self::forward) without its change of layout.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use causalcone_ops::{Rope, Standing};
    ///
    /// let standing = [0, 1].map(|position| Standing { position, length: 2 });
    /// let rotation = Rope::new(2, 10_000.0).at(&standing, DType::F32, &Device::Cpu)?;
    /// let x = Tensor::new(&[[1f32, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]], &Device::Cpu)?; // 2 heads
    /// let y = rotation.rows(&x, 2)?.to_vec2::<f32>()?;
    /// let (sin, cos) = 1f32.sin_cos();
    /// assert_eq!(y, [[1.0, 0.0, 0.0, 1.0], [cos, sin, -sin, cos]]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `x` has another number of rows, or its width is not that of so many heads.
    pub fn rows(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (rows, half) = self.cos.dims2()?;
        let (given, width) = x.dims2()?;
        if given != rows || heads == 0 || width % heads != 0 || width / heads < 2 * half {
            bail!(
                "{given} rows of width {width} are not {rows} rows of {heads} heads of at least {}",
                2 * half
            );
        }
        if !is_fast([x, &self.cos]) || x.elem_count() == 0 {
            let by_head = x.reshape((rows, heads, width / heads))?.transpose(0, 1)?;
            return self.composed(&by_head)?.transpose(0, 1)?.contiguous()?.reshape((rows, width));
        }
        let (head_dim, order) = (width / heads, Order::RowsFirst);
        x.contiguous()?.apply_op1(Turn { rotation: self.clone(), head_dim, order, sign: 1.0 })
    }

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (half, width) = (self.cos.dim(1)?, x.dim(D::Minus1)?);
        let low = x.narrow(D::Minus1, 0, half)?;
        let high = x.narrow(D::Minus1, half, half)?;
        let rotated_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&self.sin)?)?;
        let rotated_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&self.sin)?)?;
        let mut parts = vec![rotated_low, rotated_high];
        if width > 2 * half {
            parts.push(x.narrow(D::Minus1, 2 * half, width - 2 * half)?);
        }
        Tensor::cat(&parts, D::Minus1)
    }
}

/// How the heads of one tensor lie in memory.
#[derive(Clone, Copy)]
enum Order {
    /// heads × rows × D
    HeadsFirst,
    /// rows × heads × D
    RowsFirst,
}

/// The rotation as a kernel. Its inverse turns the other way, and so does its gradient.
struct Turn {
    rotation: Rotation,
    head_dim: usize,
    order: Order,
    sign: f32,
}

impl CustomOp1 for Turn {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = floats(x, layout)?;
        let (rows, half) = self.rotation.cos.dims2()?;
        let (cos, sin) = (Held::new(&self.rotation.cos), Held::new(&self.rotation.sin));
        let (cos, sin) = (cos.floats()?, sin.floats()?);
        let width = self.head_dim;
        let vectors = x.len() / width;
        let heads = vectors / rows;
        let out = by_rows(vectors, width, |first, out| {
            let row_of = |vector: usize| match self.order {
                Order::HeadsFirst => vector % rows,
                Order::RowsFirst => vector / heads,
            };
            simd::dispatch(Vectors {
                x: &x[first * width..],
                cos,
                sin,
                half,
                width,
                sign: self.sign,
                first,
                row_of,
                out,
            });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Self { rotation: self.rotation.clone(), sign: -self.sign, ..*self };
        Ok(Some(grad.contiguous()?.apply_op1(back)?))
    }
}

/// Consecutive vectors of which the first 2·half numbers turn; `row_of` says where the angles of the n-th of all vectors are.
struct Vectors<'a, F> {
    x: &'a [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    width: usize,
    sign: f32,
    first: usize,
    row_of: F,
    out: &'a mut [f32],
}

impl<F: Fn(usize) -> usize> WithSimd for Vectors<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, cos, sin, half, width, sign, first, row_of, out } = self;
        let sign = simd.splat_f32s(sign);
        let vectors = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for (i, (out, x)) in vectors.enumerate() {
            let ((out, out_rest), (x, rest)) = (out.split_at_mut(2 * half), x.split_at(2 * half));
            out_rest.copy_from_slice(rest);
            let row = row_of(first + i) * half;
            let (cos, sin) = (&cos[row..][..half], &sin[row..][..half]);
            let ((out_low, out_high), (low, high)) = (out.split_at_mut(half), x.split_at(half));
            simd::map2(
                simd,
                out_low,
                high,
                sin,
                #[inline(always)]
                |x, sin| simd.mul_f32s(x, simd.mul_f32s(sin, sign)),
            );
            simd::update2(
                simd,
                out_low,
                low,
                cos,
                #[inline(always)]
                |turned, x, cos| simd.sub_f32s(simd.mul_f32s(x, cos), turned),
            );
            simd::map2(
                simd,
                out_high,
                low,
                sin,
                #[inline(always)]
                |x, sin| simd.mul_f32s(x, simd.mul_f32s(sin, sign)),
            );
            simd::update2(
                simd,
                out_high,
                high,
                cos,
                #[inline(always)]
                |turned, x, cos| simd.add_f32s(simd.mul_f32s(x, cos), turned),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_on_any_threads, check, noise, numbers};

    fn standing(positions: &[usize]) -> Vec<Standing> {
        positions.iter().map(|&position| Standing { position, length: position + 1 }).collect()
    }

    fn rotation(positions: &[usize], width: usize, dtype: DType) -> Rotation {
        Rope::new(width, 100.0).at(&standing(positions), dtype, &Device::Cpu).unwrap()
    }

    #[test]
    fn values_and_slopes_are_those_of_the_formula() {
        // Half a head of 6 is no vector, of 22 one and a rest. One product and one sum are rounded.
        for head_dim in [2, 6, 16, 22] {
            let positions = [0, 7, 7, 3];
            let at = |x: &Tensor| rotation(&positions, head_dim, x.dtype());
            check(&[noise((2, 4, head_dim), 1)], 3e-7, |x| at(&x[0]).forward(&x[0]));
            check(&[noise((4, 3 * head_dim), 2)], 3e-7, |x| at(&x[0]).rows(&x[0], 3));
            // Heads of which only a part turns.
            check(&[noise((2, 4, head_dim + 3), 3)], 3e-7, |x| at(&x[0]).forward(&x[0]));
            check(&[noise((4, 3 * (head_dim + 9)), 4)], 3e-7, |x| at(&x[0]).rows(&x[0], 3));
        }
    }

    #[test]
    fn frequencies_are_divided_stretched_and_chosen_by_the_length() {
        let plain = Rope::new(4, 100.0);
        let rope =
            plain.clone().divided_by(&[2.0, 5.0]).beyond(8, plain.divided_by(&[4.0, 10.0])).stretched(3.0);
        let at = |position, length| {
            let rotation = rope.at(&[Standing { position, length }], DType::F64, &Device::Cpu).unwrap();
            rotation.sin.to_vec2::<f64>().unwrap().remove(0)
        };
        let sines = |angles: [f64; 2]| angles.map(|angle| 3.0 * angle.sin()).to_vec();
        assert_eq!(at(6, 8), sines([6.0 * (1.0 / 2.0), 6.0 * (100f64.powf(-0.5) / 5.0)]));
        assert_eq!(at(6, 9), sines([6.0 * (1.0 / 4.0), 6.0 * (100f64.powf(-0.5) / 10.0)]));
        // Both in one tensor, each row by its own prompt.
        let rows = [8, 9, 8].map(|length| Standing { position: 6, length });
        let together = rope.at(&rows, DType::F64, &Device::Cpu).unwrap().sin.to_vec2::<f64>().unwrap();
        assert_eq!(together, [at(6, 8), at(6, 9), at(6, 8)]);
    }

    #[test]
    fn rows_and_forward_give_the_same_numbers() {
        let positions: Vec<usize> = (0..50).map(|i| i * i % 17).collect();
        let rotation = rotation(&positions, 22, DType::F32);
        let x = noise((50, 9 * 22), 1);
        let by_head = x.reshape((50, 9, 22)).unwrap().transpose(0, 1).unwrap();
        let turned = rotation.forward(&by_head).unwrap().transpose(0, 1).unwrap();
        assert_eq!(numbers(&rotation.rows(&x, 9).unwrap()), numbers(&turned));
    }

    #[test]
    fn a_repeated_position_has_the_angles_of_its_first() {
        let often = rotation(&[5, 900, 5, 900, 0], 6, DType::F64);
        let once = |position| rotation(&[position], 6, DType::F64).sin.to_vec2::<f64>().unwrap().remove(0);
        let expected = [5, 900, 5, 900, 0].map(once);
        assert_eq!(often.sin.to_vec2::<f64>().unwrap(), expected);
    }

    #[test]
    fn shapes_and_threads_do_not_matter() {
        let turn = rotation(&(0..200).collect::<Vec<_>>(), 20, DType::F32);
        assert_same_on_any_threads(&noise((200, 100), 2), |x| turn.rows(x, 5));
        assert!(turn.rows(&noise((200, 100), 2), 3).is_err());
        assert!(turn.rows(&noise((200, 100), 2), 10).is_err());
        assert!(turn.rows(&noise((199, 100), 2), 5).is_err());
        assert!(turn.forward(&noise((5, 199, 20), 2)).is_err());
        let none = rotation(&[], 20, DType::F32);
        assert_eq!(none.rows(&noise((0, 100), 2), 5).unwrap().dims(), [0, 100]);
    }
}
