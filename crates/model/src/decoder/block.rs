//! One layer, stage by stage.

use crate::Result;
use crate::config::{Config, QueryKeyNorm};
use candle_core::Tensor;
use causalcone_ops::{Linear, Rotation, layer_norm, multiply, rms_norm};

/// One layer: attention and MLP with their norms.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) attention_norm: Option<NormWeights>,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) query_norm: Option<NormWeights>,
    pub(crate) key_norm: Option<NormWeights>,
    pub(crate) attention_output: Linear,
    pub(crate) attention_after: Option<NormWeights>,
    pub(crate) mlp_norm: Option<NormWeights>,
    pub(crate) gate: Gate,
    pub(crate) down: Linear,
    pub(crate) mlp_after: Option<NormWeights>,
}

/// A norm's parameters; without a bias it is a root-mean-square norm.
#[derive(Debug, Clone)]
pub(crate) struct NormWeights {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) eps: f64,
}

/// The first projections of an MLP: into the activation, and beside it where it is gated.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) into: Linear,
    pub(crate) up: Option<Linear>,
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

/// What a norm makes of `x`, or `x` where there is none.
fn normed(norm: Option<&NormWeights>, x: &Tensor) -> Result<Tensor> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.forward(x))
}

impl Block {
    /// What queries, keys and values are made of, rows × d: the first norm's output, or `x` where a family has none.
    ///
    /// # Errors
    /// When `x` does not have the model's width; the same holds for the other stages.
    pub fn attention_input(&self, x: &Tensor) -> Result<Tensor> {
        normed(self.attention_norm.as_ref(), x)
    }

    /// What enters the MLP, rows × d: the second norm's output, or `x` where a family has none.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn mlp_input(&self, x: &Tensor) -> Result<Tensor> {
        normed(self.mlp_norm.as_ref(), x)
    }

    /// Queries of normed rows, rows × H·D.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn query(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.query.forward(x)?)
    }

    /// Keys of normed rows, rows × K·D.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn key(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.key.forward(x)?)
    }

    /// Values of normed rows, rows × K·D.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn value(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.value.forward(x)?)
    }

    /// Queries, keys and values of the same normed rows: as each alone.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn query_key_value(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        Ok(Linear::forward_all([&self.query, &self.key, &self.value], x)?)
    }

    /// Queries as scores see them: clipped, normed and turned, where the family does so.
    ///
    /// # Errors
    /// When the rows are not those the rotation was made for.
    pub fn seen_query(&self, x: &Tensor, config: &Config, rotation: Option<&Rotation>) -> Result<Tensor> {
        seen(x, config.heads, self.query_norm.as_ref(), config, rotation)
    }

    /// Keys as scores see them: clipped, normed and turned, where the family does so.
    ///
    /// # Errors
    /// When the rows are not those the rotation was made for.
    pub fn seen_key(&self, x: &Tensor, config: &Config, rotation: Option<&Rotation>) -> Result<Tensor> {
        seen(x, config.kv_heads, self.key_norm.as_ref(), config, rotation)
    }

    /// Values as attention weighs them: clipped, where the family does so.
    ///
    /// # Errors
    /// When they cannot be computed.
    pub fn seen_value(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        clipped(x, config)
    }

    /// The output projection of mixed values, rows × d.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn attention_output(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.attention_output.forward(x)?)
    }

    /// What attention adds to the residual stream: its output, normed where the family does so.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn attention_added(&self, x: &Tensor) -> Result<Tensor> {
        normed(self.attention_after.as_ref(), x)
    }

    /// [`attention_added`](Self::attention_added) of parts of an attention output, rows × d, that together are
    /// `whole`, 1 × d.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn attention_added_of_parts(&self, whole: &Tensor, parts: &Tensor) -> Result<Tensor> {
        self.attention_after.as_ref().map_or_else(|| Ok(parts.clone()), |norm| norm.of_parts(whole, parts))
    }

    /// The activation function's output, rows × m.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn activate(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        Ok(config.mlp.activation.forward(&self.gate.into.forward(x)?)?)
    }

    /// The activation function's output, rows × m, and up of the same rows where the MLP is gated.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn activate_beside(&self, x: &Tensor, config: &Config) -> Result<(Tensor, Option<Tensor>)> {
        let Some(up) = &self.gate.up else { return Ok((self.activate(x, config)?, None)) };
        let [gate, up] = Linear::forward_all([&self.gate.into, up], x)?;
        Ok((config.mlp.activation.forward(&gate)?, Some(up)))
    }

    /// What enters the down projection: the activation, times up where the MLP is gated.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn gated(&self, x: &Tensor, activated: Tensor) -> Result<Tensor> {
        Ok(match &self.gate.up {
            Some(up) => multiply(&activated, &up.forward(x)?)?,
            None => activated,
        })
    }

    /// The down projection, rows × d.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn mlp_output(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.down.forward(x)?)
    }

    /// What the MLP adds to the residual stream: its output, normed where the family does so.
    ///
    /// # Errors
    /// See [`Block::attention_input`].
    pub fn mlp_added(&self, x: &Tensor) -> Result<Tensor> {
        normed(self.mlp_after.as_ref(), x)
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
