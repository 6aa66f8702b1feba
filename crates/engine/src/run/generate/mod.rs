//! Texts under edits: a run that grows by the token it would say next, one at a time.
//!
//! The prompt is one pass of the read run, by the cone executor; each decode step is a pass of one more position over
//! the keys and values of those before it. Which passes an edit is made in is its [`Steps`]. A decode step sees its one
//! position, and so does an edit there: at decode steps a value from another run comes from one position of it.
//!
//! ```
//! use causalcone_engine::generate::{Generation, Steps};
//! use causalcone_engine::{EditSpec, Experiment, Op};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run_ids("base", vec![3, 1, 4])?;
//! let op = Op::add(model.embedding_of(9)?).scaled(2.0);
//! exp.add(EditSpec::new(base, Site::BlockOutput.layers(0), op).steps(Steps::Decode))?;
//! let texts = exp.generate(&Generation { max_tokens: 5, ..Generation::default() })?;
//! let (original, steered) = (&texts.original[0], &texts.counterfactual[0]);
//! assert_eq!(original.ids[0], steered.ids[0], "the prompt's pass, which the edit is not in, predicts token 0");
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod compile;
mod continuation;
mod decode;
mod options;
mod sample;
mod score;
mod strengths;
mod text;

pub use crate::experiment::steps::Steps;
pub use continuation::{Continuation, End, Grown, Texts};
pub use options::Generation;
pub use score::TokenScore;

use crate::bounds;
use crate::error::Refused;
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::metric::Distribution;
use crate::{Error, Result};
use causalcone_model::Model;
use compile::{Growing, TextVersion};
use decode::{Live, Stepper, prefill};
use sample::Sampler;
use std::ops::{ControlFlow, Range};

/// Bytes of keys and values of the texts that grow at a time.
const MOST_BYTES: usize = 512 << 20;
/// Texts that grow at a time: each has a row of logits.
const MOST_TEXTS: usize = 128;

impl Generation {
    /// Checks that a run of a model can go on so.
    ///
    /// # Errors
    /// When a number is out of its range, or a stop text needs a tokenizer and there is none.
    pub fn check(&self, model: &Model) -> Result<()> {
        self.sampler(model).map(|_| ())
    }

    fn sampler(&self, model: &Model) -> Result<Sampler> {
        text::check(self, model)?;
        Sampler::new(self)
    }
}

impl Experiment<'_> {
    /// What the read run goes on with, without and with the edits, for every example; at every scale of the sweep, if
    /// there is one: texts have no other axis.
    ///
    /// # Errors
    /// When the experiment or the options contradict themselves, or a computation fails.
    pub fn generate(&self, options: &Generation) -> Result<Texts> {
        self.generate_with(options, &Runtime::default(), &mut |_| ControlFlow::Continue(()))
    }

    /// [`Experiment::generate`] that tells of every token, and stops where the listener says so: texts then have what
    /// they have, and those not yet begun are left out.
    ///
    /// # Errors
    /// As [`Experiment::generate`].
    pub fn generate_with(
        &self,
        options: &Generation,
        runtime: &Runtime<'_>,
        listener: &mut dyn FnMut(Grown<'_>) -> ControlFlow<()>,
    ) -> Result<Texts> {
        self.generate_examples(0..usize::MAX, options, runtime, listener)
    }

    /// [`Experiment::generate_with`] of some of the examples, counted over those that are left
    /// ([`Experiment::sift_growing`]): what comes of each does not depend on which.
    ///
    /// # Errors
    /// As [`Experiment::generate`].
    pub fn generate_examples(
        &self,
        examples: Range<usize>,
        options: &Generation,
        runtime: &Runtime<'_>,
        listener: &mut dyn FnMut(Grown<'_>) -> ControlFlow<()>,
    ) -> Result<Texts> {
        self.check_texts(&examples, options)?;
        let sampler = options.sampler(self.model)?;
        let growing = self.growing(examples)?;
        let mut texts = Texts::default();
        let mut open = Vec::new();
        for (number, one) in growing.iter().enumerate() {
            for version in one.versions() {
                open.extend((0..options.samples).map(|sample| (number, *version, sample)));
            }
        }
        let mut open = open.into_iter().peekable();
        while open.peek().is_some() {
            let mut lives = Vec::new();
            let mut bytes = 0;
            while let Some((number, version, sample)) = open.peek().copied() {
                let live = Live::new(&growing[number], version, sample, options);
                bytes += live.bytes();
                if !lives.is_empty() && (bytes > MOST_BYTES || lives.len() == MOST_TEXTS) {
                    break;
                }
                lives.push(live);
                open.next();
            }
            let flow = grow(&mut lives, (options, runtime), &sampler, listener)?;
            for live in lives {
                let (version, one) = (live.version, live.growing);
                texts.push(version, one, live.into_continuation());
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(texts)
    }

    /// Takes out the examples whose run cannot grow, and says why, as [`Experiment::sift`] does for what grows no run.
    ///
    /// # Errors
    /// As [`Experiment::sift`].
    pub fn sift_growing(&mut self) -> Result<Vec<Refused>> {
        self.sift_by(|one| Growing::all(one.clone()).map(|_| ()))
    }

    /// Checks, before any text is generated, that [`Experiment::generate_examples`] can make those of some examples. Of a
    /// data set, what is wrong with single examples is found by [`Experiment::sift_growing`].
    ///
    /// # Errors
    /// As [`Experiment::generate`], but for what only a computation finds.
    pub fn check_generation(&self, examples: Range<usize>, options: &Generation) -> Result<()> {
        self.check_texts(&examples, options)?;
        options.sampler(self.model)?;
        self.growing(0..1).map(|_| ())
    }

    /// Checks how many texts that are.
    fn check_texts(&self, examples: &Range<usize>, options: &Generation) -> Result<()> {
        let versions = 1 + self.sweep.as_ref().map_or(1, |sweep| sweep.scales.len().max(1));
        let count = examples.end.min(self.example_count().unwrap_or(1)).saturating_sub(examples.start);
        let texts = [count, versions, options.samples].iter().map(|n| *n as u128).product::<u128>();
        if texts > bounds::CELLS {
            let problem =
                format!("{texts} texts are more than the {} that are made at a time", bounds::CELLS);
            let hint = Some("use fewer samples, scales or examples".into());
            return Err(Error::hinted("generate", problem, hint));
        }
        Ok(())
    }

    /// The growing runs of some examples, checked.
    fn growing(&self, examples: Range<usize>) -> Result<Vec<Growing<'_>>> {
        self.check_size()?;
        let mut growing = Vec::new();
        for one in self.by_example_in(examples) {
            let one = one?;
            growing.extend(Growing::all(one.clone()).map_err(|e| one.blame(e))?);
        }
        Ok(growing)
    }
}

impl Texts {
    fn push(&mut self, version: TextVersion, of: &Growing<'_>, text: Continuation) {
        if version == TextVersion::Original {
            if of.versions().len() == 1 {
                self.counterfactual.push(text.clone());
            }
            self.original.push(text);
            return;
        }
        if of.has_original() {
            // Made at the first scale: the latest of this example.
            let mut made = self.original.iter().rev();
            let own = made.find(|own| (own.example, own.sample) == (text.example, text.sample)).cloned();
            self.original.extend(own.map(|own| Continuation { scale: text.scale, ..own }));
        }
        self.counterfactual.push(text);
    }
}

/// Whether logits have a softmax.
fn is_distribution(logits: &[f32]) -> bool {
    logits.iter().all(|x| !x.is_nan() && *x != f32::INFINITY) && logits.iter().any(|x| x.is_finite())
}

/// Lets all of them grow to their ends.
fn grow(
    lives: &mut [Live<'_, '_>],
    (options, runtime): (&Generation, &Runtime<'_>),
    sampler: &Sampler,
    listener: &mut dyn FnMut(Grown<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut stepper = Stepper::new(lives)?;
    let all: Vec<usize> = (0..lives.len()).collect();
    let mut logits = prefill(&mut stepper, runtime, lives, &all)?;
    let mut rows = all;
    loop {
        let mut flow = ControlFlow::Continue(());
        for (index, logits) in rows.iter().zip(&logits) {
            let live = &mut lives[*index];
            if !is_distribution(logits) {
                live.end = Some(End::NotFinite);
                continue;
            }
            let id = sampler.token(logits, live.stream(), live.ids.len() as u64);
            let logprob = Distribution::new(logits.clone()).logprob(id);
            live.push(id, logprob, options);
            let grown = Grown {
                example: live.growing.example(),
                edited: live.version == TextVersion::Edited,
                sample: live.sample,
                tokens: live.ids.len(),
                text: live.text.certain(),
            };
            if listener(grown).is_break() {
                flow = ControlFlow::Break(());
            }
        }
        if flow.is_break() {
            lives
                .iter_mut()
                .filter(|live| live.end.is_none())
                .for_each(|live| live.end = Some(End::Interrupted));
            return Ok(flow);
        }
        rows.retain(|index| lives[*index].end.is_none());
        if rows.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        // Where prompts turn by other angles once they are long, all that was computed before is of no use then.
        let (turned, plain): (Vec<usize>, Vec<usize>) = rows.iter().partition(|index| lives[**index].turns());
        logits = if plain.is_empty() { Vec::new() } else { stepper.step(lives, &plain)? };
        if !turned.is_empty() {
            logits.extend(prefill(&mut stepper, runtime, lives, &turned)?);
        }
        rows = plain.into_iter().chain(turned).collect();
    }
}
