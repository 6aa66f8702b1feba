//! Sweeps: every cell is the single experiment it stands for, with the right coordinates; metrics
//! against sums in f64; baselines; going on after a stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::{Explanation, Journal, Metric, PreparedSweep, Runtime, SweepResult, Values};
use causalcone_model::{Model, Progress};
use common::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

const TOKENS: [u32; 3] = [7, 0, 33];

/// The edits of a sweep, with what is around them.
fn file(edits: &Value, sweep: &Value) -> Value {
    json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}, "other": {"ids": [3, 14, 15, 9, 26, 5]},
                    "third": {"ids": [1, 2, 3]}},
           "edit": edits, "read": {"tokens": TOKENS}, "sweep": sweep})
}

fn prepared<'m>(model: &'m Model, written: &Value) -> PreparedSweep<'m> {
    let sweep = experiment(model, written).and_then(|experiment| PreparedSweep::new(&experiment));
    sweep.unwrap_or_else(|e| panic!("{e}\n{written}"))
}

fn run(model: &Model, written: &Value) -> SweepResult {
    prepared(model, written).run(&Runtime::reference()).unwrap()
}

/// Logits at the last position of a run after these edits.
fn last_logits(model: &Model, edits: &Value) -> Vec<f32> {
    logits(model, &with(&file(edits, &json!({})), &json!({"sweep": null})), "base").pop().unwrap()
}

/// All metrics of TOKENS in f64, as their definitions have them.
fn by_hand(edited: &[f32], original: &[f32]) -> BTreeMap<&'static str, Vec<f64>> {
    let probs = |logits: &[f32]| {
        let exp: Vec<f64> = logits.iter().map(|x| f64::from(*x).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.into_iter().map(|x| x / sum).collect::<Vec<_>>()
    };
    let (p, q) = (probs(original), probs(edited));
    let of = |f: &dyn Fn(usize) -> f64| TOKENS.map(|id| f(id as usize)).to_vec();
    let logit = |id: u32| f64::from(edited[id as usize]);
    BTreeMap::from([
        ("prob", of(&|id| q[id])),
        ("logit", of(&|id| f64::from(edited[id]))),
        ("logprob", of(&|id| q[id].ln())),
        ("logit_diff", vec![logit(TOKENS[0]) - logit(TOKENS[1])]),
        ("kl", vec![p.iter().zip(&q).map(|(p, q)| p * (p.ln() - q.ln())).sum()]),
    ])
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * (1.0 + b.abs())
}

const ALL_METRICS: [&str; 5] = ["prob", "logit", "logprob", "logit_diff", "kl"];

/// The numbers of one cell, or a baseline, against those of logits computed apart.
fn check_values(values: &Values, metrics: &[&str], edited: &[f32], original: &[f32], say: &str) {
    let hand = by_hand(edited, original);
    let expected: Vec<f64> = metrics.iter().flat_map(|metric| hand[metric].clone()).collect();
    assert_eq!(values.len(), expected.len(), "{say}");
    for (value, expected) in values.iter().zip(expected) {
        assert!(near(value.unwrap(), expected), "{value:?} is not {expected}: {say}");
    }
}

/// A sweep against its cells one by one: the edits of each, and its coordinates.
fn check(edits: Value, sweep: Value, cells: Vec<(Value, Value)>) {
    for name in MODELS {
        let model = model(name);
        let written = file(&edits, &with(&sweep, &json!({"metrics": ALL_METRICS})));
        let result = run(model, &written);
        let original = last_logits(model, &json!([]));
        assert_eq!(result.cells.len(), cells.len(), "{sweep}");
        assert_eq!(result.rows().count(), cells.len() * (3 * TOKENS.len() + 2));
        check_values(&result.base[0], &ALL_METRICS, &original, &original, "base");
        let mut distinct = Vec::new();
        for (i, (edits, at)) in cells.iter().enumerate() {
            let say = format!("cell {i} of {name}, {edits}");
            let edited = last_logits(model, edits);
            check_values(&result.values[i], &ALL_METRICS, &edited, &original, &say);
            // The same executor on the same edits: the same bits.
            for (value, id) in result.values[i][TOKENS.len()..].iter().zip(TOKENS) {
                assert_eq!(value.unwrap(), f64::from(edited[id as usize]), "{say}");
            }
            let found = &result.cells[i];
            let found = json!({"site": found.site.map(causalcone_model::Site::name), "layer": found.layer,
                "layers": found.layers, "head": found.head, "position": found.position, "scale": found.scale});
            let empty = json!({"site": null, "layer": null, "layers": [], "head": null, "position": null, "scale": null});
            let at = at.as_object().unwrap().iter().fold(empty, |mut all, (key, value)| {
                all[key] = value.clone();
                all
            });
            assert_eq!(found, at, "{say}");
            distinct.push(edited);
        }
        // Cells differ from each other and from the original, else they could be any.
        distinct.push(original);
        for (i, a) in distinct.iter().enumerate() {
            assert!(distinct[..i].iter().all(|b| a != b), "cell {i} of {name} is like another: {sweep}");
        }
    }
}

#[test]
fn layers_each() {
    let edit = json!({"run": "base", "site": "mlp_output", "layers": [1, 0], "positions": "last",
                      "op": "swap", "value": {"run": "other"}});
    let cell = |layer: usize| {
        (
            json!([with(&edit, &json!({"layers": layer}))]),
            json!({"site": "mlp_output", "layer": layer, "layers": [layer], "position": 4}),
        )
    };
    check(json!([edit]), json!({"layers": "each"}), vec![cell(1), cell(0)]);
    // Values taken from other layers, paired.
    let paired = with(&edit, &json!({"value": {"run": "other", "layers": [0, 1]}}));
    let cell = |layer: usize, from: usize| {
        (
            json!([with(&edit, &json!({"layers": layer, "value": {"run": "other", "layers": from}}))]),
            json!({"site": "mlp_output", "layer": layer, "layers": [layer], "position": 4}),
        )
    };
    check(json!([paired]), json!({"layers": "each"}), vec![cell(1, 0), cell(0, 1)]);
}

#[test]
fn layers_cumulative() {
    let edit = json!({"run": "base", "site": "attention_output", "layers": [1, 0], "op": "zero"});
    let cell = |layers: Value, last: usize| {
        (
            json!([with(&edit, &json!({"layers": layers}))]),
            json!({"site": "attention_output", "layer": last, "layers": layers}),
        )
    };
    check(json!([edit]), json!({"layers": "cumulative"}), vec![cell(json!([1]), 1), cell(json!([1, 0]), 0)]);
}

#[test]
fn layers_in_a_window() {
    // The smallest model has two layers: a window of one is `each`, of two is all.
    let edit = json!({"run": "base", "site": "mlp_output", "layers": "..2", "op": "scale", "scale": -1.0});
    let cell = |layers: Value, layer: Value| {
        (
            json!([with(&edit, &json!({"layers": layers}))]),
            json!({"site": "mlp_output", "layer": layer, "layers": layers, "scale": -1.0}),
        )
    };
    check(
        json!([edit]),
        json!({"layers": {"window": 1}}),
        vec![cell(json!([0]), json!(0)), cell(json!([1]), json!(1))],
    );
    check(json!([edit]), json!({"layers": {"window": 2}}), vec![cell(json!([0, 1]), json!(null))]);
    check(json!([edit]), json!({}), vec![cell(json!([0, 1]), json!(null))]);
    let three = file(&json!([with(&edit, &json!({"layers": "all"}))]), &json!({"layers": {"window": 2}}));
    let model = model("tiny-gpt2");
    let result = run(model, &three);
    let layers: Vec<_> = result.cells.iter().map(|cell| (cell.layer, cell.layers.clone())).collect();
    assert_eq!(layers, [(None, vec![0, 1]), (None, vec![1, 2])]);
    let original = last_logits(model, &json!([]));
    for (values, layers) in result.values.iter().zip([[0, 1], [1, 2]]) {
        let edited = last_logits(model, &json!([with(&edit, &json!({"layers": layers}))]));
        check_values(values, &["prob"], &edited, &original, "window");
    }
}

#[test]
fn positions_each() {
    let edit = json!({"run": "base", "site": "block_input", "layers": [0, 1], "positions": [4, 1, 2],
                      "op": "swap", "value": {"run": "other"}});
    let cell = |ours: usize, theirs: usize| {
        (
            json!([with(&edit, &json!({"positions": ours, "value": {"run": "other", "positions": theirs}}))]),
            json!({"site": "block_input", "layers": [0, 1], "position": ours}),
        )
    };
    let sweep = json!({"positions": "each"});
    check(json!([edit]), sweep.clone(), vec![cell(4, 4), cell(1, 1), cell(2, 2)]);
    // Paired with other positions, or with one for all.
    let paired = with(&edit, &json!({"value": {"run": "other", "positions": [0, 5, 3]}}));
    check(json!([paired]), sweep.clone(), vec![cell(4, 0), cell(1, 5), cell(2, 3)]);
    let one = with(&edit, &json!({"value": {"run": "other", "positions": "last"}}));
    check(json!([one]), sweep.clone(), vec![cell(4, 5), cell(1, 5), cell(2, 5)]);
    // A row of a constant each; the embedding has no layers.
    for name in MODELS {
        let model = model(name);
        let width = model.config().width;
        let rows = random(8, 5, width, 0.5);
        let edit =
            json!({"run": "base", "site": "embedding", "op": "add", "value": {"values": rows}, "scale": 0.5});
        let result = run(model, &file(&json!([edit]), &sweep));
        assert_eq!(result.cells.len(), 5);
        let original = last_logits(model, &json!([]));
        for (position, at) in result.cells.iter().enumerate() {
            assert_eq!(
                (at.layer, &at.layers[..], at.position, at.scale),
                (None, &[][..], Some(position), Some(0.5))
            );
            let single = with(&edit, &json!({"positions": position, "value": {"values": rows[position]}}));
            let edited = last_logits(model, &json!([single]));
            check_values(&result.values[position], &["prob"], &edited, &original, name);
        }
    }
}

#[test]
fn heads_each() {
    let edit = json!({"run": "base", "site": "head_attention_value_output", "layers": 1, "positions": "last",
                      "heads": [2, 0], "op": "swap", "value": {"run": "other"}});
    let cell = |ours: usize, theirs: usize| {
        (
            json!([with(&edit, &json!({"heads": ours, "value": {"run": "other", "heads": theirs}}))]),
            json!({"site": "head_attention_value_output", "layer": 1, "layers": [1], "head": ours, "position": 4}),
        )
    };
    let sweep = json!({"heads": "each"});
    check(json!([edit]), sweep.clone(), vec![cell(2, 2), cell(0, 0)]);
    let paired = with(&edit, &json!({"value": {"run": "other", "heads": [0, 3]}}));
    check(json!([paired]), sweep.clone(), vec![cell(2, 0), cell(0, 3)]);
    let one = with(&edit, &json!({"value": {"run": "other", "heads": 3}}));
    check(json!([one]), sweep, vec![cell(2, 3), cell(0, 3)]);
    // One head without the axis is a coordinate, two are not.
    let edit = with(&edit, &json!({"site": "attention_weight", "op": "zero", "value": null}));
    let at = json!({"site": "attention_weight", "layer": 1, "layers": [1], "position": 4});
    check(json!([edit]), json!({}), vec![(json!([edit]), at.clone())]);
    let one = with(&edit, &json!({"heads": 3}));
    check(json!([one]), json!({}), vec![(json!([one]), with(&at, &json!({"head": 3})))]);
}

#[test]
fn sites_and_scales() {
    let edit = json!({"run": "base", "site": "mlp_output", "layers": 0, "positions": [1, 4], "op": "add",
                      "scale": 9.0, "value": {"run": "other"}});
    let cell = |site: &str, scale: f64| {
        (
            json!([with(&edit, &json!({"site": site, "scale": scale}))]),
            json!({"site": site, "layer": 0, "layers": [0], "scale": scale}),
        )
    };
    let (a, b) = ("attention_output", "block_output");
    check(json!([edit]), json!({"sites": [a, b]}), vec![cell(a, 9.0), cell(b, 9.0)]);
    check(
        json!([edit]),
        json!({"scales": [-1.5, 2]}),
        vec![cell("mlp_output", -1.5), cell("mlp_output", 2.0)],
    );
    check(
        json!([edit]),
        json!({"scales": [-1.5, 2], "sites": [a, b]}),
        vec![cell(a, -1.5), cell(a, 2.0), cell(b, -1.5), cell(b, 2.0)],
    );
    // A site the value names stays.
    let named = with(&edit, &json!({"value": {"run": "other", "site": "block_middle"}}));
    let cell = |site: &str| {
        (
            json!([with(&named, &json!({"site": site}))]),
            json!({"site": site, "layer": 0, "layers": [0], "scale": 9.0}),
        )
    };
    check(json!([named]), json!({"sites": [a, b]}), vec![cell(a), cell(b)]);
}

#[test]
fn axes_multiply_in_a_fixed_order() {
    // Sites outermost, then layers, heads, positions, scales.
    let edit = json!({"run": "base", "site": "head_query_output", "layers": [0, 1], "positions": [4, 3], "heads": [1, 3],
                      "op": "scale"});
    let mut cells = Vec::new();
    for site in ["attention_weight", "head_attention_value_output"] {
        for layer in [0, 1] {
            for head in [1, 3] {
                for position in [4, 3] {
                    // The last layer's row 3 does not reach the answer.
                    for scale in [-2.0, 3.0] {
                        let at = json!({"site": site, "layer": layer, "layers": [layer], "head": head,
                                        "position": position, "scale": scale});
                        let single = json!({"site": site, "layers": layer, "heads": head, "positions": position,
                                            "scale": scale});
                        cells.push((json!([with(&edit, &single)]), at));
                    }
                }
            }
        }
    }
    let sweep = json!({"sites": ["attention_weight", "head_attention_value_output"], "layers": "each",
                       "heads": "each", "positions": "each", "scales": [-2, 3]});
    let model = model("tiny-llama");
    let result = run(model, &file(&json!([edit]), &sweep));
    assert_eq!(result.cells.len(), 32);
    let original = last_logits(model, &json!([]));
    for (i, (edits, at)) in cells.iter().enumerate() {
        let found = &result.cells[i];
        let found = json!({"site": found.site.unwrap().name(), "layer": found.layer, "layers": found.layers,
                           "head": found.head, "position": found.position, "scale": found.scale});
        assert_eq!(found, *at);
        check_values(&result.values[i], &["prob"], &last_logits(model, edits), &original, &at.to_string());
    }
    let written: Vec<Vec<Value>> = cells.iter().map(|(edits, _)| edits.as_array().unwrap().clone()).collect();
    assert_eq!(written.len(), result.values.len());
}

#[test]
fn edits_move_together() {
    let a = json!({"name": "a", "run": "base", "site": "mlp_output", "layers": [0, 1], "positions": [1, 4], "op": "zero"});
    let b = json!({"name": "b", "run": "base", "site": "attention_output", "layers": [1, 0], "positions": [1, 3],
                   "op": "swap", "value": {"run": "other"}});
    let cell = |(a_layer, b_layer): (usize, usize), i: usize, at: Value| {
        (
            json!([
                with(&a, &json!({"layers": a_layer, "positions": ([1, 4][i])})),
                with(&b, &json!({"layers": b_layer, "positions": ([1, 3][i])}))
            ]),
            at,
        )
    };
    // `layers` are those of the first edit; columns hold what is the same in both.
    let cells = vec![
        cell((0, 1), 0, json!({"layers": [0], "position": 1})),
        cell((0, 1), 1, json!({"layers": [0]})),
        cell((1, 0), 0, json!({"layers": [1], "position": 1})),
        cell((1, 0), 1, json!({"layers": [1]})),
    ];
    for edits in [json!(["a", "b"]), json!([0, 1]), json!(["a", 1])] {
        let sweep = json!({"edit": edits, "layers": "each", "positions": "each"});
        check(json!([a, b]), sweep, cells.clone());
    }
    // Scales go to those that have one.
    let c = json!({"run": "base", "site": "block_output", "layers": 0, "op": "scale", "scale": 7.0});
    let cell = |scale: f64| {
        (json!([a, with(&c, &json!({"scale": scale}))]), json!({"scale": scale, "layers": [0, 1]}))
    };
    check(json!([a, c]), json!({"edit": [0, 1], "scales": [2.0, -1.0]}), vec![cell(2.0), cell(-1.0)]);
    // Two at one place have its coordinates.
    let d = with(&a, &json!({"name": "d", "op": "add", "value": {"values": 2.0}}));
    let cell = |layer: usize| {
        (
            json!([with(&a, &json!({"layers": layer})), with(&d, &json!({"layers": layer}))]),
            json!({"site": "mlp_output", "layer": layer, "layers": [layer], "scale": 1.0}),
        )
    };
    check(json!([a, d]), json!({"edit": ["a", "d"], "layers": "each"}), vec![cell(0), cell(1)]);
}

#[test]
fn what_is_not_swept_stays_and_is_the_fixed_value() {
    let fixed =
        json!({"name": "fixed", "run": "base", "site": "embedding", "op": "add", "value": {"values": 1.5}});
    let swept = json!({"name": "swept", "run": "base", "site": "mlp_output", "layers": "..2", "op": "zero"});
    let cell = |layer: usize| {
        (
            json!([fixed, with(&swept, &json!({"layers": layer}))]),
            json!({"site": "mlp_output", "layer": layer, "layers": [layer]}),
        )
    };
    check(json!([fixed, swept]), json!({"edit": "swept", "layers": "each"}), vec![cell(0), cell(1)]);
    for name in MODELS {
        let model = model(name);
        let original = last_logits(model, &json!([]));
        let sweep = |edits: &Value, edit: &str| {
            run(model, &file(edits, &json!({"edit": edit, "layers": "each", "metrics": ALL_METRICS})))
        };
        let result = sweep(&json!([fixed, swept]), "swept");
        let held = last_logits(model, &json!([fixed]));
        check_values(result.fixed[0].as_ref().unwrap(), &ALL_METRICS, &held, &original, "fixed");
        let row = result.rows().next().unwrap();
        assert_eq!(
            (row.value, row.base, row.fixed),
            (result.values[0][0], result.base[0][0], result.fixed[0].as_ref().unwrap()[0])
        );
        assert!(row.value != row.base && row.base != row.fixed);
        // No other edit: no fixed value.
        assert_eq!(sweep(&json!([swept]), "swept").fixed, [None]);
        // One that does not reach the run read could not be seen in any result: it is refused.
        let aside = with(&fixed, &json!({"run": "third"}));
        let written = file(&json!([aside, swept]), &json!({"edit": "swept", "layers": "each"}));
        let error = common::experiment(model, &written).unwrap().plan().unwrap_err().to_string();
        assert!(error.contains("edit \"fixed\"") && error.contains("neither read"), "{error}");
    }
}

#[test]
fn a_source_may_differ_by_cell() {
    // The sweep edits run `other`; base takes its value from it, third gives to other.
    let swept = json!({"run": "other", "site": "mlp_output", "layers": [0, 1], "positions": [2, 4, 5], "op": "scale",
                       "scale": -3.0});
    let give =
        json!({"run": "other", "site": "embedding", "positions": 1, "op": "swap", "value": {"run": "third"}});
    let take = json!({"run": "base", "site": "block_output", "layers": 1, "positions": "last", "op": "swap",
                      "value": {"run": "other"}});
    let mut cells = Vec::new();
    for layer in [0, 1] {
        for position in [2, 4, 5] {
            // Row 5 is what base takes; in layer 1 the others do not reach it.
            if layer == 1 && position != 5 {
                continue;
            }
            let single = with(&swept, &json!({"layers": layer, "positions": position}));
            let at = json!({"site": "mlp_output", "layer": layer, "layers": [layer], "position": position, "scale": -3.0});
            cells.push((layer, position, json!([single, give, take]), at));
        }
    }
    let of_layer = |layer: usize| -> Vec<_> {
        cells.iter().filter(|cell| cell.0 == layer).map(|cell| (cell.2.clone(), cell.3.clone())).collect()
    };
    let sweep = json!({"layers": "each", "positions": "each"});
    check(json!([with(&swept, &json!({"layers": 0})), give, take]), sweep.clone(), of_layer(0));
    check(json!([with(&swept, &json!({"layers": 1, "positions": [5]})), give, take]), sweep, of_layer(1));
    // Without the swept edit, base still takes from other, which still takes from third.
    let model = model("tiny-gpt2");
    let result = run(model, &file(&json!([swept, give, take]), &json!({"metrics": ALL_METRICS})));
    let original = last_logits(model, &json!([]));
    let held = last_logits(model, &json!([give, take]));
    check_values(result.fixed[0].as_ref().unwrap(), &ALL_METRICS, &held, &original, "fixed");
}

#[test]
fn metrics_come_in_the_order_asked_and_only_those() {
    let edit = json!([{"run": "base", "site": "mlp_output", "layers": "..2", "op": "zero"}]);
    for name in MODELS {
        let model = model(name);
        let original = last_logits(model, &json!([]));
        let edited = last_logits(model, &edit);
        for metrics in [
            &["prob"][..],
            &["logit"],
            &["logprob"],
            &["logit_diff"],
            &["kl"],
            &["logit_diff", "logit"],
            &["kl", "prob"],
            &["logit", "logprob"],
        ] {
            let result = run(model, &file(&edit, &json!({"metrics": metrics})));
            check_values(&result.values[0], metrics, &edited, &original, &format!("{metrics:?}"));
            check_values(&result.base[0], metrics, &original, &original, &format!("{metrics:?}"));
            let mut columns = Vec::new();
            for name in metrics {
                let (_, metric) = Metric::ALL.into_iter().find(|(known, _)| known == name).unwrap();
                let tokens = TOKENS.map(Some).to_vec();
                columns.extend(
                    if metric.is_per_token() { tokens } else { vec![None] }.into_iter().map(|t| (metric, t)),
                );
            }
            let numbered = |id: u32| TOKENS.iter().position(|known| *known == id);
            let by_number: Vec<_> =
                columns.iter().map(|(metric, id)| (*metric, id.and_then(numbered))).collect();
            let found: Vec<_> = result.columns.iter().map(|column| (column.metric, column.token)).collect();
            assert_eq!(found, by_number);
            assert_eq!(result.rows().map(|row| (row.metric, row.token)).collect::<Vec<_>>(), columns);
        }
        // Left out: probabilities.
        let result = run(model, &file(&edit, &json!({})));
        check_values(&result.values[0], &["prob"], &edited, &original, "default");
        // kl needs no tokens, and is 0 where nothing changes.
        let same = json!([{"run": "base", "site": "mlp_output", "layers": 0, "op": "scale"}]);
        let result = run(model, &with(&file(&same, &json!({"metrics": ["kl"]})), &json!({"read": null})));
        assert_eq!((result.base, result.values), (vec![vec![Some(0.0)]], vec![vec![Some(0.0)]]));
    }
}

#[test]
fn tokens_keep_their_numbers_however_many_there_are() {
    // As many tokens as the vocabulary has, in another order.
    for name in MODELS {
        let model = model(name);
        let edit = json!([{"run": "base", "site": "mlp_output", "layers": 0, "op": "zero"}]);
        let edited = last_logits(model, &edit);
        let ids: Vec<usize> = (0..model.config().vocab).rev().collect();
        for metrics in [&["logit"][..], &["logit", "logit_diff"]] {
            let written = with(&file(&edit, &json!({"metrics": metrics})), &json!({"read": {"tokens": ids}}));
            let result = run(model, &written);
            for (value, id) in result.values[0].iter().zip(&ids) {
                assert_eq!(value.unwrap(), f64::from(edited[*id]), "{name}: token {id}");
            }
        }
    }
}

#[test]
fn rows_are_counted_as_every_cell_in_full() {
    for name in MODELS {
        let model = model(name);
        let layers = model.config().layers as u64;
        let edit = json!({"run": "base", "site": "block_output", "layers": "all", "positions": "all", "op": "swap",
                          "value": {"run": "other", "align": "left"}});
        let explain = |edits: Value, sweep: Value| {
            Explanation::new(&experiment(model, &file(&edits, &sweep)).unwrap(), &Runtime::reference())
                .unwrap()
        };
        let grid = json!({"layers": "each", "positions": "each"});
        // base has 5 positions, other 6.
        let swap = explain(json!([edit]), grid.clone());
        let cells = layers * 5;
        assert_eq!(swap.cells as u64, cells);
        assert_eq!(swap.rows_naive, (5 + 6) * layers * cells);
        // The reference runs the source once for all cells.
        assert_eq!(swap.rows_computed, (5 * cells + 6) * layers);
        let zero = explain(json!([with(&edit, &json!({"op": "zero", "value": null}))]), grid.clone());
        assert_eq!(zero.rows_naive, 5 * layers * cells);
        // A source that is swept itself, and takes from a third of 3 positions.
        let chain = json!([
            {"run": "other", "site": "mlp_output", "layers": "all", "positions": "all", "op": "zero"},
            {"run": "other", "site": "embedding", "positions": 0, "op": "swap", "value": {"run": "third"}},
            with(&edit, &json!({"layers": 0})),
        ]);
        let chain = explain(chain, grid);
        assert_eq!((chain.cells as u64, chain.rows_naive), (6 * layers, (5 + 6 + 3) * layers * 6 * layers));
    }
}

/// A sweep whose cells all differ.
fn long_sweep() -> Value {
    let edit = json!({"run": "base", "site": "block_output", "layers": "all", "positions": "all", "op": "swap",
                      "value": {"run": "other", "align": "left"}});
    let fixed = json!({"run": "base", "site": "embedding", "op": "scale", "scale": 2.0});
    let sweep = json!({"layers": "each", "positions": "each", "metrics": ALL_METRICS});
    file(&json!([edit, fixed]), &sweep)
}

fn bits(result: &SweepResult) -> Vec<Vec<Option<u64>>> {
    let all = result.values.iter().chain(&result.base).chain(result.fixed.iter().flatten());
    all.map(|values| values.iter().map(|value| value.map(f64::to_bits)).collect()).collect()
}

#[test]
fn a_resumed_sweep_is_the_whole_sweep() {
    for name in MODELS {
        let model = model(name);
        let sweep = prepared(model, &long_sweep());
        let cells = sweep.cells();
        let whole = sweep.run(&Runtime::reference()).unwrap();
        for (step, offset) in [(2, 0), (2, 1), (3, 2), (1, 0), (cells + 1, 1)] {
            let done: BTreeMap<usize, Values> =
                whole.values.iter().cloned().enumerate().filter(|(cell, _)| cell % step == offset).collect();
            let mut recorded = BTreeMap::new();
            let resumed = sweep.resume(&Runtime::reference(), done.clone(), |cells| {
                for (cell, values) in cells {
                    assert!(recorded.insert(*cell, values.clone()).is_none(), "cell {cell} twice");
                }
                Ok(())
            });
            assert_eq!(bits(&resumed.unwrap()), bits(&whole));
            assert!(recorded.keys().all(|cell| !done.contains_key(cell)));
            assert_eq!(recorded.len() + done.len(), cells);
        }
    }
}

#[test]
fn a_stopped_sweep_goes_on_from_its_journal() {
    let model = model("tiny-gpt2");
    let sweep = prepared(model, &long_sweep());
    let (cells, values) = (sweep.cells(), sweep.columns().len());
    let whole = sweep.run(&Runtime::reference()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    // Half of it written, then stopped at the first report.
    let (mut journal, _) = Journal::open(&path, "it", cells, values).unwrap();
    journal.append(whole.values.iter().cloned().enumerate().take(cells / 2)).unwrap();
    drop(journal);
    let (_, done) = Journal::open(&path, "it", cells, values).unwrap();
    assert_eq!(done.len(), cells / 2);
    let first = AtomicU64::new(u64::MAX);
    let stop = |progress: Progress<'_>| {
        first.fetch_min(progress.done, Ordering::Relaxed);
        assert_eq!(progress.total, cells as u64);
        ControlFlow::Break(())
    };
    let stopped =
        sweep.resume(&Runtime { progress: &stop, ..Runtime::reference() }, done.clone(), |_| Ok(()));
    assert!(matches!(stopped, Err(causalcone_engine::Error::Interrupted)));
    assert_eq!(first.into_inner(), (cells / 2) as u64);
    // And on to the end, where a wish to stop has nothing left to stop.
    let (mut journal, done) = Journal::open(&path, "it", cells, values).unwrap();
    let go_on = |_: Progress<'_>| ControlFlow::Continue(());
    let result = sweep
        .resume(&Runtime { progress: &go_on, ..Runtime::reference() }, done, |cells| {
            journal.append(cells.iter().cloned())
        })
        .unwrap();
    assert_eq!(bits(&result), bits(&whole));
    drop(journal);
    let (_, done) = Journal::open(&path, "it", cells, values).unwrap();
    assert_eq!(done.len(), cells);
    let stop = |_: Progress<'_>| ControlFlow::Break(());
    let result = sweep.resume(&Runtime { progress: &stop, ..Runtime::reference() }, done, |_| {
        panic!("nothing is left to record")
    });
    assert_eq!(bits(&result.unwrap()), bits(&whole));
}
