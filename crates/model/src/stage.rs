//! A block as data: its stages, what each of them computes, and what it reads.
//!
//! [`Stages`] is the only description of a block. The decoder walks it, and everything that has to know how tensors depend
//! on one another is derived from it: how far an edit reaches, which rows a read needs, how much work that is, which sites a
//! family has. A family with another block is another list of stages.
//!
//! ```
//! use causalcone_model::Site;
//! use causalcone_model::stage::{Halves, Kernel, Norms, Stages};
//!
//! let block = Stages::decoder(Norms::Before, Halves::InTurn, true);
//! let output = block.find(Site::MlpOutput).unwrap();
//! assert!(matches!(block[output].kernel, Kernel::Linear(_)));
//! assert_eq!(block[block[output].reads[0].stage].site, Some(Site::MlpHidden));
//! ```

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

/// Where the norms of a block stand: at attention and at the MLP alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before each.
    Before,
    /// After each, before the residual add (OLMo 2).
    After,
    /// Before and after each (Gemma 2 and 3).
    Around,
}

/// How attention and the MLP of a block are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halves {
    /// The MLP reads the residual stream that attention has added to.
    InTurn,
    /// Both read the residual stream that enters the block (GPT-NeoX).
    SideBySide,
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
    list: Vec<Stage>,
    /// Sites of other families, and why this block has none of them.
    lacks: Vec<(Site, &'static str)>,
    /// By stage, the stages that multiply it by a matrix.
    products: Vec<Vec<usize>>,
    /// By stage, the last stage that reads it.
    last_use: Vec<usize>,
}

impl Stage {
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

/// The stage at its place in a block that reads what enters it.
pub const ENTERING: usize = 0;

/// A list of stages as it is written down.
#[derive(Debug, Default)]
pub struct Builder {
    list: Vec<Stage>,
    lacks: Vec<(Site, &'static str)>,
    part: usize,
}

impl Builder {
    /// A block in which nothing happens yet.
    pub fn new() -> Self {
        let mut builder = Self::default();
        builder.push(None, Kernel::Same, Vec::new(), 0);
        builder
    }

    /// Begins a part: the stages that follow are computed for the same rows.
    pub fn part(&mut self) {
        self.part += 1;
    }

    /// Says why the block has no such site.
    pub fn lacks(&mut self, site: Site, why: &'static str) {
        self.lacks.push((site, why));
    }

    /// Adds a stage each of whose rows reads the same row of other stages; `held` is [`Stage::held`].
    pub fn row(
        &mut self,
        site: impl std::convert::Into<Option<Site>>,
        kernel: Kernel,
        reads: &[usize],
        held: usize,
    ) -> usize {
        let reads = reads.iter().map(|stage| Read { stage: *stage, mixing: Mixing::Row }).collect();
        self.push(site.into(), kernel, reads, held)
    }

    /// Adds the stages of attention over queries, keys and values that are there, and gives the weighted values.
    pub fn attention(&mut self, query: usize, key: usize, value: usize) -> usize {
        let row = |stage| Read { stage, mixing: Mixing::Row };
        let keys = |stage| Read { stage, mixing: Mixing::Keys };
        let norms = Some(["query_norm", "key_norm"]);
        let scores =
            self.push(Some(Site::AttentionScore), Kernel::Scores(norms), vec![row(query), keys(key)], 0);
        let weights = self.push(Some(Site::AttentionWeight), Kernel::Softmax, vec![row(scores)], 0);
        self.push(Some(Site::AttentionValueOutput), Kernel::Mix, vec![row(weights), keys(value)], 1)
    }

    fn push(&mut self, site: Option<Site>, kernel: Kernel, reads: Vec<Read>, held: usize) -> usize {
        self.list.push(Stage { site, kernel, reads, part: self.part, held });
        self.list.len() - 1
    }

    /// The block, of which what was added last is what leaves it.
    pub fn finish(self) -> Stages {
        let Self { list, lacks, .. } = self;
        let mut products = vec![Vec::new(); list.len()];
        let mut last_use: Vec<usize> = (0..list.len()).collect();
        for (place, stage) in list.iter().enumerate() {
            let factor = match stage.kernel {
                Kernel::Linear(_) | Kernel::Activate(_) => stage.reads.first(),
                Kernel::Gate(_) => stage.reads.get(1),
                _ => None,
            };
            if let Some(read) = factor {
                products[read.stage].push(place);
            }
            for read in &stage.reads {
                last_use[read.stage] = place;
            }
        }
        Stages { list, lacks, products, last_use }
    }
}

impl Stages {
    /// The block of the decoder families that there are: attention and an MLP around a residual stream.
    pub fn decoder(norms: Norms, halves: Halves, is_gated: bool) -> Self {
        let (is_before, is_after) = (norms != Norms::After, norms != Norms::Before);
        let after = |name: &'static str| is_after.then_some(name);
        let mut block = Builder::new();
        // With the norm of the same rows, and what is added to them.
        let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 3);
        block.part();
        let attention_input = if is_before {
            block.row(Site::AttentionInput, Kernel::Norm("attention_norm"), &[input], 0)
        } else {
            block.lacks(
                Site::AttentionInput,
                "its blocks have no norm before attention, which reads block_input itself",
            );
            input
        };
        // Each with what scores see of it.
        block.part();
        let query = block.row(Site::QueryOutput, Kernel::Linear(Matrix::Query), &[attention_input], 2);
        block.part();
        let key = block.row(Site::KeyOutput, Kernel::Linear(Matrix::Key), &[attention_input], 2);
        let value = block.row(Site::ValueOutput, Kernel::Linear(Matrix::Value), &[attention_input], 2);
        block.part();
        let mixed = block.attention(query, key, value);
        let attention =
            block.row(Site::AttentionOutput, Kernel::Linear(Matrix::AttentionOutput), &[mixed], 1);
        let is_in_turn = halves == Halves::InTurn;
        if !is_in_turn {
            block.lacks(
                Site::BlockMiddle,
                "attention and MLP stand side by side in its blocks, so there is nothing between them",
            );
        }
        let middle = block.row(
            is_in_turn.then_some(Site::BlockMiddle),
            Kernel::Add(after("attention_after")),
            &[input, attention],
            1,
        );
        block.part();
        let residual = if is_in_turn { middle } else { input };
        let mlp_input = if is_before {
            block.row(Site::MlpInput, Kernel::Norm("mlp_norm"), &[residual], 1)
        } else {
            block.lacks(
                Site::MlpInput,
                "its blocks have no norm before the MLP, which reads block_middle itself",
            );
            residual
        };
        let activation = block.row(Site::MlpActivation, Kernel::Activate(Matrix::Into), &[mlp_input], 1);
        let hidden = if is_gated {
            block.row(Site::MlpHidden, Kernel::Gate(Matrix::Up), &[activation, mlp_input], 2)
        } else {
            block.row(Site::MlpHidden, Kernel::Same, &[activation], 1)
        };
        // With what the MLP reads and what leaves the block, which another part holds where the halves stand side by side.
        let held = 1 + usize::from(!is_before) + usize::from(!is_in_turn);
        let mlp = block.row(Site::MlpOutput, Kernel::Linear(Matrix::Down), &[hidden], held);
        if !is_in_turn {
            block.part();
        }
        let add = Kernel::Add(after("mlp_after"));
        block.row(Site::BlockOutput, add, &[middle, mlp], usize::from(is_in_turn));
        block.finish()
    }

    /// The end of a decoder: the last norm and the logits.
    pub fn ending() -> Self {
        let mut end = Builder::new();
        let normed = end.row(Site::FinalNorm, Kernel::Norm("final_norm"), &[ENTERING], 0);
        end.part();
        end.row(Site::Logits, Kernel::Same, &[normed], 0);
        end.finish()
    }

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
    pub fn attentions(&self) -> impl Iterator<Item = Attention> + '_ {
        self.iter().filter_map(|(mixed, stage)| {
            let &[weights, value] = stage.reads.as_slice() else { return None };
            let &[scores] = self[weights.stage].reads.as_slice() else { return None };
            let &[query, key] = self[scores.stage].reads.as_slice() else { return None };
            (stage.kernel == Kernel::Mix).then_some(Attention {
                query: query.stage,
                key: key.stage,
                value: value.stage,
                scores: scores.stage,
                weights: weights.stage,
                mixed,
            })
        })
    }

    /// The other one of a key and a value: a run has rows of both, or of none.
    pub fn paired(&self, stage: usize) -> Option<usize> {
        self.attentions().find_map(|attention| {
            let Attention { key, value, .. } = attention;
            (stage == key).then_some(value).or((stage == value).then_some(key))
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
