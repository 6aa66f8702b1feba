//! Protocol buffers: fields are changed, and the lengths around them stay right.

use super::Random;
use super::bytes::border;
use super::change::change_list;
use super::words::{Words, change_text};

#[derive(Clone)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone)]
enum Value {
    Varint(u64),
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in 0..10 {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        value |= u64::from(byte & 127).checked_shl(7 * shift)?;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 127 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read(mut data: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !data.is_empty() {
        let tag = varint(&mut data)?;
        let mut take = |n: usize| -> Option<Vec<u8>> {
            let (taken, rest) = data.split_at_checked(n)?;
            data = rest;
            Some(taken.to_vec())
        };
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut data)?),
            1 => Value::Fixed(take(8)?),
            5 => Value::Fixed(take(4)?),
            2 => {
                let n = usize::try_from(varint(&mut data)?).ok()?;
                let (taken, rest) = data.split_at_checked(n)?;
                data = rest;
                Value::Bytes(taken.to_vec())
            }
            _ => return None,
        };
        fields.push(Field { number: tag >> 3, value });
    }
    Some(fields)
}

fn write(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        let wire = match &field.value {
            Value::Varint(_) => 0,
            Value::Fixed(bytes) => {
                if bytes.len() == 4 {
                    5
                } else {
                    1
                }
            }
            Value::Bytes(_) => 2,
        };
        write_varint((field.number << 3) | wire, &mut out);
        match &field.value {
            Value::Varint(value) => write_varint(*value, &mut out),
            Value::Fixed(bytes) => out.extend(bytes),
            Value::Bytes(bytes) => {
                write_varint(bytes.len() as u64, &mut out);
                out.extend(bytes);
            }
        }
    }
    out
}

/// Changes one field, at any depth. `None` if it is no message.
pub(super) fn change(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    let mut fields = read(data)?;
    let at = random.below(fields.len());
    let field = fields.get_mut(at)?;
    match (random.below(6), &mut field.value) {
        (0, _) => change_list(&mut fields, words, random, |words, random| Field {
            number: random.below(8) as u64,
            value: match random.below(2) {
                0 => Value::Varint(border(random)),
                _ => Value::Bytes(words.text(random).into_bytes()),
            },
        }),
        (1, _) if random.one_in(4) => field.number = border(random),
        (1, value) => *value = Value::Varint(border(random)),
        (_, Value::Varint(value)) => *value = border(random),
        (_, Value::Fixed(bytes)) => {
            let float = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e38, -1e38][random.below(6)];
            *bytes = float.to_le_bytes().to_vec();
        }
        (_, Value::Bytes(bytes)) => match change(bytes, words, random) {
            Some(changed) if !random.one_in(4) => *bytes = changed,
            _ => {
                let mut text = String::from_utf8_lossy(bytes).into_owned();
                change_text(&mut text, words, random);
                *bytes = text.into_bytes();
            }
        },
    }
    Some(write(&fields))
}
