//! The table of interventions: names, formulas, what each takes, and the function that computes it.

use super::input::Input;
use super::kind::{Axis, OpKind, ParameterInfo, Setting, Subspace, Takes};
use super::{arithmetic, dictionary, mask, reft, replace, rotation};
use crate::Result;
use candle_core::Tensor;

/// One row of the table of interventions.
#[derive(Debug)]
pub struct OpInfo {
    /// The kind.
    pub kind: OpKind,
    /// Its name in experiment files.
    pub name: &'static str,
    /// The name that other tools use for it, which experiment files may use too.
    pub alias: Option<&'static str>,
    /// What it does.
    pub formula: &'static str,
    /// Whether it takes a value.
    pub value: Takes,
    /// Whether it has a scale.
    pub takes_scale: bool,
    /// What `dims` count.
    pub subspace: Subspace,
    /// Its tensors.
    pub parameters: &'static [ParameterInfo],
    /// What else can be set.
    pub settings: &'static [Setting],
    /// Whether it computes with whole rows, and so has no meaning on attention matrices.
    pub is_of_rows: bool,
    /// Whether the result depends on b.
    pub reads_base: bool,
    /// Whether nothing changes where v is b.
    pub is_interchange: bool,
    pub(super) compute: Compute,
}

type Compute = fn(&Input<'_>) -> Result<Tensor>;

impl OpInfo {
    /// Takes a value.
    const fn valued(self) -> Self {
        Self { value: Takes::Must, ..self }
    }

    /// May take one.
    const fn maybe_valued(self) -> Self {
        Self { value: Takes::Maybe, ..self }
    }

    const fn scaled(self) -> Self {
        Self { takes_scale: true, ..self }
    }

    /// Other tools call it so.
    const fn also(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    const fn interchange(self) -> Self {
        Self { is_interchange: true, ..self }
    }

    const fn forgets_base(self) -> Self {
        Self { reads_base: false, ..self }
    }

    /// Works on whole rows: a direction, or parameters as wide as the site.
    const fn of_rows(self, subspace: Subspace, parameters: &'static [ParameterInfo]) -> Self {
        Self { is_of_rows: true, subspace, parameters, ..self }
    }

    const fn settings(self, settings: &'static [Setting]) -> Self {
        Self { settings, ..self }
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&'static ParameterInfo> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

const fn op(kind: OpKind, name: &'static str, formula: &'static str, compute: Compute) -> OpInfo {
    OpInfo {
        kind,
        name,
        alias: None,
        formula,
        value: Takes::No,
        takes_scale: false,
        subspace: Subspace::Site,
        parameters: &[],
        settings: &[],
        is_of_rows: false,
        reads_base: true,
        is_interchange: false,
        compute,
    }
}

const fn parameter(name: &'static str, shape: &'static [Axis]) -> ParameterInfo {
    ParameterInfo { name, shape, default: None, orthogonal: false, trains: true }
}

/// One that training leaves as it is.
const fn fixed(parameter: ParameterInfo) -> ParameterInfo {
    ParameterInfo { trains: false, ..parameter }
}

const fn with_default(name: &'static str, shape: &'static [Axis], default: f64) -> ParameterInfo {
    ParameterInfo { default: Some(default), ..parameter(name, shape) }
}

const fn orthogonal(shape: &'static [Axis]) -> ParameterInfo {
    ParameterInfo { orthogonal: true, ..parameter("rotation", shape) }
}

use Axis::{Rank, Width};

const fn temperature(default: f64) -> ParameterInfo {
    fixed(with_default("temperature", &[], default))
}

const ROTATION: ParameterInfo = orthogonal(&[Width, Rank]);
const SQUARE: ParameterInfo = orthogonal(&[Width, Width]);
const MASK: ParameterInfo = parameter("mask", &[Width]);
const WEIGHT: ParameterInfo = parameter("weight", &[Rank, Width]);
const BIAS: ParameterInfo = with_default("bias", &[Rank], 0.0);
const PROJECTION: ParameterInfo = parameter("projection", &[Rank, Width]);
const SOURCE: ParameterInfo = parameter("source", &[Rank]);
const W_ENC: ParameterInfo = parameter("W_enc", &[Width, Rank]);
const B_ENC: ParameterInfo = parameter("b_enc", &[Rank]);
const W_DEC: ParameterInfo = parameter("W_dec", &[Rank, Width]);
const B_DEC: ParameterInfo = parameter("b_dec", &[Width]);
const AUTOENCODER: &[Setting] = &[Setting::Centre, Setting::AddError];
const COMPONENTS: ParameterInfo = fixed(parameter("components", &[Rank, Width]));
const MEAN: ParameterInfo = fixed(with_default("mean", &[Width], 0.0));
const STD: ParameterInfo = fixed(with_default("std", &[Width], 1.0));

/// All interventions, by the names experiment files use. What a mask's temperature is if left out is
/// what pyvene starts with.
pub static OPS: [OpInfo; 26] = [
    op(OpKind::Swap, "swap", "b ← v", replace::value).valued().interchange().forgets_base().also("patch"),
    op(OpKind::Zero, "zero", "b ← 0", replace::zero).forgets_base().also("ablate"),
    op(OpKind::Mean, "mean", "b ← v, a mean", replace::value).valued().forgets_base().also("mean_ablate"),
    op(OpKind::Skip, "skip", "b ← the module's input", replace::value).forgets_base(),
    op(OpKind::Collect, "collect", "b, and it is read", replace::same),
    op(OpKind::Custom, "custom", "b ← f(b), a closure", replace::closure),
    op(OpKind::Add, "add", "b ← b + scale·v", arithmetic::add).valued().scaled().also("steer"),
    op(OpKind::Subtract, "subtract", "b ← b − scale·v", arithmetic::subtract).valued().scaled(),
    op(OpKind::Scale, "scale", "b ← scale·b", arithmetic::scale).scaled(),
    op(OpKind::Noise, "noise", "b ← b + level·ε", arithmetic::add).maybe_valued().scaled(),
    op(OpKind::Clamp, "clamp", "b ← b + (clamp(b·u, min, max) − b·u)·u, u = v/|v|", arithmetic::clamp)
        .valued()
        .of_rows(Subspace::Site, &[])
        .settings(&[Setting::Bounds]),
    op(OpKind::ProjectOut, "project_out", "b ← b − (b·u)·u, u = v/|v|", arithmetic::project_out)
        .valued()
        .of_rows(Subspace::Site, &[]),
    op(
        OpKind::RotatedSwap,
        "rotated_swap",
        "b ← (b·R, coordinates of dims from v·R)·Rᵀ",
        rotation::rotated_swap,
    )
    .valued()
    .of_rows(Subspace::Basis, &[SQUARE])
    .interchange(),
    op(OpKind::LowRankSwap, "low_rank_swap", "b ← b + (v·R − b·R)·Rᵀ", rotation::low_rank_swap)
        .valued()
        .of_rows(Subspace::Basis, &[ROTATION])
        .interchange(),
    op(
        OpKind::BoundlessSwap,
        "boundless_swap",
        "b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ, mᵢ = σ(i/t)·σ((β·d − i)/t)",
        rotation::boundless_swap,
    )
    .valued()
    .of_rows(Subspace::None, &[SQUARE, with_default("boundary", &[], 0.5), temperature(50.0)])
    .interchange(),
    op(
        OpKind::SigmoidMaskRotated,
        "sigmoid_mask_rotated",
        "b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ, m = σ(mask/t)",
        rotation::sigmoid_mask_rotated,
    )
    .valued()
    .of_rows(Subspace::None, &[SQUARE, MASK, temperature(50.0)])
    .interchange(),
    op(
        OpKind::PcaSwap,
        "pca_swap",
        "b ← (z(b)·Cᵀ, coordinates of dims from z(v)·Cᵀ)·C·std + mean, z(x) = (x − mean)/std",
        rotation::pca_swap,
    )
    .valued()
    .of_rows(Subspace::Basis, &[COMPONENTS, MEAN, STD]),
    op(OpKind::SigmoidMask, "sigmoid_mask", "b ← (1 − m)·b + m·v, m = σ(mask/t)", mask::sigmoid_mask)
        .valued()
        .of_rows(Subspace::Site, &[MASK, temperature(0.01)])
        .interchange(),
    op(
        OpKind::AutoencoderSwap,
        "autoencoder_swap",
        "b ← (f(b), latents of dims from f(v))·W_dec + b_dec, f(x) = relu((x − b_dec)·W_enc + b_enc)",
        dictionary::autoencoder_swap,
    )
    .maybe_valued()
    .of_rows(Subspace::Basis, &[W_ENC, B_ENC, W_DEC, B_DEC])
    .settings(AUTOENCODER),
    op(
        OpKind::JumpReluAutoencoder,
        "jumprelu_autoencoder",
        "the same with f(x) = relu(p) where p > threshold, p = x·W_enc + b_enc",
        dictionary::jumprelu_autoencoder,
    )
    .maybe_valued()
    .of_rows(Subspace::Basis, &[W_ENC, B_ENC, W_DEC, B_DEC, fixed(parameter("threshold", &[Rank]))])
    .settings(AUTOENCODER),
    op(OpKind::Loreft, "loreft", "b ← b + (a(b·Wᵀ + bias) − b·R)·Rᵀ", reft::loreft)
        .of_rows(Subspace::None, &[ROTATION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
    op(OpKind::Noreft, "noreft", "b ← b + (a(b·Wᵀ + bias) − (b·Pᵀ + q))·P", reft::noreft)
        .of_rows(Subspace::None, &[PROJECTION, with_default("projection_bias", &[Rank], 0.0), WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
    op(OpKind::Direft, "direft", "b ← b + a(b·Wᵀ + bias)·Rᵀ", reft::direft)
        .of_rows(Subspace::None, &[ROTATION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
    op(OpKind::Consreft, "consreft", "b ← b + (s − b·R)·Rᵀ", reft::consreft)
        .of_rows(Subspace::None, &[ROTATION, SOURCE]),
    op(OpKind::Lobireft, "lobireft", "b ← b + s·Rᵀ", reft::lobireft)
        .of_rows(Subspace::None, &[ROTATION, SOURCE]),
    op(OpKind::Nodireft, "nodireft", "b ← b + a(b·Wᵀ + bias)·P", reft::nodireft)
        .of_rows(Subspace::None, &[PROJECTION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
];

impl OpKind {
    /// Its row of the table.
    pub fn info(self) -> &'static OpInfo {
        // Every kind has a row (tested); the first one stands in where none could be.
        OPS.iter().find(|info| info.kind == self).unwrap_or(&OPS[0])
    }

    /// The kind of that name or alias.
    pub fn by_name(name: &str) -> Option<Self> {
        OPS.iter().find(|info| info.name == name || info.alias == Some(name)).map(|info| info.kind)
    }
}
