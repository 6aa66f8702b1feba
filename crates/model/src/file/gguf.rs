//! The GGUF header: metadata and tensor table, read with a bound on everything.
//!
//! Layout (version 3, and 2, which differs in nothing we read): magic, version, counts, key–value
//! pairs, tensor infos, padding to the alignment, data. All numbers are little-endian.

use super::data_file::DataFile;
use super::entry::{Encoding, Entry, Order};
use crate::{Error, Result};
use std::fmt;
use std::io::{BufReader, Read};

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 16;
const MAX_KEY: u64 = 65_535;
const MAX_NAME: u64 = 64;
const MAX_DIMS: u32 = 4;
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
/// The longest lists are merges: half a million in the largest tokenizers.
const MAX_ARRAY: u64 = 1 << 20;
/// All lists of a header together; each element takes more memory than file.
const MAX_ELEMENTS: u64 = 1 << 22;
const MAX_STRING: u64 = 16 << 20;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer type; the type's width in bytes is kept with it.
    Unsigned(u64, u8),
    /// Any signed integer type; the type's width in bytes is kept with it.
    Signed(i64, u8),
    /// f32 or f64.
    Float(f64),
    /// true or false.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of integers of any type.
    Integers(Vec<i64>),
    /// A list of f32 or f64.
    Floats(Vec<f64>),
    /// A list of booleans.
    Bools(Vec<bool>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(n, _) => write!(f, "{n}"),
            Self::Signed(n, _) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Bool(is_true) => write!(f, "{is_true}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Texts(list) => write!(f, "a list of {} texts", list.len()),
            Self::Integers(list) => write!(f, "a list of {} integers", list.len()),
            Self::Floats(list) => write!(f, "a list of {} numbers", list.len()),
            Self::Bools(list) => write!(f, "a list of {} booleans", list.len()),
        }
    }
}

/// The checked header of a GGUF file.
#[derive(Debug)]
pub struct Header {
    /// Metadata in file order; keys are unique.
    pub metadata: Vec<(String, Value)>,
    /// The tensors; names are unique, data lies within the file without gap or overlap.
    pub tensors: Vec<Entry>,
}

/// Reads and checks the header of `file`.
///
/// # Errors
/// When anything in it is malformed, contradicts the file's size, or uses a type outside the
/// format's list.
pub fn read(file: &DataFile) -> Result<Header> {
    let mut reader = Reader::new(file);
    let magic = reader.bytes::<4>("magic")?;
    if &magic != MAGIC {
        return Err(file.bad("magic", format!("is {magic:02x?}, not \"GGUF\"")));
    }
    let version = reader.u32("version")?;
    if !(2..=3).contains(&version) {
        return Err(file.bad("version", format!("{version} is not 2 or 3")));
    }
    // The least a tensor info or a key–value pair takes: 8 + 4 + 8 + 4 + 8 and 8 + 1 + 4 + 1.
    let n_tensors = reader.count("tensor count", MAX_TENSORS, 32)?;
    let n_keys = reader.count("key count", MAX_KEYS, 14)?;

    let mut metadata: Vec<(String, Value)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..n_keys {
        let key = reader.text("key", MAX_KEY)?;
        if key.is_empty() || key.contains('\0') {
            return Err(file.bad("key", format!("{key:?} is empty or holds a NUL")));
        }
        if !seen.insert(key.clone()) {
            return Err(file.bad(key, "is given twice"));
        }
        let value = reader.value(&key)?;
        metadata.push((key, value));
    }
    let alignment = alignment(file, &metadata)?;

    let mut tensors: Vec<Entry> = Vec::new();
    seen.clear();
    for _ in 0..n_tensors {
        let entry = tensor_info(&mut reader, alignment)?;
        if !seen.insert(entry.name.clone()) {
            return Err(file.bad(entry.name, "is given twice"));
        }
        tensors.push(entry);
    }
    place(file, reader.position, &mut tensors, alignment)?;
    Ok(Header { metadata, tensors })
}

fn alignment(file: &DataFile, metadata: &[(String, Value)]) -> Result<u64> {
    const KEY: &str = "general.alignment";
    match metadata.iter().find(|(key, _)| key == KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some((_, Value::Unsigned(n, 4))) if n.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(n) => Ok(*n),
        Some((_, other)) => {
            Err(file.bad(KEY, format!("{other} is not a 32-bit power of two from 8 to {MAX_ALIGNMENT}")))
        }
    }
}

/// One tensor info. Its offset is still relative to the data section.
fn tensor_info(reader: &mut Reader<'_>, alignment: u64) -> Result<Entry> {
    let file = reader.file;
    let name = reader.text("tensor name", MAX_NAME)?;
    if name.is_empty() || name.contains(|c: char| c.is_control() || c == '/' || c == '\\') {
        return Err(file.bad("tensor name", format!("{name:?} is empty or has a character no name has")));
    }
    let bad = |problem: String| file.bad(&name, problem);
    let n_dims = reader.u32(&name)?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(bad(format!("{n_dims} dimensions are not between 1 and {MAX_DIMS}")));
    }
    let dims: Vec<u64> = (0..n_dims).map(|_| reader.u64(&name)).collect::<Result<_>>()?;
    let type_id = reader.u32(&name)?;
    let offset = reader.u64(&name)?;
    let encoding = Encoding::from_ggml(type_id).map_err(bad)?;
    let (block, block_bytes) = encoding.block();
    if dims.contains(&0) {
        return Err(bad(format!("a dimension of {dims:?} is 0")));
    }
    if !dims[0].is_multiple_of(block) {
        return Err(bad(format!("its rows of {} numbers are not whole blocks of {block}", dims[0])));
    }
    let bytes = dims
        .iter()
        .try_fold(1u64, |n, &d| n.checked_mul(d))
        .and_then(|elements| (elements / block).checked_mul(block_bytes))
        .filter(|bytes| *bytes <= file.len())
        .ok_or_else(|| bad(format!("its dimensions {dims:?} exceed the file")))?;
    if !offset.is_multiple_of(alignment) {
        return Err(bad(format!("offset {offset} is not a multiple of {alignment}")));
    }
    if offset.checked_add(bytes).is_none_or(|end| end > file.len()) {
        return Err(bad(truncated(offset, bytes)));
    }
    // GGUF lists the fastest dimension first.
    let shape = dims.iter().rev().map(|&d| usize::try_from(d)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| bad("its shape does not fit this machine".into()))?;
    Ok(Entry { name, shape, encoding, offset, bytes, order: Order::Rows })
}

fn truncated(offset: u64, bytes: u64) -> String {
    format!("its {bytes} bytes at {offset} pass the end of the file: it is truncated")
}

/// Makes offsets absolute, and checks that the tensors fill the data section, which begins after a header of that length: no
/// overlap, no hole and no trailing bytes beyond the padding to the alignment.
fn place(file: &DataFile, header: u64, tensors: &mut [Entry], alignment: u64) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let pad = |n: u64| n.checked_next_multiple_of(alignment);
    let start = pad(header).filter(|start| *start <= file.len());
    let start = start.ok_or_else(|| file.bad("data", "the file ends before the tensors"))?;
    tensors.sort_by_key(|t| t.offset);
    let mut next = 0;
    let mut end = 0;
    for tensor in tensors.iter_mut() {
        let Entry { name, offset, bytes, .. } = tensor;
        if *offset != next {
            let kind = if *offset > next { "leaves a hole" } else { "overlaps another tensor" };
            return Err(file.bad(&*name, format!("offset {offset} is not {next}: it {kind}")));
        }
        // This cannot overflow: `start` and `offset + bytes` are no larger than the file.
        end = start + *offset + *bytes;
        if end > file.len() {
            return Err(file.bad(&*name, truncated(*offset, *bytes)));
        }
        next = pad(*offset + *bytes).unwrap_or(u64::MAX);
        *offset += start;
    }
    if file.len() != end && Some(file.len()) != pad(end) {
        return Err(file.bad("data", format!("{} bytes trail the last tensor", file.len() - end)));
    }
    Ok(())
}

/// Reads forward through a file and never past its end.
struct Reader<'a> {
    file: &'a DataFile,
    source: BufReader<Positioned<'a>>,
    position: u64,
    /// How many more elements lists may have.
    elements: u64,
}

/// A [`Read`] over a [`DataFile`], for the buffer above it.
struct Positioned<'a>(&'a DataFile, u64);

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.0.len() - self.1).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        self.0.read_at(&mut buffer[..n], self.1).map_err(std::io::Error::other)?;
        self.1 += n as u64;
        Ok(n)
    }
}

impl<'a> Reader<'a> {
    fn new(file: &'a DataFile) -> Self {
        let source = BufReader::with_capacity(1 << 16, Positioned(file, 0));
        Self { file, source, position: 0, elements: MAX_ELEMENTS }
    }

    fn bad(&self, field: &str, problem: impl Into<String>) -> Error {
        self.file.bad(field, problem)
    }

    fn remaining(&self) -> u64 {
        self.file.len() - self.position
    }

    fn fill(&mut self, buffer: &mut [u8], field: &str) -> Result<()> {
        if buffer.len() as u64 > self.remaining() {
            return Err(self.bad(field, "the file ends here"));
        }
        self.source.read_exact(buffer).map_err(|source| Error::io(self.file.path(), "read", source))?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self, field: &str) -> Result<[u8; N]> {
        let mut buffer = [0; N];
        self.fill(&mut buffer, field)?;
        Ok(buffer)
    }

    fn u32(&mut self, field: &str) -> Result<u32> {
        self.bytes(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &str) -> Result<u64> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    /// A number of things that each take at least `least` bytes of what is left of the file.
    fn count(&mut self, field: &str, cap: u64, least: u64) -> Result<u64> {
        let n = self.u64(field)?;
        let most = cap.min(self.remaining() / least);
        if n > most {
            let why = if most == cap { "there may be" } else { "this file could hold" };
            return Err(self.bad(field, format!("{n} is more than the {most} {why}")));
        }
        Ok(n)
    }

    fn text(&mut self, field: &str, cap: u64) -> Result<String> {
        let length = self.count(field, cap, 1)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.fill(&mut bytes, field)?;
        String::from_utf8(bytes).map_err(|_| self.bad(field, "is not UTF-8"))
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        match self.u32(key)? {
            9 => self.array(key),
            kind => self.scalar(key, kind),
        }
    }

    fn scalar(&mut self, key: &str, kind: u32) -> Result<Value> {
        Ok(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.bytes(key)?).into(), 1),
            1 => Value::Signed(i8::from_le_bytes(self.bytes(key)?).into(), 1),
            2 => Value::Unsigned(u16::from_le_bytes(self.bytes(key)?).into(), 2),
            3 => Value::Signed(i16::from_le_bytes(self.bytes(key)?).into(), 2),
            4 => Value::Unsigned(self.u32(key)?.into(), 4),
            5 => Value::Signed(i32::from_le_bytes(self.bytes(key)?).into(), 4),
            6 => Value::Float(f32::from_le_bytes(self.bytes(key)?).into()),
            7 => match self.bytes::<1>(key)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                byte => return Err(self.bad(key, format!("boolean byte {byte} is not 0 or 1"))),
            },
            8 => Value::Text(self.text(key, MAX_STRING)?),
            10 => Value::Unsigned(self.u64(key)?, 8),
            11 => Value::Signed(i64::from_le_bytes(self.bytes(key)?), 8),
            12 => Value::Float(f64::from_le_bytes(self.bytes(key)?)),
            other => return Err(self.bad(key, format!("value type {other} is not a type of the format"))),
        })
    }

    fn array(&mut self, key: &str) -> Result<Value> {
        let kind = self.u32(key)?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.bad(key, "arrays of arrays are not supported")),
            other => {
                let problem = format!("array of type {other}, which is not a type of the format");
                return Err(self.bad(key, problem));
            }
        };
        let n = self.count(key, MAX_ARRAY, least)?;
        self.elements = self.elements.checked_sub(n).ok_or_else(|| {
            self.bad(key, format!("with it the lists of this header have more than {MAX_ELEMENTS} elements"))
        })?;
        let capacity = usize::try_from(n).unwrap_or(0);
        let mut list = match kind {
            6 | 12 => Value::Floats(Vec::with_capacity(capacity)),
            7 => Value::Bools(Vec::with_capacity(capacity)),
            8 => Value::Texts(Vec::with_capacity(capacity)),
            _ => Value::Integers(Vec::with_capacity(capacity)),
        };
        for _ in 0..n {
            match (&mut list, self.scalar(key, kind)?) {
                (Value::Floats(items), Value::Float(x)) => items.push(x),
                (Value::Bools(items), Value::Bool(x)) => items.push(x),
                (Value::Texts(items), Value::Text(x)) => items.push(x),
                (Value::Integers(items), Value::Signed(x, _)) => items.push(x),
                (Value::Integers(items), Value::Unsigned(x, _)) => items
                    .push(i64::try_from(x).map_err(|_| self.bad(key, format!("{x} does not fit 63 bits")))?),
                _ => return Err(self.bad(key, "mixes types")),
            }
        }
        Ok(list)
    }
}
