//! Taking a block out of a site's tensor, and putting an edited one back.

use crate::Result;
use crate::plan::{Place, TensorKey};
use candle_core::Tensor;
use causalcone_model::decoder::Causal;
use causalcone_model::{Config, Layout};
use causalcone_ops::{replace, select};

/// An axis of a tensor and which of its slices are meant; `None` is all.
type Axis<'a> = (usize, Option<&'a [usize]>);

impl Place {
    /// The tensor it is a block of.
    pub(crate) fn tensor(&self) -> TensorKey {
        (self.site.tensor(), self.layer)
    }

    /// The tensor seen with heads apart where the site is by head.
    fn view(&self, x: &Tensor, config: &Config) -> candle_core::Result<Tensor> {
        match self.site.layout(config) {
            Layout::Heads { heads, width } => x.reshape((x.dim(0)?, heads, width)),
            _ => Ok(x.clone()),
        }
    }

    fn axes<'a>(&'a self, positions: Option<&'a [usize]>, config: &Config) -> Vec<Axis<'a>> {
        let (heads, dims) = (self.heads.as_deref(), self.dims.as_deref());
        match self.site.layout(config) {
            Layout::Rows { .. } => vec![(0, positions), (1, dims)],
            Layout::Heads { .. } => vec![(0, positions), (1, heads), (2, dims)],
            Layout::Attention { .. } => vec![(0, heads), (1, positions), (2, dims)],
        }
    }

    /// The block of `x` this place names.
    ///
    /// # Errors
    /// When `x` does not have such a block.
    pub fn take(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        self.block(x, Some(&self.positions), config)
    }

    /// The block of rows already taken: `x` has those of the place's positions and no others.
    ///
    /// # Errors
    /// When `x` does not have such a block.
    pub fn take_of_rows(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        self.block(x, None, config)
    }

    fn block(&self, x: &Tensor, positions: Option<&[usize]>, config: &Config) -> Result<Tensor> {
        let mut block = self.view(x, config)?;
        for (axis, indices) in self.axes(positions, config) {
            if let Some(indices) = indices {
                block = select(&block, axis, indices)?;
            }
        }
        Ok(block)
    }

    /// `x` with the block this place names replaced by what `f` makes of it; everything else stays
    /// the same to the bit, the masked part of an attention matrix included.
    ///
    /// # Errors
    /// What `f` returns; when `x` does not have such a block.
    pub fn edit(
        &self,
        x: &Tensor,
        config: &Config,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let rows: Vec<usize> =
            if self.site.is_attention_matrix() { (0..x.dim(1)?).collect() } else { vec![] };
        self.edit_block(x, Some(&self.positions), &rows, config, f)
    }

    /// [`Place::edit`] of rows already taken: `x` has those at `rows` and no others, and all of them
    /// are edited.
    ///
    /// # Errors
    /// As [`Place::edit`].
    pub fn edit_of_rows(
        &self,
        x: &Tensor,
        rows: &[usize],
        config: &Config,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.edit_block(x, None, rows, config, f)
    }

    fn edit_block(
        &self,
        x: &Tensor,
        positions: Option<&[usize]>,
        rows: &[usize],
        config: &Config,
        f: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let edited = edit(&self.view(x, config)?, &self.axes(positions, config), f)?.reshape(x.shape())?;
        if self.site.is_attention_matrix() {
            // An edit may change what a query sees, never let it see the future, or past its window.
            let window = self.layer.and_then(|layer| config.window(layer));
            return Ok(Causal::new(rows, 0..x.dim(2)?, window)?.visible(&edited, x)?);
        }
        Ok(edited)
    }
}

fn edit(x: &Tensor, axes: &[Axis<'_>], f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match axes {
        [] => f(x),
        [(_, None), rest @ ..] => edit(x, rest, f),
        [(axis, Some(indices)), rest @ ..] => {
            let slices = edit(&select(x, *axis, indices)?, rest, f)?;
            Ok(replace(x, *axis, indices, &slices)?)
        }
    }
}
