//! Small models in the shape of published ones (`fixtures/corpus`): those that people have load and give transformers'
//! logits, and those that cannot be computed exactly are refused by name. Where `../shared` is there, its corpus too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use causalcone_model::{Error, KeyPolicy, LoadOptions, Model, decoder::Unedited, silent};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// transformers computes norms and rotary tables in f32 even where all else is f64, and everything here is f32.
const TOLERANCE: f64 = 1e-4;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus")
}

fn document(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn load(path: &Path, keys: KeyPolicy) -> Result<Model, Error> {
    Model::load_with_options(path.to_str().unwrap(), &LoadOptions { keys, ..LoadOptions::default() }, &silent)
}

/// What is wrong with the logits of a model, if anything.
fn wrong(model: &Model, expected: &Value) -> Option<String> {
    let prompts = std::iter::once(expected).chain(expected.get("short"));
    prompts.filter(|prompt| prompt["top"].is_array()).find_map(|prompt| {
        let ids: Vec<u32> = serde_json::from_value(prompt["ids"].clone()).unwrap();
        let logits = model.decoder().unwrap().forward(&ids, &mut Unedited).unwrap();
        let last: Vec<f32> = logits.get(ids.len() - 1).unwrap().to_vec1().unwrap();
        let top: Vec<(usize, f64)> = serde_json::from_value(prompt["top"].clone()).unwrap();
        let off =
            top.iter().find(|(id, x)| (f64::from(last[*id]) - x).abs() > TOLERANCE + TOLERANCE * x.abs());
        off.map(|(id, x)| format!("{} ids: logit {id} is {}, should be {x}", ids.len(), last[*id]))
    })
}

/// Compares one model with what is expected of it; gives back what is wrong.
fn check(path: &Path, expected: &Value) -> Option<String> {
    match (load(path, KeyPolicy::default()), expected["expect"].as_str().unwrap()) {
        (Ok(model), "accept") => wrong(&model, expected),
        (Ok(_), _) => Some("is accepted".into()),
        (Err(error), "accept") => Some(format!("is refused: {error}")),
        (Err(error), _) => {
            let said = format!("{error} {}", error.hint().unwrap_or_default()).to_lowercase();
            // The folder's own name is no reason.
            let said = said.replace(&path.display().to_string().to_lowercase(), "");
            let words: Vec<String> = serde_json::from_value(expected["says"].clone()).unwrap_or_default();
            (!words.iter().any(|word| said.contains(word.as_str())))
                .then(|| format!("is refused without {words:?}: {said}"))
        }
    }
}

fn all_are_right(faults: &[String]) {
    assert!(faults.is_empty(), "{} models:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn published_shapes_load_and_give_the_right_logits() {
    let expected = document(&corpus().join("expected.json"));
    let expected = expected.as_object().unwrap();
    assert!(expected.len() > 35);
    let of = |(name, expected): (&String, &Value)| {
        check(&corpus().join(name), expected).map(|why| format!("{name} {why}"))
    };
    all_are_right(&expected.iter().filter_map(of).collect::<Vec<_>>());
}

/// A copy of a model of the corpus with other keys.
fn changed(base: &str, changes: &Map<String, Value>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(corpus().join(base)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut config = document(&path);
    for (key, value) in changes {
        let mut place = &mut config;
        // A slash leads into a table.
        for part in key.split('/') {
            place = place.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
        }
        *place = value.clone();
    }
    std::fs::write(path, config.to_string()).unwrap();
    folder
}

#[test]
fn unknown_keys_are_refused_if_they_may_change_the_computation() {
    let expected = document(&corpus().join("expected.json"));
    let mut faults = Vec::new();
    for case in document(&corpus().join("keys.json")).as_array().unwrap() {
        let (base, set) = (case["base"].as_str().unwrap(), case["set"].as_object().unwrap());
        let folder = changed(base, set);
        let shown = format!("{base} with {}", case["set"]);
        match (load(folder.path(), KeyPolicy::default()), case["expect"].as_str().unwrap()) {
            (Ok(model), "accept") => {
                faults.extend(wrong(&model, &expected[base]).map(|why| format!("{shown}: {why}")));
                let (warns, should) = (model.key_report().warning(), case["warns"] == true);
                if warns.is_some() != should {
                    faults.push(format!("{shown}: warns {warns:?}"));
                }
            }
            (Ok(_), _) => faults.push(format!("{shown} is accepted")),
            (Err(error), "accept") => faults.push(format!("{shown} is refused: {error}")),
            (Err(error), _) => {
                let said = error.to_string();
                if !case["says"].as_array().unwrap().iter().any(|word| said.contains(word.as_str().unwrap()))
                {
                    faults.push(format!("{shown} is refused for another reason: {error}"));
                }
            }
        }
    }
    all_are_right(&faults);
}

#[test]
fn a_policy_ignores_keys_by_name_and_can_be_strict() {
    let set = json!({"qk_layernorm": true, "residual_multiplier": 0.5, "comment": "mine"});
    let folder = changed("llama-2", set.as_object().unwrap());
    let with = |ignore_keys: &[&str], strict| {
        let ignore_keys = ignore_keys.iter().map(ToString::to_string).collect();
        load(folder.path(), KeyPolicy { ignore_keys, strict })
    };
    // All of them in one message, and how to go past it.
    let error = with(&[], false).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("qk_layernorm = true") && said.contains("residual_multiplier = 0.5"), "{said}");
    assert!(!said.contains("comment"), "{said}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--ignore-key qk_layernorm --ignore-key residual_multiplier"), "{hint}");
    let both = ["qk_layernorm", "residual_multiplier"];
    let model = with(&both, false).unwrap();
    let report = model.key_report();
    assert_eq!(report.ignored, ["qk_layernorm = true", "residual_multiplier = 0.5"]);
    assert_eq!(report.unknown, ["comment = \"mine\""]);
    assert!(report.defaulted.iter().any(|one| one.key == "rope_theta" && one.value == 10_000.0));
    assert!(with(&both, true).unwrap_err().to_string().contains("comment"));
    // What the family computes cannot be ignored.
    let error = with(&["qk_layernorm", "residual_multiplier", "hidden_size"], false).unwrap_err().to_string();
    assert!(error.contains("hidden_size") && error.contains("cannot be ignored"), "{error}");
}

#[test]
fn the_shared_corpus_is_right() {
    let given = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/given");
    if !given.is_dir() {
        println!("skipped: there is no {}", given.display());
        return;
    }
    let mut faults = Vec::new();
    for folder in
        std::fs::read_dir(given).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let golden = document(&folder.join("golden.json"));
        let gguf = folder.join("model.gguf");
        let refused = golden["expect"].as_str().unwrap().starts_with("refuse");
        match (load(if gguf.exists() { &gguf } else { &folder }, KeyPolicy::default()), refused) {
            (Ok(_), true) => faults.push(format!("{} is accepted", folder.display())),
            (Err(error), false) => faults.push(format!("{} is refused: {error}", folder.display())),
            (Ok(model), false) => {
                faults.extend(wrong(&model, &golden).map(|why| format!("{}: {why}", folder.display())));
            }
            // The script beside the corpus looks at the messages.
            (Err(_), true) => {}
        }
    }
    all_are_right(&faults);
}
