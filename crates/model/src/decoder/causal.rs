//! What a query may see.

use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Which keys some queries may see: those at their own position and before, as far back as the layer's window.
#[derive(Debug)]
pub struct Causal {
    queries: Vec<usize>,
    visible: Tensor,
}

/// Whether a query sees a key.
fn sees(query: usize, key: usize, window: Option<usize>) -> bool {
    key <= query && window.is_none_or(|window| query - key < window)
}

impl Causal {
    /// For queries and keys at these positions, in a layer with that window.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(
        queries: &[usize],
        keys: impl IntoIterator<Item = usize>,
        window: Option<usize>,
    ) -> Result<Self> {
        let positions: Vec<usize> = keys.into_iter().collect();
        let row = |query: &usize| positions.iter().map(|key| u8::from(sees(*query, *key, window))).collect();
        let visible: Vec<u8> = queries.iter().flat_map(|query| -> Vec<u8> { row(query) }).collect();
        let keys = positions.len();
        let visible = Tensor::from_vec(visible, (queries.len(), keys), &Device::Cpu)?;
        Ok(Self { queries: queries.to_vec(), visible })
    }

    /// `x` (H × queries × keys) with everything a query may not see taken from `hidden`, of the same
    /// shape.
    ///
    /// # Errors
    /// When the two do not have that shape.
    pub fn visible(&self, x: &Tensor, hidden: &Tensor) -> Result<Tensor> {
        Ok(self.visible.broadcast_as(x.shape())?.where_cond(x, hidden)?)
    }

    /// Scores with −inf for everything a query may not see.
    ///
    /// # Errors
    /// When they do not have the shape H × queries × keys.
    pub fn mask(&self, scores: &Tensor) -> Result<Tensor> {
        self.visible(scores, &Tensor::new(f32::NEG_INFINITY, scores.device())?.broadcast_as(scores.shape())?)
    }

    /// Refuses edited scores that have no softmax: rows that are all −inf, or hold NaN or +inf. Where
    /// the model's own numbers overflow, the answer is not finite, and says so.
    ///
    /// # Errors
    /// [`Error::Address`], naming the query row.
    pub fn check(&self, own: &Tensor, edited: &Tensor, layer: usize) -> Result<()> {
        if own.id() == edited.id() {
            return Ok(());
        }
        let (_, rows, keys) = edited.dims3()?;
        let (own, edited) = (own.flatten_all()?.to_vec1::<f32>()?, edited.flatten_all()?.to_vec1::<f32>()?);
        for (i, (own, edited)) in own.chunks(keys).zip(edited.chunks(keys)).enumerate() {
            if let (None, Some(problem)) = (without_softmax(own), without_softmax(edited)) {
                let (head, row) = (i / rows, self.queries[i % rows]);
                let place = format!("of layer {layer}, head {head} {problem} after the edits");
                return Err(Error::address("query row", &row, place));
            }
        }
        Ok(())
    }
}

/// Why a row of scores has no softmax, if it has none.
fn without_softmax(row: &[f32]) -> Option<&'static str> {
    if row.iter().all(|x| *x == f32::NEG_INFINITY) {
        Some("has no key left to attend to: every score is -inf")
    } else if row.iter().any(|x| x.is_nan()) {
        Some("has a score that is NaN")
    } else if row.contains(&f32::INFINITY) {
        Some("has a score that is +inf")
    } else {
        None
    }
}
