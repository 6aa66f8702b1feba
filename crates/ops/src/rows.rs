//! Taking out and putting back slices of a tensor along one axis, exactly.

use candle_core::{Result, Tensor};

/// The slices of `x` at `indices` along `axis`, in that order.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::{replace, select};
///
/// let x = Tensor::new(&[1f32, 2.0, 3.0], &Device::Cpu)?;
/// let taken = select(&x, 0, &[2, 0])?;
/// assert_eq!(taken.to_vec1::<f32>()?, [3.0, 1.0]);
/// assert_eq!(replace(&x, 0, &[2, 0], &(taken * 10.0)?)?.to_vec1::<f32>()?, [10.0, 2.0, 30.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When an index is out of range, or there is none.
pub fn select(x: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor> {
    let slices = runs(indices)
        .into_iter()
        .map(|run| x.narrow(axis, indices[run.start], run.len()))
        .collect::<Result<Vec<_>>>()?;
    Tensor::cat(&slices, axis)
}

/// `x` with its slices at the distinct `indices` along `axis` replaced by those of `new`.
///
/// Every other slice stays the same to the bit, which adding a difference would not give.
///
/// # Errors
/// When an index is out of range or given twice, or `new` lacks the shape [`select`] would give.
pub fn replace(x: &Tensor, axis: usize, indices: &[usize], new: &Tensor) -> Result<Tensor> {
    let mut pieces = runs(indices);
    pieces.sort_unstable_by_key(|run| indices[run.start]);
    let mut parts = Vec::with_capacity(2 * pieces.len() + 1);
    let mut next = 0;
    for run in pieces {
        let at = indices[run.start];
        match at.checked_sub(next) {
            None => candle_core::bail!("index {at} is given twice"),
            Some(0) => {}
            Some(gap) => parts.push(x.narrow(axis, next, gap)?),
        }
        next = at + run.len();
        parts.push(new.narrow(axis, run.start, run.len())?);
    }
    let end = x.dim(axis)?;
    if next < end {
        parts.push(x.narrow(axis, next, end - next)?);
    }
    let out = Tensor::cat(&parts, axis)?;
    if out.dims() != x.dims() {
        candle_core::bail!("replacing slices of {:?} gives {:?}", x.shape(), out.shape());
    }
    Ok(out)
}

/// Cuts `indices` into stretches that count up by one: each is a single narrow.
fn runs(indices: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for i in 0..indices.len() {
        match runs.last_mut() {
            Some(run) if indices[i] == indices[i - 1] + 1 => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn counting(n: u32) -> Tensor {
        Tensor::arange(0u32, n, &Device::Cpu).unwrap()
    }

    #[test]
    fn replacing_what_was_selected_changes_nothing() {
        let x = counting(12).reshape((3, 4)).unwrap();
        for (axis, indices) in [(0, vec![1]), (0, vec![2, 0]), (1, vec![0, 1, 3]), (1, vec![3, 2])] {
            let same = replace(&x, axis, &indices, &select(&x, axis, &indices).unwrap()).unwrap();
            assert_eq!(same.to_vec2::<u32>().unwrap(), x.to_vec2::<u32>().unwrap());
        }
    }

    #[test]
    fn runs_are_maximal() {
        assert_eq!(runs(&[3, 4, 5, 9, 0, 1]), [0..3, 3..4, 4..6]);
    }

    #[test]
    fn refuses_repeated_and_missing_indices() {
        let x = counting(4);
        assert!(replace(&x, 0, &[1, 1], &counting(2)).is_err());
        assert!(replace(&x, 0, &[1, 2], &counting(1)).is_err());
        assert!(select(&x, 0, &[4]).is_err());
    }
}
