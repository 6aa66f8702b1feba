//! Taking out and putting back slices of a tensor along one axis, exactly, and rows of a table.

use crate::kernel::{Held, by_rows, floats, is_fast};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

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

/// The rows of a table (R × width) at `rows`, in that order: rows.len() × width.
///
/// The gradient of a table row is the sum over all its copies, in their order.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::{add_rows, gather_rows};
///
/// let table = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let taken = gather_rows(&table, &[1, 0, 1])?;
/// assert_eq!(taken.to_vec2::<f32>()?, [[3.0, 4.0], [1.0, 2.0], [3.0, 4.0]]);
/// let sum = add_rows(&taken, &table, &[0, 0, 1])?;
/// assert_eq!(sum.to_vec2::<f32>()?, [[4.0, 6.0], [2.0, 4.0], [6.0, 8.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// When a row is outside the table.
pub fn gather_rows(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    check_rows(table, rows)?;
    if !is_fast([table]) || rows.is_empty() {
        return composed_gather(table, rows);
    }
    table.contiguous()?.apply_op1(Gather { rows: rows.into() })
}

/// `x + table[rows]`: to row i of x (n × width) is added the row of the table (R × width) that `rows[i]`
/// names.
///
/// # Errors
/// When a row is outside the table, or the shapes do not fit.
pub fn add_rows(x: &Tensor, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    check_rows(table, rows)?;
    if x.dims() != [rows.len(), table.dim(1)?] {
        bail!("{} rows of a table {:?} do not fit rows {:?}", rows.len(), table.shape(), x.shape());
    }
    if !is_fast([x, table]) || rows.is_empty() {
        return x.add(&composed_gather(table, rows)?);
    }
    x.contiguous()?.apply_op2(&table.contiguous()?, Gather { rows: rows.into() })
}

fn composed_gather(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    if rows.is_empty() {
        return table.narrow(0, 0, 0)?.contiguous();
    }
    table.contiguous()?.index_select(&Tensor::new(rows, table.device())?, 0)
}

fn check_rows(table: &Tensor, rows: &[u32]) -> Result<()> {
    let (height, _) = table.dims2()?;
    match rows.iter().find(|row| **row as usize >= height) {
        Some(row) => bail!("row {row} is outside a table of {height} rows"),
        None => Ok(()),
    }
}

/// Rows of a table: alone as an op of one argument, added to x as an op of two.
struct Gather {
    rows: Arc<[u32]>,
}

impl Gather {
    /// The table's gradient: row r is the sum of the gradient's rows whose index is r.
    fn scatter(&self, grad: &Tensor, table: &Tensor) -> Result<Tensor> {
        let ((height, width), grad) = (table.dims2()?, grad.contiguous()?);
        let (held, rows) = (Held::new(&grad), &self.rows);
        let from = held.floats()?;
        // Sorted by target, in their order among equals: each target is summed by one thread, in order.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| rows[i]);
        let out = by_rows(height, width, |first, out| {
            let end = first + out.len() / width;
            let start = order.partition_point(|&i| (rows[i] as usize) < first);
            for &i in order[start..].iter().take_while(|&&i| (rows[i] as usize) < end) {
                let target = &mut out[(rows[i] as usize - first) * width..][..width];
                target.iter_mut().zip(&from[i * width..][..width]).for_each(|(out, g)| *out += g);
            }
        });
        Tensor::from_vec(out, table.shape(), &Device::Cpu)
    }
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather-rows"
    }

    fn cpu_fwd(&self, table: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (table, (_, width)) = (floats(table, layout)?, layout.shape().dims2()?);
        let out = by_rows(self.rows.len(), width, |first, out| {
            for (out, row) in out.chunks_exact_mut(width).zip(&self.rows[first..]) {
                out.copy_from_slice(&table[*row as usize * width..][..width]);
            }
        });
        Ok((CpuStorage::F32(out), Shape::from((self.rows.len(), width))))
    }

    fn bwd(&self, table: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.scatter(grad, table).map(Some)
    }
}

impl CustomOp2 for Gather {
    fn name(&self) -> &'static str {
        "add-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        table: &CpuStorage,
        table_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, table, (_, width)) =
            (floats(x, x_layout)?, floats(table, table_layout)?, x_layout.shape().dims2()?);
        let out = by_rows(self.rows.len(), width, |first, out| {
            let rows = x[first * width..].chunks_exact(width).zip(&self.rows[first..]);
            for (out, (x, row)) in out.chunks_exact_mut(width).zip(rows) {
                let added = &table[*row as usize * width..][..width];
                out.iter_mut().zip(x).zip(added).for_each(|((out, x), added)| *out = x + added);
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        table: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let to_table = if table.track_op() { Some(self.scatter(grad, table)?) } else { None };
        Ok((x.track_op().then(|| grad.clone()), to_table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_same_on_any_threads, check, noise, numbers};
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

    #[test]
    fn gathered_rows_and_their_slopes_are_exact() {
        for width in [1, 5, 16] {
            let rows = [3, 0, 3, 3, 1];
            let (x, table) = (noise((5, width), 1), noise((4, width), 2));
            // Copies, one sum, and three terms of a gradient.
            check(std::slice::from_ref(&table), 3e-7, |t| gather_rows(&t[0], &rows));
            check(&[x, table], 3e-7, |t| add_rows(&t[0], &t[1], &rows));
        }
    }

    #[test]
    fn gathering_refuses_what_does_not_fit() {
        let table = noise((4, 3), 1);
        assert!(gather_rows(&table, &[4]).is_err());
        assert!(add_rows(&noise((1, 3), 1), &table, &[4]).is_err());
        assert!(add_rows(&noise((2, 3), 1), &table, &[1]).is_err());
        assert!(add_rows(&noise((1, 2), 1), &table, &[1]).is_err());
        assert_eq!(gather_rows(&table, &[]).unwrap().dims(), [0, 3]);
        assert_eq!(add_rows(&noise((0, 3), 1), &table, &[]).unwrap().dims(), [0, 3]);
    }

    #[test]
    fn gathering_is_the_same_on_any_threads() {
        let rows: Vec<u32> = (0..400).map(|i| i * i % 97).collect();
        let x = noise((400, 101), 1);
        assert_same_on_any_threads(&noise((97, 101), 2), |table| {
            add_rows(&gather_rows(table, &rows)?, table, &rows)
        });
        let sum = add_rows(&x, &x, &rows).unwrap();
        let plain = (&x + gather_rows(&x, &rows).unwrap()).unwrap();
        assert_eq!(numbers(&sum), numbers(&plain));
    }
}
