//! Control vectors: read as llama.cpp and repeng mean them, written so that they can be read there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::{ControlVector, Error};
use causalcone_files::IfExists;
use causalcone_model::Model;
use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn written(edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}, "other": {"ids": [7, 28, 31, 17, 4]}},
           "edit": edits, "read": {"run": "base"}})
}

fn answers(model: &Model, edits: &Value) -> Rows {
    logits(model, &written(edits), "base")
}

fn add(value: &Value) -> Value {
    json!({"run": "base", "site": "block_output", "op": "add", "value": value})
}

fn from_file(path: &Path) -> Value {
    add(&json!({"file": path.to_str().unwrap()}))
}

/// The same numbers, written out: the answers are the same to the bit.
#[test]
fn a_control_vector_is_added_to_the_outputs_of_its_blocks() {
    let model = model("tiny-gpt2");
    let numbers: Value = serde_json::from_slice(&fs::read(fixture("control.json")).unwrap()).unwrap();
    let found = ControlVector::read(&fixture("control.gguf")).unwrap();
    assert_eq!(found.model_hint.as_deref(), Some("gpt2"));
    assert_eq!(found.directions.keys().copied().collect::<Vec<_>>(), [1, 2]);
    let by_hand = json!([1, 2].map(|layer: i64| {
        let mut edit = add(&json!({"values": numbers[layer.to_string()]}));
        edit["layers"] = json!(layer);
        edit["scale"] = json!(0.75);
        edit
    }));
    let mut by_file = from_file(&fixture("control.gguf"));
    by_file["scale"] = json!(0.75);
    let plain = answers(model, &json!([]));
    let steered = answers(model, &json!([by_file]));
    assert_eq!(steered, answers(model, &by_hand));
    assert_ne!(steered, plain);
    // One of its layers alone.
    by_file["layers"] = json!(2);
    assert_eq!(answers(model, &json!([by_file])), answers(model, &json!([by_hand[1]])));
    assert_ne!(answers(model, &json!([by_file])), steered);
}

#[test]
fn what_is_written_is_what_is_read() {
    let model = model("tiny-gpt2");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.gguf");
    let row = |size| json!({"values": random(1, 1, 24, size)[0]});
    let mut edits = json!([add(&row(0.2)), add(&row(0.5)), add(&json!({"values": 0.125}))]);
    edits[0]["layers"] = json!([1, 2]);
    edits[1]["layers"] = json!([2]);
    edits[1]["scale"] = json!(-2.0);
    edits[2]["layers"] = json!([1]);
    ControlVector::of(&experiment(model, &written(&edits)).unwrap())
        .unwrap()
        .write(&path, IfExists::Replace)
        .unwrap();
    // Sums are taken in another order: rounding, of numbers below 10.
    let (ours, theirs) = (answers(model, &edits), answers(model, &json!([from_file(&path)])));
    for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert!((a - b).abs() <= 1e-5, "{a} is not {b}");
    }
    // Read and written again, it is the same to the byte.
    let again = folder.path().join("again.gguf");
    let read = experiment(model, &written(&json!([from_file(&path)]))).unwrap();
    ControlVector::of(&read).unwrap().write(&again, IfExists::Replace).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    assert!(
        ControlVector::read(&path)
            .unwrap()
            .write(&folder.path().join("no/where.gguf"), IfExists::Replace)
            .is_err()
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn what_no_control_vector_can_say_is_refused() {
    let model = model("tiny-gpt2");
    let of = |change: fn(&mut Value)| {
        let mut edit = add(&json!({"values": random(1, 1, 24, 0.3)[0]}));
        edit["layers"] = json!([1]);
        change(&mut edit);
        experiment(model, &written(&json!([edit]))).and_then(|experiment| ControlVector::of(&experiment))
    };
    of(|_| {}).unwrap();
    refused(of(|e| e["op"] = json!("swap")), &["op \"swap\" at block_output", "no control vector"]);
    refused(of(|e| e["site"] = json!("mlp_output")), &["op \"add\" at mlp_output"]);
    refused(of(|e| e["layers"] = json!([0, 1])), &["block 0"]);
    refused(of(|e| e["positions"] = json!("last")), &["some positions"]);
    refused(of(|e| e["dims"] = json!([0, 1])), &["some dimensions"]);
    refused(of(|e| e["value"] = json!({"run": "other"})), &["takes its value from a run"]);
    refused(of(|e| e["value"] = json!({"values": random(1, 5, 24, 0.1)})), &["one a position"]);
    let none = experiment(model, &written(&json!([]))).unwrap();
    refused(ControlVector::of(&none), &["no edit to save"]);
}

/// A GGUF file of a control vector, whose parts may lie.
fn gguf(architecture: &str, tensors: &[(&str, usize)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let mut bytes = b"GGUF\x03\x00\x00\x00".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(text("general.architecture"));
    bytes.extend(8u32.to_le_bytes());
    bytes.extend(text(architecture));
    let mut offset = 0;
    for (name, width) in tensors {
        bytes.extend(text(name));
        bytes.extend(1u32.to_le_bytes());
        bytes.extend((*width as u64).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset += (width * 4).next_multiple_of(32);
    }
    bytes.resize(bytes.len().next_multiple_of(32) + offset, 0);
    bytes
}

#[test]
fn broken_control_vectors_are_refused() {
    let model = model("tiny-gpt2");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.gguf");
    let read = |bytes: &[u8]| -> Result<ControlVector, Error> {
        fs::write(&path, bytes).unwrap();
        ControlVector::read(&path)
    };
    assert_eq!(read(&gguf("controlvector", &[("direction.1", 32)])).unwrap().directions.len(), 1);
    for name in [
        "direction.0",
        "direction.-1",
        "direction.",
        "direction.01",
        "direction.+1",
        "direction.1.5",
        "direction.536870912",
        "direction.18446744073709551617",
        "output.1",
    ] {
        refused(read(&gguf("controlvector", &[(name, 32)])), &[name, "direction.1"]);
    }
    refused(read(&gguf("llama", &[("direction.1", 32)])), &["architecture", "llama", "controlvector"]);
    refused(read(&gguf("controlvector", &[])), &["holds no direction"]);
    let uneven = [("direction.1", 32), ("direction.2", 24)];
    refused(read(&gguf("controlvector", &uneven)), &["direction.2 is 24 wide"]);
    let twice = [("direction.1", 32), ("direction.1", 32)];
    refused(read(&gguf("controlvector", &twice)), &["direction.1"]);
    let whole = fs::read(fixture("control.gguf")).unwrap();
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "cut at {end}");
    }
    // What does not fit the model it is given to.
    let given = |tensors: &[(&str, usize)], layers: Option<i64>| {
        fs::write(&path, gguf("controlvector", tensors)).unwrap();
        let mut edit = from_file(&path);
        if let Some(layer) = layers {
            edit["layers"] = json!(layer);
        }
        experiment(model, &written(&json!([edit])))
    };
    refused(given(&[("direction.1", 20)], None), &["20 wide", "needs 24"]);
    refused(given(&[("direction.3", 24)], None), &["layer 3"]);
    refused(given(&[("direction.1", 24)], Some(2)), &["nothing for layer 2", "layers 1"]);
    let mut named = from_file(&path);
    named["value"]["tensor"] = json!("direction.1");
    refused(experiment(model, &written(&json!([named]))), &["control vector", "leave tensor out"]);
}
