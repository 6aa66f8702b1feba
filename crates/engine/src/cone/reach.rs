//! Tensors of a run, and how far an edit at one of them reaches: derived from the stages of a block.

use super::rows::Rows;
use crate::plan::Place;
use causalcone_model::stage::{ENTERING, Mixing, Stages};
use causalcone_model::{Config, Site};
use std::sync::Arc;

/// A tensor of a run: a stage of a block. Points are ordered as they are computed.
///
/// The embedding enters the first block; the last norm and the logits are the stages of one block more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// The block.
    pub block: usize,
    /// The stage of the block.
    pub stage: usize,
}

impl Point {
    /// What enters the first block.
    pub const EMBEDDING: Self = Self { block: 0, stage: ENTERING };
}

/// Which positions of a tensor an edit of another one (or the same) changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Nothing,
    /// The edited ones.
    Same,
    /// The edited ones and so many after each; all, where nothing bounds them.
    Later(Option<usize>),
}

/// How far rows spread: how many later rows they reach through windows, and through how many attentions without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spread {
    rows: usize,
    whole: usize,
}

impl Spread {
    /// Of so many attentions with that window.
    fn of(attentions: usize, window: Option<usize>) -> Self {
        match window {
            Some(window) => Self { rows: attentions * (window - 1), whole: 0 },
            None => Self { rows: 0, whole: attentions },
        }
    }

    fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, whole: self.whole + other.whole }
    }

    fn minus(self, other: Self) -> Self {
        Self { rows: self.rows - other.rows, whole: self.whole - other.whole }
    }

    fn reach(self) -> Reach {
        match self {
            Self { rows: 0, whole: 0 } => Reach::Same,
            Self { rows, whole: 0 } => Reach::Later(Some(rows)),
            _ => Reach::Later(None),
        }
    }
}

/// Of two stages of a block, through how many attentions one reaches the other at most; `None` if it does not.
#[derive(Debug)]
struct Within {
    stages: usize,
    attentions: Vec<Option<usize>>,
}

impl Within {
    fn new(stages: &Stages) -> Self {
        let count = stages.len();
        let mut attentions = vec![None; count * count];
        for start in 0..count {
            attentions[start * count + start] = Some(0);
            for (place, stage) in stages.iter().skip(start + 1) {
                let through = |read: &causalcone_model::stage::Read| {
                    let before: Option<usize> = attentions[start * count + read.stage];
                    before.map(|before| before + usize::from(read.mixing == Mixing::Keys))
                };
                attentions[start * count + place] = stage.reads.iter().filter_map(through).max();
            }
        }
        // Keys and values are rows of one table: whichever is edited, the row is new.
        for (place, _) in stages.iter() {
            if let Some(other) = stages.paired(place) {
                attentions[place * count + other] = Some(0);
            }
        }
        Self { stages: count, attentions }
    }

    fn between(&self, start: usize, stage: usize) -> Option<usize> {
        self.attentions[start * self.stages + stage]
    }
}

/// A tensor that the rows of a part of a block read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependence {
    /// The stages that read it.
    by: Vec<usize>,
    /// The part that it belongs to.
    pub(crate) part: usize,
    /// The stage that is read. Scores and weights are never kept, so that what they are computed from is read instead.
    pub(crate) of: usize,
    /// The part that this belongs to.
    pub(crate) from: usize,
    /// Which rows of it are read for one row.
    pub(crate) mixing: Mixing,
    /// Whether rows of one node can read rows of another in a block behind the one that the node starts in.
    crosses: bool,
}

/// The stages of all blocks, and what follows from them.
#[derive(Debug)]
pub struct Anatomy {
    block: Arc<Stages>,
    end: Arc<Stages>,
    within: Within,
    within_end: Within,
    dependences: Vec<Dependence>,
    /// By stage, whether it joins tensors of which one may be a node's own and the other another node's.
    joins: Vec<bool>,
    windows: Vec<Option<usize>>,
    /// By block: how far the blocks before it let a row reach.
    before: Vec<Spread>,
    /// Prompts longer than this turn by other angles in every row.
    long: Option<usize>,
}

impl Anatomy {
    /// Of a model.
    pub fn new(config: &Config) -> Self {
        let windows: Vec<_> = (0..config.layers).map(|layer| config.window(layer)).collect();
        let (block, end) = (config.block.clone(), Arc::new(Stages::ending()));
        let (within, within_end) = (Within::new(&block), Within::new(&end));
        let through = within.between(ENTERING, block.leaving()).unwrap_or(0);
        let mut before = vec![Spread::default()];
        for window in &windows {
            let so_far = before.last().copied().unwrap_or_default();
            before.push(so_far.and(Spread::of(through, *window)));
        }
        let dependences = dependences(&block, &within);
        let joins = (0..block.len()).map(|stage| joins(&block, stage, &within)).collect();
        Self {
            block,
            end,
            within,
            within_end,
            dependences,
            joins,
            windows,
            before,
            long: config.longest_original(),
        }
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// The stages of a block; those of the end for one block more.
    pub fn stages(&self, block: usize) -> &Stages {
        if block < self.layers() { &self.block } else { &self.end }
    }

    /// The point of a site of the model; what the model lacks has none.
    pub fn find(&self, site: Site, layer: Option<usize>) -> Option<Point> {
        if site.tensor() == Site::Embedding {
            return Some(Point::EMBEDDING);
        }
        let block = if site.is_in_block() { layer.unwrap_or(0) } else { self.layers() };
        Some(Point { block, stage: self.stages(block).find(site)? })
    }

    /// The point of a place. A plan has checked that the model has such a site.
    pub(crate) fn point(&self, place: &Place) -> Point {
        self.find(place.site, place.layer).unwrap_or(Point { block: self.layers(), stage: ENTERING })
    }

    /// The site of a point, if it has one.
    pub fn site(&self, at: Point) -> Option<Site> {
        if at == Point::EMBEDDING { Some(Site::Embedding) } else { self.stages(at.block)[at.stage].site }
    }

    /// The name of a tensor, for messages.
    pub(crate) fn name(&self, at: Point) -> String {
        let site = self.site(at).map_or("a sum", Site::name);
        format!("{site} in block {}", at.block)
    }

    /// Behind the last block: what the last norm makes.
    pub(crate) fn normed(&self) -> Point {
        Point { block: self.layers(), stage: ENTERING + 1 }
    }

    /// The logits.
    pub(crate) fn logits(&self) -> Point {
        Point { block: self.layers(), stage: self.end.leaving() }
    }

    /// Whether a tensor is scores or weights of an attention.
    pub(crate) fn is_matrix(&self, at: Point) -> bool {
        self.stages(at.block)[at.stage].is_matrix()
    }

    /// The part of a block that a stage belongs to.
    pub(crate) fn part(&self, at: Point) -> usize {
        self.stages(at.block)[at.stage].part
    }

    /// What the parts of a block read of each other.
    pub(crate) fn dependences(&self) -> &[Dependence] {
        &self.dependences
    }

    /// Whether a stage of the blocks joins tensors of which one may be a node's own and the other another node's.
    pub(crate) fn joins(&self, stage: usize) -> bool {
        self.joins[stage]
    }

    /// How many keys a query of a block sees, its own and those before it; `None` is all.
    pub fn window(&self, block: usize) -> Option<usize> {
        self.windows.get(block).copied().flatten()
    }

    /// The rows that are read for some rows of a block.
    pub(crate) fn read(&self, mixing: Mixing, block: usize, rows: &Rows) -> Rows {
        match mixing {
            Mixing::Row => rows.clone(),
            Mixing::Keys => rows.seen(self.window(block)),
        }
    }

    /// Whether prompts of these lengths have nothing in common, however they begin.
    pub(crate) fn is_long(&self, length: usize) -> bool {
        self.long.is_some_and(|most| length > most)
    }

    fn within(&self, block: usize) -> &Within {
        if block < self.layers() { &self.within } else { &self.within_end }
    }

    /// Whether a tensor of the block in which a run begins to differ is computed from the one it begins with.
    pub(crate) fn follows(&self, start: Point, stage: usize) -> bool {
        stage != start.stage
            && self.within(start.block).between(start.stage, stage).is_some()
            && self.stages(start.block).paired(start.stage) != Some(stage)
    }

    /// How an edit of one tensor reaches another.
    pub fn reach(&self, start: Point, tensor: Point) -> Reach {
        if tensor.block < start.block {
            return Reach::Nothing;
        }
        let spread = |attentions: usize, block: usize| Spread::of(attentions, self.window(block));
        if tensor.block == start.block {
            let attentions = self.within(start.block).between(start.stage, tensor.stage);
            return attentions.map_or(Reach::Nothing, |attentions| spread(attentions, start.block).reach());
        }
        let leaving = self.within.between(start.stage, self.block.leaving());
        let entering = self.within(tensor.block).between(ENTERING, tensor.stage);
        match (leaving, entering) {
            (Some(leaving), Some(entering)) => {
                let between = self.before[tensor.block].minus(self.before[start.block + 1]);
                let ends = spread(leaving, start.block).and(spread(entering, tensor.block));
                between.and(ends).reach()
            }
            _ => Reach::Nothing,
        }
    }
}

/// Whether some edit reaches a stage, or more of its rows, by another way than through the stage it goes on from.
fn joins(stages: &Stages, stage: usize, within: &Within) -> bool {
    let from = stages[stage].goes_on_from();
    let elsewhere = |start: &usize| {
        let reaches = within.between(*start, stage);
        reaches.is_some() && reaches != within.between(*start, from)
    };
    (0..stage).filter(|start| stages.paired(*start) != Some(stage)).any(|start| elsewhere(&start))
}

/// What the stages of a block read of each other, scores and weights left out: one for each part that reads, stage that
/// is read, and way of reading.
fn dependences(stages: &Stages, within: &Within) -> Vec<Dependence> {
    let mut dependences: Vec<Dependence> = Vec::new();
    for (by, stage) in stages.iter() {
        if stage.is_matrix() {
            continue;
        }
        let mut open = stage.reads.clone();
        while let Some(read) = open.pop() {
            let source = &stages[read.stage];
            if source.is_matrix() {
                open.extend(&source.reads);
                continue;
            }
            // The rows of a part spread as far as those of any of its stages; what spreads as far is the same node's.
            let spread = |stage: usize| within.between(ENTERING, stage);
            let of_part = stages.iter().filter(|(_, other)| other.part == stage.part);
            let widest = of_part.filter_map(|(place, _)| spread(place)).max();
            let crosses = read.mixing == Mixing::Keys || widest != spread(read.stage);
            let (part, of, from, mixing) = (stage.part, read.stage, source.part, read.mixing);
            let same = dependences.iter_mut().find(|r| (r.part, r.of, r.mixing) == (part, of, mixing));
            match same {
                Some(found) => found.by.push(by),
                None => dependences.push(Dependence { by: vec![by], part, of, from, mixing, crosses }),
            }
        }
    }
    dependences
}

impl Dependence {
    /// Whether rows of a node that starts there may read rows of another one in a block.
    pub(crate) fn crosses(&self, anatomy: &Anatomy, start: Point, block: usize) -> bool {
        if block == start.block { self.by.iter().any(|by| anatomy.follows(start, *by)) } else { self.crosses }
    }
}
