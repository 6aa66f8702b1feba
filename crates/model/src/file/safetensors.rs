//! The safetensors header: which tensors a file holds, and where.
//!
//! Eight bytes of length, a JSON object, then the tensors without gap or overlap. Every claim is
//! checked against the file's size before a tensor is read.

use super::data_file::DataFile;
use super::entry::{Encoding, Entry, Order};
use super::json;
use crate::Result;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const METADATA: &str = "__metadata__";

/// No real model comes near: a header of 10 000 tensors takes about one megabyte.
const MAX_HEADER: u64 = 8 << 20;

/// A tensor as the header declares it: its data is `begin..end` within the data section.
struct Declared {
    name: String,
    encoding: Encoding,
    shape: Vec<usize>,
    begin: u64,
    end: u64,
}

/// Reads and checks the header of `file`.
///
/// # Errors
/// When anything in it is malformed, contradicts the file's size, or is of a type that is not a
/// plain little-endian number.
pub fn entries(file: &DataFile) -> Result<Vec<Entry>> {
    let (header, start) = header(file)?;
    let mut declared = Vec::with_capacity(header.len());
    for (name, value) in &header {
        if name == METADATA {
            let texts = value.as_object().is_some_and(|m| m.values().all(Value::is_string));
            if !texts {
                return Err(file.bad(METADATA, "is not a map of texts"));
            }
            continue;
        }
        declared.push(declaration(name, value).map_err(|problem| file.bad(name, problem))?);
    }

    // Together the tensors must cover the data section exactly, in some order.
    declared.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let mut next = 0;
    for tensor in &declared {
        if tensor.begin != next {
            let kind = if tensor.begin > next { "leaves a hole" } else { "overlaps another tensor" };
            let problem = format!("data_offsets begin at {}, not at {next}: it {kind}", tensor.begin);
            return Err(file.bad(&tensor.name, problem));
        }
        next = tensor.end;
    }
    if file.len() - start != next {
        let held = file.len() - start;
        let cut = if held < next { ": the file is truncated, download it again" } else { "" };
        return Err(file.bad("data", format!("the tensors take {next} bytes, the file holds {held}{cut}")));
    }
    let entry = |d: Declared| Entry {
        name: d.name,
        shape: d.shape,
        encoding: d.encoding,
        offset: start + d.begin,
        bytes: d.end - d.begin,
        order: Order::Rows,
    };
    Ok(declared.into_iter().map(entry).collect())
}

/// What the file says of itself besides its tensors.
///
/// # Errors
/// When the header is malformed.
pub fn metadata(file: &DataFile) -> Result<BTreeMap<String, String>> {
    let (header, _) = header(file)?;
    let written = header.get(METADATA).and_then(Value::as_object);
    let texts =
        written.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into())));
    Ok(texts.collect())
}

/// The header as JSON, and where the tensors start.
fn header(file: &DataFile) -> Result<(Map<String, Value>, u64)> {
    if file.len() < 8 {
        return Err(file.bad("header length", format!("the file has only {} bytes", file.len())));
    }
    let mut length = [0; 8];
    file.read_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    let most = MAX_HEADER.min(file.len() - 8);
    if !(1..=most).contains(&length) {
        return Err(file.bad("header length", format!("{length} is not between 1 and {most}")));
    }
    let text = file.bytes_at(8, length)?;
    if text.first() != Some(&b'{') {
        return Err(file.bad("header", "does not start with '{'"));
    }
    match json::parse(&text) {
        Ok(Value::Object(header)) => Ok((header, 8 + length)),
        Ok(_) => Err(file.bad("header", "is not a JSON object")),
        Err(error) => Err(file.bad("header", error.to_string())),
    }
}

/// Checks one entry of the header by itself.
fn declaration(name: &str, value: &Value) -> Result<Declared, String> {
    let object = value.as_object().ok_or("is not an object")?;
    if let Some(key) = object.keys().find(|k| !["dtype", "shape", "data_offsets"].contains(&k.as_str())) {
        return Err(format!("unknown key {key:?}"));
    }
    let dtype = object.get("dtype").and_then(Value::as_str).ok_or("has no dtype")?;
    let encoding = Encoding::from_safetensors(dtype).ok_or_else(|| {
        format!("dtype {dtype:?} is not supported; supported: F64, F32, F16, BF16, I64, U8, BOOL")
    })?;
    let numbers = |key: &str| -> Result<Vec<u64>, String> {
        let list = object.get(key).and_then(Value::as_array);
        list.and_then(|l| l.iter().map(Value::as_u64).collect())
            .ok_or_else(|| format!("{key} is not a list of whole numbers"))
    };
    let shape = numbers("shape")?;
    let &[begin, end] = numbers("data_offsets")?.as_slice() else {
        return Err("data_offsets are not two numbers".into());
    };
    let size = shape
        .iter()
        .try_fold(encoding.block().1, |n, &d| n.checked_mul(d))
        .ok_or("its size does not fit 64 bits")?;
    if begin.checked_add(size) != Some(end) {
        return Err(format!("data_offsets {begin}..{end} do not hold the {size} bytes of {dtype} {shape:?}"));
    }
    let shape = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| "its shape does not fit this machine")?;
    Ok(Declared { name: name.into(), encoding, shape, begin, end })
}
