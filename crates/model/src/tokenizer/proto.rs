//! A tokenizer.model: SentencePiece's `ModelProto`, read from its bytes.
//!
//! The protobuf wire format is a list of fields, each a key (the field's number and how its value is written) and a value:
//! a varint, 4 or 8 bytes, or a length and that many bytes. What is read here is what decides on the ids of a text; other
//! fields are skipped, as protobuf does. Nothing is copied: texts and bytes are slices of the file. There is no recursion,
//! since a field is opened only where this format has a message.

use super::pieces::{Piece, PieceKind};
use super::recipe::MAX_VOCABULARY;

/// What a tokenizer.model says. Fields that a file leaves out have the defaults of `sentencepiece_model.proto`.
#[derive(Debug)]
pub(super) struct Proto<'a> {
    /// The pieces by id.
    pub(super) pieces: Vec<Piece<'a>>,
    /// `trainer_spec.model_type`: 1 unigram, 2 BPE, 3 word, 4 character.
    pub(super) model_type: i64,
    /// `trainer_spec.byte_fallback`: characters that no piece spells become bytes.
    pub(super) byte_fallback: bool,
    /// `trainer_spec.treat_whitespace_as_suffix`.
    pub(super) space_is_suffix: bool,
    /// `normalizer_spec.name`, by which messages call the normalizer.
    pub(super) normalizer: &'a str,
    /// `normalizer_spec.precompiled_charsmap`: empty where texts are not normalized.
    pub(super) charsmap: &'a [u8],
    /// `normalizer_spec.add_dummy_prefix`: each text gets a space before it.
    pub(super) prefix: bool,
    /// `normalizer_spec.remove_extra_whitespaces`.
    pub(super) removes_spaces: bool,
    /// `normalizer_spec.escape_whitespaces`: a space becomes `▁`.
    pub(super) escapes_spaces: bool,
}

impl<'a> Proto<'a> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// A text that says where the file is broken.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, String> {
        let mut proto = Self {
            pieces: Vec::new(),
            model_type: 1,
            byte_fallback: false,
            space_is_suffix: false,
            normalizer: "",
            charsmap: &[],
            prefix: true,
            removes_spaces: true,
            escapes_spaces: true,
        };
        let mut fields = Fields { left: file, at: 0 };
        while let Some(field) = fields.next()? {
            match field.number {
                1 if proto.pieces.len() == MAX_VOCABULARY => {
                    return Err(format!("it has more than {MAX_VOCABULARY} pieces"));
                }
                1 => {
                    let id = proto.pieces.len();
                    let piece = piece(field.message("pieces")?).map_err(|e| format!("piece {id}: {e}"))?;
                    proto.pieces.push(piece);
                }
                2 => {
                    let message = field.message("trainer_spec")?;
                    proto.trainer(message).map_err(|e| format!("trainer_spec: {e}"))?;
                }
                3 => {
                    let message = field.message("normalizer_spec")?;
                    proto.normalizer(message).map_err(|e| format!("normalizer_spec: {e}"))?;
                }
                _ => {}
            }
        }
        Ok(proto)
    }

    fn trainer(&mut self, mut fields: Fields<'a>) -> Result<(), String> {
        while let Some(field) = fields.next()? {
            match field.number {
                3 => self.model_type = field.integer("model_type")?,
                24 => self.space_is_suffix = field.flag("treat_whitespace_as_suffix")?,
                35 => self.byte_fallback = field.flag("byte_fallback")?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, mut fields: Fields<'a>) -> Result<(), String> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.normalizer = field.text("name")?,
                2 => self.charsmap = field.bytes("precompiled_charsmap")?,
                3 => self.prefix = field.flag("add_dummy_prefix")?,
                4 => self.removes_spaces = field.flag("remove_extra_whitespaces")?,
                5 => self.escapes_spaces = field.flag("escape_whitespaces")?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// One of `pieces`: a text, a score and a kind.
fn piece(mut fields: Fields<'_>) -> Result<Piece<'_>, String> {
    let (mut text, mut score, mut kind) = ("", 0.0f32, PieceKind::Normal);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => text = field.text("piece")?,
            2 => score = field.float("score")?,
            3 => {
                let number = field.integer("type")?;
                kind = PieceKind::from_number(number)
                    .ok_or_else(|| format!("type {number} is not between 1 and {}", PieceKind::COUNT))?;
            }
            _ => {}
        }
    }
    if text.is_empty() {
        return Err("it has no text".into());
    }
    if !score.is_finite() {
        return Err(format!("its score is {score}"));
    }
    Ok(Piece { text: text.into(), kind, score: score.into() })
}

/// The fields of a message, in order.
struct Fields<'a> {
    /// What is not read yet.
    left: &'a [u8],
    /// Where that begins in the file.
    at: usize,
}

/// One field of a message.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
    /// Where its value begins in the file.
    at: usize,
}

enum Value<'a> {
    Varint(u64),
    Four([u8; 4]),
    Eight,
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The next field; `None` at the end of the message.
    fn next(&mut self) -> Result<Option<Field<'a>>, String> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let start = self.at;
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > (1 << 29) - 1 {
            return Err(format!("byte {start}: {number} is not a field's number"));
        }
        let mut at = self.at;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take::<8>()?;
                Value::Eight
            }
            2 => {
                let length = self.varint()?;
                at = self.at;
                let parts =
                    usize::try_from(length).ok().and_then(|length| self.left.split_at_checked(length));
                let (bytes, left) = parts.ok_or_else(|| {
                    let left = self.left.len();
                    format!("byte {start}: field {number} is {length} bytes long, and {left} are left")
                })?;
                (self.left, self.at) = (left, at + bytes.len());
                Value::Bytes(bytes)
            }
            5 => Value::Four(self.take()?),
            other => return Err(format!("byte {start}: field {number} has the unknown wire type {other}")),
        };
        Ok(Some(Field { number, value, at }))
    }

    /// A number of up to 64 bits, 7 a byte, the lowest first.
    fn varint(&mut self) -> Result<u64, String> {
        let start = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            let part = u64::from(byte & 0x7F);
            // Of the tenth byte, one bit is left.
            if shift == 63 && part > 1 {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(format!("byte {start}: a number is longer than 64 bits"))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.left.split_first_chunk();
        let (taken, left) = taken.ok_or_else(|| format!("byte {}: it ends within a field", self.at))?;
        (self.left, self.at) = (left, self.at + N);
        Ok(*taken)
    }
}

impl<'a> Field<'a> {
    fn wrong<T>(&self, name: &str, expected: &str) -> Result<T, String> {
        Err(format!("byte {}: {name} is not written as {expected}", self.at))
    }

    fn bytes(&self, name: &str) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => self.wrong(name, "bytes with their length"),
        }
    }

    fn message(&self, name: &str) -> Result<Fields<'a>, String> {
        Ok(Fields { left: self.bytes(name)?, at: self.at })
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes(name)?)
            .map_err(|e| format!("byte {}: {name} is not UTF-8: {e}", self.at))
    }

    fn integer(&self, name: &str) -> Result<i64, String> {
        match self.value {
            // Negative numbers are written as 64 bits.
            Value::Varint(number) => Ok(i64::from_ne_bytes(number.to_ne_bytes())),
            _ => self.wrong(name, "a varint"),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        Ok(self.integer(name)? != 0)
    }

    fn float(&self, name: &str) -> Result<f32, String> {
        match self.value {
            Value::Four(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => self.wrong(name, "4 bytes"),
        }
    }
}
