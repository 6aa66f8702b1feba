//! Safetensors files and model folders that lie, and paths that are no model at all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::file::{DataFile, Weights, safetensors};
use common::folder::{Safetensors, TENSORS, config, write, write_index, write_sharded};
use common::{Random, Verdict, fixture, load};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;

type Case = (&'static str, &'static str, fn(&mut Safetensors));

const NORM: &str = "model.norm.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

fn refuse(cases: &[Case]) {
    let folder = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    for (name, field, change) in cases {
        let mut file = Safetensors::valid();
        change(&mut file);
        let path = write(folder.path(), &file);
        verdict.refused(name, file.bytes().len() as u64, field, || load(&path));
    }
    verdict.check();
}

#[test]
fn the_unchanged_folder_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &Safetensors::valid());
    let mut verdict = Verdict::new();
    let model = verdict.accepted("one file", 1000, || load(&path)).unwrap();
    assert_eq!(model.config().vocab, 6);
    let sharded = tempfile::tempdir().unwrap();
    write_sharded(sharded.path());
    let model = verdict.accepted("shards", 1000, || load(sharded.path())).unwrap();
    assert_eq!(model.files().len(), 3);
    // Padding with spaces is part of the format.
    let mut padded = Safetensors::valid();
    padded.header.extend(b"    ");
    let _ = verdict.accepted("padded", 1000, || load(&write(folder.path(), &padded)));
    verdict.check();
}

/// Item 41.
#[test]
fn header_length() {
    refuse(&[
        ("0", "header length: 0", |f| f.length = Some(0)),
        ("1", "header", |f| f.length = Some(1)),
        ("2^63", "header length: 9223372036854775808", |f| f.length = Some(1 << 63)),
        ("2^64-1", "header length: ", |f| f.length = Some(u64::MAX)),
        ("10^8+1", "header length: 100000001", |f| f.length = Some(100_000_001)),
        ("file+1", "header length: ", |f| f.length = Some((f.header.len() + f.data.len()) as u64 + 1)),
        ("the whole file", "header: ", |f| f.length = Some((f.header.len() + f.data.len()) as u64)),
        ("one short", "header: ", |f| f.length = Some(f.header.len() as u64 - 1)),
        ("one long", "header: ", |f| f.length = Some(f.header.len() as u64 + 1)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Safetensors::valid());
    let file = folder.path().join("model.safetensors");
    let mut verdict = Verdict::new();
    for length in 0..8 {
        common::overwrite(&file, vec![1; length]);
        let name = format!("{length} bytes");
        let said = match length {
            0 => "this is an empty file".to_owned(),
            _ => format!("header length: the file has only {length}"),
        };
        verdict.refused(&name, 8, &said, || load(folder.path()));
    }
    // A header of 8 MB and one byte in a file that has it.
    common::overwrite(&file, ((8u64 << 20) + 1).to_le_bytes());
    File::options().write(true).open(&file).unwrap().set_len(32 << 20).unwrap();
    verdict.refused("8 MB and a byte", 0, "header length: 8388609", || load(folder.path()));
    verdict.check();
}

/// Items 42 to 44, and headers that take much more memory parsed than written.
#[test]
fn header_text() {
    refuse(&[
        ("no UTF-8", "header: ", |f| f.header[3] = 0xFF),
        ("BOM", "header: does not start with '{'", |f| {
            f.header.splice(0..0, *b"\xEF\xBB\xBF");
        }),
        ("leading space", "header: does not start with '{'", |f| f.header.insert(0, b' ')),
        ("NUL padding", "header: ", |f| f.header.push(0)),
        ("a second document", "header: trailing", |f| f.header.extend(b"{}")),
        ("a list", "header: does not start", |f| f.header = b"[]".to_vec()),
        ("nested 10^5 deep", "header: recursion limit", |f| {
            f.header = [b"{\"a\":".repeat(100_000), b"1".to_vec(), b"}".repeat(100_000)].concat();
        }),
        ("lists nested 10^5 deep", "header: recursion limit", |f| {
            f.header =
                [b"{\"a\":".to_vec(), b"[".repeat(100_000), b"]".repeat(100_000), b"}".to_vec()].concat();
        }),
        ("a tensor twice", "header: duplicate key \"model.norm.weight\"", |f| {
            f.replace("\"model.layers.0.input_layernorm.weight\"", "\"model.norm.weight\"");
        }),
        ("a tensor twice, once in escapes", "header: duplicate key \"model.norm.weight\"", |f| {
            f.replace("\"model.layers.0.input_layernorm.weight\"", "\"model.norm.\\u0077eight\"");
        }),
        ("metadata twice", "header: duplicate key \"__metadata__\"", |f| {
            f.replace("{\"__metadata__\"", "{\"__metadata__\":{},\"__metadata__\"");
        }),
        ("a metadata key twice", "header: duplicate key \"format\"", |f| {
            f.replace("{\"format\":\"pt\"", "{\"format\":\"pt\",\"format\":\"tf\"");
        }),
        ("a key of a tensor twice", "header: duplicate key \"dtype\"", |f| {
            f.replace("{\"dtype\":\"F32\"", "{\"dtype\":\"F32\",\"dtype\":\"F16\"");
        }),
        ("metadata a number", "__metadata__: is not a map of texts", |f| f.replace("\"pt\"", "1")),
        ("metadata null", "__metadata__: is not a map of texts", |f| {
            f.replace("{\"format\":\"pt\"}", "null");
        }),
        ("metadata a list", "__metadata__: is not a map of texts", |f| f.replace("\"pt\"", "[\"pt\"]")),
        ("4 million numbers", "header: more than 262144 values", |f| {
            f.header = [&b"{\"a\":[0"[..], &b",0".repeat(4_000_000), b"]}"].concat();
        }),
        ("a million objects", "header: more than 262144 values", |f| {
            f.header = [&b"{\"a\":[{}"[..], &b",{}".repeat(1_000_000), b"]}"].concat();
        }),
        ("a name of 7 MB", "aaaaaaaa", |f| {
            f.header = [&b"{\""[..], &b"a".repeat(7 << 20), b"\":1}"].concat();
        }),
        ("a tensor that is a number", "model.norm.weight: is not an object", |f| {
            let at = f.header.windows(NORM.len()).position(|w| w == NORM.as_bytes()).unwrap();
            f.header.truncate(at + NORM.len());
            f.header.extend(b"\":3}");
        }),
        ("an unknown key", "model.embed_tokens.weight: unknown key \"scale\"", |f| {
            f.replace("{\"dtype\":\"F32\"", "{\"scale\":2,\"dtype\":\"F32\"");
        }),
    ]);
}

/// Items 45 to 48.
#[test]
fn extents() {
    refuse(&[
        ("begin past end", "model.norm.weight: data_offsets", |f| f.offsets(NORM, "[16,0]")),
        ("negative", "model.norm.weight: data_offsets is not a list of whole numbers", |f| {
            f.offsets(NORM, "[-16,0]");
        }),
        ("1e3", "model.norm.weight: data_offsets is not a list of whole numbers", |f| {
            f.offsets(NORM, "[1e3,1016]");
        }),
        ("2^64", "model.norm.weight: data_offsets is not a list of whole numbers", |f| {
            f.offsets(NORM, "[18446744073709551600,18446744073709551616]");
        }),
        ("2^64-1", "model.norm.weight: data_offsets", |f| {
            f.offsets(NORM, "[18446744073709551599,18446744073709551615]");
        }),
        ("1e999", "header: number out of range", |f| f.offsets(NORM, "[0,1e999]")),
        ("one number", "model.norm.weight: data_offsets are not two", |f| f.offsets(NORM, "[0]")),
        ("three numbers", "model.norm.weight: data_offsets are not two", |f| f.offsets(NORM, "[0,16,32]")),
        ("text", "model.norm.weight: data_offsets is not a list", |f| f.offsets(NORM, "\"0,16\"")),
        ("a hole", "model.norm.weight: data_offsets begin at 624, not at 608: it leaves a hole", |f| {
            f.offsets(NORM, "[624,640]");
            f.data.resize(640, 0);
        }),
        ("an overlap", "model.norm.weight: data_offsets begin at 592, not at 608: it overlaps", |f| {
            f.offsets(NORM, "[592,608]");
            f.data.truncate(608);
        }),
        ("on the same bytes", "it overlaps another tensor", |f| f.offsets(NORM, "[0,16]")),
        ("trailing bytes", "data: the tensors take 624 bytes, the file holds 625", |f| f.data.push(0)),
        ("bytes missing", "data: the tensors take 624 bytes, the file holds 623", |f| {
            f.data.pop();
        }),
        ("product 2^64", "model.norm.weight: its size does not fit", |f| {
            f.replace(
                "\"shape\":[4],\"data_offsets\":[608,624]",
                "\"shape\":[4294967296,4294967296],\"data_offsets\":[608,608]",
            );
        }),
        ("product times 4 is 2^64", "model.norm.weight: its size does not fit", |f| {
            f.replace(
                "\"shape\":[4],\"data_offsets\":[608,624]",
                "\"shape\":[4611686018427387904],\"data_offsets\":[608,608]",
            );
        }),
        ("another shape", "model.norm.weight: data_offsets 608..624 do not hold the 20 bytes", |f| {
            f.replace("\"shape\":[4],\"data_offsets\":[608", "\"shape\":[5],\"data_offsets\":[608");
        }),
        ("the wrong shape of that size", "model.norm.weight: has shape [2, 2]", |f| {
            f.replace("\"shape\":[4],\"data_offsets\":[608", "\"shape\":[2,2],\"data_offsets\":[608");
        }),
        ("a negative shape", "model.norm.weight: shape is not a list of whole numbers", |f| {
            f.replace("\"shape\":[4],\"data_offsets\":[608", "\"shape\":[-4],\"data_offsets\":[608");
        }),
        ("an empty dimension", "model.norm.weight: has shape [0]", |f| {
            f.replace("\"shape\":[4],\"data_offsets\":[608,624]", "\"shape\":[0],\"data_offsets\":[608,608]");
            f.data.truncate(608);
        }),
        ("no shape", "model.embed_tokens.weight: shape is not a list", |f| {
            f.replace("\"shape\":[6, 4],", "");
        }),
        (
            "another dtype",
            "model.embed_tokens.weight: data_offsets 0..96 do not hold the 48 bytes of F16",
            |f| {
                f.replace("F32", "F16");
            },
        ),
        ("F33", "model.embed_tokens.weight: dtype \"F33\"", |f| f.replace("F32", "F33")),
        ("a dtype of a megabyte", "model.embed_tokens.weight: dtype \"FFFF", |f| {
            f.replace("F32", &"F".repeat(1 << 20));
        }),
        ("no dtype", "model.embed_tokens.weight: has no dtype", |f| f.replace("\"dtype\":\"F32\",", "")),
        ("BOOL of bytes 7", "model.embed_tokens.weight: is not a tensor of floats", |f| {
            f.replace(
                "\"F32\",\"shape\":[6, 4],\"data_offsets\":[0,96]",
                "\"BOOL\",\"shape\":[6,4],\"data_offsets\":[0,24]",
            );
            shift(f, 96, 24);
        }),
        ("integers", "model.embed_tokens.weight: is not a tensor of floats", |f| {
            f.replace(
                "\"F32\",\"shape\":[6, 4],\"data_offsets\":[0,96]",
                "\"I64\",\"shape\":[6,4],\"data_offsets\":[0,192]",
            );
            shift(f, 96, 192);
        }),
        ("F4 of an odd count", "model.norm.weight: dtype \"F4\"", |f| {
            f.replace(
                "\"F32\",\"shape\":[4],\"data_offsets\":[608,624]",
                "\"F4\",\"shape\":[3],\"data_offsets\":[608,610]",
            );
        }),
        ("NaN", "model.norm.weight: holds NaN", |f| {
            f.data[612..616].copy_from_slice(&f32::NAN.to_le_bytes());
        }),
        ("inf", "model.embed_tokens.weight: holds inf", |f| {
            f.data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        }),
        ("a missing tensor", "model.norm.weight: the tensor is missing", |f| {
            *f = Safetensors::of(&TENSORS[..10]);
        }),
        (
            "a tensor too many",
            "model.layers.1.mlp.up_proj.weight: this model family has no such tensor",
            |f| {
                *f = Safetensors::of(
                    &[&TENSORS[..], &[("model.layers.1.mlp.up_proj.weight", &[6, 4])]].concat(),
                );
            },
        ),
    ]);
}

/// Gives the embedding another size, which moves all that follows.
fn shift(file: &mut Safetensors, from: usize, to: usize) {
    let mut header: Value = serde_json::from_slice(&file.header).unwrap();
    for (name, entry) in header.as_object_mut().unwrap() {
        if name != "__metadata__" && name != EMBEDDING {
            for offset in entry["data_offsets"].as_array_mut().unwrap() {
                *offset = (offset.as_u64().unwrap() + to as u64 - from as u64).into();
            }
        }
    }
    file.header = header.to_string().into();
    file.data.splice(..from, vec![7; to]);
}

/// Out of order is fine as long as nothing is left over (part of item 46).
#[test]
fn order_in_the_header_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Safetensors::valid();
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&file.header).unwrap();
    let reversed: serde_json::Map<String, Value> = header.into_iter().rev().collect();
    file.header = Value::Object(reversed).to_string().into();
    load(&write(folder.path(), &file)).unwrap();
}

/// Item 49.
#[test]
fn a_million_empty_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    for (n, field) in [(1_000_000, "header length: "), (100_000, "header: more than 262144 values")] {
        let entry = |i| format!(r#""tensor.{i:07}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let entries: Vec<String> = (0..n).map(entry).collect();
        let file =
            Safetensors { header: format!("{{{}}}", entries.join(",")).into(), length: None, data: vec![] };
        let bytes = file.header.len() as u64;
        drop(entries);
        let path = write(folder.path(), &file);
        drop(file);
        verdict.refused(&format!("{n} tensors"), bytes, field, || load(&path));
    }
    verdict.check();
}

/// Item 50: the index of a model in shards.
#[test]
fn index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let honest = write_sharded(path);
    let mut verdict = Verdict::new();
    let mut refused = |name: &str, field: &str, text: &str| {
        write_index(path, text);
        verdict.refused(name, text.len() as u64, field, || load(path));
    };
    for target in [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "",
        ".hidden",
        "sub/a.safetensors",
        "sub\\a.safetensors",
        "a.safetensors\0",
    ] {
        let mut index = honest.clone();
        index["weight_map"][NORM] = target.into();
        refused(&format!("to {target:?}"), "model.norm.weight: ", &index.to_string());
    }
    let with = |name: &str, target: Value| {
        let mut index = honest.clone();
        index["weight_map"][name] = target;
        index.to_string()
    };
    refused("to a number", "model.norm.weight: 3", &with(NORM, json!(3)));
    refused("to a list", "model.norm.weight: ", &with(NORM, json!(["a.safetensors"])));
    refused(
        "to a missing shard",
        "weight_map: names c.safetensors, which is missing",
        &with("ghost", "c.safetensors".into()),
    );
    refused("to config.json", "config.json: header length: ", &with("ghost", "config.json".into()));
    refused(
        "to the other shard",
        "model.norm.weight: should be in a.safetensors",
        &with(NORM, "a.safetensors".into()),
    );
    refused(
        "a tensor nobody has",
        "ghost: should be in a.safetensors",
        &with("ghost", "a.safetensors".into()),
    );
    let mut without = honest.clone();
    without["weight_map"].as_object_mut().unwrap().shift_remove(NORM);
    refused("a tensor left out", "model.norm.weight: is in b.safetensors", &without.to_string());
    refused("no map", "weight_map: is missing", "{}");
    refused("the map a list", "weight_map: ", r#"{"weight_map": []}"#);
    refused("an empty map", "weight_map: is empty", r#"{"weight_map": {}}"#);
    refused("no JSON", "document: ", "weights");
    refused("an empty file", "this is an empty file", "");
    refused(
        "a key twice",
        "document: duplicate key \"model.norm.weight\"",
        &honest.to_string().replacen(
            "\"weight_map\":{",
            "\"weight_map\":{\"model.norm.weight\":\"a.safetensors\",",
            1,
        ),
    );
    refused("nested 10^5 deep", "document: recursion limit", &"[".repeat(100_000));
    let long: Vec<String> = (0..1_000_000).map(|i| format!("\"{i}\":\"a\"")).collect();
    refused(
        "a million entries",
        "document: more than",
        &format!("{{\"weight_map\":{{{}}}}}", long.join(",")),
    );
    drop(long);

    // A tensor that two shards hold.
    let twice = [&TENSORS[..5], &TENSORS[10..]].concat();
    common::overwrite(path.join("a.safetensors"), Safetensors::of(&twice).bytes());
    refused("in two shards", "model.norm.weight: is in a.safetensors", &honest.to_string());
    verdict.check();
}

#[cfg(unix)]
#[test]
fn links() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    let files = ["config.json", "model.safetensors.index.json", "a.safetensors", "b.safetensors"];
    for name in files {
        let folder = tempfile::tempdir().unwrap();
        write_sharded(folder.path());
        let elsewhere = outside.path().join(name);
        std::fs::rename(folder.path().join(name), &elsewhere).unwrap();
        symlink(&elsewhere, folder.path().join(name)).unwrap();
        let field = format!("{name}: path: leads out of its folder");
        verdict.refused(name, 1000, &field, || load(folder.path()));

        // To a file nobody meant to read.
        std::fs::remove_file(folder.path().join(name)).unwrap();
        symlink("/etc/passwd", folder.path().join(name)).unwrap();
        verdict.refused(&format!("{name} to /etc/passwd"), 1000, &field, || load(folder.path()));

        // In a circle.
        std::fs::remove_file(folder.path().join(name)).unwrap();
        symlink(name, folder.path().join(name)).unwrap();
        verdict.refused(&format!("{name} in a circle"), 1000, name, || load(folder.path()));
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Safetensors::valid());
    symlink("/etc/passwd", folder.path().join("tokenizer.json")).unwrap();
    verdict.refused("tokenizer.json", 1000, "tokenizer.json: path: leads out", || load(folder.path()));

    // As the Hugging Face cache has it: links into the blobs beside the snapshots.
    let cache = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/0123"));
    std::fs::create_dir_all(&blobs).unwrap();
    write_sharded(&snapshot);
    for (i, name) in files.iter().enumerate() {
        std::fs::rename(snapshot.join(name), blobs.join(format!("{i}"))).unwrap();
        symlink(format!("../../blobs/{i}"), snapshot.join(name)).unwrap();
    }
    let _ = verdict.accepted("the cache's own links", 1000, || load(&snapshot));
    verdict.check();
}

/// config.json: the same contradictions as in a GGUF header.
#[test]
fn configuration() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Safetensors::valid());
    let mut verdict = Verdict::new();
    let mut refused = |name: &str, field: &str, text: &str| {
        common::overwrite(folder.path().join("config.json"), text);
        verdict.refused(name, text.len() as u64, field, || load(folder.path()));
    };
    for (key, values) in [
        (
            "num_hidden_layers",
            vec![json!(0), json!(-1), json!(1.5), json!("1"), json!(u64::MAX), json!(5000)],
        ),
        ("num_attention_heads", vec![json!(0), json!(3), json!(u32::MAX), json!([2]), Value::Null]),
        ("num_key_value_heads", vec![json!(0), json!(4), json!(true)]),
        ("head_dim", vec![json!(0), json!(3), json!("2")]),
        ("hidden_size", vec![json!(0), json!(1u64 << 63), json!({})]),
        ("vocab_size", vec![json!(0), json!(-6)]),
        ("max_position_embeddings", vec![json!(0), json!(1u64 << 63)]),
        ("rms_norm_eps", vec![json!(0), json!(-1e-5), json!(1e300), json!("NaN")]),
        ("rope_theta", vec![json!(0.0), json!(-1), json!(1e300), Value::Null]),
        ("rope_scaling", vec![json!({"rope_type": "yarn", "factor": 4.0}), json!(2)]),
        ("hidden_act", vec![json!("tanhshrink"), json!(1)]),
        ("tie_word_embeddings", vec![json!("true"), json!(1)]),
        ("attention_bias", vec![json!(1)]),
        ("sliding_window", vec![json!(4096), json!("x".repeat(1 << 20))]),
        ("quantization_config", vec![json!({"bits": 4})]),
    ] {
        for value in values {
            let mut config = config();
            config[key] = value.clone();
            let value = value.to_string();
            refused(&format!("{key} = {}", &value[..value.len().min(40)]), key, &config.to_string());
        }
    }
    for key in ["hidden_size", "num_attention_heads", "num_hidden_layers", "model_type"] {
        let mut config = config();
        config.as_object_mut().unwrap().shift_remove(key);
        refused(&format!("no {key}"), &format!("{key}: is missing"), &config.to_string());
    }
    let mut other = config();
    other["model_type"] = "gpt2".into();
    refused("another family's name", "architecture \"[\"LlamaForCausalLM\"]\"", &other.to_string());
    other["model_type"] = "x".repeat(1 << 20).into();
    refused("a family of a megabyte", "architecture \"xxx", &other.to_string());
    other = config();
    other["vocab_size"] = 7.into();
    refused("one token more", "model.embed_tokens.weight: has shape [6, 4]", &other.to_string());
    let text = config().to_string();
    refused("empty", "this is an empty file", "");
    refused("no object", "document: is not a JSON object", "[]");
    refused("BOM", "document: ", &format!("\u{feff}{text}"));
    refused("torn", "document: ", &text[..text.len() / 2]);
    refused(
        "twice a key",
        "document: duplicate key \"vocab_size\"",
        &text.replacen('{', "{\"vocab_size\":6,", 1),
    );
    refused("NaN", "document: ", &text.replace("10000.0", "NaN"));
    refused("1e999", "document: number out of range", &text.replace("10000.0", "1e999"));
    refused("nested 10^5 deep", "document: recursion limit", &"{\"a\":".repeat(100_000));
    refused("a million numbers", "document: more than", &format!("{{\"a\":[0{}]}}", ",0".repeat(1_000_000)));
    refused("5 MB", "config.json: size: ", &format!("{}{text}", " ".repeat(5 << 20)));
    verdict.check();
}

/// Item 73: paths that are no model.
#[test]
fn paths() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut verdict = Verdict::new();
    let mut refused = |name: &str, field: &str, path: &Path| verdict.refused(name, 0, field, || load(path));
    refused("nothing", "no model \"", &at("nothing.gguf"));
    refused("an empty name", "no model \"\"", Path::new(""));
    refused("a NUL", "no model \"a\\u{0}b\"", Path::new("a\0b"));
    refused("a name of a megabyte", "no model \"xxxx", Path::new(&"x".repeat(1 << 20)));
    refused("a climbing name", "no model \"../..x/y\"", Path::new("../..x/y"));
    refused("a folder", "an empty folder", folder.path());
    common::overwrite(at("config.json"), config().to_string());
    refused("a folder without weights", "model.safetensors: file: is missing", folder.path());
    common::overwrite(at("pytorch_model.bin"), b"\x80\x02.");
    refused("a pickle as weights", "pytorch_model.bin: pickle: ", folder.path());
    refused("the configuration", "config.json: type: is part of a model directory", &at("config.json"));
    refused("a pickle", "is part of a model directory", &at("pytorch_model.bin"));
    std::fs::create_dir(at("model.safetensors")).unwrap();
    refused("weights that are a folder", "model.safetensors is not a regular file", folder.path());
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        use std::os::unix::net::UnixListener;
        let made = std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap();
        assert!(made.success());
        refused("FIFO", "fifo is not a regular file", &at("fifo"));
        refused("/dev/zero", "/dev/zero is not a regular file", Path::new("/dev/zero"));
        refused("/dev/null", "/dev/null is not a regular file", Path::new("/dev/null"));
        let _socket = UnixListener::bind(at("socket")).unwrap();
        refused("socket", "socket is not a regular file", &at("socket"));
        symlink("loop.gguf", at("loop.gguf")).unwrap();
        refused("a circle of links", "cannot open", &at("loop.gguf"));
        symlink(at("gone"), at("dangling.gguf")).unwrap();
        refused("a link to nothing", "dangling.gguf", &at("dangling.gguf"));
        symlink("/dev/zero", at("zero.gguf")).unwrap();
        refused("a link to /dev/zero", "zero.gguf is not a regular file", &at("zero.gguf"));
        for special in ["fifo", "socket"] {
            let model = at("model");
            write(&model, &Safetensors::valid());
            for file in ["config.json", "model.safetensors", "tokenizer.json"] {
                let _ = std::fs::remove_file(model.join(file));
                std::fs::hard_link(at(special), model.join(file)).unwrap();
                refused(&format!("{file} a {special}"), file, &model);
                std::fs::remove_file(model.join(file)).unwrap();
                write(&model, &Safetensors::valid());
            }
        }
        std::fs::write(at("secret.gguf"), b"GGUF").unwrap();
        std::fs::set_permissions(at("secret.gguf"), PermissionsExt::from_mode(0o0)).unwrap();
        // Root may read everything.
        if File::open(at("secret.gguf")).is_err() {
            refused("no permission", "cannot open", &at("secret.gguf"));
        }
    }
    verdict.check();
}

/// Item 74.
#[test]
fn cut_while_loading() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    let path = write(folder.path(), &Safetensors::valid()).join("model.safetensors");
    let weights = Weights::from_safetensors(&[&path]).unwrap();
    let file = DataFile::open(&path).unwrap();
    for keep in [1400, 700, 4, 0] {
        File::options().write(true).open(&path).unwrap().set_len(keep).unwrap();
        let field = path.to_str().unwrap();
        verdict.refused(&format!("{keep} bytes"), 2000, field, || weights.take(NORM, &[4]));
    }
    verdict.refused("the header", 2000, path.to_str().unwrap(), || safetensors::entries(&file));
    verdict.check();
}

/// Truncated at every byte, as a GGUF file is (item 30).
#[test]
fn truncated_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &Safetensors::valid());
    let bytes = Safetensors::valid().bytes();
    let mut verdict = Verdict::new();
    for length in 0..bytes.len() {
        common::overwrite(path.join("model.safetensors"), &bytes[..length]);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 8;
        let field = match length as u64 {
            0 => "this is an empty file",
            length if length < header => "header length: ",
            _ => "the file is truncated",
        };
        verdict.refused(&format!("{length} bytes"), length as u64, field, || load(&path));
    }
    verdict.check();
}

/// Any byte of the header may be anything.
#[test]
fn random_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &Safetensors::valid());
    let bytes = Safetensors::valid().bytes();
    let header = 8 + Safetensors::valid().header.len();
    let mut random = Random(0x5AFE_7E45);
    let mut verdict = Verdict::new();
    let mut loaded = 0;
    for round in 0..4000 {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = if round % 8 == 0 { random.below(bytes.len()) } else { random.below(header) };
            changed[at] = match random.below(3) {
                0 => changed[at] ^ (1 << random.below(8)),
                1 => b"0123456789{}[],:\"-e."[random.below(20)],
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        common::overwrite(path.join("model.safetensors"), &changed);
        let name = format!("round {round}");
        loaded += usize::from(verdict.survived(&name, bytes.len() as u64, || load(&path)).is_some());
    }
    println!("{loaded} of 4000 loaded");
    assert!((1..2000).contains(&loaded), "{loaded} loaded");
    verdict.check();
}

/// Item 75: what lies in the cache under the right name but is not the right file is removed, and
/// nothing is fetched for it. The cache is found by an environment variable, so another process
/// does the work.
#[test]
fn cache_blobs() {
    const NAME: &str = "CAUSALCONE_CACHE";
    const HASH: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    const BYTES: u64 = 98_362_432;
    if std::env::var_os("HOSTILE_CACHE_CHILD").is_some() {
        let mut verdict = Verdict::new();
        let found = verdict.accepted("found", 0, || causalcone_model::store::find_local("smollm2"));
        verdict.check();
        assert_eq!(found, Some(None), "a wrong blob is no model");
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let blob = cache.path().join(format!("blobs/{HASH}.gguf"));
    let precious = cache.path().join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    let look = |name: &str| {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "cache_blobs", "--nocapture"])
            .env(NAME, cache.path())
            .env("HOSTILE_CACHE_CHILD", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{name}: {}", String::from_utf8_lossy(&child.stderr));
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{name}: the child ran");
        assert!(blob.symlink_metadata().is_err(), "{name}: the wrong blob is gone");
        assert_eq!(std::fs::read(&precious).unwrap(), b"precious", "{name}");
    };
    look("no cache");
    std::fs::create_dir_all(cache.path().join("blobs")).unwrap();
    look("no blob");
    for (name, length) in
        [("zero length", 0), ("half", BYTES / 2), ("one byte more", BYTES + 1), ("wrong hash", BYTES)]
    {
        File::create(&blob).unwrap().set_len(length).unwrap();
        look(name);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&precious, &blob).unwrap();
        look("a link out of the cache");
        std::os::unix::fs::symlink("/dev/zero", &blob).unwrap();
        look("a link to /dev/zero");
    }
    // The list of hashes cannot be made to lead anywhere, or to fail.
    for list in [
        "[".repeat(100_000),
        "not JSON".into(),
        json!({blob.to_str().unwrap(): {"stamp": "0 bytes, 0 ns", "sha256": "../../x"}}).to_string(),
        format!("{{\"a\":[0{}]}}", ",0".repeat(400_000)),
    ] {
        std::fs::write(cache.path().join("hashes.json"), list).unwrap();
        File::create(&blob).unwrap().set_len(BYTES).unwrap();
        look("a hostile list of hashes");
    }
    let left: Vec<_> = std::fs::read_dir(cache.path().join("blobs")).unwrap().collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
}

/// The folder the project's own tests use is untouched by all this and loads under the watch.
#[test]
fn the_fixtures_load_within_bounds() {
    let mut verdict = Verdict::new();
    for name in ["tiny-gpt2", "tiny-llama", "tiny-llama-tied", "tiny-llama-tied.gguf"] {
        let _ = verdict.accepted(name, 100_000, || load(&fixture(name)));
    }
    verdict.check();
}
