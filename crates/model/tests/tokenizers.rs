//! Token ids of hard strings, by a tokenizer of every kind and from both formats, beside those of Hugging Face's
//! libraries (`fixtures/make_tokenizers.py`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use causalcone_model::Tokenizer;
use causalcone_model::file::{DataFile, gguf};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type Cases = BTreeMap<String, Vec<(String, Vec<u32>)>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizers")
}

fn cases() -> Cases {
    let cases: Cases = serde_json::from_slice(&std::fs::read(folder().join("cases.json")).unwrap()).unwrap();
    assert!(cases.len() >= 8 && cases.values().all(|strings| strings.len() >= 300));
    cases
}

/// The metadata of a fixture's GGUF file.
fn metadata(name: &str) -> (PathBuf, Vec<(String, gguf::Value)>) {
    let path = folder().join(format!("{name}.gguf"));
    let header = gguf::read(&DataFile::open(&path).unwrap()).unwrap();
    (path, header.metadata)
}

fn from_gguf(name: &str) -> Tokenizer {
    let (path, metadata) = metadata(name);
    Tokenizer::from_gguf(&path, &metadata).unwrap().unwrap()
}

fn from_json(name: &str) -> Tokenizer {
    Tokenizer::from_json(&folder().join(format!("{name}.json"))).unwrap()
}

/// How many strings a tokenizer splits otherwise, and the first of them.
fn apart(tokenizer: &Tokenizer, strings: &[(String, Vec<u32>)]) -> (usize, Option<String>) {
    let mut wrong = strings.iter().filter_map(|(text, ids)| {
        let ours = tokenizer.encode(text, 10_000).unwrap();
        (ours != *ids).then(|| format!("{text:?} is {ids:?}, not {ours:?}"))
    });
    let first = wrong.next();
    (usize::from(first.is_some()) + wrong.count(), first)
}

#[test]
fn ids_are_hugging_faces_from_both_formats() {
    for (name, strings) in cases() {
        for (format, tokenizer) in [("json", from_json(&name)), ("gguf", from_gguf(&name))] {
            let (count, first) = apart(&tokenizer, &strings);
            assert!(count == 0, "{name}.{format}: {count} strings differ: {}", first.unwrap());
        }
    }
}

/// What can be spelled comes back, but for what a normalizer writes in another way.
#[test]
fn decoding_gives_the_text_back() {
    for (name, strings) in cases() {
        for tokenizer in [from_json(&name), from_gguf(&name)] {
            let mut same = 0;
            for (text, ids) in &strings {
                let back = tokenizer.decode(ids);
                let is_same = back == *text || back.strip_prefix(' ') == Some(text);
                same += usize::from(is_same);
                let is_composed = matches!(name.as_str(), "neox" | "qwen2");
                // SentencePiece writes spaces as U+2581, so that one is read as a space.
                let is_mark = text.contains('▁') || name == "llama2" && text.contains(['<', ' ']);
                assert!(is_same || is_composed || is_mark, "{name}: {text:?} comes back as {back:?}");
            }
            assert!(same * 10 > strings.len() * 8, "{name}: {same} of {}", strings.len());
        }
    }
}

#[test]
fn there_is_one_start_of_text_where_one_belongs() {
    for (name, adds) in
        [("gpt2", false), ("qwen2", false), ("llama3", true), ("llama2", true), ("gemma", true)]
    {
        for (format, tokenizer) in [("json", from_json(name)), ("gguf", from_gguf(name))] {
            let say = format!("{name}.{format}");
            assert_eq!(tokenizer.adds_bos(), adds, "{say}");
            let bare = tokenizer.encode("The capital", 100).unwrap();
            let prompt = |text: &str, bos| tokenizer.prompt(text, bos, 100).unwrap();
            assert_eq!(prompt("The capital", Some(false)), bare, "{say}");
            let Some(bos) = tokenizer.bos() else {
                assert!(!adds && tokenizer.prompt("x", Some(true), 100).is_err(), "{say}");
                continue;
            };
            let with: Vec<u32> = [&[bos], bare.as_slice()].concat();
            assert_eq!(prompt("The capital", Some(true)), with, "{say}");
            assert_eq!(prompt("The capital", None), if adds { with } else { bare }, "{say}");
            // Spelled out in the text, it is not doubled.
            let spelled = format!("{}x", tokenizer.token(bos));
            let ids = prompt(&spelled, Some(true));
            assert_eq!(ids.iter().filter(|id| **id == bos).count(), 1, "{say}");
            assert_eq!(ids, prompt(&spelled, None), "{say}");
        }
    }
}

/// The strings are not blind: another split, other flags, or another order of merging is seen.
#[test]
fn another_split_is_seen() {
    let all = cases();
    let with = |name: &str, key: &str, change: &dyn Fn(&mut gguf::Value)| {
        let (path, mut metadata) = metadata(name);
        let (_, value) = metadata.iter_mut().find(|(known, _)| known == key).unwrap();
        change(value);
        apart(&Tokenizer::from_gguf(&path, &metadata).unwrap().unwrap(), &all[name]).0
    };
    let styles = ["gpt-2", "smollm", "olmo", "llama-bpe", "dbrx", "qwen2"];
    for (name, own) in ["gpt2", "smollm", "neox", "llama3", "olmo2", "qwen2"].into_iter().zip(styles) {
        for other in styles.into_iter().filter(|other| *other != own) {
            let count = with(name, "tokenizer.ggml.pre", &|pre| *pre = gguf::Value::Text(other.into()));
            assert!(count > 0, "{name}: {other} in place of {own} goes unnoticed");
        }
    }
    for name in ["llama2", "gemma"] {
        let reversed = |value: &mut gguf::Value| {
            let gguf::Value::Floats(scores) = value else { panic!() };
            scores.iter_mut().for_each(|score| *score = -*score);
        };
        assert!(with(name, "tokenizer.ggml.scores", &reversed) > 0, "{name}: other scores go unnoticed");
    }
    let prefix = |value: &mut gguf::Value| *value = gguf::Value::Bool(true);
    assert!(with("gemma", "tokenizer.ggml.add_space_prefix", &prefix) > 0);
}

/// tokenizer_config.json says what tokenizer.json does not: which tokens begin and end a text, and whether one begins it.
#[test]
fn the_models_own_defaults_are_in_tokenizer_config() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, config: Option<Value>| {
        std::fs::copy(self::folder().join(format!("{name}.json")), folder.path().join("tokenizer.json"))
            .unwrap();
        let path = folder.path().join("tokenizer_config.json");
        let _ = std::fs::remove_file(&path);
        if let Some(config) = config {
            std::fs::write(&path, config.to_string()).unwrap();
        }
        Tokenizer::from_json(&folder.path().join("tokenizer.json"))
    };
    let json = |text: &str| Some(serde_json::from_str::<Value>(text).unwrap());
    let plain = with("gpt2", None).unwrap();
    assert_eq!((plain.bos(), plain.eos(), plain.adds_bos()), (None, None, false));
    let told = with(
        "gpt2",
        json(
            r#"{"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": false}, "padding_side": "left"}"#,
        ),
    );
    let told = told.unwrap();
    assert_eq!((told.bos(), told.eos(), told.adds_bos()), (Some(0), Some(0), false));
    assert_eq!(told.prompt("x", Some(true), 9).unwrap()[0], 0);
    // It goes before what tokenizer.json does.
    let off = with("llama3", json(r#"{"add_bos_token": false, "bos_token": "<|begin_of_text|>"}"#)).unwrap();
    assert_eq!((off.bos(), off.adds_bos()), (Some(0), false));
    let on = with("gpt2", json(r#"{"add_bos_token": true, "bos_token": "<|endoftext|>"}"#)).unwrap();
    assert!(on.adds_bos());
    // Null is as good as nothing.
    let none =
        with("llama3", json(r#"{"add_bos_token": null, "bos_token": null, "eos_token": null}"#)).unwrap();
    assert_eq!((none.bos(), none.eos(), none.adds_bos()), (Some(0), None, true));
    for (config, says) in [
        (r#"{"bos_token": 3}"#, "bos_token"),
        (r#"{"eos_token": ["x"]}"#, "eos_token"),
        (r#"{"add_bos_token": "yes"}"#, "add_bos_token"),
        (r#"{"add_bos_token": true}"#, "add_bos_token"),
        (r#"{"add_eos_token": true}"#, "add_eos_token"),
        (r#"{"bos_token": "nowhere"}"#, "nowhere"),
        ("[]", "not a JSON object"),
    ] {
        let error = with("gpt2", json(config)).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains(says), "{config}: {error}");
    }
}
