//! Writing the list of a block down, and the check of a list that is one's own.

use super::list::{Attention, Kernel, Mixing, Read, Stage, Stages};
use crate::site::Site;
use crate::{Error, Result};

/// A list of stages as it is written down.
#[derive(Debug)]
pub struct Builder {
    list: Vec<Stage>,
    lacks: Vec<(Site, &'static str)>,
    part: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A block in which nothing happens yet.
    pub fn new() -> Self {
        let mut builder = Self { list: Vec::new(), lacks: Vec::new(), part: 0 };
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
    ///
    /// # Errors
    /// [`Error::Part`], where a stage reads what does not come before it, or another number of tensors than its kernel
    /// takes; where two stages have the same site; where a part sees keys of its own; where an edit could reach the keys of
    /// an attention and not its values; or where the block does not begin with `block_input` and end with `block_output`.
    pub fn finish(self) -> Result<Stages> {
        let refused = |problem: String| Error::Part {
            problem: format!("a block of one's own: {problem}"),
            hint: "docs/add-a-model.md says what a block consists of".into(),
        };
        self.check().map_err(refused)?;
        let stages = self.build();
        check_attentions(&stages).map_err(refused)?;
        Ok(stages)
    }

    fn check(&self) -> Result<(), String> {
        for (place, stage) in self.list.iter().enumerate().skip(1) {
            let reads = match stage.kernel {
                Kernel::Gate(_) | Kernel::Scores(_) | Kernel::Mix | Kernel::Add(_) => 2,
                _ => 1,
            };
            if stage.reads.len() != reads || stage.reads.iter().any(|read| read.stage >= place) {
                return Err(format!("stage {place} must read {reads} of the stages before it"));
            }
            if stage.site.is_some() && self.list[..place].iter().any(|other| other.site == stage.site) {
                return Err(format!("stage {place} has the site of another one"));
            }
            let is_own = |read: &Read| self.list[read.stage].part == stage.part;
            if stage.reads.iter().any(|read| read.mixing == Mixing::Keys && is_own(read)) {
                return Err(format!("stage {place} sees keys of its own part"));
            }
        }
        let ends = [self.list.get(1), self.list.last()].map(|stage| stage.and_then(|stage| stage.site));
        match ends {
            [Some(Site::BlockInput), Some(Site::BlockOutput)] => Ok(()),
            _ => Err("it must begin with block_input and end with block_output".into()),
        }
    }

    pub(super) fn build(self) -> Stages {
        let Self { list, lacks, .. } = self;
        let mut products = vec![Vec::new(); list.len()];
        let mut last_use: Vec<usize> = (0..list.len()).collect();
        for (place, stage) in list.iter().enumerate() {
            if let Some(factor) = stage.factor() {
                products[factor].push(place);
            }
            for read in &stage.reads {
                last_use[read.stage] = place;
            }
        }
        let attentions = (0..list.len()).filter_map(|mixed| attention(&list, mixed)).collect();
        Stages { list, lacks, products, last_use, attentions }
    }
}

/// The stages of the attention whose weighted values a stage makes, if it makes any.
fn attention(list: &[Stage], mixed: usize) -> Option<Attention> {
    let of = |stage: usize| list[stage].reads.as_slice();
    let (Kernel::Mix, &[weights, value]) = (&list[mixed].kernel, of(mixed)) else { return None };
    let &[scores] = of(weights.stage) else { return None };
    let &[query, key] = of(scores.stage) else { return None };
    let (query, key, value) = (query.stage, key.stage, value.stage);
    Some(Attention { query, key, value, scores: scores.stage, weights: weights.stage, mixed })
}

/// Refuses attentions of which an edit could reach the keys and not the values, or the other way round.
fn check_attentions(stages: &Stages) -> Result<(), String> {
    for Attention { key, value, .. } in stages.attentions() {
        for start in (0..stages.len()).filter(|start| start != key && start != value) {
            if reaches(stages, start, *key) != reaches(stages, start, *value) {
                return Err(format!("an edit of stage {start} would reach the keys or the values alone"));
            }
        }
    }
    Ok(())
}

/// Whether a tensor is computed from another one.
fn reaches(stages: &Stages, start: usize, stage: usize) -> bool {
    start == stage || stages[stage].reads.iter().any(|read| reaches(stages, start, read.stage))
}
