//! The kinds of intervention, and what there is to say of one.

/// The kinds of intervention. In every formula b is the activation as it stands, one row a position
/// (and head), v the value, c the scale; rows are multiplied from the left, as in x·R.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OpKind {
    /// b ← v (interchange; pyvene's VanillaIntervention).
    Swap,
    /// b ← 0 (pyvene's ZeroIntervention).
    Zero,
    /// b ← v, a mean over a data set or a vector given.
    Mean,
    /// b ← the input of the module whose output it is: block_input for block_output, attention_input
    /// for attention_output, mlp_input for mlp_output (pyvene's SkipIntervention).
    Skip,
    /// b stays; the activations are read (pyvene's CollectIntervention).
    Collect,
    /// b ← f(b) for a closure f.
    Custom,
    /// b ← b + c·v (pyvene's AdditionIntervention).
    Add,
    /// b ← b − c·v (pyvene's SubtractionIntervention).
    Subtract,
    /// b ← c·b.
    Scale,
    /// b ← b + c·ε, where c is the level and ε standard normal (see [`crate::op::noise`]) or given
    /// (pyvene's NoiseIntervention).
    Noise,
    /// b ← b + (clamp(b·u, min, max) − b·u)·u with the direction u = v/|v|: activation capping.
    Clamp,
    /// b ← b − (b·u)·u with the direction u = v/|v|: directional ablation.
    ProjectOut,
    /// b ← (b·R with the coordinates of the subspace taken from v·R)·Rᵀ, with R square and orthogonal
    /// (DAS; pyvene's RotatedSpaceIntervention).
    RotatedSwap,
    /// b ← b + (v·R − b·R)·Rᵀ over the columns of R in the subspace, with R d × k of orthonormal columns
    /// (DAS; pyvene's LowRankRotatedSpaceIntervention).
    LowRankSwap,
    /// b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ with mᵢ = σ(i/t)·σ((β·d − i)/t), β the boundary kept in
    /// [0.001, 1] and t the temperature (boundless DAS; pyvene's BoundlessRotatedSpaceIntervention).
    BoundlessSwap,
    /// b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ with m = σ(mask/t) (pyvene's SigmoidMaskRotatedSpaceIntervention).
    SigmoidMaskRotated,
    /// b ← (z(b)·Cᵀ with the coordinates of the subspace taken from z(v)·Cᵀ)·C·std + mean, with
    /// z(x) = (x − mean)/std and C the components, k × d (pyvene's PCARotatedSpaceIntervention).
    PcaSwap,
    /// b ← (1 − m)·b + m·v with m = σ(mask/t) (pyvene's SigmoidMaskIntervention).
    SigmoidMask,
    /// b ← f(b)·W_dec + b_dec with the latents of the subspace taken from f(v), where
    /// f(x) = relu((x − b_dec)·W_enc + b_enc) (pyvene's AutoencoderIntervention).
    AutoencoderSwap,
    /// The same with f(x) = p where p > threshold and p > 0, else 0, p = x·W_enc + b_enc (pyvene's
    /// JumpReLUAutoencoderIntervention).
    JumpReluAutoencoder,
    /// b ← b + (a(b·Wᵀ + bias) − b·R)·Rᵀ with an activation function a (pyreft's LoreftIntervention).
    Loreft,
    /// b ← b + (a(b·Wᵀ + bias) − (b·Pᵀ + q))·P (pyreft's NoreftIntervention).
    Noreft,
    /// b ← b + a(b·Wᵀ + bias)·Rᵀ (pyreft's DireftIntervention).
    Direft,
    /// b ← b + (s − b·R)·Rᵀ (pyreft's ConsreftIntervention).
    Consreft,
    /// b ← b + s·Rᵀ (pyreft's LobireftIntervention).
    Lobireft,
    /// b ← b + a(b·Wᵀ + bias)·P (pyreft's NodireftIntervention).
    Nodireft,
}

/// Whether something is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Never.
    No,
    /// It may be left out.
    Maybe,
    /// Always.
    Must,
}

/// What an edit's `dims` count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subspace {
    /// Dimensions of the site.
    Site,
    /// Coordinates of the op's own basis: columns of a rotation, principal components, latents.
    Basis,
    /// Nothing: the op itself says how much of each coordinate changes.
    None,
}

/// An axis of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// As wide as what is edited.
    Width,
    /// The op's own number of coordinates, the same in all its parameters.
    Rank,
}

/// A tensor that belongs to an op.
#[derive(Debug, Clone, Copy)]
pub struct ParameterInfo {
    /// Its name.
    pub name: &'static str,
    /// Its axes; none for one number.
    pub shape: &'static [Axis],
    /// The number it is everywhere if left out; `None` where it must be given.
    pub default: Option<f64>,
    /// Whether its columns are orthonormal.
    pub orthogonal: bool,
    /// Whether training changes it.
    pub trains: bool,
}

/// What can be set about an op besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The activation function a; the identity if left out.
    Activation,
    /// The bounds `min` and `max`, at least one.
    Bounds,
    /// Whether what the autoencoder does not reconstruct of b is added back.
    AddError,
    /// Whether b_dec is subtracted before encoding.
    Centre,
}
