//! What torch.save writes, and what only looks like it: tensors are read, nothing is run.
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
use causalcone_model::file::{Encoding, Entry, Weights};
use common::{Random, Verdict, fixture};
use std::path::{Path, PathBuf};

/// Pickle, one instruction at a time.
#[derive(Clone, Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn new() -> Self {
        Self(vec![0x80, 2])
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn text(self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap();
        self.raw(b"X").raw(&length.to_le_bytes()).raw(text.as_bytes())
    }

    fn int(self, number: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&number.to_le_bytes())
    }

    fn ints(self, numbers: &[i64]) -> Self {
        numbers.iter().fold(self.raw(b"("), |pickle, number| pickle.int(*number)).raw(b"t")
    }

    fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    fn storage(self, kind: &str, key: &str, count: i64) -> Self {
        let named = self.raw(b"(").text("storage").global("torch", kind).text(key).text("cpu");
        named.int(count).raw(b"tQ")
    }

    /// A view of a storage.
    fn tensor(self, kind: &str, key: &str, count: i64, view: &View<'_>) -> Self {
        let call = self.global("torch._utils", "_rebuild_tensor_v2").raw(b"(").storage(kind, key, count);
        let sized = call.int(view.offset).ints(view.shape).ints(view.strides);
        sized.raw(&[0x89]).global("collections", "OrderedDict").raw(b")RtR")
    }

    /// A dictionary of one tensor, `w`.
    fn of(kind: &str, key: &str, count: i64, view: &View<'_>) -> Self {
        Self::new().raw(b"}").text("w").tensor(kind, key, count, view).raw(b"s.")
    }
}

struct View<'a> {
    offset: i64,
    shape: &'a [i64],
    strides: &'a [i64],
}

const PLAIN: View<'_> = View { offset: 0, shape: &[2, 3], strides: &[3, 1] };
const NUMBERS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

fn floats() -> Vec<u8> {
    NUMBERS.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The archive of a pickle, with the six numbers as storage 0.
fn saved(pickle: &Pickle) -> Vec<u8> {
    saved_with(pickle, &floats())
}

fn saved_with(pickle: &Pickle, storage: &[u8]) -> Vec<u8> {
    archive(&[
        Member::new("x/data.pkl", pickle.0.clone()),
        Member::new("x/byteorder", "little"),
        Member::new("x/data/0", storage),
        Member::new("x/version", "3\n"),
    ])
}

/// Reads every tensor of a file, by name.
fn read(path: &Path) -> Result<Vec<(String, Vec<f32>)>> {
    read_those(path, |_| true)
}

/// Reads the tensors of a file that are meant.
fn read_those(path: &Path, is_meant: fn(&Entry) -> bool) -> Result<Vec<(String, Vec<f32>)>> {
    let weights = Weights::from_torch(path)?;
    let mut names: Vec<(String, Vec<usize>)> = weights
        .entries()
        .filter(|entry| is_meant(entry))
        .map(|entry| (entry.name.clone(), entry.shape.clone()))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for (name, shape) in names {
        let numbers = weights.take(&name, &shape)?.flatten_all()?.to_vec1::<f32>()?;
        found.push((name, numbers));
    }
    Ok(found)
}

struct Place {
    folder: tempfile::TempDir,
    verdict: Verdict,
}

impl Place {
    fn new() -> Self {
        Self { verdict: Verdict::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("a.bin");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn refused(&mut self, name: &str, bytes: &[u8], says: &str) {
        let path = self.write(bytes);
        self.verdict.refused(name, bytes.len() as u64, says, || read(&path));
    }

    /// A pickle that must be refused.
    fn refuse(&mut self, name: &str, pickle: &Pickle, says: &str) {
        self.refused(name, &saved(pickle), says);
    }

    fn reads(&mut self, name: &str, bytes: &[u8], expected: &[f32]) {
        let path = self.write(bytes);
        let found = self.verdict.accepted(name, bytes.len() as u64, || read(&path));
        if let Some(found) = found {
            assert_eq!(found, [("w".to_owned(), expected.to_vec())], "{name}");
        }
    }
}

#[test]
fn tensors_are_read_as_torch_means_them() {
    let mut place = Place::new();
    let float = |view: &View<'_>| saved(&Pickle::of("FloatStorage", "0", 6, view));
    place.reads("plain", &float(&PLAIN), &NUMBERS);
    // The transposed view of three rows of two.
    let turned = View { offset: 0, shape: &[2, 3], strides: &[1, 2] };
    place.reads("transposed", &float(&turned), &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    let part = View { offset: 4, shape: &[2], strides: &[1] };
    place.reads("part of a storage", &float(&part), &[5.0, 6.0]);
    let scalar = View { offset: 5, shape: &[], strides: &[] };
    place.reads("no axes", &float(&scalar), &[6.0]);
    // The stride of an axis of one says nothing.
    let thin = View { offset: 0, shape: &[1, 6], strides: &[1 << 60, 1] };
    place.reads("an axis of one", &float(&thin), &NUMBERS);
    let three = View { offset: 0, shape: &[3], strides: &[1] };
    // 1, 2, 3 in half precision, bfloat16 and double.
    let bytes = |words: [u16; 3]| words.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let doubles: Vec<u8> = [1f64, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (kind, data) in [
        ("HalfStorage", bytes([0x3c00, 0x4000, 0x4200])),
        ("BFloat16Storage", bytes([0x3f80, 0x4000, 0x4040])),
        ("DoubleStorage", doubles),
    ] {
        place.reads(kind, &saved_with(&Pickle::of(kind, "0", 3, &three), &data), &[1.0, 2.0, 3.0]);
    }
    // A parameter is its tensor; metadata as the state of the dictionary says nothing of them.
    let parameter = Pickle::new()
        .global("collections", "OrderedDict")
        .raw(b")R")
        .text("w")
        .global("torch._utils", "_rebuild_parameter")
        .raw(b"(")
        .tensor("FloatStorage", "0", 6, &PLAIN)
        .raw(&[0x88])
        .global("collections", "OrderedDict")
        .raw(b")RtRs}");
    place.reads("parameter", &saved(&parameter.clone().text("_metadata").raw(b"}sb.")), &NUMBERS);
    place.verdict.check();
}

/// Item 51.
#[test]
fn nothing_is_run() {
    let mut place = Place::new();
    let call =
        |module: &str, name: &str| Pickle::new().global(module, name).raw(b"(").text("touch ran").raw(b"tR.");
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("__builtin__", "eval"),
        ("subprocess", "Popen"),
        ("torch._utils", "_import_dotted_name"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "FloatStorage.from_file"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("collections", "OrderedDict.fromkeys"),
    ] {
        place.refuse(&format!("{module}.{name}"), &call(module, name), &format!("{module}.{name}"));
    }
    let memo = Pickle::new().text("os").raw(b"q\x00").text("system").raw(b"q\x01h\x00h\x01\x93)R.");
    place.refuse("by memo", &memo, "os.system");
    for (name, op) in [
        ("INST", &b"(ios\nsystem\n."[..]),
        ("OBJ", b"(cos\nsystem\no."),
        ("EXT1", b"\x82\x01."),
        ("EXT4", b"\x84\x01\x00\x00\x00."),
        ("NEWOBJ", b"ccollections\nOrderedDict\n)\x81."),
        ("NEWOBJ_EX", b"ccollections\nOrderedDict\n)}\x92."),
        ("PERSID", b"Pos.system\n."),
        ("REDUCE of a dict", b"})R."),
        ("BUILD of a storage class", b"ctorch\nFloatStorage\n}b."),
        ("BUILD with a state that is no dict", b"ccollections\nOrderedDict\n)RNb."),
        ("NEXT_BUFFER", b"\x97."),
    ] {
        place.refuse(name, &Pickle::new().raw(op), "byte");
    }
    place.verdict.check();
}

/// Items 52, 53, 54, 55 and 58: also where there is little stack.
#[test]
fn pickles_that_lie() {
    std::thread::Builder::new().stack_size(2 << 20).spawn(lies).unwrap().join().unwrap();
}

fn lies() {
    let mut place = Place::new();
    // Each level holds the one before twice: 2^60 values, if anyone counts them.
    for levels in [30, 60] {
        let bomb = (0..levels).fold(Pickle::new().raw(b"]"), |p, _| p.raw(b"q\x00h\x00\x86"));
        place.refuse("memo bomb", &bomb.raw(b"."), "a tuple");
    }
    place.refuse("deep", &Pickle::new().raw(b")").raw(&[0x85; 3_000_000]).raw(b"."), "more than");
    place.refuse("deep enough", &Pickle::new().raw(b")").raw(&[0x85; 100_000]).raw(b"."), "a tuple");
    place.refuse("long", &Pickle::new().raw(&[b'N'; 4_000_000]), "more than");
    place.refuse("larger than any", &Pickle::new().raw(&[b'N'; 5_000_000]), "4194304");
    let marks = Pickle::new().raw(&[b'('; 4_000_000]).raw(b".");
    place.refuse("marks", &marks, "data.pkl");
    // A dictionary in itself.
    place.refuse("itself", &Pickle::new().raw(b"}q\x00").text("w").raw(b"h\x00s."), "\"w\" is a dict");
    // The largest tensors there may be, as many as fit.
    let eight = View { offset: 0, shape: &[1; 8], strides: &[1; 8] };
    let head = Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b"q\x00(");
    let arguments = head.storage("FloatStorage", "0", 6).int(0).ints(eight.shape).ints(eight.strides);
    let many = arguments.raw(b"\x89Ntq\x01").raw(&b"h\x00h\x01R".repeat(800_000)).raw(b".");
    place.refuse("many tensors", &many, "more than");
    let empty = Pickle::new().global("torch._utils", "_rebuild_tensor_v2").raw(b")R.");
    place.refuse("no arguments", &empty, "0 arguments");
    let short = Pickle::new().global("torch._utils", "_rebuild_parameter").raw(b"}\x85R.");
    place.refuse("one argument", &short, "1 arguments");
    for (name, op) in [
        ("a str of 2^63", &b"\x8d\x00\x00\x00\x00\x00\x00\x00\x80"[..]),
        ("a str of 2^32", b"X\xff\xff\xff\xff"),
        ("bytes of 2^63", b"\x8e\x00\x00\x00\x00\x00\x00\x00\x80"),
        ("LONG4 of 2^31", b"\x8b\xff\xff\xff\x7f"),
        ("LONG1 of 255", b"\x8a\xff\x00"),
        ("LONG1 of 9", b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01."),
        ("a frame of 2^63", b"\x95\x00\x00\x00\x00\x00\x00\x00\x80"),
        ("no UTF-8", b"X\x01\x00\x00\x00\xff."),
        ("a name without end", b"cos"),
        ("an unmatched mark", b"}(."),
        ("a mark too few", b"t."),
        ("nothing", b"."),
        ("two values", b"NN."),
        ("an empty stack", b"q\x00."),
        ("an empty memo", b"h\x07."),
        ("POP", b"N0."),
        ("an item without a value", b"}(Nu."),
        ("items of a list", b"](NNu."),
        ("a list", b"]."),
        ("a key that is no str", b"}NNs."),
        ("a storage without a name", b"NQ."),
        ("no end", b"}"),
        ("more after the end", b"}.}."),
        ("two pickles", b"}.\x80\x02}."),
    ] {
        place.refuse(name, &Pickle::new().raw(op), "data.pkl");
    }
    place.refuse("protocol 6", &Pickle(b"\x80\x06}.".to_vec()), "protocol");
    place.refuse("protocol 0", &Pickle(b"(dp0\n.".to_vec()), "protocol");
    let twice = Pickle::new().raw(b"}").text("w").tensor("FloatStorage", "0", 6, &PLAIN).raw(b"s");
    let twice = twice.text("w").tensor("FloatStorage", "0", 6, &PLAIN).raw(b"s.");
    place.refuse("a name twice", &twice, "twice");
    place.verdict.check();
}

/// Items 56 and 57.
#[test]
fn views_that_lie() {
    let mut place = Place::new();
    let mut refuse = |name: &str, offset: i64, shape: &[i64], strides: &[i64], says: &str| {
        let view = View { offset, shape, strides };
        place.refuse(name, &Pickle::of("FloatStorage", "0", 6, &view), says);
    };
    refuse("stride 2^60", 0, &[2, 3], &[1 << 60, 1], "strides");
    refuse("stride 0", 0, &[2, 3], &[0, 1], "strides");
    refuse("overlapping", 0, &[2, 3], &[1, 1], "strides");
    refuse("gaps", 0, &[2, 2], &[3, 1], "strides");
    refuse("a stride too few", 0, &[2, 3], &[3], "strides");
    refuse("a stride too many", 0, &[6], &[1, 1], "strides");
    refuse("no strides", 0, &[2, 3], &[], "strides");
    refuse("a size of -1", 0, &[-1, 3], &[3, 1], "no number from 0");
    refuse("an offset of -1", -1, &[2], &[1], "no number from 0");
    refuse("an offset beyond", 1, &[2, 3], &[3, 1], "storage of 6");
    refuse("an offset of 2^63-1", i64::MAX, &[2], &[1], "storage of 6");
    refuse("2^32 x 2^32", 0, &[1 << 32, 1 << 32], &[1 << 32, 1], "storage of 6");
    refuse("2^62 x 4", 0, &[1 << 62, 4], &[4, 1], "storage of 6");
    refuse("17 axes", 0, &[1; 17], &[1; 17], "no number from 0");
    for key in ["../0", "/data/0", "0/../0", "", "zero", "٣"] {
        let pickle = Pickle::of("FloatStorage", key, 6, &PLAIN);
        place.refuse(&format!("key {key:?}"), &pickle, "storage key");
    }
    place.refuse("a key of nothing", &Pickle::of("FloatStorage", "7", 6, &PLAIN), "storage 7 is missing");
    for count in [7, 5, 1 << 62, -6] {
        let pickle = Pickle::of("FloatStorage", "0", count, &PLAIN);
        place.refuse(&format!("a storage of {count}"), &pickle, "storage");
    }
    place.refuse("half of it", &Pickle::of("HalfStorage", "0", 6, &PLAIN), "has 24 bytes");
    place.refuse("integers", &Pickle::of("IntStorage", "0", 6, &PLAIN), "w");
    place.refuse("complex", &Pickle::of("ComplexFloatStorage", "0", 6, &PLAIN), "ComplexFloatStorage");
    let both = Pickle::new().raw(b"}").text("w").tensor("FloatStorage", "0", 6, &PLAIN).raw(b"s");
    let twelve = View { offset: 0, shape: &[12], strides: &[1] };
    let both = both.text("v").tensor("HalfStorage", "0", 12, &twelve).raw(b"s.");
    place.refuse("a storage of two kinds", &both, "something else");
    place.verdict.check();
}

#[test]
fn archives_that_are_no_state_dict() {
    let mut place = Place::new();
    let pickle = Pickle::of("FloatStorage", "0", 6, &PLAIN).0;
    let good = [
        Member::new("x/data.pkl", pickle.clone()),
        Member::new("x/data/0", floats()),
        Member::new("x/version", "3\n"),
    ];
    let with = |more: Member| archive(&[&good[..], &[more]].concat());
    place.refused("another file", &with(Member::new("x/code/run.py", "1")), "x/code/run.py");
    place.refused("TorchScript", &with(Member::new("x/constants.pkl", "1")), "x/constants.pkl");
    place.refused("another folder", &with(Member::new("y/data/1", "1")), "y/data/1");
    place.refused("big-endian", &with(Member::new("x/byteorder", "big")), "byteorder");
    place.refused("compressed", &with(Member::compressed("x/data/1", &floats())), "compressed");
    place.refused("no pickle", &archive(&good[1..]), "data.pkl");
    place.refused("no storage", &archive(&[good[0].clone(), good[2].clone()]), "storage 0 is missing");
    place.refused("a bare pickle", &pickle, "1.6");
    place.refused("the format of old", &[&[0x80, 2, 0x8a, 10][..], &[0; 30]].concat(), "1.6");
    place.refused("nothing", &[], "zip");
    place.verdict.check();
}

#[test]
fn files_cut_or_changed_anywhere() {
    let mut place = Place::new();
    let whole = saved(&Pickle::of("FloatStorage", "0", 6, &PLAIN));
    for length in 0..whole.len() {
        place.refused(&format!("{length} bytes"), &whole[..length], "");
    }
    // One that torch wrote.
    let folder = fixture("pyvene-saved/tiny-gpt2");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let published = files.filter(|path| path.extension().is_some_and(|e| e == "bin")).min().unwrap();
    // Beside its floats it has counts.
    let floats = |path: &Path| read_those(path, |entry| !matches!(entry.encoding, Encoding::Other(_)));
    let expected = floats(&published).unwrap();
    let bytes = std::fs::read(published).unwrap();
    let mut random = Random(11);
    for n in 0..2000 {
        let mut changed = bytes.clone();
        let at = random.below(changed.len());
        changed[at] ^= 1 << random.below(8);
        let path = place.write(&changed);
        let seen = place.verdict.survived(&format!("change {n}"), changed.len() as u64, || floats(&path));
        if let Some(found) = seen {
            assert_eq!(found, expected, "byte {at} changed and was believed");
        }
    }
    // Whatever a pickle says: its checksum made right again, so that it is read.
    let pickle = Pickle::of("FloatStorage", "0", 6, &PLAIN).0;
    for n in 0..5000 {
        let mut changed = pickle.clone();
        for _ in 0..=random.below(3) {
            let at = 2 + random.below(changed.len() - 2);
            changed[at] = u8::try_from(random.below(256)).unwrap();
        }
        let bytes = saved(&Pickle(changed));
        let path = place.write(&bytes);
        let _ = place.verdict.survived(&format!("pickle {n}"), bytes.len() as u64, || read(&path));
    }
    place.verdict.check();
}
