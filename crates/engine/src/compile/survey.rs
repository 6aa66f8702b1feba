//! The cells of a sweep over all its examples, counted, and in which stretches they are run.

use super::asked::metrics;
use super::swept::Swept;
use crate::Result;
use crate::compile::axes::check_size;
use crate::experiment::Experiment;
use crate::plan::Plan;
use std::ops::Range;

/// How the cells of a sweep are numbered: example by example, then sample by sample.
#[derive(Debug)]
pub(crate) struct Survey {
    /// By example the number of its first cell; then the number of all cells.
    starts: Vec<usize>,
    /// By example, how many cells a sample has.
    of_sample: Vec<usize>,
    /// How many tokens and answers each example reads: all as many as the first.
    pub(crate) reads: (usize, usize),
    /// The most examples that are run together, where metrics compare each cell with the whole distribution of its
    /// original.
    most_originals: Option<usize>,
}

/// The most bytes of originals that are held for that, beyond the first.
const ORIGINALS_BYTES: usize = 16 << 20;

/// Cells that are planned and run together. What a plan and an executor hold for a cell is a few kilobytes.
const TOGETHER: usize = 4096;

impl Survey {
    /// Counts the cells of a sweep, and checks all that can be wrong with it. Nothing is kept of the examples.
    pub(crate) fn new(experiment: &Experiment<'_>) -> Result<Self> {
        experiment.check_size()?;
        let metrics = experiment.sweep.as_deref().map(metrics).unwrap_or_default();
        let of_originals = ORIGINALS_BYTES / (experiment.model().config().vocab * size_of::<f32>()).max(1);
        let most_originals =
            metrics.iter().any(|metric| metric.needs_original()).then_some(of_originals.max(1));
        let mut survey = Self { starts: vec![0], of_sample: Vec::new(), reads: (0, 0), most_originals };
        let mut cells = 0;
        for instance in experiment.by_example() {
            let instance = instance?;
            let mut swept = Swept::new(&instance).map_err(|e| instance.blame(e))?;
            cells += swept.cells();
            let end = check_size(cells)?;
            // What can only be found by compiling is the same in all cells.
            swept.baselines(&mut Plan::default(), &(0..1)).map_err(|e| instance.blame(e))?;
            survey.of_sample.push(swept.cells_of_sample() as usize);
            survey.starts.push(end);
            survey.reads = (instance.tokens.len(), instance.answers.len());
        }
        Ok(survey)
    }

    /// How many there are.
    pub(crate) fn cells(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The example that a cell is of.
    fn example(&self, cell: usize) -> usize {
        self.starts.partition_point(|start| *start <= cell).saturating_sub(1)
    }

    /// Whether metrics compare each cell with the whole distribution of its original.
    pub(crate) fn keeps_originals(&self) -> bool {
        self.most_originals.is_some()
    }

    /// How many originals are held at most, where metrics compare with them.
    pub(crate) fn originals(&self) -> usize {
        self.most_originals.map_or(0, |most| most.min(self.of_sample.len()))
    }

    /// The examples that some cells are of.
    pub(super) fn examples(&self, cells: &Range<usize>) -> Range<usize> {
        if cells.is_empty() { 0..0 } else { self.example(cells.start)..self.example(cells.end - 1) + 1 }
    }

    /// Those of some cells that are an example's, by their numbers in it.
    pub(super) fn within(&self, example: usize, cells: &Range<usize>) -> Range<usize> {
        let start = self.starts[example];
        cells.start.max(start) - start..cells.end.min(self.starts[example + 1]) - start
    }

    /// All cells, in stretches that are run one after the other: several small examples, or a part of a large one, of
    /// whole samples where these fit.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = self.end(start);
            let stretch = start..end;
            start = end;
            (!stretch.is_empty()).then_some(stretch)
        })
    }

    fn end(&self, start: usize) -> usize {
        if start >= self.cells() {
            return start;
        }
        let example = self.example(start);
        let own = self.starts[example + 1];
        if own - self.starts[example] <= TOGETHER {
            // As many examples as fit, of which none is large.
            let last = self.starts.partition_point(|end| *end <= start + TOGETHER) - 1;
            let most = self.most_originals.map_or(last, |most| last.min(example + most));
            return self.starts[most].max(own);
        }
        let of_sample = self.of_sample[example];
        let end = match TOGETHER / of_sample {
            // A part of one sample.
            0 => {
                let sample = (start - self.starts[example]) / of_sample;
                (start + TOGETHER).min(self.starts[example] + (sample + 1) * of_sample)
            }
            samples => start + samples * of_sample,
        };
        end.min(own)
    }

    /// What stretches have in common that differ by the samples alone: these have the same plan but for the noise.
    pub(crate) fn kind(&self, stretch: &Range<usize>) -> Option<(usize, usize)> {
        let example = self.example(stretch.start);
        let is_of_samples = stretch.end <= self.starts[example + 1]
            && (stretch.start - self.starts[example]).is_multiple_of(self.of_sample[example])
            && stretch.len().is_multiple_of(self.of_sample[example]);
        is_of_samples.then_some((example, stretch.len()))
    }
}
