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
}

/// A member as the directory has it.
struct Listed {
    member: Member,
    flags: u16,
    header: u64,
}

/// Fields read one after another from a few bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (head, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        head.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn short(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap_or(0)
    }
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
const SIZES_AFTER: u16 = 1 << 3;
/// That, how hard it was compressed, and UTF-8 names.
const KNOWN_FLAGS: u16 = SIZES_AFTER | 0b110 | 1 << 11;

/// Reads and checks the directory of an archive. Checksums are not checked here ([`check_sums`], [`Member::read`]).
///
/// # Errors
/// When anything is malformed, or the two accounts of a member differ.
pub fn members(file: &DataFile) -> Result<Vec<Member>> {
    let bad = |field: &str, problem: String| Error::file(file.path(), field, problem);
    let (start, size, count) = directory(file)?;
    if count > MAX_MEMBERS || size > MAX_DIRECTORY || count * 46 > size {
        return Err(bad("archive", format!("{count} members in a directory of {size} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, start)?;
    let mut rest = bytes.as_slice();
    let mut listed = Vec::new();
    for _ in 0..count {
        let (one, after) = entry(rest).map_err(|problem| bad("archive directory", problem))?;
        listed.push(one);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(bad("archive directory", format!("{} bytes follow the last member", rest.len())));
    }
    let mut names = HashSet::new();
    if let Some(twice) = listed.iter().find(|one| !names.insert(&one.member.name)) {
        return Err(bad(&twice.member.name, "is in the archive twice".into()));
    }
    listed.sort_by_key(|one| one.header);
    let ends: Vec<u64> = listed.iter().skip(1).map(|one| one.header).chain([start]).collect();
    let mut expected = 0;
    for (one, end) in listed.iter_mut().zip(ends) {
        if one.header != expected {
            let problem = format!("starts at byte {}, where {expected} fits", one.header);
            return Err(bad(&one.member.name, problem));
        }
        place(file, one, end)?;
        expected = end;
    }
    if expected != start {
        return Err(bad("archive", format!("{start} bytes come before its directory and belong to nothing")));
    }
    let unpacked = listed.iter().filter(|one| one.member.is_compressed).map(|one| one.member.size);
    let most = file.len().saturating_mul(2).saturating_add(ALLOWANCE);
    if unpacked.fold(0, u64::saturating_add) > most {
        return Err(bad("archive", format!("its compressed members unpack to more than {most} bytes")));
    }
    Ok(listed.into_iter().map(|one| one.member).collect())
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
    let bad = |problem: String| Error::file(file.path(), "archive", problem);
    let read = |offset: u64, bytes: usize| -> Result<Vec<u8>> {
        let mut found = vec![0; bytes];
        file.read_at(&mut found, offset)?;
        Ok(found)
    };
    let Some(end) = file.len().checked_sub(22) else {
        return Err(bad(format!("is no zip archive: it has only {} bytes", file.len())));
    };
    let bytes = read(end, 22)?;
    let mut fields = Fields(&bytes);
    if fields.number(4) != END {
        return Err(bad("is no zip archive, or something follows it".into()));
    }
    let (disk, first_disk) = (fields.number(2), fields.number(2));
    let (here, mut count) = (fields.number(2), fields.number(2));
    let (mut size, mut start) = (fields.number(4), fields.number(4));
    if disk != 0 || first_disk != 0 || here != count || fields.number(2) != 0 {
        return Err(bad("is of several disks, or has a comment".into()));
    }
    let mut after = end;
    let locator = end.checked_sub(20).map(|at| read(at, 20)).transpose()?;
    if let Some(locator) = locator.filter(|bytes| Fields(bytes).number(4) == LOCATOR_64) {
        let mut fields = Fields(&locator[4..]);
        let (disk, at, disks) = (fields.number(4), fields.number(8), fields.number(4));
        if disk != 0 || disks != 1 || at.checked_add(56 + 20) != Some(end) {
            return Err(bad("its zip64 end is not where it is said to be".into()));
        }
        let bytes = read(at, 56)?;
        let mut fields = Fields(&bytes);
        let (magic, length, _versions) = (fields.number(4), fields.number(8), fields.number(4));
        let (disks, here, all) = (fields.number(8), fields.number(8), fields.number(8));
        let (size_64, start_64) = (fields.number(8), fields.number(8));
        let fits = |small: u64, large: u64, none: u64| small == large || small == none;
        if magic != END_64
            || length != 44
            || disks != 0
            || here != all
            || !fits(count, all, 0xffff)
            || !fits(size, size_64, ELSEWHERE)
            || !fits(start, start_64, ELSEWHERE)
        {
            return Err(bad("its zip64 end contradicts its end".into()));
        }
        (count, size, start, after) = (all, size_64, start_64, at);
    }
    if start.checked_add(size) != Some(after) {
        return Err(bad(format!("its directory of {size} bytes at {start} does not end at {after}")));
    }
    Ok((start, size, count))
}

/// One member of the directory, and what follows it.
fn entry(bytes: &[u8]) -> Result<(Listed, &[u8]), String> {
    if bytes.len() < 46 {
        return Err("ends within a member".into());
    }
    let mut fields = Fields(bytes);
    if fields.number(4) != DIRECTORY {
        return Err("a member does not start as one".into());
    }
    let (made_by, _needs) = (fields.short(), fields.short());
    let (flags, method) = (fields.short(), fields.short());
    let _time = fields.number(4);
    let (crc, mut stored, mut size) = (fields.number(4), fields.number(4), fields.number(4));
    let lengths =
        [fields.number(2), fields.number(2), fields.number(2)].map(|n| usize::try_from(n).unwrap_or(0));
    let [name_length, extra_length, comment_length] = lengths;
    let (disk, _internal, external, mut header) =
        (fields.number(2), fields.number(2), fields.number(4), fields.number(4));
    let whole = 46 + name_length + extra_length + comment_length;
    if bytes.len() < whole {
        return Err("ends within a member".into());
    }
    let name = name_of(&bytes[46..46 + name_length])?;
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
    let mut extra = Fields(zip64(&bytes[46 + name_length..46 + name_length + extra_length])?);
    for number in [&mut size, &mut stored, &mut header] {
        if *number == ELSEWHERE {
            if extra.0.len() < 8 {
                return say("lacks the size that did not fit");
            }
            *number = extra.number(8);
        }
    }
    if !is_compressed && stored != size {
        return say("is not compressed and yet of two sizes");
    }
    let crc = u32::try_from(crc).unwrap_or(0);
    let member = Member { name, offset: 0, stored, size, is_compressed, crc };
    Ok((Listed { member, flags, header }, &bytes[whole..]))
}

/// The zip64 field of what is extra; empty where there is none. Other fields are padding.
fn zip64(mut extra: &[u8]) -> Result<&[u8], String> {
    let mut found: &[u8] = &[];
    while !extra.is_empty() {
        let mut fields = Fields(extra);
        let (id, length) = (fields.number(2), usize::try_from(fields.number(2)).unwrap_or(0));
        if extra.len() < 4 + length {
            return Err("an extra field ends past its member".into());
        }
        if id == 1 {
            found = &extra[4..4 + length];
        }
        extra = &extra[4 + length..];
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
fn place(file: &DataFile, one: &mut Listed, end: u64) -> Result<()> {
    let Listed { member, flags, header } = one;
    let bad = |problem: &str| Error::file(file.path(), &member.name, problem);
    let room = end - *header;
    if room < 30 {
        return Err(bad("has no room for its header"));
    }
    let mut bytes = [0; 30];
    file.read_at(&mut bytes, *header)?;
    let mut fields = Fields(&bytes);
    let magic = fields.number(4);
    let _needs = fields.short();
    let (own_flags, method) = (fields.short(), fields.short());
    let _time = fields.number(4);
    let (crc, stored, size) = (fields.number(4), fields.number(4), fields.number(4));
    let (name_length, extra_length) = (fields.number(2), fields.number(2));
    let before = 30 + name_length + extra_length;
    if magic != HEADER || own_flags != *flags || (method == 8) != member.is_compressed || before > room {
        return Err(bad("has a header that is not what the directory says"));
    }
    let mut bytes = vec![0; usize::try_from(name_length + extra_length).unwrap_or(0)];
    file.read_at(&mut bytes, *header + 30)?;
    let (name, extra) = bytes.split_at(usize::try_from(name_length).unwrap_or(0));
    if name != member.name.as_bytes() {
        return Err(bad("has another name in its header than in the directory"));
    }
    let extra = zip64(extra).map_err(|problem| bad(&problem))?;
    let of_header = if size == ELSEWHERE || stored == ELSEWHERE {
        let mut fields = Fields(extra);
        (fields.number(8), fields.number(8))
    } else {
        (size, stored)
    };
    let is_after = *flags & SIZES_AFTER != 0;
    let same = of_header == (member.size, member.stored) && crc == u64::from(member.crc);
    if !(same || is_after && of_header == (0, 0) && crc == 0) {
        return Err(bad("has another size or checksum in its header than in the directory"));
    }
    member.offset = *header + before;
    let Some(left) = (room - before).checked_sub(member.stored) else {
        return Err(bad("reaches into what follows it"));
    };
    let wide = match (is_after, left) {
        (false, 0) => return Ok(()),
        (true, 16) => 4,
        (true, 24) => 8,
        _ => return Err(bad(&format!("is followed by {left} bytes that belong to nothing"))),
    };
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(0)];
    file.read_at(&mut bytes, member.offset + member.stored)?;
    let mut fields = Fields(&bytes);
    let told = (fields.number(4), fields.number(4), fields.number(wide), fields.number(wide));
    if told != (DESCRIPTOR, member.crc.into(), member.stored, member.size) {
        return Err(bad("is followed by another size or checksum than the directory has"));
    }
    Ok(())
}

/// Checks a member that is not compressed against its checksum.
fn check_sum(file: &DataFile, member: &Member) -> Result<()> {
    let mut hasher = crc32fast::Hasher::new();
    let mut piece = vec![0; usize::try_from(member.stored).unwrap_or(usize::MAX).min(1 << 20)];
    let mut done = 0;
    while done < member.stored {
        let length = (member.stored - done).min(piece.len() as u64);
        let piece = &mut piece[..usize::try_from(length).unwrap_or(0)];
        file.read_at(piece, member.offset + done)?;
        hasher.update(piece);
        done += length;
    }
    if hasher.finalize() == member.crc {
        return Ok(());
    }
    Err(damaged(file, member))
}

fn damaged(file: &DataFile, member: &Member) -> Error {
    Error::file(file.path(), &member.name, "is not what its checksum says: the file is damaged")
}

impl Member {
    /// Reads it whole, if it has no more than `most` bytes, and checks it.
    ///
    /// # Errors
    /// When it is larger, damaged, cannot be read, or does not unpack to what it is said to.
    pub fn read(&self, file: &DataFile, most: u64) -> Result<Vec<u8>> {
        let bad = |problem: String| Error::file(file.path(), &self.name, problem);
        if self.size > most || self.stored > most {
            return Err(bad(format!(
                "{} bytes are more than the {most} it may have",
                self.size.max(self.stored)
            )));
        }
        let mut bytes = vec![0; usize::try_from(self.stored).unwrap_or(usize::MAX)];
        file.read_at(&mut bytes, self.offset)?;
        if !self.is_compressed {
            return if crc32fast::hash(&bytes) == self.crc { Ok(bytes) } else { Err(damaged(file, self)) };
        }
        let mut unpacked = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        let mut decoder = flate2::read::DeflateDecoder::new(bytes.as_slice()).take(self.size + 1);
        decoder.read_to_end(&mut unpacked).map_err(|e| bad(format!("cannot be unpacked: {e}")))?;
        if unpacked.len() as u64 != self.size || crc32fast::hash(&unpacked) != self.crc {
            return Err(bad("does not unpack to what the directory says".into()));
        }
        Ok(unpacked)
    }
}
