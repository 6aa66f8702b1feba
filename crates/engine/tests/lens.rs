//! The logit lens beside the model's own answers, and parts of logits beside their sum.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::lens::{Contributor, View};
use causalcone_engine::{Executor, Lens, Runtime};
use causalcone_model::{Model, Site};
use common::*;
use serde_json::{Value, json};

const BASE: [u32; 5] = [49, 28, 31, 17, 5];
const SOURCE: [u32; 5] = [49, 28, 12, 17, 5];
const TOKENS: [u32; 3] = [9, 2, 30];

fn written(edits: &Value) -> Value {
    json!({
        "runs": {"base": {"ids": BASE}, "source": {"ids": SOURCE}},
        "edit": edits,
        "read": {"run": "base", "tokens": TOKENS},
    })
}

fn lens(model: &Model, written: &Value, executor: &dyn Executor) -> Lens {
    experiment(model, written)
        .unwrap()
        .lens(&Runtime::own(executor), 3)
        .unwrap_or_else(|e| panic!("{e}\n{written}"))
}

/// Two orders of the same sums.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * b.abs().max(1.0)
}

#[test]
fn the_last_row_is_the_models_own_output() {
    for name in all_models() {
        let model = model(&name);
        let edits = json!([{"run": "base", "site": "mlp_output", "layers": [0], "op": "swap", "value": {"run": "source"}}]);
        let written = written(&edits);
        for executor in EXECUTORS {
            let outcome = experiment(model, &written).unwrap().execute_with(&Runtime::own(executor)).unwrap();
            let base = experiment(model, &written).unwrap().find_run("base", "test").unwrap();
            let lens = lens(model, &written, executor);
            let answers = [outcome.original(base), outcome.counterfactual(base)];
            assert_ne!(answers[0].distribution.logits(), answers[1].distribution.logits());
            for (view, answer) in
                [&lens.original, lens.counterfactual.as_ref().unwrap()].into_iter().zip(answers)
            {
                assert_eq!(view.depths.len(), model.config().layers + 1);
                let last = &view.depths.last().unwrap().positions[BASE.len() - 1];
                let ids: Vec<u32> = last.top.iter().map(|seen| seen.token).collect();
                assert_eq!(ids, answer.distribution.top_ids(3));
                assert_eq!(last.top.iter().map(|seen| seen.rank).collect::<Vec<_>>(), [1, 2, 3]);
                for (seen, logit) in last.tokens.iter().zip(&view.logits) {
                    assert!(near(seen.logit, answer.distribution.logit(seen.token)));
                    assert!(near(seen.prob, answer.distribution.prob(seen.token)));
                    assert!(near(*logit, seen.logit));
                    let ranked = answer.distribution.top_ids(model.config().vocab);
                    assert_eq!(ranked[seen.rank - 1], seen.token);
                }
            }
        }
    }
}

/// What the lens sees at a depth is what the model answers where that vector is put behind its last block.
#[test]
fn every_depth_is_what_the_model_says_of_that_vector() {
    for name in all_models() {
        let model = model(&name);
        let lens = lens(model, &written(&json!([])), EXECUTORS[0]);
        assert!(lens.counterfactual.is_none());
        for depth in &lens.original.depths {
            for (position, sight) in depth.positions.iter().enumerate() {
                let value = match depth.layer {
                    Some(layer) => json!({"run": "other", "positions": position, "layers": layer}),
                    None => {
                        json!({"run": "other", "positions": position, "site": "block_input", "layers": 0})
                    }
                };
                let put = json!({"run": "base", "site": "block_output", "layers": -1, "positions": -1, "op": "swap", "value": value});
                let mut written = written(&json!([put]));
                written["runs"] = json!({"base": {"ids": BASE}, "other": {"ids": BASE}});
                let experiment = experiment(model, &written).unwrap();
                let base = experiment.find_run("base", "test").unwrap();
                let outcome = experiment.execute_with(&Runtime::own(EXECUTORS[0])).unwrap();
                let answer = outcome.counterfactual(base).distribution;
                for seen in sight.top.iter().chain(&sight.tokens) {
                    assert!(
                        near(seen.logit, answer.logit(seen.token)),
                        "{name} {:?} {position}",
                        depth.layer
                    );
                }
            }
        }
    }
}

/// The parts are those of the logits, before the cap where a family has one.
fn check_sum(view: &View, model: &Model, say: &str) {
    for (token, logit) in view.logits.iter().enumerate() {
        let sum: f64 = view.contributions.iter().map(|c| c.logits[token]).sum();
        let sum = model.config().logit_softcap.map_or(sum, |cap| cap * (sum / cap).tanh());
        assert!(near(sum, *logit), "{sum} is not {logit}: {say}");
    }
}

#[test]
fn parts_of_the_logits_are_all_of_them_whatever_is_edited() {
    for name in all_models() {
        let model = model(&name);
        let config = model.config();
        for site in sites(model).filter(|site| !site.is_attention_matrix()) {
            let mut edit = json!({"run": "base", "site": site.name(), "op": "scale", "scale": 1.7});
            if site.is_in_block() {
                edit["layers"] = json!([0, -1]);
            }
            let written = written(&json!([edit]));
            let say = format!("{name} {}", site.name());
            if config.logit_softcap.is_some() && !site.is_in_block() && site != Site::Embedding {
                let error =
                    experiment(model, &written).unwrap().lens(&Runtime::own(EXECUTORS[1]), 3).unwrap_err();
                assert!(error.to_string().contains("before this family's cap"), "{say}: {error}");
                continue;
            }
            let lens = lens(model, &written, EXECUTORS[1]);
            check_sum(&lens.original, model, &say);
            let edited = lens.counterfactual.unwrap();
            check_sum(&edited, model, &say);
            let heads =
                edited.contributions.iter().filter(|c| matches!(c.part, Contributor::Head { .. })).count();
            assert_eq!(heads, config.heads * config.layers);
            let edits =
                edited.contributions.iter().filter(|c| matches!(c.part, Contributor::Edit { .. })).count();
            let expected = match site {
                Site::BlockInput | Site::AttentionOutput | Site::BlockMiddle | Site::BlockOutput => 2,
                Site::FinalNorm | Site::Logits => 1,
                _ => 0,
            };
            assert_eq!(edits, expected, "{say}");
            assert!(lens.original.contributions.iter().all(|c| !matches!(c.part, Contributor::Edit { .. })));
        }
    }
}

/// A part that is zero puts nothing into the logits, and nothing but it does so.
#[test]
fn a_part_is_what_that_part_writes() {
    for name in all_models() {
        let model = model(&name);
        let edits = json!([
            {"run": "base", "site": "head_attention_value_output", "layers": [1], "heads": [1], "op": "zero"},
            {"run": "base", "site": "mlp_output", "layers": [0], "op": "zero"},
        ]);
        let lens = lens(model, &written(&edits), EXECUTORS[1]);
        for contribution in lens.counterfactual.unwrap().contributions {
            let is_zeroed = matches!(
                contribution.part,
                Contributor::Head { layer: 1, head: 1 } | Contributor::Mlp { layer: 0 }
            );
            let is_nothing = contribution.logits.iter().all(|x| x.abs() < 1e-6);
            assert_eq!(is_nothing, is_zeroed, "{name} {:?}", contribution.part);
        }
    }
}

#[test]
fn without_tokens_it_is_about_the_likeliest() {
    let model = model("tiny-llama");
    let mut written = written(&json!([]));
    written["read"] = json!({"run": "base"});
    let lens = lens(model, &written, EXECUTORS[1]);
    assert_eq!(lens.tokens, [lens.original.depths.last().unwrap().positions[4].top[0].token]);
}
