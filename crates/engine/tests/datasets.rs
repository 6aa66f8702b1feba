//! Data sets: every example is the experiment alone with its prompt; what does not fit is told by its
//! line and costs the others nothing; means and standard errors against sums in f64.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::cone::Work;
use causalcone_engine::plan::{Cell, Plan};
use causalcone_engine::{
    Each, Error, Example, Executor, Experiment, Explanation, LayerAxis, MeanToken, Op, PreparedSweep,
    Reference, Refused, Runtime, Sink, Source, Sweep, SweepResult, dataset,
};
use causalcone_model::{Config, Model, Positions, Site};
use common::*;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A data set on disk.
struct Set {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Set {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, content).unwrap();
        Self { _folder: folder, path }
    }

    fn of(lines: &[Value]) -> Self {
        Self::new(lines.iter().map(|line| format!("{line}\n")).collect::<String>())
    }

    /// An experiment file on this data set.
    fn file(&self, rest: &Value) -> Value {
        with(&json!({"examples": self.path}), rest)
    }
}

fn swept(experiment: &Experiment<'_>) -> SweepResult {
    PreparedSweep::new(experiment).unwrap().run(&Runtime::reference()).unwrap()
}

fn sifted<'m>(model: &'m Model, written: &Value) -> (Experiment<'m>, Vec<Refused>) {
    let mut experiment = experiment(model, written).unwrap_or_else(|e| panic!("{e}\n{written}"));
    let refused = experiment.sift().unwrap_or_else(|e| panic!("{e}\n{written}"));
    (experiment, refused)
}

/// Why the only example, or all of them, are refused.
fn refusal(model: &Model, written: &Value) -> String {
    match experiment(model, written).and_then(|mut experiment| experiment.sift()) {
        Err(e) => format!("{e} {}", e.hint().unwrap_or_default()),
        Ok(refused) => panic!("{refused:?} only: {written}"),
    }
}

/// Three examples of different lengths, with the same experiment written out for each.
fn ragged() -> Vec<(Value, Value)> {
    let edit = |positions: Value, from: Value| {
        json!([{"run": "base", "site": "block_output", "layers": [0, 1], "positions": positions, "op": "swap",
                "value": {"run": "other", "positions": from}}])
    };
    let example = |base: Value, other: Value, positions: (Value, Value), tokens: Value| {
        let line = json!({"base": base, "other": other, "tokens": tokens,
                          "positions": {"subject": positions.0, "source": positions.1}, "label": {"any": [1]}});
        let alone = json!({"runs": {"base": {"ids": base}, "other": {"ids": other}}, "read": {"tokens": tokens},
                           "edit": edit(positions.0, positions.1)});
        (line, alone)
    };
    vec![
        example(
            json!([49, 28, 31, 17, 5]),
            json!([3, 14, 15]),
            (json!([1, 2]), json!([0, 2])),
            json!([7, 9]),
        ),
        example(json!([2, 7]), json!([9, 26, 5, 3, 14, 15, 9]), (json!(-1), json!(-2)), json!([1, 2])),
        example(
            json!([8, 1, 8, 2, 8, 4, 5, 9]),
            json!([6, 6, 6]),
            (json!([7, 0, 3]), json!([1])),
            json!([9, 7]),
        ),
    ]
}

fn ragged_file(set: &Set) -> Value {
    set.file(&json!({
        "edit": [{"run": "base", "site": "block_output", "layers": [0, 1], "positions": {"name": "subject"},
                  "op": "swap", "value": {"run": "other", "positions": {"name": "source"}}}],
        "sweep": {"layers": "each", "positions": "each", "metrics": ["prob", "logit_diff", "kl"]},
    }))
}

#[test]
fn every_example_is_the_experiment_alone() {
    let examples = ragged();
    let set = Set::of(&examples.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>());
    for name in MODELS {
        let model = model(name);
        let (experiment, refused) = sifted(model, &ragged_file(&set));
        assert!(refused.is_empty(), "{refused:?}");
        let plan = experiment.plan().unwrap();
        assert_eq!(plan.baselines.len(), 3);
        let together = swept(&experiment);
        let mut cell = 0;
        for (number, (_, alone)) in examples.iter().enumerate() {
            let alone = with(alone, &json!({"sweep": ragged_file(&set)["sweep"]}));
            let alone = swept(&common::experiment(model, &alone).unwrap());
            assert_eq!(together.base[number], alone.base[0], "{name}: example {number}");
            for (at, values) in alone.cells.iter().zip(&alone.values) {
                let found = &together.cells[cell];
                assert_eq!((found.example, at.example), (Some(number), None));
                assert_eq!((found.layer, found.position), (at.layer, at.position));
                assert_eq!(together.baseline_of[cell], number);
                // The same executor on the same run: the same bits.
                assert_eq!(&together.values[cell], values, "{name}: example {number}, {at:?}");
                cell += 1;
            }
        }
        assert_eq!((cell, together.cells.len()), (2 * (2 + 1 + 3), 12));
        let tokens: Vec<Option<u32>> = together.rows().take(2).map(|row| row.token).collect();
        assert_eq!(tokens, [Some(7), Some(9)]);
        assert_eq!(together.rows().last().unwrap().at.example, Some(2));
        let explained = Explanation::new(&experiment, &Runtime::reference()).unwrap();
        assert_eq!((explained.cells, explained.runs.len()), (12, 6));
    }
}

#[test]
fn examples_of_different_lengths_need_an_align() {
    let set = Set::of(&[
        json!({"base": [4, 5, 6], "other": [7, 8, 9]}),
        json!({"base": [4, 5, 6], "other": [4, 9, 5, 6]}),
        json!({"base": [1, 2], "other": [3, 4, 5]}),
    ]);
    let file = |align: Value| {
        let value = with(&json!({"run": "other"}), &align);
        set.file(&json!({"edit": [{"run": "base", "site": "block_output", "layers": 0, "op": "swap", "value": value}],
            "read": {"run": "base", "tokens": [7]}, "sweep": {"positions": "each"}}))
    };
    let model = model("tiny-llama-tied");
    let (left, refused) = sifted(model, &file(json!({})));
    let numbers: Vec<usize> = refused.iter().map(|one| one.example).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(refused[0].problem.contains("\"other\" has 4\n"), "{}", refused[0].problem);
    assert_eq!(swept(&left).cells.len(), 3);
    // Positions without a partner are no cells; an example in which none has one does not fit.
    let (left, refused) = sifted(model, &file(json!({"align": "tokens"})));
    let numbers: Vec<usize> = refused.iter().map(|one| one.example).collect();
    assert_eq!(numbers, [0, 2]);
    assert!(refused[0].problem.contains("no token in common"), "{}", refused[0].problem);
    let cells: Vec<_> = swept(&left).cells.iter().map(|at| (at.example, at.position)).collect();
    assert_eq!(cells, [0, 1, 2].map(|position| (Some(1), Some(position))));
    let explained = Explanation::new(&left, &Runtime::reference()).unwrap();
    assert_eq!(explained.alignments[0].pairs, [(0, 0), (1, 2), (2, 3)]);
    let text = explained.to_string();
    let line = "edit 0, example 1: run base takes from run other at positions 0 from 0, 1..=2 from 2..=3";
    assert!(text.contains(line), "{text}");
}

#[test]
fn one_answer_for_each_example() {
    let examples = ragged();
    let set = Set::of(&examples.iter().map(|(line, _)| line.clone()).collect::<Vec<_>>());
    let model = model("tiny-llama");
    let (mut experiment, _) = sifted(model, &ragged_file(&set));
    experiment.set_sweep(None);
    assert_eq!(experiment.plan_single().unwrap().cells.len(), 3);
    assert!(experiment.execute().unwrap_err().to_string().contains("many outcomes"));
    for (one, (_, alone)) in experiment.by_example().zip(&examples) {
        let alone = common::experiment(model, alone).unwrap();
        let run = alone.find_run("base", "test").unwrap();
        let (one, alone) = (one.unwrap().execute().unwrap(), alone.execute().unwrap());
        for (ours, theirs) in
            [(one.original(run), alone.original(run)), (one.counterfactual(run), alone.counterfactual(run))]
        {
            assert_eq!(ours.distribution.logits(), theirs.distribution.logits());
        }
        assert_ne!(one.original(run).distribution.logits(), one.counterfactual(run).distribution.logits());
    }
}

#[test]
fn builder_and_file_make_the_same() {
    let model = model("tiny-gpt2");
    let lines: Vec<Value> = ragged().into_iter().map(|(line, _)| line).collect();
    let set = Set::of(&lines);
    let mut built = Experiment::new(model);
    let (base, other) = (built.open_run("base").unwrap(), built.open_run("other").unwrap());
    let source = Source { positions: Some(Positions::named("source")), ..Source::from(other) };
    let subject = Site::BlockOutput.layers([0, 1]).at(Positions::named("subject"));
    built.edit(base, subject, Op::swap(source)).unwrap();
    built.set_examples(lines.iter().map(|line| Example::from_json(&line.to_string()).unwrap()));
    let metrics =
        swept(&sifted(model, &ragged_file(&set)).0).columns.iter().map(|column| column.metric).collect();
    let mut sweep =
        Sweep { layers: Some(LayerAxis::Each), positions: Some(Each), metrics, ..Sweep::default() };
    sweep.metrics.dedup();
    built.set_sweep(sweep);
    let (ours, theirs) = (swept(&built), swept(&sifted(model, &ragged_file(&set)).0));
    assert_eq!((ours.cells, ours.values), (theirs.cells, theirs.values));
    let error = built.open_run("tokens").unwrap_err().to_string();
    assert!(error.contains("means something else"), "{error}");
}

#[test]
fn a_bad_line_is_told_and_costs_the_others_nothing() {
    let model = model("tiny-llama-tied");
    let good = json!({"base": [1, 2, 3], "other": [3, 2, 1, 4], "positions": {"subject": 1}, "tokens": [5]});
    let bad: Vec<(String, &[&str])> = vec![
        ("{\"base\": [1, 2".into(), &["EOF", "column"]),
        ("[1, 2]".into(), &["not a JSON object"]),
        ("null".into(), &["not a JSON object"]),
        (
            with(&good, &json!({"bsae": [1]})).to_string(),
            &["\"bsae\"", "runs are: base, other", "did you mean \"base\""],
        ),
        (
            with(&good, &json!({"position": {"subject": 1}})).to_string(),
            &["position: ", "did you mean \"positions\""],
        ),
        (
            with(&good, &json!({"base": null})).to_string(),
            &["run \"base\": has no prompt in this example", "other"],
        ),
        (with(&good, &json!({"base": 3})).to_string(), &["base: 3 is neither a text nor"]),
        (with(&good, &json!({"base": [1, -2]})).to_string(), &["base: [1,-2] is neither"]),
        (with(&good, &json!({"base": []})).to_string(), &["run \"base\"", "empty"]),
        (with(&good, &json!({"base": ""})).to_string(), &["run \"base\"", "empty"]),
        (with(&good, &json!({"base": [1, 2, 999_999]})).to_string(), &["run \"base\"", "999999"]),
        (with(&good, &json!({"base": vec![1; 5000]})).to_string(), &["run \"base\"", "5000 tokens"]),
        (
            with(&good, &json!({"positions": {"subject": 3}})).to_string(),
            &["edit \"patch\"", "position 3", "0 to 2"],
        ),
        (with(&good, &json!({"positions": {"subject": -4}})).to_string(), &["edit \"patch\"", "position -4"]),
        (with(&good, &json!({"positions": {"subject": []}})).to_string(), &["edit \"patch\"", "empty"]),
        (
            with(&good, &json!({"positions": {"sbject": 1}})).to_string(),
            &[
                "edit \"patch\"",
                "\"subject\" is not in this example, which names sbject",
                "did you mean \"sbject\"",
            ],
        ),
        (
            with(&good, &json!({"positions": null})).to_string(),
            &["\"subject\" is not in this example, which names no"],
        ),
        (with(&good, &json!({"positions": [1]})).to_string(), &["positions: [1] is not a table of names"]),
        (
            with(&good, &json!({"positions": {"subject": "last"}})).to_string(),
            &["positions.subject: ", "\"last\""],
        ),
        (
            with(&good, &json!({"positions": {"subject": [1, "a"]}})).to_string(),
            &["positions.subject[1]: [1,\"a\"]: invalid type: string \"a\", expected i64"],
        ),
        (
            with(&good, &json!({"tokens": [5, []]})).to_string(),
            &["tokens[1]: [5,[]] is not a list of texts or token ids"],
        ),
        (with(&good, &json!({"tokens": [5, 6]})).to_string(), &["tokens: has 2", "before it have 1"]),
        (with(&good, &json!({"tokens": null})).to_string(), &["tokens: has 0"]),
        (with(&good, &json!({"tokens": ["no such token"]})).to_string(), &["tokens", "not one"]),
        (with(&good, &json!({"tokens": 5})).to_string(), &["tokens: 5 is not a list"]),
        ("{\"base\": [1], \"base\": [2]}".into(), &["duplicate key \"base\""]),
        (format!("{{\"label\": {}{}}}", "[".repeat(1000), "]".repeat(1000)), &["recursion limit"]),
        (format!("{{\"base\": [{}1]}}", "1,".repeat(70_000)), &["more than 65536 values"]),
        (format!("{{\"base\": \"{}\"}}", "x".repeat(2 << 20)), &["1048576", "bytes"]),
    ];
    let mut text = format!("\u{feff}{good}\r\n\n   \r\n").into_bytes();
    for (line, _) in &bad {
        text.extend(format!("{line}\r\n").bytes());
    }
    text.extend(b"{\"base\": \"\xff\"}\n");
    text.extend(with(&good, &json!({"base": [4, 5]})).to_string().bytes());
    let set = Set::new(text);
    let rest = json!({
        "edit": [{"name": "patch", "site": "mlp_output", "layers": 0, "positions": {"name": "subject"}, "op": "swap",
                  "value": {"run": "other"}}],
        "sweep": {},
    });
    let strict = experiment(model, &set.file(&rest)).unwrap().plan().unwrap_err().to_string();
    assert!(strict.contains("set.jsonl line 4: "), "{strict}");
    let (experiment, refused) = sifted(model, &set.file(&rest));
    assert_eq!(refused.len(), bad.len() + 1);
    for (index, (refused, (line, words))) in refused.iter().zip(&bad).enumerate() {
        assert_eq!((refused.example, refused.line), (index + 1, Some(index + 4)));
        let said = format!("{refused} {}", refused.hint.clone().unwrap_or_default());
        assert!(said.contains(&format!("set.jsonl line {}: ", index + 4)), "{said}");
        for word in *words {
            assert!(said.contains(word), "no {word:?} in: {said}\n{}", &line[..line.len().min(200)]);
        }
        assert!(said.len() < 1000, "{said}");
    }
    assert!(refused.last().unwrap().problem.contains("UTF-8"));
    // The good ones keep their numbers.
    let result = swept(&experiment);
    assert_eq!(result.cells.iter().map(|at| at.example).collect::<Vec<_>>(), [Some(0), Some(bad.len() + 2)]);
    let alone = Set::of(&[good.clone(), with(&good, &json!({"base": [4, 5]}))]);
    assert_eq!(result.values, swept(&common::experiment(model, &alone.file(&rest)).unwrap()).values);
}

#[test]
fn a_mistake_of_the_experiment_is_told_once() {
    let model = model("tiny-llama");
    let line = json!({"base": [1, 2, 3]});
    let set = Set::of(&[line.clone(), line.clone(), line.clone()]);
    let edit = json!({"site": "mlp_output", "layers": 0, "op": "zero"});
    let cases: [(Value, &[&str]); 6] = [
        (json!({"edit": [with(&edit, &json!({"layers": 9}))]}), &["edit 0", "layer 9", "0 to 2"]),
        (json!({"edit": [edit], "sweep": {}}), &["metric \"prob\" needs"]),
        (
            json!({"edit": [edit], "read": {"tokens": [1]}, "sweep": {"samples": 2}}),
            &["samples are of noise"],
        ),
        (json!({"edit": [with(&edit, &json!({"op": "swap", "value": {"run": "itly"}}))]}), &["\"itly\""]),
        (
            json!({"edit": [with(&edit, &json!({"positions": {"name": "x"}}))]}),
            &["\"x\" is not in this example"],
        ),
        (json!({"runs": {"base": {"ids": [1]}}, "edit": [edit]}), &["prompt of its own"]),
    ];
    for (rest, words) in cases {
        let said = refusal(model, &set.file(&rest));
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
        assert!(!said.contains("line 1"), "{said}");
    }
    // Different reasons are told each.
    let set = Set::of(&[json!({"base": []}), json!({"base": [1000]})]);
    let said = refusal(model, &set.file(&json!({"edit": [edit]})));
    assert!(said.contains("line 1: ") && said.contains("line 2: ") && said.contains("no example"), "{said}");
    // A name needs a data set; so does a run without a prompt.
    let named = with(&edit, &json!({"positions": {"name": "x"}}));
    let said = experiment(model, &json!({"runs": {"base": {"ids": [1]}}, "edit": [named]})).unwrap();
    assert!(said.plan_single().unwrap_err().to_string().contains("add examples"));
    let said = experiment(model, &json!({"runs": {"base": {}}})).unwrap_err().to_string();
    assert!(said.contains("needs one of prompt, ids and messages"), "{said}");
}

#[test]
fn runs_are_those_declared_or_named() {
    let model = model("tiny-llama-tied");
    let set = Set::of(&[json!({"base": "The capital of Spain is", "italy": "Rome"})]);
    let swap = json!({"site": "mlp_output", "layers": 0, "positions": "last", "op": "swap", "value": {"run": "italy"}});
    for rest in [
        json!({"edit": [swap]}),
        json!({"runs": {"base": {}, "italy": {}}, "edit": [swap]}),
        json!({"runs": {"italy": {}}, "edit": [swap]}),
        json!({"runs": {"base": {"bos": false}}, "edit": [with(&swap, &json!({"run": "base"}))]}),
    ] {
        let (experiment, refused) = sifted(model, &set.file(&rest));
        assert!(refused.is_empty(), "{rest}: {refused:?}");
        let names: Vec<_> =
            experiment.plan_single().unwrap().runs.iter().map(|run| run.name.to_string()).collect();
        assert_eq!(names, ["base", "italy", "base"], "{rest}");
    }
    // A prompt of the file is shared by all.
    let set = Set::of(&[json!({"base": "The capital of Spain is"}), json!({"base": "Rome"})]);
    let (experiment, _) =
        sifted(model, &set.file(&json!({"runs": {"italy": {"prompt": "Rome"}}, "edit": [swap]})));
    assert_eq!(experiment.plan_single().unwrap().cells.len(), 2);
    // A run that nothing names is a mistake of the example; a start-of-text token is not for ids.
    let set = Set::of(&[json!({"base": "Rome", "italy": "Rome"})]);
    let zero = json!({"edit": [{"site": "mlp_output", "layers": 0, "op": "zero"}]});
    assert!(refusal(model, &set.file(&zero)).contains("key \"italy\""));
    let set = Set::of(&[json!({"base": [1, 2]})]);
    let bos = with(&zero, &json!({"runs": {"base": {"bos": false}}}));
    assert!(refusal(model, &set.file(&bos)).contains("bos is for prompts"));
}

#[test]
fn hostile_files_are_refused() {
    let model = model("tiny-llama");
    let written = |set: &Set| set.file(&json!({"edit": [{"site": "mlp_output", "layers": 0, "op": "zero"}]}));
    let many = "{\"base\":[1]}\n".repeat(65_537);
    let large = vec![b' '; (16 << 20) + 1];
    for (content, words) in [
        (&b""[..], "holds no example"),
        (b"\xef\xbb\xbf\r\n \n\t\n", "holds no example"),
        (many.as_bytes(), "65536"),
        (&large, "16777216"),
    ] {
        let set = Set::new(content);
        let error = experiment(model, &written(&set)).unwrap_err();
        assert!(error.to_string().contains(words) && error.is_bad_input(), "{error}");
    }
    let missing = json!({"examples": "no/such.jsonl"});
    assert!(experiment(model, &missing).unwrap_err().to_string().contains("such.jsonl"));
    // As many as may be, and one edit: none is lost.
    let set = Set::new(&many[..many.len() / 65_537 * 3000]);
    assert_eq!(sifted(model, &written(&set)).0.example_count(), Some(3000));
    // Examples times edits are bounded before anything is made of them.
    let edits = vec![json!({"site": "mlp_output", "layers": 0, "op": "zero"}); 4000];
    let error =
        experiment(model, &set.file(&json!({"edit": edits}))).unwrap().sift().unwrap_err().to_string();
    assert!(error.contains("4194304"), "{error}");
}

#[test]
fn a_data_set_has_its_lines_in_order() {
    let set = Set::new("{\"base\": \"a\"}\n\n{\"base\"\n{\"base\": [1, 2], \"tokens\": [\" x\", 3]}");
    let examples = dataset::load(&set.path).unwrap();
    assert_eq!(examples.len(), 3);
    assert_eq!(examples[0].as_ref().unwrap().number(), 0);
    let refused = examples[1].as_ref().unwrap_err();
    assert_eq!((refused.example, refused.line), (1, Some(3)));
    let expected = Example::new().prompt("base", vec![1, 2]).token(" x").token(3);
    let last = examples[2].as_ref().unwrap();
    assert_eq!((last.number(), &last.prompts, &last.tokens), (2, &expected.prompts, &expected.tokens));
}

#[test]
fn means_and_standard_errors_are_those_of_the_rows() {
    let lines: Vec<Value> = ragged().into_iter().map(|(line, _)| line).collect();
    let set = Set::of(&lines);
    for name in MODELS {
        let result = swept(&sifted(model(name), &ragged_file(&set)).0);
        let means = result.means();
        // Two layers, the longest list has three positions; two tokens, logit_diff and kl.
        assert_eq!(means.len(), 2 * 3 * 4);
        for (i, mean) in means.iter().enumerate() {
            let (layer, place, column) = (i / 12, i / 4 % 3, i % 4);
            let (mut values, mut bases) = (Vec::new(), Vec::new());
            for (cell, at) in result.cells.iter().enumerate() {
                if at.point.layers == layer && at.point.position == place {
                    values.push(result.values[cell][column].unwrap());
                    bases.push(result.base[result.baseline_of[cell]][column].unwrap());
                }
            }
            let n = values.len();
            assert_eq!((mean.n, n), (n, [3, 2, 1][place]));
            let average = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
            let m = average(&values);
            assert!((mean.mean.unwrap() - m).abs() < 1e-12);
            assert!((mean.base.unwrap() - average(&bases)).abs() < 1e-12);
            let variance = values.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / (n as f64 - 1.0);
            match mean.standard_error {
                Some(error) => assert!((error - variance.sqrt() / (n as f64).sqrt()).abs() < 1e-12 && n > 1),
                None => assert_eq!(n, 1),
            }
            assert_eq!((mean.at.layer, mean.at.site), (Some(layer), Some(Site::BlockOutput)));
            // The third place is listed by one example alone; else what stands there differs.
            assert_eq!(mean.at.position, (place == 2).then_some(3));
            let token = match (column, place) {
                (0 | 1, 0 | 1) => Some(MeanToken::Numbered(column)),
                (0 | 1, _) => Some(MeanToken::Same([9, 7][column])),
                _ => None,
            };
            assert_eq!(mean.token, token);
        }
    }
}

#[test]
fn examples_share_nothing_that_would_change_their_numbers() {
    // The same example among others, in another place, alone: the same numbers.
    let lines: Vec<Value> = ragged().into_iter().map(|(line, _)| line).collect();
    let model = model("tiny-gpt2");
    let numbers = |lines: &[Value], number: usize| {
        let result = swept(&sifted(model, &ragged_file(&Set::of(lines))).0);
        let of = result.cells.iter().zip(&result.values).filter(|(at, _)| at.example == Some(number));
        of.map(|(_, values)| values.clone()).collect::<Vec<_>>()
    };
    let alone = numbers(&lines[2..], 0);
    assert_eq!(alone.len(), 6);
    assert_eq!(numbers(&lines, 2), alone);
    assert_eq!(numbers(&[lines[2].clone(), lines[0].clone(), lines[2].clone()], 0), alone);
    assert_eq!(numbers(&[lines[2].clone(), lines[0].clone(), lines[2].clone()], 2), alone);
}

#[test]
fn what_an_example_is_told_of_is_an_error_with_its_place() {
    let model = model("tiny-llama");
    let mut built = Experiment::new(model);
    let base = built.open_run("base").unwrap();
    built.edit(base, Site::MlpOutput.layers(0).at(2), Op::zero()).unwrap();
    let prompts = [vec![1, 2, 3], vec![1, 2]];
    built.set_examples(prompts.map(|ids| Example::new().prompt("base", ids)));
    let error = built.plan_single().unwrap_err();
    assert!(matches!(&error, Error::Examples { refused, .. } if refused[0].example == 1));
    assert!(error.to_string().starts_with("example 1: edit 0: position 2"), "{error}");
    assert_eq!(built.sift().unwrap().len(), 1);
    assert_eq!((built.example_count(), built.plan_single().unwrap().cells.len()), (Some(1), 1));
    built.set_examples(Vec::new());
    assert!(built.plan_single().unwrap_err().to_string().contains("there is none"));
}

/// A sweep whose cells are all done, but which is interrupted while its baselines are computed again, has no numbers to
/// compare with: it must not end as if it had.
#[test]
fn an_interrupted_end_is_no_end() {
    let model = model("tiny-gpt2");
    let lines: Vec<Value> = (1..40).map(|i| json!({"base": [i, 2, 3], "label": 4})).collect();
    let set = Set::of(&lines);
    let edit = json!([{"run": "base", "site": "mlp_output", "layers": 0, "op": "zero"}]);
    let written = set.file(&json!({"edit": edit, "read": {"tokens": [1]}, "sweep": {"layers": "each"}}));
    let sweep = PreparedSweep::new(&experiment(model, &written).unwrap()).unwrap();
    let whole = sweep.run(&Runtime::reference()).unwrap();
    let done: std::collections::BTreeMap<usize, _> = whole.values.iter().cloned().enumerate().collect();
    let stop = |_: causalcone_model::Progress<'_>| std::ops::ControlFlow::Break(());
    // Baselines that take no time are all there before anybody asks.
    let slow = Slow(std::time::Duration::from_millis(20));
    let again = sweep.resume(&Runtime { progress: &stop, ..Runtime::own(&slow) }, done.clone(), |_| Ok(()));
    assert!(matches!(again, Err(Error::Interrupted)), "{again:?}");
    let again = sweep.resume(&Runtime::reference(), done, |_| Ok(())).unwrap();
    assert_eq!(again.base, whole.base);
}

/// The reference executor, slowly.
struct Slow(std::time::Duration);

impl Executor for Slow {
    fn execute(&self, model: &Model, plan: &Plan, cells: &[&Cell], sink: Sink<'_>) -> Result<Work, Error> {
        Reference.execute(model, plan, cells, &mut |index, readings| {
            std::thread::sleep(self.0);
            sink(index, readings)
        })
    }

    fn estimate(&self, plan: &Plan, cells: &[&Cell], config: &Config) -> Result<Work, Error> {
        Reference.estimate(plan, cells, config)
    }

    fn name(&self) -> &'static str {
        "slow"
    }
}
