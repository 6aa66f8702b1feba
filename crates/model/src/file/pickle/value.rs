//! What a pickle makes: plain values, the few names that it may call, and tensors as views of storages.

use std::ops::Range;

/// The place of a value.
pub(super) type At = usize;

/// A storage of numbers, as a pickle names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Storage {
    /// The kind of its numbers: `FloatStorage`.
    pub(crate) kind: &'static str,
    /// Its file in the archive.
    pub(crate) key: String,
    /// How many numbers it has.
    pub(crate) count: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) storage: Storage,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// What may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(&'static str),
}

pub(super) const NAMES: [(&str, &str, Name); 13] = [
    ("collections", "OrderedDict", Name::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Name::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Name::RebuildParameter),
    ("torch", "FloatStorage", Name::Storage("FloatStorage")),
    ("torch", "DoubleStorage", Name::Storage("DoubleStorage")),
    ("torch", "HalfStorage", Name::Storage("HalfStorage")),
    ("torch", "BFloat16Storage", Name::Storage("BFloat16Storage")),
    ("torch", "LongStorage", Name::Storage("LongStorage")),
    ("torch", "IntStorage", Name::Storage("IntStorage")),
    ("torch", "ShortStorage", Name::Storage("ShortStorage")),
    ("torch", "CharStorage", Name::Storage("CharStorage")),
    ("torch", "ByteStorage", Name::Storage("ByteStorage")),
    ("torch", "BoolStorage", Name::Storage("BoolStorage")),
];

#[derive(Debug, Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Where the bytes of an integer of more than 64 bits are, the lowest first.
    Long(Range<usize>),
    Float,
    Text(Range<usize>),
    Tuple(Vec<At>),
    List(Vec<At>),
    Dict(Vec<(At, At)>),
    Name(Name),
    Storage(Storage),
    Tensor(Tensor),
}

impl Value {
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Long(_) => "an int",
            Self::Float => "a float",
            Self::Text(_) => "a str",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Name(_) => "a class or function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}
