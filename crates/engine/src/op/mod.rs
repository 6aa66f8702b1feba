//! The interventions: what an edit does to the activations it names.
//!
//! One table ([`OPS`]) drives names, documentation and parsing. In every formula b is the activation
//! as it stands, v the value, and c the scale.

use crate::{Error, Result, RunId};
use candle_core::Tensor;
use causalcone_model::{Indices, Positions, Site};
use std::fmt;
use std::sync::Arc;

/// A closure as an intervention: sees the edited rows only (positions × width; positions × heads ×
/// width on head sites; heads × query rows × key columns on attention matrices) and gives their
/// replacement, of the same shape.
pub type Custom = Arc<dyn Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync>;

/// The kinds of intervention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// b ← v (interchange; pyvene's VanillaIntervention).
    Swap,
    /// b ← b + c·v (pyvene's AdditionIntervention).
    Add,
    /// b ← b − c·v (pyvene's SubtractionIntervention).
    Subtract,
    /// b ← 0 (pyvene's ZeroIntervention).
    Zero,
    /// b ← b + c·ε, where ε is standard normal and c the level; see [`crate::noise`].
    Noise,
    /// b ← c·b.
    Scale,
    /// b stays; the activations are read (pyvene's CollectIntervention).
    Collect,
    /// b ← f(b) for a closure f.
    Custom,
}

/// One row of the table of interventions.
#[derive(Debug)]
pub struct OpInfo {
    /// The kind.
    pub kind: OpKind,
    /// Its name in experiment files.
    pub name: &'static str,
    /// What it does.
    pub formula: &'static str,
    /// Whether it needs a value.
    pub takes_value: bool,
    /// Whether it has a scale.
    pub takes_scale: bool,
}

/// All interventions, by the names experiment files use.
pub const OPS: [OpInfo; 8] = [
    OpInfo { kind: OpKind::Swap, name: "swap", formula: "b ← v", takes_value: true, takes_scale: false },
    OpInfo {
        kind: OpKind::Add,
        name: "add",
        formula: "b ← b + scale·v",
        takes_value: true,
        takes_scale: true,
    },
    OpInfo {
        kind: OpKind::Subtract,
        name: "subtract",
        formula: "b ← b − scale·v",
        takes_value: true,
        takes_scale: true,
    },
    OpInfo { kind: OpKind::Zero, name: "zero", formula: "b ← 0", takes_value: false, takes_scale: false },
    OpInfo {
        kind: OpKind::Noise,
        name: "noise",
        formula: "b ← b + level·ε",
        takes_value: false,
        takes_scale: true,
    },
    OpInfo {
        kind: OpKind::Scale,
        name: "scale",
        formula: "b ← scale·b",
        takes_value: false,
        takes_scale: true,
    },
    OpInfo {
        kind: OpKind::Collect,
        name: "collect",
        formula: "b, and it is read",
        takes_value: false,
        takes_scale: false,
    },
    OpInfo {
        kind: OpKind::Custom,
        name: "custom",
        formula: "b ← f(b), a closure",
        takes_value: false,
        takes_scale: false,
    },
];

impl OpKind {
    /// Its row of the table.
    pub fn info(self) -> &'static OpInfo {
        // Every kind has a row (tested); the first one stands in where none could be.
        OPS.iter().find(|info| info.kind == self).unwrap_or(&OPS[0])
    }
}

/// An intervention with its value and scale.
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
    /// The activations of another run.
    Run(Source),
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
}

impl From<RunId> for Source {
    fn from(run: RunId) -> Self {
        Self { run, site: None, layers: None, positions: None, heads: None }
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

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl Op {
    fn new(kind: OpKind, value: Option<Value>) -> Self {
        Self { kind, value, scale: 1.0, seed: 0, custom: None }
    }

    /// b ← v.
    pub fn swap(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Swap, Some(value.into()))
    }

    /// b ← b + v; see [`Op::scaled`].
    pub fn add(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Add, Some(value.into()))
    }

    /// b ← b − v; see [`Op::scaled`].
    pub fn subtract(value: impl Into<Value>) -> Self {
        Self::new(OpKind::Subtract, Some(value.into()))
    }

    /// b ← 0.
    pub fn zero() -> Self {
        Self::new(OpKind::Zero, None)
    }

    /// b ← c·b.
    pub fn scale(factor: f64) -> Self {
        Self::new(OpKind::Scale, None).scaled(factor)
    }

    /// b ← b + level·ε with standard normal ε; see [`Op::seeded`] and [`crate::noise`].
    pub fn noise(level: f64) -> Self {
        Self::new(OpKind::Noise, None).scaled(level)
    }

    /// b stays, and is among the results.
    pub fn collect() -> Self {
        Self::new(OpKind::Collect, None)
    }

    /// b ← f(b).
    pub fn custom(f: impl Fn(&Tensor) -> candle_core::Result<Tensor> + Send + Sync + 'static) -> Self {
        Self { custom: Some(Arc::new(f)), ..Self::new(OpKind::Custom, None) }
    }

    /// The same noise with another seed.
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
}

/// Computes an intervention: `base` and the result have one shape, `value` one that broadcasts to it.
///
/// # Errors
/// When a kind that needs a value has none, or a closure fails or changes the shape.
pub fn apply(
    kind: OpKind,
    scale: f64,
    custom: Option<&Custom>,
    base: &Tensor,
    value: Option<&Tensor>,
) -> Result<Tensor> {
    let value = || -> Result<Tensor> {
        let value = value.ok_or_else(|| Error::part(kind.info().name, "needs a value"))?;
        Ok(value.broadcast_as(base.shape())?)
    };
    // A scale of 1 is left out, so that adding −inf to a score or swapping stays exact.
    let scaled = |x: Tensor| if scale == 1.0 { Ok(x) } else { x * scale };
    Ok(match kind {
        OpKind::Swap => value()?,
        // Noise comes as a constant: ε is drawn when an edit is resolved.
        OpKind::Add | OpKind::Noise => (base + scaled(value()?)?)?,
        OpKind::Subtract => (base - scaled(value()?)?)?,
        OpKind::Zero => base.zeros_like()?,
        OpKind::Scale => scaled(base.clone())?,
        OpKind::Collect => base.clone(),
        OpKind::Custom => {
            let f = custom.ok_or_else(|| Error::part("custom", "needs a closure"))?;
            let new = f(base)?;
            if new.dims() != base.dims() {
                let problem = format!("the closure turned shape {:?} into {:?}", base.dims(), new.dims());
                return Err(Error::part("custom", problem));
            }
            new
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn every_kind_has_its_row_and_its_formula() {
        let (b, v) = (3.0, 5.0);
        let tensor = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
        for (kind, scale, expected) in [
            (OpKind::Swap, 1.0, 5.0),
            (OpKind::Add, 2.0, 13.0),
            (OpKind::Subtract, 2.0, -7.0),
            (OpKind::Zero, 1.0, 0.0),
            (OpKind::Noise, 2.0, 13.0),
            (OpKind::Scale, 2.0, 6.0),
            (OpKind::Collect, 1.0, 3.0),
            (OpKind::Custom, 1.0, 9.0),
        ] {
            assert_eq!(kind.info().kind, kind);
            let square: Custom = Arc::new(Tensor::sqr);
            let result = apply(kind, scale, Some(&square), &tensor(b), Some(&tensor(v))).unwrap();
            assert_eq!(result.to_vec1::<f64>().unwrap(), [expected], "{}", kind.info().name);
        }
    }
}
