//! Every op at every site against pyvene, or a PyTorch hook where pyvene lacks the site or is wrong
//! (`fixtures/make_fixtures.py` says which). Cases are ordinary experiment files.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use candle_core::{Device, Tensor};
use causalcone_engine::{Cone, Executor, ExperimentFile, Reference, Runtime};
use causalcone_model::{Model, Site};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The logits of run base at all positions after the edits.
fn logits(executor: &dyn Executor, model: &Model, experiment: &Value) -> Tensor {
    let mut experiment = experiment.clone();
    let read = json!({"run": "base", "site": "logits", "op": "collect"});
    experiment["edit"].as_array_mut().unwrap().push(read);
    let file = ExperimentFile::from_json(&experiment.to_string()).unwrap();
    let outcome = file.experiment(model).unwrap().execute_with(&Runtime::own(executor)).unwrap();
    outcome.collected()[0].tensor.clone()
}

/// The largest |Δ| / (1e-5 + 1e-5·|x|); theirs is f64, ours f32.
fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.dims(), theirs.dims());
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let pairs = values(ours).into_iter().zip(values(theirs));
    let ratios: Vec<f64> =
        pairs.map(|(a, b)| f64::from((a - b).abs()) / (1e-5 + 1e-5 * f64::from(b.abs()))).collect();
    assert!(ratios.iter().all(|r| r.is_finite()));
    ratios.into_iter().fold(0.0, f64::max)
}

fn check(name: &str) {
    let model = Model::load(fixtures().join(name).to_str().unwrap()).unwrap();
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixtures().join(format!("{name}.edits.json"))).unwrap())
            .unwrap();
    let path = fixtures().join(format!("{name}.edits.safetensors"));
    let expected: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut worst: f64 = 0.0;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        for edit in case["experiment"]["edit"].as_array().unwrap() {
            seen.insert((edit["site"].as_str().unwrap().to_owned(), edit["op"].as_str().unwrap().to_owned()));
        }
        for executor in [&Reference as &dyn Executor, &Cone::default()] {
            let distance = distance(&logits(executor, &model, &case["experiment"]), &expected[name]);
            worst = worst.max(distance);
            if distance > 1.0 {
                let (by, executor) = (&case["by"], executor.name());
                wrong.push(format!("{name} ({by}): {distance:.2} tolerances off by {executor}"));
            }
        }
    }
    println!("{name}: {} cases, worst {worst:.3} of the tolerance", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    if cases.len() > 100 {
        for site in Site::all() {
            for op in ["swap", "add", "subtract", "zero", "scale"] {
                let known_blind = op == "subtract" && site.is_attention_matrix();
                assert!(
                    known_blind || seen.contains(&(site.name().into(), op.into())),
                    "no case for {op} at {site:?}"
                );
            }
        }
    }
}

#[test]
fn gpt2_edits_are_pyvenes() {
    check("tiny-gpt2");
}

#[test]
fn llama_edits_are_pyvenes() {
    check("tiny-llama");
}

#[test]
fn tied_llama_edits_are_pyvenes() {
    check("tiny-llama-tied");
}
