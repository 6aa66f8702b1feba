//! What each version of a run makes of a text: its own, or the other's.

use super::compile::{Growing, TextVersion};
use super::continuation::Continuation;
use crate::compile::run_versions::next_tokens;
use crate::execute::{Executor, Runtime};
use crate::experiment::Experiment;
use crate::metric::Distribution;
use crate::plan::{Cell, Plan};
use crate::{Error, Result};
use serde::Serialize;
use std::ops::ControlFlow;

/// A token of a text under both versions of the run that says it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenScore {
    /// The token.
    pub id: u32,
    /// Its probability without any edit.
    pub original: f64,
    /// Its probability with all edits.
    pub counterfactual: f64,
    /// D(edited ‖ original) of the next token here, in nats.
    pub kl: f64,
}

impl Experiment<'_> {
    /// Both versions' probabilities of the tokens of a text, whichever version said it: as if each had to say it. Every
    /// position is computed anew, without the keys and values the text was generated with. Each
    /// probability is the one that a run of the text before the token gives.
    ///
    /// # Errors
    /// As [`Experiment::generate`]; when the text is of no example or scale of this experiment.
    pub fn score(&self, text: &Continuation, runtime: &Runtime<'_>) -> Result<Vec<TokenScore>> {
        let mut all = self.by_example();
        let one = all.find(|one| one.as_ref().is_ok_and(|one| one.example() == text.example));
        let missing = || Error::part("generate", "the text is of no example and scale of this experiment");
        let mut growing = Growing::all(one.ok_or_else(missing)??)?.into_iter();
        let one = growing.find(|one| one.scale() == text.scale).ok_or_else(missing)?;
        let (mut plan, prompt) = (Plan::default(), one.prompt().len());
        for version in [TextVersion::Original, TextVersion::Edited] {
            let lengths = prompt..prompt + text.ids.len();
            let reads = next_tokens(self.model.config(), lengths, |length| {
                Ok(one.place(&mut plan, version, &text.ids[..length - prompt])?.run)
            })?;
            plan.cells.push(Cell { reads, ..Cell::default() });
        }
        plan.shared = plan.runs.len();
        let cells: Vec<&Cell> = plan.cells.iter().collect();
        let mut both: Vec<Vec<Distribution>> = vec![Vec::new(); 2];
        runtime.execute(self.model, &plan, &cells, &mut |cell, readings| {
            both[cell] = readings.iter().map(Distribution::read).collect::<Result<_>>()?;
            Ok(ControlFlow::Continue(()))
        })?;
        let rows = text.ids.iter().zip(both[0].iter().zip(&both[1]));
        let row = |(id, (original, counterfactual)): (&u32, (&Distribution, &Distribution))| TokenScore {
            id: *id,
            original: original.prob(*id),
            counterfactual: counterfactual.prob(*id),
            kl: counterfactual.kl(original),
        };
        Ok(rows.map(row).collect())
    }
}
