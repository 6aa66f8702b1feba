//! NumPy's files and the archives they come in: what is read, and what is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

#[path = "common/archive.rs"]
mod archive;
mod common;

use archive::{Member, archive};
use causalcone_model::Result;
use causalcone_model::file::Weights;
use common::{Random, Verdict, fixture};
use std::path::{Path, PathBuf};

const HEADER: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
const NUMBERS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

/// An array with that header, of format 1.0.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(header.len() + 1).unwrap().to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.push(b'\n');
    bytes.extend(data);
    bytes
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn good() -> Vec<u8> {
    npy(HEADER, &floats(&NUMBERS))
}

/// Reads every array of a file, whatever it holds.
fn read(path: &Path) -> Result<Vec<Vec<f32>>> {
    let weights = Weights::from_numpy(path)?;
    let mut names: Vec<(String, Vec<usize>)> =
        weights.entries().map(|entry| (entry.name.clone(), entry.shape.clone())).collect();
    names.sort();
    names
        .iter()
        .map(|(name, shape)| Ok(weights.take(name, shape)?.flatten_all()?.to_vec1::<f32>()?))
        .collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        common::overwrite(&path, bytes);
        path
    }
}

#[test]
fn arrays_are_read_as_numpy_means_them() {
    let place = Place::new();
    let mut verdict = Verdict::new();
    let mut same = |name: &str, bytes: &[u8], expected: &[f32]| {
        let extension = if bytes.starts_with(b"PK") { "npz" } else { "npy" };
        let path = place.write(&format!("{name}.{extension}"), bytes);
        let found = verdict.accepted(name, bytes.len() as u64, || read(&path)).unwrap();
        assert_eq!(found, [expected], "{name}");
    };
    same("plain", &good(), &NUMBERS);
    same("archive", &archive(&[Member::new("a.npy", good())]), &NUMBERS);
    same("compressed", &archive(&[Member::compressed("a.npy", &good())]), &NUMBERS);
    // By columns: the numbers of [[1, 3, 5], [2, 4, 6]] as they lie.
    let fortran = HEADER.replace("False", "True");
    same("fortran", &npy(&fortran, &floats(&NUMBERS)), &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    let doubles: Vec<u8> = NUMBERS.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
    same("f64", &npy(&HEADER.replace("f4", "f8"), &doubles), &NUMBERS);
    // 1, 2, 3 in half precision.
    let halves = [0x3c00u16, 0x4000, 0x4200].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let header = HEADER.replace("f4", "f2").replace("(2, 3)", "(3,)");
    same("f16", &npy(&header, &halves), &[1.0, 2.0, 3.0]);
    same("no axes", &npy(&HEADER.replace("(2, 3)", "()"), &floats(&[7.0])), &[7.0]);
    let reordered = "{'shape': (7,), 'fortran_order': True, 'descr': \"<f4\"}";
    same("another order", &npy(reordered, &floats(&[1.0; 7])), &[1.0; 7]);
    let mut second = b"\x93NUMPY\x02\x00".to_vec();
    second.extend(u32::try_from(HEADER.len()).unwrap().to_le_bytes());
    second.extend(HEADER.as_bytes());
    second.extend(floats(&NUMBERS));
    same("format 2", &second, &NUMBERS);
    verdict.check();
}

/// Item 60.
#[test]
fn headers_that_lie() {
    let place = Place::new();
    let mut verdict = Verdict::new();
    let mut refuse = |name: &str, bytes: &[u8], says: &str| {
        let path = place.write("a.npy", bytes);
        verdict.refused(name, bytes.len() as u64, says, || read(&path));
    };
    let header = |from: &str, to: &str| npy(&HEADER.replace(from, to), &floats(&NUMBERS));
    refuse("2^40", &header("(2, 3)", "(1099511627776,)"), "shape [1099511627776]");
    refuse("2^32 x 2^32", &header("(2, 3)", "(4294967296, 4294967296)"), "shape");
    refuse("2^62 x 4 + 6", &header("(2, 3)", "(4611686018427387904, 4)"), "shape");
    refuse("negative", &header("(2, 3)", "(-1,)"), "header");
    refuse("short", &header("(2, 3)", "(2, 2)"), "shape [2, 2]");
    refuse("empty", &npy(&HEADER.replace("(2, 3)", "(0, 3)"), &floats(&NUMBERS)), "shape [0, 3]");
    refuse("object", &header("<f4", "|O"), "pickles");
    refuse("big-endian", &header("<f4", ">f4"), ">f4");
    refuse("complex", &header("<f4", "<c8"), "<c8");
    refuse("integers", &npy(&HEADER.replace("<f4", "<i4"), &floats(&NUMBERS)), "arr");
    refuse("no header", &npy("", &floats(&NUMBERS)), "header");
    refuse("no keys", &npy("{}", &floats(&NUMBERS)), "header");
    refuse("no flag", &header("False", "0"), "header");
    refuse("no comma", &header("'<f4', ", "'<f4' "), "header");
    refuse("no tuple", &header("(2, 3)", "(6)"), "header");
    refuse("2^64", &header("(2, 3)", "(18446744073709551616,)"), "header");
    refuse("unclosed", &header("(2, 3)", "(2, 3"), "header");
    refuse("expression", &header("(2, 3)", "(2, 1+2)"), "header");
    refuse("code", &npy("__import__('os').system('true')", &floats(&NUMBERS)), "header");
    refuse("twice", &header("{", "{'shape': (6,), "), "header");
    refuse("more", &header("{", "{'x': 1, "), "header");
    refuse("records", &header("'<f4'", "[('a', '<f4')]"), "records");
    refuse("nested", &npy(&"{".repeat(9000), &[]), "header");
    let mut long = good();
    long[8..10].copy_from_slice(&[0xff, 0xff]);
    refuse("header 65535", &long, "header of 65535");
    let mut huge = b"\x93NUMPY\x03\x00\xff\xff\xff\xff".to_vec();
    huge.extend(HEADER.as_bytes());
    refuse("header 2^32", &huge, "header of 4294967295");
    let mut version = good();
    version[6] = 9;
    refuse("format 9", &version, "format 9.0");
    let bytes = good();
    for length in 0..bytes.len() {
        refuse(&format!("{length} bytes"), &bytes[..length], "arr");
    }
    verdict.check();
}

/// Item 59.
#[test]
fn archives_that_lie() {
    let place = Place::new();
    let mut verdict = Verdict::new();
    let mut refuse = |name: &str, bytes: &[u8], says: &str| {
        let path = place.write("a.npz", bytes);
        verdict.refused(name, bytes.len() as u64, says, || read(&path));
    };
    let one = |change: fn(&mut Member)| {
        let mut member = Member::new("a.npy", good());
        change(&mut member);
        archive(&[member])
    };
    refuse("nothing", b"", "zip");
    refuse("no members", &archive(&[]), "nothing");
    refuse("no array", &archive(&[Member::new("a.txt", good())]), ".npy");
    refuse("checksum", &one(|m| m.crc ^= 1), "checksum");
    refuse("encrypted", &one(|m| m.flags = 1), "encrypted");
    refuse("patched", &one(|m| m.flags = 1 << 5), "flags");
    refuse("method", &one(|m| m.method = 14), "method 14");
    refuse("own name", &one(|m| m.own_name = Some("b.npy".into())), "another name");
    refuse("own size", &one(|m| m.own_size = Some(7)), "another size");
    refuse("two sizes", &one(|m| m.size = Some(7)), "two sizes");
    for (name, other) in [
        ("up", "../a.npy"),
        ("windows", "..\\a.npy"),
        ("absolute", "/a.npy"),
        ("drive", "C:a.npy"),
        ("NUL", "a\0.npy"),
        ("folder", "a/"),
        ("no name", ""),
    ] {
        refuse(name, &archive(&[Member::new(other, good())]), "name");
    }
    let link = |m: &mut Member| {
        m.made_by = 3 << 8;
        m.attributes = 0o120_777 << 16;
    };
    refuse("link", &one(link), "link");
    refuse("twice", &archive(&[Member::new("a.npy", good()), Member::new("a.npy", good())]), "twice");
    let mut overlapping = [Member::new("a.npy", good()), Member::new("b.npy", good())];
    overlapping[1].header = Some(0);
    refuse("overlapping", &archive(&overlapping), "no room");
    let mut more = one(|_| {});
    more.push(0);
    refuse("a byte more", &more, "zip");
    let mut before = vec![0; 3];
    before.extend(one(|_| {}));
    refuse("bytes before", &before, "archive");
    let many: Vec<Member> = (0..70_000).map(|i| Member::new(&format!("{i}.npy"), [])).collect();
    refuse("70000 members", &archive(&many), "archive");
    // What unpacks to far more than there is.
    let zeros = Member::compressed("a.npy", &vec![0; 200 << 20]);
    refuse("200 MB of zeros", &archive(&[zeros]), "unpack to more than");
    let mut lying = Member::compressed("a.npy", &vec![0; 60 << 20]);
    lying.size = Some(1000);
    refuse("60 MB said to be 1000 bytes", &archive(&[lying]), "does not unpack to what");
    let mut lying = Member::compressed("a.npy", &good());
    lying.size = Some(1 << 31);
    refuse("a few bytes said to be 2 GB", &archive(&[lying]), "unpack to more than");
    let mut broken = Member::compressed("a.npy", &good());
    broken.data.fill(0xff);
    refuse("no deflate", &archive(&[broken]), "unpacked");
    verdict.check();
}

#[test]
fn archives_cut_or_changed_anywhere() {
    let place = Place::new();
    let mut verdict = Verdict::new();
    let whole = archive(&[Member::new("a.npy", good()), Member::compressed("b.npy", &good())]);
    for length in 0..whole.len() {
        let path = place.write("a.npz", &whole[..length]);
        verdict.refused(&format!("{length} bytes"), length as u64, "", || read(&path));
    }
    let mut random = Random(7);
    let published = std::fs::read(fixture("sae/gemma-scope/params.npz")).unwrap();
    let expected = read(&fixture("sae/gemma-scope/params.npz")).unwrap();
    for n in 0..2000 {
        let mut bytes = published.clone();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        let path = place.write("a.npz", &bytes);
        // A change is seen, or was of something that says nothing about the numbers, as a time.
        if let Some(found) = verdict.survived(&format!("change {n}"), bytes.len() as u64, || read(&path)) {
            assert_eq!(found, expected, "byte {at} changed and was believed");
        }
    }
    verdict.check();
}
