//! From a configuration, tensors and what a format calls them to a decoder.

use crate::config::{Config, Norm};
use crate::decoder::{Block, Decoder, NormWeights, rope};
use crate::file::{Precision, Stored, Weights};
use crate::load::Outline;
use crate::stage::{Kernel, Matrix as MatrixOf};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_ops::Linear;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// What a format calls the tensors of a family. A block's follow its prefix and number; what a family does not have
/// is never looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    /// Before all names but the unembedding's, one of these; some files leave it off.
    pub(super) prefixes: &'static [&'static str],
    pub(super) token_embedding: &'static str,
    pub(super) position_embedding: &'static str,
    pub(super) final_norm: &'static str,
    /// The whole name of the unembedding, in one of these spellings.
    pub(super) unembeddings: &'static [&'static str],
    pub(super) block: &'static str,
    /// By the name that a stage has for it, each norm of a block.
    pub(super) norms: &'static [(&'static str, &'static str)],
    pub(super) projections: Projections,
    pub(super) attention_output: &'static str,
    pub(super) into: Into,
    pub(super) down: &'static str,
    /// Whether matrices are stored in × out.
    pub(super) transposed: bool,
    /// Whether the rows of queries and keys are ordered for turning neighbours together.
    pub(super) pairs: bool,
    /// What is added to the weight of a norm.
    pub(super) norm_offset: f64,
    /// How the names of masks end, which old checkpoints carry along.
    pub(super) masks: &'static [&'static str],
    /// How the names of tensors begin that belong to something else than the language model.
    pub(super) aside: &'static [&'static str],
}

impl Names {
    /// What the format calls a norm of a block: by default what the block calls it.
    fn norm(&self, stage: &'static str) -> &'static str {
        self.norms.iter().find(|(name, _)| *name == stage).map_or(stage, |(_, name)| *name)
    }
}

/// How the projections to queries, keys and values are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Projections {
    /// One by one.
    Apart { query: &'static str, key: &'static str, value: &'static str },
    /// All queries, then all keys, then all values.
    Stacked(&'static str),
    /// Head by head its query, key and value.
    ByHead(&'static str),
}

/// How the first projections of the MLP are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Into {
    /// The only one.
    Plain(&'static str),
    /// One by one.
    Gated { gate: &'static str, up: &'static str },
    /// All of the gate, then all of up.
    Stacked(&'static str),
}

/// A weight, out × in or as it is stored, and its bias.
struct Matrix {
    weight: Stored,
    bias: Option<Tensor>,
}

struct Parts<'a> {
    config: &'a Config,
    weights: &'a Weights,
    names: &'a Names,
    prefix: &'static str,
    reading: Reading<'a>,
}

/// What is done with tensors.
pub(super) enum Reading<'a> {
    /// They are read, and their matrices kept with that precision.
    Values(Precision),
    /// They are checked and counted; none is read. What is made of them has the right number of rows and no values.
    Headers(&'a Mutex<Outline>),
}

/// Builds the decoder, having taken or ignored every tensor. `at_once` bounds how many blocks are assembled at a time, and
/// so how many copies of tensors there are beside the weights.
pub(super) fn assemble(
    config: Config,
    weights: &Weights,
    names: &Names,
    reading: Reading<'_>,
    at_once: usize,
) -> Result<Decoder> {
    let parts = Parts { config: &config, weights, names, prefix: prefix(weights, names), reading };
    let (token_embedding, unembedding) = parts.embeddings()?;
    let position_embedding = match config.rotaries() {
        [] => Some(
            parts.take(&format!("{}.weight", names.position_embedding), &[config.context, config.width])?,
        ),
        _ => None,
    };
    let mut blocks = Vec::new();
    for first in (0..config.layers).step_by(at_once.max(1)) {
        let some = first..config.layers.min(first.saturating_add(at_once.max(1)));
        let some: Vec<Block> = some.into_par_iter().map(|layer| parts.block(layer)).collect::<Result<_>>()?;
        blocks.extend(some);
    }
    let final_norm = parts.norm(names.final_norm, config.width)?;
    weights.finish(|name| cannot_matter(name, names))?;
    let ropes = config.rotaries().iter().map(rope).collect();
    Ok(Decoder { token_embedding, position_embedding, ropes, blocks, final_norm, unembedding, config })
}

/// What a file puts before the names of tensors. Every file has the output projection of the first block's attention.
fn prefix(weights: &Weights, names: &Names) -> &'static str {
    let anchor = |prefix: &str| format!("{prefix}{}.0.{}.weight", names.block, names.attention_output);
    let first = names.prefixes.first().copied().unwrap_or_default();
    names
        .prefixes
        .iter()
        .copied()
        .chain([""])
        .find(|prefix| weights.contains(&anchor(prefix)))
        .unwrap_or(first)
}

/// Whether a tensor cannot touch the answers of the language model: tables that follow from the configuration, masks, the
/// heads of other tasks, other towers.
fn cannot_matter(name: &str, names: &Names) -> bool {
    const TABLES: [&str; 3] = [".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached"];
    const HEADS: [&str; 3] = ["v_head.", "score.weight", "classifier."];
    TABLES.iter().chain(names.masks).any(|end| name.ends_with(end))
        || HEADS.iter().chain(names.aside).any(|start| name.starts_with(start))
}

impl Parts<'_> {
    fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        match self.reading {
            Reading::Values(_) => self.weights.take(&name, shape),
            Reading::Headers(outline) => {
                self.weights.claim(&name, shape)?;
                outline.lock().unwrap_or_else(PoisonError::into_inner).tally.vector(shape);
                Ok(Tensor::zeros(1, DType::F32, &Device::Cpu)?.broadcast_as(shape)?)
            }
        }
    }

    /// A matrix that is stored in that shape and maps `input` numbers to `output`.
    fn stored(&self, name: &str, shape: [usize; 2], (input, output): (usize, usize)) -> Result<Stored> {
        match self.reading {
            Reading::Values(precision) => self.weights.take_matrix(name, &shape, precision),
            Reading::Headers(outline) => {
                let (_, entry) = self.weights.claim(name, &shape)?;
                let in_block = name != self.embedding() && name != self.unembedding();
                let mut outline = outline.lock().unwrap_or_else(PoisonError::into_inner);
                outline.tally.matrix(entry, (input, output), in_block);
                // As many rows as it has outputs, since these are split and ordered; one number in each.
                let rows = Tensor::zeros((output, 1), DType::F32, &Device::Cpu)?;
                let rows = if in_block && self.names.transposed { rows.t()? } else { rows };
                Ok(Stored { rows, blocks: None })
            }
        }
    }

    /// The name of the unembedding: the spelling that the file has.
    fn unembedding(&self) -> &'static str {
        let known = self.names.unembeddings;
        let found = known.iter().copied().find(|name| self.weights.contains(name));
        found.or(known.first().copied()).unwrap_or_default()
    }

    /// The name of the token embedding.
    fn embedding(&self) -> String {
        format!("{}{}.weight", self.prefix, self.names.token_embedding)
    }

    fn norm(&self, name: &str, width: usize) -> Result<NormWeights> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let eps = self.config.norm.eps();
        let (weight, bias) = match self.config.norm {
            Norm::Layer { .. } => (self.take(&weight, &[width])?, Some(self.take(&bias, &[width])?)),
            Norm::Rms { .. } => (self.take(&weight, &[width])?, None),
            Norm::Plain { .. } => {
                let one = Tensor::ones(width, DType::F32, &candle_core::Device::Cpu)?;
                let zero = one.zeros_like()?;
                (one, Some(zero))
            }
        };
        let weight = if self.names.norm_offset == 0.0 { weight } else { (weight + self.names.norm_offset)? };
        Ok(NormWeights { weight, bias, eps })
    }

    /// A weight, out × in whatever its layout, and its bias.
    fn matrix(&self, name: &str, input: usize, output: usize, biased: bool) -> Result<Matrix> {
        let shape = if self.names.transposed { [input, output] } else { [output, input] };
        let name_of_weight = format!("{}{name}.weight", self.prefix);
        let mut weight = self.stored(&name_of_weight, shape, (input, output))?;
        if self.names.transposed {
            if weight.blocks.is_some() {
                return Err(self.weights.bad(&name_of_weight, "is quantised, and stored in × out"));
            }
            weight.rows = weight.rows.t()?;
        }
        let bias = biased.then(|| self.take(&format!("{name}.bias"), &[output])).transpose()?;
        Ok(Matrix { weight, bias })
    }

    fn linear(&self, name: &str, input: usize, output: usize, biased: bool) -> Result<Linear> {
        self.matrix(name, input, output, biased)?.linear()
    }

    fn block(&self, layer: usize) -> Result<Block> {
        let Self { config, names, .. } = self;
        let name = |part: &str| format!("{}.{layer}.{part}", names.block);
        let mut matrices = self.matrices(&name)?;
        let mut kernel = |kernel: &Kernel| match kernel {
            Kernel::Scores(Some(norms)) => Ok(Kernel::Scores(match config.query_key_norms() {
                None => None,
                Some(widths) => {
                    let norm = |i: usize| self.norm(&name(names.norm(norms[i])), widths[i]);
                    Some([norm(0)?, norm(1)?])
                }
            })),
            other => other.map(
                |norm| self.norm(&name(names.norm(norm)), config.width),
                |matrix| matrices[*matrix as usize].take().ok_or_else(|| missing(*matrix)),
            ),
        };
        let kernels = config.block.iter().map(|(_, stage)| kernel(&stage.kernel)).collect::<Result<_>>()?;
        Ok(Block { kernels })
    }

    /// The matrices of a block, in the order of [`Matrix::ALL`](MatrixOf::ALL).
    fn matrices(&self, name: &impl Fn(&str) -> String) -> Result<[Option<Linear>; MatrixOf::ALL.len()]> {
        let Self { config, names, .. } = self;
        let linear = |part: &str, matrix: MatrixOf| {
            let (input, output, is_biased) = config.matrix(matrix);
            self.linear(&name(part), input, output, is_biased)
        };
        let [query, key, value] = self.projections(name)?;
        let (into, up) = match names.into {
            Into::Plain(into) => (linear(into, MatrixOf::Into)?, None),
            Into::Gated { gate, up } => (linear(gate, MatrixOf::Into)?, Some(linear(up, MatrixOf::Up)?)),
            Into::Stacked(both) => {
                let (d, m, is_biased) = config.matrix(MatrixOf::Into);
                let both = self.matrix(&name(both), d, 2 * m, is_biased)?;
                (both.rows(0, m)?.linear()?, Some(both.rows(m, m)?.linear()?))
            }
        };
        let output = linear(names.attention_output, MatrixOf::AttentionOutput)?;
        let down = linear(names.down, MatrixOf::Down)?;
        Ok([Some(query), Some(key), Some(value), Some(output), Some(into), up, Some(down)])
    }

    /// The projections to queries, keys and values.
    fn projections(&self, name: &impl Fn(&str) -> String) -> Result<[Linear; 3]> {
        let Self { config, names, .. } = self;
        let (d, biased) = (config.width, config.bias.query_key_value);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let [query, key, value] = match names.projections {
            Projections::Apart { query, key, value } => [
                self.matrix(&name(query), d, q, biased)?,
                self.matrix(&name(key), d, kv, biased)?,
                self.matrix(&name(value), d, kv, biased)?,
            ],
            Projections::Stacked(all) => {
                let all = self.matrix(&name(all), d, q + 2 * kv, biased)?;
                [all.rows(0, q)?, all.rows(q, kv)?, all.rows(q + kv, kv)?]
            }
            Projections::ByHead(all) => {
                let all = self.matrix(&name(all), d, 3 * q, biased)?;
                let third = |n: usize| {
                    all.map(|x| {
                        let by_head = x.reshape((config.heads, 3, config.head_dim, ()))?;
                        let (_, rest) = x.dims().split_at(1);
                        by_head.narrow(1, n, 1)?.contiguous()?.reshape([&[q], rest].concat())
                    })
                };
                [third(0)?, third(1)?, third(2)?]
            }
        };
        let turned = |matrix: Matrix, heads: usize| {
            if names.pairs { matrix.map(|x| halves(x, heads)) } else { Ok(matrix) }
        };
        Ok([turned(query, config.heads)?.linear()?, turned(key, config.kv_heads)?.linear()?, value.linear()?])
    }

    /// The token embedding, where it is not the unembedding, and the unembedding.
    fn embeddings(&self) -> Result<(Option<Linear>, Linear)> {
        let Self { config, weights, .. } = self;
        let shape = [config.vocab, config.width];
        let is_there = |name: &str| weights.contains(name);
        let (token, output) = (self.embedding(), self.unembedding());
        let matrix = |name: &str| {
            let weight = self.stored(name, shape, (config.width, config.vocab))?;
            Matrix { weight, bias: None }.linear()
        };
        // One tensor may serve as both, and either name may be the one that is stored.
        let read_from = if config.tied && !is_there(&token) && is_there(output) { output } else { &token };
        if let Reading::Headers(outline) = self.reading {
            outline.lock().unwrap_or_else(PoisonError::into_inner).embedding = read_from.to_owned();
        }
        if !config.tied {
            return Ok((Some(matrix(&token)?), matrix(output)?));
        }
        if !is_there(read_from) {
            let problem = format!("the tensor is missing, and so is {output}, which is tied to it");
            return Err(weights.bad(&token, &problem));
        }
        let embedding = matrix(read_from)?;
        if is_there(&token) && is_there(output) {
            // Some files hold the tied tensor twice. A second one that differs contradicts the file's own
            // configuration, and either choice could be wrong.
            weights.claim(output, &shape)?;
            if matches!(self.reading, Reading::Values(_))
                && !weights.are_equal([token.as_str(), output], &shape)?
            {
                return Err(weights
                    .bad(output, "differs from the embedding, but the configuration says the two are tied"));
            }
        }
        Ok((None, embedding))
    }
}

/// A block of one's own has a stage for which the family has no matrix.
fn missing(matrix: MatrixOf) -> Error {
    let problem = format!("the block has a matrix {matrix:?}, which the files of this family do not have");
    Error::Part {
        problem,
        hint: "a block takes the matrices of the family whose files it is read from".into(),
    }
}

impl Matrix {
    fn linear(self) -> Result<Linear> {
        let Self { weight: Stored { rows, blocks }, bias } = self;
        Ok(match blocks {
            Some(blocks) => Linear::packed(&rows, blocks, bias)?,
            None => Linear::new(rows.t()?, bias)?,
        })
    }

    /// Weight and bias, the rows of each moved about: what a row is stays as it is.
    fn map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let weight = Stored { rows: f(&self.weight.rows)?, blocks: self.weight.blocks };
        Ok(Self { weight, bias: self.bias.as_ref().map(f).transpose()? })
    }

    /// Some rows of a weight and of its bias.
    fn rows(&self, first: usize, count: usize) -> Result<Self> {
        self.map(|x| x.narrow(0, first, count)?.contiguous())
    }
}

/// Reorders rows from (…, pair, 2) within a head to (…, 2, pair).
fn halves(x: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let rows = x.dim(0)?;
    let grouped = x.reshape((heads, rows / heads / 2, 2, ()))?;
    grouped.transpose(1, 2)?.contiguous()?.reshape(x.shape())
}
