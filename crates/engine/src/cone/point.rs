//! Points in the order of execution, and how far an edit at one of them reaches.

use crate::plan::Place;
use causalcone_model::{Config, Site};

/// A tensor of a run, by when it is computed: sites stand in the order of execution within a block.
/// What comes before the first block counts to it, what comes after the last one to one block more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// The block.
    pub block: usize,
    /// The site, never a view of heads.
    pub site: Site,
}

impl Point {
    /// Where a site of a model with so many layers is computed.
    pub fn new(site: Site, layer: Option<usize>, layers: usize) -> Self {
        let block = match site {
            Site::FinalNorm | Site::Logits => layers,
            _ => layer.unwrap_or(0),
        };
        Self { block, site: site.tensor() }
    }

    /// Where a place is computed.
    pub fn of(place: &Place, layers: usize) -> Self {
        Self::new(place.site, place.layer, layers)
    }
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

/// What of a model's anatomy decides how far an edit reaches.
#[derive(Debug, Default)]
pub struct Anatomy {
    /// Whether the MLP reads what enters the block, beside attention.
    pub(crate) parallel: bool,
    windows: Vec<Option<usize>>,
    /// By block: how many later rows the attention of all blocks before it lets a row reach, those without a window
    /// apart, and how many of these there are.
    before: Vec<(usize, usize)>,
    /// Prompts longer than this turn by other angles in every row.
    long: Option<usize>,
}

impl Anatomy {
    /// Of a model.
    pub fn new(config: &Config) -> Self {
        let windows: Vec<_> = (0..config.layers).map(|layer| config.window(layer)).collect();
        let mut before = vec![(0, 0)];
        let (mut rows, mut whole) = (0, 0);
        for window in &windows {
            match window {
                Some(window) => rows += window - 1,
                None => whole += 1,
            }
            before.push((rows, whole));
        }
        Self { parallel: config.parallel, windows, before, long: config.longest_original() }
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// How many keys a query of a block sees, its own and those before it; `None` is all.
    pub fn window(&self, block: usize) -> Option<usize> {
        self.windows.get(block).copied().flatten()
    }

    /// Whether prompts of these lengths have nothing in common, however they begin.
    pub(crate) fn is_long(&self, length: usize) -> bool {
        self.long.is_some_and(|most| length > most)
    }

    /// How many later rows the attention of some blocks lets a row reach; behind the last there is none.
    fn spread(&self, blocks: std::ops::Range<usize>) -> Reach {
        let end = blocks.end.min(self.layers());
        if blocks.start >= end {
            return Reach::Same;
        }
        let (from, to) = (self.before[blocks.start], self.before[end]);
        Reach::Later((from.1 == to.1).then_some(to.0 - from.0))
    }

    /// How an edit of one tensor reaches another.
    pub fn reach(&self, start: Point, tensor: Point) -> Reach {
        if tensor.block < start.block {
            return Reach::Nothing;
        }
        if tensor.block == start.block {
            return self.within(start.block, start.site, tensor.site);
        }
        // Past its block, what left it differing goes on row by row until attention spreads it.
        let has_spread = matches!(self.within(start.block, start.site, Site::BlockOutput), Reach::Later(_));
        let first = if has_spread { start.block } else { start.block + 1 };
        let is_behind = match tensor.site {
            Site::MlpInput | Site::MlpActivation | Site::MlpHidden | Site::MlpOutput => !self.parallel,
            site => (Site::AttentionScore..Site::FinalNorm).contains(&site),
        };
        self.spread(first..tensor.block + usize::from(is_behind))
    }

    /// How an edit of `start` reaches `tensor` within one block: only what is computed from it, and past
    /// the edited positions only what attends to their keys or values.
    fn within(&self, block: usize, start: Site, tensor: Site) -> Reach {
        use Site::{
            AttentionInput, AttentionScore, AttentionValueOutput, AttentionWeight, BlockInput, BlockOutput,
            Embedding, KeyOutput, MlpInput, QueryOutput, ValueOutput,
        };
        let later = self.spread(block..block + 1);
        let is_mlp = (MlpInput..BlockOutput).contains(&tensor);
        match (start, tensor) {
            // Keys and values are rows of one table: whichever is edited, the row is new.
            (KeyOutput | ValueOutput, KeyOutput | ValueOutput) => Reach::Same,
            _ if tensor < start => Reach::Nothing,
            // Side by side, the MLP reads what enters the block, and nothing of attention.
            (Embedding | BlockInput, _) if is_mlp && self.parallel => Reach::Same,
            (start, _) if is_mlp && self.parallel && start < MlpInput => Reach::Nothing,
            (Embedding | BlockInput | AttentionInput, _) if tensor >= AttentionScore => later,
            (KeyOutput, AttentionScore | AttentionWeight) => later,
            (ValueOutput, AttentionScore | AttentionWeight) => Reach::Nothing,
            (KeyOutput | ValueOutput, _) if tensor >= AttentionValueOutput => later,
            (QueryOutput, KeyOutput | ValueOutput) => Reach::Nothing,
            _ => Reach::Same,
        }
    }
}
