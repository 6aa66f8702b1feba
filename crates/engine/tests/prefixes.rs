//! The score of every token of a text, however many are scored at once: that of a run of the text before the token.
//! In one pass, in the table of a text, in an answer and while it is generated; on every model there is, at every length.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::generate::{Continuation, End, Generation};
use causalcone_engine::{Distribution, Experiment, Runtime};
use causalcone_model::Model;
use common::*;
use serde_json::{Value, json};
use std::path::Path;

/// Both sides are f32 and differ only in the order of sums of at most some hundred numbers: a few units of 2⁻²⁴ of the
/// largest logit, which is below 100.
const TOLERANCE: f64 = 1e-5;

/// Past every window (4 to 6) and original context (8, 12 and 16) of these models, if their context allows it.
const LENGTH: usize = 20;

/// The models of the families and of the corpus, GGUF files too.
fn every_model() -> Vec<String> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus");
    let expected: Value =
        serde_json::from_slice(&std::fs::read(corpus.join("expected.json")).unwrap()).unwrap();
    let accepted = expected.as_object().unwrap().iter().filter(|(_, one)| one["expect"] == "accept");
    let corpus: Vec<String> = accepted.map(|(name, _)| format!("corpus/{name}")).collect();
    assert!(corpus.len() > 35);
    all_models().into_iter().chain(corpus).collect()
}

/// Lengths at which something begins to differ: the windows, and the original context of two sets of angles.
fn boundaries(model: &Model) -> Vec<usize> {
    let config = model.config();
    let windows = (0..config.layers).filter_map(|layer| config.window(layer));
    let mut all: Vec<usize> = windows.chain(config.longest_original()).filter(|at| *at < LENGTH).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn written(model: &Model, prompt: &[u32], is_edited: bool) -> Value {
    let mut written = json!({"runs": {"base": {"ids": prompt}}});
    if is_edited {
        // Of the first position alone: it means the same whatever the length.
        let width = model.config().width;
        let vector: Vec<f64> = (0..width).map(|i| (i as f64 * 1.7).sin()).collect();
        written["edit"] = json!([{"site": "block_output", "layers": 0, "positions": [0], "op": "add",
                                  "value": {"values": vector}}]);
    }
    written
}

/// The distribution after each prefix of a text, by a run of its own: of the first token alone, of two, ...
fn by_runs(model: &Model, ids: &[u32], is_edited: bool) -> Vec<Distribution> {
    let after = |length: usize| {
        let exp = experiment(model, &written(model, &ids[..length], is_edited)).unwrap();
        let base = exp.find_run("base", "test").unwrap();
        exp.execute_with(&Runtime::reference()).unwrap().counterfactual(base).distribution.clone()
    };
    (1..ids.len()).map(after).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * (1.0 + b.abs())
}

/// Checks one text that a prompt of `start` tokens begins.
fn check(model: &Model, ids: &[u32], start: usize, expected: [&[Distribution]; 2], say: &str) {
    let rest = &ids[start..];
    let of = |version: usize, length: usize| expected[version][length - 1].logprob(ids[length]);
    let mut file = written(model, &ids[..start], true);
    file["read"] = json!({"answers": [rest]});
    let exp: Experiment<'_> = experiment(model, &file).unwrap();
    let text = Continuation {
        example: None,
        scale: None,
        sample: 0,
        ids: rest.to_vec(),
        text: String::new(),
        logprobs: Vec::new(),
        end: End::MaxTokens,
    };
    for executor in EXECUTORS {
        let say = format!("{say}, by {}", executor.name());
        let outcome = exp.execute_with(&Runtime::own(executor)).unwrap();
        let said = &outcome.answers()[0];
        for (version, found) in [said.original, said.counterfactual].into_iter().enumerate() {
            let sum: f64 = (start..ids.len()).map(|length| of(version, length)).sum();
            assert!(near(found, sum), "{say}: the answer has {found}, its tokens {sum}");
        }
        for (length, row) in (start..).zip(exp.score(&text, &Runtime::own(executor)).unwrap()) {
            for (version, found) in [row.original, row.counterfactual].into_iter().enumerate() {
                let one = of(version, length);
                assert!(
                    near(found.ln(), one),
                    "{say}: the table has {} after {length}, not {one}",
                    found.ln()
                );
            }
            let kl = expected[1][length - 1].kl(&expected[0][length - 1]);
            assert!(
                (row.kl - kl).abs() <= TOLERANCE * (1.0 + kl),
                "{say}: KL {} after {length}, not {kl}",
                row.kl
            );
        }
    }
}

#[test]
fn a_token_scores_the_same_however_many_are_scored_at_once() {
    let mut crossed = 0;
    for name in every_model() {
        let model = model(&name);
        let length = LENGTH.min(model.config().context);
        let vocab = u32::try_from(model.config().vocab).unwrap();
        let ids: Vec<u32> = (0..length as u32).map(|i| (i * 7 + 3) % vocab).collect();
        let [original, edited] = [false, true].map(|is_edited| by_runs(model, &ids, is_edited));
        let mut starts = vec![1];
        starts.extend(boundaries(model).into_iter().flat_map(|at| [at - 1, at, at + 1]));
        starts.retain(|start| (1..length).contains(start));
        for start in starts {
            let say = format!("{name} from {start} of {length}");
            check(model, &ids, start, [&original, &edited], &say);
        }
        crossed += model.config().longest_original().filter(|at| *at + 1 < length).iter().count();
    }
    assert!(crossed >= 4, "too few models have two sets of angles: {crossed}");
}

#[test]
fn generated_tokens_score_the_same_over_cached_keys() {
    for name in every_model() {
        let model = model(&name);
        let length = LENGTH.min(model.config().context);
        let vocab = u32::try_from(model.config().vocab).unwrap();
        let mut starts = vec![1];
        starts.extend(boundaries(model).into_iter().flat_map(|at| [at - 1, at, at + 1]));
        starts.retain(|start| (1..length).contains(start));
        for start in starts {
            let prompt: Vec<u32> = (0..start as u32).map(|i| (i * 7 + 3) % vocab).collect();
            let exp = experiment(model, &written(model, &prompt, true)).unwrap();
            let options = Generation { max_tokens: length - start, eos: false, ..Generation::default() };
            let texts = exp.generate(&options).unwrap();
            for (is_edited, text) in [(false, &texts.original[0]), (true, &texts.counterfactual[0])] {
                let ids = [&prompt[..], &text.ids].concat();
                assert_eq!(ids.len(), length, "{name}");
                let expected = by_runs(model, &ids, is_edited);
                for (k, found) in text.logprobs.iter().enumerate() {
                    let one = expected[start + k - 1].logprob(text.ids[k]);
                    assert!(near(*found, one), "{name} from {start}, token {k}: {found} is not {one}");
                }
            }
        }
    }
}
