//! Attribution patching, beside finite differences, beside the exact numbers, by both executors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::{
    Collection, Each, Example, Executor, Experiment, LayerAxis, Method, Metric, Op, PreparedSweep, Runtime,
    Sweep, SweepResult,
};
use causalcone_model::{Model, Site};
use common::*;
use serde_json::{Value, json};

const BASE: [u32; 5] = [49, 28, 31, 17, 5];
const SOURCE: [u32; 5] = [49, 28, 12, 17, 5];

fn sweep(model: &Model, written: &Value, executor: &dyn Executor) -> SweepResult {
    let experiment = experiment(model, written).unwrap_or_else(|e| panic!("{e}\n{written}"));
    let prepared = PreparedSweep::new(&experiment).unwrap_or_else(|e| panic!("{e}\n{written}"));
    prepared.run(&Runtime::own(executor)).unwrap_or_else(|e| panic!("{e}\n{written}"))
}

fn refusal(model: &Model, written: &Value) -> String {
    match experiment(model, written).and_then(|experiment| experiment.plan()) {
        Err(e) => format!("{e} ({})", e.hint().unwrap_or_default()),
        Ok(_) => panic!("not refused: {written}"),
    }
}

/// The columns of one method, by cell.
fn numbers(result: &SweepResult, method: Method) -> Vec<Vec<f64>> {
    let of = |values: &Vec<Option<f64>>| {
        let pairs = values.iter().zip(&result.columns).filter(|(_, column)| column.method == method);
        pairs.map(|(value, _)| value.unwrap()).collect()
    };
    result.values.iter().map(of).collect()
}

fn with(mut written: Value, part: &str, key: &str, value: Value) -> Value {
    written[part][key] = value;
    written
}

/// Every smooth metric of one edit at every layer and position.
fn written(edit: &Value, metrics: &[&str], methods: &[&str]) -> Value {
    let mut sweep = json!({"positions": "each", "metrics": metrics, "methods": methods});
    if edit.get("layers").is_some() {
        sweep["layers"] = json!("each");
    }
    if edit.get("heads").is_some() {
        sweep["heads"] = json!("each");
    }
    json!({
        "runs": {"base": {"ids": BASE}, "source": {"ids": SOURCE}},
        "edit": [edit],
        "read": {"run": "base", "tokens": [9, 2]},
        "sweep": sweep,
    })
}

const SMOOTH: [&str; 5] = ["prob", "logit", "logprob", "logit_diff", "loss"];

/// Where the op goes on in a straight line (scale·v added), the exact numbers of ±h give the slope by
/// central differences; the estimate's rise must be that slope times the scale.
#[test]
fn estimates_are_the_slope_times_the_change_at_every_site() {
    for name in MODELS {
        let model = model(name);
        for site in Site::all() {
            let width = shape(model, site, BASE.len()).1;
            // Of an attention matrix one number a key column: the same for all would change no weight.
            let value = random(3, 1, width, 0.3)[0].clone();
            let mut edit =
                json!({"run": "base", "site": site.name(), "op": "add", "value": {"values": value}});
            if site.is_in_block() {
                edit["layers"] = json!("all");
            }
            // What logits lose to rounding, 1e-6, over the step; and a cubic term of the step's square.
            let step = 5e-3;
            let scaled = with(written(&edit, &SMOOTH, &["exact"]), "sweep", "scales", json!([-step, step]));
            for executor in EXECUTORS {
                let say = format!("{name} {} by {}", site.name(), executor.name());
                let exact = numbers(&sweep(model, &scaled, executor), Method::Exact);
                let plain = sweep(model, &written(&edit, &SMOOTH, &["attribution"]), executor);
                let estimates = numbers(&plain, Method::Attribution);
                assert_eq!(exact.len(), 2 * estimates.len(), "{say}");
                let base: Vec<f64> = plain.base[0].iter().map(|x| x.unwrap()).collect();
                let mut largest = 0.0f64;
                for (pair, estimate) in exact.chunks(2).zip(&estimates) {
                    for (column, at) in base.iter().enumerate() {
                        let slope = (pair[1][column] - pair[0][column]) / (2.0 * step);
                        let rise = estimate[column] - at;
                        largest = largest.max(rise.abs());
                        assert!((slope - rise).abs() <= 2e-3 + 2e-2 * rise.abs(), "{slope} {rise} {say}");
                    }
                }
                assert!(largest > 1e-3, "nothing moved: {say}");
            }
        }
    }
}

/// One small step: the estimate of a swap is exact up to the square of what it changes.
#[test]
fn estimates_come_nearer_to_exact_numbers_with_the_square_of_the_change() {
    let model = model("tiny-llama");
    let at = |scale: f64| {
        let edit = json!({"run": "base", "site": "mlp_output", "layers": "all", "op": "add",
            "value": {"values": random(5, 1, model.config().width, 1.0)[0]}, "scale": scale});
        let result = sweep(model, &written(&edit, &["logit_diff"], &["exact", "attribution"]), EXECUTORS[1]);
        result.agreement()[0].mean_error
    };
    let (coarse, fine) = (at(0.05), at(0.0125));
    assert!(coarse > 8.0 * fine && coarse < 40.0 * fine, "{coarse} {fine}");
}

/// Heads, dims, joint ops, ops that compute with their own activations, values from elsewhere.
#[test]
fn executors_agree_on_every_kind_of_edit() {
    for name in MODELS {
        let model = model(name);
        let d = model.config().width;
        let run = json!({"run": "source"});
        let edits = [
            json!({"run": "base", "site": "head_attention_value_output", "layers": "all", "heads": "all", "op": "swap", "value": run}),
            json!({"run": "base", "site": "attention_weight", "layers": "all", "heads": "all", "op": "swap", "value": run}),
            json!({"run": "base", "site": "attention_score", "layers": "all", "op": "add", "value": {"values": -1.5}}),
            json!({"run": "base", "site": "block_output", "layers": "all", "op": "scale", "scale": 0.3}),
            json!({"run": "base", "site": "mlp_output", "layers": "all", "op": "skip"}),
            json!({"run": "base", "site": "block_output", "layers": "all", "dims": [1, 3], "op": "swap", "value": run}),
            json!({"run": "base", "site": "block_output", "layers": "all", "op": "low_rank_swap", "value": run,
                "parameters": {"random": 3, "rank": 2}}),
            json!({"run": "base", "site": "embedding", "op": "swap", "value": run}),
            json!({"run": "base", "site": "mlp_input", "layers": "all", "op": "noise", "level": 0.1, "seed": 2}),
            json!({"run": "base", "site": "block_output", "layers": "all", "op": "project_out",
                "value": {"values": random(5, 1, d, 1.0)[0]}}),
        ];
        for edit in edits {
            let metrics = ["prob", "logit_diff", "loss"];
            let methods: &[&str] = if edit["value"]["run"].is_null() {
                &["exact", "attribution"]
            } else {
                &["exact", "attribution", "integrated"]
            };
            let written = written(&edit, &metrics, methods);
            let [reference, cone] = EXECUTORS.map(|executor| sweep(model, &written, executor));
            assert_eq!(reference.columns, cone.columns);
            for (ours, theirs) in cone.values.iter().flatten().zip(reference.values.iter().flatten()) {
                let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
                // The same sums in another order, forward and back, as in tests/gradients.rs.
                assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1.0), "{ours} {theirs} {written}");
            }
        }
    }
}

/// Along the straight line between two embeddings, the integral of the slope is the difference of the
/// ends: with every embedding swapped the integrated estimate is the exact number, up to the midpoint
/// rule's 1/steps².
#[test]
fn the_integrated_estimate_of_the_whole_prompt_is_exact() {
    for name in MODELS {
        let model = model(name);
        let edit = json!({"run": "base", "site": "embedding", "op": "swap", "value": {"run": "source"}});
        let metrics = ["prob", "logit_diff", "kl", "loss"];
        let mut written = written(&edit, &metrics, &["exact", "integrated"]);
        written["sweep"].as_object_mut().unwrap().remove("positions");
        let error = |steps: usize| {
            let written = with(written.clone(), "sweep", "steps", json!(steps));
            let result = sweep(model, &written, EXECUTORS[1]);
            let [exact, estimate] =
                [Method::Exact, Method::Integrated].map(|method| numbers(&result, method).remove(0));
            let moved = exact.iter().zip(&result.base[0]).map(|(x, at)| (x - at.unwrap()).abs());
            assert!(moved.fold(0.0, f64::max) > 1e-2, "{name}");
            exact.iter().zip(&estimate).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
        };
        let (few, many) = (error(4), error(64));
        assert!(many < 1e-3, "{name}: {many}");
        assert!(many < few / 4.0, "{name}: {many} of {few}");
    }
}

/// Fixed edits, before the swept ones and upstream of them: path patching, and restoring what noise broke.
#[test]
fn fixed_edits_are_part_of_the_run_that_slopes_are_of() {
    let model = model("tiny-gpt2");
    let d = model.config().width;
    let vector = random(9, 1, d, 0.2)[0].clone();
    // The swept edit is in a run that the read one takes from.
    let path = json!({
        "runs": {"base": {"ids": BASE}, "sender": {"ids": SOURCE}},
        "edit": [
            {"name": "moved", "run": "sender", "site": "mlp_output", "layers": [0], "op": "add", "value": {"values": vector}},
            {"run": "base", "site": "attention_output", "layers": [1], "op": "swap", "value": {"run": "sender"}},
        ],
        "read": {"run": "base", "tokens": [9, 2]},
        "sweep": {"edit": "moved", "positions": "each", "metrics": ["logit_diff"], "methods": ["attribution"]},
    });
    let noise = json!({
        "runs": {"base": {"ids": BASE}, "clean": {"ids": BASE}},
        "edit": [
            {"run": "base", "site": "embedding", "positions": [1, 2], "op": "noise", "level": 0.5, "seed": 4},
            {"name": "moved", "run": "base", "site": "mlp_output", "layers": "all", "op": "add", "value": {"values": vector}},
        ],
        "read": {"run": "base", "tokens": [9, 2]},
        "sweep": {"edit": "moved", "layers": "each", "positions": "each", "samples": 2,
            "metrics": ["logit_diff", "kl"], "methods": ["attribution"]},
    });
    // Noise in the run that is read, and none in the one that is changed: both samples take from the same.
    let mut shared = path.clone();
    shared["edit"].as_array_mut().unwrap().push(
        json!({"run": "base", "site": "embedding", "positions": [1, 2], "op": "noise", "level": 0.5, "seed": 4}),
    );
    shared["sweep"]["samples"] = json!(2);
    for written in [path, noise, shared] {
        for executor in EXECUTORS {
            let estimates = sweep(model, &written, executor);
            let step = 2e-2;
            let mut exact = with(written.clone(), "sweep", "scales", json!([-step, step]));
            exact["sweep"]["methods"] = json!(["exact"]);
            let exact = numbers(&sweep(model, &exact, executor), Method::Exact);
            let rises = numbers(&estimates, Method::Attribution);
            let mut moved = 0;
            for (cell, (pair, estimate)) in exact.chunks(2).zip(&rises).enumerate() {
                let fixed = estimates.fixed[estimates.baseline_of[cell]].as_ref().unwrap();
                for column in 0..estimate.len() {
                    let slope = (pair[1][column] - pair[0][column]) / (2.0 * step);
                    let rise = estimate[column] - fixed[column].unwrap();
                    assert!((slope - rise).abs() <= 2e-3 + 2e-2 * rise.abs(), "{slope} {rise} {written}");
                    moved += usize::from(rise.abs() > 1e-3);
                }
            }
            assert!(moved > 0, "{written}");
        }
    }
    // From the corrupted prompt back to the clean one.
    let restore = json!({
        "runs": {"base": {"ids": BASE}, "clean": {"ids": BASE}},
        "edit": [
            {"run": "base", "site": "embedding", "positions": [1, 2], "op": "noise", "level": 0.5, "seed": 4},
            {"name": "moved", "run": "base", "site": "embedding", "op": "swap", "value": {"run": "clean"}},
        ],
        "read": {"run": "base", "tokens": [9, 2]},
        "sweep": {"edit": "moved", "metrics": ["logit_diff"], "methods": ["exact", "integrated"], "steps": 50},
    });
    let result = sweep(model, &restore, EXECUTORS[1]);
    let (exact, estimate) =
        (numbers(&result, Method::Exact)[0][0], numbers(&result, Method::Integrated)[0][0]);
    let base = result.base[0][0].unwrap();
    assert!((exact - base).abs() < 1e-4, "restored: {exact} {base}");
    assert!((estimate - exact).abs() < 1e-3, "{estimate} {exact}");
}

/// Examples in one pass are each as alone, and as they are with any of the journal's cells done.
#[test]
fn examples_do_not_depend_on_each_other() {
    let model = model("tiny-gpt2");
    let alone = |base: Value, source: Value| {
        let mut written = written(
            &json!({"run": "base", "site": "block_output", "layers": "all", "positions": [1, 2], "op": "swap",
                "value": {"run": "source"}}),
            &["prob", "loss"],
            &["exact", "attribution", "integrated"],
        );
        written["runs"] = json!({"base": {"ids": base}, "source": {"ids": source}});
        written
    };
    let pairs = [([4, 9, 2].to_vec(), [4, 8, 2].to_vec()), (BASE.to_vec(), SOURCE.to_vec())];
    // The same as a data set.
    let mut all = Experiment::new(model);
    let base = all.open_run("base").unwrap();
    let source = all.open_run("source").unwrap();
    all.edit(base, Site::BlockOutput.layers(..).at([1, 2]), Op::swap(source)).unwrap();
    all.set_tokens(vec![9, 2]).unwrap();
    all.set_sweep(Sweep {
        layers: Some(LayerAxis::Each),
        positions: Some(Each),
        metrics: vec![Metric::Prob, Metric::Loss],
        methods: vec![Method::Exact, Method::Attribution, Method::Integrated],
        ..Sweep::default()
    });
    all.set_examples(
        pairs.iter().map(|(base, source)| {
            Example::new().prompt("base", base.clone()).prompt("source", source.clone())
        }),
    );
    let together = PreparedSweep::new(&all).unwrap().run(&Runtime::own(EXECUTORS[1])).unwrap();
    let apart: Vec<_> = pairs
        .iter()
        .flat_map(|(base, source)| sweep(model, &alone(json!(base), json!(source)), EXECUTORS[1]).values)
        .collect();
    assert_eq!(together.values.len(), apart.len());
    for (ours, theirs) in together.values.iter().flatten().zip(apart.iter().flatten()) {
        assert!((ours.unwrap() - theirs.unwrap()).abs() < 1e-5, "{ours:?} {theirs:?}");
    }
}

/// The gradient that is read, times what an edit adds, is what the estimate of that edit rises by; which is
/// beside finite differences above.
#[test]
fn a_gradient_read_is_the_slope_that_estimates_have() {
    for name in MODELS {
        let model = model(name);
        for site in Site::all() {
            let width = shape(model, site, BASE.len()).1;
            let vector = random(3, 1, width, 0.3)[0].clone();
            let numbers_of = |x: &Value| -> Vec<f64> {
                x.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
            };
            let added = numbers_of(&vector);
            let mut edit =
                json!({"run": "base", "site": site.name(), "op": "add", "value": {"values": vector}});
            let mut read = json!({"run": "base", "site": site.name(), "op": "collect"});
            if site.is_in_block() {
                edit["layers"] = json!("all");
                read["layers"] = json!("all");
            }
            // Behind an edit that stays.
            let stays =
                json!({"run": "base", "site": "embedding", "positions": 1, "op": "scale", "scale": 1.5});
            for metric in ["logit_diff", "loss", "kl"] {
                let mut swept = written(&edit, &[metric], &["attribution"]);
                swept["edit"] = json!([stays, edit]);
                swept["sweep"]["edit"] = json!(1);
                let mut reading = swept.clone();
                reading.as_object_mut().unwrap().remove("sweep");
                read["gradient"] = json!(metric);
                reading["edit"] = json!([stays, read]);
                for executor in EXECUTORS {
                    let estimates = sweep(model, &swept, executor);
                    let fixed = estimates.fixed[0].as_ref().unwrap()[0].unwrap();
                    let rises = estimates.values.iter().map(|values| values[0].unwrap() - fixed);
                    let outcome =
                        experiment(model, &reading).unwrap().execute_with(&Runtime::own(executor)).unwrap();
                    let collected = outcome.collected();
                    assert!(collected.iter().all(|c| c.gradient.unwrap().name() == metric));
                    // A row a position, of all heads.
                    let slopes = collected.iter().flat_map(|c| match c.place.site.is_attention_matrix() {
                        true => rows(&c.tensor),
                        false => c.tensor.flatten_from(1).unwrap().to_vec2().unwrap(),
                    });
                    let slopes = slopes.map(|row| {
                        let terms = row.iter().zip(added.iter().cycle());
                        terms.map(|(slope, by)| f64::from(*slope) * by).sum::<f64>()
                    });
                    let (rises, slopes): (Vec<f64>, Vec<f64>) = (rises.collect(), slopes.collect());
                    assert_eq!(rises.len(), slopes.len());
                    assert!(slopes.iter().any(|x| x.abs() > 1e-3), "{name} {} {metric}", site.name());
                    for (rise, slope) in rises.iter().zip(&slopes) {
                        // The same slopes and changes; a value a head more of them to sum.
                        assert!(
                            (rise - slope).abs() <= 1e-4 * slope.abs().max(1e-1),
                            "{rise} {slope} {}",
                            site.name()
                        );
                    }
                }
            }
        }
    }
}

/// Of a data set: each example's are those it has alone.
#[test]
fn gradients_over_a_data_set_are_those_of_each_example() {
    let model = model("tiny-gpt2");
    let mut all = Experiment::new(model);
    let base = all.open_run("base").unwrap();
    all.collect_gradient(base, Site::MlpOutput.layers(..), Metric::LogitDiff).unwrap();
    all.collect_gradient(base, Site::BlockInput.layers(1), Metric::Kl).unwrap();
    all.collect(base, Site::BlockInput.layers(1)).unwrap();
    all.set_tokens(vec![9, 2]).unwrap();
    let prompts = [vec![4, 9, 2], BASE.to_vec(), SOURCE.to_vec()];
    all.set_examples(prompts.iter().map(|ids| Example::new().prompt("base", ids.clone())));
    let together = Collection::new(&all, 1 << 20).unwrap().gather(0, &Runtime::own(EXECUTORS[1])).unwrap();
    assert_eq!(together.len(), 3);
    let layers = model.config().layers;
    for (gathered, alone) in together.iter().zip(all.by_example()) {
        let outcome = alone.unwrap().execute_with(&Runtime::own(EXECUTORS[0])).unwrap();
        assert_eq!(gathered.collected.len(), layers + 2);
        for (ours, theirs) in gathered.collected.iter().zip(outcome.collected()) {
            assert_eq!(ours.gradient, theirs.gradient);
            let (ours, theirs) = (rows(&ours.tensor), rows(&theirs.tensor));
            for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
                assert!((ours - theirs).abs() <= 1e-4 * theirs.abs().max(1e-1), "{ours} {theirs}");
            }
        }
        // Nothing is edited: the divergence is at its least.
        let flat = rows(&gathered.collected[layers].tensor);
        assert!(flat.iter().flatten().all(|x| x.abs() < 1e-6));
    }
}

#[test]
fn gradients_that_are_none_are_refused() {
    let model = model("tiny-gpt2");
    let read = |more: Value| {
        let mut edit = json!({"run": "base", "site": "mlp_output", "layers": "all", "op": "collect"});
        for (key, value) in more.as_object().unwrap() {
            edit[key] = value.clone();
        }
        json!({"runs": {"base": {"ids": BASE}, "source": {"ids": SOURCE}}, "edit": [edit],
            "read": {"run": "base", "tokens": [9, 2]}})
    };
    let cases = [
        (read(json!({"gradient": "accuracy"})), "metric \"accuracy\" is not differentiable"),
        (read(json!({"gradient": "rank"})), "metric \"rank\" is not differentiable"),
        (read(json!({"gradient": "logit"})), "1 of [read] tokens, and there are 2"),
        (read(json!({"gradient": "logits"})), "did you mean \"logit\"?"),
        (read(json!({"gradient": "loss", "run": "source"})), "takes nothing from its run"),
        (read(json!({"gradient": "loss", "op": "zero"})), "reads no gradient"),
    ];
    for (written, says) in cases {
        let refused = match experiment(model, &written).and_then(|experiment| experiment.plan_single()) {
            Err(e) => format!("{e} ({})", e.hint().unwrap_or_default()),
            Ok(_) => panic!("not refused: {written}"),
        };
        assert!(refused.contains(says), "{refused}\n{written}");
    }
}

#[test]
fn what_slopes_cannot_tell_is_refused() {
    let model = model("tiny-gpt2");
    let add = || json!({"run": "base", "site": "mlp_output", "layers": "all", "op": "add", "value": {"values": 0.5}});
    let swap = || json!({"run": "base", "site": "mlp_output", "layers": "all", "op": "swap", "value": {"run": "source"}});
    let mut aligned = swap();
    aligned["value"]["align"] = json!("left");
    let cases = [
        (written(&add(), &["accuracy"], &["attribution"]), "accuracy"),
        (written(&add(), &["kl"], &["exact", "attribution"]), "slope is 0"),
        (written(&add(), &["prob"], &["integrated"]), "no value from a run"),
        (written(&add(), &["prob"], &["exact", "exact"]), "twice"),
        (written(&add(), &["prob"], &[]), "methods = []"),
        (written(&add(), &["prob"], &["gradient"]), "not a method"),
        (with(written(&add(), &["prob"], &["attribution"]), "sweep", "steps", json!(3)), "steps"),
        (
            with(written(&swap(), &["prob"], &["integrated"]), "sweep", "steps", json!(0)),
            "`steps` must be from 1",
        ),
        (
            with(
                written(&aligned, &["prob"], &["integrated"]),
                "runs",
                "source",
                json!({"ids": [1, 2, 3, 4, 5, 6]}),
            ),
            "6 tokens",
        ),
        (
            {
                let mut two = written(&swap(), &["prob"], &["attribution"]);
                two["edit"].as_array_mut().unwrap().push(add());
                two
            },
            "after a swept edit",
        ),
        (
            {
                let mut serial = written(&swap(), &["prob"], &["attribution"]);
                let mut first = add();
                first["run"] = json!("source");
                serial["edit"].as_array_mut().unwrap().push(first);
                with(serial, "sweep", "edit", json!([0, 1]))
            },
            "only through another swept edit",
        ),
    ];
    for (written, says) in cases {
        let refused = refusal(model, &written);
        assert!(refused.contains(says), "{refused}\n{written}");
    }
}
