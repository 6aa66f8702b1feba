//! What the kernels share: who may take the fast path, how a tensor's numbers are read, and how a
//! buffer is filled by all threads.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, StorageRef, Tensor, bail};
use rayon::prelude::*;

/// Below this many numbers, waking the other threads costs more than they save.
pub(crate) const SMALL: usize = 1 << 14;

/// Whether these tensors are f32 on the CPU; all others take the operations composed of candle's.
pub(crate) fn is_fast<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> bool {
    tensors.into_iter().all(|t| t.dtype() == DType::F32 && t.device().is_cpu())
}

/// Whether autograd follows one of these parameters. A kernel holds its parameters outside the graph
/// and would drop their gradients, so with one of these it leaves the work to candle.
pub(crate) fn is_trained<'a>(parameters: impl IntoIterator<Item = &'a Tensor>) -> bool {
    parameters.into_iter().any(Tensor::track_op)
}

/// The numbers of a contiguous f32 tensor.
pub(crate) fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a kernel was given a strided tensor: {layout:?}"),
    }
}

/// A tensor held for reading.
pub(crate) struct Held<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Held<'a> {
    pub(crate) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub(crate) fn cpu(&self) -> Result<(&CpuStorage, &'a Layout)> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok((storage, self.layout)),
            _ => bail!("a kernel of the CPU was given a tensor of another device"),
        }
    }

    pub(crate) fn floats(&self) -> Result<&[f32]> {
        let (storage, layout) = self.cpu()?;
        floats(storage, layout)
    }
}

/// A new buffer of rows × width, its rows filled as by [`each_block`].
pub(crate) fn by_rows(rows: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut out = vec![0.0; rows * width];
    each_block(&mut out, width, fill);
    out
}

/// Calls `fill(first row, block)` for blocks of whole rows, on all threads if there is enough to do.
///
/// No row is cut in two, so as long as `fill` treats every row by itself the result does not depend on
/// the number of threads.
pub(crate) fn each_block(out: &mut [f32], width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() {
        return;
    }
    if out.len() <= SMALL {
        return fill(0, out);
    }
    let rows = (SMALL / width).max(1);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, block)| fill(i * rows, block));
}
