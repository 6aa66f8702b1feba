//! The directory of a zip archive, as torch and NumPy write them, checked whole before anything in it is
//! believed.
//!
//! An archive says everything twice: before each member's data, and in a directory at its end. Here both
//! must say the same, members must lie one after another from the first byte to the directory, and the
//! checksum of everything that is read must be right. What other programs allow besides (comments, gaps, encryption, links, folders)
//! no file of tensors has, and is refused.

use super::data_file::DataFile;
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashSet;
use std::io::Read;

/// More members than any model has tensors.
const MAX_MEMBERS: u64 = 1 << 16;
/// The directory of so many members, with long names.
const MAX_DIRECTORY: u64 = 16 << 20;
/// What compressed members may take together, beyond twice the archive.
const ALLOWANCE: u64 = 64 << 20;

/// From this length on, all cores compute the checksums of an archive.
const ALL_CORES: u64 = 16 << 20;

/// A file in an archive.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name: no path that leaves its folder.
    pub name: String,
    /// Where its data starts in the archive.
    pub offset: u64,
    /// How many bytes of data there are in the archive.
    pub stored: u64,
    /// How many bytes it has when unpacked.
    pub size: u64,
    /// Whether it is compressed (deflate).
    pub is_compressed: bool,
    crc: u32,
    flags: u64,
    /// Where its own header starts.
    header: u64,
}

/// Takes numbers of so many bytes each from the front of `bytes`; bytes that are not there count as 0.
fn numbers<const N: usize>(bytes: &mut &[u8], widths: [usize; N]) -> [u64; N] {
    widths.map(|width| {
        let (head, rest) = bytes.split_at(width.min(bytes.len()));
        *bytes = rest;
        head.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    })
}

const END: u64 = 0x0605_4b50;
const END_64: u64 = 0x0606_4b50;
const LOCATOR_64: u64 = 0x0706_4b50;
const DIRECTORY: u64 = 0x0201_4b50;
const HEADER: u64 = 0x0403_4b50;
const DESCRIPTOR: u64 = 0x0807_4b50;
/// Stands for a number that did not fit and is elsewhere.
const ELSEWHERE: u64 = 0xffff_ffff;
/// The flag of sizes that follow the data.
const SIZES_AFTER: u64 = 1 << 3;
/// That, how hard it was compressed, and UTF-8 names.
const KNOWN_FLAGS: u64 = SIZES_AFTER | 0b110 | 1 << 11;

/// Reads and checks the directory of an archive. Checksums are not checked here ([`check_sums`], [`Member::read`]).
///
/// # Errors
/// When anything is malformed, or the two accounts of a member differ.
pub fn members(file: &DataFile) -> Result<Vec<Member>> {
    let (start, size, count) = directory(file)?;
    if count > MAX_MEMBERS || size > MAX_DIRECTORY || count * 46 > size {
        return Err(file.bad("archive", format!("{count} members in a directory of {size} bytes")));
    }
    let bytes = file.bytes_at(start, size)?;
    let mut rest = bytes.as_slice();
    let mut members = Vec::new();
    for _ in 0..count {
        let (one, after) = entry(rest).map_err(|problem| file.bad("archive directory", problem))?;
        members.push(one);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(file.bad("archive directory", format!("{} bytes follow the last member", rest.len())));
    }
    let mut names = HashSet::new();
    if let Some(twice) = members.iter().find(|one| !names.insert(&one.name)) {
        return Err(file.bad(&twice.name, "is in the archive twice"));
    }
    members.sort_by_key(|one| one.header);
    let ends: Vec<u64> = members.iter().skip(1).map(|one| one.header).chain([start]).collect();
    let mut expected = 0;
    for (one, end) in members.iter_mut().zip(ends) {
        if one.header != expected {
            let problem = format!("starts at byte {}, where {expected} fits", one.header);
            return Err(file.bad(&one.name, problem));
        }
        place(file, one, end)?;
        expected = end;
    }
    if expected != start {
        let problem = format!("{start} bytes come before its directory and belong to nothing");
        return Err(file.bad("archive", problem));
    }
    let unpacked = members.iter().filter(|one| one.is_compressed).map(|one| one.size);
    let most = file.len().saturating_mul(2).saturating_add(ALLOWANCE);
    if unpacked.fold(0, u64::saturating_add) > most {
        return Err(file.bad("archive", format!("its compressed members unpack to more than {most} bytes")));
    }
    Ok(members)
}

/// Checks the members that are not compressed against their checksums: reads the whole archive.
///
/// # Errors
/// When one is damaged, or cannot be read.
pub fn check_sums(file: &DataFile, members: &[Member]) -> Result<()> {
    // A model's members have gigabytes, and all cores read them; few bytes are not worth waking a thread.
    let is_stored = |member: &&Member| !member.is_compressed;
    if file.len() > ALL_CORES {
        members.par_iter().filter(is_stored).try_for_each(|member| check_sum(file, member))
    } else {
        members.iter().filter(is_stored).try_for_each(|member| check_sum(file, member))
    }
}

/// Where the directory starts, how long it is and how many members it has.
fn directory(file: &DataFile) -> Result<(u64, u64, u64)> {
    let bad = |problem: &str| Err(file.bad("archive", problem));
    let Some(end) = file.len().checked_sub(22) else {
        return bad(&format!("is no zip archive: it has only {} bytes", file.len()));
    };
    let bytes = file.bytes_at(end, 22)?;
    let mut fields = bytes.as_slice();
    let [magic, disk, first_disk, here] = numbers(&mut fields, [4, 2, 2, 2]);
    let [mut count, mut size, mut start, comment] = numbers(&mut fields, [2, 4, 4, 2]);
    if magic != END {
        return bad("is no zip archive, or something follows it");
    }
    if disk != 0 || first_disk != 0 || here != count || comment != 0 {
        return bad("is of several disks, or has a comment");
    }
    let mut after = end;
    let locator = end.checked_sub(20).map(|at| file.bytes_at(at, 20)).transpose()?.unwrap_or_default();
    let [magic, disk, at, disks] = numbers(&mut locator.as_slice(), [4, 4, 8, 4]);
    if magic == LOCATOR_64 {
        if disk != 0 || disks != 1 || at.checked_add(56 + 20) != Some(end) {
            return bad("its zip64 end is not where it is said to be");
        }
        let bytes = file.bytes_at(at, 56)?;
        let mut fields = bytes.as_slice();
        let [magic, length, _versions, disks] = numbers(&mut fields, [4, 8, 4, 8]);
        let [here, all, size_64, start_64] = numbers(&mut fields, [8; 4]);
        let fits = |small: u64, large: u64, none: u64| small == large || small == none;
        if magic != END_64
            || length != 44
            || disks != 0
            || here != all
            || !fits(count, all, 0xffff)
            || !fits(size, size_64, ELSEWHERE)
            || !fits(start, start_64, ELSEWHERE)
        {
            return bad("its zip64 end contradicts its end");
        }
        (count, size, start, after) = (all, size_64, start_64, at);
    }
    if start.checked_add(size) != Some(after) {
        return bad(&format!("its directory of {size} bytes at {start} does not end at {after}"));
    }
    Ok((start, size, count))
}

/// One member of the directory, and what follows it.
fn entry(bytes: &[u8]) -> Result<(Member, &[u8]), String> {
    if bytes.len() < 46 {
        return Err("ends within a member".into());
    }
    let mut fields = bytes;
    let [magic, made_by, _needs, flags, method, _time] = numbers(&mut fields, [4, 2, 2, 2, 2, 4]);
    let [crc, mut stored, mut size] = numbers(&mut fields, [4; 3]);
    let [name_length, extra_length, comment_length] = numbers(&mut fields, [2; 3]).map(|n| n as usize);
    let [disk, _internal, external, mut header] = numbers(&mut fields, [2, 2, 4, 4]);
    if magic != DIRECTORY {
        return Err("a member does not start as one".into());
    }
    let Some((more, rest)) = fields.split_at_checked(name_length + extra_length + comment_length) else {
        return Err("ends within a member".into());
    };
    let name = name_of(&more[..name_length])?;
    let say = |problem: &str| Err(format!("{name}: {problem}"));
    if disk != 0 || comment_length != 0 {
        return say("is on another disk, or has a comment");
    }
    if flags & 1 != 0 {
        return say("is encrypted");
    }
    if flags & !KNOWN_FLAGS != 0 {
        return say(&format!("has flags {flags:#x} that no archive of tensors has"));
    }
    // What made it says what its attributes mean; 3 is Unix, and 0o100000 a plain file.
    let kind = external >> 16 & 0o170_000;
    if made_by >> 8 == 3 && kind != 0 && kind != 0o100_000 {
        return say("is a link, a folder or a device");
    }
    let is_compressed = match method {
        0 => false,
        8 => true,
        other => return say(&format!("is compressed by method {other}, where none or deflate fits")),
    };
    let mut extra = zip64(&more[name_length..])?;
    for number in [&mut size, &mut stored, &mut header] {
        if *number == ELSEWHERE {
            if extra.len() < 8 {
                return say("lacks the size that did not fit");
            }
            [*number] = numbers(&mut extra, [8]);
        }
    }
    if !is_compressed && stored != size {
        return say("is not compressed and yet of two sizes");
    }
    let crc = u32::try_from(crc).unwrap_or(0);
    Ok((Member { name, offset: 0, stored, size, is_compressed, crc, flags, header }, rest))
}

/// The zip64 field of what is extra; empty where there is none. Other fields are padding.
fn zip64(mut extra: &[u8]) -> Result<&[u8], String> {
    let mut found: &[u8] = &[];
    while !extra.is_empty() {
        let mut rest = extra;
        let [id, length] = numbers(&mut rest, [2, 2]);
        if extra.len() < 4 + length as usize {
            return Err("an extra field ends past its member".into());
        }
        let (field, after) = rest.split_at(length as usize);
        if id == 1 {
            found = field;
        }
        extra = after;
    }
    Ok(found)
}

/// A name that cannot mean a file anywhere else.
fn name_of(bytes: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(bytes).map_err(|_| "a name is not UTF-8".to_string())?;
    let is_plain = !name.is_empty()
        && !name.starts_with('/')
        && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if is_plain { Ok(name.into()) } else { Err(format!("the name {name:?} leads elsewhere, or is none")) }
}

/// Finds a member's data, and checks what stands before and after it.
fn place(file: &DataFile, member: &mut Member, end: u64) -> Result<()> {
    let bad = |problem: &str| Err(file.bad(&member.name, problem));
    let room = end - member.header;
    if room < 30 {
        return bad("has no room for its header");
    }
    let bytes = file.bytes_at(member.header, 30)?;
    let mut fields = bytes.as_slice();
    let [magic, _needs, flags, method, _time] = numbers(&mut fields, [4, 2, 2, 2, 4]);
    let [crc, stored, size, name_length, extra_length] = numbers(&mut fields, [4, 4, 4, 2, 2]);
    let before = 30 + name_length + extra_length;
    if magic != HEADER || flags != member.flags || (method == 8) != member.is_compressed || before > room {
        return bad("has a header that is not what the directory says");
    }
    let bytes = file.bytes_at(member.header + 30, name_length + extra_length)?;
    let (name, extra) = bytes.split_at(name_length as usize);
    if name != member.name.as_bytes() {
        return bad("has another name in its header than in the directory");
    }
    let mut extra = zip64(extra).map_err(|problem| file.bad(&member.name, problem))?;
    let is_elsewhere = size == ELSEWHERE || stored == ELSEWHERE;
    let of_header = if is_elsewhere { numbers(&mut extra, [8, 8]) } else { [size, stored] };
    let is_after = flags & SIZES_AFTER != 0;
    let same = of_header == [member.size, member.stored] && crc == u64::from(member.crc);
    if !(same || is_after && of_header == [0, 0] && crc == 0) {
        return bad("has another size or checksum in its header than in the directory");
    }
    let Some(left) = (room - before).checked_sub(member.stored) else {
        return bad("reaches into what follows it");
    };
    let offset = member.header + before;
    let wide = match (is_after, left) {
        (false, 0) => None,
        (true, 16) => Some(4),
        (true, 24) => Some(8),
        _ => return bad(&format!("is followed by {left} bytes that belong to nothing")),
    };
    if let Some(wide) = wide {
        let told = numbers(&mut file.bytes_at(offset + member.stored, left)?.as_slice(), [4, 4, wide, wide]);
        if told != [DESCRIPTOR, member.crc.into(), member.stored, member.size] {
            return bad("is followed by another size or checksum than the directory has");
        }
    }
    member.offset = offset;
    Ok(())
}

/// Checks a member that is not compressed against its checksum.
fn check_sum(file: &DataFile, member: &Member) -> Result<()> {
    const PIECE: usize = 1 << 20;
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; PIECE.min(usize::try_from(member.stored).unwrap_or(PIECE))];
    for at in (0..member.stored).step_by(PIECE) {
        piece.truncate(usize::try_from(member.stored - at).unwrap_or(PIECE));
        file.read_at(&mut piece, member.offset + at)?;
        hasher.update(&piece);
    }
    if hasher.finalize() == member.crc { Ok(()) } else { Err(damaged(file, member)) }
}

fn damaged(file: &DataFile, member: &Member) -> Error {
    file.bad(&member.name, "is not what its checksum says: the file is damaged")
}

impl Member {
    /// Reads it whole, if it has no more than `most` bytes, and checks it.
    ///
    /// # Errors
    /// When it is larger, damaged, cannot be read, or does not unpack to what it is said to.
    pub fn read(&self, file: &DataFile, most: u64) -> Result<Vec<u8>> {
        let largest = self.size.max(self.stored);
        if largest > most {
            return Err(file.bad(&self.name, format!("{largest} bytes are more than the {most} it may have")));
        }
        let bytes = file.bytes_at(self.offset, self.stored)?;
        if !self.is_compressed {
            return if crc32fast::hash(&bytes) == self.crc { Ok(bytes) } else { Err(damaged(file, self)) };
        }
        let mut unpacked = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        let mut decoder = flate2::read::DeflateDecoder::new(bytes.as_slice()).take(self.size + 1);
        let read = decoder.read_to_end(&mut unpacked);
        read.map_err(|e| file.bad(&self.name, format!("cannot be unpacked: {e}")))?;
        if unpacked.len() as u64 != self.size || crc32fast::hash(&unpacked) != self.crc {
            return Err(file.bad(&self.name, "does not unpack to what the directory says"));
        }
        Ok(unpacked)
    }
}
