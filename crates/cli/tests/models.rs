//! `models info` and `models check`, and what the command says about configuration keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A copy of a model of the corpus with more keys in its config.json.
fn with_keys(place: &Place, keys: &Value) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus/llama-2");
    let to = place.path("model");
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let path = to.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    std::fs::write(path, config.to_string()).unwrap();
    to.to_str().unwrap().to_owned()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn unknown_keys_are_warned_of_refused_or_ignored_and_recorded() {
    let place = Place::new();
    let model = with_keys(&place, &json!({"comment": "mine", "qk_layernorm": true}));
    let top = ["top", "-m", &model, "--ids", "3,1,4"];
    let refused = place.run(&top);
    assert_eq!(refused.status.code(), Some(2));
    let message = said(&refused.stderr);
    assert!(
        message.contains("qk_layernorm = true") && message.contains("--ignore-key qk_layernorm"),
        "{message}"
    );

    let ignoring = [&top[..], &["--ignore-key", "qk_layernorm", "--json"]].concat();
    let warned = place.run(&ignoring);
    assert!(warned.status.success());
    assert!(
        said(&warned.stderr).contains("warning: ") && said(&warned.stderr).contains("comment = \"mine\"")
    );
    serde_json::from_slice::<Value>(&warned.stdout).unwrap();
    let strict = place.run(&[&ignoring[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(2));
    assert!(said(&strict.stderr).contains("comment"));

    // The same in a file; results record it.
    let file = place.path("sweep.toml");
    let text = format!(
        "model = {model:?}\nmodel_options = {{ ignore_keys = ['qk_layernorm'] }}\n[runs.base]\nids = [3, 1, 4]\n\
         [[edit]]\nsite = 'mlp_output'\nlayers = 'all'\nop = 'zero'\n[read]\ntokens = [7]\n[sweep]\nlayers = 'each'\n"
    );
    std::fs::write(&file, text).unwrap();
    let out = place.run(&["sweep", file.to_str().unwrap(), "--out", "out"]);
    assert!(out.status.success(), "{}", said(&out.stderr));
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap();
    let keys = &record["model"]["keys"];
    assert_eq!(keys["ignored"], json!(["qk_layernorm = true"]));
    assert_eq!(keys["unknown"], json!(["comment = \"mine\""]));
    let defaulted = keys["defaulted"].as_array().unwrap();
    assert!(defaulted.iter().any(|one| one["key"] == "rope_theta" && one["value"] == 10_000.0), "{keys}");
}

#[test]
fn info_says_what_was_defaulted_and_what_only_some_commands_need() {
    let place = Place::new();
    let model = with_keys(&place, &json!({"eos_token_id": 50_256}));
    let info = place.json(&["models", "info", &model]);
    assert_eq!(info["keys"]["defaulted"]["rope_theta"]["source"], "transformers' LlamaConfig");
    let problems = info["problems"].as_array().unwrap();
    assert!(problems.len() == 1 && problems[0].as_str().unwrap().contains("50256"), "{problems:?}");
    assert_eq!(info["eos_ids"], json!([]));
    // A prompt of ids runs; a text that must know its end does not, unless it need not.
    place.json(&["top", "-m", &model, "--ids", "3,1,4"]);
    let generate = |eos: &str| {
        let file = place.path("generate.toml");
        let text = format!("model = {model:?}\n[runs.base]\nids = [3, 1]\n[generate]\nmax_tokens = 2\n{eos}");
        std::fs::write(&file, text).unwrap();
        place.run(&["generate", file.to_str().unwrap(), "--json"])
    };
    let refused = generate("");
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused.stderr).contains("50256") && said(&refused.stderr).contains("eos = false"));
    assert!(generate("eos = false\n").status.success());
}

#[test]
fn check_compares_logits_with_another_implementation() {
    let place = Place::new();
    let model = format!("{FIXTURES}/tiny-llama");
    let golden = |name: &str, text: String| -> PathBuf {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let top = place.json(&["top", "-m", &model, "--ids", "3,1,4,1,5", "-n", "4"]);
    let own = golden("own.json", top.to_string());
    let agreed = place.json(&["models", "check", &model, "--against", own.to_str().unwrap()]);
    assert_eq!((&agreed["against"]["agrees"], &agreed["against"]["logits"]), (&json!(true), &json!(4)));

    let (id, logit) = (top["top"][2]["id"].clone(), top["top"][2]["logit"].as_f64().unwrap());
    let off = golden("off.json", json!({"ids": [3, 1, 4, 1, 5], "top": [[id, logit + 0.01]]}).to_string());
    let differs = place.run(&["models", "check", &model, "--against", off.to_str().unwrap()]);
    assert_eq!(differs.status.code(), Some(1), "{}", said(&differs.stderr));
    assert!(said(&differs.stdout).contains("DIFFER"));
    for (name, text) in [
        ("no.json", "{}"),
        ("torn.json", "{\"ids\": [1"),
        ("text.json", "{\"ids\": [1], \"top\": [[\"a\", 1]]}"),
    ] {
        let bad = golden(name, text.into());
        let refused = place.run(&["models", "check", &model, "--against", bad.to_str().unwrap()]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
    }
    let missing = place.run(&["models", "check", &model, "--against", "nothing.json"]);
    assert_eq!(missing.status.code(), Some(2));
    // Random weights predict nothing, and a model without a tokenizer is not asked to.
    let tied = format!("{FIXTURES}/tiny-llama-tied");
    let broken = place.run(&["models", "check", &tied]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(said(&broken.stdout).contains("does not predict text"));
}

/// A tokenizer's end-of-sequence token that generation does not stop at, and is said not to.
#[test]
fn info_says_where_the_tokenizers_end_ends_no_text() {
    let place = Place::new();
    let model = place.path("model");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(Path::new(FIXTURES).join("tiny-llama-tied")).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    std::fs::write(model.join("tokenizer_config.json"), r#"{"eos_token": "<|endoftext|>"}"#).unwrap();
    let info = || place.json(&["models", "info", "model"]);
    let before = info();
    let eos = before["tokenizer"]["eos"]["id"].as_u64().expect("the fixture's tokenizer has one");
    let ends = |info: &Value| info["eos_ids"].as_array().unwrap().iter().any(|one| one["id"] == eos);
    assert!(ends(&before) && before.get("eos_note").is_none(), "{before}");

    std::fs::write(model.join("generation_config.json"), r#"{"eos_token_id": [7]}"#).unwrap();
    let after = info();
    assert_eq!(after["eos_ids"][0]["id"], 7);
    let note = after["eos_note"].as_str().unwrap();
    assert!(!ends(&after) && note.contains(&format!("is {eos}, ")), "{note}");
    // Generation agrees: it runs on over the one, and stops at the other.
    for (id, end) in [(eos, "max_tokens"), (7, "eos")] {
        let text = format!(
            "model = 'model'\n[runs.base]\nids = [5, 6]\n[[edit]]\nsite = 'logits'\npositions = 'last'\ndims = [{id}]\n\
             op = 'add'\nvalue = {{ values = 1000.0 }}\n[generate]\nmax_tokens = 3\n"
        );
        std::fs::write(place.path("x.toml"), text).unwrap();
        assert_eq!(place.json(&["generate", "x.toml"])["counterfactual"]["end"], end);
    }
}
