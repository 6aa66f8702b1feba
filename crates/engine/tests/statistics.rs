//! Values that are fitted to a data set, and their controls.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use candle_core::Tensor;
use causalcone_engine::{Experiment, ExperimentFile, PreparedSweep, Runtime, dataset, statistics};
use causalcone_model::Site;
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

/// Rows of a run at a site of layer 0, each example run by itself.
fn rows_by_hand(run: &str, site: &str, positions: fn(usize, usize) -> bool) -> Vec<Vec<f64>> {
    let model = model("tiny-gpt2");
    let mut rows = Vec::new();
    for line in EXAMPLES.lines() {
        let example: Value = serde_json::from_str(line).unwrap();
        let read = json!({"site": site, "layers": 0, "op": "collect"});
        let alone = json!({"runs": {"base": {"ids": example[run]}}, "edit": [read], "read": {"run": "base"}});
        let outcome = experiment(model, &alone).unwrap().execute().unwrap();
        let found = outcome.collected()[0].tensor.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let count = found.len();
        let wide = |row: Vec<f32>| row.into_iter().map(f64::from).collect();
        rows.extend(
            found.into_iter().enumerate().filter(|(p, _)| positions(*p, count)).map(|(_, row)| wide(row)),
        );
    }
    rows
}

/// Their mean.
fn by_hand(run: &str, positions: fn(usize, usize) -> bool) -> Vec<f64> {
    mean(&rows_by_hand(run, "block_output", positions))
}

fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f64>() / rows.len() as f64).collect()
}

/// x·C for C = Σ r·rᵀ over rows r.
fn through(rows: &[Vec<f64>], x: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    (0..x.len()).map(|i| rows.iter().map(|row| dot(row, x) * row[i]).sum()).collect()
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

/// Without examples of its own a value is fitted to those of the experiment, of a file or of a program.
#[test]
fn the_experiments_own_data_set_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.jsonl");
    std::fs::write(&path, "{\"base\": [3, 1, 4]}\n{\"base\": [1, 5]}\n").unwrap();
    let answers = |value: Value, given: bool| {
        let written = json!({
            "examples": path, "read": {"tokens": [7]},
            "edit": [{"site": "mlp_output", "layers": "all", "op": "mean", "value": value}],
        });
        let mut file: ExperimentFile = serde_json::from_value(written).unwrap();
        if given {
            file.examples = None;
            file.inputs.examples =
                Some(dataset::load(&path).unwrap().into_iter().map(Result::unwrap).collect());
        }
        let experiment = file.experiment(model("tiny-gpt2")).unwrap();
        let logits = |one: causalcone_engine::Result<Experiment<'_>>| {
            let one = one.unwrap();
            one.execute().unwrap().counterfactual(one.read_run().unwrap()).distribution.logits().to_vec()
        };
        experiment.by_example().map(logits).collect::<Vec<_>>()
    };
    let own = answers(json!({"mean": "base", "examples": path}), false);
    assert_eq!(own.len(), 2);
    assert_eq!(answers(json!({"mean": "base"}), false), own);
    assert_eq!(answers(json!({"mean": "base"}), true), own);
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
    refused(of(json!({"mean": "happy"})), &["{ mean = \"happy\" } needs a data set", "examples = "]);
    refused(of(json!({"mean": "hapy", "examples": ""})), &["no prompts for \"hapy\"", "\"happy\"?"]);
    refused(of(json!({"mean": "happy", "minus": "glad", "examples": ""})), &["no prompts for \"glad\""]);
    refused(of(json!({"minus": "sad", "run": "base"})), &["need value = { mean"]);
    refused(of(json!({"mean": "happy", "values": 1.0, "examples": ""})), &["exactly one"]);
    refused(of(json!({"mean": "happy", "examples": "", "layers": 1})), &["layers, heads and align"]);
    refused(of(json!({"mean": "happy", "examples": "", "site": "mlp_activation"})), &["wide"]);
    refused(of(json!({"mean": "happy", "examples": "", "site": "head_query_output"})), &["shape"]);
    refused(of(json!({"mean": "happy", "examples": "", "site": "attention_weight"})), &["whole rows"]);
    refused(of(json!({"pca": "happy", "examples": "", "site": "head_query_output"})), &["whole rows"]);
    refused(of(json!({"pca": "happy", "minus": "sad", "examples": ""})), &["do not pair up", "last"]);
    // Also where nothing is computed, as in `explain`.
    let outlined = |value: Value| {
        let file: ExperimentFile = serde_json::from_value(written(folder.path(), &value)).unwrap();
        file.outline(model("tiny-gpt2"))
    };
    refused(outlined(json!({"pca": "happy", "minus": "sad", "examples": ""})), &["do not pair up", "last"]);
    let last = json!({"pca": "happy", "minus": "sad", "examples": "", "positions": "last"});
    assert!(outlined(last).is_ok());
    refused(of(json!({"pca": "happy"})), &["{ pca = \"happy\" } needs a data set"]);
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

/// Each head by its own mean, together and one at a time.
#[test]
fn means_of_heads_are_their_own() {
    let folder = folder();
    let model = model("tiny-gpt2");
    let site = "head_attention_value_output";
    let means = mean(&rows_by_hand("happy", site, |_, _| true));
    let width = model.config().head_dim;
    let ablated = |heads: Value, value: Value| {
        let edit = json!({"site": site, "layers": 0, "heads": heads, "op": "mean", "value": value});
        json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}}, "read": {"run": "base", "tokens": [3]},
               "edit": [edit]})
    };
    let examples = folder.path().join("pairs.jsonl");
    let fitted = json!({"mean": "happy", "examples": examples});
    let given = |head: usize| json!({"values": means[head * width..][..width]});
    for head in 0..model.config().heads {
        let ours = logits(model, &ablated(json!(head), fitted.clone()), "base");
        let theirs = logits(model, &ablated(json!(head), given(head)), "base");
        // Means to the precision of f32, through two blocks.
        ours.iter().zip(&theirs).for_each(|(a, b)| assert!(distance(a, b) < 1e-4));
    }
    let two = logits(model, &ablated(json!([2, 0]), fitted.clone()), "base");
    let mut one_by_one = ablated(json!(0), given(0));
    let second = ablated(json!(2), given(2))["edit"][0].clone();
    one_by_one["edit"].as_array_mut().unwrap().push(second);
    two.iter().zip(logits(model, &one_by_one, "base")).for_each(|(a, b)| assert!(distance(a, &b) < 1e-4));

    let mut swept = ablated(json!([2, 0]), fitted.clone());
    swept["sweep"] = json!({"heads": "each", "metrics": ["logit"]});
    let prepared = PreparedSweep::new(&experiment(model, &swept).unwrap()).unwrap();
    for executor in EXECUTORS {
        let result = prepared.run(&Runtime::own(executor)).unwrap();
        for (row, head) in result.rows().zip([2, 0]) {
            let alone = logits(model, &ablated(json!(head), fitted.clone()), "base");
            assert!((row.value.unwrap() - f64::from(alone[4][3])).abs() < 1e-4);
        }
    }
}

/// What makes them principal: eigenvectors of the covariance, of the largest eigenvalues there are.
#[test]
fn components_are_the_covariances_eigenvectors() {
    for standardise in [false, true] {
        let folder = folder();
        let model = model("tiny-gpt2");
        let mut exp = Experiment::new(model);
        let runs = ["happy", "sad"].map(|name| exp.open_run(name).unwrap());
        exp.collect(runs[0], Site::BlockOutput.layers([0, 2])).unwrap();
        exp.set_examples(dataset::load(&folder.path().join("pairs.jsonl")).unwrap().into_iter().flatten());
        let found = statistics::components(&exp, &Runtime::default(), 3, standardise).unwrap();
        assert_eq!(found[0].len(), 2);
        let found = &found[0][&Some(0)];
        let numbers = |tensor: &Tensor| -> Vec<f64> {
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect()
        };
        let rows = rows_by_hand("happy", "block_output", |_, _| true);
        same(&found.mean.to_vec1::<f32>().unwrap(), &mean(&rows));
        let (centre, std) = (mean(&rows), numbers(&found.std));
        let z: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| row.iter().zip(&centre).zip(&std).map(|((x, m), s)| (x - m) / s).collect())
            .collect();
        let total: f64 = z.iter().flatten().map(|x| x * x).sum();
        if standardise {
            let variance = |i: usize| z.iter().map(|row| row[i] * row[i]).sum::<f64>() / z.len() as f64;
            assert!((0..24).all(|i| (variance(i) - 1.0).abs() < 1e-5));
        }
        let components = numbers(&found.components);
        let mut last = f64::INFINITY;
        for (component, explained) in components.chunks(24).zip(&found.explained) {
            let length: f64 = component.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5);
            let largest = component.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap();
            assert!(largest > 0.0);
            let eigenvalue = explained * total;
            assert!(eigenvalue <= last);
            last = eigenvalue;
            for (turned, x) in through(&z, component).iter().zip(component) {
                // Components are f32, and eigenvalues sums of 9 rows.
                assert!((turned - eigenvalue * x).abs() < 1e-5 * total, "{turned} is not {}", eigenvalue * x);
            }
        }
        // Nothing of any other direction is more than the third.
        let rest: Vec<Vec<f64>> = z
            .iter()
            .map(|row| {
                let mut row = row.clone();
                for component in components.chunks(24) {
                    let along: f64 = row.iter().zip(component).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(component).for_each(|(a, b)| *a -= along * b);
                }
                row
            })
            .collect();
        for direction in serde_json::from_value::<Vec<Vec<f64>>>(random(7, 50, 24, 1.0)).unwrap() {
            let length: f64 = direction.iter().map(|x| x * x).sum();
            let spread: f64 = through(&rest, &direction).iter().zip(&direction).map(|(a, b)| a * b).sum();
            assert!(spread / length <= last * (1.0 + 1e-5));
        }
        for (rank, says) in [(0, "0 components"), (9, "1 to 8 can"), (25, "25 components")] {
            refused(statistics::components(&exp, &Runtime::default(), rank, standardise), &[says]);
        }
    }
}

#[test]
fn a_contrast_is_where_the_pairs_differ_most() {
    let folder = folder();
    let value = json!({"pca": "happy", "minus": "sad", "examples": "", "positions": "last"});
    let found: Vec<f64> = added(folder.path(), &value).into_iter().map(f64::from).collect();
    let last = |run| rows_by_hand(run, "block_output", |p, n| p + 1 == n);
    let pairs: Vec<Vec<f64>> = last("happy")
        .iter()
        .zip(last("sad"))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect())
        .collect();
    let turned = through(&pairs, &found);
    let eigenvalue: f64 = turned.iter().zip(&found).map(|(a, b)| a * b).sum();
    for (turned, x) in turned.iter().zip(&found) {
        assert!((turned - eigenvalue * x).abs() < 1e-4 * eigenvalue);
    }
    let total: f64 = pairs.iter().flatten().map(|x| x * x).sum();
    assert!(eigenvalue > total / 3.0, "the largest of three");
    let towards: f64 = mean(&pairs).iter().zip(&found).map(|(a, b)| a * b).sum();
    assert!(towards > 0.0);
    let back = json!({"pca": "sad", "minus": "happy", "examples": "", "positions": "last"});
    same(&added(folder.path(), &back), &found.iter().map(|x| -x).collect::<Vec<_>>());
    let long = json!({"pca": "happy", "minus": "sad", "examples": "", "positions": "last", "norm": 3.0});
    same(&added(folder.path(), &long), &found.iter().map(|x| 3.0 * x).collect::<Vec<_>>());
    // Of one run: its first component.
    let alone = added(folder.path(), &json!({"pca": "happy", "examples": ""}));
    assert!((alone.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
}

#[test]
fn parameters_are_fitted_at_the_edits_place() {
    let folder = folder();
    let model = model("tiny-gpt2");
    let edit = |parameters: &Value, more: &Value| {
        let edit = json!({"run": "base", "site": "block_output", "layers": 0, "op": "pca_swap",
            "parameters": parameters, "value": {"run": "other"}});
        json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}, "other": {"ids": [9, 8, 7, 6, 5]}},
            "edit": [with(&edit, more)]})
    };
    let fit = json!({"pca": "happy", "examples": folder.path().join("pairs.jsonl"), "rank": 2});
    let none = json!({});
    let two = logits(model, &edit(&fit, &none), "base");
    let first = logits(model, &edit(&fit, &json!({"dims": 0})), "base");
    assert_ne!(two, first);
    let scaled = logits(model, &edit(&with(&fit, &json!({"standardise": true})), &none), "base");
    assert_ne!(two, scaled);
    let of = |parameters: &Value, more: &Value| experiment(model, &edit(parameters, more));
    refused(of(&fit, &json!({"layers": [0, 1]})), &["components are of one layer", "an edit for each layer"]);
    refused(of(&fit, &json!({"op": "low_rank_swap"})), &["pca_swap"]);
    refused(of(&with(&fit, &json!({"rank": 0})), &none), &["0 components"]);
    refused(of(&with(&fit, &json!({"pca": "hapy"})), &none), &["no prompts for \"hapy\"", "\"happy\"?"]);
    let mut swept = edit(&fit, &none);
    swept["sweep"] = json!({"sites": ["block_output", "mlp_output"]});
    refused(experiment(model, &swept), &["which the sweep changes"]);
    let text = edit(&fit, &none).to_string();
    let files = ExperimentFile::from_json(&text).unwrap().data_files();
    assert!(files.iter().any(|file| file.ends_with("pairs.jsonl")));
}
