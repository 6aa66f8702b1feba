//! The activation functions of feed-forward blocks.

use candle_core::{Result, Tensor};

/// An elementwise non-linearity. Every variant states its formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`: "gelu_new", "gelu_pytorch_tanh".
    GeluTanh,
    /// `0.5·x·(1 + erf(x/√2))`: "gelu".
    GeluErf,
    /// `x / (1 + e^−x)`: "silu", "swish".
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The names model configurations use.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu", Self::GeluErf),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("relu", Self::Relu),
    ];

    /// The function of that name, if there is one.
    ///
    /// ```
    /// use causalcone_ops::Activation;
    /// assert_eq!(Activation::by_name("gelu_new"), Some(Activation::GeluTanh));
    /// assert_eq!(Activation::by_name("mish"), None);
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|&(_, a)| a)
    }

    /// Applies the function to every element.
    ///
    /// # Errors
    /// When the tensor is not of a float type.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::GeluTanh => x.gelu(),
            Self::GeluErf => x.gelu_erf(),
            Self::Silu => x.silu(),
            Self::Relu => x.relu(),
        }
    }
}
