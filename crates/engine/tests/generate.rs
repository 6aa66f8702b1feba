//! Texts that grow over cached keys and values, beside the same passes run whole: experiments that name every position.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::generate::{Continuation, End, Generation, Texts};
use causalcone_engine::{Distribution, Experiment, ExperimentFile, Runtime};
use causalcone_model::{Model, Site};
use common::*;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const SOURCE: [u32; 3] = [49, 28, 12];

fn prompt(len: usize) -> Vec<u32> {
    (0..len).map(|i| [49, 28, 31, 17, 5, 44, 9][i % 7]).collect()
}

fn options(max_tokens: usize) -> Generation {
    Generation { max_tokens, eos: false, ..Generation::default() }
}

fn written(prompt: &[u32], edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": prompt}, "source": {"ids": SOURCE}}, "edit": edits, "read": {"run": "base"}})
}

fn texts(model: &Model, written: &Value, options: &Generation) -> Texts {
    let generated = experiment(model, written).and_then(|exp| exp.generate(options));
    generated.unwrap_or_else(|e| panic!("{e}\n{written}"))
}

/// Whether an edit of these steps is made at decode step k, told once more.
fn is_made(steps: &str, k: usize) -> bool {
    match steps {
        "all" | "decode" => true,
        "prompt" => false,
        range => {
            let (start, end) = range.split_once("..").unwrap();
            (start.is_empty() || start.parse::<usize>().unwrap() <= k)
                && (end.is_empty() || k < end.parse::<usize>().unwrap())
        }
    }
}

/// The next token after a prompt and what it grew by, of one run without any step: every position that an edit is made at
/// is named.
fn whole(model: &Model, prompt: &[u32], grown: &[u32], edits: &Value) -> Distribution {
    let ids = [prompt, grown].concat();
    let mut named = Vec::new();
    for edit in edits.as_array().unwrap() {
        let mut plain = edit.clone();
        let steps = plain.as_object_mut().unwrap().remove("steps");
        let steps = steps.map_or("all".to_owned(), |steps| steps.as_str().unwrap().to_owned());
        let is_matrix = edit["site"] == "attention_score" || edit["site"] == "attention_weight";
        let mut passes: Vec<Vec<usize>> = Vec::new();
        if matches!(steps.as_str(), "all" | "prompt") {
            passes.push(match &edit["positions"] {
                Value::String(last) if last == "last" => vec![prompt.len() - 1],
                Value::Null => (0..prompt.len()).collect(),
                other => vec![usize::try_from(other.as_u64().unwrap()).unwrap()],
            });
        }
        let grows = !edit["positions"].is_u64();
        let later = (0..grown.len()).filter(|k| grows && is_made(&steps, *k));
        passes.extend(later.map(|k| vec![prompt.len() + k]));
        for positions in passes {
            let mut one = plain.clone();
            // A pass sees the keys there are then.
            if is_matrix && one["dims"].is_null() {
                let columns = if positions[0] < prompt.len() { prompt.len() } else { positions[0] + 1 };
                one["dims"] = json!(format!("0..{columns}"));
            }
            one["positions"] = json!(positions);
            named.push(one);
        }
    }
    let exp = experiment(model, &written(&ids, &json!(named))).unwrap();
    let base = exp.find_run("base", "test").unwrap();
    exp.execute_with(&Runtime::reference()).unwrap().counterfactual(base).distribution.clone()
}

/// That every token is the likeliest of the pass before it, and as likely as that says, within 1e-4: both are sums in f32
/// of some thousand numbers about 1, in another order.
fn check(model: &Model, prompt: &[u32], text: &Continuation, edits: &Value) {
    for (k, id) in text.ids.iter().enumerate() {
        let expected = whole(model, prompt, &text.ids[..k], edits);
        assert_eq!(expected.top_ids(1), [*id], "token {k} of {:?}: {edits}", text.ids);
        let (a, b) = (text.logprobs[k], expected.logprob(*id));
        assert!((a - b).abs() <= 1e-4, "token {k}: {a} and {b}, {edits}");
    }
}

/// Edits of every kind of place, value and step.
fn kinds_of_edits(model: &Model) -> Vec<Value> {
    let width = model.config().width;
    let vector: Vec<f64> = (0..width).map(|i| 2.0 * (i as f64 * 1.7).sin()).collect();
    let add = |steps: &str| json!({"site": "block_output", "layers": 0, "op": "add", "value": {"values": vector}, "steps": steps});
    let value = json!({"run": "source", "positions": "last"});
    let mut kinds: Vec<Vec<Value>> =
        ["all", "prompt", "decode", "1..3", "2..", "..2"].iter().map(|s| vec![add(s)]).collect();
    kinds.push(vec![
        json!({"site": "mlp_output", "layers": "all", "positions": "last", "op": "swap", "value": value}),
    ]);
    kinds.push(vec![json!({"site": "head_key_output", "layers": 1, "heads": 0, "op": "scale", "scale": -1.5, "steps": "decode"})]);
    kinds.push(vec![
        json!({"site": "value_output", "layers": [0, 1], "op": "swap", "value": value, "steps": "1.."}),
    ]);
    kinds.push(vec![
        json!({"site": "attention_weight", "layers": 1, "heads": 0, "dims": [0, 1], "op": "zero"}),
    ]);
    kinds.push(vec![
        json!({"site": "attention_score", "layers": 0, "op": "scale", "scale": 0.3, "steps": "decode"}),
    ]);
    kinds.push(vec![json!({"site": "embedding", "op": "noise", "level": 0.5, "seed": 3})]);
    kinds.push(vec![json!({"site": "mlp_output", "layers": 1, "op": "skip", "steps": "1..4"})]);
    kinds.push(vec![json!({"site": "head_attention_value_output", "layers": 1, "heads": [1], "positions": "last", "op": "zero"})]);
    kinds.push(vec![json!({"site": "final_norm", "op": "scale", "scale": -1.0, "steps": "2..3"})]);
    // Several of one tensor, in file order; and one of the prompt alone.
    kinds.push(vec![
        add("decode"),
        json!({"site": "block_output", "layers": 0, "op": "scale", "scale": -0.5, "steps": "1.."}),
        json!({"site": "query_output", "layers": 1, "positions": 0, "op": "zero"}),
    ]);
    let lacks = |edit: &Value| {
        let site = Site::all().find(|site| site.name() == edit["site"]).unwrap();
        model.config().lacks(site).is_some()
    };
    kinds.retain(|edits| !edits.iter().any(lacks));
    kinds.into_iter().map(Value::from).collect()
}

#[test]
fn cached_keys_give_what_whole_passes_give() {
    for name in all_models() {
        let model = model(&name);
        // Past the windows, and past the length at which some turn by other angles.
        let len = model.config().longest_original().map_or(5, |original| original - 2);
        let (prompt, options) = (prompt(len), options(6));
        for edits in kinds_of_edits(model) {
            let generated = texts(model, &written(&prompt, &edits), &options);
            let (original, edited) = (&generated.original[0], &generated.counterfactual[0]);
            assert_eq!((original.ids.len(), edited.ids.len()), (6, 6), "{name}");
            check(model, &prompt, edited, &edits);
            check(model, &prompt, original, &json!([]));
        }
    }
}

#[test]
fn an_edit_of_one_step_is_of_that_step_alone() {
    for name in MODELS {
        let model = model(name);
        let prompt = prompt(5);
        let plain = texts(model, &written(&prompt, &json!([])), &options(8)).original.remove(0);
        let other = (0..60).find(|id| !plain.ids.contains(id)).unwrap();
        for step in 0..6 {
            // At the logits it leaves no trace in keys and values: the passes before and after are the model's own.
            let mut values = vec![0.0; model.config().vocab];
            values[other as usize] = 1e4;
            let edits = json!([{"site": "logits", "op": "add", "value": {"values": values}, "steps": step}]);
            let text = texts(model, &written(&prompt, &edits), &options(8)).counterfactual.remove(0);
            assert_eq!(text.ids[..=step], plain.ids[..=step]);
            assert_eq!(
                text.logprobs[..=step],
                plain.logprobs[..=step],
                "no pass before step {step} is touched"
            );
            assert_eq!((text.ids[step + 1], text.logprobs[step + 1]), (other, 0.0));
            let after = texts(
                model,
                &written(&[&prompt, &text.ids[..step + 2]].concat(), &json!([])),
                &options(6 - step),
            );
            assert_eq!(text.ids[step + 2..], after.original[0].ids);
            for (a, b) in text.logprobs[step + 2..].iter().zip(&after.original[0].logprobs) {
                assert!((a - b).abs() < 1e-5, "a pass after step {step} is touched: {a} and {b}");
            }
        }
    }
}

/// Prompts of different lengths side by side, and many samples, give each what it gives alone.
#[test]
fn what_else_grows_changes_nothing() {
    let model = model("tiny-llama-tied");
    let folder = tempfile::tempdir().unwrap();
    let prompts: Vec<Vec<u32>> = vec![prompt(1), prompt(9), prompt(4), vec![7, 7, 7]];
    let lines: String = prompts.iter().map(|ids| format!("{}\n", json!({"base": ids}))).collect();
    std::fs::write(folder.path().join("set.jsonl"), lines).unwrap();
    let edits = json!([
        {"site": "mlp_output", "layers": 1, "op": "scale", "scale": 3.0, "steps": "1.."},
        {"site": "attention_weight", "layers": 0, "positions": "last", "dims": [0], "op": "zero"}
    ]);
    let mut file =
        ExperimentFile::from_json(&json!({"examples": "set.jsonl", "edit": edits}).to_string()).unwrap();
    file.folder = folder.path().into();
    let drawn = Generation { temperature: Some(1.3), top_p: Some(0.9), seed: 5, samples: 3, ..options(6) };
    for options in [options(6), drawn] {
        let all = file.experiment(model).unwrap().generate(&options).unwrap();
        for (versions, of_original) in [(&all.original, true), (&all.counterfactual, false)] {
            assert_eq!(versions.len(), prompts.len() * options.samples);
            for text in versions {
                let example = text.example.unwrap();
                let one = file.experiment(model).unwrap();
                let alone = one.by_example().nth(example).unwrap().unwrap().generate(&options).unwrap();
                let alone = if of_original { alone.original } else { alone.counterfactual };
                let alone = &alone[text.sample];
                assert_eq!(alone.ids, text.ids);
                for (a, b) in alone.logprobs.iter().zip(&text.logprobs) {
                    assert!((a - b).abs() < 1e-5, "{a} and {b}");
                }
            }
        }
    }
}

/// At each scale of a sweep the texts are those of the scale written into the edit, whatever else is generated.
#[test]
fn scales_give_what_each_gives_alone() {
    let model = model("tiny-llama-tied");
    let folder = tempfile::tempdir().unwrap();
    let lines: String =
        [5, 3].map(|len| format!("{}\n", json!({"base": prompt(len), "source": SOURCE}))).concat();
    std::fs::write(folder.path().join("set.jsonl"), lines).unwrap();
    let file = |scale: f64, sweep: Value| {
        let edits = json!([
            {"site": "block_output", "layers": 1, "op": "add", "scale": scale, "steps": "1..",
                "value": {"run": "source", "positions": -1}},
            {"site": "mlp_output", "layers": 0, "op": "scale", "scale": 1.5, "steps": "prompt"}
        ]);
        let mut written = json!({"examples": "set.jsonl", "edit": edits, "read": {"run": "base"}});
        if !sweep.is_null() {
            written["sweep"] = sweep;
        }
        let mut file = ExperimentFile::from_json(&written.to_string()).unwrap();
        file.folder = folder.path().into();
        file.experiment(model).unwrap()
    };
    let scales = [0.5, -3.0, 8.0];
    let drawn = Generation { temperature: Some(1.5), samples: 2, seed: 3, ..options(5) };
    for options in [options(5), drawn] {
        let swept = file(1.0, json!({"scales": scales}));
        let all = swept.generate(&options).unwrap();
        assert_eq!(all.original.len(), 2 * 3 * options.samples);
        let mut at = all.original.iter().zip(&all.counterfactual);
        let alone = scales.map(|scale| file(scale, Value::Null).generate(&options).unwrap());
        let beside =
            |exp: &Experiment<'_>, text: &Continuation| exp.score(text, &Runtime::default()).unwrap();
        for example in 0..2 {
            for (scale, alone) in scales.iter().zip(&alone) {
                for sample in 0..options.samples {
                    let (original, edited) = at.next().unwrap();
                    for (text, theirs) in [(original, &alone.original), (edited, &alone.counterfactual)] {
                        assert_eq!((text.scale, text.sample), (Some(*scale), sample));
                        let theirs = &theirs[example * options.samples + sample];
                        assert_eq!((text.example, &text.ids), (Some(example), &theirs.ids));
                        let single = file(*scale, Value::Null);
                        for (a, b) in beside(&swept, text).iter().zip(&beside(&single, theirs)) {
                            assert!(
                                (a.kl - b.kl).abs() < 1e-5
                                    && (a.counterfactual - b.counterfactual).abs() < 1e-5
                            );
                        }
                    }
                }
            }
        }
        assert_ne!(all.counterfactual[0].logprobs, all.counterfactual[2 * options.samples].logprobs);
    }
}

/// The first token of many samples against its probabilities: χ² below its 99.9 % point (about k + 3.1·√(2k) + 6).
#[test]
fn samples_have_the_models_probabilities() {
    let model = model("tiny-gpt2");
    let edits = json!([{"site": "mlp_output", "layers": 0, "op": "scale", "scale": 2.0}]);
    let written = written(&prompt(4), &edits);
    let draws = 4000;
    let options = Generation { temperature: Some(0.7), samples: draws, seed: 11, ..options(1) };
    let drawn = texts(model, &written, &options).counterfactual;
    let logits = whole(model, &prompt(4), &[], &edits);
    let weights: Vec<f64> = logits.logits().iter().map(|x| (f64::from(*x) / 0.7).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut counts = vec![0u32; weights.len()];
    drawn.iter().for_each(|text| counts[text.ids[0] as usize] += 1);
    let (mut squares, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    for (count, weight) in counts.iter().zip(&weights) {
        let mean = weight / total * draws as f64;
        if mean < 5.0 {
            rest = (rest.0 + f64::from(*count), rest.1 + mean);
        } else {
            squares += (f64::from(*count) - mean).powi(2) / mean;
            cells += 1.0;
        }
    }
    squares += (rest.0 - rest.1).powi(2) / rest.1.max(1.0);
    assert!(cells > 5.0, "too few likely tokens: {cells}");
    assert!(squares < cells + 3.1 * (2.0f64 * cells).sqrt() + 6.0, "χ² = {squares} of {cells}");
    let other = texts(model, &written, &Generation { seed: 12, ..options.clone() }).counterfactual;
    assert!(drawn.iter().zip(&other).any(|(a, b)| a.ids != b.ids), "another seed draws others");
    assert_eq!(drawn, texts(model, &written, &options).counterfactual);
}

#[test]
fn both_versions_say_what_they_make_of_a_text() {
    let model = model("tiny-llama");
    let prompt = prompt(4);
    let edits = json!([{"site": "block_output", "layers": 1, "op": "scale", "scale": -1.0, "steps": "1.."}]);
    let exp = experiment(model, &written(&prompt, &edits)).unwrap();
    let generated = exp.generate(&options(5)).unwrap();
    let (original, edited) = (&generated.original[0], &generated.counterfactual[0]);
    for (text, is_edited) in [(original, false), (edited, true)] {
        let beside = exp.score(text, &Runtime::default()).unwrap();
        for (k, row) in beside.iter().enumerate() {
            let (own, other) = match is_edited {
                true => (row.counterfactual, row.original),
                false => (row.original, row.counterfactual),
            };
            assert!((own.ln() - text.logprobs[k]).abs() < 1e-5);
            let (plain, steered) = (
                whole(model, &prompt, &text.ids[..k], &json!([])),
                whole(model, &prompt, &text.ids[..k], &edits),
            );
            let expected = if is_edited { plain.prob(row.id) } else { steered.prob(row.id) };
            assert!((other - expected).abs() < 1e-5);
            assert!((row.kl - steered.kl(&plain)).abs() < 1e-5);
            // The edit begins with the pass that takes in token 1, which predicts token 2.
            assert_eq!(row.kl.abs() < 1e-9, k < 2, "token {k}: {row:?}");
        }
    }
}

#[test]
fn an_edit_ends_with_its_tokens() {
    let model = model("tiny-gpt2");
    let prompt = prompt(4);
    let add = json!({"site": "block_output", "layers": 0, "op": "scale", "scale": -2.0});
    let always = texts(model, &written(&prompt, &json!([add])), &options(6)).counterfactual.remove(0);
    let last = always.ids[2];
    let first = always.ids.iter().position(|id| *id == last).unwrap();
    let with_key = |key: &str, value: Value| {
        let mut edit = add.clone();
        edit[key] = value;
        let (prompt_only, rest) = (with(&edit, "prompt"), with(&edit, &format!("..{first}")));
        (json!([edit]), json!([prompt_only, rest]))
    };
    let (until, _) = with_key("until", json!([last]));
    let (_, ranges) = with_key("name", Value::Null);
    let ended = texts(model, &written(&prompt, &until), &options(6)).counterfactual.remove(0);
    let expected = texts(model, &written(&prompt, &ranges), &options(6)).counterfactual.remove(0);
    assert_eq!((&ended.ids, &ended.logprobs), (&expected.ids, &expected.logprobs));
    assert_ne!(ended.logprobs, always.logprobs);
}

fn with(edit: &Value, steps: &str) -> Value {
    let mut edit = edit.clone();
    edit["steps"] = json!(steps);
    edit
}

#[test]
fn texts_end_for_a_reason_that_is_told() {
    let model = model("tiny-llama-tied");
    let written = json!({"runs": {"base": {"prompt": "The capital"}}});
    let plain = texts(model, &written, &options(12)).original.remove(0);
    assert_eq!((plain.end, plain.ids.len()), (End::MaxTokens, 12));
    assert!(plain.text.chars().count() > 4, "{:?}", plain.text);
    // At the first place where it comes, wherever tokens end.
    let stop: String = plain.text.chars().skip(2).take(2).collect();
    let stopping = Generation { stop: vec!["never said".into(), stop.clone()], ..options(12) };
    let mut heard = Vec::new();
    let exp = experiment(model, &written).unwrap();
    let stopped = exp.generate_with(&stopping, &Runtime::default(), &mut |grown| {
        heard.push(grown.text.to_owned());
        ControlFlow::Continue(())
    });
    let stopped = stopped.unwrap().original.remove(0);
    assert_eq!(
        (stopped.end, &stopped.text),
        (End::Stop, &plain.text[..plain.text.find(&stop).unwrap()].to_owned())
    );
    assert!(
        heard.iter().all(|text| stopped.text.starts_with(text.as_str())),
        "nothing said is taken back: {heard:?}"
    );
    assert_eq!(heard.last(), Some(&stopped.text));
    // The context.
    let context = model.config().context;
    let long = json!({"runs": {"base": {"ids": prompt(context - 2)}}});
    let full = texts(model, &long, &options(50)).original.remove(0);
    assert_eq!((full.end, full.ids.len()), (End::Context, 3));
    // Numbers without a softmax: the text before them stays, and those of other prompts.
    let mut overflowing = written.clone();
    overflowing["edit"] = json!([{"site": "final_norm", "op": "scale", "scale": 1e38, "steps": 1},
                                 {"site": "final_norm", "op": "scale", "scale": 1e38, "steps": 1}]);
    let over = texts(model, &overflowing, &options(12));
    assert_eq!((over.counterfactual[0].end, over.counterfactual[0].ids.len()), (End::NotFinite, 2));
    assert_eq!(over.original[0], plain);
    // The listener.
    let mut count = 0;
    let cut = exp.generate_with(&options(12), &Runtime::default(), &mut |_| {
        count += 1;
        if count == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cut = cut.unwrap().original.remove(0);
    assert_eq!((cut.end, cut.ids), (End::Interrupted, plain.ids[..4].to_vec()));
    // The end-of-text token.
    if let Some(eos) = model.tokenizer().unwrap().eos() {
        let mut values = vec![0.0; model.config().vocab];
        values[eos as usize] = 1e4;
        let mut ending = written.clone();
        ending["edit"] = json!([{"site": "logits", "op": "add", "value": {"values": values}, "steps": 1}]);
        let ended = texts(model, &ending, &Generation { eos: true, ..options(12) });
        let (original, ended) = (&ended.original[0], &ended.counterfactual[0]);
        assert_eq!((ended.end, ended.ids.len(), ended.ids[2]), (End::Eos, 3, eos));
        assert!(original.text.starts_with(&ended.text), "the token is no part of the text");
        let on = texts(model, &ending, &options(12)).counterfactual.remove(0);
        assert_eq!((on.end, on.ids.len()), (End::MaxTokens, 12));
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let model = model("tiny-llama-tied");
    let runs = json!({"base": {"ids": [1, 2, 3]}, "italy": {"ids": [4, 5]}});
    let edit = |more: Value| {
        let mut edit = json!({"site": "block_output", "layers": 0, "op": "zero"});
        more.as_object().unwrap().iter().for_each(|(key, value)| edit[key] = value.clone());
        json!({"runs": runs, "edit": [edit]})
    };
    let value = |value: Value| json!({"op": "swap", "value": value});
    let swept = |sweep: Value| {
        let edits = edit(json!({"op": "scale", "scale": 2.0}))["edit"].clone();
        json!({"runs": runs, "edit": edits, "sweep": sweep})
    };
    let per_position = vec![vec![0.5; model.config().width]; 3];
    let cases: Vec<(Value, Generation, &[&str])> = vec![
        (edit(json!({"run": "italy", "steps": "decode"})), options(2), &["edit 0", "does not grow"]),
        (edit(json!({"run": "italy"})), options(2), &["edit 0", "neither read"]),
        (
            edit(json!({"positions": 1, "steps": "decode"})),
            options(2),
            &["edit 0", "the prompt's", "\"last\""],
        ),
        (edit(json!({"positions": 7})), options(2), &["edit 0", "position 7", "0 to 2"]),
        (edit(json!({"positions": [1], "until": [4]})), options(2), &["edit 0", "until", "decode"]),
        (edit(json!({"until": [999_999]})), options(2), &["edit 0", "999999"]),
        (
            edit(value(json!({"run": "italy", "positions": "all"}))),
            options(2),
            &["edit 0", "\"base\" has 3 tokens", "\"italy\" has 2"],
        ),
        (
            edit(json!({"op": "swap", "value": {"run": "italy", "positions": "all"}, "steps": "decode"})),
            options(2),
            &["do not say which positions pair", "\"italy\" has 2"],
        ),
        (
            edit(json!({"op": "swap", "value": {"run": "italy", "positions": [0, 1]}, "positions": "1.."})),
            options(2),
            &["2 positions", "one position", "steps = \"prompt\""],
        ),
        (edit(value(json!({"values": per_position}))), options(2), &["edit 0 at decode steps", "3"]),
        (edit(json!({"op": "collect"})), options(2), &["edit 0", "collect"]),
        (edit(json!({"steps": "3..2"})), options(2), &["3..2"]),
        (edit(json!({"steps": -1})), options(2), &["count from 0"]),
        (swept(json!({})), options(2), &["sweep", "no scales"]),
        (swept(json!({"scales": [1], "layers": "each"})), options(2), &["sweep", "layers", "one axis"]),
        (swept(json!({"scales": [1], "positions": "each"})), options(2), &["sweep", "positions"]),
        (swept(json!({"scales": [1], "sites": ["mlp_output"]})), options(2), &["sweep", "sites"]),
        (swept(json!({"scales": [1], "metrics": ["kl"]})), options(2), &["sweep", "metrics"]),
        (swept(json!({"scales": [1, 1]})), options(2), &["sweep", "twice"]),
        (swept(json!({"scales": [1e300]})), options(2), &["sweep", "finite"]),
        (
            json!({"runs": runs, "edit": edit(json!({}))["edit"], "sweep": {"scales": [1]}}),
            options(2),
            &["sweep", "op with a scale"],
        ),
        (edit(json!({})), options(0), &["`max_tokens` must be from 1"]),
        (edit(json!({})), Generation { stop: vec![String::new()], ..options(2) }, &["stop", "empty"]),
        (edit(json!({})), Generation { temperature: Some(-1.0), ..options(2) }, &["temperature = -1"]),
    ];
    for (written, options, words) in cases {
        let said = experiment(model, &written).and_then(|exp| exp.generate(&options));
        let said = said.err().unwrap_or_else(|| panic!("is not refused: {written}"));
        assert!(said.is_bad_input());
        let said = format!("{said} {}", said.hint().unwrap_or_default());
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
    }
    // Nothing else grows a run.
    let exp = experiment(model, &edit(json!({"steps": "decode"}))).unwrap();
    for said in [exp.execute().err(), exp.plan_single().err()] {
        let said = said.unwrap();
        assert!(format!("{said} {}", said.hint().unwrap()).contains("use `generate`"), "{said}");
    }
}
