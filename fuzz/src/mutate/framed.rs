//! Binary formats with a header in front: safetensors, NumPy arrays.

use super::bytes::{self, border};
use super::words::{Words, change_text};
use super::{Node, Random};

/// Changes the header or the data of a safetensors file. `None` if it is none.
pub(super) fn change_safetensors(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    let (length, rest) = data.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, values) = rest.split_at_checked(length)?;
    let mut tree = Node::from_json(header)?;
    let mut values = values.to_vec();
    if random.one_in(8) {
        bytes::change(&mut values, random);
    } else {
        tree.change(words, random);
    }
    let mut header = tree.to_json();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = if random.one_in(16) { border(random) } else { header.len() as u64 };
    Some([&length.to_le_bytes()[..], &header, &values].concat())
}

/// Changes the header or the data of an array that NumPy has saved. `None` if it is none.
pub(super) fn change_npy(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    let header = data.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = header.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk::<2>().map(|(n, rest)| (usize::from(u16::from_le_bytes(*n)), rest))?,
        _ => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n) as usize, rest))?,
    };
    let (header, values) = rest.split_at_checked(length)?;
    let (mut version, mut values) = (*version, values.to_vec());
    let mut text = String::from_utf8_lossy(header).into_owned();
    match random.below(8) {
        0 => bytes::change(&mut values, random),
        1 => version[random.below(2)] = random.below(5) as u8,
        2 => {
            const DTYPES: [&str; 12] = [
                "'<f4'",
                "'>f4'",
                "'|O'",
                "'<f2'",
                "'<f8'",
                "'|b1'",
                "'<i8'",
                "'|V2'",
                "'<U3'",
                "'f4'",
                "''",
                "[('a', '<f4')]",
            ];
            let dtype = DTYPES[random.below(DTYPES.len())];
            text = text.replacen("'<f4'", dtype, 1).replacen("'<f8'", dtype, 1);
        }
        3 => {
            let (a, b) = (border(random), border(random));
            let shape =
                [format!("({a},)"), format!("({a}, {b})"), "()".into(), format!("(-{a},)"), "(2,3".into()];
            if let (Some(start), Some(end)) = (text.find('('), text.find(')')) {
                let shape = shape[random.below(shape.len())].as_str();
                text = [&text[..start], shape, text.get(end + 1..).unwrap_or("")].concat();
            }
        }
        4 => text = text.replace("False", "True"),
        _ => change_text(&mut text, words, random),
    }
    let length = if random.one_in(16) { border(random) } else { text.len() as u64 };
    let mut out = b"\x93NUMPY".to_vec();
    out.extend(version);
    let width = if version[0] == 1 { 2 } else { 4 };
    out.extend(&length.to_le_bytes()[..width]);
    out.extend(text.as_bytes());
    out.extend(values);
    Some(out)
}
