//! How far rows of logits are from what they should say, with gradients by formula: softmax of the row, less
//! what it should be.
//!
//! Composed of candle's operations, the loss of a few rows over a vocabulary takes longer than multiplying by the
//! unembedding.

use crate::distribution::{divergence, log_sum_exp};
use crate::kernel::{Held, by_rows, floats, is_fast};
use crate::{Linear, simd, softmax};
use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// `−ln softmax(x)[label]` of each row, in nats: rows × vocabulary and a label a row give as many numbers as rows.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let x = Tensor::new(&[[0f32, 0.0], [3f32.ln(), 0.0]], &Device::Cpu)?;
/// let loss = causalcone_ops::cross_entropy(&x, &[1, 0])?.to_vec1::<f32>()?;
/// assert!((loss[0] - 2f32.ln()).abs() < 1e-6 && (loss[1] - (4f32 / 3.0).ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When there is not one label a row, or one is outside the vocabulary.
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (rows, width) = logits.dims2()?;
    if labels.len() != rows {
        bail!("{} labels for {rows} rows of logits", labels.len());
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= width) {
        bail!("label {label} is outside a vocabulary of {width}");
    }
    if rows > 0 && is_fast([logits]) {
        return logits.contiguous()?.apply_op1(Loss { target: Target::Labels(labels.to_vec()) });
    }
    let hot = (0..rows * width).map(|at| f32::from(u8::from(at % width == labels[at / width] as usize)));
    let hot = Tensor::from_vec(hot.collect(), (rows, width), logits.device())?;
    (log_softmax(logits)? * hot.to_dtype(logits.dtype())?)?.sum(D::Minus1)?.neg()
}

/// [`cross_entropy`] of `x` behind an unembedding, and the logits, which nothing follows: the gradient goes straight to
/// the rows of `x`, where that of rows of logits would be made, and added to zeros, on the way.
///
/// # Errors
/// As [`cross_entropy`]; when the width of `x` is not the unembedding's.
pub fn cross_entropy_behind(x: &Tensor, unembedding: &Linear, labels: &[u32]) -> Result<(Tensor, Tensor)> {
    if !is_fast([x]) || !unembedding.is_frozen() || labels.is_empty() {
        let logits = unembedding.forward(x)?;
        return Ok((cross_entropy(&logits, labels)?, logits.detach()));
    }
    let logits = unembedding.forward(&x.detach())?;
    // Checks the labels.
    let losses = cross_entropy(&logits, labels)?;
    let loss = Loss { target: Target::Labels(labels.to_vec()) };
    let behind = Behind { loss, losses, logits: logits.clone(), unembedding: unembedding.clone() };
    Ok((x.contiguous()?.apply_op1(behind)?, logits))
}

/// D(softmax(target) ‖ softmax(x)) = Σ p·(ln p − ln q) of each row, in nats; the target has no gradient.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let p = Tensor::new(&[[0f32, 0.0]], &Device::Cpu)?;
/// let q = Tensor::new(&[[3f32.ln(), 0.0]], &Device::Cpu)?;
/// let apart = causalcone_ops::kl_divergence(&p, &q)?.to_vec1::<f32>()?;
/// assert!((apart[0] - 0.5 * (4f32 / 3.0).ln()).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When the two are not rows of one shape.
pub fn kl_divergence(target: &Tensor, logits: &Tensor) -> Result<Tensor> {
    let (rows, _) = logits.dims2()?;
    if target.dims() != logits.dims() {
        bail!("targets of shape {:?} do not fit logits of {:?}", target.shape(), logits.shape());
    }
    let target = target.detach();
    if rows > 0 && is_fast([logits, &target]) {
        return logits.contiguous()?.apply_op1(Loss { target: Target::Rows(target.contiguous()?) });
    }
    let p = softmax(&target)?;
    (p * (log_softmax(&target)? - log_softmax(logits)?)?)?.sum(D::Minus1)
}

fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

struct Loss {
    target: Target,
}

/// What the rows should say.
enum Target {
    /// These tokens.
    Labels(Vec<u32>),
    /// What these logits say.
    Rows(Tensor),
}

impl CustomOp1 for Loss {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, (rows, width)) = (floats(x, layout)?, layout.shape().dims2()?);
        let held = match &self.target {
            Target::Labels(_) => None,
            Target::Rows(target) => Some(Held::new(target)),
        };
        let target = held.as_ref().map(Held::floats).transpose()?;
        let of = |i: usize| -> f64 {
            let row = &x[i * width..][..width];
            match (&self.target, target) {
                (Target::Labels(labels), _) => log_sum_exp(row) - f64::from(row[labels[i] as usize]),
                (Target::Rows(_), target) => {
                    let p = &target.unwrap_or_default()[i * width..][..width];
                    divergence((p, log_sum_exp(p)), (row, log_sum_exp(row)))
                }
            }
        };
        let losses = (0..rows).into_par_iter().map(|i| of(i) as f32).collect();
        Ok((CpuStorage::F32(losses), Shape::from(rows)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.slopes(x, grad).map(Some)
    }
}

/// Losses of rows behind an unembedding, whose logits are known.
struct Behind {
    loss: Loss,
    losses: Tensor,
    logits: Tensor,
    unembedding: Linear,
}

impl CustomOp1 for Behind {
    fn name(&self) -> &'static str {
        "loss-behind-unembedding"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.losses.to_vec1()?), self.losses.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.unembedding.slopes(&self.loss.slopes(&self.logits, grad)?).map(Some)
    }
}

impl Loss {
    /// The slopes of the logits x, given those of the losses.
    fn slopes(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let grad = grad.contiguous()?;
        let should = match &self.target {
            Target::Labels(_) => None,
            Target::Rows(target) => Some(softmax(target)?),
        };
        let (x_held, grad_held, should_held) =
            (Held::new(x), Held::new(&grad), should.as_ref().map(Held::new));
        let (numbers, slopes) = (x_held.floats()?, grad_held.floats()?);
        let should = should_held.as_ref().map(Held::floats).transpose()?;
        let (rows, width) = x.dims2()?;
        let out = by_rows(rows, width, |first, out| {
            for (i, out) in (first..).zip(out.chunks_exact_mut(width)) {
                let here = i * width..(i + 1) * width;
                out.copy_from_slice(&numbers[here.clone()]);
                simd::dispatch(Slope { out, should: should.map(|should| &should[here]), by: slopes[i] });
                if let Target::Labels(labels) = &self.target {
                    out[labels[i] as usize] -= slopes[i];
                }
            }
        });
        Tensor::from_vec(out, x.shape(), &Device::Cpu)
    }
}

/// out ← by·(softmax(out) − should).
struct Slope<'a> {
    out: &'a mut [f32],
    should: Option<&'a [f32]>,
    by: f32,
}

impl WithSimd for Slope<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        simd::softmax(simd, self.out);
        let by = simd.splat_f32s(self.by);
        match self.should {
            None => simd::update(
                simd,
                self.out,
                #[inline(always)]
                |y| simd.mul_f32s(y, by),
            ),
            Some(should) => simd::update2(
                simd,
                self.out,
                should,
                should,
                #[inline(always)]
                |y, should, _| simd.mul_f32s(simd.sub_f32s(y, should), by),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_on_any_threads, check, noise, numbers};

    #[test]
    fn values_and_slopes_are_those_of_the_formulas() {
        for (rows, width) in [(1, 1), (3, 13), (2, 40)] {
            let x = (noise((rows, width), 1) * 5.0).unwrap();
            let labels: Vec<u32> = (0..rows).map(|i| (7 * i % width) as u32).collect();
            // Exponentials of numbers up to 10, in f32.
            check(std::slice::from_ref(&x), 2e-6, |x| cross_entropy(&x[0], &labels));
            let target = (noise((rows, width), 2) * 5.0).unwrap();
            check(&[x], 2e-6, |x| kl_divergence(&target.to_dtype(x[0].dtype())?, &x[0]));
        }
    }

    /// The gradient that goes past the logits is the one that goes through them.
    #[test]
    fn losses_behind_an_unembedding_are_those_of_its_logits() {
        let labels = [3u32, 0, 12, 12];
        let weight = noise((7, 13), 1);
        for unembedding in [
            Linear::new(weight.clone(), None).unwrap(),
            Linear::new(candle_core::Var::from_tensor(&weight).unwrap().as_tensor().clone(), None).unwrap(),
        ] {
            let x = candle_core::Var::from_tensor(&noise((4, 7), 2)).unwrap();
            let (losses, logits) = cross_entropy_behind(&x, &unembedding, &labels).unwrap();
            let through = cross_entropy(&unembedding.forward(&x).unwrap(), &labels).unwrap();
            assert_eq!(numbers(&losses), numbers(&through));
            assert_eq!(numbers(&logits), numbers(&unembedding.forward(&x).unwrap()));
            let slopes = |losses: &Tensor| {
                let weighted = (losses * noise(4, 3)).unwrap().sum_all().unwrap();
                numbers(weighted.backward().unwrap().get(&x).unwrap())
            };
            assert_eq!(slopes(&losses), slopes(&through));
        }
        let frozen = Linear::new(weight, None).unwrap();
        assert!(cross_entropy_behind(&noise((4, 7), 2), &frozen, &[3, 0, 12, 13]).is_err());
        assert!(cross_entropy_behind(&noise((4, 6), 2), &frozen, &labels).is_err());
    }

    #[test]
    fn far_logits_are_sane() {
        let x = Tensor::new(&[[1e4f32, 0.0, -1e4]], &Device::Cpu).unwrap();
        assert_eq!(numbers(&cross_entropy(&x, &[2]).unwrap()), [2e4]);
        assert_eq!(numbers(&cross_entropy(&x, &[0]).unwrap()), [0.0]);
        assert_eq!(numbers(&kl_divergence(&x, &x).unwrap()), [0.0]);
    }

    #[test]
    fn a_target_has_no_gradient() {
        let target = candle_core::Var::from_tensor(&noise((2, 5), 1)).unwrap();
        let x = candle_core::Var::from_tensor(&noise((2, 5), 2)).unwrap();
        let grads = kl_divergence(&target, &x).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&target).is_none());
    }

    #[test]
    fn threads_do_not_matter_and_misfits_are_refused() {
        let labels: Vec<u32> = (0..80).collect();
        assert_same_on_any_threads(&noise((80, 301), 2), |x| cross_entropy(x, &labels));
        let x = noise((2, 3), 1);
        assert!(cross_entropy(&x, &[0]).is_err() && cross_entropy(&x, &[0, 3]).is_err());
        assert!(kl_divergence(&noise((2, 4), 1), &x).is_err());
    }
}
