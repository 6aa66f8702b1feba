//! Placeholder for ragged attention; composed.
use candle_core::{Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// One query.
#[derive(Debug, Clone)]
pub struct Query {
    /// Row of the query table.
    pub row: u32,
    /// Its stretches.
    pub stretches: Range<u32>,
    /// How many keys it sees.
    pub keys: u32,
}

/// Rows of the key/value table.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// First.
    pub start: u32,
    /// How many.
    pub len: u32,
}

/// Queries and the keys each sees.
#[derive(Debug)]
pub struct Ragged {
    /// Queries.
    pub queries: Vec<Query>,
    /// Stretches.
    pub stretches: Vec<Stretch>,
    /// K.
    pub kv_heads: usize,
    /// H.
    pub heads: usize,
    /// Scale.
    pub scale: f32,
}

impl Ragged {
    /// Mixes.
    ///
    /// # Errors
    /// Shapes.
    pub fn attend(self: &Arc<Self>, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let mut out = Vec::new();
        for q in &self.queries {
            let mut rows = Vec::new();
            for s in &self.stretches[q.stretches.start as usize..q.stretches.end as usize] {
                rows.extend(s.start..s.start + s.len);
            }
            rows.truncate(q.keys as usize);
            let n = rows.len();
            let by = |x: &Tensor| {
                gather_rows(x, &rows)?.reshape((n, self.kv_heads, ()))?.transpose(0, 1)?.contiguous()
            };
            let (k, v) = (by(key)?, by(value)?);
            let x = query.narrow(0, q.row as usize, 1)?.reshape((
                self.kv_heads,
                self.heads / self.kv_heads,
                (),
            ))?;
            let w =
                crate::softmax(&(x.contiguous()?.matmul(&k.t()?.contiguous()?)? * f64::from(self.scale))?)?;
            out.push(w.matmul(&v)?.reshape((1, ()))?);
        }
        Tensor::cat(&out, 0)
    }
}

/// Rows.
///
/// # Errors
/// Range.
pub fn gather_rows(table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    table.index_select(&Tensor::new(rows, table.device())?, 0)
}

/// x + table[rows].
///
/// # Errors
/// Range.
pub fn add_rows(x: &Tensor, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
    x + gather_rows(table, rows)?
}
