//! Split GGUF files that lie: parts that are missing, contradict each other, or name each other in a circle.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::gguf::{Gguf, Info, raw, text, u32v};
use common::{Verdict, load};
use std::path::{Path, PathBuf};

fn u16v(x: u16) -> Vec<u8> {
    raw(2, &x.to_le_bytes())
}

fn i32v(x: i32) -> Vec<u8> {
    raw(5, &x.to_le_bytes())
}

/// The valid file in three parts: the metadata and no tensor, ten tensors, ten tensors.
fn parts() -> [Gguf; 3] {
    let whole = Gguf::valid();
    let (first, second) = whole.tensors.split_at(10);
    let total = i32::try_from(whole.tensors.len()).unwrap();
    let part = |number: u16, tensors: &[Info]| {
        let mut part = Gguf { tensors: tensors.to_vec(), ..whole.clone() };
        if number > 0 {
            part.keys.clear();
        }
        part.set("split.no", u16v(number));
        part.set("split.tensors.count", i32v(total));
        part.set("split.count", u16v(3));
        part
    };
    [part(0, &[]), part(1, first), part(2, second)]
}

fn name(number: usize, count: usize) -> String {
    format!("tiny-{number:05}-of-{count:05}.gguf")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, parts: &[Gguf; 3]) -> u64 {
        let mut bytes = 0;
        for (part, number) in parts.iter().zip(1..) {
            let part = part.bytes();
            bytes += part.len() as u64;
            common::overwrite(self.at(&name(number, 3)), part);
        }
        bytes
    }
}

/// A name, part of the message, and what is changed.
type Case = (&'static str, &'static str, fn(&mut [Gguf; 3]));

/// Every case is refused for what it changes, whichever part is named.
fn refuse(cases: &[Case]) {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (case, says, change) in cases {
        let mut files = parts();
        change(&mut files);
        let bytes = folder.write(&files);
        for number in 1..=3 {
            verdict.refused(&format!("{case}, part {number} named"), bytes, says, || {
                load(&folder.at(&name(number, 3)))
            });
        }
    }
    verdict.check();
}

#[test]
fn the_unchanged_parts_load() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let bytes = folder.write(&parts());
    for number in 1..=3 {
        let model = verdict.accepted("parts", bytes, || load(&folder.at(&name(number, 3)))).unwrap();
        assert_eq!(model.files().len(), 3);
        assert_eq!(model.tokenizer().unwrap().encode("abc ab12", 64).unwrap(), [6, 8, 9, 10]);
    }
    // Metadata that says the same again, and an alignment of its own.
    let mut again = parts();
    again[1].set("general.architecture", text("llama"));
    again[2].set("general.alignment", u32v(64));
    again[2].alignment = 64;
    let bytes = folder.write(&again);
    let _ = verdict.accepted("the same metadata", bytes, || load(&folder.at(&name(1, 3))));
    verdict.check();
}

#[test]
fn parts_that_contradict_each_other() {
    refuse(&[
        ("numbers swapped", "split.no", |files| files.swap(1, 2)),
        ("a part twice", "split.no", |files| files[2] = files[1].clone()),
        ("the same tensors twice", "is also in", |files| files[2].tensors = files[1].tensors.clone()),
        ("a tensor more", "split.tensors.count", |files| {
            let mut more = files[1].tensors[0].clone();
            more.name = b"another".to_vec();
            files[2].tensors.push(more);
        }),
        ("a tensor less", "split.tensors.count: is 20, but all parts together have 19", |files| {
            files[2].tensors.pop();
        }),
        ("another total in one part", "split.tensors.count", |files| {
            files[2].set("split.tensors.count", i32v(19));
        }),
        ("another count in one part", "split.", |files| files[1].set("split.count", u16v(2))),
        // Named itself, it is a whole file without metadata.
        ("no key of a split in one part", "tiny-00002-of-00003.gguf: ", |files| files[1].keys.clear()),
        ("other metadata", "llama.block_count: is not what the first part says", |files| {
            files[2].set("llama.block_count", u32v(3));
        }),
        ("metadata of its own", "llama.mystery: is not what the first part says", |files| {
            files[2].set("llama.mystery", u32v(3));
        }),
        ("the metadata last", "general.architecture", |files| {
            let keys = files[0].keys.clone();
            files[0].keys.retain(|(key, _)| key.starts_with(b"split."));
            files[2].keys.extend(keys.into_iter().filter(|(key, _)| !key.starts_with(b"split.")));
        }),
        ("cut", "00002-of-00003.gguf: ", |files| files[1].n_tensors = Some(1 << 40)),
    ]);
}

#[test]
fn numbers_that_no_part_has() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let all = |value: Vec<u8>, key: &'static str| {
        move || {
            let mut files = parts();
            files.iter_mut().for_each(|file| file.set(key, value.clone()));
            files
        }
    };
    for (case, says, key, value) in [
        ("a number past the count", "split.no: 3 is not below", "split.no", u16v(3)),
        ("a negative number", "split.no: is not a whole number", "split.no", i32v(-1)),
        ("a text", "split.no: is not a whole number", "split.no", text("1")),
        ("a negative count", "split.count: is not a whole number", "split.count", i32v(-3)),
        ("99999 parts", "split.count: 99999 parts are more than", "split.count", u32v(99_999)),
        (
            "2^64-1 parts",
            "split.count: 18446744073709551615",
            "split.count",
            raw(10, &u64::MAX.to_le_bytes()),
        ),
        ("2^31-1 tensors", "split.tensors.count: 2147483647", "split.tensors.count", i32v(i32::MAX)),
        ("-1 tensors", "split.tensors.count: is not a whole", "split.tensors.count", i32v(-1)),
        ("1000 parts", "part 2 of 1000 of a split file", "split.count", u16v(1000)),
    ] {
        let bytes = folder.write(&all(value, key)());
        verdict.refused(case, bytes, says, || load(&folder.at(&name(2, 3))));
    }
    for key in ["split.no", "split.tensors.count"] {
        let mut files = parts();
        files.iter_mut().for_each(|file| file.remove(key));
        let bytes = folder.write(&files);
        verdict.refused(key, bytes, &format!("{key}: is missing"), || load(&folder.at(&name(1, 3))));
    }
    verdict.check();
}

#[test]
fn parts_that_are_not_there() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let bytes = folder.write(&parts());
    // A part under another name says which it is, and what to do.
    let [_, second, _] = parts();
    for other in
        ["tiny.gguf", "tiny-00001-of-00003.gguf", "tiny-00002-of-00004.gguf", "tiny-2-of-3.gguf", "x"]
    {
        let elsewhere = Folder::new();
        common::overwrite(elsewhere.at(other), second.bytes());
        verdict.refused(other, bytes, "is part 2 of 3 of a split file", || load(&elsewhere.at(other)));
        verdict.refused(other, bytes, "NAME-00002-of-00003.gguf", || load(&elsewhere.at(other)));
        verdict.refused(other, bytes, "llama-gguf-split --merge", || load(&elsewhere.at(other)));
    }
    std::fs::remove_file(folder.at(&name(3, 3))).unwrap();
    verdict.refused("no third part", bytes, "tiny-00003-of-00003.gguf is missing", || {
        load(&folder.at(&name(1, 3)))
    });
    std::fs::remove_file(folder.at(&name(1, 3))).unwrap();
    verdict.refused("one part", bytes, "tiny-00001-of-00003.gguf and 1 more is missing", || {
        load(&folder.at(&name(2, 3)))
    });
    // A name that promises 99999 parts.
    let mut files = parts();
    let promised = folder.at("tiny-00001-of-99999.gguf");
    files[0].set("split.count", u32v(99_999));
    common::overwrite(&promised, files[0].bytes());
    verdict.refused("99999 parts", bytes, "split.count: 99999 parts", || load(&promised));
    std::fs::create_dir(folder.at(&name(1, 3))).unwrap();
    std::fs::create_dir(folder.at(&name(3, 3))).unwrap();
    verdict.refused("a folder as a part", bytes, "is not a regular file", || load(&folder.at(&name(2, 3))));
    verdict.check();
}

/// Parts that are links: to themselves, to each other, out of the folder, and as the Hugging Face cache has them.
#[cfg(unix)]
#[test]
fn parts_that_are_links() {
    use std::os::unix::fs::symlink;
    let (folder, outside) = (Folder::new(), Folder::new());
    let mut verdict = Verdict::new();
    let bytes = folder.write(&parts());
    outside.write(&parts());
    let replace = |target: &Path| {
        let part = folder.at(&name(3, 3));
        std::fs::remove_file(&part).unwrap();
        symlink(target, part).unwrap();
    };
    let first = || load(&folder.at(&name(1, 3)));
    replace(&outside.at(&name(3, 3)));
    verdict.refused("out of the folder", bytes, "leads out of its folder", first);
    replace(Path::new("/etc/passwd"));
    verdict.refused("to /etc/passwd", bytes, "leads out of its folder", first);
    replace(Path::new(&name(3, 3)));
    verdict.refused("to itself", bytes, "tiny-00003-of-00003.gguf", first);
    replace(Path::new(&name(1, 3)));
    verdict.refused("to the first", bytes, "split.no: is 0, where 2 fits", first);

    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for (part, number) in parts().iter().zip(1..) {
        common::overwrite(blobs.join(format!("{number}")), part.bytes());
        symlink(format!("../../blobs/{number}"), snapshot.join(name(number, 3))).unwrap();
    }
    let _ = verdict.accepted("the cache's own links", bytes, || load(&snapshot.join(name(2, 3))));
    verdict.check();
}

/// 13 MB of parts, each of which is the first one again: a reader that followed names would never end.
#[cfg(unix)]
#[test]
fn a_circle_of_13_megabytes() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let mut first = parts()[0].clone();
    first.set("split.count", u16v(1000));
    first.set("general.padding", text(&"x".repeat(13 << 20)));
    let bytes = first.bytes();
    common::overwrite(folder.at(&name(1, 1000)), &bytes);
    for number in 2..=1000 {
        std::fs::hard_link(folder.at(&name(1, 1000)), folder.at(&name(number, 1000))).unwrap();
    }
    for number in [1, 2, 1000] {
        verdict.refused("a circle", bytes.len() as u64, "split.no", || load(&folder.at(&name(number, 1000))));
    }
    verdict.check();
}

/// A hundred parts of many tiny tensors: what all of them have together is bounded, and not what each has.
#[test]
fn many_tensors_in_many_parts() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let mut bytes = 0;
    for number in 1..=100u16 {
        let mut part = parts()[1].clone();
        part.set("split.no", u16v(number - 1));
        part.set("split.count", u16v(100));
        part.set("split.tensors.count", i32v(131_072));
        let one = Info { dims: vec![1], data: vec![0; 4], ..part.tensors[0].clone() };
        let tensor = |n: usize| Info { name: format!("{number}.{n}").into_bytes(), ..one.clone() };
        part.tensors = (0..2000).map(tensor).collect();
        let part = part.bytes();
        bytes += part.len() as u64;
        common::overwrite(folder.at(&name(number.into(), 100)), part);
    }
    let says = "split.tensors.count: is 131072, but the first 66 parts have 132000 tensors";
    verdict.refused("200000 tensors", bytes, says, || load(&folder.at(&name(1, 100))));
    verdict.check();
}
