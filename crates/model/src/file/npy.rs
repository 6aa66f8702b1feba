//! NumPy's files: a header that says what the numbers are, then the numbers. An npz is an archive of them.
//!
//! The header is a Python dictionary. Only the one that NumPy writes is read: `{'descr': '<f4',
//! 'fortran_order': False, 'shape': (2, 3), }`; nothing is evaluated.

use super::archive::{self, Member};
use super::data_file::DataFile;
use super::entry::{Encoding, Entry, Order};
use crate::{Error, Result};
use std::io::Write;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy's own limit.
const MAX_HEADER: u64 = 10_000;

/// The tensor of a .npy file, by the name it is to have.
///
/// # Errors
/// When the header is none, or contradicts the file's size.
pub fn entry(file: &DataFile, name: &str) -> Result<Entry> {
    within(file, name, 0, file.len())
}

/// The tensors of a .npz file, each with the file they are in: the archive, or where they were unpacked to.
///
/// # Errors
/// When the archive or a header in it is malformed.
pub fn of_archive(file: DataFile) -> Result<Vec<(DataFile, Vec<Entry>)>> {
    let members = archive::members(&file)?;
    archive::check_sums(&file, &members)?;
    if members.is_empty() {
        return Err(file.bad("archive", "holds nothing"));
    }
    let mut found = Vec::new();
    let mut in_place = Vec::new();
    for member in &members {
        let Some(name) = member.name.strip_suffix(".npy") else {
            return Err(file.bad(&member.name, "is no array: its name does not end in .npy"));
        };
        if member.is_compressed {
            let unpacked = unpacked(&file, member)?;
            let entry = entry(&unpacked, name)?;
            found.push((unpacked, vec![entry]));
        } else {
            in_place.push(within(&file, name, member.offset, member.stored)?);
        }
    }
    found.push((file, in_place));
    Ok(found)
}

/// A compressed member as a file of its own, which is gone when it is closed. How large all of them are
/// together was bounded when the archive was read.
fn unpacked(file: &DataFile, member: &Member) -> Result<DataFile> {
    let io = |source| Error::io(file.path(), "unpack", source);
    let mut unpacked = tempfile::tempfile().map_err(io)?;
    unpacked.write_all(&member.read(file, u64::MAX)?).map_err(io)?;
    Ok(DataFile { path: file.path().into(), file: unpacked, len: member.size })
}

/// The array at some bytes of a file.
fn within(file: &DataFile, name: &str, offset: u64, size: u64) -> Result<Entry> {
    let bad = |problem: String| file.bad(name, problem);
    let mut start = file.bytes_at(offset, size.min(12))?;
    if start.len() < 10 || start[..6] != *MAGIC {
        return Err(bad("is no NumPy array".into()));
    }
    start.resize(12, 0);
    let (before, header) = match start[6..8] {
        [1, 0] => (10, u64::from(u16::from_le_bytes([start[8], start[9]]))),
        [2 | 3, 0] => (12, u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]]))),
        _ => return Err(bad(format!("is of NumPy's format {}.{}, where 1 to 3 fit", start[6], start[7]))),
    };
    if header > MAX_HEADER || before + header > size {
        return Err(bad(format!("its header of {header} bytes is longer than it may be, or than the file")));
    }
    let text = String::from_utf8(file.bytes_at(offset + before, header)?);
    let text = text.map_err(|_| bad("its header is not UTF-8".into()))?;
    let Header { descr, by_column, shape } = parse(&text).map_err(bad)?;
    let encoding = match descr.as_str() {
        "<f4" => Encoding::F32,
        "<f2" => Encoding::F16,
        "<f8" => Encoding::F64,
        "<i8" | "<u8" => Encoding::Other(8),
        "<i4" | "<u4" => Encoding::Other(4),
        "<i2" | "<u2" => Encoding::Other(2),
        "|i1" | "|u1" | "|b1" => Encoding::Other(1),
        "|O" => return Err(bad("holds Python objects, which are pickles and are not read".into())),
        other => {
            return Err(bad(format!("holds numbers of type {other:?}; those read are <f4, <f2 and <f8")));
        }
    };
    let count = shape.iter().try_fold(1u64, |all, n| all.checked_mul(*n));
    let bytes = count.and_then(|count| count.checked_mul(encoding.block().1));
    let data = size - before - header;
    if bytes != Some(data) {
        let problem = format!("its shape {shape:?} of {descr} does not take the {data} bytes that follow");
        return Err(bad(problem));
    }
    let shape: Vec<usize> = shape.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect();
    let order = if by_column { Order::Columns } else { Order::Rows };
    Ok(Entry { name: name.into(), shape, encoding, offset: offset + before + header, bytes: data, order })
}

/// What a header says.
struct Header {
    descr: String,
    by_column: bool,
    shape: Vec<u64>,
}

/// Reads the one dictionary a header may be: its three keys in any order.
fn parse(text: &str) -> Result<Header, String> {
    let wrong = || format!("its header {:?} is not what NumPy writes", text.trim_end());
    let inside = text.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).ok_or_else(wrong)?;
    let (mut descr, mut by_column, mut shape) = (None, None, None);
    let mut rest = inside.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(wrong)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(wrong)?.trim_start();
        rest = match key {
            "descr" if descr.is_none() => {
                let (found, after) =
                    quoted(value).ok_or_else(|| "holds records, and not numbers".to_string())?;
                descr = Some(found.to_owned());
                after
            }
            "fortran_order" if by_column.is_none() => {
                let word =
                    ["True", "False"].into_iter().find(|word| value.starts_with(word)).ok_or_else(wrong)?;
                by_column = Some(word == "True");
                &value[word.len()..]
            }
            "shape" if shape.is_none() => {
                let (numbers, after) =
                    value.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(wrong)?;
                shape = Some(sizes(numbers).ok_or_else(wrong)?);
                after
            }
            _ => return Err(wrong()),
        };
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(wrong()),
        }
    }
    match (descr, by_column, shape) {
        (Some(descr), Some(by_column), Some(shape)) => Ok(Header { descr, by_column, shape }),
        _ => Err(wrong()),
    }
}

/// A text between quotes, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    let (found, rest) = text[1..].split_once(quote)?;
    (!found.contains('\\')).then_some((found, rest))
}

/// The sizes of a shape: "", "3," or "2, 3" with nothing but digits.
fn sizes(text: &str) -> Option<Vec<u64>> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let numbers = match parts.as_slice() {
        [""] => &[],
        // One size has a comma after it.
        [_] => return None,
        [rest @ .., ""] => rest,
        all => all,
    };
    let number = |text: &&str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| plain)
    };
    numbers.iter().map(number).collect()
}
