//! Which tokens end a text: those that transformers and llama.cpp take for the same files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::{Model, Result};
use common::gguf::{Gguf, u32v};
use common::{fixture, load};
use serde_json::{Value, json};
use std::path::Path;

/// tiny-llama with other words about its end: in generation_config.json, in config.json.
fn directory(folder: &Path, generation: Option<Value>, config: Option<Value>) -> Result<Model> {
    for name in ["model.safetensors", "config.json"] {
        std::fs::copy(fixture("tiny-llama").join(name), folder.join(name)).unwrap();
    }
    let mut of_config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    of_config.as_object_mut().unwrap().remove("eos_token_id");
    if let Some(config) = config {
        of_config["eos_token_id"] = config;
    }
    std::fs::write(folder.join("config.json"), of_config.to_string()).unwrap();
    let path = folder.join("generation_config.json");
    match generation {
        Some(generation) => std::fs::write(path, generation.to_string()).unwrap(),
        None => drop(std::fs::remove_file(path)),
    }
    load(folder)
}

#[test]
fn a_directory_says_which_tokens_end_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let of = |generation: Option<Value>, config: Option<Value>| {
        directory(folder.path(), generation, config).unwrap().eos_ids().unwrap().to_vec()
    };
    assert_eq!(of(Some(json!({"eos_token_id": [3, 7]})), Some(json!(5))), [3, 7]);
    assert_eq!(of(Some(json!({"eos_token_id": 4})), Some(json!(5))), [4]);
    assert_eq!(of(Some(json!({"temperature": 1.0})), Some(json!(5))), [5]);
    assert_eq!(of(Some(json!({"eos_token_id": null})), Some(json!([5, 6]))), [5, 6]);
    assert_eq!(of(None, None), [0; 0]);
    let hash = |generation| directory(folder.path(), generation, None).unwrap().sha256().unwrap().to_owned();
    assert_ne!(hash(Some(json!({"eos_token_id": 4}))), hash(None), "it is part of what makes texts");
    for (bad, word) in [
        (json!(1_000_000), "outside the vocabulary"),
        (json!(-1), "no token id"),
        (json!("end"), "no token id"),
        (json!([1, {}]), "no token id"),
        (json!(vec![1; 1000]), "more than 64"),
    ] {
        for place in [(Some(json!({"eos_token_id": bad})), None), (None, Some(bad.clone()))] {
            let said = directory(folder.path(), place.0, place.1).unwrap_err().to_string();
            assert!(said.contains("eos_token_id") && said.contains(word), "{said}");
        }
    }
}

#[test]
fn a_gguf_file_says_which_tokens_end_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let of = |keys: &[(&str, u32)]| {
        let mut file = Gguf::valid();
        keys.iter().for_each(|(key, id)| file.set(key, u32v(*id)));
        std::fs::write(&path, file.bytes()).unwrap();
        load(&path).map(|model| model.eos_ids().unwrap().to_vec())
    };
    assert_eq!(of(&[]).unwrap(), [11]);
    let (turn, message) = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id");
    assert_eq!(of(&[(turn, 7)]).unwrap(), [7, 11]);
    assert_eq!(of(&[(turn, 11), (message, 3)]).unwrap(), [3, 11]);
    let said = of(&[(turn, u32::MAX)]).unwrap_err().to_string();
    assert!(said.contains("eot_token_id") && said.contains("outside the vocabulary"), "{said}");
}
