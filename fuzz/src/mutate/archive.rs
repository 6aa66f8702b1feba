//! Zip archives: members are changed as the formats they are, then put into an archive again.

use super::Random;
use super::bytes::{self, border};
use super::change::change_list;
use super::framed::change_npy;
use super::pickle;
use super::words::Words;
use std::io::Read;

/// The most that a member of a seed may unpack to.
const MOST: u64 = 1 << 20;

/// A member, and what its two headers have instead of the truth.
#[derive(Clone, Default)]
struct Member {
    name: Vec<u8>,
    data: Vec<u8>,
    crc: Option<u32>,
    /// Method, flags, size, and the place of its header.
    method: u16,
    flags: u16,
    size: Option<u32>,
    own_size: Option<u32>,
    own_name: Option<Vec<u8>>,
    at: Option<u32>,
    made_by: u16,
    attributes: u32,
}

fn read(data: &[u8]) -> Option<Vec<Member>> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(data)).ok()?;
    let mut members = Vec::new();
    for index in 0..archive.len().min(256) {
        let file = archive.by_index(index).ok()?;
        let name = file.name().ok()?.as_bytes().to_vec();
        let mut data = Vec::new();
        file.take(MOST).read_to_end(&mut data).ok()?;
        members.push(Member { name, data, ..Member::default() });
    }
    Some(members)
}

fn write(members: &[Member], end: [u32; 2]) -> Vec<u8> {
    let short = |numbers: &[u16]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let long = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let at = member.at.unwrap_or(length(&out));
        let crc = member.crc.unwrap_or_else(|| crc32fast::hash(&member.data));
        let (stored, size) = (length(&member.data), member.size.unwrap_or(length(&member.data)));
        let own_name = member.own_name.as_ref().unwrap_or(&member.name);
        out.extend(b"PK\x03\x04\x14\x00");
        out.extend(short(&[member.flags, member.method, 0, 0]));
        out.extend(long(&[crc, stored, member.own_size.unwrap_or(size)]));
        out.extend(short(&[own_name.len() as u16, 0]));
        out.extend(own_name);
        out.extend(&member.data);
        directory.extend(b"PK\x01\x02");
        directory.extend(short(&[member.made_by, 20, member.flags, member.method, 0, 0]));
        directory.extend(long(&[crc, stored, size]));
        directory.extend(short(&[member.name.len() as u16, 0, 0, 0, 0]));
        directory.extend(long(&[member.attributes, at]));
        directory.extend(&member.name);
    }
    let (start, size, count) = (length(&out), length(&directory), members.len() as u16);
    out.extend(directory);
    out.extend(b"PK\x05\x06");
    out.extend(short(&[0, 0, count, count]));
    out.extend(long(&[size.wrapping_add(end[0]), start.wrapping_add(end[1])]));
    out.extend(short(&[0]));
    out
}

/// Changes a member or how it is packed. `None` if it is no archive.
pub(super) fn change(data: &[u8], words: &Words, random: &mut Random) -> Option<Vec<u8>> {
    let mut members = read(data)?;
    let mut end = [0, 0];
    let at = random.below(members.len());
    match (random.below(8), members.get_mut(at)) {
        (0, _) => change_list(&mut members, words, random, |words, random| Member {
            name: words.text(random).into_bytes(),
            data: words.text(random).into_bytes(),
            ..Member::default()
        }),
        (1, Some(member)) => lie(member, words, random),
        (2, _) if random.one_in(4) => end[random.below(2)] = border(random) as u32,
        _ => {
            // The member that says what the others mean, where there is one.
            let main = members.iter().position(|member| member.name.ends_with(b".pkl"));
            let main = main.filter(|_| !random.one_in(8)).unwrap_or(at);
            if let Some(member) = members.get_mut(main) {
                let changed = pickle::change(&member.data, words, random)
                    .or_else(|| change_npy(&member.data, words, random));
                match changed {
                    Some(changed) => member.data = changed,
                    None => bytes::change(&mut member.data, random),
                }
            }
        }
    }
    Some(write(&members, end))
}

/// Gives a header something that is not so.
fn lie(member: &mut Member, words: &Words, random: &mut Random) {
    let number = border(random) as u32;
    match random.below(10) {
        0 => member.crc = Some(number),
        1 => member.method = [8, 12, 14, 99][random.below(4)],
        2 => member.flags = 1 << random.below(16),
        3 => member.size = Some(number),
        4 => member.own_size = Some(number),
        5 => member.own_name = Some(words.text(random).into_bytes()),
        6 => member.at = Some(number),
        7 => (member.made_by, member.attributes) = (3 << 8, 0o120_777 << 16),
        8 => member.name = words.text(random).into_bytes(),
        _ => member.name = [&b"../"[..], &member.name].concat(),
    }
}
