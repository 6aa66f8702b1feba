//! GGUF files that lie: each is a valid one with one thing changed, and each must be refused with
//! an error that names that thing, in a second, in little memory, without a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::Site;
use causalcone_model::decoder::Tap;
use causalcone_model::file::{DataFile, Weights, gguf};
use causalcone_model::{Error, Model};
use common::gguf::{Gguf, MERGES, TOKENS, f32v, f64v, integers, list, raw, string, text, texts, u32v, u64v};
use common::{Random, Verdict, load};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

/// A name, part of the message, and what is changed.
type Case = (&'static str, &'static str, fn(&mut Gguf));

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("model.gguf");
        common::overwrite(&path, bytes);
        path
    }
}

/// Every case is refused for what it changes.
fn refuse(cases: &[Case]) {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (name, field, change) in cases {
        let mut file = Gguf::valid();
        change(&mut file);
        let bytes = file.bytes();
        let path = folder.write(&bytes);
        verdict.refused(name, bytes.len() as u64, field, || load(&path));
    }
    verdict.check();
}

struct Nothing;

impl Tap for Nothing {
    type Error = Error;
    fn at(
        &mut self,
        _: Site,
        _: Option<usize>,
        x: candle_core::Tensor,
    ) -> Result<candle_core::Tensor, Error> {
        Ok(x)
    }
}

fn logits(model: &Model) -> Vec<f32> {
    let logits = model.decoder().unwrap().forward(&[0, 1, 2], &mut Nothing).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_unchanged_file_loads() {
    let folder = Folder::new();
    let bytes = Gguf::valid().bytes();
    assert!((3000..8000).contains(&bytes.len()), "{} bytes", bytes.len());
    let path = folder.write(&bytes);
    let mut verdict = Verdict::new();
    let model = verdict.accepted("valid", bytes.len() as u64, || load(&path)).unwrap();
    verdict.check();
    assert_eq!(model.config().layers, 2);
    assert_eq!(model.tokenizer().unwrap().encode("abc ab12", 64).unwrap(), [6, 8, 9, 10]);
    assert_eq!(model.prompt("a", None).unwrap(), [0, 1]);
    assert!(logits(&model).iter().all(|x| x.is_finite()));
}

#[test]
fn what_must_still_load() {
    type Harmless = (&'static str, fn(&mut Gguf));
    let cases: &[Harmless] = &[
        ("version 2", |f| f.version = 2),
        ("padding after the last tensor", |f| {
            f.alignment = 64;
            f.set("general.alignment", u32v(64));
            f.tail = 32;
        }),
        ("another alignment", |f| {
            f.alignment = 64;
            f.set("general.alignment", u32v(64));
        }),
        ("denormal weights", |f| {
            f.tensor("blk.0.attn_q.weight").data = 1e-42f32.to_le_bytes().repeat(64);
        }),
        // A byte-level tokenizer has no use for scores, whatever they are.
        ("scores as u8[]", |f| f.set("tokenizer.ggml.scores", list(0, 12, &[200; 12]))),
    ];
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (name, change) in cases {
        let mut file = Gguf::valid();
        change(&mut file);
        let bytes = file.bytes();
        let path = folder.write(&bytes);
        if let Some(model) = verdict.accepted(name, bytes.len() as u64, || load(&path)) {
            assert!(logits(&model).iter().all(|x| x.is_finite()), "{name}");
        }
    }
    verdict.check();
}

/// Items 1 to 5.
#[test]
fn magic_version_and_counts() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (name, bytes) in [("empty", &b""[..]), ("magic only", b"GGUF"), ("half a magic", b"GG")] {
        let field = match bytes.len() {
            0 => "this is an empty file",
            1..4 => "magic: the file ends here",
            _ => "version: the file ends here",
        };
        let path = folder.write(bytes);
        verdict.refused(name, bytes.len() as u64, field, || load(&path));
    }
    verdict.check();
    refuse(&[
        ("another magic", "magic: ", |f| f.magic = *b"GGML"),
        ("swapped magic", "magic: ", |f| f.magic = *b"FUGG"),
        ("zip magic", "this is an archive", |f| f.magic = *b"PK\x03\x04"),
        ("version 0", "version: 0", |f| f.version = 0),
        ("version 1", "version: 1", |f| f.version = 1),
        ("version 4", "version: 4", |f| f.version = 4),
        ("swapped version", "version: 50331648", |f| f.version = 0x0300_0000),
        ("2^64-1 tensors", "tensor count: 18446744073709551615", |f| f.n_tensors = Some(u64::MAX)),
        ("2^63 tensors", "tensor count: ", |f| f.n_tensors = Some(1 << 63)),
        ("file/24+1 tensors", "tensor count: ", |f| {
            f.n_tensors = Some(f.bytes().len() as u64 / 24 + 1);
        }),
        ("a tensor more", "tensor name: \"\"", |f| f.n_tensors = Some(f.tensors.len() as u64 + 1)),
        ("2^64-1 keys", "key count: 18446744073709551615", |f| f.n_keys = Some(u64::MAX)),
        ("2^63 keys", "key count: ", |f| f.n_keys = Some(1 << 63)),
        ("file/13+1 keys", "key count: ", |f| f.n_keys = Some(f.bytes().len() as u64 / 13 + 1)),
        ("a key more", "tensor name: ", |f| f.n_keys = Some(f.keys.len() as u64 + 1)),
    ]);
}

/// Items 6 to 8.
#[test]
fn keys() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let valid = Gguf::valid().bytes();
    let remaining = valid.len() as u64 - 32;
    for length in [u64::MAX, 1 << 63, remaining + 1, remaining, 65_536] {
        let mut bytes = valid.clone();
        bytes[24..32].copy_from_slice(&length.to_le_bytes());
        let path = folder.write(&bytes);
        verdict.refused(&format!("key of {length}"), bytes.len() as u64, "key: ", || load(&path));
    }
    verdict.check();
    refuse(&[
        ("no key", "key: \"\"", |f| f.keys[1].0.clear()),
        ("a key that is no UTF-8", "key: is not UTF-8", |f| f.keys[1].0 = b"general.\xffname".to_vec()),
        ("a NUL tail", "key: \"general.name\\0\"", |f| f.keys[1].0.push(0)),
        ("a NUL tail on a second one", "holds a NUL", |f| {
            f.keys.push((b"llama.block_count\0".to_vec(), u32v(3)));
        }),
        ("twice", "llama.block_count: is given twice", |f| {
            f.keys.push((b"llama.block_count".to_vec(), u32v(3)));
        }),
        ("twice the same", "llama.block_count: is given twice", |f| {
            f.keys.push((b"llama.block_count".to_vec(), u32v(2)));
        }),
        ("an unknown key", "llama.attention.mystery", |f| f.set("llama.attention.mystery", u32v(1))),
        ("an unknown key of 60 000 bytes", "llama.expert_mmmmmmmm", |f| {
            f.keys.push(([b"llama.expert_".as_slice(), &[b'm'; 60_000]].concat(), u32v(1)));
        }),
        ("an unknown tokenizer key", "tokenizer.ggml.mystery", |f| f.set("tokenizer.ggml.mystery", u32v(1))),
    ]);
}

/// Items 9 to 12, and values of the wrong type.
#[test]
fn values() {
    refuse(&[
        ("type 13", "general.name: value type 13", |f| f.set("general.name", raw(13, &[0; 8]))),
        ("type 2^31-1", "general.name: value type 2147483647", |f| {
            f.set("general.name", raw(0x7fff_ffff, &[0; 8]));
        }),
        ("array of type 13", "general.name: array of type 13", |f| {
            f.set("general.name", list(13, 1, &[0; 8]));
        }),
        ("boolean 2", "tokenizer.ggml.add_bos_token: boolean byte 2", |f| {
            f.set("tokenizer.ggml.add_bos_token", raw(7, &[2]));
        }),
        ("boolean 2 in an array", "general.name: boolean byte 2", |f| {
            f.set("general.name", list(7, 3, &[0, 1, 2]));
        }),
        ("2^64-1 elements", "general.name: 18446744073709551615", |f| {
            f.set("general.name", list(0, u64::MAX, &[]));
        }),
        ("2^61 elements of 8 bytes", "general.name: 2305843009213693952", |f| {
            f.set("general.name", list(10, 1 << 61, &[]));
        }),
        ("2^60 texts", "general.name: ", |f| f.set("general.name", list(8, 1 << 60, &[]))),
        ("an element too many", "key: ", |f| f.set("general.name", list(4, 2, &[0; 4]))),
        ("text of 2^64-1", "general.name: ", |f| f.set("general.name", raw(8, &u64::MAX.to_le_bytes()))),
        ("text that is no UTF-8", "general.name: is not UTF-8", |f| {
            f.set("general.name", raw(8, &string(&[0xC0, 0x80])));
        }),
        ("text that is no UTF-8 in a list", "tokenizer.ggml.tokens: is not UTF-8", |f| {
            f.set("tokenizer.ggml.tokens", list(8, 1, &string(&[0xFF])));
        }),
        ("integers past 63 bits", "general.name: 18446744073709551615 does not fit", |f| {
            f.set("general.name", list(10, 1, &[0xFF; 8]));
        }),
        ("arrays nested 65 deep", "general.name: arrays of arrays", |f| f.set("general.name", nested(65))),
        ("arrays nested 10^6 deep", "general.name: arrays of arrays", |f| {
            f.set("general.name", nested(1_000_000));
        }),
    ]);
}

fn nested(depth: usize) -> Vec<u8> {
    let one = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    [&9u32.to_le_bytes()[..], &one.repeat(depth), &4u32.to_le_bytes(), &0u64.to_le_bytes()].concat()
}

/// Item 13 and its relatives: lists that cost the reader more than the file, in files that are
/// mostly holes.
#[test]
fn long_lists_in_sparse_files() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let path = folder.0.path().join("model.gguf");
    // Keys of one list each; all elements are zero bytes.
    let mut sparse = |name: &str, kind: u32, size: u64, n: u64, lists: u64, field: &str| {
        let mut file = File::create(&path).unwrap();
        let head = Gguf { keys: Vec::new(), n_keys: Some(lists), ..Gguf::valid() };
        file.write_all(&head.header()[..24]).unwrap();
        for i in 0..lists {
            file.write_all(&string(format!("general.list.{i}").as_bytes())).unwrap();
            file.write_all(&list(kind, n, &[])).unwrap();
            let end = file.seek(SeekFrom::Current(i64::try_from(n * size).unwrap())).unwrap();
            file.set_len(end + 2000).unwrap();
        }
        drop(file);
        let bytes = std::fs::metadata(&path).unwrap().len();
        verdict.refused(name, bytes, field, || load(&path));
    };
    sparse("10^9 empty texts", 8, 8, 1_000_000_000, 1, "general.list.0: 1000000000");
    sparse("10^9 bytes", 0, 1, 1_000_000_000, 1, "general.list.0: 1000000000");
    sparse("2^20 empty texts five times", 8, 8, 1 << 20, 5, "general.list.4: with it");
    sparse("2^20 bytes 200 times", 0, 1, 1 << 20, 200, "general.list.");
    sparse("2^20 booleans 200 times", 7, 1, 1 << 20, 200, "general.list.");
    sparse("2^20 f64 40 times", 12, 8, 1 << 20, 40, "general.list.");
    verdict.check();
}

/// Items 14 to 17.
#[test]
fn alignment() {
    refuse(&[
        ("0", "general.alignment: ", |f| f.set("general.alignment", u32v(0))),
        ("13", "general.alignment: ", |f| f.set("general.alignment", u32v(13))),
        ("48", "general.alignment: ", |f| f.set("general.alignment", u32v(48))),
        ("1", "general.alignment: ", |f| f.set("general.alignment", u32v(1))),
        ("2^31", "general.alignment: ", |f| f.set("general.alignment", u32v(1 << 31))),
        ("text", "general.alignment: ", |f| f.set("general.alignment", text("32"))),
        ("long text", "general.alignment: ", |f| f.set("general.alignment", text(&"3".repeat(1_000_000)))),
        ("i32", "general.alignment: ", |f| f.set("general.alignment", raw(5, &32i32.to_le_bytes()))),
        ("u64", "general.alignment: ", |f| f.set("general.alignment", u64v(32))),
        ("list", "general.alignment: ", |f| f.set("general.alignment", integers(&[32]))),
        ("larger than the tensors have", "offset", |f| f.set("general.alignment", u32v(4096))),
    ]);
}

/// Items 18 to 25: sizes and types of tensors.
#[test]
fn dimensions_and_types() {
    const Q: &str = "blk.0.attn_q.weight";
    refuse(&[
        ("5 dimensions", "blk.0.attn_q.weight: 5 dimensions", |f| f.tensor(Q).dims = vec![8, 8, 1, 1, 1]),
        ("2^32-1 dimensions", "blk.0.attn_q.weight: 4294967295 dimensions", |f| {
            f.tensor(Q).n_dims = Some(u32::MAX);
        }),
        ("0 dimensions", "blk.0.attn_q.weight: 0 dimensions", |f| f.tensor(Q).dims.clear()),
        ("a dimension of 0", "blk.0.attn_q.weight: a dimension of [8, 0]", |f| f.tensor(Q).dims = vec![8, 0]),
        ("2^32 x 2^32", "blk.0.attn_q.weight: its dimensions", |f| f.tensor(Q).dims = vec![1 << 32, 1 << 32]),
        ("4 x 2^62+4", "blk.0.attn_q.weight: its dimensions", |f| {
            f.tensor(Q).dims = vec![4, (1 << 62) + 4];
        }),
        ("2^62 elements of 4 bytes", "blk.0.attn_q.weight: its dimensions", |f| {
            f.tensor(Q).dims = vec![1 << 31, 1 << 31];
        }),
        ("Q8_0 32 x 2^59+1", "blk.0.attn_q.weight: its dimensions", |f| {
            let tensor = f.tensor(Q);
            (tensor.kind, tensor.dims) = (8, vec![32, (1 << 59) + 1]);
        }),
        (
            "a row of half a block",
            "blk.0.attn_q.weight: its rows of 8 numbers are not whole blocks of 32",
            |f| {
                f.tensor(Q).kind = 8;
            },
        ),
        ("rows that only together are blocks", "blk.0.attn_q.weight: its rows of 8", |f| {
            let tensor = f.tensor(Q);
            (tensor.kind, tensor.dims) = (2, vec![8, 8]);
        }),
        ("larger than the file", "blk.0.attn_q.weight: its dimensions", |f| {
            f.tensor(Q).dims = vec![8, 100_000];
        }),
        ("another shape", "blk.0.attn_q.weight: has shape", |f| f.tensor(Q).dims = vec![4, 16]),
        ("one axis more", "blk.0.attn_q.weight: has shape", |f| f.tensor(Q).dims = vec![8, 8, 1]),
        ("one axis less", "blk.0.attn_q.weight: has shape", |f| f.tensor(Q).dims = vec![64]),
    ]);
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (kind, says) in [
        (4, "type Q4_2 (4), which ggml has removed, is not read; types that are: F32, F16, F64, BF16, Q4_0,"),
        (5, "type Q4_3 (5), which ggml has removed, is not read"),
        (
            16,
            "type IQ2_XXS (16) is not read; types that are: F32, F16, F64, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, \
              Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ4_NL, IQ4_XS, MXFP4",
        ),
        (19, "type IQ1_S (19) is not read"),
        (21, "type IQ3_S (21) is not read"),
        (24, "type I8 (24) is not read"),
        (27, "type I64 (27) is not read"),
        (29, "type IQ1_M (29) is not read"),
        (31, "type Q4_0_4_4 (31), which ggml has removed"),
        (33, "type Q4_0_8_8 (33), which ggml has removed"),
        (34, "type TQ1_0 (34) is not read"),
        (36, "type IQ4_NL_4_4 (36), which ggml has removed"),
        (38, "type IQ4_NL_8_8 (38), which ggml has removed"),
        (40, "type NVFP4 (40) is not read"),
        (43, "type 43 is not a type of ggml's"),
        (1 << 31, "type 2147483648 is not a type of ggml's"),
        (u32::MAX, "type 4294967295 is not a type of ggml's"),
    ] {
        let mut file = Gguf::valid();
        file.tensor(Q).kind = kind;
        let path = folder.write(&file.bytes());
        verdict.refused(&format!("type {kind}"), 4000, &format!("{Q}: {says}"), || load(&path));
    }
    // Rows of 8 are no blocks.
    for kind in [20, 23, 39] {
        let mut file = Gguf::valid();
        file.tensor(Q).kind = kind;
        let path = folder.write(&file.bytes());
        verdict.refused(&format!("type {kind}"), 4000, &format!("{Q}: its rows of 8"), || load(&path));
    }
    verdict.check();
}

/// Items 26 to 29 and 31: where tensors lie, and what they are called.
#[test]
fn places_and_names() {
    const K: &str = "blk.0.attn_k.weight";
    refuse(&[
        ("offset 2^64-1", K, |f| f.tensor(K).offset = Some(u64::MAX)),
        ("offset 2^64-32", K, |f| f.tensor(K).offset = Some(u64::MAX - 31)),
        ("offset not aligned", "blk.0.attn_k.weight: offset 8 is not a multiple", |f| {
            f.tensor(K).offset = Some(8);
        }),
        ("on another tensor", "overlaps another tensor", |f| f.tensor(K).offset = Some(0)),
        ("half on another tensor", "overlaps another tensor", |f| {
            let tensor = f.tensor("blk.0.attn_q.weight");
            tensor.dims = vec![8, 16];
        }),
        ("past the end", "blk.0.attn_k.weight: ", |f| f.tensor(K).offset = Some(1 << 20)),
        ("a hole", "leaves a hole", |f| f.tensor(K).data.resize(256, 0)),
        ("a hole at the front", "leaves a hole", |f| {
            f.tensors.remove(0);
            let mut at = 0;
            for tensor in &mut f.tensors {
                at += 32;
                tensor.offset = Some(at);
                at += tensor.data.len().next_multiple_of(32) as u64 - 32;
            }
        }),
        ("a byte behind", "data: 1 bytes trail", |f| f.tail = 1),
        ("more behind than padding", "data: 64 bytes trail", |f| f.tail = 64),
        ("a megabyte behind", "bytes trail", |f| f.tail = 1 << 20),
        ("every size together wraps", "exceed the file", |f| {
            for tensor in &mut f.tensors {
                tensor.dims = vec![1 << 60];
            }
        }),
        ("offset and size wrap", K, |f| {
            let tensor = f.tensor(K);
            tensor.offset = Some(u64::MAX - 127);
        }),
        ("a name twice", "blk.0.attn_k.weight: is given twice", |f| {
            f.tensor("blk.0.attn_v.weight").name = K.into();
        }),
        ("a name of 65 bytes", "tensor name: 65", |f| f.tensor(K).name = vec![b'x'; 65]),
        ("an empty name", "tensor name: \"\"", |f| f.tensor(K).name.clear()),
        ("a path", "tensor name: \"../../evil\"", |f| f.tensor(K).name = b"../../evil".to_vec()),
        ("a Windows path", "tensor name: ", |f| f.tensor(K).name = b"..\\evil".to_vec()),
        ("a NUL tail", "tensor name: ", |f| f.tensor(K).name.push(0)),
        ("an escape sequence", "tensor name: ", |f| f.tensor(K).name = b"\x1b[31mred".to_vec()),
        ("a name that is no UTF-8", "tensor name: is not UTF-8", |f| f.tensor(K).name = vec![0xFF; 4]),
        ("a missing tensor", "blk.1.ffn_up.weight: the tensor is missing", |f| {
            f.tensors.retain(|tensor| tensor.name != b"blk.1.ffn_up.weight");
        }),
        ("a tensor too many", "blk.2.attn_q.weight", |f| {
            let mut extra = f.tensor(K).clone();
            extra.name = b"blk.2.attn_q.weight".to_vec();
            f.tensors.push(extra);
        }),
        ("no tensor", "token_embd.weight: the tensor is missing", |f| f.tensors.clear()),
    ]);
}

/// Item 29: a name of a gigabyte, in a file that has it.
#[test]
fn a_name_of_a_gigabyte() {
    let folder = Folder::new();
    let mut file = Gguf::valid();
    file.keys.clear();
    file.tensors.clear();
    (file.n_keys, file.n_tensors) = (Some(0), Some(1));
    let path = folder.write(&[&file.header()[..], &(1u64 << 30).to_le_bytes()].concat());
    File::options().write(true).open(&path).unwrap().set_len((1 << 30) + 4096).unwrap();
    let mut verdict = Verdict::new();
    // The bound must not come from the file's size here.
    verdict.refused("name", 0, "tensor name: 1073741824", || load(&path));
    verdict.check();
}

/// Item 30.
#[test]
fn truncated_at_every_byte() {
    let folder = Folder::new();
    let bytes = Gguf::valid().bytes();
    let mut verdict = Verdict::new();
    for length in 0..bytes.len() {
        let path = folder.write(&bytes[..length]);
        let name = format!("{length} bytes");
        verdict.refused(&name, length as u64, "", || {
            load(&path).inspect_err(|e| {
                let said = e.to_string();
                let ends = [
                    "empty file",
                    "ends here",
                    "could hold",
                    "pass the end",
                    "ends before",
                    "exceed the file",
                ];
                assert!(ends.iter().any(|end| said.contains(end)), "{length}: {said}");
            })
        });
    }
    verdict.check();
}

/// Items 32 to 35 and 37: what the keys say against each other and the tensors.
#[test]
fn configuration() {
    const FREQ: &str = "llama.rope.freq_base";
    const EPS: &str = "llama.attention.layer_norm_rms_epsilon";
    refuse(&[
        ("0 blocks", "llama.block_count: 0", |f| f.set("llama.block_count", u32v(0))),
        ("2^32-1 blocks", "llama.block_count: 4294967295", |f| f.set("llama.block_count", u32v(u32::MAX))),
        ("2^24 blocks", "llama.block_count: 16777216", |f| f.set("llama.block_count", u32v(1 << 24))),
        ("-1 blocks", "llama.block_count: -1", |f| f.set("llama.block_count", raw(5, &[0xFF; 4]))),
        ("2.0 blocks", "llama.block_count: 2.0", |f| f.set("llama.block_count", f32v(2.0))),
        ("3 blocks", "blk.2.", |f| f.set("llama.block_count", u32v(3))),
        ("1 block", "blk.1.", |f| f.set("llama.block_count", u32v(1))),
        ("no block count", "llama.block_count: is missing", |f| f.remove("llama.block_count")),
        ("0 heads", "llama.attention.head_count: 0", |f| f.set("llama.attention.head_count", u32v(0))),
        ("3 heads", "llama.attention.head_count: ", |f| f.set("llama.attention.head_count", u32v(3))),
        ("2^31 heads", "llama.attention.head_count: ", |f| {
            f.set("llama.attention.head_count", u32v(1 << 31));
        }),
        ("8 heads", "llama.rope.dimension_count", |f| f.set("llama.attention.head_count", u32v(8))),
        ("heads of width 1", "llama.attention.head_count: ", |f| {
            f.set("llama.attention.head_count", u32v(8));
            f.remove("llama.rope.dimension_count");
        }),
        ("0 key heads", "llama.attention.head_count_kv: 0", |f| {
            f.set("llama.attention.head_count_kv", u32v(0));
        }),
        ("8 key heads", "llama.attention.head_count_kv: ", |f| {
            f.set("llama.attention.head_count_kv", u32v(8));
        }),
        ("3 key heads", "llama.attention.head_count_kv: ", |f| {
            f.set("llama.attention.head_count_kv", u32v(3));
        }),
        ("1 key head", "attn_k.weight: has shape", |f| f.set("llama.attention.head_count_kv", u32v(1))),
        ("a list of heads", "llama.attention.head_count: ", |f| {
            f.set("llama.attention.head_count", integers(&[4, 4, 4]));
        }),
        ("a list of key heads", "llama.attention.head_count_kv: ", |f| {
            f.set("llama.attention.head_count_kv", integers(&[2, 2]));
        }),
        ("a list of 200 000 heads", "llama.attention.head_count: ", |f| {
            f.set("llama.attention.head_count", integers(&[4; 200_000]));
        }),
        ("head width NaN", "llama.attention.key_length: ", |f| {
            f.set("llama.attention.key_length", f32v(f32::NAN));
        }),
        ("value width NaN", "llama.attention.value_length", |f| {
            f.set("llama.attention.value_length", f32v(f32::NAN));
        }),
        ("frequency 0", FREQ, |f| f.set(FREQ, f32v(0.0))),
        ("frequency NaN", "llama.rope.freq_base: \"NaN\"", |f| f.set(FREQ, f32v(f32::NAN))),
        ("frequency inf", "llama.rope.freq_base: \"inf\"", |f| f.set(FREQ, f32v(f32::INFINITY))),
        ("frequency -1", FREQ, |f| f.set(FREQ, f32v(-1.0))),
        ("frequency 1e300", FREQ, |f| f.set(FREQ, f64v(1e300))),
        ("frequency as text", FREQ, |f| f.set(FREQ, text("10000"))),
        ("eps 0", EPS, |f| f.set(EPS, f32v(0.0))),
        ("eps NaN", EPS, |f| f.set(EPS, f32v(f32::NAN))),
        ("rope scaling", "llama.rope.scaling.type", |f| f.set("llama.rope.scaling.type", text("yarn"))),
        ("rope scaling NaN", "llama.rope.scaling.type", |f| {
            f.set("llama.rope.scaling.type", f32v(f32::NAN));
        }),
        ("context 0", "llama.context_length: 0", |f| f.set("llama.context_length", u32v(0))),
        ("context 2^63", "llama.context_length: 9223372036854775808", |f| {
            f.set("llama.context_length", u64v(1 << 63));
        }),
        ("width 2^24", "llama.", |f| f.set("llama.embedding_length", u32v(1 << 24))),
        ("width 10", "llama.", |f| f.set("llama.embedding_length", u32v(10))),
        ("width 16", "llama.rope.dimension_count", |f| f.set("llama.embedding_length", u32v(16))),
        ("mlp 2^24", "ffn_", |f| f.set("llama.feed_forward_length", u32v(1 << 24))),
        ("vocabulary 11", "tokenizer.ggml.tokens: 12 tokens", |f| {
            f.set("llama.vocab_size", u32v(11));
            f.tensor("token_embd.weight").dims = vec![8, 11];
            f.tensor("token_embd.weight").data.truncate(11 * 32);
        }),
        ("vocabulary 13", "tokenizer.ggml.tokens: 12 tokens", |f| {
            f.set("llama.vocab_size", u32v(13));
            f.tensor("token_embd.weight").dims = vec![8, 13];
            f.tensor("token_embd.weight").data.resize(13 * 32, 0);
        }),
        ("vocabulary 2^24", "token_embd.weight: has shape [12, 8]", |f| {
            f.set("llama.vocab_size", u32v(1 << 24));
        }),
        ("bos past the end", "bos: id 12", |f| f.set("tokenizer.ggml.bos_token_id", u32v(12))),
        ("eos 2^32-1", "eos: id 4294967295", |f| f.set("tokenizer.ggml.eos_token_id", u32v(u32::MAX))),
        ("bos -1", "tokenizer.ggml.bos_token_id", |f| {
            f.set("tokenizer.ggml.bos_token_id", raw(5, &[0xFF; 4]));
        }),
        ("bos as text", "tokenizer.ggml.bos_token_id", |f| f.set("tokenizer.ggml.bos_token_id", text("<s>"))),
        ("no architecture", "general.architecture: is missing", |f| f.remove("general.architecture")),
        ("architecture \"\"", "architecture \"\"", |f| f.set("general.architecture", text(""))),
        ("architecture of 1 MB", "architecture \"xxx", |f| {
            f.set("general.architecture", text(&"x".repeat(1 << 20)));
        }),
        ("unknown architecture", "architecture \"mamba\"", |f| f.set("general.architecture", text("mamba"))),
        ("architecture as a number", "general.architecture: 3", |f| f.set("general.architecture", u32v(3))),
        ("architecture as a list", "general.architecture: ", |f| {
            f.set("general.architecture", texts(&["llama"]));
        }),
        ("the right name, another family's tensors", ": the tensor is missing", |f| {
            for tensor in &mut f.tensors {
                let name = String::from_utf8(tensor.name.clone()).unwrap();
                tensor.name = name.replace("attn_q.", "attn_qkv.").into();
            }
        }),
        ("the right name, another family's extras", "blk.0.ffn_gate_exps.weight", |f| {
            let mut extra = f.tensor("blk.0.ffn_gate.weight").clone();
            extra.name = b"blk.0.ffn_gate_exps.weight".to_vec();
            f.tensors.push(extra);
        }),
        // Items 39 and 40: neither is a model.
        ("a control vector", "this is a control vector", |f| {
            f.set("general.architecture", text("controlvector"));
        }),
        ("a part of a split file", "split.", |f| {
            f.set("split.no", raw(2, &0u16.to_le_bytes()));
            f.set("split.count", raw(2, &u16::MAX.to_le_bytes()));
        }),
    ]);
}

/// Item 36, as far as a byte-level tokenizer has these keys.
#[test]
fn tokenizer() {
    const TYPES: &str = "tokenizer.ggml.token_type";
    refuse(&[
        ("types as texts", "tokenizer.ggml.token_type: ", |f| f.set(TYPES, texts(&TOKENS))),
        ("a type missing", "tokenizer.ggml.token_type: ", |f| f.set(TYPES, integers(&[1; 11]))),
        ("type 99", "tokenizer.ggml.token_type: 99", |f| {
            f.set(TYPES, integers(&[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 99, 4]));
        }),
        ("type -1", "tokenizer.ggml.token_type: -1", |f| {
            f.set(TYPES, integers(&[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 4]));
        }),
        ("no types", "tokenizer.ggml.token_type: is missing", |f| f.remove(TYPES)),
        ("no tokens", "tokenizer.ggml.tokens: ", |f| f.remove("tokenizer.ggml.tokens")),
        ("tokens as numbers", "tokenizer.ggml.tokens: ", |f| {
            f.set("tokenizer.ggml.tokens", integers(&[1; 12]));
        }),
        ("a token twice", "tokenizer.ggml.tokens: ids 1 and 2", |f| {
            let mut tokens = TOKENS;
            tokens[2] = "a";
            f.set("tokenizer.ggml.tokens", texts(&tokens));
        }),
        ("half a million times the same", "token_embd.weight: has shape [12, 8]", |f| {
            let n = 500_000u32;
            f.set("tokenizer.ggml.tokens", texts(&vec!["word"; n as usize]));
            f.set(TYPES, list(0, n.into(), &vec![1; n as usize]));
            f.set("llama.vocab_size", u32v(n));
        }),
        ("an empty special token", "empty", |f| {
            let mut tokens = TOKENS;
            tokens[0] = "";
            f.set("tokenizer.ggml.tokens", texts(&tokens));
        }),
        ("a token of a megabyte", "is longer than", |f| {
            let long = "x".repeat(1 << 20);
            let mut tokens = TOKENS;
            tokens[3] = &long;
            f.set("tokenizer.ggml.tokens", texts(&tokens));
        }),
        ("a merge of an absent token", "\"zz\", which is not in the vocabulary", |f| {
            f.set("tokenizer.ggml.merges", texts(&["a zz"]));
        }),
        ("a merge into an absent token", "\"ac\", which is not in the vocabulary", |f| {
            f.set("tokenizer.ggml.merges", texts(&["a c"]));
        }),
        ("a merge without a space", "tokenizer.ggml.merges: \"a\" is not two tokens", |f| {
            f.set("tokenizer.ggml.merges", texts(&["a"]));
        }),
        ("a merge of three", "tokenizer.ggml.merges: \"a b c\"", |f| {
            f.set("tokenizer.ggml.merges", texts(&["a b c"]));
        }),
        ("an empty merge", "tokenizer.ggml.merges: \"\"", |f| f.set("tokenizer.ggml.merges", texts(&[""]))),
        ("a merge twice", "\"a\" + \"b\" is given twice", |f| {
            f.set("tokenizer.ggml.merges", texts(&[&MERGES[..], &["a b"]].concat()));
        }),
        ("no merges", "tokenizer.ggml.merges: ", |f| f.remove("tokenizer.ggml.merges")),
        ("another model", "tokenizer model \"bert\"", |f| f.set("tokenizer.ggml.model", text("bert"))),
        ("another split", "\"bloom\"", |f| f.set("tokenizer.ggml.pre", text("bloom"))),
        ("no split", "tokenizer.ggml.pre: ", |f| f.remove("tokenizer.ggml.pre")),
        ("a split of a megabyte", "tokenizer.ggml.pre", |f| {
            f.set("tokenizer.ggml.pre", text(&"x".repeat(1 << 20)));
        }),
        ("bos as a number", "tokenizer.ggml.add_bos_token: ", |f| {
            f.set("tokenizer.ggml.add_bos_token", u32v(1));
        }),
    ]);
    // `<0x-1>` and `<0xZZ>` are ordinary words to a byte-level tokenizer.
    let folder = Folder::new();
    let mut file = Gguf::valid();
    let mut tokens = TOKENS;
    (tokens[9], tokens[10]) = ("<0x-1>", "<0xZZ>");
    file.set("tokenizer.ggml.tokens", texts(&tokens));
    let model = load(&folder.write(&file.bytes())).unwrap();
    assert_eq!((model.token_text(9), model.token_text(10)), ("<0x-1>".into(), "<0xZZ>".into()));
}

/// Item 38.
#[test]
fn weights_that_are_no_numbers() {
    const NORM: &str = "blk.1.ffn_norm.weight";
    refuse(&[
        ("all NaN", "token_embd.weight: holds NaN", |f| {
            f.tensor("token_embd.weight").data = f32::NAN.to_le_bytes().repeat(96);
        }),
        ("all inf", "token_embd.weight: holds inf", |f| {
            f.tensor("token_embd.weight").data = f32::INFINITY.to_le_bytes().repeat(96);
        }),
        ("one -inf at the end", "blk.1.ffn_norm.weight: holds -inf", |f| {
            f.tensor(NORM).data[28..].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
        }),
        ("f16 inf", "blk.1.ffn_norm.weight: holds inf", |f| {
            let tensor = f.tensor(NORM);
            (tensor.kind, tensor.data) = (1, 0x7C00u16.to_le_bytes().repeat(8));
        }),
        ("bf16 NaN", "blk.1.ffn_norm.weight: holds NaN", |f| {
            let tensor = f.tensor(NORM);
            (tensor.kind, tensor.data) = (30, 0x7FC0u16.to_le_bytes().repeat(8));
        }),
        ("f64 past f32", "blk.1.ffn_norm.weight: holds inf", |f| {
            let tensor = f.tensor(NORM);
            (tensor.kind, tensor.data) = (28, 1e300f64.to_le_bytes().repeat(8));
        }),
        ("Q8_0 with an infinite scale", "blk.0.attn_norm.weight: holds", |f| {
            f.set("llama.embedding_length", u32v(32));
            f.set("llama.rope.dimension_count", u32v(8));
            f.tensors.retain(|tensor| !tensor.name.starts_with(b"blk.1"));
            f.set("llama.block_count", u32v(1));
            for tensor in &mut f.tensors {
                let n: u64 = tensor.dims.iter().product();
                if tensor.name == b"blk.0.attn_norm.weight" {
                    (tensor.kind, tensor.dims) = (8, vec![32]);
                    tensor.data = [&0x7C00u16.to_le_bytes()[..], &[1; 32]].concat();
                    continue;
                }
                let wide: &[(&[u8], &[u64])] = &[
                    (b"token_embd.weight", &[32, 12]),
                    (b"blk.0.attn_q.weight", &[32, 32]),
                    (b"blk.0.attn_k.weight", &[32, 16]),
                    (b"blk.0.attn_v.weight", &[32, 16]),
                    (b"blk.0.attn_output.weight", &[32, 32]),
                    (b"blk.0.ffn_norm.weight", &[32]),
                    (b"blk.0.ffn_gate.weight", &[32, 12]),
                    (b"blk.0.ffn_up.weight", &[32, 12]),
                    (b"blk.0.ffn_down.weight", &[12, 32]),
                    (b"output_norm.weight", &[32]),
                ];
                let (_, dims) = wide.iter().find(|(name, _)| *name == tensor.name).unwrap();
                tensor.dims = dims.to_vec();
                let now: u64 = dims.iter().product();
                tensor.data = tensor.data.repeat(usize::try_from(now.div_ceil(n)).unwrap());
                tensor.data.truncate(usize::try_from(now * 4).unwrap());
            }
        }),
    ]);
}

/// Item 74: a file that is cut short after it was opened is an error where it is read.
#[test]
fn cut_while_loading() {
    let folder = Folder::new();
    let bytes = Gguf::valid().bytes();
    let mut verdict = Verdict::new();
    for keep in [0, 10, 500, bytes.len() - 1] {
        let path = folder.write(&bytes);
        let file = DataFile::open(&path).unwrap();
        let header = gguf::read(&file).unwrap();
        let weights = Weights::from_gguf(file, &header).unwrap();
        let shrinking = DataFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(keep as u64).unwrap();
        let field = path.to_str().unwrap();
        verdict.refused(&format!("{keep} bytes of a tensor"), 4000, field, || {
            weights.take("output_norm.weight", &[8])
        });
        if keep <= 500 {
            verdict.refused(&format!("{keep} bytes of a header"), 4000, field, || gguf::read(&shrinking));
        }
    }
    verdict.check();
}

/// Any byte may be anything: the file is a model or is refused, and a model runs.
#[test]
fn random_bytes() {
    let folder = Folder::new();
    let valid = Gguf::valid();
    let (header, bytes) = (valid.header().len(), valid.bytes());
    let mut random = Random(0x00C0_FFEE);
    let mut verdict = Verdict::new();
    let mut loaded = 0;
    for round in 0..4000 {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = if round % 8 == 0 { random.below(bytes.len()) } else { random.below(header) };
            changed[at] = match random.below(3) {
                0 => changed[at] ^ (1 << random.below(8)),
                1 => [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        let path = folder.write(&changed);
        let model = verdict.survived(&format!("round {round}"), bytes.len() as u64, || load(&path));
        if let Some(model) = model {
            loaded += 1;
            let _ = verdict.survived(&format!("round {round}, running"), bytes.len() as u64, || {
                model.decoder().unwrap().forward(&[0], &mut Nothing)
            });
        }
    }
    println!("{loaded} of 4000 loaded");
    assert!((1..2000).contains(&loaded), "{loaded} loaded");
    verdict.check();
}
