//! What somebody asks for: an op, its value, and where that comes from.

use super::joint::Joint;
use super::kind::OpKind;
use super::parameters::{Parameters, Settings};
use crate::ids::RunId;
use crate::metric::Metric;
use candle_core::Tensor;
use causalcone_model::{Indices, Positions, Site};
use causalcone_ops::Activation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A closure as an intervention: sees the edited rows only (positions × width; positions × heads ×
/// width on head sites; heads × query rows × key columns on attention matrices) and gives their
/// replacement, of the same shape.
pub type Custom = Arc<dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync>;

/// An intervention with its value, scale and parameters.
#[derive(Clone)]
pub struct Op {
    /// What is done.
    pub kind: OpKind,
    /// The value v, where the kind takes one.
    pub value: Option<Value>,
    /// The scale c; 1 unless set. Of noise it is the level.
    pub scale: f64,
    /// The seed of [`OpKind::Noise`]; 0 unless set.
    pub seed: u64,
    /// The closure of [`OpKind::Custom`].
    pub custom: Option<Custom>,
    /// The op's own tensors. Clones share them: that is how edits are linked.
    pub parameters: Arc<Parameters>,
    /// What else is set.
    pub settings: Settings,
    /// What is taken together as one vector.
    pub joint: Option<Joint>,
    /// Of [`OpKind::Collect`]: not the activations are read, but the gradient of this metric of the run that is
    /// read, with respect to them.
    pub gradient: Option<Metric>,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (scale {}, value {:?})", self.kind.info().name, self.scale, self.value)
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Value {
    /// One number everywhere.
    Number(f64),
    /// A vector (width) for every row, or a matrix with one row a position.
    Tensor(Tensor),
    /// A vector or matrix for each layer.
    Layers(BTreeMap<usize, Tensor>),
    /// The activations of another run.
    Run(Source),
}

/// How positions `"all"` of an edit pair with those of the run that its value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Index to index from the first position on. The source run may be longer; what it has more is not used.
    Left,
    /// Index to index from the last position back. The source run may be longer; what it has more is not used.
    Right,
    /// Equal tokens pair, as [`matching`](crate::compile::align::matching) finds them. Positions without a partner are not edited.
    Tokens,
}

impl Align {
    /// Its name in experiment files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Tokens => "tokens",
        }
    }
}

/// Activations of another run: at the edit's own site, layers, positions and heads unless said
/// otherwise.
#[derive(Debug, Clone)]
pub struct Source {
    /// The run.
    pub run: RunId,
    /// Another site of the same width.
    pub site: Option<Site>,
    /// Other layers: one, or as many as the edit has, paired in order.
    pub layers: Option<Indices>,
    /// Other positions: one, or as many as the edit has, paired in order.
    pub positions: Option<Positions>,
    /// Other heads: one, or as many as the edit has, paired in order.
    pub heads: Option<Indices>,
    /// How positions pair where both are all of them, which without it need runs of the same length.
    pub align: Option<Align>,
}

impl From<RunId> for Source {
    fn from(run: RunId) -> Self {
        Self { run, site: None, layers: None, positions: None, heads: None, align: None }
    }
}

impl From<RunId> for Value {
    fn from(run: RunId) -> Self {
        Self::Run(run.into())
    }
}

impl From<Source> for Value {
    fn from(source: Source) -> Self {
        Self::Run(source)
    }
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<BTreeMap<usize, Tensor>> for Value {
    fn from(by_layer: BTreeMap<usize, Tensor>) -> Self {
        Self::Layers(by_layer)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl Op {
    /// An op of a kind, without value, parameters or settings.
    pub fn new(kind: OpKind) -> Self {
        Self {
            kind,
            value: None,
            scale: 1.0,
            seed: 0,
            custom: None,
            parameters: Arc::default(),
            settings: Settings::default(),
            joint: None,
            gradient: None,
        }
    }

    /// b ← v.
    pub fn swap(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Swap).value(value)
    }

    /// b ← b + v; see [`Op::scaled`].
    pub fn add(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Add).value(value)
    }

    /// b ← b − v; see [`Op::scaled`].
    pub fn subtract(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Subtract).value(value)
    }

    /// b ← 0.
    pub fn zero() -> Self {
        Self::new(OpKind::Zero)
    }

    /// b ← c·b.
    pub fn scale(factor: f64) -> Self {
        Self::new(OpKind::Scale).scaled(factor)
    }

    /// b ← b + level·ε with standard normal ε; see [`Op::seeded`] and [`crate::op::noise`].
    pub fn noise(level: f64) -> Self {
        Self::new(OpKind::Noise).scaled(level)
    }

    /// b ← the input of the module whose output it is.
    pub fn skip() -> Self {
        Self::new(OpKind::Skip)
    }

    /// b ← f(b).
    pub fn custom(f: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static) -> Self {
        Self { custom: Some(Arc::new(f)), ..Self::new(OpKind::Custom) }
    }

    /// Whether it is noise that is drawn, not given.
    pub(crate) fn is_drawn_noise(&self) -> bool {
        self.kind == OpKind::Noise && self.value.is_none()
    }

    /// Where its value comes from, if that is another run.
    pub(crate) fn source(&self) -> Option<&Source> {
        match &self.value {
            Some(Value::Run(source)) => Some(source),
            _ => None,
        }
    }

    /// The same with a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// The same with one of its tensors, by the name it has in the table; see
    /// [`OpInfo::parameters`](super::OpInfo::parameters).
    #[must_use]
    pub fn parameter(mut self, name: &str, tensor: Tensor) -> Self {
        let parameters = std::mem::take(&mut self.parameters);
        self.parameters = Arc::new(parameters.with(name, tensor));
        self
    }

    /// The same with the noise of another seed.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with the scale c.
    #[must_use]
    pub fn scaled(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// The same with several positions or heads as one vector.
    #[must_use]
    pub fn joint(mut self, joint: Joint) -> Self {
        self.joint = Some(joint);
        self
    }

    /// The same with bounds, for [`OpKind::Clamp`].
    #[must_use]
    pub fn between(mut self, min: Option<f64>, max: Option<f64>) -> Self {
        self.settings = self.settings.between(min, max);
        self
    }

    /// The same with an activation function a, for the ReFT family.
    #[must_use]
    pub fn activated(mut self, activation: Activation) -> Self {
        self.settings.activation = Some(activation);
        self
    }

    /// The same with what an autoencoder does not reconstruct added back.
    #[must_use]
    pub fn with_error(mut self) -> Self {
        self.settings.add_error = true;
        self
    }

    /// The same with b_dec subtracted, or not, before an autoencoder encodes.
    #[must_use]
    pub fn centred(mut self, centre: bool) -> Self {
        self.settings.centre = Some(centre);
        self
    }
}
