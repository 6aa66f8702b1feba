//! The stack machine that pickles are programs for, with the few instructions that a state dict needs.

use super::value::{At, NAMES, Name, Storage, Tensor, Value};
use std::collections::HashMap;

/// A tensor takes some fifteen; so many, all of them the largest there are, take 60 MB.
const MAX_VALUES: usize = 1 << 17;

/// No tensor has as many axes; a view's shape is copied with each view.
const MAX_AXES: usize = 8;

/// Bytes of the longest integer there is: the one that torch's format before version 1.6 begins with.
pub(super) const LONGEST_INT: usize = 10;

/// A pickle on its way: what is left of it, and what it has made.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    pub(super) next: usize,
    pub(super) values: Vec<Value>,
    stack: Vec<At>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, At>,
    /// Whether names of storages have a sixth part, as before torch 1.6.
    is_legacy: bool,
}

impl<'a> Machine<'a> {
    /// A machine that starts at that byte.
    pub(super) fn new(bytes: &'a [u8], next: usize, is_legacy: bool) -> Self {
        let (values, stack, marks, memo) = (Vec::new(), Vec::new(), Vec::new(), HashMap::new());
        Self { bytes, next, values, stack, marks, memo, is_legacy }
    }

    /// Runs to the end of a pickle and gives what is then on the stack.
    pub(super) fn run(&mut self) -> Result<At, String> {
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
        let value = match op {
            0x95 => return self.frame(),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool(op == 0x88),
            b'K' => Value::Int(self.number(1)?.cast_signed()),
            b'M' => Value::Int(self.number(2)?.cast_signed()),
            b'J' => self.long(4)?,
            0x8a => {
                let length = self.byte()?;
                self.long(length.into())?
            }
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            b'X' => self.string(4)?,
            0x8c => self.string(1)?,
            0x8d => self.string(8)?,
            b')' => Value::Tuple(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b']' => Value::List(Vec::new()),
            0x85..=0x87 => Value::Tuple(self.popped(usize::from(op - 0x84))?),
            b't' => Value::Tuple(self.marked()?),
            b'q' => return self.remember(1),
            b'r' => return self.remember(4),
            0x94 => return self.keep(self.memo.len() as u64),
            b'h' => return self.recall(1),
            b'j' => return self.recall(4),
            b'c' => name(self.line()?, self.line()?)?,
            0x93 => {
                let both = self.popped(2)?;
                match (self.text(both[0]), self.text(both[1])) {
                    (Some(module), Some(of)) => name(module, of)?,
                    _ => return Err("a name is no str".into()),
                }
            }
            b's' | b'u' => {
                let pairs = if op == b's' { self.popped(2)? } else { self.marked()? };
                return self.insert(&pairs);
            }
            b'a' | b'e' => {
                let items = if op == b'a' { self.popped(1)? } else { self.marked()? };
                return self.append(&items);
            }
            b'Q' => self.storage()?,
            b'R' => self.call()?,
            b'b' => return self.build(),
            other => return Err(format!("instruction {other:#04x} is none that a state dict needs")),
        };
        self.push(value)
    }

    /// FRAME: how much follows, which changes nothing.
    fn frame(&mut self) -> Result<(), String> {
        let length = self.number(8)?;
        if length > (self.bytes.len() - self.next) as u64 {
            return Err("a frame is longer than the pickle".into());
        }
        Ok(())
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

    /// An integer of so many bytes, with a sign.
    fn long(&mut self, length: usize) -> Result<Value, String> {
        let taken = self.take(length)?;
        if length > LONGEST_INT {
            return Err(format!("an int of {length} bytes is more than anything here has"));
        }
        if length > 8 {
            return Ok(Value::Long(self.next - length..self.next));
        }
        let sign = taken.last().map_or(0, |last| if last & 0x80 == 0 { 0u8 } else { 0xff });
        let mut wide = [sign; 8];
        wide[..length].copy_from_slice(taken);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn string(&mut self, bytes: usize) -> Result<Value, String> {
        let length = usize::try_from(self.number(bytes)?).unwrap_or(usize::MAX);
        let start = self.next;
        std::str::from_utf8(self.take(length)?).map_err(|_| "a str is not UTF-8")?;
        Ok(Value::Text(start..start + length))
    }

    pub(super) fn text(&self, at: At) -> Option<&'a str> {
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
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or("the stack is empty".into())
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
    fn storage(&mut self) -> Result<Value, String> {
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
        let [tag, key, location] = [tag, key, location].map(|part| self.text(*part));
        let known = (tag, &self.values[*class], key, location, self.whole(*count));
        let (Some("storage"), Value::Name(Name::Storage(kind)), Some(key), Some(_), Some(count)) = known
        else {
            return Err("the name of a storage is not (\"storage\", class, key, location, count)".into());
        };
        if key.is_empty() || key.len() > 20 || !key.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("the storage key {key:?} is no number"));
        }
        Ok(Value::Storage(Storage { kind, key: key.into(), count }))
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
    fn call(&mut self) -> Result<Value, String> {
        let both = self.popped(2)?;
        let (Value::Name(name), Value::Tuple(given)) = (&self.values[both[0]], &self.values[both[1]]) else {
            return Err(format!("calls {}", self.values[both[0]].what()));
        };
        Ok(match (name, given.as_slice()) {
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
        })
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

fn name(module: &str, name: &str) -> Result<Value, String> {
    let known = NAMES.iter().find(|(m, n, _)| (*m, *n) == (module, name)).map(|(_, _, known)| *known);
    let unknown = || format!("it names {module}.{name}, which no state dict needs and is not called");
    known.map(Value::Name).ok_or_else(unknown)
}
