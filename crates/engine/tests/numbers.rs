//! Every number that a file may hold, as large and as small as it can be written: refused in words, or run in bounds.
//! The keys are those of the schema, so that a new one is tried as soon as it is there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;

use causalcone_engine::causal::CausalFile;
use causalcone_engine::generate::Generation;
use causalcone_engine::train::Training;
use causalcone_engine::{Error, ExperimentFile, Explanation, PreparedSweep, Result, Runtime};
use causalcone_model::{Model, Progress};
use common::{Verdict, fixture, load};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

/// As JSON has them.
const INTEGERS: [&str; 9] = [
    "0",
    "1",
    "2147483648",
    "4294967296",
    "9007199254740992",
    "9223372036854775807",
    "18446744073709551615",
    "-1",
    "-9223372036854775808",
];
/// As TOML has them.
const REALS: [&str; 7] = ["0.0", "-1.0", "1e300", "-1e300", "5e-324", "nan", "inf"];

/// What is given to work in.
fn runtime<'r>() -> Runtime<'r> {
    Runtime::within(Some(16 << 20))
}

/// Documents that work, each of which uses other keys. `a.b.0` is the way to a table.
fn documents() -> Vec<Value> {
    let runs = json!({"base": {"ids": [1, 2, 3, 4, 5]}, "other": {"ids": [5, 4, 3, 2, 1]}});
    let swap = json!({"site": "block_output", "layers": "all", "positions": [1, 2], "op": "swap",
        "value": {"run": "other"}});
    let add = json!({"site": "block_output", "layers": 0, "positions": "last", "op": "add",
        "value": {"values": vec![0.5; 32]}, "scale": 1.0});
    let drawn = json!({"site": "block_output", "layers": 0, "op": "jumprelu_autoencoder", "value": {"run": "other"},
        "parameters": {"random": 0, "rank": 3}});
    let clamp = json!({"site": "block_output", "layers": 0, "op": "clamp", "min": -1.0, "max": 1.0,
        "value": {"values": vec![0.5; 32]}});
    let noise = json!({"site": "embedding", "op": "noise", "level": 0.5, "seed": 1});
    let trained = json!({"site": "block_output", "layers": 0, "positions": "last", "op": "low_rank_swap",
        "value": {"run": "other"}, "parameters": {"random": 0, "rank": 2}});
    let read = json!({"run": "base", "top": 3, "tokens": [7, 8]});
    vec![
        json!({"runs": runs, "edit": [swap], "read": read,
            "sweep": {"edit": 0, "layers": "each", "positions": "each", "methods": ["exact", "integrated"], "steps": 2,
                "metrics": ["logit"]}}),
        json!({"runs": {"base": {"ids": [1, 2, 3]}}, "edit": [noise], "read": read,
            "sweep": {"samples": 3, "scales": [1.0]}}),
        json!({"runs": runs, "edit": [drawn, clamp], "read": read}),
        json!({"runs": runs, "edit": [add], "read": read,
            "generate": {"max_tokens": 2, "temperature": 1.0, "top_k": 3, "top_p": 0.5, "seed": 1, "samples": 2, "eos": false}}),
        json!({"runs": {"base": {}, "other": {}}, "edit": [trained], "read": {"run": "base"},
            "train": {"epochs": 1, "batch": 1, "accumulate": 1, "betas": [0.9, 0.99], "epsilon": 1e-8,
                "learning_rate": 0.01, "weight_decay": 0.0, "warmup": 1, "sparsity": 0.0, "seed": 0, "held_out": 0.5,
                "evaluate": 1, "patience": 1, "checkpoint": 1}}),
        json!({"runs": {"base": {}, "other": {}}, "edit": [trained], "read": {"run": "base"}, "train": {"steps": 1}}),
    ]
}

/// The tables of the schema, as the way to them, and the keys of each, as an unknown one is told of.
fn keys() -> Vec<(&'static str, Vec<String>)> {
    let tables = [
        ("", "nothing = 1"),
        ("runs.base", "[runs.a]\nnothing = 1"),
        ("edit.0", "[[edit]]\nnothing = 1"),
        ("edit.0.value", "[[edit]]\nvalue = { nothing = 1 }"),
        ("read", "[read]\nnothing = 1"),
        ("sweep", "[sweep]\nnothing = 1"),
        ("generate", "[generate]\nnothing = 1"),
        ("train", "[train]\nnothing = 1"),
    ];
    let of = |(way, text)| {
        let error = ExperimentFile::from_toml(text).unwrap_err().to_string();
        let message = error.lines().find(|line| line.contains("unknown field")).unwrap().to_owned();
        (way, message.split('`').skip(3).step_by(2).map(str::to_owned).collect())
    };
    let mut keys: Vec<(&str, Vec<String>)> = tables.into_iter().map(of).collect();
    // Tables that may be something else too are told of less.
    for (way, own) in [
        ("sweep.layers", vec!["window"]),
        ("edit.0.parameters", vec!["random", "rank"]),
        ("edit.0.partition", vec!["part"]),
        ("train.temperature", vec!["from", "to"]),
        ("train.learning_rates", vec!["rotation"]),
    ] {
        keys.push((way, own.into_iter().map(str::to_owned).collect()));
    }
    keys
}

/// The document with a key set; nothing where it has no such table and cannot have one.
fn with(document: &Value, way: &str, key: &str, value: Value) -> Option<Value> {
    let mut document = document.clone();
    let mut table = &mut document;
    for step in way.split('.').filter(|step| !step.is_empty()) {
        table = match step.parse::<usize>() {
            Ok(index) => table.get_mut(index)?,
            Err(_) => {
                let whole = table.as_object_mut()?;
                let is_new =
                    ["layers", "parameters", "partition", "temperature", "learning_rates"].contains(&step);
                if is_new && !whole.get(step).is_some_and(Value::is_object) {
                    whole.insert(step.into(), json!({}));
                }
                whole.get_mut(step)?
            }
        };
    }
    let mut value = value;
    // Where a key has a list, the number is the first of it.
    if let Some(list) =
        table.get(key).and_then(Value::as_array).filter(|list| list.iter().all(Value::is_number))
    {
        let mut list = list.clone();
        list[0] = value;
        value = list.into();
    }
    table.as_object_mut()?.insert(key.into(), value);
    Some(document)
}

/// Everything that a command does with a file, each piece of long work stopped as soon as it tells of itself.
fn through(file: &ExperimentFile, model: &Model) -> Result<()> {
    Explanation::of_outline(&file.outline(model)?, &runtime())?;
    let reports = AtomicUsize::new(0);
    let stop = |_: Progress<'_>| match reports.fetch_add(1, Ordering::SeqCst) {
        0..20 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let mut experiment = file.experiment_with(model, &Runtime { progress: &stop, ..runtime() })?;
    let stopped = |error| if matches!(error, Error::Interrupted) { Ok(()) } else { Err(error) };
    if let Some(train) = &file.train {
        let (options, held_out, _) = file.training(&experiment)?;
        train.checkpoint_every()?;
        options.prepare(&mut experiment)?;
        let training = Training::new(&experiment, held_out, options)?;
        let trainer = training.trainer(&runtime())?;
        let mut fit = trainer.fit(0)?;
        // As a progress bar has it.
        let _all = training.len() * fit.total() + training.steps();
        fit.step()?;
        fit.scores_with(&stop).map(drop).or_else(stopped)
    } else if file.generate.is_some() {
        let options: Generation = file.generate.clone().unwrap_or_default();
        options.check(model)?;
        let mut tokens = 0;
        let texts = experiment.generate_with(&options, &Runtime::default(), &mut |_| {
            tokens += 1;
            if tokens < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        texts.map(drop)
    } else if file.sweep.is_some() {
        let prepared = PreparedSweep::new(&experiment)?;
        prepared.run(&Runtime { progress: &stop, ..runtime() }).map(drop).or_else(stopped)
    } else {
        experiment.execute_with(&runtime()).map(drop)
    }
}

#[test]
fn every_number_of_an_experiment_file_is_bounded() {
    let model = load(&fixture("tiny-llama-tied")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"base\": [1, 2, 3], \"other\": [3, 2, 1], \"label\": 4}\n{\"base\": [4, 5], \"other\": [5, 4], \"label\": 6}\n";
    std::fs::write(folder.path().join("pairs.jsonl"), lines).unwrap();
    let mut verdict = Verdict::new();
    let mut tried: BTreeSet<String> = BTreeSet::new();
    for (number, mut document) in documents().into_iter().enumerate() {
        if document["train"].is_object() {
            document["examples"] = json!(folder.path().join("pairs.jsonl"));
        }
        let whole = ExperimentFile::from_json(&document.to_string()).unwrap();
        let done = verdict.accepted(&format!("document {number}"), 1000, || through(&whole, &model));
        assert!(done.is_some(), "document {number} works: {:?}", through(&whole, &model).err());
        for (way, keys) in keys() {
            for key in keys {
                let as_json = INTEGERS.iter().filter_map(|text| {
                    let changed = with(&document, way, &key, serde_json::from_str(text).unwrap())?;
                    Some((*text, ExperimentFile::from_json(&changed.to_string())))
                });
                // Not every number can be written in JSON.
                let mark = "0.123456789";
                let as_toml = REALS.iter().filter_map(|text| {
                    let changed = with(&document, way, &key, serde_json::from_str(mark).unwrap())?;
                    let changed = toml::to_string(&changed).unwrap().replace(mark, text);
                    Some((*text, ExperimentFile::from_toml(&changed)))
                });
                for (text, file) in as_json.chain(as_toml).collect::<Vec<_>>() {
                    let Ok(file) = file else { continue };
                    tried.insert(format!("{way}.{key}"));
                    let name = format!("document {number}: {way}.{key} = {text}");
                    verdict.survived(&name, 1000, || {
                        let result = through(&file, &model);
                        if let Err(error) = &result {
                            let said = format!("{error}\n{:?}", error.hint());
                            assert!(said.len() < 3000, "{name}: {said}");
                            assert!(!matches!(error, Error::Kernel(_)), "{name}: {said}");
                        }
                        result
                    });
                }
            }
        }
    }
    verdict.check();
    for key in
        ["train.steps", "train.warmup", "sweep.samples", "sweep.steps", "generate.max_tokens", "edit.0.scale"]
    {
        assert!(tried.contains(key), "{key} is not among {tried:?}");
    }
}

#[test]
fn every_number_of_a_causal_model_is_bounded() {
    let model = load(&fixture("tiny-llama-tied")).unwrap();
    let text = "
        prompt = 'The {country} is'
        label = '{letter}'
        examples = 3
        held_out = 0.4
        held_out_examples = 2
        seed = 1
        only_changed = true
        [interchange]
        source = ['letter']
        [variables.country]
        values = ['Spain', 'Italy', 'Rome', 'capital', 'of', 'is']
        [variables.letter]
        parents = ['country']
        table = [['Spain', 'S'], ['Italy', 'I'], ['Rome', 'R'], ['capital', 'c'], ['of', 'o'], ['is', 's']]
    ";
    let document: toml::Table = toml::from_str(text).unwrap();
    let error = CausalFile::from_toml("nothing = 1").unwrap_err().to_string();
    let keys: Vec<String> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(keys.contains(&"held_out_examples".to_owned()), "{error}");
    let mut verdict = Verdict::new();
    for key in keys {
        for text in INTEGERS.iter().chain(&REALS) {
            let mut changed = document.clone();
            changed.insert(key.clone(), toml::Value::String("MARK".into()));
            let changed = toml::to_string(&changed).unwrap().replace("\"MARK\"", text);
            let Ok(file) = CausalFile::from_toml(&changed) else { continue };
            verdict.survived(&format!("{key} = {text}"), 1000, || {
                let reports = AtomicUsize::new(0);
                let stop = |_: Progress<'_>| match reports.fetch_add(1, Ordering::SeqCst) {
                    0..20 => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                };
                file.draw(&model, &Runtime { progress: &stop, ..runtime() })
            });
        }
    }
    verdict.check();
}
