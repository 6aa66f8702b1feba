//! A tensor as a file declares it: how its numbers are stored and where they are, and how a matrix is then held in
//! memory.

use super::precision::Precision;
use candle_core::DType;
use causalcone_ops::Blocks;

/// How numbers are stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754.
    F16,
    /// The upper 16 bits of 32-bit floats.
    BF16,
    /// 64-bit floats.
    F64,
    /// Blocks of one of ggml's quantised types.
    Blocks(Blocks),
    /// Something that is no weight (masks, index buffers), of so many bytes an element.
    Other(u8),
}

/// ggml's numbers and names of the types that are not blocks.
const PLAIN: [(u32, &str, Encoding); 4] = [
    (0, "F32", Encoding::F32),
    (1, "F16", Encoding::F16),
    (28, "F64", Encoding::F64),
    (30, "BF16", Encoding::BF16),
];

/// ggml's numbers and names of the types that are not read.
const NOT_READ: [(u32, &str); 16] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

/// The same of the types that ggml had once.
const REMOVED: [(u32, &str); 8] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
];

impl Encoding {
    /// The type of that number in a GGUF file.
    ///
    /// ```
    /// use causalcone_model::file::Encoding;
    /// assert_eq!(Encoding::from_ggml(0), Ok(Encoding::F32));
    /// assert!(Encoding::from_ggml(20).is_ok_and(|nonlinear| nonlinear.block() == (32, 18)));
    /// assert!(Encoding::from_ggml(21).unwrap_err().starts_with("type IQ3_S (21) is not read; types that are: F32, F16,"));
    /// ```
    ///
    /// # Errors
    /// When it is a type that is not read, or none: a text that names it, and the types that are read.
    pub fn from_ggml(id: u32) -> Result<Self, String> {
        if let Some((_, _, plain)) = PLAIN.iter().find(|(plain, _, _)| *plain == id) {
            return Ok(*plain);
        }
        if let Some(blocks) = Blocks::from_ggml(id) {
            return Ok(Self::Blocks(blocks));
        }
        let named =
            |types: &[(u32, &'static str)]| types.iter().find(|(known, _)| *known == id).map(|found| found.1);
        let given = match (named(&NOT_READ), named(&REMOVED)) {
            (Some(name), _) => format!("type {name} ({id}) is not read"),
            (None, Some(name)) => format!("type {name} ({id}), which ggml has removed, is not read"),
            (None, None) => format!("type {id} is not a type of ggml's"),
        };
        let plain = PLAIN.iter().map(|(_, name, _)| *name);
        let read: Vec<&str> = plain.chain(Blocks::all().map(Blocks::name)).collect();
        Err(format!("{given}; types that are: {}", read.join(", ")))
    }

    /// The type of that name in a safetensors header.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "I64" => Self::Other(8),
            "U8" | "BOOL" => Self::Other(1),
            _ => return None,
        })
    }

    /// Elements and bytes of one block.
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::F64 => (1, 8),
            Self::Blocks(blocks) => (blocks.numbers() as u64, blocks.bytes() as u64),
            Self::Other(bytes) => (1, bytes.into()),
        }
    }
}

/// In which order a tensor's numbers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The last axis is the fastest.
    Rows,
    /// The first axis is the fastest.
    Columns,
}

/// One tensor of a file: its extent has been checked against the file's size.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// Its shape, slowest axis first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub encoding: Encoding,
    /// Where its data starts in the file.
    pub offset: u64,
    /// How many bytes its data takes.
    pub bytes: u64,
    /// In which order.
    pub order: Order,
}

/// How a matrix is held in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// Widened to f32.
    Full,
    /// In the 16 bits it is stored in.
    Half(DType),
    /// In blocks, as it is stored.
    Packed(Blocks),
}

impl Entry {
    /// How this matrix is held where weights are kept with that precision.
    pub(crate) fn form(&self, precision: Precision) -> Form {
        let keeps = matches!(precision, Precision::Half | Precision::Packed) && self.order == Order::Rows;
        match self.encoding {
            Encoding::F16 if keeps => Form::Half(DType::F16),
            Encoding::BF16 if keeps => Form::Half(DType::BF16),
            Encoding::Blocks(blocks) if keeps && precision == Precision::Packed => Form::Packed(blocks),
            _ => Form::Full,
        }
    }
}
