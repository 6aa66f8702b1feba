//! Which query sees which rows of the keys and values, and whether that fits the tables.

use candle_core::{Result, Tensor, bail};
use std::ops::Range;

/// One query: which row of the query table it is, and the keys it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Its row of the query table.
    pub row: u32,
    /// Its stretches, as a range of [`Ragged::stretches`].
    pub stretches: Range<u32>,
    /// Which keys it sees, of the rows of its stretches laid end to end.
    pub keys: Range<u32>,
}

/// Consecutive rows of the key and value tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first row.
    pub start: u32,
    /// How many rows.
    pub len: u32,
}

/// Which query sees which keys, in one layer of many runs: nothing is padded and no prefix is copied.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_ops::{Query, Ragged, Stretch};
/// use std::sync::Arc;
///
/// // Two rows of one run: the second sees both, the first itself only.
/// let seen = |row, keys| Query { row, stretches: 0..1, keys: 0..keys };
/// let causal = Arc::new(Ragged {
///     queries: vec![seen(0, 1), seen(1, 2)],
///     stretches: vec![Stretch { start: 0, len: 2 }],
///     heads: 1,
///     kv_heads: 1,
///     scale: 1.0,
///     softcap: None,
/// });
/// let query = Tensor::new(&[[1f32, 0.0], [0.0, 0.0]], &Device::Cpu)?;
/// let value = Tensor::new(&[[1f32, 2.0], [3.0, 6.0]], &Device::Cpu)?;
/// let mixed = causal.attend(&query, &query, &value)?;
/// assert_eq!(mixed.to_vec2::<f32>()?, [[1.0, 2.0], [2.0, 4.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ragged {
    /// The queries, in the order of the result's rows. Neighbours with the same stretches share the
    /// work of fetching keys.
    pub queries: Vec<Query>,
    /// What the queries' ranges point into.
    pub stretches: Vec<Stretch>,
    /// K, the number of key and value heads.
    pub kv_heads: usize,
    /// H, the number of query heads, a multiple of K: head h reads key and value head h·K/H.
    pub heads: usize,
    /// What scores are multiplied with before the softmax.
    pub scale: f32,
    /// What bounds the scores then ([`softcap`](crate::softcap())), where something does.
    pub softcap: Option<f32>,
}

impl Ragged {
    pub(super) fn check(&self, query: &Tensor, key: &Tensor, value: &Tensor, more: usize) -> Result<()> {
        let ((query_rows, width), (rows, kv_width)) = (query.dims2()?, key.dims2()?);
        let rows = rows + more;
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        if kv_heads == 0 || heads == 0 || heads % kv_heads != 0 {
            bail!("{heads} heads cannot share {kv_heads} key and value heads evenly");
        }
        if width % heads != 0 || kv_width != width / heads * kv_heads || value.dims() != key.dims() {
            let (q, k, v) = (query.shape(), key.shape(), value.shape());
            bail!("queries {q:?}, keys {k:?}, values {v:?} do not fit {heads} heads over {kv_heads}");
        }
        for stretch in &self.stretches {
            if u64::from(stretch.start) + u64::from(stretch.len) > rows as u64 {
                bail!("{stretch:?} ends outside a table of {rows} rows");
            }
        }
        for (i, query) in self.queries.iter().enumerate() {
            let Some(stretches) = self.stretches_of(query) else {
                bail!("query {i} names stretches {:?} of {}", query.stretches, self.stretches.len());
            };
            let held: u64 = stretches.iter().map(|stretch| u64::from(stretch.len)).sum();
            if query.keys.is_empty() || u64::from(query.keys.end) > held {
                bail!("query {i} cannot see keys {:?} of the {held} in its stretches", query.keys);
            }
            if query.row as usize >= query_rows {
                bail!("query {i} is row {} of a table of {query_rows}", query.row);
            }
        }
        Ok(())
    }

    fn stretches_of(&self, query: &Query) -> Option<&[Stretch]> {
        self.stretches.get(query.stretches.start as usize..query.stretches.end as usize)
    }

    /// Puts some of the rows of the query's stretches, laid end to end, in `rows`.
    pub(super) fn list_rows(&self, query: &Query, keys: &Range<u32>, rows: &mut Vec<u32>) {
        rows.clear();
        let mut skipped = keys.start;
        for stretch in self.stretches_of(query).unwrap_or_default() {
            let skip = skipped.min(stretch.len);
            skipped -= skip;
            let left = keys.len() - rows.len();
            rows.extend((stretch.start + skip..stretch.start + stretch.len).take(left));
        }
    }
}
