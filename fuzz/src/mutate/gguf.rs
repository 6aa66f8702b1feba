//! GGUF headers: parsed without any check, changed in one field, written again.

use super::Random;
use super::bytes::{self, border};
use super::change::change_list;
use super::words::{Words, change_text};

/// The sizes of the values of fixed size, by their type's number.
const SIZES: [usize; 13] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const TEXT: u32 = 8;
const LIST: u32 = 9;

#[derive(Clone)]
struct GgufKey {
    name: Vec<u8>,
    kind: u32,
    value: Vec<u8>,
}

#[derive(Clone)]
struct Tensor {
    name: Vec<u8>,
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

struct File {
    version: u32,
    keys: Vec<GgufKey>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

/// Reads numbers and texts from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.u64()?).ok()?;
        self.take(n)
    }

    /// The bytes of a value of that type.
    fn value(&mut self, kind: u32) -> Option<&'a [u8]> {
        let start = self.0;
        match kind {
            TEXT => {
                self.text()?;
            }
            LIST => {
                let (inner, n) = (self.u32()?, usize::try_from(self.u64()?).ok()?);
                if inner == TEXT {
                    (0..n).try_for_each(|_| self.text().map(drop))?;
                } else {
                    let size = SIZES.get(inner as usize).filter(|size| **size > 0)?;
                    self.take(size.checked_mul(n)?)?;
                }
            }
            other => {
                self.take(*SIZES.get(other as usize)?)?;
            }
        }
        start.get(..start.len() - self.0.len())
    }
}

fn read(data: &[u8]) -> Option<File> {
    let mut reader = Reader(data);
    reader.take(4).filter(|magic| *magic == b"GGUF")?;
    let (version, n_tensors, n_keys) = (reader.u32()?, reader.u64()?, reader.u64()?);
    let mut file = File { version, keys: Vec::new(), tensors: Vec::new(), data: Vec::new() };
    for _ in 0..n_keys {
        let (name, kind) = (reader.text()?.to_vec(), reader.u32()?);
        file.keys.push(GgufKey { name, kind, value: reader.value(kind)?.to_vec() });
    }
    for _ in 0..n_tensors {
        let (name, n_dims) = (reader.text()?.to_vec(), reader.u32()?);
        let dims = (0..n_dims).map(|_| reader.u64()).collect::<Option<_>>()?;
        file.tensors.push(Tensor { name, dims, kind: reader.u32()?, offset: reader.u64()? });
    }
    let header = (data.len() - reader.0.len()).next_multiple_of(alignment(&file.keys));
    file.data = data.get(header..)?.to_vec();
    Some(file)
}

/// The alignment the keys ask for, if it is a sensible one.
fn alignment(keys: &[GgufKey]) -> usize {
    let key = keys.iter().find(|key| key.name == b"general.alignment");
    let written = key.and_then(|key| Some(u32::from_le_bytes(key.value.as_slice().try_into().ok()?)));
    written.filter(|n| n.is_power_of_two() && *n <= 4096).map_or(32, |n| n as usize)
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn write(file: &File, counts: [u64; 2]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(file.version.to_le_bytes());
    out.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
    for key in &file.keys {
        text(&key.name, &mut out);
        out.extend(key.kind.to_le_bytes());
        out.extend(&key.value);
    }
    for tensor in &file.tensors {
        text(&tensor.name, &mut out);
        out.extend(u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(tensor.dims.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(tensor.kind.to_le_bytes());
        out.extend(tensor.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(alignment(&file.keys)), 0);
    out.extend(&file.data);
    out
}

/// Changes one field. `None` if it is no GGUF file.
pub(super) fn change(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    let mut file = read(data)?;
    let mut counts = None;
    let (key, tensor) = (random.below(file.keys.len()), random.below(file.tensors.len()));
    match random.below(16) {
        0 => file.version = border(random) as u32,
        1 => counts = Some([border(random), file.keys.len() as u64]),
        2 => counts = Some([file.tensors.len() as u64, border(random)]),
        3 => change_list(&mut file.keys, words, random, new_key),
        4 => change_list(&mut file.tensors, words, random, |words, random| Tensor {
            name: words.text(random).into_bytes(),
            dims: vec![border(random)],
            kind: random.below(40) as u32,
            offset: border(random),
        }),
        5 => bytes::change(&mut file.data, random),
        6..=10 if key < file.keys.len() => change_key(&mut file.keys[key], words, random),
        _ if tensor < file.tensors.len() => change_tensor(&mut file.tensors[tensor], words, random),
        _ => bytes::change(&mut file.data, random),
    }
    let counts = counts.unwrap_or([file.tensors.len() as u64, file.keys.len() as u64]);
    Some(write(&file, counts))
}

fn new_key(words: &Words, random: &mut Random) -> GgufKey {
    let mut key = GgufKey { name: words.word(random).into_bytes(), kind: TEXT, value: Vec::new() };
    new_value(&mut key, words, random);
    key
}

/// A value of some type, whole or not.
fn new_value(key: &mut GgufKey, words: &Words, random: &mut Random) {
    key.value.clear();
    key.kind = random.below(14) as u32;
    match key.kind {
        TEXT => text(words.text(random).as_bytes(), &mut key.value),
        LIST => {
            let (inner, n) = (random.below(13), random.size(300));
            key.value.extend((inner as u32).to_le_bytes());
            key.value.extend((n as u64).to_le_bytes());
            for _ in 0..n {
                match inner {
                    8 => text(words.text(random).as_bytes(), &mut key.value),
                    _ => key.value.extend(&border(random).to_le_bytes()[..SIZES[inner].min(8)]),
                }
            }
        }
        kind => {
            let number = if random.one_in(3) { f64::NAN.to_bits() } else { border(random) };
            let size = SIZES.get(kind as usize).map_or(8, |size| *size);
            key.value.extend(&number.to_le_bytes()[..size]);
        }
    }
}

fn change_key(key: &mut GgufKey, words: &Words, random: &mut Random) {
    match (random.below(8), key.kind) {
        (0, _) => key.name = words.text(random).into_bytes(),
        (1, _) => new_value(key, words, random),
        (2, _) => key.kind = border(random) as u32,
        (_, TEXT) => {
            let mut value = String::from_utf8_lossy(key.value.get(8..).unwrap_or(&[])).into_owned();
            change_text(&mut value, words, random);
            key.value.clear();
            text(value.as_bytes(), &mut key.value);
        }
        (3, LIST) if key.value.len() >= 12 => {
            key.value[4..12].copy_from_slice(&border(random).to_le_bytes());
        }
        (_, LIST) if key.value.starts_with(&TEXT.to_le_bytes()) => change_texts(key, words, random),
        (_, LIST) if key.value.len() > 12 => {
            // The count stays, and each element has its size.
            let size = SIZES.get(key.value[0] as usize).copied().unwrap_or(1).max(1);
            let at = 12 + random.below((key.value.len() - 12) / size) * size;
            let size = size.min(key.value.len() - at);
            key.value[at..at + size].copy_from_slice(&border(random).to_le_bytes()[..size]);
        }
        (4, 6) => key.value = float(random).to_le_bytes().to_vec(),
        _ => {
            let size = key.value.len().min(8);
            key.value[..size].copy_from_slice(&border(random).to_le_bytes()[..size]);
        }
    }
}

fn float(random: &mut Random) -> f32 {
    [0.0, -0.0, -1.0, 1e-45, 1e38, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5, 2.0][random.below(10)]
}

/// Changes the texts of a list.
fn change_texts(key: &mut GgufKey, words: &Words, random: &mut Random) {
    let mut reader = Reader(key.value.get(12..).unwrap_or(&[]));
    let mut texts: Vec<Vec<u8>> = std::iter::from_fn(|| reader.text().map(<[u8]>::to_vec)).collect();
    change_list(&mut texts, words, random, |words, random| words.text(random).into_bytes());
    key.value.truncate(4);
    key.value.extend((texts.len() as u64).to_le_bytes());
    texts.iter().for_each(|one| text(one, &mut key.value));
}

fn change_tensor(tensor: &mut Tensor, words: &Words, random: &mut Random) {
    match random.below(6) {
        0 => tensor.name = words.text(random).into_bytes(),
        1 => tensor.kind = if random.one_in(4) { border(random) as u32 } else { random.below(40) as u32 },
        2 => tensor.offset = border(random),
        3 => change_list(&mut tensor.dims, words, random, |_, random| border(random)),
        4 => tensor.dims.reverse(),
        _ => {
            let at = random.below(tensor.dims.len());
            if let Some(dim) = tensor.dims.get_mut(at) {
                *dim = if random.one_in(2) { border(random) } else { dim.wrapping_add(1) };
            }
        }
    }
}
