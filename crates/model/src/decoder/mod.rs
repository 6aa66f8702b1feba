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
//! let logits = model.decoder()?.forward(&[1, 2, 3], &mut Silence)?;
//! assert_eq!(logits.dims(), [3, model.config().vocab]);
//! # Ok::<(), causalcone_model::Error>(())
//! ```

mod block;
mod causal;

pub use block::Block;
pub(crate) use block::NormWeights;
pub use causal::Causal;

use crate::config::{Config, Norm, Rotary, Scaling};
use crate::site::Site;
use crate::stage::{self, ENTERING};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_ops::{
    Linear, Ragged, Rope, Rotation, Standing, add, cross_entropy, cross_entropy_behind, softcap, softmax,
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

/// The [`Tap`] that leaves every activation as it is.
#[derive(Debug, Clone, Copy)]
pub struct Unedited;

impl Tap for Unedited {
    type Error = Error;

    fn at(&mut self, _: Site, _: Option<usize>, x: Tensor) -> Result<Tensor, Error> {
        Ok(x)
    }
}

/// What the rows of a pass see.
pub trait Attention<T: Tap> {
    /// The heads' weighted values side by side, rows × H·D, of queries (rows × H·D), keys and values (rows × K·D) as
    /// the projections made them.
    ///
    /// # Errors
    /// Whatever should end the pass.
    fn mix(
        &mut self,
        layer: usize,
        stages: &stage::Attention,
        projected: [&Tensor; 3],
        tap: &mut T,
    ) -> Result<Tensor, T::Error>;
}

/// Every row sees those of its own prompt, up to itself.
struct Whole<'a> {
    decoder: &'a Decoder,
    positions: Vec<usize>,
    standing: Vec<Standing>,
}

impl<T: Tap> Attention<T> for Whole<'_> {
    fn mix(
        &mut self,
        layer: usize,
        stages: &stage::Attention,
        [query, key, value]: [&Tensor; 3],
        tap: &mut T,
    ) -> Result<Tensor, T::Error> {
        let (config, block) = (&self.decoder.config, &self.decoder.blocks[layer]);
        let rotation = self.decoder.rotation(layer, &self.standing)?;
        let query = block.seen_query(stages.scores, query, config, rotation.as_ref())?;
        let key = block.seen_key(stages.scores, key, config, rotation.as_ref())?;
        let causal = Causal::new(&self.positions, 0..self.positions.len(), config.window(layer))?;
        let own_scores = causal.mask(&self.decoder.scores(layer, &query, &key)?)?;
        let scores = self.decoder.tapped(layer, stages.scores, own_scores.clone(), tap)?;
        causal.check(&own_scores, &scores, layer)?;
        let weights = softmax(&scores).map_err(Error::from)?;
        let weights = self.decoder.tapped(layer, stages.weights, weights, tap)?;
        Ok(self.decoder.mix(&weights, &block.seen_value(value, config)?)?)
    }
}

/// The weights of a model, ready to run.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) config: Config,
    /// width × vocab; none where it is the unembedding
    pub(crate) token_embedding: Option<Linear>,
    pub(crate) position_embedding: Option<Tensor>,
    /// One for each of the configuration's ways of rotating.
    pub(crate) ropes: Vec<Rope>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: NormWeights,
    pub(crate) unembedding: Linear,
}

impl Decoder {
    /// The shape of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same weights with the base of every rotation multiplied by `factor`; `None` where nothing rotates.
    pub(crate) fn with_base_times(&self, factor: f64) -> Option<Self> {
        let rotaries = self.config.rotaries();
        let scaled = |rotary: &Rotary| rope(&Rotary { theta: rotary.theta * factor, ..rotary.clone() });
        (!rotaries.is_empty()).then(|| Self { ropes: rotaries.iter().map(scaled).collect(), ..self.clone() })
    }

    /// The blocks, first to last.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What tokens put into the residual stream when they enter layer 0, ids × width: their rows of the embedding,
    /// scaled where the family does so.
    ///
    /// # Errors
    /// When an id is outside the vocabulary.
    pub fn token_embeddings(&self, ids: &[u32]) -> Result<Tensor> {
        let rows = self.token_embedding.as_ref().unwrap_or(&self.unembedding).columns(ids)?;
        Ok(if self.config.embedding_scale == 1.0 { rows } else { (rows * self.config.embedding_scale)? })
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
        let length = ids.len();
        let positions: Vec<usize> = (0..length).collect();
        let standing = positions.iter().map(|&position| Standing { position, length }).collect();
        let rows = self.embed(ids, &positions)?;
        self.walk(rows, &mut Whole { decoder: self, positions, standing }, tap)
    }

    /// Runs rows (as [`Decoder::embed`] makes them, of any runs) through the whole model and returns their logits,
    /// rows × vocab. What they see of each other, and of rows before them, is the attention's affair.
    ///
    /// # Errors
    /// What the tap or the attention returns.
    pub fn walk<T: Tap>(
        &self,
        rows: Tensor,
        attention: &mut impl Attention<T>,
        tap: &mut T,
    ) -> Result<Tensor, T::Error> {
        let mut x = tap.at(Site::Embedding, None, rows)?;
        for layer in 0..self.blocks.len() {
            x = self.walk_block(layer, x, attention, tap)?;
        }
        let x = tap.at(Site::FinalNorm, None, self.final_norm(&x)?)?;
        tap.at(Site::Logits, None, self.unembed(&x)?)
    }

    /// Runs rows through one block, stage by stage.
    fn walk_block<T: Tap>(
        &self,
        layer: usize,
        entering: Tensor,
        attention: &mut impl Attention<T>,
        tap: &mut T,
    ) -> Result<Tensor, T::Error> {
        let (stages, block, config) = (&*self.config.block, &self.blocks[layer], &self.config);
        let mut tensors: Vec<Option<Tensor>> = vec![None; stages.len()];
        let mut products: Vec<Option<Tensor>> = vec![None; stages.len()];
        tensors[ENTERING] = Some(entering);
        for (place, stage) in stages.iter().skip(1) {
            if stage.is_matrix() {
                continue;
            }
            let x = match stages.attentions().iter().find(|attention| attention.mixed == place) {
                Some(found) => {
                    let projected =
                        [found.query, found.key, found.value].map(|stage| tensors[stage].as_ref());
                    let [Some(query), Some(key), Some(value)] = projected else {
                        return Err(missing(place).into());
                    };
                    attention.mix(layer, found, [query, key, value], tap)?
                }
                None => {
                    let reads: Option<Vec<&Tensor>> =
                        stage.reads.iter().map(|read| tensors[read.stage].as_ref()).collect();
                    let reads = reads.ok_or_else(|| missing(place))?;
                    match products[place].take() {
                        Some(product) => block.behind_product(place, &reads, product, config)?,
                        None => block.forward(place, &reads, config)?,
                    }
                }
            };
            let x = self.tapped(layer, place, x, tap)?;
            let readers = stages.products(place);
            for (reader, product) in readers.iter().zip(block.products(readers, &x)?) {
                products[*reader] = Some(product);
            }
            tensors[place] = Some(x);
            for used in (0..place).filter(|used| stages.last_use(*used) <= place) {
                tensors[used] = None;
            }
        }
        let leaving = stages.leaving();
        tensors[leaving].take().ok_or_else(|| missing(leaving).into())
    }

    /// Shows the tensor of a stage to a tap, if it has a site.
    fn tapped<T: Tap>(&self, layer: usize, stage: usize, x: Tensor, tap: &mut T) -> Result<Tensor, T::Error> {
        match self.config.block[stage].site {
            Some(site) => tap.at(site, Some(layer), x),
            None => Ok(x),
        }
    }

    /// Checks that a prompt can run: not empty, no longer than the context, ids in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Prompt`], saying what would fit.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        self.config.check(ids)
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

    /// The rotation of query and key rows of a layer that stand there, on families that rotate.
    ///
    /// # Errors
    /// When the tables cannot be made.
    pub fn rotation(&self, layer: usize, rows: &[Standing]) -> Result<Option<Rotation>> {
        let rope = self.config.kinds.get(layer).and_then(|kind| self.ropes.get(kind.rotary));
        Ok(rope.map(|rope| rope.at(rows, DType::F32, &Device::Cpu)).transpose()?)
    }

    /// Scores, H × queries × keys, scaled and capped, before any mask, of rows as scores see them
    /// ([`Block::seen_query`]). Query head h reads key head h·K/H.
    ///
    /// # Errors
    /// When the rows do not have the widths of this model's queries and keys.
    pub fn scores(&self, layer: usize, query: &Tensor, key: &Tensor) -> Result<Tensor> {
        let (query, key) = (by_head(query, self.config.heads)?, by_head(key, self.config.kv_heads)?);
        let scores = (grouped_matmul(&query, &key.t()?)? * self.config.score_scale(layer))?;
        capped(scores, self.config.score.softcap)
    }

    /// The attention of a layer by index, of no query yet: its heads, scale and cap.
    pub fn ragged(&self, layer: usize) -> Ragged {
        let config = &self.config;
        Ragged {
            queries: Vec::new(),
            stretches: Vec::new(),
            heads: config.heads,
            kv_heads: config.kv_heads,
            scale: config.score_scale(layer) as f32,
            softcap: config.score.softcap.map(|cap| cap as f32),
        }
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
        if self.config.logit_softcap.is_some() {
            let logits = self.unembed(x)?;
            return Ok((cross_entropy(&logits, labels)?, logits.detach()));
        }
        Ok(cross_entropy_behind(x, &self.unembedding, labels)?)
    }

    /// What the last norm makes of each of `parts` (rows × d), frozen at the scale that their sum `x` (1 × d)
    /// gives it; and its bias (1 × d), where it has one. These together are the norm of `x`.
    ///
    /// # Errors
    /// When they do not have the model's width.
    pub fn final_norm_of_parts(&self, x: &Tensor, parts: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let bias = self.final_norm.bias.as_ref().filter(|_| matches!(self.config.norm, Norm::Layer { .. }));
        let bias = bias.map(|bias| bias.unsqueeze(0)).transpose()?;
        Ok((self.final_norm.of_parts(x, parts)?, bias))
    }

    /// Logits (rows × vocab) of rows that went through the last norm.
    ///
    /// # Errors
    /// When `x` does not have the model's width.
    pub fn unembed(&self, x: &Tensor) -> Result<Tensor> {
        capped(self.unembedding.forward(x)?, self.config.logit_softcap)
    }

    /// [`Decoder::unembed`] for some tokens only, rows × tokens; `None` is all.
    ///
    /// # Errors
    /// When `x` does not have the model's width, or a token is outside the vocabulary.
    pub fn unembed_tokens(&self, x: &Tensor, tokens: Option<&[u32]>) -> Result<Tensor> {
        match tokens {
            None => self.unembed(x),
            Some(tokens) => capped(self.before_the_cap(x, tokens)?, self.config.logit_softcap),
        }
    }

    /// Logits of some tokens (rows × tokens) before the family's cap, where it has one: these are linear in `x`.
    ///
    /// # Errors
    /// When `x` does not have the model's width, or a token is outside the vocabulary.
    pub fn before_the_cap(&self, x: &Tensor, tokens: &[u32]) -> Result<Tensor> {
        Ok(x.matmul(&self.unembedding.columns(tokens)?.t()?)?)
    }
}

/// A stage reads what is not there.
fn missing(stage: usize) -> Error {
    Error::Internal { problem: format!("stage {stage} reads a tensor that is not there") }
}

/// The rope of a way of rotating.
pub(crate) fn rope(rotary: &Rotary) -> Rope {
    let plain = Rope::new(rotary.width, rotary.theta);
    match &rotary.scaling {
        Scaling::None => plain,
        Scaling::Factors(factors) => plain.divided_by(factors),
        Scaling::ByLength { original, short, long, magnitude } => {
            let long = plain.clone().divided_by(long);
            plain.divided_by(short).beyond(*original, long).stretched(*magnitude)
        }
    }
}

fn capped(x: Tensor, cap: Option<f64>) -> Result<Tensor> {
    Ok(match cap {
        Some(cap) => softcap(&x, cap)?,
        None => x,
    })
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
