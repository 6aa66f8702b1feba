//! Direct logit attribution: the parts that the last position's logits are the sum of.

use super::Stream;
use crate::experiment::Experiment;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::Site;

/// What one part puts into the logits of the last position: its share x of the residual stream, through the
/// last norm frozen at the scale that the whole stream gives it, times each token's row of the unembedding,
/// L(x)·W_U (Elhage et al. 2021). All contributions together are the model's own logits, of a family that caps its
/// logits (Gemma 2) those before the cap. A norm after attention is frozen like the last one.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// Who.
    pub part: Part,
    /// To each token's logit, in the order of the tokens.
    pub logits: Vec<f64>,
}

/// A part of the model that writes into the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
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

impl Part {
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
        let mut parts: Vec<Part> = vec![Part::Embedding];
        let mut rows: Vec<Tensor> = vec![stream.last(Site::Embedding, None)?];
        let mut before = rows[0].clone();
        for (layer, block) in decoder.blocks().iter().enumerate() {
            let last = |site: Site| stream.last(site, Some(layer));
            let mut edits: Option<Tensor> = None;
            // What a tensor is more than what the model itself makes of what is before it.
            let mut note = |site: Site, made: &Tensor| -> Result<()> {
                if edited(site, Some(layer)) {
                    let mut more = (last(site)? - made)?;
                    if site == Site::AttentionOutput {
                        more = block.attention_added_of_parts(&last(site)?, &more)?;
                    }
                    edits = Some(match &edits {
                        Some(edits) => (edits + more)?,
                        None => more,
                    });
                }
                Ok(())
            };
            note(Site::BlockInput, &before)?;
            let heads = head_outputs(&last(Site::AttentionValueOutput)?, config.heads, |x| {
                block.attention_output(x)
            })?;
            let (heads, bias) = (heads.narrow(0, 0, config.heads)?, heads.narrow(0, config.heads, 1)?);
            note(Site::AttentionOutput, &block.attention_output(&last(Site::AttentionValueOutput)?)?)?;
            let middle = (last(Site::BlockInput)? + block.attention_added(&last(Site::AttentionOutput)?)?)?;
            let middle = match config.lacks(Site::BlockMiddle) {
                Some(_) => middle,
                None => {
                    note(Site::BlockMiddle, &middle)?;
                    last(Site::BlockMiddle)?
                }
            };
            let mlp = block.mlp_added(&last(Site::MlpOutput)?)?;
            note(Site::BlockOutput, &(middle + &mlp)?)?;
            // A norm after attention is frozen at the scale that its whole output gives it.
            let whole = last(Site::AttentionOutput)?;
            let added = |parts: &Tensor| block.attention_added_of_parts(&whole, parts);
            parts.extend((0..config.heads).map(|head| Part::Head { layer, head }));
            rows.push(added(&heads.broadcast_sub(&bias)?)?);
            if bias.flatten_all()?.to_vec1::<f32>()?.iter().any(|x| *x != 0.0) {
                parts.push(Part::AttentionBias { layer });
                rows.push(added(&bias)?);
            }
            parts.push(Part::Mlp { layer });
            rows.push(mlp);
            if let Some(edits) = edits {
                parts.push(Part::Edit { layer: Some(layer) });
                rows.push(edits);
            }
            before = last(Site::BlockOutput)?;
        }
        let (mut normed, bias) = decoder.final_norm_of_parts(&before, &Tensor::cat(&rows, 0)?)?;
        if let Some(bias) = bias {
            parts.push(Part::NormBias);
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
            parts.push(Part::Edit { layer: None });
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
