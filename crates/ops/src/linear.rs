//! The affine map `x·W + b`.

use candle_core::{Result, Tensor};

/// A frozen affine map with its weight held as (in × out) and an optional bias.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::Linear;
///
/// // Stored as out × in, as most checkpoints have it: the transpose is a view, nothing is copied.
/// let stored = Tensor::new(&[[1f32, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu)?;
/// let linear = Linear::new(stored.t()?, None);
/// let y = linear.forward(&Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[3.0, 7.0, 11.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Takes a weight of shape (in, out), any strides, and a bias of shape (out).
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The weight, in × out.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Maps rows (n × in) to rows (n × out).
    ///
    /// # Errors
    /// When the width of `x` is not the weight's.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
