//! Pickles of tensors by name, read without running anything.
//!
//! A pickle is a program for a stack machine. This machine knows the few instructions that torch.save
//! uses for a state dict and the few names they may call, each of which only makes a plain value; any
//! other is an error that names it. Values live in one list and name each other by their place in it: what
//! refers to itself, or is nested a million deep, is no harder to hold or to drop than anything else.

use std::collections::HashMap;
use std::ops::Range;

/// A tensor takes some fifteen; so many, all of them the largest there are, take 60 MB.
const MAX_VALUES: usize = 1 << 17;

/// No tensor has as many axes; a view's shape is copied with each view.
const MAX_AXES: usize = 8;

/// The place of a value.
type At = usize;

/// A storage of numbers, as a pickle names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    /// The kind of its numbers: `FloatStorage`.
    pub(super) kind: &'static str,
    /// Its file in the archive.
    pub(super) key: String,
    /// How many numbers it has.
    pub(super) count: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// What may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(&'static str),
}

const NAMES: [(&str, &str, Name); 13] = [
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
enum Value {
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
    fn what(&self) -> &'static str {
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
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
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

struct Machine<'a> {
    bytes: &'a [u8],
    next: usize,
    values: Vec<Value>,
    stack: Vec<At>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, At>,
    /// Whether names of storages have a sixth part, as before torch 1.6.
    is_legacy: bool,
}

impl<'a> Machine<'a> {
    /// A machine that starts at that byte.
    fn new(bytes: &'a [u8], next: usize, is_legacy: bool) -> Self {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Self { bytes, next, values, stack, marks, memo, is_legacy }
    }

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
            match found.get(&storage.key) {
                None => {
                    found.insert(storage.key.clone(), storage.clone());
                }
                Some(other) if other == storage => {}
                Some(_) => return Err(format!("storage {} is of two kinds or lengths", storage.key)),
            }
        }
        Ok(found)
    }

    /// Runs to the end of a pickle and gives what is then on the stack.
    fn run(&mut self) -> Result<At, String> {
        if self.byte()? != 0x80 || !(2..=5).contains(&self.byte()?) {
            return Err("is no pickle of protocol 2 to 5".into());
        }
        loop {
            let at = self.next;
            match self.byte()? {
                b'.' => break,
                op => self.step(op).map_err(|problem| format!("byte {at}: {problem}"))?,
            }
        }
        match (self.stack.as_slice(), self.marks.as_slice()) {
            ([one], []) => Ok(*one),
            _ => Err("leaves more than one value".into()),
        }
    }

    fn step(&mut self, op: u8) -> Result<(), String> {
        match op {
            // FRAME: how much follows, which changes nothing.
            0x95 => {
                let length = self.number(8)?;
                if length > (self.bytes.len() - self.next) as u64 {
                    return Err("a frame is longer than the pickle".into());
                }
                Ok(())
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool(op == 0x88)),
            b'K' => self.integer(1),
            b'M' => self.integer(2),
            b'J' => {
                let number = self.number(4)?;
                let sign = if number >> 31 == 1 { 1 << 32 } else { 0 };
                self.push(Value::Int(number.cast_signed() - sign))
            }
            // LONG1: as many bytes as it says.
            0x8a => {
                let length = usize::from(self.byte()?);
                let taken = self.take(length)?;
                if length > LEGACY_MAGIC.len() {
                    return Err(format!("an int of {length} bytes is more than anything here has"));
                }
                if length > 8 {
                    return self.push(Value::Long(self.next - length..self.next));
                }
                let sign = taken.last().map_or(0, |last| if last & 0x80 == 0 { 0u8 } else { 0xff });
                let mut wide = [sign; 8];
                wide[..length].copy_from_slice(taken);
                self.push(Value::Int(i64::from_le_bytes(wide)))
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)
            }
            b'X' => self.string(4),
            0x8c => self.string(1),
            0x8d => self.string(8),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            0x85..=0x87 => {
                let items = self.popped(usize::from(op - 0x84))?;
                self.push(Value::Tuple(items))
            }
            b't' => {
                let items = self.marked()?;
                self.push(Value::Tuple(items))
            }
            b'q' => self.remember(1),
            b'r' => self.remember(4),
            0x94 => self.keep(self.memo.len() as u64),
            b'h' => self.recall(1),
            b'j' => self.recall(4),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(module, name)
            }
            0x93 => {
                let both = self.popped(2)?;
                match (self.text(both[0]), self.text(both[1])) {
                    (Some(module), Some(name)) => self.name(module, name),
                    _ => Err("a name is no str".into()),
                }
            }
            b's' => {
                let pair = self.popped(2)?;
                self.insert(&pair)
            }
            b'u' => {
                let pairs = self.marked()?;
                self.insert(&pairs)
            }
            b'a' => {
                let item = self.popped(1)?;
                self.append(&item)
            }
            b'e' => {
                let items = self.marked()?;
                self.append(&items)
            }
            b'Q' => self.storage(),
            b'R' => self.call(),
            b'b' => self.build(),
            other => Err(format!("instruction {other:#04x} is none that a state dict needs")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.next.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| "the pickle ends too early".to_string())?;
        let taken = &self.bytes[self.next..end];
        self.next = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.next..];
        let length = rest.iter().position(|b| *b == b'\n').ok_or("a name does not end")?;
        let line = std::str::from_utf8(self.take(length)?).map_err(|_| "a name is not UTF-8")?;
        self.take(1)?;
        Ok(line)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        if self.values.len() >= MAX_VALUES {
            return Err(format!("makes more than {MAX_VALUES} values"));
        }
        self.values.push(value);
        self.stack.push(self.values.len() - 1);
        Ok(())
    }

    fn integer(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.number(bytes)?;
        self.push(Value::Int(i64::try_from(number).unwrap_or(i64::MAX)))
    }

    fn string(&mut self, bytes: usize) -> Result<(), String> {
        let length = usize::try_from(self.number(bytes)?).unwrap_or(usize::MAX);
        let start = self.next;
        std::str::from_utf8(self.take(length)?).map_err(|_| "a str is not UTF-8")?;
        self.push(Value::Text(start..start + length))
    }

    fn text(&self, at: At) -> Option<&'a str> {
        match &self.values[at] {
            Value::Text(range) => std::str::from_utf8(&self.bytes[range.clone()]).ok(),
            _ => None,
        }
    }

    /// The height that may not be popped below.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<At, String> {
        self.stack
            .last()
            .copied()
            .filter(|_| self.stack.len() > self.floor())
            .ok_or("the stack is empty".into())
    }

    fn popped(&mut self, count: usize) -> Result<Vec<At>, String> {
        if self.stack.len() < self.floor() + count {
            return Err("the stack is empty".into());
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn marked(&mut self) -> Result<Vec<At>, String> {
        let mark = self.marks.pop().ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, bytes: usize) -> Result<(), String> {
        let key = self.number(bytes)?;
        self.keep(key)
    }

    fn keep(&mut self, key: u64) -> Result<(), String> {
        let top = self.top()?;
        if self.memo.len() >= MAX_VALUES {
            return Err(format!("keeps more than {MAX_VALUES} values in its memo"));
        }
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let key = self.number(bytes)?;
        let at = *self.memo.get(&key).ok_or_else(|| format!("memo {key} holds nothing"))?;
        // The stack alone grows: a value recalled is the value.
        if self.stack.len() >= MAX_VALUES {
            return Err(format!("puts more than {MAX_VALUES} values on its stack"));
        }
        self.stack.push(at);
        Ok(())
    }

    fn name(&mut self, module: &str, name: &str) -> Result<(), String> {
        match NAMES.iter().find(|(m, n, _)| (*m, *n) == (module, name)) {
            Some((_, _, known)) => self.push(Value::Name(*known)),
            None => Err(format!("it names {module}.{name}, which no state dict needs and is not called")),
        }
    }

    fn insert(&mut self, pairs: &[At]) -> Result<(), String> {
        let top = self.top()?;
        let pairs = match pairs.as_chunks::<2>() {
            (pairs, []) => pairs.iter().map(|[key, value]| (*key, *value)),
            _ => return Err("a key has no value".into()),
        };
        match &mut self.values[top] {
            Value::Dict(entries) => {
                entries.extend(pairs);
                Ok(())
            }
            other => Err(format!("puts items into {}", other.what())),
        }
    }

    fn append(&mut self, items: &[At]) -> Result<(), String> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            other => Err(format!("appends to {}", other.what())),
        }
    }

    /// A storage by its persistent id: ("storage", class, key, location, count). Before torch 1.6, a sixth part names the
    /// storage that this one is a view of.
    fn storage(&mut self) -> Result<(), String> {
        let id = self.popped(1)?[0];
        let Value::Tuple(parts) = &self.values[id] else { return Err("a storage has no name".into()) };
        let [tag, class, key, location, count, view @ ..] = parts.as_slice() else {
            return Err("the name of a storage has fewer than five parts".into());
        };
        match view {
            [] => {}
            [view] if self.is_legacy && matches!(self.values[*view], Value::None) => {}
            [_] if self.is_legacy => return Err("a storage is a view of another, which is not read".into()),
            _ => return Err("the name of a storage has too many parts".into()),
        }
        let known = (
            self.text(*tag),
            &self.values[*class],
            self.text(*key),
            self.text(*location),
            self.whole(*count),
        );
        let (Some("storage"), Value::Name(Name::Storage(kind)), Some(key), Some(_), Some(count)) = known
        else {
            return Err("the name of a storage is not (\"storage\", class, key, location, count)".into());
        };
        if key.is_empty() || key.len() > 20 || !key.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("the storage key {key:?} is no number"));
        }
        let storage = Storage { kind, key: key.into(), count };
        self.push(Value::Storage(storage))
    }

    fn whole(&self, at: At) -> Option<u64> {
        match self.values[at] {
            Value::Int(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    fn wholes(&self, at: At) -> Option<Vec<u64>> {
        match &self.values[at] {
            Value::Tuple(items) if items.len() <= MAX_AXES => {
                items.iter().map(|item| self.whole(*item)).collect()
            }
            _ => None,
        }
    }

    /// Calls one of the known names, which only make values.
    fn call(&mut self) -> Result<(), String> {
        let both = self.popped(2)?;
        let (Value::Name(name), Value::Tuple(given)) = (&self.values[both[0]], &self.values[both[1]]) else {
            return Err(format!("calls {}", self.values[both[0]].what()));
        };
        let value = match (name, given.as_slice()) {
            (Name::OrderedDict, []) => Value::Dict(Vec::new()),
            (Name::RebuildTensor, [storage, offset, shape, strides, _gradient, _hooks, rest @ ..])
                if rest.len() <= 1 =>
            {
                // A negated or conjugated view has its sign here, and not in its numbers.
                match rest.first().map(|metadata| &self.values[*metadata]) {
                    None | Some(Value::None) => {}
                    Some(Value::Dict(entries)) if entries.is_empty() => {}
                    Some(_) => return Err("a tensor has metadata, which could change its sign".into()),
                }
                let Value::Storage(storage) = &self.values[*storage] else {
                    return Err("a tensor has no storage".into());
                };
                let parts = (self.whole(*offset), self.wholes(*shape), self.wholes(*strides));
                let (Some(offset), Some(shape), Some(strides)) = parts else {
                    return Err("a tensor's offset, size or stride is no number from 0".into());
                };
                Value::Tensor(Tensor { storage: storage.clone(), offset, shape, strides })
            }
            (Name::RebuildParameter, [tensor, _gradient, _hooks]) => match &self.values[*tensor] {
                Value::Tensor(tensor) => Value::Tensor(tensor.clone()),
                other => return Err(format!("a parameter is {}", other.what())),
            },
            (name, given) => return Err(format!("calls {name:?} with {} arguments", given.len())),
        };
        self.push(value)
    }

    /// A state dict carries metadata as its state, which says nothing about its tensors.
    fn build(&mut self) -> Result<(), String> {
        let state = self.popped(1)?[0];
        match (&self.values[self.top()?], &self.values[state]) {
            (Value::Dict(_), Value::Dict(_)) => Ok(()),
            (other, _) => Err(format!("sets the state of {}", other.what())),
        }
    }
}
