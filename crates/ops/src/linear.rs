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
        let y = project(x, &self.weight)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// Few rows: below this many the product is computed with the weight on the left.
const FEW_ROWS: usize = 32;

/// `x·W` for rows x (n × in) and a weight W (in × out) of any strides.
///
/// The GEMM below is slow for few rows against a weight stored out × in, up to four times slower
/// than for the transposed product, so that one is taken there. Either way every element is the same
/// sum, rounded in another order.
///
/// # Errors
/// When the width of `x` is not the weight's.
pub fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let is_stored_out_in = weight.stride().first() == Some(&1);
    if is_stored_out_in && x.dim(0)? <= FEW_ROWS {
        return weight.t()?.matmul(&x.t()?)?.t()?.contiguous();
    }
    x.matmul(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_ways_of_multiplying_agree() {
        let device = &Device::Cpu;
        let stored = Tensor::randn(0f32, 1.0, (7, 5), device).unwrap();
        for rows in [1, FEW_ROWS, FEW_ROWS + 1] {
            let x = Tensor::randn(0f32, 1.0, (rows, 5), device).unwrap();
            let ours = project(&x, &stored.t().unwrap()).unwrap();
            let plain = x.matmul(&stored.t().unwrap().contiguous().unwrap()).unwrap();
            let apart = (ours - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            // Five products of numbers near 1, summed in another order.
            assert!(apart < 1e-5, "{rows} rows: {apart}");
        }
    }
}
