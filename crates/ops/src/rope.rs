//! Rotary position embedding, in the rotate-half form of Hugging Face checkpoints.

use candle_core::{D, DType, Device, Result, Tensor};

/// The angular frequencies `theta^(−2i/D)` of heads of width D.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use causalcone_ops::Rope;
///
/// let rotation = Rope::new(2, 10_000.0).at(&[0, 1], DType::F32, &Device::Cpu)?;
/// let x = Tensor::new(&[[[1f32, 0.0], [1.0, 0.0]]], &Device::Cpu)?; // 1 head, 2 rows, D = 2
/// let y = rotation.forward(&x)?.to_vec3::<f32>()?;
/// assert_eq!(y[0][0], [1.0, 0.0]);               // position 0 stands still
/// assert_eq!(y[0][1], [1f32.cos(), 1f32.sin()]); // position 1 turns by one radian
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rope {
    frequencies: Vec<f64>,
}

impl Rope {
    /// Frequencies for heads of an even width `head_dim` and base `theta`.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        let frequencies = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        Self { frequencies }
    }

    /// The rotation of rows that stand at `positions`.
    ///
    /// Angles are computed in f64 and only their cosines and sines are rounded, so far positions
    /// keep their precision.
    ///
    /// # Errors
    /// When the tables cannot be put on the device.
    pub fn at(&self, positions: &[usize], dtype: DType, device: &Device) -> Result<Rotation> {
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = positions
                .iter()
                .flat_map(|&p| self.frequencies.iter().map(move |w| f(p as f64 * w)))
                .collect();
            let shape = (positions.len(), self.frequencies.len());
            Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
        };
        Ok(Rotation { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

/// Cosines and sines for the rows of one tensor, made by [`Rope::at`].
#[derive(Debug, Clone)]
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Rotates `x` (heads × rows × head_dim): feature i turns together with feature i + D/2.
    ///
    /// # Errors
    /// When `x` has another number of rows or another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let low = x.narrow(D::Minus1, 0, half)?;
        let high = x.narrow(D::Minus1, half, half)?;
        let rotated_low = (low.broadcast_mul(&self.cos)? - high.broadcast_mul(&self.sin)?)?;
        let rotated_high = (high.broadcast_mul(&self.cos)? + low.broadcast_mul(&self.sin)?)?;
        Tensor::cat(&[rotated_low, rotated_high], D::Minus1)
    }

    /// Rotates `x` (rows × heads·head_dim), every head of a row alike.
    ///
    /// # Errors
    /// When `x` has another number of rows or another width.
    pub fn rows(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let by_head = x.reshape((x.dim(0)?, heads, ()))?.transpose(0, 1)?.contiguous()?;
        self.forward(&by_head)?.transpose(0, 1)?.contiguous()?.reshape(x.shape())
    }
}
