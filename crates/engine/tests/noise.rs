//! Noise: what is added is ε of where it stands, whatever else is computed; samples are an axis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::noise::epsilon;
use causalcone_engine::plan::ValueSource;
use causalcone_engine::{PreparedSweep, Runtime, SweepResult};
use causalcone_model::{Layout, Model, Site};
use common::*;
use serde_json::{Value, json};

const IDS: [u32; 5] = [49, 28, 31, 17, 5];

fn file(edits: Value, sweep: Value) -> Value {
    json!({"runs": {"base": {"ids": IDS}, "clean": {"ids": IDS}}, "edit": edits, "read": {"tokens": [7, 9]},
           "sweep": sweep})
}

fn swept(model: &Model, written: &Value) -> SweepResult {
    let experiment = experiment(model, written).unwrap_or_else(|e| panic!("{e}\n{written}"));
    PreparedSweep::new(&experiment)
        .unwrap_or_else(|e| panic!("{e}\n{written}"))
        .run(&Runtime::reference())
        .unwrap()
}

fn refused(written: &Value) -> String {
    let error =
        experiment(model("tiny-llama"), written).and_then(|experiment| match written["sweep"].is_null() {
            true => experiment.plan_single(),
            false => experiment.plan(),
        });
    let error = error.expect_err(&written.to_string());
    format!("{error} {}", error.hint().unwrap_or_default())
}

/// ε as the values of an `add`, one row a position.
fn rows(seed: u64, example: u64, sample: u64, positions: &[u64], dims: impl Fn() -> Vec<u64>) -> Value {
    let row = |p: &u64| {
        dims().iter().map(|d| f64::from(epsilon(seed, example, sample, *p, *d))).collect::<Vec<_>>()
    };
    positions.iter().map(row).collect::<Vec<_>>().into()
}

#[test]
fn noise_is_an_addition_of_epsilon() {
    for name in MODELS {
        let model = model(name);
        for (site, layer) in places(model) {
            let noise = edit(
                site,
                layer,
                &json!({"run": "base", "positions": [4, 1], "op": "noise", "level": 0.3, "seed": 8}),
            );
            let width = match site.layout(model.config()) {
                Layout::Rows { width } => width,
                Layout::Heads { width, .. } => width,
                Layout::Attention { .. } => {
                    let error =
                        experiment(model, &file(json!([noise]), Value::Null)).unwrap_err().to_string();
                    assert!(error.contains("noise is for vectors"), "{error}");
                    continue;
                }
            };
            let add = |more: Value| {
                let plain = json!({"op": "add", "level": null, "seed": null, "scale": 0.3});
                with(&with(&noise, &plain), &more)
            };
            // All of a row, part of it, and one head.
            let mut cases = Vec::new();
            if let Layout::Heads { heads, width } = site.layout(model.config()) {
                let each = (0..heads).map(|head| {
                    let dims = || (0..width).map(|d| (head * width + d) as u64).collect();
                    add(json!({"heads": head, "value": {"values": rows(8, 0, 0, &[4, 1], dims)}}))
                });
                cases.push((noise.clone(), each.collect::<Vec<_>>()));
                let dims = || vec![(width + 2) as u64, width as u64];
                let part = with(&noise, &json!({"heads": 1, "dims": [2, 0]}));
                let value = json!({"values": rows(8, 0, 0, &[4, 1], dims)});
                cases.push((part, vec![add(json!({"heads": 1, "dims": [2, 0], "value": value}))]));
            } else {
                let all = || (0..width as u64).collect();
                cases.push((
                    noise.clone(),
                    vec![add(json!({"value": {"values": rows(8, 0, 0, &[4, 1], all)}}))],
                ));
                let part = with(&noise, &json!({"dims": [3, 1]}));
                let value = json!({"values": rows(8, 0, 0, &[4, 1], || vec![3, 1])});
                cases.push((part, vec![add(json!({"dims": [3, 1], "value": value}))]));
            }
            for (ours, theirs) in cases {
                let ours = everything(model, &file(json!([ours]), Value::Null), "base");
                let theirs = everything(model, &file(json!(theirs), Value::Null), "base");
                assert!(ours == theirs, "{name}: {site:?}");
            }
        }
    }
}

#[test]
fn samples_are_an_axis_of_all_noise() {
    let corrupt = json!({"name": "corrupt", "run": "base", "site": "embedding", "positions": [1, 2], "op": "noise",
                         "level": 0.5, "seed": 3});
    let restore = json!({"name": "restore", "run": "base", "site": "block_output", "layers": [0, 1], "positions": [1, 3],
                         "op": "swap", "value": {"run": "clean"}});
    let sweep = json!({"edit": "restore", "layers": "each", "positions": "each", "samples": 3, "metrics": ["logit", "kl"]});
    for name in MODELS {
        let model = model(name);
        let result = swept(model, &file(json!([corrupt, restore]), sweep.clone()));
        assert_eq!((result.cells.len(), result.base.len()), (3 * 4, 3));
        assert!(result.base.iter().all(|base| *base == result.base[0]));
        let width = model.config().width as u64;
        for sample in 0..3 {
            let value = json!({"values": rows(3, 0, sample as u64, &[1, 2], || (0..width).collect())});
            let given = json!({"op": "add", "level": null, "seed": null, "scale": 0.5, "value": value});
            let alone =
                file(json!([with(&corrupt, &given), restore]), with(&sweep, &json!({"samples": null})));
            let alone = swept(model, &alone);
            for (cell, values) in alone.values.iter().enumerate() {
                let at = &result.cells[4 * sample + cell];
                assert_eq!((at.sample, alone.cells[cell].sample), (Some(sample), None));
                assert_eq!((at.layer, at.position), (alone.cells[cell].layer, alone.cells[cell].position));
                assert_eq!(&result.values[4 * sample + cell], values, "{name}: sample {sample}");
            }
            assert_eq!(result.fixed[sample], alone.fixed[0]);
            assert_eq!(result.base[sample], alone.base[0]);
            assert!(result.baseline_of[4 * sample..][..4].iter().all(|baseline| *baseline == sample));
        }
        assert!(result.fixed[0] != result.fixed[1] && result.fixed[1] != result.fixed[2]);
        // Without the axis it is the first sample.
        let first = swept(model, &file(json!([corrupt, restore]), with(&sweep, &json!({"samples": null}))));
        assert_eq!(first.values, result.values[..4]);
        // Means are over samples, n counting them.
        let mean = &result.means()[0];
        let values: Vec<f64> = (0..3).map(|sample| result.values[4 * sample][0].unwrap()).collect();
        assert_eq!(mean.n, 3);
        assert!((mean.mean.unwrap() - values.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert!(mean.standard_error.unwrap() > 0.0 && mean.fixed.is_some());
    }
}

#[test]
fn levels_are_scales() {
    let noise = json!({"run": "base", "site": "embedding", "op": "noise", "level": 9.0});
    let model = model("tiny-gpt2");
    let result = swept(
        model,
        &file(json!([noise]), json!({"scales": [0, 0.25, 0.5], "samples": 2, "metrics": ["kl"]})),
    );
    let scales: Vec<_> = result.cells.iter().map(|at| (at.sample, at.scale)).collect();
    let expected = [0, 1].map(|s| [0.0, 0.25, 0.5].map(|x| (Some(s), Some(x)))).concat();
    assert_eq!(scales, expected);
    let kl: Vec<f64> = result.values.iter().map(|values| values[0].unwrap()).collect();
    assert!(kl[0] == 0.0 && kl[3] == 0.0 && kl[1] > 0.0 && kl[1] != kl[4], "{kl:?}");
    // One original serves the samples, since no fixed edit has noise.
    assert_eq!((result.base.len(), result.fixed.len()), (1, 1));
}

#[test]
fn examples_have_noise_of_their_own_whatever_stands_around_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set.jsonl");
    let model = model("tiny-llama");
    let noise = json!({"site": "embedding", "op": "noise", "level": 0.5});
    let values = |lines: &str, samples: usize| {
        std::fs::write(&path, lines).unwrap();
        let written = json!({"examples": path, "edit": [noise], "read": {"tokens": [7]}, "sweep": {"samples": samples}});
        let mut experiment = experiment(model, &written).unwrap();
        experiment.sift().unwrap();
        let result = PreparedSweep::new(&experiment).unwrap().run(&Runtime::reference()).unwrap();
        let cells = result.cells.iter().zip(&result.values);
        cells
            .map(|(at, values)| ((at.example.unwrap(), at.sample.unwrap()), values[0].unwrap()))
            .collect::<Vec<_>>()
    };
    let all = values("{\"base\": [1, 2, 3]}\n{\"base\": [1, 2, 3]}\n{\"base\": [4, 5]}\n", 2);
    let at: Vec<_> = all.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    for (i, (_, value)) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|(_, other)| other != value), "{all:?}");
    }
    // A line that cannot be used, or that is another, changes nothing for those after it.
    assert_eq!(values("{\"base\"\n{\"base\": [1, 2, 3]}\n{\"base\": [4, 5]}\n", 2), all[2..]);
    let other = values("{\"base\": [9, 9, 9, 9]}\n\n{\"base\": [1, 2, 3]}\n{\"base\": [4, 5]}\n", 3);
    assert_eq!((other[3], other[4], other[6], other[7]), (all[2], all[3], all[4], all[5]));
}

#[test]
fn equal_noise_is_one_tensor() {
    // Executors know equal rows by the tensor of a constant.
    let corrupt =
        json!({"run": "base", "site": "embedding", "positions": [1, 2], "op": "noise", "level": 0.5});
    let swept = json!({"name": "s", "run": "base", "site": "mlp_output", "layers": "all", "positions": [1, 4], "op": "noise", "level": 0.1});
    let sweep = json!({"edit": "s", "layers": "each", "positions": "each", "samples": 2});
    let plan =
        experiment(model("tiny-llama"), &file(json!([corrupt, swept]), sweep)).unwrap().plan().unwrap();
    let mut tensors = std::collections::BTreeMap::new();
    for cell in &plan.cells {
        for run in cell.runs.clone() {
            for edit in &plan.runs[run].edits {
                let Some(ValueSource::Constant(constant)) = &edit.value else { panic!("{edit:?}") };
                assert_eq!(
                    constant.row,
                    if edit.place.site == Site::Embedding { None } else { Some(cell.at.point.position) }
                );
                let key = (edit.place.site, cell.at.sample);
                let id = *tensors.entry(key).or_insert(constant.rows.id());
                assert_eq!(id, constant.rows.id(), "{key:?}");
            }
        }
    }
    let ids: std::collections::HashSet<_> = tensors.values().collect();
    assert_eq!((tensors.len(), ids.len()), (4, 4));
    // Heads swept one at a time have their own part of one.
    let heads = json!({"run": "base", "site": "head_query_output", "layers": [0, 1], "heads": "all", "op": "noise", "level": 0.1});
    let plan =
        experiment(model("tiny-llama"), &file(json!([heads]), json!({"layers": "each", "heads": "each"})));
    let ids: std::collections::HashSet<_> = plan
        .unwrap()
        .plan()
        .unwrap()
        .runs
        .iter()
        .flat_map(|run| run.edits.clone())
        .filter_map(|edit| match &edit.value {
            Some(ValueSource::Constant(constant)) => Some((constant.rows.id(), constant.head.unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(ids.iter().map(|(id, _)| *id).collect::<std::collections::HashSet<_>>().len(), 1);
}

#[test]
fn mistakes_with_noise_are_refused() {
    let noise = json!({"run": "base", "site": "embedding", "op": "noise", "level": 0.5});
    let cases: [(Value, Value, &[&str]); 12] = [
        (json!({"level": null}), Value::Null, &["needs a level", "standard deviation"]),
        (json!({"level": null, "scale": 1.0}), Value::Null, &["no scale", "level"]),
        (json!({"level": -1.0}), Value::Null, &["level -1 is negative"]),
        (json!({"level": 1e39}), Value::Null, &["level", "finite"]),
        (json!({"value": {"values": 1.0}, "seed": 1}), Value::Null, &["no seed", "drawn"]),
        (json!({"op": "zero", "level": 1.0}), Value::Null, &["no level"]),
        (json!({"op": "zero", "level": null, "seed": 1}), Value::Null, &["no seed"]),
        (json!({}), json!({"samples": 0}), &["`samples` must be from 1 to 4000000, got 0"]),
        (json!({"op": "zero", "level": null}), json!({"samples": 2}), &["samples are of noise"]),
        (json!({}), json!({"scales": [1, -2]}), &["scale -2 is negative"]),
        (json!({}), json!({"samples": 5_000_000_000_000_u64}), &["4000000, got 5000000000000"]),
        (json!({}), json!({"samples": 4_000_000, "positions": "each"}), &["cells", "past the 4000000"]),
    ];
    for (more, sweep, words) in cases {
        let said = refused(&file(json!([with(&noise, &more)]), sweep));
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
}
