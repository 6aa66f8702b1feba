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
        common::overwrite(&path, bytes);
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
    place.refused("a bare pickle", &pickle, "a pickle that torch.save did not write");
    place.refused("nothing", &[], "zip");
    place.verdict.check();
}

/// A file in the format before version 1.6: five pickles, then each storage's count and numbers.
#[derive(Clone)]
struct Legacy {
    magic: Pickle,
    version: Pickle,
    system: Pickle,
    dict: Pickle,
    keys: Pickle,
    storages: Vec<u8>,
}

impl Legacy {
    fn new(dict: Pickle) -> Self {
        let magic = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
        let mut storages = 6u64.to_le_bytes().to_vec();
        storages.extend(floats());
        Self {
            magic: Pickle::new().raw(&[0x8a, 10]).raw(&magic).raw(b"."),
            version: Pickle::new().raw(b"M\xe9\x03."),
            system: Pickle::new().raw(b"}(").text("little_endian").raw(&[0x88]).raw(b"u."),
            dict,
            keys: Pickle::new().raw(b"](").text("0").raw(b"e."),
            storages,
        }
    }

    fn valid() -> Self {
        Self::new(Pickle::of("FloatStorage", "0", 6, &PLAIN))
    }

    fn bytes(&self) -> Vec<u8> {
        let Self { magic, version, system, dict, keys, storages } = self;
        [&magic.0[..], &version.0, &system.0, &dict.0, &keys.0, storages].concat()
    }
}

#[test]
fn the_format_before_version_1_6() {
    let mut place = Place::new();
    place.reads("plain", &Legacy::valid().bytes(), &NUMBERS);
    let turned = View { offset: 0, shape: &[2, 3], strides: &[1, 2] };
    let turned = Pickle::of("FloatStorage", "0", 6, &turned);
    place.reads("transposed", &Legacy::new(turned).bytes(), &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    let mut refused = |name: &str, says: &str, change: &dyn Fn(&mut Legacy)| {
        let mut file = Legacy::valid();
        change(&mut file);
        place.refused(name, &file.bytes(), says);
    };
    let run = || Pickle::new().global("os", "system").raw(b"(").text("touch ran").raw(b"tR.");
    refused("os.system as the magic number", "os.system", &|file| file.magic = run());
    refused("os.system as the version", "os.system", &|file| file.version = run());
    refused("os.system as the machine", "os.system", &|file| file.system = run());
    refused("os.system as the dict", "os.system", &|file| file.dict = run());
    refused("os.system as the keys", "os.system", &|file| file.keys = run());
    refused("another magic number", "torch.save did not write", &|file| file.magic.0[5] ^= 1);
    refused("a longer magic number", "an int of 11 bytes", &|file| {
        file.magic = Pickle::new().raw(&[0x8a, 11]).raw(&[1; 11]).raw(b".");
    });
    refused("version 1000", "version 1001", &|file| file.version.0[3] = 0xe8);
    refused("big-endian", "little-endian", &|file| {
        file.system = Pickle::new().raw(b"}(").text("little_endian").raw(&[0x89]).raw(b"u.");
    });
    refused("a machine of no order", "little-endian", &|file| file.system = Pickle::new().raw(b"}."));
    refused("a machine that is a list", "describe", &|file| file.system = Pickle::new().raw(b"]."));
    refused("no dict", "a dict of tensors", &|file| file.dict = Pickle::new().raw(b"]."));
    refused("a module", "torch.nn.modules.linear.Linear", &|file| {
        file.dict =
            Pickle::new().raw(b"(").text("module").global("torch.nn.modules.linear", "Linear").raw(b"tQ.");
    });
    let view = |view: &[u8]| {
        let named = Pickle::new().raw(b"}").text("w").global("torch._utils", "_rebuild_tensor_v2").raw(b"((");
        let named = named.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(6);
        named.raw(view).raw(b"tQ").int(0).ints(&[2, 3]).ints(&[3, 1]).raw(b"\x89)tRs.")
    };
    place.reads("a storage that is no view", &Legacy::new(view(b"N")).bytes(), &NUMBERS);
    let mut refused = |name: &str, says: &str, change: &dyn Fn(&mut Legacy)| {
        let mut file = Legacy::valid();
        change(&mut file);
        place.refused(name, &file.bytes(), says);
    };
    refused("a storage that is a view", "view of another", &|file| file.dict = view(b"(K\x00K\x00K\x06t"));
    refused("a storage of seven parts", "too many parts", &|file| file.dict = view(b"NN"));
    let keys =
        |keys: &[&str]| keys.iter().fold(Pickle::new().raw(b"]("), |pickle, key| pickle.text(key)).raw(b"e.");
    refused("a key of no tensor", "\"1\", which no tensor has", &|file| file.keys = keys(&["0", "1"]));
    refused("a key twice", "\"0\", which no tensor has, or lists it twice", &|file| {
        file.keys = keys(&["0", "0"]);
    });
    refused("no keys", "does not list storage 0", &|file| file.keys = keys(&[]));
    refused("a key that is no str", "no str", &|file| file.keys = Pickle::new().raw(b"]K\x00a."));
    refused("keys in a dict", "list its storages", &|file| file.keys = Pickle::new().raw(b"}."));
    for count in [0, 5, 7, 1 << 62, 1 << 63, u64::MAX] {
        refused(&format!("{count} numbers"), "storage 0: has", &|file| {
            file.storages[..8].copy_from_slice(&count.to_le_bytes());
        });
    }
    refused("2^62 numbers in both", "pass the end", &|file| {
        file.dict = Pickle::of("FloatStorage", "0", 1 << 61, &PLAIN);
        file.storages[..8].copy_from_slice(&(1u64 << 61).to_le_bytes());
    });
    refused("a byte more", "1 bytes follow", &|file| file.storages.push(0));
    refused("two kinds", "of two kinds", &|file| {
        let both = Pickle::new().raw(b"}").text("w").tensor("FloatStorage", "0", 6, &PLAIN).raw(b"s");
        file.dict = both.text("v").tensor("HalfStorage", "0", 6, &PLAIN).raw(b"s.");
    });
    refused("more pickle than any", "too early", &|file| {
        file.dict = Pickle::new().text(&"x".repeat(5_000_000)).raw(b".");
    });
    // As many of the largest values as a pickle may make, as the state of two of the five: never in memory at once.
    let eight = View { offset: 0, shape: &[1; 8], strides: &[1; 8] };
    let heavy = |dict: &Pickle| {
        let dict = Pickle(dict.0[..dict.0.len() - 1].to_vec()).raw(b"}N](");
        let head = dict.global("torch._utils", "_rebuild_tensor_v2").raw(b"q\x00(");
        let arguments = head.storage("FloatStorage", "0", 6).int(0).ints(eight.shape).ints(eight.strides);
        arguments.raw(b"\x89Ntq\x01").raw(&b"h\x00h\x01R".repeat(120_000)).raw(b"esb.")
    };
    let mut file = Legacy::valid();
    (file.system, file.dict) = (heavy(&file.system), heavy(&file.dict));
    place.reads("many tensors in a state", &file.bytes(), &NUMBERS);
    let whole = Legacy::valid().bytes();
    for length in 0..whole.len() {
        place.refused(&format!("{length} bytes"), &whole[..length], "");
    }
    let mut random = Random(17);
    for n in 0..3000 {
        let mut changed = whole.clone();
        for _ in 0..=random.below(3) {
            let at = 2 + random.below(changed.len() - 2);
            changed[at] = u8::try_from(random.below(256)).unwrap();
        }
        let path = place.write(&changed);
        let _ = place.verdict.survived(&format!("change {n}"), changed.len() as u64, || read(&path));
    }
    place.verdict.check();
}

/// A negated view keeps its sign beside its numbers.
#[test]
fn metadata_of_a_tensor_is_not_dropped() {
    let mut place = Place::new();
    let with = |metadata: Pickle| {
        let call = Pickle::new().raw(b"}").text("w").global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
        let sized = call.storage("FloatStorage", "0", 6).int(0).ints(PLAIN.shape).ints(PLAIN.strides);
        sized.raw(b"\x89)").raw(&metadata.0[2..]).raw(b"tRs.")
    };
    place.reads("none", &saved(&with(Pickle::new().raw(b"N"))), &NUMBERS);
    place.reads("empty", &saved(&with(Pickle::new().raw(b"}"))), &NUMBERS);
    place.refuse("negated", &with(Pickle::new().raw(b"}").text("neg").raw(b"\x88s")), "metadata");
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
    // TokenScore its floats it has counts.
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

/// The shards of tiny-llama-tied, and an index that may lie about them.
#[test]
fn an_index_of_shards() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(fixture("tiny-llama-tied/config.json"), at("config.json")).unwrap();
    let mut bytes = 0;
    for file in std::fs::read_dir(fixture("weight-files/tiny-llama-tied")).unwrap() {
        let file = file.unwrap();
        bytes += std::fs::copy(file.path(), at(file.file_name().to_str().unwrap())).unwrap();
    }
    const INDEX: &str = "pytorch_model.bin.index.json";
    const LAST: &str = "pytorch_model-00003-of-00003.bin";
    const NORM: &str = "model.norm.weight";
    let honest: serde_json::Value = serde_json::from_slice(&std::fs::read(at(INDEX)).unwrap()).unwrap();
    assert_eq!(honest["weight_map"][NORM], LAST);
    let mut verdict = Verdict::new();
    let load = || common::load(folder.path());
    assert!(verdict.accepted("the honest one", bytes, load).is_some());
    let mut refused = |name: &str, says: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let mut index = honest.clone();
        change(&mut index["weight_map"]);
        common::overwrite(at(INDEX), index.to_string());
        verdict.refused(name, bytes, says, load);
    };
    for target in ["../../etc/passwd", "/etc/passwd", "..", "", ".hidden", "sub/a.bin", "a.bin\0"] {
        refused(target, &format!("{NORM}: "), &|map| map[NORM] = target.into());
    }
    refused("a shard that is missing", "names gone.bin, which is missing", &|map| {
        map[NORM] = "gone.bin".into();
    });
    refused("another shard", "which does not hold it", &|map| {
        map[NORM] = "pytorch_model-00001-of-00003.bin".into();
    });
    refused("a tensor of no shard", "model.mystery: should be in", &|map| map["model.mystery"] = LAST.into());
    refused("a tensor left out", "where the index does not put it", &|map| {
        map.as_object_mut().unwrap().remove(NORM);
    });
    refused("a shard of another format", "config.json: archive: ", &|map| map[NORM] = "config.json".into());
    refused("no shards", "weight_map: is empty", &|map| *map = serde_json::json!({}));
    refused("a list", "weight_map: is missing or no map", &|map| *map = serde_json::json!([]));
    // Nothing of a shard is run.
    common::overwrite(at(INDEX), honest.to_string());
    let whole = std::fs::read(at(LAST)).unwrap();
    let run = Pickle::new().global("posix", "system").raw(b"(").text("touch ran").raw(b"tR.");
    common::overwrite(at(LAST), saved(&run));
    verdict.refused("a shard that runs", bytes, "posix.system", load);
    // The same tensor in two shards, whatever the index says of it.
    std::fs::copy(at("pytorch_model-00002-of-00003.bin"), at(LAST)).unwrap();
    verdict.refused("a shard twice", bytes, "does not hold it", load);
    #[cfg(unix)]
    {
        let outside = tempfile::tempdir().unwrap();
        common::overwrite(outside.path().join("a"), whole);
        std::fs::remove_file(at(LAST)).unwrap();
        std::os::unix::fs::symlink(outside.path().join("a"), at(LAST)).unwrap();
        verdict.refused("a link out of the folder", bytes, "leads out of its folder", load);
    }
    verdict.check();
}
