//! Pickles of tensors by name, read without running anything.
//!
//! A pickle is a program for a stack machine. This machine knows the few instructions that torch.save
//! uses for a state dict and the few names they may call, each of which only makes a plain value; any
//! other is an error that names it. Values live in one list and name each other by their place in it: what
//! refers to itself, or is nested a million deep, is no harder to hold or to drop than anything else.

mod machine;
mod value;

pub(super) use value::Tensor;

use machine::{LONGEST_INT, Machine};
use std::collections::HashMap;
use value::{At, Storage, Value};

/// The tensors of a pickled state dict by name, in its order.
///
/// # Errors
/// When it is something else, uses anything a state dict does not need, or is cut short.
pub(super) fn state_dict(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let mut machine = Machine::new(bytes, 0, false);
    let result = machine.run()?;
    if machine.next != bytes.len() {
        return Err(format!("{} bytes follow its end", bytes.len() - machine.next));
    }
    machine.tensors(result)
}

/// What torch's format before version 1.6 has in front of the numbers.
#[derive(Debug)]
pub(super) struct Legacy {
    /// The tensors by name.
    pub(super) tensors: Vec<(String, Tensor)>,
    /// The storages, in the order in which they follow.
    pub(super) storages: Vec<Storage>,
    /// Where they start.
    pub(super) end: usize,
}

/// The integer that torch's format before version 1.6 begins with.
const LEGACY_MAGIC: [u8; LONGEST_INT] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The version that this format always had.
const LEGACY_VERSION: i64 = 1001;

/// Reads the five pickles of torch's format before version 1.6: a magic number, a version, a description of the machine, the
/// state dict, and the keys of the storages that follow. `bytes` are the start of the file.
///
/// # Errors
/// When one of them is something else, or any storage is not listed once.
pub(super) fn legacy(bytes: &[u8]) -> Result<Legacy, String> {
    // A machine is dropped before the next one runs: each may hold as many values as there may be.
    let ((), next) = run_at(bytes, 0, |machine, result| match &machine.values[result] {
        Value::Long(range) if bytes.get(range.clone()) == Some(&LEGACY_MAGIC[..]) => Ok(()),
        _ => Err("is a pickle that torch.save did not write".into()),
    })?;
    let ((), next) = run_at(bytes, next, |machine, result| match machine.values[result] {
        Value::Int(LEGACY_VERSION) => Ok(()),
        _ => Err(format!("its format is not version {LEGACY_VERSION}")),
    })?;
    let ((), next) = run_at(bytes, next, |machine, result| {
        let Value::Dict(pairs) = &machine.values[result] else {
            return Err("does not describe the machine that wrote it".into());
        };
        let order = pairs.iter().find(|(key, _)| machine.text(*key) == Some("little_endian"));
        match order.map(|(_, value)| &machine.values[*value]) {
            Some(Value::Bool(true)) => Ok(()),
            _ => Err("was not written on a little-endian machine; only those files are supported".into()),
        }
    })?;
    let ((tensors, mut left), next) =
        run_at(bytes, next, |machine, result| Ok((machine.tensors(result)?, machine.storages()?)))?;
    let (storages, end) = run_at(bytes, next, |machine, result| {
        let Value::List(items) = &machine.values[result] else {
            return Err("does not list its storages".into());
        };
        let storage = |item: &At| -> Result<Storage, String> {
            let key = machine.text(*item).ok_or("the key of a storage is no str")?;
            left.remove(key)
                .ok_or_else(|| format!("lists storage {key:?}, which no tensor has, or lists it twice"))
        };
        items.iter().map(storage).collect::<Result<Vec<Storage>, _>>()
    })?;
    match left.keys().min() {
        Some(key) => Err(format!("does not list storage {key}")),
        None => Ok(Legacy { tensors, storages, end }),
    }
}

/// Runs the pickle that starts at that byte, and gives what `read` makes of its result, and where the pickle ends.
fn run_at<'a, T>(
    bytes: &'a [u8],
    start: usize,
    read: impl FnOnce(&Machine<'a>, At) -> Result<T, String>,
) -> Result<(T, usize), String> {
    let mut machine = Machine::new(bytes, start, true);
    let result = machine.run()?;
    Ok((read(&machine, result)?, machine.next))
}

impl Machine<'_> {
    /// The tensors of a dict by name, in its order.
    fn tensors(&self, dict: At) -> Result<Vec<(String, Tensor)>, String> {
        let Value::Dict(entries) = &self.values[dict] else {
            return Err(format!("holds {}, where a dict of tensors by name fits", self.values[dict].what()));
        };
        let mut found: Vec<(String, Tensor)> = Vec::with_capacity(entries.len());
        let mut names = std::collections::HashSet::new();
        for (key, value) in entries {
            let Some(name) = self.text(*key) else {
                return Err(format!("a key is {}, where a str fits", self.values[*key].what()));
            };
            if !names.insert(name) {
                return Err(format!("\"{name}\" is given twice"));
            }
            match &self.values[*value] {
                Value::Tensor(tensor) => found.push((name.into(), tensor.clone())),
                other => return Err(format!("\"{name}\" is {}, where a tensor fits", other.what())),
            }
        }
        Ok(found)
    }

    /// All storages by key.
    fn storages(&self) -> Result<HashMap<String, Storage>, String> {
        let mut found: HashMap<String, Storage> = HashMap::new();
        for value in &self.values {
            let Value::Storage(storage) = value else { continue };
            if found.entry(storage.key.clone()).or_insert_with(|| storage.clone()) != storage {
                return Err(format!("storage {} is of two kinds or lengths", storage.key));
            }
        }
        Ok(found)
    }
}
