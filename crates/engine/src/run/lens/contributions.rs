//! Direct logit attribution: the parts that the last position's logits are the sum of.

use super::stream::Stream;
use crate::experiment::Experiment;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::decoder::Block;
use causalcone_model::stage::{Kernel, Stages};
use causalcone_model::{Config, Site};
use std::collections::HashMap;

/// What one part puts into the logits of the last position: its share x of the residual stream, through the
/// last norm frozen at the scale that the whole stream gives it, times each token's row of the unembedding,
/// L(x)·W_U (Elhage et al. 2021). All contributions together are the model's own logits, of a family that caps its
/// logits (Gemma 2) those before the cap. A norm after attention is frozen like the last one.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// Who.
    pub part: Contributor,
    /// To each token's logit, in the order of the tokens.
    pub logits: Vec<f64>,
}

/// A part of the model that writes into the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contributor {
    /// The token's embedding, and its position's where it has one.
    Embedding,
    /// A head of a layer.
    Head {
        /// The layer.
        layer: usize,
        /// The head.
        head: usize,
    },
    /// The bias of a layer's attention output.
    AttentionBias {
        /// The layer.
        layer: usize,
    },
    /// A layer's MLP, bias and all.
    Mlp {
        /// The layer.
        layer: usize,
    },
    /// What edits of a layer's attention output or of the residual stream itself put there; behind the last
    /// layer, of the last norm and the logits.
    Edit {
        /// The layer.
        layer: Option<usize>,
    },
    /// The bias of the last norm.
    NormBias,
}

impl Contributor {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Head { .. } => "head",
            Self::AttentionBias { .. } => "attention_bias",
            Self::Mlp { .. } => "mlp",
            Self::Edit { .. } => "edit",
            Self::NormBias => "norm_bias",
        }
    }

    /// The layer it is of.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Head { layer, .. } | Self::AttentionBias { layer } | Self::Mlp { layer } => Some(layer),
            Self::Edit { layer } => layer,
            Self::Embedding | Self::NormBias => None,
        }
    }

    /// The head it is.
    pub fn head(self) -> Option<usize> {
        match self {
            Self::Head { head, .. } => Some(head),
            _ => None,
        }
    }
}

impl Experiment<'_> {
    /// What the logits of some tokens are made of. `edited` says which tensors of the run have edits.
    pub(super) fn contributions(
        &self,
        stream: &Stream,
        tokens: &[u32],
        edited: impl Fn(Site, Option<usize>) -> bool,
    ) -> Result<Vec<Contribution>> {
        let (decoder, config) = (self.model.decoder()?, self.model.config());
        let stages = &config.block;
        let is_straight = |mixed: usize| {
            let written = stages.sums().filter_map(|sum| stages[sum].reads.get(1));
            written.flat_map(|read| &stages[read.stage].reads).any(|read| read.stage == mixed)
        };
        if stages.attentions().iter().any(|attention| !is_straight(attention.mixed)) {
            let problem = "attention is not written into the residual stream as its projection makes it, so that heads \
                           have no shares of their own";
            return Err(Error::part("lens", problem));
        }
        let mut parts: Vec<Contributor> = vec![Contributor::Embedding];
        let mut rows: Vec<Tensor> = vec![stream.last(Site::Embedding, None)?];
        let mut before = rows[0].clone();
        for layer in 0..config.layers {
            let (stages, block) = (&*config.block, &decoder.blocks()[layer]);
            let (sums, edits) = (HashMap::new(), None);
            let mut writes = Writes { stages, block, config, stream, layer, edited: &edited, sums, edits };
            if let Some(input) = stages.find(Site::BlockInput) {
                let edit = writes.edit(input, &before)?;
                writes.note(edit)?;
            }
            for sum in stages.sums() {
                for (part, row) in writes.parts(sum)? {
                    parts.push(part);
                    rows.push(row);
                }
            }
            if let Some(edits) = writes.edits {
                parts.push(Contributor::Edit { layer: Some(layer) });
                rows.push(edits);
            }
            before = stream.last(Site::BlockOutput, Some(layer))?;
        }
        let (mut normed, bias) = decoder.final_norm_of_parts(&before, &Tensor::cat(&rows, 0)?)?;
        if let Some(bias) = bias {
            parts.push(Contributor::NormBias);
            normed = Tensor::cat(&[normed, bias], 0)?;
        }
        let mut logits = decoder.before_the_cap(&normed, tokens)?;
        if edited(Site::FinalNorm, None) || edited(Site::Logits, None) {
            if config.logit_softcap.is_some() {
                let problem = "an edit behind the last layer has no share in logits before this family's cap";
                return Err(Error::part("lens", problem));
            }
            let ids = Tensor::new(tokens, decoder.device())?;
            let made = decoder.unembed_tokens(&decoder.final_norm(&before)?, Some(tokens))?;
            parts.push(Contributor::Edit { layer: None });
            logits =
                Tensor::cat(&[logits, (stream.last(Site::Logits, None)?.index_select(&ids, 1)? - made)?], 0)?;
        }
        let logits = logits.to_vec2::<f32>()?;
        let each = parts.into_iter().zip(logits);
        Ok(each
            .map(|(part, logits)| Contribution { part, logits: logits.into_iter().map(f64::from).collect() })
            .collect())
    }
}

/// The residual stream of one block at the last position, and what is written into it.
struct Writes<'a, E> {
    stages: &'a Stages,
    block: &'a Block,
    config: &'a Config,
    stream: &'a Stream,
    layer: usize,
    /// Which tensors have edits.
    edited: E,
    /// Sums that are no site.
    sums: HashMap<usize, Tensor>,
    /// What edits put there.
    edits: Option<Tensor>,
}

impl<E: Fn(Site, Option<usize>) -> bool> Writes<'_, E> {
    /// The row of a stage.
    fn last(&self, stage: usize) -> Result<Tensor> {
        match (self.sums.get(&stage), self.stages[stage].site) {
            (Some(sum), _) => Ok(sum.clone()),
            (None, Some(site)) => self.stream.last(site, Some(self.layer)),
            (None, None) => Err(Error::internal("a tensor is neither read nor a sum")),
        }
    }

    /// What a tensor is more than what the model itself makes of what is before it, where it has edits.
    fn edit(&self, stage: usize, made: &Tensor) -> Result<Option<Tensor>> {
        let site = self.stages[stage].site.filter(|site| (self.edited)(*site, Some(self.layer)));
        site.map(|_| Ok((self.last(stage)? - made)?)).transpose()
    }

    fn note(&mut self, more: Option<Tensor>) -> Result<()> {
        self.edits = match (self.edits.take(), more) {
            (Some(edits), Some(more)) => Some((edits + more)?),
            (edits, more) => edits.or(more),
        };
        Ok(())
    }

    /// What is added to the stream by a sum, part by part.
    fn parts(&mut self, sum: usize) -> Result<Vec<(Contributor, Tensor)>> {
        let (layer, block) = (self.layer, self.block);
        let [residual, added] = [0, 1].map(|i| self.stages[sum].reads[i].stage);
        let whole = self.last(added)?;
        let of_parts = |parts: &Tensor| block.added_of_parts(sum, &whole, parts);
        let written = block.added(sum, &whole)?;
        let mixed = self.stages[added].reads.first().map(|read| read.stage);
        let mut parts = Vec::new();
        match mixed.filter(|mixed| self.stages[*mixed].kernel == Kernel::Mix) {
            Some(mixed) => {
                let (mixed, heads) = (self.last(mixed)?, self.config.heads);
                let project = |x: &Tensor| block.forward(added, &[x], self.config);
                let outputs = head_outputs(&mixed, heads, project)?;
                let (outputs, bias) = (outputs.narrow(0, 0, heads)?, outputs.narrow(0, heads, 1)?);
                // A norm after attention is frozen at the scale that its whole output gives it.
                let edit = self.edit(added, &project(&mixed)?)?;
                let edit = edit.map(|edit| of_parts(&edit)).transpose()?;
                self.note(edit)?;
                let outputs = of_parts(&outputs.broadcast_sub(&bias)?)?;
                for head in 0..heads {
                    parts.push((Contributor::Head { layer, head }, outputs.narrow(0, head, 1)?));
                }
                if bias.flatten_all()?.to_vec1::<f32>()?.iter().any(|x| *x != 0.0) {
                    parts.push((Contributor::AttentionBias { layer }, of_parts(&bias)?));
                }
            }
            None => parts.push((Contributor::Mlp { layer }, written.clone())),
        }
        let made = (self.last(residual)? + written)?;
        let edit = self.edit(sum, &made)?;
        self.note(edit)?;
        if self.stages[sum].site.is_none() {
            self.sums.insert(sum, made);
        }
        Ok(parts)
    }
}

/// What the output projection makes of each head's mixed values alone, and of none of them: its bias.
fn head_outputs(
    mixed: &Tensor,
    heads: usize,
    project: impl Fn(&Tensor) -> causalcone_model::Result<Tensor>,
) -> Result<Tensor> {
    let width = mixed.dim(1)? / heads;
    let mine = |head: usize| (0..heads + 1).map(move |row| if row == head { 1f32 } else { 0.0 });
    let mask: Vec<f32> = (0..heads).flat_map(mine).collect();
    // One row a head, and one of zeros, each as wide as all heads.
    let mask = Tensor::from_vec(mask, (heads, heads + 1, 1), mixed.device())?.transpose(0, 1)?;
    let rows = mixed.reshape((1, heads, width))?.broadcast_mul(&mask)?.reshape((heads + 1, heads * width))?;
    Ok(project(&rows)?)
}
