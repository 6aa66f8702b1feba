//! Values that are fitted to a data set, and their controls.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::ExperimentFile;
use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const EXAMPLES: &str = r#"{"happy": [3, 7, 9, 2], "sad": [3, 8, 9], "positions": {"word": 1}}
{"happy": [5], "sad": [4, 4, 17, 2, 6], "positions": {"word": 0}}
{"happy": [11, 12, 13], "sad": [3, 8], "positions": {"word": [0, 1]}}
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pairs.jsonl"), EXAMPLES).unwrap();
    folder
}

/// An experiment of one edit that adds a value, in a file of that folder.
fn written(folder: &Path, value: &Value) -> Value {
    let mut value = value.clone();
    if value.get("examples").is_some() {
        value["examples"] = json!(folder.join("pairs.jsonl"));
    }
    json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}}, "read": {"run": "base"},
           "edit": [{"site": "block_output", "layers": [0, 2], "op": "add", "value": value}]})
}

/// What the value adds to layer 0, found in the model's own residual stream.
fn added(folder: &Path, value: &Value) -> Vec<f32> {
    let model = model("tiny-gpt2");
    let mut steered = written(folder, value);
    let read = json!({"site": "block_output", "layers": 0, "op": "collect", "positions": "last"});
    steered["edit"].as_array_mut().unwrap().push(read.clone());
    let mut plain = steered.clone();
    plain["edit"] = json!([read]);
    let row = |written: &Value| {
        let outcome = experiment(model, written).unwrap().execute().unwrap();
        outcome.collected()[0].tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    row(&steered).iter().zip(row(&plain)).map(|(a, b)| a - b).collect()
}

/// The mean of rows of a run, each example run by itself.
fn by_hand(run: &str, positions: fn(usize, usize) -> bool) -> Vec<f64> {
    let model = model("tiny-gpt2");
    let mut rows = Vec::new();
    for line in EXAMPLES.lines() {
        let example: Value = serde_json::from_str(line).unwrap();
        let read = json!({"site": "block_output", "layers": 0, "op": "collect"});
        let alone = json!({"runs": {"base": {"ids": example[run]}}, "edit": [read], "read": {"run": "base"}});
        let outcome = experiment(model, &alone).unwrap().execute().unwrap();
        let found = outcome.collected()[0].tensor.to_vec2::<f32>().unwrap();
        let count = found.len();
        rows.extend(found.into_iter().enumerate().filter(|(p, _)| positions(*p, count)).map(|(_, row)| row));
    }
    let n = rows.len() as f64;
    (0..24).map(|i| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / n).collect()
}

/// A difference of activations below 10, in f32.
fn same(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() <= 1e-5, "{a} is not {b}");
    }
}

#[test]
fn means_are_over_all_examples_and_positions() {
    let folder = folder();
    let value = json!({"mean": "happy", "examples": ""});
    same(&added(folder.path(), &value), &by_hand("happy", |_, _| true));
    let last = json!({"mean": "sad", "examples": "", "positions": "last"});
    same(&added(folder.path(), &last), &by_hand("sad", |p, n| p + 1 == n));
    assert!(by_hand("happy", |_, _| true) != by_hand("sad", |_, _| true));
    let difference = json!({"mean": "happy", "minus": "sad", "examples": "", "positions": "last"});
    let (happy, sad) = (by_hand("happy", |p, n| p + 1 == n), by_hand("sad", |p, n| p + 1 == n));
    let expected: Vec<f64> = happy.iter().zip(&sad).map(|(a, b)| a - b).collect();
    same(&added(folder.path(), &difference), &expected);
    // By the names that the examples have for positions.
    let named = json!({"mean": "happy", "examples": "", "positions": {"name": "word"}});
    assert_ne!(added(folder.path(), &named), added(folder.path(), &value));
    // Each layer has its own, and another site its.
    let of = |value: &Value| logits(model("tiny-gpt2"), &written(folder.path(), value), "base");
    let other = json!({"mean": "happy", "examples": "", "site": "mlp_output"});
    assert_ne!(of(&other), of(&value));
}

#[test]
fn controls_keep_the_norm() {
    let folder = folder();
    let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let plain = json!({"mean": "happy", "minus": "sad", "examples": ""});
    let with = |key: &str, given: Value| {
        let mut value = plain.clone();
        value[key] = given;
        added(folder.path(), &value)
    };
    let own = added(folder.path(), &plain);
    let scaled = with("norm", json!(2.5));
    assert!((length(&scaled) - 2.5).abs() < 1e-4);
    let factor = 2.5 / length(&own);
    same(&scaled, &own.iter().map(|x| f64::from(*x) * factor).collect::<Vec<_>>());
    let random = with("random", json!(1));
    assert!((length(&random) - length(&own)).abs() < 1e-4, "of the same norm");
    let cosine = own.iter().zip(&random).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        / (length(&own) * length(&random));
    assert!(cosine.abs() < 0.7, "and of another direction, but cos is {cosine}");
    assert_eq!(random, with("random", json!(1)));
    assert_ne!(random, with("random", json!(2)));
    // Of any vector there is.
    let values = json!({"values": random_row(), "norm": 1.0, "random": 3});
    assert!((length(&added(folder.path(), &values)) - 1.0).abs() < 1e-5);
}

fn random_row() -> Value {
    common::random(4, 1, 24, 0.3)[0].clone()
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let folder = folder();
    let of = |value: Value| experiment(model("tiny-gpt2"), &written(folder.path(), &value));
    refused(of(json!({"mean": "happy"})), &["over no examples", "examples = "]);
    refused(of(json!({"mean": "hapy", "examples": ""})), &["no prompts for \"hapy\"", "\"happy\"?"]);
    refused(of(json!({"mean": "happy", "minus": "glad", "examples": ""})), &["no prompts for \"glad\""]);
    refused(of(json!({"minus": "sad", "run": "base"})), &["need value = { mean"]);
    refused(of(json!({"mean": "happy", "values": 1.0, "examples": ""})), &["exactly one"]);
    refused(of(json!({"mean": "happy", "examples": "", "layers": 1})), &["layers and heads"]);
    refused(of(json!({"mean": "happy", "examples": "", "site": "mlp_activation"})), &["wide"]);
    refused(
        of(json!({"mean": "happy", "examples": "", "site": "head_query_output"})),
        &["whole rows", "heads"],
    );
    refused(of(json!({"mean": "happy", "examples": "", "positions": 4})), &["pairs.jsonl", "position"]);
    refused(of(json!({"values": random_row(), "norm": 0.0})), &["norm 0"]);
    refused(of(json!({"values": random_row(), "norm": -1.0})), &["norm -1"]);
    refused(of(json!({"values": 1.0, "random": 1})), &["constant vectors"]);
    let mut swept = written(folder.path(), &json!({"mean": "happy", "examples": ""}));
    swept["sweep"] = json!({"sites": ["block_output", "mlp_output"]});
    swept["read"]["tokens"] = json!([1]);
    refused(experiment(model("tiny-gpt2"), &swept), &["which the sweep changes", "give the value a site"]);
    fs::write(folder.path().join("pairs.jsonl"), "{\"happy\": [1, 2]}\n{\"happy\": }\n").unwrap();
    refused(of(json!({"mean": "happy", "examples": ""})), &["pairs.jsonl", "line 2"]);
    // A record of the experiment names what it is made of.
    let text = written(folder.path(), &json!({"mean": "happy", "examples": ""})).to_string();
    let files = ExperimentFile::from_json(&text).unwrap().data_files();
    assert!(files.iter().any(|file| file.ends_with("pairs.jsonl")));
}
