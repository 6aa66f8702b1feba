//! One layer: the kernels of its stages, with their weights.

use crate::config::{Config, QueryKeyNorm};
use crate::stage::Kernel;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_ops::{Linear, Rotation, add, layer_norm, multiply, rms_norm};

/// One layer: by stage, what is computed and the weights it takes.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) kernels: Vec<Kernel<NormWeights, Linear>>,
}

/// A norm's parameters; without a bias it is a root-mean-square norm.
#[derive(Debug, Clone)]
pub(crate) struct NormWeights {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) eps: f64,
}

impl NormWeights {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.eps)?,
            None => rms_norm(x, &self.weight, self.eps)?,
        })
    }

    /// What the norm makes of each of `parts` (rows × d), frozen at the scale that their sum `x` (1 × d) gives it,
    /// without the bias.
    pub(crate) fn of_parts(&self, x: &Tensor, parts: &Tensor) -> Result<Tensor> {
        let centred = |rows: &Tensor| match self.bias {
            Some(_) => rows.broadcast_sub(&rows.mean_keepdim(1)?),
            None => Ok(rows.clone()),
        };
        let scale = (centred(x)?.sqr()?.mean_keepdim(1)? + self.eps)?.sqrt()?;
        Ok(centred(parts)?.broadcast_div(&scale)?.broadcast_mul(&self.weight)?)
    }
}

impl Block {
    /// What a stage makes of rows of the tensors that it reads, of each in turn.
    ///
    /// # Errors
    /// When the rows do not have the widths of those tensors, or the stage is one of attention, whose rows see others.
    pub fn forward(&self, stage: usize, reads: &[&Tensor], config: &Config) -> Result<Tensor> {
        match (&self.kernels[stage], reads) {
            (Kernel::Linear(matrix) | Kernel::Activate(matrix), [x]) | (Kernel::Gate(matrix), [_, x]) => {
                self.behind_product(stage, reads, matrix.forward(x)?, config)
            }
            (Kernel::Same, [x]) => Ok((*x).clone()),
            (Kernel::Norm(norm), [x]) => norm.forward(x),
            (Kernel::Add(_), [residual, x]) => Ok(add(residual, &self.added(stage, x)?)?),
            _ => Err(Error::Internal {
                problem: format!("stage {stage} does not read {} tensors", reads.len()),
            }),
        }
    }

    /// What the stages that multiply a tensor by a matrix have of it: the products, computed together.
    ///
    /// # Errors
    /// When the rows do not have the width of the tensor.
    pub fn products(&self, stages: &[usize], x: &Tensor) -> Result<Vec<Tensor>> {
        let matrices: Vec<&Linear> =
            stages.iter().filter_map(|stage| self.kernels[*stage].matrix()).collect();
        Ok(Linear::forward_all(&matrices, x)?)
    }

    /// [`forward`](Self::forward) where the product is there already.
    ///
    /// # Errors
    /// As [`Block::forward`].
    pub fn behind_product(
        &self,
        stage: usize,
        reads: &[&Tensor],
        product: Tensor,
        config: &Config,
    ) -> Result<Tensor> {
        Ok(match (&self.kernels[stage], reads) {
            (Kernel::Activate(_), _) => config.activation.forward(&product)?,
            (Kernel::Gate(_), [activated, ..]) => multiply(activated, &product)?,
            _ => product,
        })
    }

    /// What a stage that adds to the residual stream adds: the tensor, normed where the family does so.
    ///
    /// # Errors
    /// When the rows do not have the model's width.
    pub fn added(&self, stage: usize, x: &Tensor) -> Result<Tensor> {
        match &self.kernels[stage] {
            Kernel::Add(Some(norm)) => norm.forward(x),
            _ => Ok(x.clone()),
        }
    }

    /// [`added`](Self::added) of parts of a tensor, rows × d, that together are `whole`, 1 × d.
    ///
    /// # Errors
    /// As [`Block::added`].
    pub fn added_of_parts(&self, stage: usize, whole: &Tensor, parts: &Tensor) -> Result<Tensor> {
        match &self.kernels[stage] {
            Kernel::Add(Some(norm)) => norm.of_parts(whole, parts),
            _ => Ok(parts.clone()),
        }
    }

    /// Queries as the scores of that stage see them: clipped, normed and turned, where the family does so.
    ///
    /// # Errors
    /// When the rows are not those the rotation was made for.
    pub fn seen_query(
        &self,
        scores: usize,
        x: &Tensor,
        config: &Config,
        rotation: Option<&Rotation>,
    ) -> Result<Tensor> {
        seen(x, config.heads, self.norms(scores).map(|[query, _]| query), config, rotation)
    }

    /// Keys as the scores of that stage see them: clipped, normed and turned, where the family does so.
    ///
    /// # Errors
    /// When the rows are not those the rotation was made for.
    pub fn seen_key(
        &self,
        scores: usize,
        x: &Tensor,
        config: &Config,
        rotation: Option<&Rotation>,
    ) -> Result<Tensor> {
        seen(x, config.kv_heads, self.norms(scores).map(|[_, key]| key), config, rotation)
    }

    /// Values as attention weighs them: clipped, where the family does so.
    ///
    /// # Errors
    /// When they cannot be computed.
    pub fn seen_value(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        clipped(x, config)
    }

    /// The norms of queries and keys.
    fn norms(&self, scores: usize) -> Option<&[NormWeights; 2]> {
        match self.kernels.get(scores) {
            Some(Kernel::Scores(norms)) => norms.as_ref(),
            _ => None,
        }
    }
}

/// Queries or keys (rows × heads·D) as scores see them.
fn seen(
    x: &Tensor,
    heads: usize,
    norm: Option<&NormWeights>,
    config: &Config,
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let mut x = clipped(x, config)?;
    if let Some(norm) = norm {
        x = match config.query_key_norm {
            Some(QueryKeyNorm::Heads) => {
                norm.forward(&x.reshape((x.dim(0)?, heads, ()))?)?.reshape(x.shape())?
            }
            _ => norm.forward(&x)?,
        };
    }
    Ok(match rotation {
        Some(rotation) => rotation.rows(&x, heads)?,
        None => x,
    })
}

fn clipped(x: &Tensor, config: &Config) -> Result<Tensor> {
    Ok(match config.clip {
        Some(clip) => x.clamp(-clip, clip)?,
        None => x.clone(),
    })
}
