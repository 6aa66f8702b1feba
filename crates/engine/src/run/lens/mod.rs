//! The logit lens and direct logit attribution: what the residual stream says on its way, and who says it.
//!
//! The lens (nostalgebraist 2020) sends the residual stream after every layer, at every position, through
//! the last norm and the unembedding, as if the model ended there; behind the last layer it is the model's
//! own output. Direct logit attribution splits the last position's logits into what the embedding, every
//! head and every MLP put into the residual stream; see [`Contribution`].
//!
//! ```
//! use causalcone_engine::{Runtime, Experiment, Op};
//! use causalcone_model::{Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! exp.set_tokens(vec![model.token_id("T")?])?;
//! let lens = exp.lens(&Runtime::default(), 1)?;
//! for depth in &lens.original.depths {
//!     let last = &depth.positions[exp.ids(base).len() - 1];
//!     println!("{:?}: {}, T at {:.3}", depth.layer, model.token_text(last.top[0].token), last.tokens[0].prob);
//! }
//! assert!(lens.counterfactual.is_none(), "there are no edits");
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod contributions;
mod stream;

pub use contributions::{Contribution, Contributor};

use crate::compile::LensPlan;
use crate::execute::Runtime;
use crate::experiment::Experiment;
use crate::experiment::spaces::{MissingSpace, Spaced};
use crate::metric::Distribution;
use crate::reading::Reading;
use crate::run::collect::collect;
use crate::{Error, Result};
use causalcone_model::Site;
use std::sync::Arc;
use stream::Stream;

/// What the read run says on its way.
#[derive(Debug, Clone)]
pub struct Lens {
    /// With none of the edits.
    pub original: View,
    /// With all of them, where there are any.
    pub counterfactual: Option<View>,
    /// The tokens whose numbers are given: those that are read, or the likeliest one of the original answer.
    pub tokens: Vec<u32>,
    /// Those that were probably meant with a space before them.
    pub missing_spaces: Vec<MissingSpace>,
}

/// One version of the run.
#[derive(Debug, Clone)]
pub struct View {
    /// Its token ids.
    pub ids: Arc<[u32]>,
    /// The embeddings, then the residual stream after every layer, after its edits.
    pub depths: Vec<Depth>,
    /// What the logits of the last position are made of, part by part in the order of execution.
    pub contributions: Vec<Contribution>,
    /// The model's own logits of the tokens at the last position.
    pub logits: Vec<f64>,
}

/// The residual stream at one depth.
#[derive(Debug, Clone)]
pub struct Depth {
    /// After which layer; `None` is before the first.
    pub layer: Option<usize>,
    /// What it says at each position.
    pub positions: Vec<Sight>,
}

/// What one vector of the residual stream says.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The likeliest tokens, best first.
    pub top: Vec<Seen>,
    /// The tokens asked for, in their order.
    pub tokens: Vec<Seen>,
}

/// A token as it is seen from there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The token.
    pub token: u32,
    /// Its place among all, 1 for the likeliest; of equal ones the smaller id comes first.
    pub rank: usize,
    /// Its probability.
    pub prob: f64,
    /// Its logit.
    pub logit: f64,
}

impl Experiment<'_> {
    /// The lens of the run that is read, with its `top` likeliest tokens at each depth and position.
    ///
    /// # Errors
    /// When the experiment contradicts itself, has a data set (take [`Experiment::by_example`]), or a
    /// computation fails.
    pub fn lens(&self, runtime: &Runtime<'_>, top: usize) -> Result<Lens> {
        if self.examples.is_some() {
            let hint = Some("take the lens of each experiment of by_example".into());
            return Err(Error::hinted(
                "examples",
                "an experiment with a data set has a lens an example",
                hint,
            ));
        }
        let LensPlan { plan, versions, sites } = self.plan_lens()?;
        let cells: Vec<_> = plan.cells.iter().collect();
        let mut tokens = self.tokens.clone();
        let (mut views, mut missing_spaces) = (Vec::new(), Vec::new());
        for (readings, run) in collect(runtime, self.model, &plan, &cells)?.into_iter().zip(versions) {
            let mut readings = readings.into_iter();
            let answer = readings.next().ok_or_else(|| Error::internal("a run gave no logits"))?;
            let answer = Distribution::read(&answer)?;
            if views.is_empty() {
                let spaced = self.spaced(None);
                let answers = std::iter::empty();
                missing_spaces = Spaced::among(&spaced, self.model, self.example(), &answer, &answers);
            }
            if tokens.is_empty() {
                tokens = answer.top_ids(1);
            }
            let tensor = |reading| match reading {
                Reading::Activation(x) | Reading::Logits(x) => x,
            };
            let stream = Stream(sites.iter().copied().zip(readings.map(tensor)).collect());
            let edited = |site: Site, layer: Option<usize>| {
                let mut edits = plan.runs[run].edits.iter().map(|edit| &edit.place);
                edits.any(|place| place.tensor() == (site, layer))
            };
            views.push(View {
                ids: plan.runs[run].ids.clone(),
                depths: self.depths(&stream, &tokens, top)?,
                contributions: self.contributions(&stream, &tokens, edited)?,
                logits: tokens.iter().map(|token| answer.logit(*token)).collect(),
            });
        }
        let mut views = views.into_iter();
        let original = views.next().ok_or_else(|| Error::internal("there is nothing to see"))?;
        Ok(Lens { original, counterfactual: views.next(), tokens, missing_spaces })
    }

    fn depths(&self, stream: &Stream, tokens: &[u32], top: usize) -> Result<Vec<Depth>> {
        let decoder = self.model.decoder()?;
        let layers = (0..self.model.config().layers).map(|layer| (Site::BlockOutput, Some(layer)));
        let mut depths = Vec::new();
        for (site, layer) in [(Site::Embedding, None)].into_iter().chain(layers) {
            let rows = decoder.unembed(&decoder.final_norm(stream.at(site, layer)?)?)?.to_vec2::<f32>()?;
            depths.push(Depth {
                layer,
                positions: rows.into_iter().map(|row| sight(row, tokens, top)).collect(),
            });
        }
        Ok(depths)
    }
}

fn sight(logits: Vec<f32>, tokens: &[u32], top: usize) -> Sight {
    let said = Distribution::new(logits);
    let seen =
        |token: u32, rank: usize| Seen { token, rank, prob: said.prob(token), logit: said.logit(token) };
    let best = said.top_ids(top);
    Sight {
        top: best.iter().zip(1..).map(|(token, rank)| seen(*token, rank)).collect(),
        tokens: tokens.iter().map(|token| seen(*token, said.rank(*token))).collect(),
    }
}
