//! Interchange among the features of an autoencoder.

use super::input::Input;
use crate::Result;
use candle_core::Tensor;
use causalcone_ops::Activation;

/// f(x) = relu((x − b_dec)·W_enc + b_enc).
pub(super) fn autoencoder_swap(x: &Input<'_>) -> Result<Tensor> {
    swap(x, true, |before| Ok(Activation::Relu.forward(before)?))
}

/// f(x) = relu(p) where p > threshold, p = x·W_enc + b_enc. The threshold itself gets no gradient: a
/// step has none.
pub(super) fn jumprelu_autoencoder(x: &Input<'_>) -> Result<Tensor> {
    let threshold = x.parameter("threshold")?;
    swap(x, false, |before| {
        let is_on = before.broadcast_gt(&threshold)?.to_dtype(before.dtype())?;
        Ok((Activation::Relu.forward(before)? * is_on)?)
    })
}

/// b ← (f(b) with the latents of the subspace taken from f(v))·W_dec + b_dec, and what of b that does not
/// reconstruct if it is to be added back. Without a value nothing is exchanged: b is reconstructed.
fn swap(x: &Input<'_>, centred: bool, activate: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (w_dec, b_dec) = (x.parameter("W_dec")?, x.parameter("b_dec")?);
    let (w_enc, b_enc) = (x.parameter("W_enc")?, x.parameter("b_enc")?);
    let centred = x.op.settings.centre.unwrap_or(centred);
    let encode = |x: &Tensor| -> Result<Tensor> {
        let x = if centred { x.broadcast_sub(&b_dec)? } else { x.contiguous()? };
        activate(&x.matmul(&w_enc)?.broadcast_add(&b_enc)?)
    };
    let latents = encode(&x.base)?;
    let mixed = match &x.value {
        Some(value) => x.exchanged(&latents, &encode(value)?)?,
        None => latents.clone(),
    };
    if x.op.settings.add_error {
        // f(b)·W_dec + b_dec + error = b, so only what changed is decoded.
        return Ok((&x.base + (mixed - latents)?.matmul(&w_dec)?)?);
    }
    Ok(mixed.matmul(&w_dec)?.broadcast_add(&b_dec)?)
}
