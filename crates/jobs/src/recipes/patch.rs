//! Activation patching: activations of one prompt put into the run of another.

use super::choice::{HeadChoice, LayerChoice, PositionChoice};
use crate::error::{Error, Result};
use causalcone_engine::schema::{
    EachFile, EditFile, LayerAxisFile, OpFile, ReadFile, RunFile, SweepFile, TokenFile, ValueFile,
};
use causalcone_engine::{Align, Each, ExperimentFile, LayerAxis, Metric};
use causalcone_model::{Indices, Positions, Site};

/// The run that is edited and read.
pub(crate) const BASE: &str = "base";
/// The run that activations are taken from.
pub(crate) const SOURCE: &str = "source";

/// Which activations carry the difference between two prompts: a sweep that copies one activation at a time from the
/// source prompt into the run of the base prompt, and records what the model then answers.
///
/// ```
/// use causalcone_engine::Runtime;
/// use causalcone_jobs::recipes::Patch;
/// use causalcone_jobs::{Silent, Source, sweep};
/// use causalcone_model::Model;
///
/// # fn main() -> Result<(), causalcone_jobs::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;
/// let patch = Patch::new("The capital of Spain is", "The capital of Italy is", ["T", "is"]);
/// let patched = sweep::in_memory(&Source::new(&model, patch.file()?), &Runtime::default(), &Silent)?;
/// assert_eq!(patched.result.cells.len() % model.config().layers, 0, "each layer at each position");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// The model; none leaves it to whoever runs the file.
    pub model: Option<String>,
    /// The prompt that is edited and read.
    pub prompt: String,
    /// The prompt that activations are taken from.
    pub source: String,
    /// The tokens whose numbers are recorded; `logit_diff` compares the first two.
    pub answers: Vec<String>,
    /// The site, by any of its names.
    pub site: String,
    /// The layers, where the site has layers.
    pub layers: LayerChoice,
    /// The positions of both prompts.
    pub positions: PositionChoice,
    /// The heads, for sites that have heads; `None` patches all heads together.
    pub heads: Option<HeadChoice>,
    /// How the positions of prompts of different lengths pair.
    pub align: Option<Align>,
    /// What is recorded.
    pub metrics: Vec<Metric>,
}

impl Patch {
    /// Patches the residual stream before each layer at each position, and records the difference of the logits of two
    /// answers.
    pub fn new<A: Into<String>>(
        prompt: impl Into<String>,
        source: impl Into<String>,
        answers: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            model: None,
            prompt: prompt.into(),
            source: source.into(),
            answers: answers.into_iter().map(Into::into).collect(),
            site: "resid_pre".into(),
            layers: LayerChoice { layers: Indices::All, axis: Some(LayerAxis::Each) },
            positions: PositionChoice { positions: Positions::Indices(Indices::All), axis: Some(Each) },
            heads: None,
            align: None,
            metrics: vec![Metric::LogitDiff],
        }
    }

    /// Patches each head's output at the last position: which heads move the answer.
    pub fn heads<A: Into<String>>(
        prompt: impl Into<String>,
        source: impl Into<String>,
        answers: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            site: "z".into(),
            positions: PositionChoice { positions: Positions::Last, axis: None },
            heads: Some(HeadChoice { heads: Indices::All, axis: Some(Each) }),
            ..Self::new(prompt, source, answers)
        }
    }

    /// The experiment.
    ///
    /// # Errors
    /// When there is no such site, its name has a layer and `layers` names others, or both prompts are the same text.
    pub fn file(&self) -> Result<ExperimentFile> {
        // A name such as blocks.3.hook_z names its layer itself.
        let (site, named_layer) = Site::parse(&self.site)?;
        let has_layers = site.is_in_block();
        if let (Some(layer), true) = (named_layer, self.layers.layers != Indices::All) {
            let message = format!("site {} names layer {layer}, and layers are given too", self.site);
            return Err(Error::refused(message, &format!("leave out the layers, or write {}", site.name())));
        }
        if self.prompt == self.source && !self.prompt.is_empty() {
            let message = "both prompts are the same text: patching changes nothing";
            return Err(Error::refused(
                message,
                "give a source prompt that differs in what the answer depends on",
            ));
        }
        let run = |prompt: &String| RunFile { prompt: Some(prompt.clone()), ..RunFile::default() };
        let value = ValueFile { run: Some(SOURCE.into()), align: self.align, ..ValueFile::default() };
        let edit = EditFile {
            name: Some("patch".into()),
            run: Some(BASE.into()),
            site: Some(self.site.clone()),
            layers: (has_layers && named_layer.is_none()).then(|| self.layers.layers.clone()),
            positions: Some(self.positions.positions.clone()),
            heads: self.heads.as_ref().map(|choice| choice.heads.clone()),
            op: OpFile::Name("swap".into()),
            value: Some(Box::new(value)),
            ..EditFile::default()
        };
        let sweep = SweepFile {
            layers: self.layers.axis.filter(|_| has_layers).map(LayerAxisFile),
            positions: self.positions.axis.map(|Each| EachFile::Each),
            heads: self.heads.as_ref().and_then(|choice| choice.axis).map(|Each| EachFile::Each),
            metrics: Some(self.metrics.iter().map(|metric| metric.name().into()).collect()),
            ..SweepFile::default()
        };
        let tokens = self.answers.iter().map(|answer| TokenFile::Text(answer.clone())).collect();
        Ok(ExperimentFile {
            model: self.model.clone(),
            runs: [(BASE.into(), run(&self.prompt)), (SOURCE.into(), run(&self.source))].into(),
            edit: vec![edit],
            read: Some(ReadFile { run: Some(BASE.into()), tokens, ..ReadFile::default() }),
            sweep: Some(sweep),
            ..ExperimentFile::default()
        })
    }
}
