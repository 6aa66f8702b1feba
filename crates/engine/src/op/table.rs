//! The table of interventions: names, formulas, what each takes, and the function that computes it.

use super::input::Input;
use super::kind::{Axis, Group, OpKind, ParameterInfo, Setting, Subspace, Takes};
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
    /// What kind of thing it does.
    pub group: Group,
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
    pub(super) compute: fn(&Input<'_>) -> Result<Tensor>,
}

type Compute = fn(&Input<'_>) -> Result<Tensor>;

impl OpInfo {
    const fn new(
        kind: OpKind,
        name: &'static str,
        group: Group,
        formula: &'static str,
        compute: Compute,
    ) -> Self {
        Self {
            kind,
            name,
            group,
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

    const fn value(mut self, takes: Takes) -> Self {
        self.value = takes;
        self
    }

    const fn scaled(mut self) -> Self {
        self.takes_scale = true;
        self
    }

    /// Works on whole rows: a direction, or parameters as wide as the site.
    const fn of_rows(mut self, subspace: Subspace, parameters: &'static [ParameterInfo]) -> Self {
        self.is_of_rows = true;
        self.subspace = subspace;
        self.parameters = parameters;
        self
    }

    const fn settings(mut self, settings: &'static [Setting]) -> Self {
        self.settings = settings;
        self
    }

    const fn interchange(mut self) -> Self {
        self.is_interchange = true;
        self
    }

    const fn forgets_base(mut self) -> Self {
        self.reads_base = false;
        self
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&'static ParameterInfo> {
        self.parameters.iter().find(|parameter| parameter.name == name)
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

/// All interventions, by the names experiment files use. What a mask's temperature is if left out is
/// what pyvene starts with.
pub static OPS: [OpInfo; 26] = [
    OpInfo::new(OpKind::Swap, "swap", Group::Replace, "b ← v", replace::value)
        .value(Takes::Must)
        .interchange()
        .forgets_base(),
    OpInfo::new(OpKind::Zero, "zero", Group::Replace, "b ← 0", replace::zero).forgets_base(),
    OpInfo::new(OpKind::Mean, "mean", Group::Replace, "b ← v, a mean", replace::value)
        .value(Takes::Must)
        .forgets_base(),
    OpInfo::new(OpKind::Skip, "skip", Group::Replace, "b ← the module's input", replace::value)
        .forgets_base(),
    OpInfo::new(OpKind::Collect, "collect", Group::Replace, "b, and it is read", replace::same),
    OpInfo::new(OpKind::Custom, "custom", Group::Replace, "b ← f(b), a closure", replace::closure),
    OpInfo::new(OpKind::Add, "add", Group::Arithmetic, "b ← b + scale·v", arithmetic::add)
        .value(Takes::Must)
        .scaled(),
    OpInfo::new(OpKind::Subtract, "subtract", Group::Arithmetic, "b ← b − scale·v", arithmetic::subtract)
        .value(Takes::Must)
        .scaled(),
    OpInfo::new(OpKind::Scale, "scale", Group::Arithmetic, "b ← scale·b", arithmetic::scale).scaled(),
    OpInfo::new(OpKind::Noise, "noise", Group::Arithmetic, "b ← b + level·ε", arithmetic::add)
        .value(Takes::Maybe)
        .scaled(),
    OpInfo::new(
        OpKind::Clamp,
        "clamp",
        Group::Arithmetic,
        "b ← b + (clamp(b·u, min, max) − b·u)·u, u = v/|v|",
        arithmetic::clamp,
    )
    .value(Takes::Must)
    .of_rows(Subspace::Site, &[])
    .settings(&[Setting::Bounds]),
    OpInfo::new(
        OpKind::ProjectOut,
        "project_out",
        Group::Arithmetic,
        "b ← b − (b·u)·u, u = v/|v|",
        arithmetic::project_out,
    )
    .value(Takes::Must)
    .of_rows(Subspace::Site, &[]),
    OpInfo::new(
        OpKind::RotatedSwap,
        "rotated_swap",
        Group::Rotation,
        "b ← (b·R, coordinates of dims from v·R)·Rᵀ",
        rotation::rotated_swap,
    )
    .value(Takes::Must)
    .of_rows(Subspace::Basis, &[SQUARE])
    .interchange(),
    OpInfo::new(
        OpKind::LowRankSwap,
        "low_rank_swap",
        Group::Rotation,
        "b ← b + (v·R − b·R)·Rᵀ",
        rotation::low_rank_swap,
    )
    .value(Takes::Must)
    .of_rows(Subspace::Basis, &[ROTATION])
    .interchange(),
    OpInfo::new(
        OpKind::BoundlessSwap,
        "boundless_swap",
        Group::Rotation,
        "b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ, mᵢ = σ(i/t)·σ((β·d − i)/t)",
        rotation::boundless_swap,
    )
    .value(Takes::Must)
    .of_rows(
        Subspace::None,
        &[SQUARE, with_default("boundary", &[], 0.5), fixed(with_default("temperature", &[], 50.0))],
    )
    .interchange(),
    OpInfo::new(
        OpKind::SigmoidMaskRotated,
        "sigmoid_mask_rotated",
        Group::Rotation,
        "b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ, m = σ(mask/t)",
        rotation::sigmoid_mask_rotated,
    )
    .value(Takes::Must)
    .of_rows(Subspace::None, &[SQUARE, MASK, fixed(with_default("temperature", &[], 50.0))])
    .interchange(),
    OpInfo::new(
        OpKind::PcaSwap,
        "pca_swap",
        Group::Rotation,
        "b ← (z(b)·Cᵀ, coordinates of dims from z(v)·Cᵀ)·C·std + mean, z(x) = (x − mean)/std",
        rotation::pca_swap,
    )
    .value(Takes::Must)
    .of_rows(
        Subspace::Basis,
        &[
            fixed(parameter("components", &[Rank, Width])),
            fixed(with_default("mean", &[Width], 0.0)),
            fixed(with_default("std", &[Width], 1.0)),
        ],
    ),
    OpInfo::new(
        OpKind::SigmoidMask,
        "sigmoid_mask",
        Group::Mask,
        "b ← (1 − m)·b + m·v, m = σ(mask/t)",
        mask::sigmoid_mask,
    )
    .value(Takes::Must)
    .of_rows(Subspace::Site, &[MASK, fixed(with_default("temperature", &[], 0.01))])
    .interchange(),
    OpInfo::new(
        OpKind::AutoencoderSwap,
        "autoencoder_swap",
        Group::Dictionary,
        "b ← (f(b), latents of dims from f(v))·W_dec + b_dec, f(x) = relu((x − b_dec)·W_enc + b_enc)",
        dictionary::autoencoder_swap,
    )
    .value(Takes::Maybe)
    .of_rows(Subspace::Basis, &[W_ENC, B_ENC, W_DEC, B_DEC])
    .settings(&[Setting::Centre, Setting::AddError]),
    OpInfo::new(
        OpKind::JumpReluAutoencoder,
        "jumprelu_autoencoder",
        Group::Dictionary,
        "the same with f(x) = relu(p) where p > threshold, p = x·W_enc + b_enc",
        dictionary::jumprelu_autoencoder,
    )
    .value(Takes::Maybe)
    .of_rows(Subspace::Basis, &[W_ENC, B_ENC, W_DEC, B_DEC, fixed(parameter("threshold", &[Rank]))])
    .settings(&[Setting::Centre, Setting::AddError]),
    OpInfo::new(OpKind::Loreft, "loreft", Group::Reft, "b ← b + (a(b·Wᵀ + bias) − b·R)·Rᵀ", reft::loreft)
        .of_rows(Subspace::None, &[ROTATION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
    OpInfo::new(
        OpKind::Noreft,
        "noreft",
        Group::Reft,
        "b ← b + (a(b·Wᵀ + bias) − (b·Pᵀ + q))·P",
        reft::noreft,
    )
    .of_rows(Subspace::None, &[PROJECTION, with_default("projection_bias", &[Rank], 0.0), WEIGHT, BIAS])
    .settings(&[Setting::Activation]),
    OpInfo::new(OpKind::Direft, "direft", Group::Reft, "b ← b + a(b·Wᵀ + bias)·Rᵀ", reft::direft)
        .of_rows(Subspace::None, &[ROTATION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
    OpInfo::new(OpKind::Consreft, "consreft", Group::Reft, "b ← b + (s − b·R)·Rᵀ", reft::consreft)
        .of_rows(Subspace::None, &[ROTATION, SOURCE]),
    OpInfo::new(OpKind::Lobireft, "lobireft", Group::Reft, "b ← b + s·Rᵀ", reft::lobireft)
        .of_rows(Subspace::None, &[ROTATION, SOURCE]),
    OpInfo::new(OpKind::Nodireft, "nodireft", Group::Reft, "b ← b + a(b·Wᵀ + bias)·P", reft::nodireft)
        .of_rows(Subspace::None, &[PROJECTION, WEIGHT, BIAS])
        .settings(&[Setting::Activation]),
];

impl OpKind {
    /// Its row of the table.
    pub fn info(self) -> &'static OpInfo {
        // Every kind has a row (tested); the first one stands in where none could be.
        OPS.iter().find(|info| info.kind == self).unwrap_or(&OPS[0])
    }

    /// The kind of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        OPS.iter().find(|info| info.name == name).map(|info| info.kind)
    }
}
