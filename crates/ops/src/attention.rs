//! Attention of queries that each see rows of their own choice in one table of keys and values.

mod kernel;
mod ragged;

pub use ragged::{Query, Ragged, Stretch};

use crate::kernel::{Held, is_fast};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

impl Ragged {
    /// `softmax(scale·q·kᵀ)·v` for every head of every query, over exactly the keys it lists; with a cap,
    /// `softmax(cap·tanh(scale·q·kᵀ / cap))·v`.
    ///
    /// `query` is Rq × H·D, `key` and `value` are R × K·D, and the result has a row of H·D for each of
    /// [`queries`](Self::queries). All three get their gradient.
    ///
    /// # Errors
    /// When a shape does not fit, H is no multiple of K, an index is out of range, or a query sees no
    /// key or more keys than its stretches hold.
    pub fn attend(self: &Arc<Self>, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        self.check(query, key, value, 0)?;
        if !is_fast([query, key, value]) || self.queries.is_empty() || query.elem_count() == 0 {
            return self.composed(query, key, value);
        }
        let attend = Attend { ragged: self.clone(), beside: None };
        query.contiguous()?.apply_op3(&key.contiguous()?, &value.contiguous()?, attend)
    }

    /// The same where behind the rows of `key` and `value` the tables go on with others, which get no gradient: that of
    /// a whole table would be made, and added to zeros, for the sake of a few rows.
    ///
    /// # Errors
    /// As [`attend`](Self::attend).
    pub fn attend_beside(
        self: &Arc<Self>,
        query: &Tensor,
        (key, value): (&Tensor, &Tensor),
        (more_keys, more_values): (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let all = [query, key, value, more_keys, more_values];
        let is_followed = key.track_op() || value.track_op();
        if !is_followed || !is_fast(all) || self.queries.is_empty() || query.elem_count() == 0 {
            let joined = |own: &Tensor, more: &Tensor| Tensor::cat(&[own, &more.detach()], 0);
            return self.attend(query, &joined(key, more_keys)?, &joined(value, more_values)?);
        }
        let width = key.dim(1)?;
        if more_keys.dims() != more_values.dims() || more_keys.dims2()?.1 != width {
            bail!(
                "more keys {:?} and values {:?} beside a table {width} wide",
                more_keys.shape(),
                more_values.shape()
            );
        }
        self.check(query, key, value, more_keys.dim(0)?)?;
        let (key, value) = (key.contiguous()?, value.contiguous()?);
        let whole = |own: &Tensor, more: &Tensor| -> Result<Vec<f32>> {
            let more = more.contiguous()?;
            let (own, more) = (Held::new(own), Held::new(&more));
            Ok([own.floats()?, more.floats()?].concat())
        };
        let beside = Some([whole(&key, more_keys)?, whole(&value, more_values)?]);
        query.contiguous()?.apply_op3(&key, &value, Attend { ragged: self.clone(), beside })
    }

    /// The same of candle's operations, a query at a time.
    fn composed(&self, query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
        let width = query.dim(1)?;
        let (groups, head_dim) = (self.kv_heads, width / self.heads);
        let (key, value) = (key.contiguous()?, value.contiguous()?);
        let mut rows = Vec::new();
        let mut mixed = Vec::with_capacity(self.queries.len());
        for one in &self.queries {
            self.list_rows(one, &one.keys, &mut rows);
            let index = Tensor::new(&rows[..], query.device())?;
            let by_head = |table: &Tensor| {
                table
                    .index_select(&index, 0)?
                    .reshape((rows.len(), groups, head_dim))?
                    .transpose(0, 1)?
                    .contiguous()
            };
            let q = query.narrow(0, one.row as usize, 1)?.reshape((groups, self.heads / groups, head_dim))?;
            let mut scores = (q.matmul(&by_head(&key)?.t()?)? * f64::from(self.scale))?;
            if let Some(cap) = self.softcap {
                scores = crate::softcap(&scores, cap.into())?;
            }
            mixed.push(crate::softmax(&scores)?.matmul(&by_head(&value)?)?.reshape((1, width))?);
        }
        if mixed.is_empty() {
            return query.narrow(0, 0, 0)?.contiguous();
        }
        Tensor::cat(&mixed, 0)
    }
}

struct Attend {
    ragged: Arc<Ragged>,
    /// The whole tables of keys and values, where those given are only their first rows.
    beside: Option<[Vec<f32>; 2]>,
}

impl Attend {
    /// The tables that are seen.
    fn tables<'a>(
        &'a self,
        query: &'a [f32],
        key: &'a [f32],
        value: &'a [f32],
        width: usize,
    ) -> kernel::Tables<'a> {
        let head_dim = width / self.ragged.heads;
        match &self.beside {
            Some([key, value]) => kernel::Tables { query, key, value, head_dim },
            None => kernel::Tables { query, key, value, head_dim },
        }
    }
}

impl CustomOp3 for Attend {
    fn name(&self) -> &'static str {
        "ragged-attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use crate::kernel::floats;
        let (_, width) = query_layout.shape().dims2()?;
        let (query, key, value) =
            (floats(query, query_layout)?, floats(key, key_layout)?, floats(value, value_layout)?);
        let out = kernel::forward(&self.ragged, &self.tables(query, key, value, width));
        Ok((CpuStorage::F32(out), Shape::from((self.ragged.queries.len(), width))))
    }

    fn bwd(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let [held_query, held_key, held_value, grad] = [query, key, value, &grad].map(Held::new);
        let (q, k, v) = (held_query.floats()?, held_key.floats()?, held_value.floats()?);
        let tables = self.tables(q, k, v, query.dim(1)?);
        let table_too = key.track_op() || value.track_op();
        let slopes = kernel::backward(&self.ragged, &tables, grad.floats()?, table_too);
        let like = |mut slope: Vec<f32>, table: &Tensor| {
            slope.truncate(table.elem_count());
            table.track_op().then(|| Tensor::from_vec(slope, table.shape(), table.device())).transpose()
        };
        Ok((like(slopes.query, query)?, like(slopes.key, key)?, like(slopes.value, value)?))
    }
}

#[cfg(test)]
mod tests;
