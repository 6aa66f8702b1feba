//! Every op against pyvene and pyreft, or a PyTorch hook where they cannot do it or are wrong
//! (`fixtures/make_ops.py` says where and why): logits, what is collected, gradients of all parameters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use causalcone_engine::op::OPS;
use causalcone_engine::plan::Reading;
use causalcone_engine::{Executor, Experiment, ExperimentFile, OpKind, Runtime, collect};
use causalcone_ops::{exponential, householder};
use common::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join(name), &Device::Cpu).unwrap()
}

fn records(name: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

/// The largest |Δ| / (tolerance + tolerance·|x|); theirs is f64, ours f32.
fn far(ours: &Tensor, theirs: &Tensor, tolerance: f64) -> f64 {
    assert_eq!(ours.dims(), theirs.dims());
    let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let ratio = |(a, b): (f32, f32)| {
        let ratio = f64::from((a - b).abs()) / (tolerance + tolerance * f64::from(b.abs()));
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    };
    numbers(ours).into_iter().zip(numbers(theirs)).map(ratio).fold(0.0, f64::max)
}

/// How far a gradient is off, against its largest number, in units of 1e-4; what is nothing must be nothing.
fn far_gradient(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.dims(), theirs.dims());
    let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let size = match largest(theirs) {
        0.0 => 1e-2,
        size => f64::from(size),
    };
    let off = f64::from(largest(&(ours - theirs).unwrap())) / (1e-4 * size);
    if off.is_nan() { f64::INFINITY } else { off }
}

/// The experiment of a case, with its data set in a file.
fn experiment_of<'m>(model: &'m causalcone_model::Model, case: &Value, with_logits: bool) -> Experiment<'m> {
    let mut written = case["experiment"].clone();
    if with_logits {
        let read = json!({"run": "base", "site": "logits", "op": "collect"});
        written["edit"].as_array_mut().unwrap().push(read);
    }
    let mut examples = tempfile::NamedTempFile::new().unwrap();
    if let Some(given) = case["examples"].as_array() {
        for one in given {
            writeln!(examples, "{one}").unwrap();
        }
        written["examples"] = json!(examples.path());
        // Whether the edits take from it or not.
        written["runs"] = json!({"base": {}, "source": {}});
    }
    let mut file = ExperimentFile::from_json(&written.to_string()).unwrap();
    file.folder = fixtures();
    file.experiment(model).unwrap_or_else(|e| panic!("{}: {e}", case["name"]))
}

/// The logits of run base at all positions, one matrix an example, and what its `collect` edits read.
fn answers(executor: &dyn Executor, experiment: &Experiment<'_>) -> (Vec<Tensor>, Vec<Tensor>) {
    let (mut logits, mut collected) = (Vec::new(), Vec::new());
    for one in experiment.by_example() {
        let outcome = one.unwrap().execute_with(&Runtime::own(executor)).unwrap();
        let mut all: Vec<Tensor> = outcome.collected().iter().map(|c| c.tensor.clone()).collect();
        logits.push(all.pop().unwrap());
        collected.extend(all);
    }
    (logits, collected)
}

/// The gradients, by the name of the tensor in the fixture, of Σ c·logits at the last position, summed over
/// the examples.
fn gradients(
    executor: &dyn Executor,
    model: &causalcone_model::Model,
    case: &Value,
    c: &Tensor,
) -> BTreeMap<String, Tensor> {
    let mut experiment = experiment_of(model, case, false);
    let mut variables: BTreeMap<String, Var> = BTreeMap::new();
    experiment
        .map_parameters(|edit, parameter, tensor| {
            let named = &case["experiment"]["edit"][edit.index()]["parameters"][parameter]["tensor"];
            let variable = Var::from_tensor(tensor)?;
            let of = variables.insert(named.as_str().unwrap().into(), variable.clone());
            assert!(of.is_none(), "{named} is there twice");
            Ok(variable.as_tensor().clone())
        })
        .unwrap();
    let plan = experiment.plan_single().unwrap();
    let cells: Vec<_> = plan.cells.iter().collect();
    let mut loss: Option<Tensor> = None;
    for readings in collect(executor, model, &plan, &cells).unwrap() {
        let Reading::Logits(logits) = &readings[0] else { panic!("no logits") };
        let one = (logits * c).unwrap().sum_all().unwrap();
        loss = Some(match loss {
            None => one,
            Some(sum) => (sum + one).unwrap(),
        });
    }
    let store = loss.unwrap().backward().unwrap();
    let gradient = |variable: &Var| {
        store.get(variable).cloned().unwrap_or_else(|| variable.as_tensor().zeros_like().unwrap())
    };
    variables.iter().map(|(name, variable)| (name.clone(), gradient(variable))).collect()
}

fn check(name: &str) {
    let model = model(name);
    let expected = tensors(&format!("{name}.ops.safetensors"));
    let cases = records(&format!("{name}.ops.json"));
    let (mut wrong, mut worst, mut worst_gradient) = (Vec::new(), 0.0f64, 0.0f64);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        for executor in EXECUTORS {
            let mut judge = |what: String, off: f64| {
                if off > 1.0 {
                    wrong.push(format!("{name}, {what} by {}: {off:.2} tolerances off", executor.name()));
                }
            };
            let (logits, collected) = answers(executor, &experiment_of(model, case, true));
            let logits = if case["examples"].is_null() {
                logits[0].clone()
            } else {
                Tensor::stack(&logits, 0).unwrap()
            };
            let off = far(&logits, &expected[&format!("{name}/logits")], 1e-5);
            worst = worst.max(off);
            judge("logits".into(), off);
            for (index, ours) in collected.iter().enumerate() {
                let theirs = &expected[&format!("{name}/collected.{index}")];
                let ours = ours.reshape(theirs.dims()).unwrap();
                judge(format!("collected {index}"), far(&ours, theirs, 1e-5));
            }
            let Some(named) = case["grads"].as_array() else { continue };
            let ours = gradients(executor, model, case, &expected["c"]);
            for tensor in named {
                let tensor = tensor.as_str().unwrap();
                let theirs = &expected[&format!("{name}/grad/{tensor}")];
                let off = far_gradient(&ours[tensor], theirs);
                worst_gradient = worst_gradient.max(off);
                judge(format!("dL/d {tensor}"), off);
            }
        }
    }
    println!("{name}: {} cases; worst {worst:.3} and {worst_gradient:.3} tolerances", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn gpt2_ops_are_pyvenes() {
    check("tiny-gpt2");
}

#[test]
fn llama_ops_are_pyvenes() {
    check("tiny-llama");
}

#[test]
fn tied_llama_ops_are_pyvenes() {
    check("tiny-llama-tied");
}

/// Every op has cases, and all parameters of those that train have gradients among them.
#[test]
fn no_op_is_without_an_oracle() {
    for name in ["tiny-gpt2", "tiny-llama"] {
        let cases = records(&format!("{name}.ops.json"));
        let mut parameters: BTreeSet<(String, String)> = BTreeSet::new();
        for case in &cases {
            let grads: Vec<&str> =
                case["grads"].as_array().into_iter().flatten().map(|g| g.as_str().unwrap()).collect();
            for edit in case["experiment"]["edit"].as_array().unwrap() {
                let Some(given) = edit["parameters"].as_object() else { continue };
                for (parameter, from) in given {
                    if grads.contains(&from["tensor"].as_str().unwrap()) {
                        parameters.insert((edit["op"].as_str().unwrap().into(), parameter.clone()));
                    }
                }
            }
        }
        for op in OPS.iter().filter(|op| op.kind != OpKind::Custom) {
            assert!(cases.iter().any(|case| case["op"] == op.name), "no case of {} on {name}", op.name);
            // A principal component is fitted, not trained; a threshold has no slope.
            let trains = op.kind != OpKind::PcaSwap;
            for parameter in op.parameters.iter().filter(|p| trains && p.name != "threshold") {
                let key = (op.name.to_string(), parameter.name.to_string());
                assert!(parameters.contains(&key), "no gradient of {key:?} on {name}");
            }
        }
    }
}

/// torch's parametrisations: the matrix their raw numbers mean, and its gradient to them.
#[test]
fn raw_rotations_are_torchs() {
    let expected = tensors("rotations.safetensors");
    for case in records("rotations.json") {
        let name = case["name"].as_str().unwrap();
        let of = |what: &str| expected[&format!("{name}/{what}")].to_dtype(DType::F32).unwrap();
        let raw = Var::from_tensor(&of("original")).unwrap();
        let map = if case["map"] == "householder" { householder } else { exponential };
        let rotation = of("base").matmul(&map(&raw).unwrap()).unwrap();
        // One rounding for each of the products of up to twelve rotations.
        assert!(far(&rotation, &of("rotation"), 2e-6) <= 1.0, "{name}");
        let grads = (rotation * of("cotangent")).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(far_gradient(grads.get(&raw).unwrap(), &of("grad")) <= 1.0, "{name}");
    }
}
