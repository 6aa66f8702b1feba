//! The stages of a block, and what can be told from their list alone.

use crate::site::Site;
use std::ops::Index;

/// A stage of a block: a tensor, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The site whose tensor it makes; `None` where nobody can read or edit it.
    pub site: Option<Site>,
    /// What is computed.
    pub kernel: Kernel,
    /// The stages it reads, which come before it.
    pub reads: Vec<Read>,
    /// Which part of the block it belongs to. The stages of a part are computed for the same rows.
    pub part: usize,
    /// How many tensors of this width a row holds at most while its block is computed, for the estimate of memory.
    pub held: usize,
}

/// A stage that another stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Its place in the block.
    pub stage: usize,
    /// Which of its rows are read for one row.
    pub mixing: Mixing,
}

/// Which rows of a stage are read to compute one row of another stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixing {
    /// The row at the same position.
    Row,
    /// The rows that a query at this position sees: its own and earlier ones, as far as the window of the layer goes.
    Keys,
}

/// What a stage computes from what it reads. `N` stands for the weights of a norm and `M` for a matrix: their names in a
/// description, the tensors in a [`Block`](crate::decoder::Block).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kernel<N = &'static str, M = Matrix> {
    /// The tensor that it reads.
    Same,
    /// A norm.
    Norm(N),
    /// A product with a matrix, plus its bias.
    Linear(M),
    /// The activation function of a product.
    Activate(M),
    /// The first tensor times the product of the second.
    Gate(M),
    /// The scores of queries and keys, scaled and masked; queries and keys may have norms.
    Scores(Option<[N; 2]>),
    /// The softmax of scores.
    Softmax,
    /// The values weighted by the attention weights.
    Mix,
    /// The sum of the residual stream and what is added to it, which may have a norm.
    Add(Option<N>),
}

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// To queries.
    Query,
    /// To keys.
    Key,
    /// To values.
    Value,
    /// From the heads back to the residual stream.
    AttentionOutput,
    /// Into the activation function.
    Into,
    /// To the numbers that multiply the activation, where the MLP is gated.
    Up,
    /// From the MLP back to the residual stream.
    Down,
}

impl Matrix {
    /// All matrices.
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::AttentionOutput, Self::Into, Self::Up, Self::Down];
}

/// The stages of one attention: where its tensors stand in the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Queries, as the projection makes them.
    pub query: usize,
    /// Keys, as the projection makes them.
    pub key: usize,
    /// Values, as the projection makes them.
    pub value: usize,
    /// Scores.
    pub scores: usize,
    /// Weights.
    pub weights: usize,
    /// The weighted values.
    pub mixed: usize,
}

/// The stages of a block in the order in which they are computed.
///
/// The first stage is what enters the block, the last one what leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stages {
    pub(super) list: Vec<Stage>,
    /// Sites of other families, and why this block has none of them.
    pub(super) lacks: Vec<(Site, &'static str)>,
    /// By stage, the stages that multiply it by a matrix.
    pub(super) products: Vec<Vec<usize>>,
    /// By stage, the last stage that reads it.
    pub(super) last_use: Vec<usize>,
    pub(super) attentions: Vec<Attention>,
}

impl Stage {
    /// Whether its tensor is a matrix of attention, scores or weights, whose rows are as long as the run.
    pub fn is_matrix(&self) -> bool {
        matches!(self.kernel, Kernel::Scores(_) | Kernel::Softmax)
    }

    /// The stage that it multiplies by its matrix, where it has one: of a gate the second that it reads.
    pub fn factor(&self) -> Option<usize> {
        self.kernel.matrix()?;
        self.reads.last().map(|read| read.stage)
    }

    /// The stage whose rows it goes on from: of a sum what is added to the residual stream.
    pub fn goes_on_from(&self) -> usize {
        let read = match self.kernel {
            Kernel::Add(_) => self.reads.get(1),
            _ => self.reads.first(),
        };
        read.map_or(ENTERING, |read| read.stage)
    }
}

impl Index<usize> for Stages {
    type Output = Stage;

    fn index(&self, stage: usize) -> &Stage {
        &self.list[stage]
    }
}

/// The place of what enters a block.
pub const ENTERING: usize = 0;

impl Stages {
    /// How many stages there are.
    #[expect(clippy::len_without_is_empty, reason = "there always is what enters")]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The stages with their places, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &Stage)> + Clone {
        self.list.iter().enumerate()
    }

    /// The place of the stage that makes the tensor of a site.
    pub fn find(&self, site: Site) -> Option<usize> {
        let tensor = site.tensor();
        self.list.iter().position(|stage| stage.site == Some(tensor))
    }

    /// What leaves the block.
    pub fn leaving(&self) -> usize {
        self.list.len() - 1
    }

    /// Whether a stage is the last one of its part.
    pub fn ends_part(&self, stage: usize) -> bool {
        self.list.get(stage + 1).is_none_or(|next| next.part != self[stage].part)
    }

    /// Whether a part is one of those whose rows tell how full a block is: not one that only prepares or ends another.
    pub fn is_main(&self, part: usize) -> bool {
        let prepares =
            |stage: &Stage| matches!(stage.kernel, Kernel::Norm(_) | Kernel::Linear(_) | Kernel::Add(_));
        self.list.iter().any(|stage| stage.part == part && !prepares(stage))
    }

    /// How many parts there are.
    pub fn parts(&self) -> usize {
        self.list.last().map_or(0, |stage| stage.part + 1)
    }

    /// Why there is no such site in the block; `None` where there is one, or it is no site of a block.
    pub fn lacks(&self, site: Site) -> Option<&'static str> {
        let tensor = site.tensor();
        let said = self.lacks.iter().find(|(other, _)| *other == tensor).map(|(_, why)| *why);
        said.or_else(|| {
            (site.is_in_block() && self.find(site).is_none()).then_some("its blocks have no such tensor")
        })
    }

    /// The attentions of the block.
    pub fn attentions(&self) -> &[Attention] {
        &self.attentions
    }

    /// The other one of a key and a value: a run has rows of both, or of none.
    pub fn paired(&self, stage: usize) -> Option<usize> {
        self.attentions.iter().find_map(|attention| match *attention {
            Attention { key, value, .. } if stage == key => Some(value),
            Attention { key, value, .. } if stage == value => Some(key),
            _ => None,
        })
    }

    /// Whether a norm follows a tensor before it is added to the residual stream.
    pub fn is_normed_after(&self, site: Site) -> bool {
        let Some(stage) = self.find(site) else { return false };
        let adds = |other: &Stage| {
            matches!(other.kernel, Kernel::Add(Some(_)))
                && other.reads.get(1).is_some_and(|read| read.stage == stage)
        };
        self.list.iter().any(adds)
    }

    /// The stages that add to the residual stream.
    pub fn sums(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter().filter(|(_, stage)| matches!(stage.kernel, Kernel::Add(_))).map(|(place, _)| place)
    }

    /// What enters the module that ends with a stage: the norm before it, or the residual stream where there is none.
    pub fn module_input(&self, output: usize) -> usize {
        let mut input = self[output].goes_on_from();
        while !matches!(self[input].kernel, Kernel::Norm(_) | Kernel::Add(_))
            && self[input].goes_on_from() != ENTERING
        {
            input = self[input].goes_on_from();
        }
        input
    }

    /// The sites of the residual stream and of what is written into it, in order; before what a matrix writes of heads,
    /// these.
    pub fn stream(&self) -> Vec<Site> {
        let mut found = vec![false; self.len()];
        for sum in self.sums() {
            found[sum] = true;
            for read in &self[sum].reads {
                found[read.stage] = true;
                for mixed in self[read.stage].reads.iter().map(|read| read.stage) {
                    found[mixed] |= self[mixed].kernel == Kernel::Mix;
                }
            }
        }
        self.iter().filter(|(place, _)| found[*place]).filter_map(|(_, stage)| stage.site).collect()
    }

    /// The stages that multiply a tensor by a matrix: they are computed together.
    pub fn products(&self, stage: usize) -> &[usize] {
        &self.products[stage]
    }

    /// The last stage that reads a tensor.
    pub fn last_use(&self, stage: usize) -> usize {
        self.last_use[stage]
    }
}

impl<N, M> Kernel<N, M> {
    /// Its matrix, where it has one.
    pub fn matrix(&self) -> Option<&M> {
        match self {
            Self::Linear(matrix) | Self::Activate(matrix) | Self::Gate(matrix) => Some(matrix),
            _ => None,
        }
    }

    /// The same with other norms and matrices.
    ///
    /// # Errors
    /// What the functions return.
    pub fn map<P, Q, E>(
        &self,
        mut norm: impl FnMut(&N) -> std::result::Result<P, E>,
        matrix: impl FnOnce(&M) -> std::result::Result<Q, E>,
    ) -> std::result::Result<Kernel<P, Q>, E> {
        Ok(match self {
            Self::Same => Kernel::Same,
            Self::Norm(name) => Kernel::Norm(norm(name)?),
            Self::Linear(name) => Kernel::Linear(matrix(name)?),
            Self::Activate(name) => Kernel::Activate(matrix(name)?),
            Self::Gate(name) => Kernel::Gate(matrix(name)?),
            Self::Scores(None) => Kernel::Scores(None),
            Self::Scores(Some([query, key])) => Kernel::Scores(Some([norm(query)?, norm(key)?])),
            Self::Softmax => Kernel::Softmax,
            Self::Mix => Kernel::Mix,
            Self::Add(added) => Kernel::Add(added.as_ref().map(norm).transpose()?),
        })
    }
}
