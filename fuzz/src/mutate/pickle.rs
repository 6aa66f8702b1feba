//! Pickles: split into opcodes, changed, joined again.

use super::Random;
use super::bytes::border;
use super::change::change_list;
use super::words::{Words, change_text};

/// How long the argument of an opcode is.
enum Argument {
    /// So many bytes.
    Bytes(usize),
    /// A length of so many bytes, then as many bytes as it says.
    Counted(usize),
    /// So many lines.
    Lines(usize),
}

fn argument(opcode: u8) -> Option<Argument> {
    Some(match opcode {
        b'K' | b'h' | b'q' | 0x80 | 0x82 => Argument::Bytes(1),
        b'M' | 0x83 => Argument::Bytes(2),
        b'J' | b'j' | b'r' | 0x84 => Argument::Bytes(4),
        b'G' | 0x95 => Argument::Bytes(8),
        b'U' | b'C' | 0x8a | 0x8c => Argument::Counted(1),
        b'T' | b'X' | b'B' | 0x8b => Argument::Counted(4),
        0x8d | 0x8e | 0x96 => Argument::Counted(8),
        b'F' | b'I' | b'L' | b'P' | b'S' | b'V' | b'g' | b'p' => Argument::Lines(1),
        b'c' | b'i' => Argument::Lines(2),
        b'('
        | b'.'
        | b'0'
        | b'1'
        | b'2'
        | b'N'
        | b'Q'
        | b'R'
        | b'a'
        | b'b'
        | b'd'
        | b'}'
        | b'e'
        | b'l'
        | b']'
        | b'o'
        | b's'
        | b't'
        | b')'
        | b'u'
        | 0x81
        | 0x85..=0x89
        | 0x8f..=0x94
        | 0x97
        | 0x98 => Argument::Bytes(0),
        _ => return None,
    })
}

/// The opcodes with their arguments. Old files have several pickles before their data, which is the rest.
fn split(data: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let (mut opcodes, mut rest) = (Vec::new(), data);
    while let Some((&opcode, after)) = rest.split_first() {
        let end_of_line = |at: usize| after.get(at..)?.iter().position(|b| *b == b'\n').map(|n| at + n + 1);
        let length = match argument(opcode) {
            None => None,
            Some(Argument::Bytes(n)) => Some(n),
            Some(Argument::Lines(n)) => (0..n).try_fold(0, |at, _| end_of_line(at)),
            Some(Argument::Counted(n)) => after.get(..n).and_then(|count| {
                let mut wide = [0; 8];
                wide[..n].copy_from_slice(count);
                usize::try_from(u64::from_le_bytes(wide)).ok()?.checked_add(n)
            }),
        };
        let Some(whole) = length.and_then(|n| rest.get(..n.checked_add(1)?)) else { break };
        opcodes.push(whole.to_vec());
        rest = &rest[whole.len()..];
        if opcode == b'.' && rest.first() != Some(&0x80) {
            break;
        }
    }
    (opcodes, rest)
}

/// Opcodes that are put in: some that a state dict has, and some that it must not have.
const OPCODES: [&[u8]; 24] = [
    b"(",
    b"t",
    b"N",
    b"}",
    b"]",
    b")",
    b"R",
    b"Q",
    b"b",
    b"s",
    b"u",
    b"0",
    b"2",
    b"\x85",
    b"\x86",
    b"\x93",
    b"h\x00",
    b"q\x00",
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"\x81",
    b"\x88",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ccollections\nOrderedDict\n",
];

/// Changes one opcode or its argument. `None` if it is no pickle.
pub(super) fn change(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    if data.first() != Some(&0x80) {
        return None;
    }
    let (mut opcodes, rest) = split(data);
    let at = random.below(opcodes.len());
    let opcode = opcodes.get_mut(at)?;
    match (random.below(4), argument(opcode[0])) {
        (0, _) => change_list(&mut opcodes, words, random, |words, random| match random.below(4) {
            0 => text(b'X', 4, &words.text(random)),
            1 => [&[b'J'][..], &(border(random) as u32).to_le_bytes()].concat(),
            2 => [&[0x8a, 8][..], &border(random).to_le_bytes()].concat(),
            _ => random.pick(&OPCODES).map_or(Vec::new(), |opcode| opcode.to_vec()),
        }),
        (1, Some(Argument::Counted(n))) => {
            opcode[1..=n].copy_from_slice(&border(random).to_le_bytes()[..n]);
        }
        (_, Some(Argument::Counted(n))) => {
            let mut value = String::from_utf8_lossy(&opcode[1 + n..]).into_owned();
            change_text(&mut value, words, random);
            *opcode = text(opcode[0], n, &value);
        }
        (_, Some(Argument::Bytes(n @ 1..))) => {
            let n = n.min(opcode.len() - 1);
            opcode[1..=n].copy_from_slice(&border(random).to_le_bytes()[..n]);
        }
        (_, Some(Argument::Lines(_))) => {
            let mut value = String::from_utf8_lossy(&opcode[1..]).into_owned();
            change_text(&mut value, words, random);
            *opcode = [&opcode[..1], value.as_bytes()].concat();
        }
        _ => opcode[0] = random.pick(&OPCODES).map_or(b'.', |other| other[0]),
    }
    Some([opcodes.concat().as_slice(), rest].concat())
}

/// An opcode that has a text.
fn text(opcode: u8, width: usize, value: &str) -> Vec<u8> {
    [&[opcode][..], &(value.len() as u64).to_le_bytes()[..width], value.as_bytes()].concat()
}
