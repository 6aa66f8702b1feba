//! The tensors of one model, from one file or many, read as f32 by name.

use super::data_file::DataFile;
use super::entry::{Encoding, Entry, Form, Order};
use super::precision::Precision;
use super::{gguf, npy, safetensors, torch};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, WithDType};
use causalcone_ops::Blocks;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The tensors of a model by name. Remembers which were taken, so that a tensor nobody understood
/// is an error ([`Weights::finish`]) and not a silently different model.
#[derive(Debug)]
pub struct Weights {
    files: Vec<DataFile>,
    entries: HashMap<String, (usize, Entry)>,
    taken: Mutex<HashSet<String>>,
    sums: fn(&DataFile) -> Result<()>,
}

/// A matrix out of a file, its rows the slowest axis.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its numbers, or its rows as bytes of blocks.
    pub(crate) rows: Tensor,
    pub(crate) blocks: Option<Blocks>,
}

impl Weights {
    /// The tensors of a GGUF file whose header was read.
    ///
    /// # Errors
    /// Never for a header from [`gguf::read`], whose names are unique.
    pub fn from_gguf(file: DataFile, header: &gguf::Header) -> Result<Self> {
        Self::from_parts(vec![(file, header.tensors.clone())])
    }

    /// The tensors of several files whose headers were read.
    ///
    /// # Errors
    /// When two files hold a tensor of the same name.
    pub fn from_parts(parts: Vec<(DataFile, Vec<Entry>)>) -> Result<Self> {
        let mut weights = Self::empty();
        for (file, entries) in parts {
            weights.add(file, entries)?;
        }
        Ok(weights)
    }

    /// The tensors of one or more safetensors files.
    ///
    /// # Errors
    /// When a header is broken, or two files hold a tensor of the same name.
    pub fn from_safetensors(paths: &[impl AsRef<Path>]) -> Result<Self> {
        let part = |path: &Path| {
            let file = DataFile::open(path)?;
            let entries = safetensors::entries(&file)?;
            Ok((file, entries))
        };
        Self::from_parts(paths.iter().map(|path| part(path.as_ref())).collect::<Result<_>>()?)
    }

    /// The tensors of a NumPy file: those of a .npz by their names, the one of a .npy as `arr`.
    ///
    /// # Errors
    /// When it is malformed, or holds something else than arrays of plain numbers.
    pub fn from_numpy(path: &Path) -> Result<Self> {
        let file = DataFile::open(path)?;
        let mut weights = Self::empty();
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
            let entry = npy::entry(&file, "arr")?;
            weights.add(file, vec![entry])?;
        } else {
            for (file, entries) in npy::of_archive(file)? {
                weights.add(file, entries)?;
            }
        }
        Ok(weights)
    }

    /// The tensors of a state dict that torch.save wrote, by name. Nothing in the file is run.
    ///
    /// # Errors
    /// When it is malformed, or holds anything but tensors by name.
    pub fn from_torch(path: &Path) -> Result<Self> {
        let file = DataFile::open(path)?;
        let entries = torch::entries(&file)?;
        torch::check_sums(&file)?;
        Self::from_parts(vec![(file, entries)])
    }

    fn empty() -> Self {
        Self { files: Vec::new(), entries: HashMap::new(), taken: Mutex::default(), sums: |_| Ok(()) }
    }

    /// The same tensors, of whose files `sums` checks the checksums before weights are read.
    pub(crate) fn with_sums(self, sums: fn(&DataFile) -> Result<()>) -> Self {
        Self { sums, ..self }
    }

    /// Checks the files' checksums, where the format has them; this reads whole files.
    ///
    /// # Errors
    /// When a file is damaged.
    pub(crate) fn check_sums(&self) -> Result<()> {
        self.files.iter().try_for_each(self.sums)
    }

    fn add(&mut self, file: DataFile, entries: Vec<Entry>) -> Result<()> {
        let index = self.files.len();
        for entry in entries {
            if let Some((other, _)) = self.entries.get(&entry.name) {
                let other = self.files[*other].path().display();
                return Err(file.bad(entry.name, format!("is also in {other}")));
            }
            self.entries.insert(entry.name.clone(), (index, entry));
        }
        self.files.push(file);
        Ok(())
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// An error about the tensor of that name.
    pub(crate) fn bad(&self, name: &str, problem: &str) -> Error {
        let file = self.entries.get(name).map_or(0, |(file, _)| *file);
        Error::file(self.files.get(file).map_or(Path::new(""), DataFile::path), name, problem)
    }

    /// The names and declarations of all tensors, with the index of their file.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(|(_, entry)| entry)
    }

    /// The tensors that were taken, in the order of their files.
    pub(crate) fn taken(&self) -> Vec<&Entry> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<&(usize, Entry)> =
            self.entries.values().filter(|(_, entry)| taken.contains(&entry.name)).collect();
        found.sort_by_key(|(file, entry)| (*file, entry.offset));
        found.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Finds a tensor and its file, checks that it has that shape and holds floats, and counts it as taken. Its values
    /// are not read.
    ///
    /// # Errors
    /// As [`take`](Self::take), but for values that are not finite.
    pub(crate) fn claim(&self, name: &str, shape: &[usize]) -> Result<(&DataFile, &Entry)> {
        let Some((index, entry)) = self.entries.get(name) else {
            return Err(self.bad(name, "the tensor is missing"));
        };
        let file = &self.files[*index];
        if entry.shape != shape {
            let problem = format!("has shape {:?}, where this configuration has {shape:?}", entry.shape);
            return Err(file.bad(name, problem));
        }
        if matches!(entry.encoding, Encoding::Other(_)) {
            return Err(file.bad(name, "is not a tensor of floats"));
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into());
        Ok((file, entry))
    }

    /// The matrix of that name, which must have that shape, held with that precision.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn take_matrix(&self, name: &str, shape: &[usize; 2], precision: Precision) -> Result<Stored> {
        let (file, entry) = self.claim(name, shape)?;
        let (rows, blocks) = match entry.form(precision) {
            Form::Full => (self.take(name, shape)?, None),
            Form::Half(DType::F16) => (halves(file, entry, half::f16::from_le_bytes)?, None),
            Form::Half(_) => (halves(file, entry, half::bf16::from_le_bytes)?, None),
            Form::Packed(blocks) => (packed(file, entry, shape, blocks)?, Some(blocks)),
        };
        Ok(Stored { rows, blocks })
    }

    /// Some rows of a matrix as f32, read without the others; `None` where they do not lie side by side in the file.
    ///
    /// # Errors
    /// As [`take`](Self::take); when there are no such rows.
    pub(crate) fn rows(
        &self,
        name: &str,
        shape: &[usize; 2],
        rows: Range<usize>,
    ) -> Result<Option<Vec<f32>>> {
        let (file, entry) = self.claim(name, shape)?;
        let (block, block_bytes) = entry.encoding.block();
        let [height, width] = shape.map(|size| size as u64);
        let (first, count) = (rows.start as u64, rows.len() as u64);
        if entry.order != Order::Rows || !width.is_multiple_of(block) {
            return Ok(None);
        }
        if first + count > height {
            let problem = format!("has no row {}: its rows go from 0 to {}", rows.end.max(1) - 1, height - 1);
            return Err(file.bad(name, problem));
        }
        let row = width / block * block_bytes;
        let part = Entry {
            shape: vec![rows.len(), shape[1]],
            offset: entry.offset + first * row,
            bytes: count * row,
            ..entry.clone()
        };
        widen(file, &part).map(Some)
    }

    /// Whether two matrices of the same shape hold the same numbers, compared some rows at a time.
    ///
    /// # Errors
    /// As [`take`](Self::take), which counts them as taken.
    pub(crate) fn are_equal(&self, names: [&str; 2], shape: &[usize; 2]) -> Result<bool> {
        let [height, width] = *shape;
        // Several pieces, so that all cores read.
        let step = (16 * PIECE as usize / width.max(1)).max(1);
        for first in (0..height).step_by(step) {
            let rows = first..height.min(first + step);
            let parts = names.map(|name| self.rows(name, shape, rows.clone()));
            match parts {
                [Ok(Some(one)), Ok(Some(other))] => {
                    if one != other {
                        return Ok(false);
                    }
                }
                [Err(error), _] | [_, Err(error)] => return Err(error),
                // One is stored by columns.
                _ => {
                    let difference = (self.take(names[0], shape)? - self.take(names[1], shape)?)?;
                    return Ok(difference.abs()?.max_all()?.to_scalar::<f32>()? == 0.0);
                }
            }
        }
        Ok(true)
    }

    /// The tensor of that name, which must have that shape, as f32.
    ///
    /// Large tensors are read and widened in pieces by all cores, so little more than the result is
    /// ever in memory.
    ///
    /// # Errors
    /// When it is missing, has another shape, is no float, or holds a value that is not finite.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (file, entry) = self.claim(name, shape)?;
        let values = widen(file, entry)?;
        if entry.order == Order::Columns {
            let reversed: Vec<usize> = (0..shape.len()).rev().collect();
            let shape: Vec<usize> = shape.iter().rev().copied().collect();
            return Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.permute(reversed)?.contiguous()?);
        }
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    /// Checks that every tensor was taken; `ignored` names the buffers that carry no weight.
    ///
    /// # Errors
    /// When one was not: the family would not be computed as the file means it.
    pub fn finish(&self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left: Vec<_> =
            self.entries.iter().filter(|(name, _)| !taken.contains(*name) && !ignored(name)).collect();
        left.sort_by_key(|(name, _)| *name);
        let [(name, (file, _)), rest @ ..] = left.as_slice() else { return Ok(()) };
        let others = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
        let problem =
            format!("this model family has no such tensor{others}; leaving it out would change the answers");
        Err(self.files[*file].bad(name.as_str(), problem))
    }
}

/// Numbers are read in pieces of about this many.
const PIECE: u64 = 1 << 20;

/// Reads a matrix of numbers of 16 bits as it is.
fn halves<T>(file: &DataFile, entry: &Entry, number: fn([u8; 2]) -> T) -> Result<Tensor>
where
    T: WithDType + Default,
    f32: From<T>,
{
    let values = read(file, entry, |bytes, out| each(bytes, out, number), f32::from)?;
    Ok(Tensor::from_vec(values, entry.shape.as_slice(), &Device::Cpu)?)
}

/// Reads one tensor and widens it to f32.
fn widen(file: &DataFile, entry: &Entry) -> Result<Vec<f32>> {
    let decode = |bytes: &[u8], out: &mut [f32]| match entry.encoding {
        Encoding::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Encoding::F32 => each(bytes, out, f32::from_le_bytes),
        Encoding::F16 => each(bytes, out, |b| half::f16::from_le_bytes(b).to_f32()),
        Encoding::BF16 => each(bytes, out, |b| half::bf16::from_le_bytes(b).to_f32()),
        Encoding::Blocks(blocks) => blocks.widen_into(bytes, out),
        // `claim` refuses these.
        Encoding::Other(_) => {}
    };
    read(file, entry, decode, |x| x)
}

fn each<const N: usize, T>(bytes: &[u8], out: &mut [T], number: impl Fn([u8; N]) -> T) {
    for (x, &raw) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *x = number(raw);
    }
}

/// Reads the numbers of a tensor, which `decode` makes of their bytes. All of them must be finite.
fn read<T: Copy + Default + Send>(
    file: &DataFile,
    entry: &Entry,
    decode: impl Fn(&[u8], &mut [T]) + Sync,
    widened: impl Fn(T) -> f32 + Sync,
) -> Result<Vec<T>> {
    let (block, block_bytes) = entry.encoding.block();
    let blocks = (PIECE / block).max(1);
    let mut values = vec![T::default(); entry.shape.iter().product()];
    let piece = usize::try_from(blocks * block).unwrap_or(usize::MAX);
    let fill = |(i, out): (usize, &mut [T])| {
        let offset = entry.offset + i as u64 * blocks * block_bytes;
        decode(&file.bytes_at(offset, out.len() as u64 / block * block_bytes)?, out);
        let bad = out.iter().map(|x| widened(*x)).find(|x| !x.is_finite());
        bad.map_or(Ok(()), |x| Err(not_finite(file, entry, x)))
    };
    // One piece is not worth waking a thread.
    if values.len() <= piece {
        values.chunks_mut(piece).enumerate().try_for_each(fill)?;
    } else {
        values.par_chunks_mut(piece).enumerate().try_for_each(fill)?;
    }
    Ok(values)
}

/// Reads the rows of a matrix as they are in the file, rows × bytes.
fn packed(file: &DataFile, entry: &Entry, shape: &[usize; 2], blocks: Blocks) -> Result<Tensor> {
    let [rows, inner] = *shape;
    let size = inner / blocks.numbers() * blocks.bytes();
    if !inner.is_multiple_of(blocks.numbers()) || (rows * size) as u64 != entry.bytes {
        let problem = format!("has rows of {inner}, which are no whole blocks of {}", blocks.numbers());
        return Err(file.bad(&entry.name, problem));
    }
    let mut bytes = vec![0; rows * size];
    let piece = (PIECE as usize / inner.max(1)).max(1) * size.max(1);
    bytes.par_chunks_mut(piece).enumerate().try_for_each(|(i, out)| {
        file.read_at(out, entry.offset + (i * piece) as u64)?;
        blocks.not_finite(out).map_or(Ok(()), |x| Err(not_finite(file, entry, x)))
    })?;
    Ok(Tensor::from_vec(bytes, (rows, size), &Device::Cpu)?)
}

fn not_finite(file: &DataFile, entry: &Entry, x: f32) -> Error {
    file.bad(&entry.name, format!("holds {x}, which no weight can be"))
}
