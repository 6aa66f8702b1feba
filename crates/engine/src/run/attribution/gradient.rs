//! Gradients as reads: slopes of a number of the answer with respect to activations.

use super::probe::{MAX_ROWS, ProbeKey, Probes, key};
use crate::execute::{Executor, Tell, go_on, run_cells};
use crate::metric::{Distribution, Metric};
use crate::plan::{Cell, Gradient, Plan, Read};
use crate::reading::Reading;
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::Model;
use std::collections::HashSet;
use std::ops::ControlFlow;

impl Gradient {
    fn key(&self) -> ProbeKey {
        key(self.run, &self.place)
    }

    /// What it is the gradient of.
    fn number(&self) -> (Metric, &[u32], Option<u32>, &Read, &Read) {
        (self.metric, &self.tokens, self.label, &self.answer, &self.original)
    }
}

/// The numbers of a cell that have gradients, each by the first of these.
fn numbers(cell: &Cell) -> Vec<&Gradient> {
    let mut found: Vec<&Gradient> = Vec::new();
    for gradient in cell.gradients() {
        if found.iter().all(|other| other.number() != gradient.number()) {
            found.push(gradient);
        }
    }
    found
}

/// Runs cells some of whose reads are gradients: those are read of probes, in as many passes as it takes.
pub(crate) fn collect(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
    tell: Tell<'_>,
) -> Result<Vec<Vec<Reading>>> {
    let mut readings = Vec::with_capacity(cells.len());
    let mut start = 0;
    while start < cells.len() {
        let end = start + together(plan, &cells[start..]);
        readings.extend(of_group(executor, model, plan, &cells[start..end])?);
        start = end;
        go_on(tell(end))?;
    }
    Ok(readings)
}

/// How many of these cells, from the first on, are read in one pass: none may have a slope to a tensor of another.
fn together(plan: &Plan, cells: &[&Cell]) -> usize {
    let (mut rows, mut probed) = (0, HashSet::new());
    for (index, cell) in cells.iter().enumerate() {
        rows += plan.needed(cell).iter().map(|run| plan.runs[*run].ids.len()).sum::<usize>();
        let own: HashSet<usize> = cell.gradients().map(|gradient| gradient.run).collect();
        if index > 0 && (rows > MAX_ROWS || own.iter().any(|run| probed.contains(run))) {
            return index;
        }
        probed.extend(own);
    }
    cells.len()
}

fn of_group(
    executor: &dyn Executor,
    model: &Model,
    plan: &Plan,
    cells: &[&Cell],
) -> Result<Vec<Vec<Reading>>> {
    let mut probed = plan.clone();
    let keys = cells.iter().flat_map(|cell| cell.gradients()).map(Gradient::key);
    let probes = Probes::add(model, &mut probed, keys)?;
    // In place of a gradient the answer it is of; what that is compared with comes last.
    let asked = |cell: &Cell| {
        let mut reads: Vec<Read> = cell.reads.clone();
        for read in &mut reads {
            if let Read::Gradient(gradient) = read {
                *read = gradient.answer.clone();
            }
        }
        reads.extend(cell.gradients().map(|gradient| gradient.original.clone()));
        Cell { reads, ..cell.clone() }
    };
    let asked: Vec<Cell> = cells.iter().map(|cell| asked(cell)).collect();
    let cells_asked: Vec<&Cell> = asked.iter().collect();
    let mut readings = run_cells(executor, model, &probed, &cells_asked, &mut |_| ControlFlow::Continue(()))?;

    // One backward pass for the first number of every cell together, one for the second …
    let mut sums: Vec<Tensor> = Vec::new();
    for (cell, readings) in cells.iter().zip(&mut readings) {
        let originals = readings.split_off(cell.reads.len());
        for (place, number) in numbers(cell).into_iter().enumerate() {
            let is_its = |read: &&Read| matches!(read, Read::Gradient(other) if **other == *number);
            let answer = cell.reads.iter().position(|read| is_its(&read)).and_then(|i| readings.get(i));
            let original = cell.gradients().position(|other| other == number).and_then(|i| originals.get(i));
            let number = linear_number(number, answer, original)?;
            match sums.get_mut(place) {
                Some(sum) => *sum = (&*sum + number)?,
                None => sums.push(number),
            }
        }
    }
    let slopes: Vec<_> = sums.iter().map(|sum| probes.slopes(sum)).collect::<Result<_>>()?;
    for (cell, readings) in cells.iter().zip(&mut readings) {
        for (read, reading) in cell.reads.iter().zip(readings) {
            let Read::Gradient(gradient) = read else {
                // What is read beside gradients is numbers, and no part of a graph.
                *reading = match reading {
                    Reading::Logits(x) => Reading::Logits(x.detach()),
                    Reading::Activation(x) => Reading::Activation(x.detach()),
                };
                continue;
            };
            let own = numbers(cell).iter().position(|other| other.number() == gradient.number());
            let own = own.and_then(|place| slopes.get(place)?.get(&gradient.key()));
            let whole = match own {
                Some(slope) => slope.clone(),
                // Nothing that is read depends on it.
                None => probes.zero(gradient.key())?,
            };
            *reading = Reading::Activation(gradient.place.take(&whole, model.config())?);
        }
    }
    Ok(readings)
}

/// A number with the slopes of the metric here: its logits times how much each changes the metric.
fn linear_number(
    gradient: &Gradient,
    answer: Option<&Reading>,
    original: Option<&Reading>,
) -> Result<Tensor> {
    let wrong = || Error::internal("a gradient needs logits");
    let (Some(answer @ Reading::Logits(logits)), Some(original)) = (answer, original) else {
        return Err(wrong());
    };
    let (now, original) = (Distribution::read(answer)?, Distribution::read(original)?);
    let slopes = gradient.metric.slopes(&now, &original, &gradient.tokens, gradient.label);
    let row = slopes.first().ok_or_else(wrong)?;
    Ok((logits * Tensor::new(row.as_slice(), logits.device())?)?.sum_all()?)
}
