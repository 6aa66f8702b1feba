//! Ids as Hugging Face's, from tokenizer.json and from GGUF, on strings that are hard for some
//! tokenizer or other (`fixtures/make_tokenizers.py`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::file::DataFile;
use causalcone_model::file::gguf::{self, Value};
use causalcone_model::{Tokenizer, TokenizerFiles};
use common::fixture;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A type, the values of `tokenizer.ggml.pre` that mean it, and its BOS if texts begin with one.
struct Kind {
    name: &'static str,
    pre: &'static [&'static str],
    bos: Option<&'static str>,
    eos: &'static str,
}

const SENTENCEPIECE: &[&str] = &["default"];
const KINDS: [Kind; 13] = [
    Kind { name: "gpt-2", pre: &["gpt-2", "phi-2"], bos: None, eos: "<|endoftext|>" },
    Kind { name: "smollm", pre: &["smollm", "starcoder", "refact"], bos: None, eos: "<|im_end|>" },
    Kind { name: "pythia", pre: &["olmo"], bos: None, eos: "<|endoftext|>" },
    Kind { name: "olmo-2", pre: &["dbrx", "smaug-bpe"], bos: None, eos: "<|endoftext|>" },
    Kind {
        name: "llama-3",
        pre: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        bos: Some("<|begin_of_text|>"),
        eos: "<|end_of_text|>",
    },
    Kind { name: "qwen-2", pre: &["qwen2", "deepseek-r1-qwen"], bos: None, eos: "<|im_end|>" },
    Kind { name: "nemo", pre: &["tekken"], bos: Some("<s>"), eos: "</s>" },
    Kind { name: "gpt-4o", pre: &["gpt-4o", "llama4"], bos: None, eos: "<|end|>" },
    Kind {
        name: "deepseek-coder",
        pre: &["deepseek-coder"],
        bos: Some("<｜begin▁of▁sentence｜>"),
        eos: "<|EOT|>",
    },
    Kind { name: "llama-2", pre: SENTENCEPIECE, bos: Some("<s>"), eos: "</s>" },
    Kind { name: "llama-2-unprefixed", pre: SENTENCEPIECE, bos: Some("<s>"), eos: "</s>" },
    Kind { name: "gemma", pre: SENTENCEPIECE, bos: Some("<bos>"), eos: "<eos>" },
    Kind { name: "phi-3", pre: SENTENCEPIECE, bos: Some("<s>"), eos: "</s>" },
];

impl Kind {
    fn is_sentencepiece(&self) -> bool {
        self.pre == SENTENCEPIECE
    }

    fn json(&self) -> Tokenizer {
        Tokenizer::from_json(&file(&format!("{}.json", self.name))).unwrap()
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        gguf::read(&DataFile::open(&file(&format!("{}.gguf", self.name))).unwrap()).unwrap().metadata
    }

    fn gguf(&self) -> Tokenizer {
        self.changed(|_, _| {})
    }

    /// From GGUF, after a change to every value of the metadata.
    fn changed(&self, change: impl Fn(&str, &mut Value)) -> Tokenizer {
        let mut metadata = self.metadata();
        metadata.iter_mut().for_each(|(key, value)| change(key.trim_start_matches("tokenizer.ggml."), value));
        Tokenizer::from_gguf(Path::new(self.name), &metadata).unwrap().unwrap()
    }
}

fn file(name: &str) -> PathBuf {
    fixture("tokenizers").join(name)
}

fn strings() -> Vec<String> {
    let strings: Vec<String> = serde_json::from_slice(&std::fs::read(file("strings.json")).unwrap()).unwrap();
    assert!(strings.len() >= 300, "{} strings", strings.len());
    strings
}

fn ids(kind: &Kind) -> Vec<Vec<u32>> {
    let all: serde_json::Value = serde_json::from_slice(&std::fs::read(file("ids.json")).unwrap()).unwrap();
    assert_eq!(all.as_object().unwrap().len(), KINDS.len());
    serde_json::from_value(all[kind.name].clone()).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, 1 << 20).unwrap()
}

/// On how many strings the ids are others than expected, each written out.
fn differences(tokenizer: &Tokenizer, strings: &[String], ids: &[Vec<u32>]) -> Vec<String> {
    let both = strings.iter().zip(ids).map(|(text, ids)| (text, ids, encode(tokenizer, text)));
    both.filter(|(_, ids, found)| *ids != found)
        .map(|(text, ids, found)| format!("{text:?}: {ids:?}, not {found:?}"))
        .collect()
}

#[test]
fn ids_are_hugging_faces() {
    let strings = strings();
    for kind in &KINDS {
        let ids = ids(kind);
        assert_eq!(ids.len(), strings.len());
        for (form, tokenizer) in [("json", kind.json()), ("gguf", kind.gguf())] {
            let wrong = differences(&tokenizer, &strings, &ids);
            assert!(wrong.is_empty(), "{}.{form}, {} wrong:\n{}", kind.name, wrong.len(), wrong.join("\n"));
        }
    }
}

/// Of one vocabulary every form has the same pieces: those that its tokenizer.json lists.
#[test]
fn pieces_are_spelled_as_in_the_vocabulary() {
    for kind in &KINDS {
        let (json, gguf) = (kind.json(), kind.gguf());
        let path = file(&format!("{}.json", kind.name));
        let listed: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let pieces = listed["model"]["vocab"].as_object().unwrap();
        assert!(pieces.len() > 200);
        for (piece, id) in pieces {
            let id = u32::try_from(id.as_u64().unwrap()).unwrap();
            assert_eq!(json.piece(id).as_ref(), Some(piece), "{}", kind.name);
            // transformers spells this one of Gemma's bytes otherwise.
            let piece = if piece == "\t" && kind.name == "gemma" { "<0x09>" } else { piece };
            assert_eq!(gguf.piece(id).as_deref(), Some(piece), "{} in GGUF", kind.name);
        }
        assert_eq!(json.piece(u32::try_from(json.len()).unwrap()), None);
    }
}

#[test]
fn decoding_undoes_encoding() {
    for kind in &KINDS {
        let tokenizer = kind.gguf();
        let prefix =
            if encode(&tokenizer, "a").first().is_some_and(|id| tokenizer.token(*id).starts_with(' ')) {
                " "
            } else {
                ""
            };
        let mut compared = 0;
        for text in strings() {
            let ids = encode(&tokenizer, &text);
            // Composing, "▁" and special tokens, which may take spaces with them, are not undone.
            let lossy = match kind.is_sentencepiece() {
                true => text.contains('▁') || ids.iter().any(|id| tokenizer.is_special(*id)),
                false => ["pythia", "qwen-2"].contains(&kind.name) && !text.is_ascii(),
            };
            if lossy || text.is_empty() {
                continue;
            }
            compared += 1;
            assert_eq!(tokenizer.decode(&ids), format!("{prefix}{text}"), "{}", kind.name);
        }
        assert!(compared > 150, "{}: {compared} compared", kind.name);
    }
}

#[test]
fn one_start_of_text_where_one_belongs() {
    let count = |ids: &[u32], id: u32| ids.iter().filter(|other| **other == id).count();
    for kind in &KINDS {
        for (form, tokenizer) in [("json", kind.json()), ("gguf", kind.gguf())] {
            let name = format!("{}.{form}", kind.name);
            let prompt = |text: &str, bos| tokenizer.prompt(text, bos, 1000).unwrap();
            assert_eq!(tokenizer.adds_bos(), kind.bos.is_some(), "{name}");
            let Some(bos) = kind.bos else {
                assert_eq!(prompt("Rome", None), encode(&tokenizer, "Rome"), "{name}");
                assert!(tokenizer.prompt("Rome", Some(true), 1000).is_err(), "{name}");
                continue;
            };
            let id = tokenizer.bos().unwrap();
            assert_eq!(tokenizer.token(id), bos, "{name}");
            for text in ["Rome", " Rome", "", "\n"] {
                let plain = encode(&tokenizer, text);
                assert_eq!(prompt(text, None), [vec![id], plain.clone()].concat(), "{name}: {text:?}");
                assert_eq!(prompt(text, Some(true)), prompt(text, None), "{name}: {text:?}");
                assert_eq!(prompt(text, Some(false)), plain, "{name}: {text:?}");
            }
            // One that is written out is the one.
            let written = format!("{bos}Rome");
            for said in [None, Some(true), Some(false)] {
                assert_eq!(count(&prompt(&written, said), id), 1, "{name}: {said:?}");
            }
        }
        let eos = kind.gguf().eos().unwrap();
        assert_eq!(kind.gguf().token(eos), kind.eos, "{}", kind.name);
    }
}

/// The strings tell every split from every other, so a wrong line in the table cannot hide.
#[test]
fn another_split_gives_other_ids() {
    let strings = strings();
    let byte_level = || KINDS.iter().filter(|kind| !kind.is_sentencepiece());
    for kind in byte_level() {
        let ids = ids(kind);
        for other in byte_level() {
            for pre in other.pre {
                let tokenizer = kind.changed(|key, value| {
                    if key == "pre" {
                        *value = Value::Text((*pre).into());
                    }
                });
                let different = differences(&tokenizer, &strings, &ids).len();
                println!("{} by {pre}: {different} of {} differ", kind.name, strings.len());
                assert_eq!(different == 0, kind.name == other.name, "{} by {pre}", kind.name);
            }
        }
    }
}

/// The same for what decides where SentencePiece joins.
#[test]
fn other_scores_or_spaces_give_other_ids() {
    /// What is changed in the metadata.
    type Change = fn(&str, &mut Value);
    let changes: [(&str, Change); 4] = [
        ("scores backwards", |key, value| match value {
            Value::Floats(scores) if key == "scores" => scores.iter_mut().for_each(|score| *score = -*score),
            _ => {}
        }),
        ("equal scores", |key, value| match value {
            Value::Floats(scores) if key == "scores" => scores.fill(0.0),
            _ => {}
        }),
        ("no special tokens", |key, value| match value {
            Value::Integers(kinds) if key == "token_type" => {
                kinds.iter_mut().filter(|kind| **kind == 3 || **kind == 4).for_each(|kind| *kind = 1);
            }
            _ => {}
        }),
        ("another unknown token", |key, value| {
            if key == "unknown_token_id" {
                *value = Value::Unsigned(5, 4);
            }
        }),
    ];
    let strings = strings();
    for kind in KINDS.iter().filter(|kind| kind.is_sentencepiece()) {
        let ids = ids(kind);
        for (what, change) in changes {
            let different = differences(&kind.changed(change), &strings, &ids).len();
            println!("{}, {what}: {different} of {} differ", kind.name, strings.len());
            // What has all bytes needs no unknown token.
            assert_eq!(different == 0, what == "another unknown token", "{}, {what}", kind.name);
        }
        let mut metadata = kind.metadata();
        let unprefixed = metadata.iter().any(|(key, _)| key == "tokenizer.ggml.add_space_prefix");
        metadata.retain(|(key, _)| key != "tokenizer.ggml.add_space_prefix");
        metadata.push(("tokenizer.ggml.add_space_prefix".into(), Value::Bool(unprefixed)));
        let tokenizer = Tokenizer::from_gguf(Path::new(kind.name), &metadata).unwrap().unwrap();
        assert!(!differences(&tokenizer, &strings, &ids).is_empty(), "{}, prefix {unprefixed}", kind.name);
    }
}

/// Merges that a converter copied from tokenizer.json are the same as those that are derived. Gemma's
/// have a tab for `<0x09>`, and no converter copies them.
#[test]
fn merges_of_sentencepiece_may_be_given() {
    for kind in KINDS.iter().filter(|kind| kind.is_sentencepiece() && kind.name != "gemma") {
        let json = std::fs::read(file(&format!("{}.json", kind.name))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let merges: Vec<(String, String)> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
        let merges = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
        let mut metadata = kind.metadata();
        metadata.push(("tokenizer.ggml.merges".into(), Value::Texts(merges)));
        let tokenizer = Tokenizer::from_gguf(Path::new(kind.name), &metadata).unwrap().unwrap();
        assert!(differences(&tokenizer, &strings(), &ids(kind)).is_empty(), "{}", kind.name);
    }
}

/// Keys of GGUF that name tokens for filling gaps, or templates, change no id; others that are not known are refused.
#[test]
fn keys_that_change_no_id_are_accepted() {
    for (key, is_known) in [
        ("tokenizer.ggml.fim_pre_token_id", true),
        ("tokenizer.ggml.middle_token_id", true),
        ("tokenizer.chat_template.tool_use", true),
        ("tokenizer.ggml.precompiled_charsmap", false),
        ("tokenizer.chat_templated", false),
    ] {
        let mut metadata = KINDS[0].metadata();
        metadata.push((key.into(), Value::Unsigned(3, 4)));
        match Tokenizer::from_gguf(Path::new("a.gguf"), &metadata) {
            Ok(tokenizer) => {
                assert!(is_known, "{key}");
                assert!(differences(&tokenizer.unwrap(), &strings(), &ids(&KINDS[0])).is_empty(), "{key}");
            }
            Err(e) => assert!(!is_known && e.to_string().contains(key), "{key}: {e}"),
        }
    }
}

/// A tokenizer.json with a tokenizer_config.json beside it.
fn configured(name: &str, config: &str) -> causalcone_model::Result<Tokenizer> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::copy(file(&format!("{name}.json")), &path).unwrap();
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    Tokenizer::from_json(&path)
}

/// What transformers would do to tokenizer.json by its configuration is done, or refused.
#[test]
fn the_configuration_cannot_contradict_the_tokenizer_in_silence() {
    // An outermost byte-level step takes its space from the configuration, none where that is silent.
    let [plain, spaced] = [r#"{"add_prefix_space": false}"#, r#"{"add_prefix_space": true}"#]
        .map(|config| configured("gpt-2", config).unwrap());
    assert_eq!(encode(&plain, " Rome is"), encode(&spaced, "Rome is"));
    assert_ne!(encode(&plain, "Rome is"), encode(&spaced, "Rome is"));
    assert_eq!(encode(&configured("gpt-2", "{}").unwrap(), "Rome"), encode(&plain, "Rome"));
    let named = r#"{"pad_token": "<|endoftext|>", "additional_special_tokens": ["<|endoftext|>"]}"#;
    assert!(configured("gpt-2", named).is_ok());
    let added = |more: &str| format!(r#"{{"added_tokens_decoder": {{{more}}}}}"#);
    let id = serde_json::from_slice::<serde_json::Value>(&std::fs::read(file("gpt-2.json")).unwrap())
        .unwrap()["added_tokens"][0]["id"]
        .clone();
    let same = format!(r#""{id}": {{"content": "<|endoftext|>", "lstrip": false, "special": true}}"#);
    assert!(configured("gpt-2", &added(&same)).is_ok());
    for (config, words) in [
        (r#"{"split_special_tokens": true}"#.to_owned(), "split_special_tokens"),
        (added(r#""7": {"content": "<|extra|>"}"#), "7 is no added token"),
        (added(r#""x": {"content": "<|extra|>"}"#), "x is no added token"),
        (added(&same.replace("endoftext", "end")), "is not \"<|endoftext|>\""),
        (added(&same.replace("\"lstrip\": false", "\"lstrip\": true")), "lstrip is not false"),
        (r#"{"added_tokens_decoder": 3}"#.to_owned(), "is not an object"),
        (r#"{"add_prefix_space": 3}"#.to_owned(), "is not true or false"),
        (r#"{"pad_token": "a"}"#.to_owned(), "pad_token"),
        (r#"{"additional_special_tokens": ["rid"]}"#.to_owned(), "\"rid\" is no added token"),
        (r#"{"additional_special_tokens": [{"content": "rid"}]}"#.to_owned(), "\"rid\" is no added token"),
        (r#"{"additional_special_tokens": 1}"#.to_owned(), "is not a list"),
    ] {
        let said = configured("gpt-2", &config).unwrap_err().to_string();
        assert!(said.contains(words), "{config}: {said}");
    }
}

/// A text behind another one is said as it is: no space before it that it does not have.
#[test]
fn a_text_that_goes_on_has_no_space_of_its_own() {
    for kind in &KINDS {
        for tokenizer in [kind.json(), kind.gguf()] {
            let mut begun = 0;
            for text in [" Rome", "Rome", "ly, and so on", "é", "1", ".", "\nRome", "日本"] {
                let ids = tokenizer.encode_behind(text, 100).unwrap();
                assert_eq!(tokenizer.decode(&ids), text, "{}", kind.name);
                begun += usize::from(ids != encode(&tokenizer, text));
            }
            let prefixes =
                encode(&tokenizer, "a").first().is_some_and(|id| tokenizer.token(*id).starts_with(' '));
            assert_eq!(begun > 4, prefixes, "{}", kind.name);
        }
    }
}

/// All spaces of a text inside another one stay, whether the tokenizer always puts one before a text or only where it has none.
#[test]
fn spaces_of_a_text_inside_another_stay() {
    for legacy in [true, false] {
        let config = json!({"tokenizer_class": "LlamaTokenizer", "legacy": legacy});
        let tokenizer =
            of_folder(&folder("llama-2", "llama", &json!({"tokenizer_config.json": config}))).unwrap();
        for text in [" Rome", "  Rome", "    Rome  is", " a"] {
            let ids = tokenizer.encode_inside(text, 100).unwrap();
            assert_eq!(tokenizer.decode(&ids), text, "legacy: {legacy}");
        }
    }
}

#[test]
fn the_configuration_says_how_a_text_begins() {
    // File, configuration, BOS, EOS, whether BOS is added.
    type Case = (&'static str, &'static str, Option<&'static str>, Option<&'static str>, bool);
    let cases: [Case; 14] = [
        ("llama-2", "{}", Some("<s>"), None, true),
        ("llama-2", r#"{"tokenizer_class": "LlamaTokenizerFast"}"#, Some("<s>"), Some("</s>"), true),
        (
            "llama-2",
            r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false}"#,
            Some("<s>"),
            Some("</s>"),
            false,
        ),
        ("llama-2", r#"{"add_bos_token": false}"#, Some("<s>"), None, false),
        ("gemma", r#"{"tokenizer_class": "GemmaTokenizer"}"#, Some("<bos>"), Some("<eos>"), true),
        (
            "gemma",
            r#"{"tokenizer_class": "GemmaTokenizer", "bos_token": {"content": "<bos>", "special": true}, "add_bos_token": false}"#,
            Some("<bos>"),
            Some("<eos>"),
            false,
        ),
        (
            "pythia",
            r#"{"tokenizer_class": "GPTNeoXTokenizer"}"#,
            Some("<|endoftext|>"),
            Some("<|endoftext|>"),
            false,
        ),
        (
            "pythia",
            r#"{"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": true, "eos_token": null}"#,
            Some("<|endoftext|>"),
            None,
            true,
        ),
        // These classes leave it to tokenizer.json, whatever the file says.
        (
            "llama-3",
            r#"{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "add_bos_token": false}"#,
            Some("<|begin_of_text|>"),
            Some("<|eot_id|>"),
            true,
        ),
        (
            "qwen-2",
            r#"{"tokenizer_class": "Qwen2Tokenizer", "bos_token": null, "eos_token": "<|im_end|>", "add_bos_token": false}"#,
            None,
            Some("<|im_end|>"),
            false,
        ),
        (
            "gpt-2",
            r#"{"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "add_bos_token": true}"#,
            Some("<|endoftext|>"),
            None,
            false,
        ),
        (
            "gpt-2",
            r#"{"add_bos_token": true, "bos_token": "<|endoftext|>"}"#,
            Some("<|endoftext|>"),
            None,
            true,
        ),
        ("gpt-2", r#"{"model_max_length": 1024}"#, None, None, false),
        ("nemo", r#"{"unk_token": 7, "chat_template": "{{ bos_token }}"}"#, Some("<s>"), None, true),
    ];
    for (name, config, bos, eos, adds_bos) in cases {
        let tokenizer = configured(name, config).unwrap_or_else(|e| panic!("{name} {config}: {e}"));
        let text = |id: Option<u32>| id.map(|id| tokenizer.token(id));
        assert_eq!(text(tokenizer.bos()).as_deref(), bos, "{name} {config}");
        assert_eq!(text(tokenizer.eos()).as_deref(), eos, "{name} {config}");
        assert_eq!(tokenizer.adds_bos(), adds_bos, "{name} {config}");
    }
}

/// A folder without a tokenizer.json: a tokenizer.model, or the vocab.json and merges.txt of one of the kinds, with the files
/// beside them.
fn folder(vocabulary: &str, model_type: &str, files: &Json) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("config.json", json!({"model_type": model_type, "vocab_size": 2000}).to_string());
    // The two are trained alike.
    let model = file(&format!("{}.model", if vocabulary == "phi-3" { "llama-2" } else { vocabulary }));
    if model.exists() {
        std::fs::copy(model, folder.path().join("tokenizer.model")).unwrap();
    } else {
        let json = std::fs::read(file(&format!("{vocabulary}.json"))).unwrap();
        let json: Json = serde_json::from_slice(&json).unwrap();
        write("vocab.json", json["model"]["vocab"].to_string());
        let merges: Vec<(String, String)> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
        let lines = merges.iter().map(|(left, right)| format!("{left} {right}\n"));
        write("merges.txt", format!("#version: 0.2\n{}", lines.collect::<String>()));
    }
    for (name, content) in files.as_object().unwrap() {
        write(name, content.to_string());
    }
    folder
}

fn of_folder(folder: &TempDir) -> causalcone_model::Result<Tokenizer> {
    Tokenizer::from_directory(folder.path()).map(|found| found.unwrap().0)
}

/// tokenizer.model, and vocab.json with merges.txt, give the ids that transformers gives for the same folder.
#[test]
fn folders_without_a_tokenizer_json_give_hugging_faces_ids() {
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(file("folders.json")).unwrap()).unwrap();
    assert!(cases.len() >= 19, "{} cases", cases.len());
    let strings = strings();
    let mut faults = Vec::new();
    for case in &cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let name = text("name");
        let folder = folder(text("vocabulary"), text("model_type"), &case["files"]);
        let tokenizer = match of_folder(&folder) {
            Ok(tokenizer) => tokenizer,
            Err(e) => {
                faults.push(format!("{name}: {e}"));
                continue;
            }
        };
        let kind = KINDS.iter().find(|kind| kind.name == text("ids")).unwrap();
        let mut expected = ids(kind);
        for (place, ids) in case["changed"].as_object().unwrap() {
            expected[place.parse::<usize>().unwrap()] = serde_json::from_value(ids.clone()).unwrap();
        }
        let wrong = differences(&tokenizer, &strings, &expected);
        if !wrong.is_empty() {
            faults.push(format!("{name}, {} wrong:\n{}", wrong.len(), wrong.join("\n")));
        }
        let tokens = u32::try_from(tokenizer.len()).unwrap();
        let special: Vec<u32> = (0..tokens).filter(|id| tokenizer.is_special(*id)).collect();
        let found = json!([tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos(), tokens, special]);
        let said = json!([case["bos"], case["eos"], case["adds_bos"], case["tokens"], case["special"]]);
        if found != said {
            faults.push(format!("{name}: bos, eos, adds_bos, tokens and special are {found}, not {said}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// tokenizer.json comes first, then tokenizer.model, then vocab.json; and each brings its own files.
#[test]
fn one_of_several_tokenizers_is_taken() {
    let found = |folder: &TempDir| {
        let files = TokenizerFiles::find(folder.path()).unwrap()?;
        let names = files.paths().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        Some(names.collect::<Vec<_>>())
    };
    let files = json!({"tokenizer_config.json": {}, "special_tokens_map.json": {}, "added_tokens.json": {}});
    let both = folder("llama-2", "llama", &files);
    assert_eq!(
        found(&both).unwrap(),
        ["tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    );
    std::fs::write(both.path().join("vocab.json"), "{}").unwrap();
    assert_eq!(found(&both).unwrap()[0], "tokenizer.model");
    std::fs::copy(file("llama-2.json"), both.path().join("tokenizer.json")).unwrap();
    assert_eq!(found(&both).unwrap(), ["tokenizer.json", "tokenizer_config.json"]);
    let pair = folder("gpt-2", "gpt2", &json!({}));
    assert_eq!(found(&pair).unwrap(), ["vocab.json", "merges.txt"]);
    assert!(TokenizerFiles::find(tempfile::tempdir().unwrap().path()).unwrap().is_none());
}

/// What transformers, SentencePiece or the files themselves say in two ways, or not at all, is an error that names it.
#[test]
fn what_cannot_be_decided_is_refused() {
    let config = |text: Json| json!({"tokenizer_config.json": text});
    let cases: Vec<(&str, &str, Json, &str)> = vec![
        // SentencePiece.
        ("llama-2", "qwen2", json!({}), "class: no file says which class reads it: tokenizer_class in"),
        (
            "llama-2",
            "llama",
            config(json!({"tokenizer_class": "T5Tokenizer"})),
            "\"T5Tokenizer\" is not supported",
        ),
        (
            "llama-2",
            "gemma",
            json!({}),
            "add_dummy_prefix: is true, but transformers' GemmaTokenizer takes false",
        ),
        (
            "llama-2-unprefixed",
            "llama",
            json!({}),
            "add_dummy_prefix: is false, but transformers' LlamaTokenizer",
        ),
        ("llama-2", "llama", config(json!({"add_eos_token": true})), "add_eos_token: only a token before"),
        ("llama-2", "llama", config(json!({"split_special_tokens": true})), "split_special_tokens: true"),
        ("llama-2", "llama", config(json!({"sp_model_kwargs": {"alpha": 0.1}})), "sp_model_kwargs: settings"),
        ("llama-2", "llama", config(json!({"bos_token": null})), "add_bos_token: is true, but"),
        ("llama-2", "llama", config(json!({"legacy": 1})), "legacy: 1 is not true or false"),
        // vocab.json and merges.txt.
        ("llama-3", "llama", json!({}), "class: no file says how texts are split, and the token "),
        (
            "gpt-2",
            "gpt2",
            config(json!({"tokenizer_class": "BartTokenizer"})),
            "\"BartTokenizer\" is not supported",
        ),
        (
            "qwen-2",
            "qwen2",
            config(json!({"add_prefix_space": true})),
            "add_prefix_space: true is not supported for Qwen2",
        ),
        (
            "qwen-2",
            "qwen2",
            config(json!({"add_bos_token": true})),
            "add_bos_token: true is not supported for Qwen2",
        ),
    ];
    for (vocabulary, model_type, files, words) in cases {
        let said = of_folder(&folder(vocabulary, model_type, &files)).unwrap_err().to_string();
        assert!(said.contains(words), "{vocabulary} {files}: {said}");
    }
}

/// Without a class, GPT-2's split is taken where the merges could come of it: digits that are merged with nothing do not tell.
#[test]
fn merges_tell_whether_they_come_of_gpt_2s_split() {
    for name in ["gpt-2", "smollm", "pythia"] {
        // Those that make a wrong split show are of no split at all.
        let folder = folder(name, "llama", &json!({}));
        let path = folder.path().join("merges.txt");
        let merges = std::fs::read_to_string(&path).unwrap();
        let within = |line: &&str| {
            let text = Spelled(line).text();
            text.is_some_and(|text| text.trim_start_matches(' ').chars().all(char::is_alphabetic))
        };
        let kept: Vec<&str> = merges.lines().filter(|line| line.starts_with('#') || within(line)).collect();
        std::fs::write(&path, kept.join("\n")).unwrap();
        let tokenizer = of_folder(&folder).unwrap();
        assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (None, None, false));
        assert_eq!(tokenizer.decode(&encode(&tokenizer, " Rome is 12")), " Rome is 12");
        std::fs::write(&path, format!("{}\n. a", kept.join("\n"))).unwrap();
        let mut vocab: Json =
            serde_json::from_slice(&std::fs::read(folder.path().join("vocab.json")).unwrap()).unwrap();
        let next = vocab.as_object().unwrap().len();
        vocab.as_object_mut().unwrap().insert(".a".into(), next.into());
        std::fs::write(folder.path().join("vocab.json"), vocab.to_string()).unwrap();
        let said = of_folder(&folder).unwrap_err().to_string();
        assert!(said.contains("the token \".a\" does not come of GPT-2's split"), "{said}");
    }
}

/// A line of merges.txt.
struct Spelled<'a>(&'a str);

impl Spelled<'_> {
    /// The text it makes, if that is ASCII.
    fn text(&self) -> Option<String> {
        let joined = self.0.replace(' ', "").replace('Ġ', " ");
        joined.is_ascii().then_some(joined)
    }
}

/// A text that the vocabulary cannot spell is an error, where the library would leave a part of it out.
#[test]
fn no_part_of_a_text_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("config.json", r#"{"model_type": "llama", "vocab_size": 53}"#);
    write("vocab.json", r#"{"a": 0}"#);
    write("merges.txt", "#version: 0.2\n");
    let tokenizer = of_folder(&folder).unwrap();
    assert_eq!(encode(&tokenizer, "aa"), [0, 0]);
    let said = tokenizer.encode("ahi", 10).unwrap_err().to_string();
    assert!(said.contains("cannot handle \"ahi\": its vocabulary has no token for 'h'"), "{said}");
    // A token that GPT-2's class has is special without being named.
    write("vocab.json", r#"{"a": 0, "<|endoftext|>": 1}"#);
    let tokenizer = of_folder(&folder).unwrap();
    assert_eq!(encode(&tokenizer, "a<|endoftext|>a"), [0, 1, 0]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(1), false));
    // The error names the file that is missing.
    std::fs::remove_file(folder.path().join("merges.txt")).unwrap();
    let said = of_folder(&folder).unwrap_err().to_string();
    assert!(said.contains("merges.txt"), "{said}");
}

/// A whole model with either kind of tokenizer.
#[test]
fn a_model_has_its_tokenizer_from_either_format() {
    let model = tempfile::tempdir().unwrap();
    common::folder::write(model.path(), &common::folder::Safetensors::valid());
    let write = |name: &str, text: &str| std::fs::write(model.path().join(name), text).unwrap();
    write("vocab.json", r#"{"a": 0, "b": 1, "ab": 2}"#);
    write("merges.txt", "#version: 0.2\na b\n");
    write("tokenizer_config.json", r#"{"tokenizer_class": "GPT2Tokenizer"}"#);
    let loaded = common::load(model.path()).unwrap();
    assert_eq!(loaded.prompt("aab", None).unwrap(), [0, 2]);
    let names = loaded.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    let names: Vec<&str> = names.collect();
    let all = ["config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json"];
    assert_eq!(names, all);
    let before = loaded.sha256().unwrap().to_owned();
    write("merges.txt", "#version: 0.2\n");
    let other = common::load(model.path()).unwrap();
    assert_eq!(other.prompt("aab", None).unwrap(), [0, 0, 1]);
    assert_ne!(other.sha256().unwrap(), before);
    write("tokenizer.model", "x");
    let said = common::load(model.path()).unwrap_err().to_string();
    assert!(said.contains("tokenizer.model: document: is broken"), "{said}");
}
