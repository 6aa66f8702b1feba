//! The one decoder all families share, in stages that a caller can look into and change.
//!
//! [`Decoder::forward`] runs a whole prompt and hands the tensor of every site, in the order of
//! execution, to a [`Tap`], which returns it as it is or edited. The stages are also public one by
//! one ([`Block`]), for executors that compute only some rows.
//!
//! ```
//! use candle_core::Tensor;
//! use causalcone_model::{Model, Site, decoder::Tap};
//!
//! /// Silences the MLP of layer 0.
//! struct Silence;
//! impl Tap for Silence {
//!     type Error = causalcone_model::Error;
//!     fn at(&mut self, site: Site, layer: Option<usize>, x: Tensor) -> Result<Tensor, Self::Error> {
//!         Ok(if (site, layer) == (Site::MlpOutput, Some(0)) { x.zeros_like()? } else { x })
//!     }
//! }
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama");
//! let model = Model::load(path)?;
//! let logits = model.decoder().forward(&[1, 2, 3], &mut Silence)?;
//! assert_eq!(logits.dims(), [3, model.config().vocab]);
//! # Ok::<(), causalcone_model::Error>(())
//! ```

use crate::config::Config;
use crate::site::Site;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_ops::{
    Linear, Rope, Rotation, add, cross_entropy_behind, layer_norm, multiply, rms_norm, softmax,
};

/// Sees, and may change, the tensor of every site of a forward pass.
pub trait Tap {
    /// The error it may stop the pass with.
    type Error: From<Error>;

    /// Called once for each tensor in the order of execution, with views of heads under the name of
    /// the tensor they are part of ([`Site::tensor`]). Returns what the pass goes on with. Scores and
    /// weights come with every later key masked; a tap that edits them keeps that with [`Causal`].
    ///
    /// # Errors
    /// Whatever should end the pass.
    fn at(&mut self, site: Site, layer: Option<usize>, x: Tensor) -> Result<Tensor, Self::Error>;
}

/// The weights of a model, ready to run.
#[derive(Debug)]
pub struct Decoder {
    pub(crate) config: Config,
    /// vocab × width; none where it is the unembedding
    pub(crate) token_embedding: Option<Tensor>,
    pub(crate) position_embedding: Option<Tensor>,
    pub(crate) rope: Option<Rope>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: NormWeights,
    pub(crate) unembedding: Linear,
}

/// One layer: attention and MLP with a norm before each.
#[derive(Debug)]
pub struct Block {
    pub(crate) attention_norm: NormWeights,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) attention_output: Linear,
    pub(crate) mlp_norm: NormWeights,
    pub(crate) gate: Gate,
    pub(crate) down: Linear,
}

/// A norm's parameters; without a bias it is a root-mean-square norm.
#[derive(Debug)]
pub(crate) struct NormWeights {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) eps: f64,
}

/// The first projections of an MLP: into the activation, and beside it where it is gated.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) into: Linear,
    pub(crate) up: Option<Linear>,
}

impl NormWeights {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => layer_norm(x, &self.weight, bias, self.eps)?,
            None => rms_norm(x, &self.weight, self.eps)?,
        })
    }
}

impl Decoder {
    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Rows of the token embedding, ids × width.
    ///
    /// # Errors
    /// When an id is outside the vocabulary.
    pub fn token_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(match &self.token_embedding {
            Some(table) => table.index_select(&Tensor::new(ids, table.device())?, 0)?,
            None => self.unembedding.columns(ids)?,
        })
    }

    /// Where the weights are, and all that is computed with them.
    pub fn device(&self) -> &Device {
        self.final_norm.weight.device()
    }

    /// Runs token ids (n of them, n ≥ 1) through the whole model and returns the logits, n × vocab.
    ///
    /// # Errors
    /// What the tap returns; [`Error::Prompt`] for ids the model does not have or too many of them;
    /// [`Error::Address`] where edited scores leave a query row nothing to attend to.
    pub fn forward<T: Tap>(&self, ids: &[u32], tap: &mut T) -> Result<Tensor, T::Error> {
        self.check(ids)?;
        let positions: Vec<usize> = (0..ids.len()).collect();
        let rotation = self.rotation(&positions)?;
        let causal = Causal::new(&positions, ids.len())?;
        let mut x = tap.at(Site::Embedding, None, self.embed(ids, &positions)?)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let mut at = |site, x| tap.at(site, Some(layer), x);
            x = at(Site::BlockInput, x)?;

            let normed = at(Site::AttentionInput, block.attention_input(&x)?)?;
            let query = at(Site::QueryOutput, block.query(&normed)?)?;
            let key = at(Site::KeyOutput, block.key(&normed)?)?;
            let value = at(Site::ValueOutput, block.value(&normed)?)?;
            let turn = |x: &Tensor, heads| turned(x, heads, rotation.as_ref());
            let (query, key) = (turn(&query, self.config.heads)?, turn(&key, self.config.kv_heads)?);
            let own_scores = causal.mask(&self.scores(layer, &query, &key)?)?;
            let scores = at(Site::AttentionScore, own_scores.clone())?;
            causal.check(&own_scores, &scores, layer)?;
            let weights = at(Site::AttentionWeight, softmax(&scores).map_err(Error::from)?)?;
            let mixed = at(Site::AttentionValueOutput, self.mix(&weights, &value)?)?;
            let attention = at(Site::AttentionOutput, block.attention_output(&mixed)?)?;
            x = at(Site::BlockMiddle, add(&x, &attention).map_err(Error::from)?)?;

            let normed = at(Site::MlpInput, block.mlp_input(&x)?)?;
            let activated = at(Site::MlpActivation, block.activate(&normed, &self.config)?)?;
            let hidden = at(Site::MlpHidden, block.gated(&normed, activated)?)?;
            let mlp = at(Site::MlpOutput, block.mlp_output(&hidden)?)?;
            x = at(Site::BlockOutput, add(&x, &mlp).map_err(Error::from)?)?;
        }
        let x = tap.at(Site::FinalNorm, None, self.final_norm(&x)?)?;
        tap.at(Site::Logits, None, self.unembed(&x)?)
    }

    /// Checks that a prompt can run: not empty, no longer than the context, ids in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Prompt`], saying what would fit.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        let problem = if ids.is_empty() {
            "the prompt is empty: a run needs at least one token".into()
        } else if ids.len() > self.config.context {
            let (n, most) = (ids.len(), self.config.context);
            format!("the prompt has {n} tokens, and this model's context holds {most}")
        } else if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.vocab) {
            format!("token id {id} is outside the vocabulary: ids go from 0 to {}", self.config.vocab - 1)
        } else {
            return Ok(());
        };
        Err(Error::Prompt { problem })
    }

    /// The rows that enter layer 0, one for each id at its position.
    ///
    /// # Errors
    /// When an id or a position is out of range.
    pub fn embed(&self, ids: &[u32], positions: &[usize]) -> Result<Tensor> {
        let tokens = self.token_embeddings(ids)?;
        match &self.position_embedding {
            Some(table) => Ok(add(&tokens, &causalcone_ops::select(table, 0, positions)?)?),
            None => Ok(tokens),
        }
    }

    /// The rotation of query and key rows at these positions, on families that rotate.
    ///
    /// # Errors
    /// When the tables cannot be made.
    pub fn rotation(&self, positions: &[usize]) -> Result<Option<Rotation>> {
        let at = |rope: &Rope| rope.at(positions, DType::F32, &Device::Cpu);
        Ok(self.rope.as_ref().map(at).transpose()?)
    }

    /// Scaled scores, H × queries × keys, before any mask, of rows already turned to their positions
    /// ([`turned`]). Query head h reads key head h·K/H.
    ///
    /// # Errors
    /// When the rows do not have the widths of this model's queries and keys.
    pub fn scores(&self, layer: usize, query: &Tensor, key: &Tensor) -> Result<Tensor> {
        let (query, key) = (by_head(query, self.config.heads)?, by_head(key, self.config.kv_heads)?);
        let scores = grouped_matmul(&query, &key.t()?)?;
        Ok((scores * self.config.score_scale(layer))?)
    }

    /// The heads' weighted values side by side, queries × H·D, of weights H × queries × keys.
    ///
    /// # Errors
    /// When there are not as many value rows as keys.
    pub fn mix(&self, weights: &Tensor, value: &Tensor) -> Result<Tensor> {
        let mixed = grouped_matmul(weights, &by_head(value, self.config.kv_heads)?)?;
        Ok(mixed.transpose(0, 1)?.flatten_from(1)?)
    }

    /// The last norm.
    ///
    /// # Errors
    /// When `x` does not have the model's width.
    pub fn final_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.final_norm.forward(x)
    }

    /// −ln p of a token for each row that went through the last norm, and the logits, which nothing follows:
    /// [`cross_entropy_behind`] of the unembedding.
    ///
    /// # Errors
    /// When `x` does not have the model's width, or a label is missing or outside the vocabulary.
    pub fn cross_entropy(&self, x: &Tensor, labels: &[u32]) -> Result<(Tensor, Tensor)> {
        Ok(cross_entropy_behind(x, &self.unembedding, labels)?)
    }

    /// What the last norm makes of each of `parts` (rows × d), frozen at the scale that their sum `x` (1 × d)
    /// gives it; and its bias (1 × d), where it has one. These together are the norm of `x`.
    ///
    /// # Errors
    /// When they do not have the model's width.
    pub fn final_norm_of_parts(&self, x: &Tensor, parts: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let NormWeights { weight, bias, eps } = &self.final_norm;
        let centred = |rows: &Tensor| match bias {
            Some(_) => rows.broadcast_sub(&rows.mean_keepdim(1)?),
            None => Ok(rows.clone()),
        };
        let scale = (centred(x)?.sqr()?.mean_keepdim(1)? + *eps)?.sqrt()?;
        let normed = centred(parts)?.broadcast_div(&scale)?.broadcast_mul(weight)?;
        Ok((normed, bias.as_ref().map(|bias| bias.unsqueeze(0)).transpose()?))
    }

    /// Logits (rows × vocab) of rows that went through the last norm.
    ///
    /// # Errors
    /// When `x` does not have the model's width.
    pub fn unembed(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.unembedding.forward(x)?)
    }
}

impl Decoder {
    /// [`Decoder::unembed`] for some tokens only, rows × tokens; `None` is all.
    ///
    /// # Errors
    /// When `x` does not have the model's width, or a token is outside the vocabulary.
    pub fn unembed_tokens(&self, x: &Tensor, tokens: Option<&[u32]>) -> Result<Tensor> {
        match tokens {
            None => self.unembed(x),
            Some(tokens) => Ok(x.matmul(&self.unembedding.columns(tokens)?.t()?)?),
        }
    }
}

impl Block {
    /// The first norm, rows × d.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn attention_input(&self, x: &Tensor) -> Result<Tensor> {
        self.attention_norm.forward(x)
    }

    /// The second norm, rows × d.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn mlp_input(&self, x: &Tensor) -> Result<Tensor> {
        self.mlp_norm.forward(x)
    }

    /// Queries of normed rows, rows × H·D.
    ///
    /// # Errors
    /// When `x` does not have the model's width; the same holds for the other stages.
    pub fn query(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.query.forward(x)?)
    }

    /// Keys of normed rows, rows × K·D.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn key(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.key.forward(x)?)
    }

    /// Values of normed rows, rows × K·D.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn value(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.value.forward(x)?)
    }

    /// The output projection of mixed values, rows × d.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn attention_output(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.attention_output.forward(x)?)
    }

    /// The activation function's output, rows × m.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn activate(&self, x: &Tensor, config: &Config) -> Result<Tensor> {
        Ok(config.mlp.activation.forward(&self.gate.into.forward(x)?)?)
    }

    /// What enters the down projection: the activation, times up where the MLP is gated.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn gated(&self, x: &Tensor, activated: Tensor) -> Result<Tensor> {
        Ok(match &self.gate.up {
            Some(up) => multiply(&activated, &up.forward(x)?)?,
            None => activated,
        })
    }

    /// The down projection, rows × d.
    ///
    /// # Errors
    /// See [`Block::query`].
    pub fn mlp_output(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.down.forward(x)?)
    }
}

/// Queries or keys (rows × heads·D) turned to the positions of their rows, on families that rotate.
///
/// # Errors
/// When the rows are not those the rotation was made for.
pub fn turned(x: &Tensor, heads: usize, rotation: Option<&Rotation>) -> Result<Tensor> {
    Ok(match rotation {
        Some(rotation) => rotation.rows(x, heads)?,
        None => x.clone(),
    })
}

/// Which keys some queries may see: those at their own position and before.
#[derive(Debug)]
pub struct Causal {
    queries: Vec<usize>,
    visible: Tensor,
}

impl Causal {
    /// For queries at these positions, and so many keys from position 0 on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(queries: &[usize], keys: usize) -> Result<Self> {
        let visible: Vec<u8> =
            queries.iter().flat_map(|query| (0..keys).map(move |key| u8::from(key <= *query))).collect();
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

/// rows × heads·D to heads × rows × D.
fn by_head(x: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = x.dim(0)?;
    Ok(x.reshape((rows, heads, ()))?.transpose(0, 1)?.contiguous()?)
}

/// Multiplies each of H matrices with one of K: neighbouring heads share theirs (grouped-query
/// attention), so a group's rows are stacked and nothing is repeated.
fn grouped_matmul(x: &Tensor, shared: &Tensor) -> Result<Tensor> {
    let (heads, rows, width) = x.dims3()?;
    let groups = shared.dim(0)?;
    let stacked = x.contiguous()?.reshape((groups, heads / groups * rows, width))?;
    Ok(stacked.matmul(&shared.contiguous()?)?.reshape((heads, rows, ()))?)
}
