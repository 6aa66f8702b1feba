//! Answers of several tokens: how likely a run is to say them, beside the product of its own probabilities token by token.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::{Distribution, Executor, MissingSpace, Outcome, PreparedSweep, Runtime};
use causalcone_model::{Model, Site};
use common::*;
use serde_json::{Value, json};

const BASE: [u32; 4] = [49, 28, 31, 17];
const SOURCE: [u32; 5] = [49, 28, 12, 17, 5];

/// Of one, two and four tokens, two of which begin alike.
fn answers() -> [Vec<u32>; 4] {
    [vec![9], vec![2, 30], vec![9, 2, 6, 30], vec![9, 2]]
}

fn written(edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": BASE}, "source": {"ids": SOURCE}}, "edit": edits,
           "read": {"run": "base", "tokens": [5], "answers": answers()}})
}

/// Token by token: the prompt goes on by one token at a time, and the same edits, of the same positions, are made in
/// each of these runs.
fn token_by_token(model: &Model, edits: &Value, executor: &dyn Executor) -> Vec<f64> {
    let of = |answer: &Vec<u32>| -> f64 {
        (0..answer.len())
            .map(|i| {
                let ids: Vec<u32> = BASE.iter().chain(&answer[..i]).copied().collect();
                let mut longer = written(edits);
                longer["runs"]["base"]["ids"] = json!(ids);
                longer["read"] = json!({"run": "base"});
                let exp = experiment(model, &longer).unwrap();
                let base = exp.find_run("base", "test").unwrap();
                let outcome = exp.execute_with(&Runtime::own(executor)).unwrap();
                outcome.counterfactual(base).distribution.logprob(answer[i])
            })
            .sum()
    };
    answers().iter().map(of).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-5 + 1e-5 * b.abs()
}

/// Edits whose positions, and key columns, mean the same whatever follows the prompt.
fn kinds_of_edits(model: &Model) -> Vec<Value> {
    let mut kinds = vec![
        json!([]),
        json!([{"run": "base", "site": "embedding", "positions": [0, 1, 2, 3], "op": "scale", "scale": 1.5}]),
        json!([{"run": "base", "site": "attention_weight", "layers": 1, "positions": [1, 3], "heads": 0, "dims": [0, 1], "op": "zero"}]),
    ];
    for site in sites(model).filter(|site| site.is_in_block() && !site.is_attention_matrix()) {
        let value = json!({"run": "source", "positions": [2]});
        kinds.push(json!([{"run": "base", "site": site.name(), "layers": [0, -1], "positions": [2], "op": "swap", "value": value}]));
    }
    kinds
}

#[test]
fn an_answer_is_as_likely_as_its_tokens_one_after_another() {
    for name in all_models() {
        let model = model(&name);
        for edits in kinds_of_edits(model) {
            let expected = token_by_token(model, &edits, EXECUTORS[0]);
            let clean = token_by_token(model, &json!([]), EXECUTORS[0]);
            for executor in EXECUTORS {
                let outcome = experiment(model, &written(&edits))
                    .unwrap()
                    .execute_with(&Runtime::own(executor))
                    .unwrap();
                assert_eq!(outcome.answers().len(), expected.len());
                for (said, (edited, clean)) in outcome.answers().iter().zip(expected.iter().zip(&clean)) {
                    let say = format!("{name} {:?} by {}: {edits}", said.ids, executor.name());
                    assert!(
                        near(said.counterfactual, *edited),
                        "{} is not {edited}: {say}",
                        said.counterfactual
                    );
                    assert!(near(said.original, *clean), "{} is not {clean}: {say}", said.original);
                }
            }
        }
    }
}

/// Edits of whole attention rows are of the prompt's keys, also where the run goes on.
#[test]
fn whole_rows_of_attention_are_those_of_the_prompt() {
    for name in all_models() {
        let model = model(&name);
        for site in [Site::AttentionScore, Site::AttentionWeight] {
            let edits = json!([{"run": "base", "site": site.name(), "layers": 0, "positions": [1, 2], "op": "scale", "scale": 0.5}]);
            let explicit = json!([{"run": "base", "site": site.name(), "layers": 0, "positions": [1, 2], "dims": "0..4", "op": "scale", "scale": 0.5}]);
            let expected = token_by_token(model, &explicit, EXECUTORS[0]);
            for executor in EXECUTORS {
                let outcome = experiment(model, &written(&edits))
                    .unwrap()
                    .execute_with(&Runtime::own(executor))
                    .unwrap();
                for (said, edited) in outcome.answers().iter().zip(&expected) {
                    assert!(near(said.counterfactual, *edited), "{name} {site:?} by {}", executor.name());
                }
            }
        }
    }
}

#[test]
fn a_sweep_has_a_column_an_answer() {
    let model = model("tiny-llama");
    let edit = json!([{"run": "base", "site": "block_output", "layers": "all", "positions": "all", "op": "scale", "scale": 1.7}]);
    let mut swept = written(&edit);
    swept["sweep"] =
        json!({"layers": "each", "positions": "each", "metrics": ["prob", "logit", "logprob", "kl"]});
    let exp = experiment(model, &swept).unwrap();
    let prepared = PreparedSweep::new(&exp).unwrap();
    let [theirs, ours] = EXECUTORS.map(|executor| prepared.run(&Runtime::own(executor)).unwrap());
    assert_eq!(ours.columns.len(), (1 + 4) + 1 + (1 + 4) + 1);
    for (a, b) in ours.values.iter().flatten().zip(theirs.values.iter().flatten()) {
        assert!(near(a.unwrap(), b.unwrap()));
    }
    for row in ours.rows().filter(|row| row.answer.is_some()) {
        let (layer, position) = (row.at.layer.unwrap(), row.at.position.unwrap());
        let one = json!([{"run": "base", "site": "block_output", "layers": layer, "positions": [position], "op": "scale", "scale": 1.7}]);
        let expected = token_by_token(model, &one, EXECUTORS[0]);
        let place = answers().iter().position(|answer| answer[..] == row.answer.unwrap()[..]).unwrap();
        let logprob = expected[place];
        let expected = if row.metric.name() == "prob" { logprob.exp() } else { logprob };
        assert!(near(row.value.unwrap(), expected), "{:?}: {} is not {expected}", row.at, row.value.unwrap());
        assert!(row.token.is_none() && row.base.is_some());
    }
    // The baseline is the unedited run.
    let clean = token_by_token(model, &json!([]), EXECUTORS[0]);
    for (said, logprob) in ours.base[0][1..5].iter().zip(clean) {
        assert!(near(said.unwrap(), logprob.exp()));
    }
    let verified = prepared.verify(&ours, None, &causalcone_model::silent).unwrap();
    assert!(verified.wrong.is_empty() && verified.numbers == ours.values.len() * ours.columns.len());
}

#[test]
fn examples_have_answers_of_their_own() {
    let model = model("tiny-gpt2");
    let lines = [
        json!({"base": [49, 28], "answers": [[9, 2]]}),
        json!({"base": [31, 17, 5], "answers": [[30, 1, 4]]}),
    ];
    let of = |ids: &Value, answer: &Value| {
        let alone = json!({"runs": {"base": {"ids": ids}}, "read": {"answers": answer}});
        experiment(model, &alone).unwrap().execute().unwrap().answers()[0].original
    };
    let expected: Vec<f64> = lines.iter().map(|line| of(&line["base"], &line["answers"])).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("examples.jsonl");
    std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let written = json!({"examples": file, "edit": [{"site": "mlp_output", "layers": 0, "op": "zero"}], "sweep": {"metrics": ["logprob"]}});
    let result = PreparedSweep::new(&experiment(model, &written).unwrap())
        .unwrap()
        .run(&Runtime::own(EXECUTORS[1]))
        .unwrap();
    let base: Vec<f64> = result.rows().map(|row| row.base.unwrap()).collect();
    assert!(base.iter().zip(&expected).all(|(a, b)| near(*a, *b)), "{base:?} {expected:?}");
    assert_eq!(result.means()[0].n, 2);
    assert_eq!(result.means()[0].token, Some(causalcone_engine::MeanToken::NumberedAnswer(0)));
}

#[test]
fn what_is_no_answer_is_refused() {
    let tied = model("tiny-llama-tied");
    let says = |written: Value, expected: &str| {
        let error = match experiment(tied, &written) {
            Err(error) => error,
            Ok(exp) => match written["sweep"].is_object() {
                true => PreparedSweep::new(&exp).map(drop).unwrap_err(),
                false => exp.execute().map(drop).unwrap_err(),
            },
        };
        assert!(error.to_string().contains(expected), "{error} has no {expected:?}");
        assert!(error.is_bad_input());
    };
    let read = |answers: Value| json!({"runs": {"base": {"ids": [1, 2]}}, "read": {"answers": answers}});
    says(read(json!([[]])), "one is empty");
    says(read(json!([""])), "one is empty");
    says(read(json!([[1, 100_000]])), "token id 100000");
    says(read(json!([[3, 4], [3, 4]])), "listed twice");
    says(read(json!([vec![1; 40]])), "context holds 32");
    let sweep = |sweep: Value| {
        let mut written = read(json!([[3, 4]]));
        written["edit"] = json!([{"site": "mlp_output", "layers": 0, "op": "zero"}]);
        written["sweep"] = sweep;
        written
    };
    says(sweep(json!({"metrics": ["kl"]})), "no metric of this sweep is of answers");
    says(sweep(json!({"metrics": ["logit"]})), "needs at least 1 tokens");
    says(sweep(json!({"methods": ["attribution"]})), "exactly only");
}

/// A text is split as it stands behind a prompt.
#[test]
fn a_text_is_an_answer() {
    let model = model("tiny-llama-tied");
    let written = json!({"runs": {"base": {"prompt": "The capital of Spain is"}}, "read": {"answers": [" Madrid and Rome", "Ro"]}});
    let outcome = experiment(model, &written).unwrap().execute().unwrap();
    let texts: Vec<String> = outcome.answers().iter().map(|said| model.text(&said.ids)).collect();
    assert_eq!(texts, [" Madrid and Rome", "Ro"]);
    assert!(outcome.answers()[0].ids.len() > 1);
    let _: &Distribution =
        outcome.original(experiment(model, &written).unwrap().find_run("base", "t").unwrap()).distribution;
}

/// After "the" the tokens " Ma", 0.025, and "Ma", 0.0002, are far apart; after "a" both " the" and "the" are unlikely.
#[test]
fn a_space_that_was_probably_forgotten_is_noticed() {
    let model = model("tiny-llama-tied");
    let written = |prompt: &str, read: &Value| {
        json!({"runs": {"base": {"prompt": prompt}}, "read": read,
               "edit": [{"site": "block_output", "layers": "all", "op": "scale", "scale": 0.5}]})
    };
    let single = |prompt: &str, read: &Value| {
        experiment(model, &written(prompt, read)).unwrap().execute().unwrap().missing_spaces().to_vec()
    };
    let found = |all: &[MissingSpace]| -> Vec<[String; 2]> {
        all.iter().map(|one| [one.token.clone(), one.likelier.clone()]).collect()
    };
    let ma = [["Ma", " Ma"].map(String::from)];
    let said = single("the", &json!({"tokens": ["Ma", "the", " Ma", "T"]}));
    assert_eq!(found(&said), ma);
    let plain = experiment(model, &json!({"runs": {"base": {"prompt": "the"}}})).unwrap().execute().unwrap();
    let plain: &Outcome<'_> = &plain;
    let base = experiment(model, &written("the", &json!({}))).unwrap().find_run("base", "test").unwrap();
    let plain = plain.original(base).distribution;
    let ids = ["Ma", " Ma"].map(|text| model.token_id(text).unwrap());
    let [own, other] = ids.map(|id| plain.prob(id));
    assert!(own < 0.001 && other > 0.02, "{own} {other}");
    assert_eq!((said[0].ids.to_vec(), said[0].likelier_id, said[0].example), (vec![ids[0]], ids[1], None));
    let near = |a: Option<f64>, b: f64| (a.unwrap() - b).abs() < 1e-4 * b;
    assert!(
        near(said[0].prob, own) && near(said[0].likelier_prob, other) && near(said[0].ratio, other / own)
    );
    let text = said[0].to_string();
    assert!(text.starts_with("token \"Ma\" has probability 1.7e-4, \" Ma\" 0.025; "), "{text}");
    assert!(text.ends_with("did you mean \" Ma\"?"), "{text}");

    assert!(found(&single("a", &json!({"tokens": ["the"]}))).is_empty());
    assert_eq!(found(&single("the", &json!({"tokens": [" Ma"], "answers": ["Ma", "The capital"]}))), ma);
    // An answer of several tokens, where the same text with a space is one.
    let said = single("Thethe", &json!({"answers": ["capital"]}));
    assert_eq!(found(&said), [["capital", " capital"].map(String::from)]);
    assert!(said[0].ids.len() > 1 && said[0].to_string().starts_with("answer \"capital\""), "{}", said[0]);

    // Sweeps and lenses, by whole distributions or by the logits of what is read alone.
    let sweep = |metrics: &[&str], read: &Value| {
        let swept = with(&written("the", read), &json!({"sweep": {"layers": "each", "metrics": metrics}}));
        PreparedSweep::new(&experiment(model, &swept).unwrap()).unwrap()
    };
    let read = json!({"tokens": ["the", "Ma"]});
    for executor in EXECUTORS {
        let all = ["prob", "logit_diff", "kl"];
        let result = sweep(&all, &read).run(&Runtime::own(executor)).unwrap();
        assert_eq!(found(&result.missing_spaces), ma);
        assert!(near(result.missing_spaces[0].prob, own));
        let result = sweep(&["logit", "logit_diff"], &read).run(&Runtime::own(executor)).unwrap();
        assert_eq!(found(&result.missing_spaces), ma);
        let one = &result.missing_spaces[0];
        assert!(one.prob.is_none() && near(one.ratio, other / own), "{one:?}");
        assert!(one.to_string().contains("far less likely than \" Ma\", by a factor of 146"), "{one}");
        // What is recorded does not change.
        let values: Vec<_> = result.values.iter().map(Vec::len).collect();
        assert_eq!((values, result.columns.len()), (vec![3; model.config().layers], 3));
        let answers = sweep(&["logprob"], &json!({"answers": ["Ma"]})).run(&Runtime::own(executor)).unwrap();
        assert_eq!(found(&answers.missing_spaces), ma);
        let lens =
            experiment(model, &written("the", &read)).unwrap().lens(&Runtime::own(executor), 3).unwrap();
        assert_eq!(found(&lens.missing_spaces), ma);
    }
}
