//! What torch.save writes: an archive with a pickle of the tensors' names and shapes, and their numbers; before version
//! 1.6 pickles with the numbers behind them.
//!
//! Nothing of the pickle is run (see `pickle`); only a flat dictionary of tensors by name is read, as
//! `Module.state_dict()` gives it.

use super::archive::{self, Member};
use super::data_file::DataFile;
use super::entry::{Encoding, Entry, Order};
use super::pickle::{self, Tensor};
use crate::Result;
use std::collections::HashMap;

/// Names and shapes of many thousand tensors.
const MAX_PICKLE: u64 = 4 << 20;

/// Beside the pickle and the numbers: versions, and what tells one saved file from another.
const OTHERS: [&str; 4] = ["version", ".format_version", ".storage_alignment", ".data/serialization_id"];

/// The tensors of a file. Their numbers are not read, nor are their checksums checked ([`check_sums`]).
///
/// # Errors
/// When it is neither such an archive nor such pickles, or holds anything but a dictionary of tensors.
pub fn entries(file: &DataFile) -> Result<Vec<Entry>> {
    if is_pickle(file)? {
        return legacy(file);
    }
    let members = archive::members(file)?;
    let folder =
        members.first().and_then(|first| first.name.split_once('/')).map_or("", |(folder, _)| folder);
    let mut parts: HashMap<&str, &Member> = HashMap::new();
    for member in &members {
        let Some(name) = member.name.strip_prefix(folder).and_then(|name| name.strip_prefix('/')) else {
            return Err(file.bad(&member.name, format!("is not in the folder \"{folder}\" of the others")));
        };
        if member.is_compressed {
            return Err(file.bad(&member.name, "is compressed, which torch never does"));
        }
        let is_storage =
            || name.strip_prefix("data/").is_some_and(|key| key.bytes().all(|b| b.is_ascii_digit()));
        if !(name == "data.pkl" || name == "byteorder" || OTHERS.contains(&name) || is_storage()) {
            return Err(file.bad(&member.name, "is nothing that a file of tensors holds"));
        }
        parts.insert(name, member);
    }
    if let Some(order) = parts.get("byteorder") {
        let order = order.read(file, 16)?;
        if order != b"little" {
            let order = String::from_utf8_lossy(&order);
            return Err(file.bad("byteorder", format!("{order:?}, where little fits")));
        }
    }
    let pickle = parts.get("data.pkl").ok_or_else(|| file.bad("data.pkl", "is missing"))?;
    let tensors = pickle::state_dict(&pickle.read(file, MAX_PICKLE)?);
    let tensors = tensors.map_err(|problem| file.bad("data.pkl", problem))?;
    let mut kinds: HashMap<&str, (&str, u64)> = HashMap::new();
    for (name, Tensor { storage, .. }) in &tensors {
        let known = *kinds.entry(&storage.key).or_insert((storage.kind, storage.count));
        if known != (storage.kind, storage.count) {
            let problem = format!("takes storage {} for something else than another tensor", storage.key);
            return Err(file.bad(name, problem));
        }
    }
    let entry = |(name, tensor): &(String, Tensor)| {
        let data = parts.get(format!("data/{}", tensor.storage.key).as_str());
        let data = data.map(|member| Data { offset: member.offset, bytes: member.stored });
        placed(name, tensor, data).map_err(|problem| file.bad(name, problem))
    };
    tensors.iter().map(entry).collect()
}

/// Checks the numbers of a file against its checksums: reads all of it. The format before version 1.6 has none.
///
/// # Errors
/// When the file is damaged.
pub fn check_sums(file: &DataFile) -> Result<()> {
    if is_pickle(file)? { Ok(()) } else { archive::check_sums(file, &archive::members(file)?) }
}

/// Whether a file starts as a pickle does, and not as an archive.
fn is_pickle(file: &DataFile) -> Result<bool> {
    Ok(file.bytes_at(0, file.len().min(1))? == [0x80])
}

/// The tensors of a file in the format before version 1.6: pickles, then each storage's count in eight bytes and its numbers.
fn legacy(file: &DataFile) -> Result<Vec<Entry>> {
    let bytes = file.bytes_at(0, file.len().min(MAX_PICKLE))?;
    let found = pickle::legacy(&bytes).map_err(|problem| file.bad("pickle", problem))?;
    let mut at = found.end as u64;
    let mut places: HashMap<&str, Data> = HashMap::new();
    for storage in &found.storages {
        let bad = |problem: String| file.bad("storages", format!("storage {}: {problem}", storage.key));
        let mut count = [0; 8];
        if file.len() - at < 8 {
            return Err(bad("the file ends before it".into()));
        }
        file.read_at(&mut count, at)?;
        let count = u64::from_le_bytes(count);
        if count != storage.count {
            return Err(bad(format!("has {count} numbers, where its tensors say {}", storage.count)));
        }
        let size = count.checked_mul(encoding(storage.kind).block().1);
        let Some(size) = size.filter(|size| *size <= file.len() - at - 8) else {
            return Err(bad(format!("its {count} numbers pass the end of the file")));
        };
        places.insert(&storage.key, Data { offset: at + 8, bytes: size });
        at += 8 + size;
    }
    if at != file.len() {
        return Err(file.bad("storages", format!("{} bytes follow the last one", file.len() - at)));
    }
    let entry = |(name, tensor): &(String, Tensor)| {
        let data = places.get(tensor.storage.key.as_str()).copied();
        placed(name, tensor, data).map_err(|problem| file.bad(name, problem))
    };
    found.tensors.iter().map(entry).collect()
}

/// Where the numbers of a storage are in the file.
#[derive(Debug, Clone, Copy)]
struct Data {
    offset: u64,
    bytes: u64,
}

/// How the numbers of a kind of storage are stored.
fn encoding(kind: &str) -> Encoding {
    match kind {
        "FloatStorage" => Encoding::F32,
        "HalfStorage" => Encoding::F16,
        "BFloat16Storage" => Encoding::BF16,
        "DoubleStorage" => Encoding::F64,
        "LongStorage" => Encoding::Other(8),
        "IntStorage" => Encoding::Other(4),
        "ShortStorage" => Encoding::Other(2),
        _ => Encoding::Other(1),
    }
}

/// Where a tensor's numbers are.
fn placed(name: &str, tensor: &Tensor, data: Option<Data>) -> Result<Entry, String> {
    let Tensor { storage, offset, shape, strides } = tensor;
    let data = data.ok_or_else(|| format!("its storage {} is missing", storage.key))?;
    let encoding = encoding(storage.kind);
    let size = encoding.block().1;
    if storage.count.checked_mul(size) != Some(data.bytes) {
        return Err(format!("its storage of {} numbers has {} bytes", storage.count, data.bytes));
    }
    let count = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
    let end = count.and_then(|count| offset.checked_add(count));
    let (Some(count), true) = (count, end.is_some_and(|end| end <= storage.count)) else {
        let most = storage.count;
        return Err(format!("its shape {shape:?} from {offset} on is more than its storage of {most}"));
    };
    let order = if is_dense(shape.iter().zip(strides).rev()) {
        Order::Rows
    } else if is_dense(shape.iter().zip(strides)) {
        Order::Columns
    } else {
        return Err(format!(
            "its strides {strides:?} for shape {shape:?} are of a view that is not in one piece"
        ));
    };
    if strides.len() != shape.len() {
        return Err(format!("has {} strides for {} axes", strides.len(), shape.len()));
    }
    Ok(Entry {
        name: name.into(),
        shape: shape.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect(),
        encoding,
        offset: data.offset + offset * size,
        bytes: count * size,
        order,
    })
}

/// Whether axes, the fastest first, lie without gap or overlap; the stride of an axis of one means nothing.
fn is_dense<'a>(axes: impl Iterator<Item = (&'a u64, &'a u64)>) -> bool {
    let mut expected = 1u64;
    for (size, stride) in axes {
        if *size != 1 && *stride != expected {
            return false;
        }
        expected = expected.saturating_mul(*size);
    }
    true
}
