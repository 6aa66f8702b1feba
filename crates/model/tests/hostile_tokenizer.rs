//! Tokenizer files that lie, and texts made to hurt. Every file is one that loads with one thing changed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::file::gguf::Value as Metadata;
use causalcone_model::{Model, Tokenizer};
use common::{Random, Verdict, fixture, load};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A name, part of the message, and what is changed.
type Case = (&'static str, &'static str, fn(&mut Value));

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, text: &[u8]) -> PathBuf {
        let path = self.0.path().join("tokenizer.json");
        common::overwrite(&path, text);
        path
    }
}

fn valid() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("tiny-llama-tied/tokenizer.json")).unwrap()).unwrap()
}

fn refuse(cases: &[Case]) {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    for (name, field, change) in cases {
        let mut file = valid();
        change(&mut file);
        let text = file.to_string();
        drop(file);
        let path = folder.write(text.as_bytes());
        verdict.refused(name, text.len() as u64, field, || Tokenizer::from_json(&path));
    }
    verdict.check();
}

/// The fixture's file with one thing changed, which must load.
fn changed(change: impl FnOnce(&mut Value)) -> Tokenizer {
    let mut file = valid();
    change(&mut file);
    let folder = Folder::new();
    Tokenizer::from_json(&folder.write(file.to_string().as_bytes())).unwrap()
}

fn vocab(file: &mut Value) -> &mut serde_json::Map<String, Value> {
    file["model"]["vocab"].as_object_mut().unwrap()
}

fn added(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": true})
}

fn add(file: &mut Value, token: Value) {
    file["added_tokens"].as_array_mut().unwrap().push(token);
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

#[test]
fn the_unchanged_file_loads() {
    let mut verdict = Verdict::new();
    let path = fixture("tiny-llama-tied/tokenizer.json");
    let tokenizer = verdict.accepted("valid", 8000, || Tokenizer::from_json(&path)).unwrap();
    verdict.check();
    assert_eq!(tokenizer.len(), 300);
    // What the mutations below build on, unharmed.
    let wider = changed(|f| {
        add(f, added(300, "<|im_start|>"));
        f["pre_tokenizer"] =
            json!({"type": "Sequence", "pretokenizers": [split("\\p{N}|\\s+"), byte_level()]});
        f["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"String": "~"}, "content": "-"}]});
    });
    assert_eq!(
        wider.encode("<|im_start|>~", 32).unwrap(),
        [vec![300], wider.encode("-", 32).unwrap()].concat()
    );
}

/// Item 61: files the library below panics, aborts or hangs on when it is given them as they are.
#[test]
fn what_the_library_does_not_survive() {
    refuse(&[
        ("a merge into an absent token", "model.merges: ", |f| f["model"]["merges"] = json!([["a", "☃"]])),
        ("a prefix longer than the token", "model: subword prefixes", |f| {
            f["model"]["continuing_subword_prefix"] = "####".into();
        }),
        ("a suffix", "model: subword prefixes", |f| f["model"]["end_of_word_suffix"] = "</w>".into()),
        ("an unknown token that is none", "model.unk_token: \"[UNK]\"", |f| {
            f["model"]["unk_token"] = "[UNK]".into();
        }),
        ("an empty added token", "added_tokens: the token with id 300 is empty", |f| add(f, added(300, ""))),
        ("Unigram with no piece", "model.type: \"Unigram\"", |f| {
            f["model"] = json!({"type": "Unigram", "unk_id": 7, "vocab": []});
        }),
        ("Unigram with NaN and huge scores", "model.type: \"Unigram\"", |f| {
            f["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 1e308], ["b", -1e308]]});
        }),
        ("WordPiece", "model.type: \"WordPiece\"", |f| {
            f["model"] = json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                                "max_input_chars_per_word": 0, "vocab": {"a": 0}});
        }),
        ("WordLevel", "model.type: \"WordLevel\"", |f| {
            f["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"});
        }),
        ("a precompiled map of garbage", "normalizer: \"Precompiled\"", |f| {
            f["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
        }),
        ("garbage hidden behind another list", "pre_tokenizer: ", |f| {
            f["pre_tokenizer"] = json!({"type": "Sequence", "normalizers": [], "pretokenizers": [
                {"type": "UnicodeScripts"}]});
        }),
        ("a template with a token that is none", "post_processor: \"[CLS]\"", |f| {
            f["post_processor"] = json!({"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {}});
        }),
        ("a template with a token by another id", "post_processor: \"a\" has id 65", |f| {
            f["post_processor"] = json!({"type": "TemplateProcessing", "single": [
                {"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {"a": {"id": "a", "ids": [66], "tokens": ["a"]}}});
        }),
        ("a template with a token after the text", "post_processor: only a token before", |f| {
            f["post_processor"] = json!({"type": "TemplateProcessing", "single": [
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "a", "type_id": 0}}],
                "pair": [], "special_tokens": {}});
        }),
        ("a sequence nested 100 deep", "normalizer: ", |f| {
            let mut inner = json!({"type": "NFC"});
            for _ in 0..60 {
                inner = json!({"type": "Sequence", "normalizers": [inner, {"type": "NFC"}]});
            }
            f["normalizer"] = inner;
        }),
        ("100 000 steps", "normalizer: ", |f| {
            let parts = vec![json!({"type": "NFC"}); 30_000];
            f["normalizer"] = json!({"type": "Sequence", "normalizers": parts});
        }),
        ("dropout", "model.dropout", |f| f["model"]["dropout"] = 0.5.into()),
        ("dropout 1e308", "model.dropout", |f| f["model"]["dropout"] = 1e308.into()),
    ]);
}

/// The document itself.
#[test]
fn documents() {
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let text = valid().to_string();
    let mut refused = |name: &str, field: &str, text: &[u8]| {
        let path = folder.write(text);
        verdict.refused(name, text.len() as u64, field, || Tokenizer::from_json(&path));
    };
    refused("empty", "document: ", b"");
    refused("torn", "document: ", &text.as_bytes()[..text.len() / 2]);
    refused("BOM", "document: ", format!("\u{feff}{text}").as_bytes());
    let mut broken = text.clone().into_bytes();
    let at = broken.iter().position(|byte| *byte > 0x7F).unwrap();
    broken[at] = 0xFF;
    refused("no UTF-8", "document: ", &broken);
    refused("a list", "document: ", b"[]");
    refused("no model", "document: missing field `model`", b"{}");
    refused(
        "an unknown part",
        "document: unknown field `postnormalizer`",
        text.replacen('{', "{\"postnormalizer\":1,", 1).as_bytes(),
    );
    refused(
        "a part twice",
        "document: duplicate field `normalizer`",
        text.replacen('{', "{\"normalizer\":null,", 1).as_bytes(),
    );
    refused(
        "a setting twice",
        "model: duplicate field `vocab`",
        text.replace("\"vocab\":{", "\"vocab\":{},\"vocab\":{").as_bytes(),
    );
    refused(
        "an unknown setting",
        "model: unknown field `fuse_all`",
        text.replace("\"fuse_unk\"", "\"fuse_all\"").as_bytes(),
    );
    refused(
        "a key twice inside a part",
        "pre_tokenizer: duplicate key \"use_regex\"",
        text.replacen("\"use_regex\":true", "\"use_regex\":true,\"use_regex\":false", 1).as_bytes(),
    );
    refused(
        "a token twice",
        "model: token \"a\" is given twice",
        text.replace("\"a\":65", "\"a\":65,\"a\":66").as_bytes(),
    );
    refused("nested 10^5 deep", "document: ", "[".repeat(100_000).as_bytes());
    let deep = "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000);
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let deep = format!("{{\"{part}\":{deep},\"model\":{}}}", valid()["model"]);
        refused(&format!("{part} nested 10^5 deep"), &format!("{part}: recursion limit"), deep.as_bytes());
    }
    let deep_model = format!("{{\"model\":{{\"type\":\"BPE\",\"vocab\":{deep}}}}}");
    refused("the vocabulary nested 10^5 deep", "model: ", deep_model.as_bytes());
    drop(deep_model);
    drop(deep);
    for part in ["normalizer", "pre_tokenizer", "post_processor", "decoder"] {
        let numbers = format!("\"{part}\":[0{}]", ",0".repeat(2_000_000));
        let start = text.find(&format!("\"{part}\":")).unwrap();
        let end = start + text[start..].find(",\"").unwrap();
        let end = match part {
            "pre_tokenizer" => text.find(",\"post_processor\"").unwrap(),
            "decoder" => text.find(",\"model\"").unwrap(),
            _ => end,
        };
        let bomb = [&text[..start], &numbers, &text[end..]].concat();
        refused(&format!("2 million numbers as {part}"), &format!("{part}: more than"), bomb.as_bytes());
    }
    verdict.check();

    // Larger than any real one.
    let path = folder.write(b"{");
    File::options().write(true).open(&path).unwrap().set_len((128 << 20) + 1).unwrap();
    let mut verdict = Verdict::new();
    verdict.refused("129 MB", 0, "tokenizer.json: size: ", || Tokenizer::from_json(&path));
    verdict.check();
}

/// Item 62: patterns that take forever, or give up.
#[test]
fn patterns() {
    refuse(&[
        ("no pattern", "pre_tokenizer: pattern", |f| f["pre_tokenizer"] = split("(a")),
        ("a pattern of 5000 bytes", "pre_tokenizer: a pattern of 5000 bytes", |f| {
            f["pre_tokenizer"] = split(&"a".repeat(5000));
        }),
        ("2000 groups in each other", "pre_tokenizer: pattern", |f| {
            f["pre_tokenizer"] = split(&("(".repeat(2000) + &")".repeat(2000)));
        }),
        ("2000 look-aheads in each other", "pre_tokenizer: pattern", |f| {
            f["pre_tokenizer"] = split(&("(?=".repeat(1000) + "a" + &")".repeat(1000)));
        }),
        ("counted to a billion", "pre_tokenizer: pattern", |f| {
            f["pre_tokenizer"] = split("((((((a{1000}){1000}){1000}){1000}){1000}){1000})");
        }),
        ("counted to a million with a look-ahead", "pre_tokenizer: pattern", |f| {
            f["pre_tokenizer"] = split("(?:\\w{1000}){1000}(?=b)");
        }),
        ("17 patterns", "pre_tokenizer: has more than 16 parts", |f| {
            f["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![split("\\w{50}"); 17]});
        }),
        ("a pattern in a normalizer", "normalizer: only Replace with a text", |f| {
            f["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""});
        }),
        ("a replacement of nothing", "normalizer: only Replace with a text", |f| {
            f["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
        }),
        ("a replacement by a megabyte", "normalizer: it can make a text", |f| {
            f["normalizer"] =
                json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1 << 20)});
        }),
        ("ten doublings of eight", "normalizer: it can make a text", |f| {
            let eight = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaa"});
            f["normalizer"] = json!({"type": "Sequence", "normalizers": vec![eight; 10]});
        }),
        ("a megabyte in front", "normalizer: it can make a text", |f| {
            f["normalizer"] = json!({"type": "Prepend", "prepend": "a".repeat(1 << 20)});
        }),
    ]);

    let catastrophic = ["(a|a)*(?=c)$", "(?:(a*)*)*\\1x", "(a|aa)+(?!a)b"];
    let text = "a".repeat(2000);
    let mut verdict = Verdict::new();
    for pattern in catastrophic {
        let tokenizer = changed(|f| f["pre_tokenizer"] = split(pattern));
        let name = format!("{pattern:?}");
        verdict.refused(&name, 2000, &format!("its pattern {pattern:?} gives up"), || {
            tokenizer.encode(&text, 4000)
        });
        // The same where only an earlier step makes the text it fails on.
        let hidden = changed(|f| {
            f["normalizer"] = json!({"type": "Replace", "pattern": {"String": "~"}, "content": "aaaaaaaa"});
            f["pre_tokenizer"] = split(pattern);
        });
        let name = format!("{pattern:?} behind a normalizer");
        verdict.refused(&name, 2000, "gives up", || hidden.encode(&"~".repeat(1000), 4000));
    }
    // Slow at every place, but never past the limit of one.
    let slow = changed(|f| f["pre_tokenizer"] = split("(?:(?=(?:a|a){1,14}b)b|a)"));
    let _ = verdict.survived("slow at every place", 2000, || slow.encode(&"a".repeat(20_000), 40_000));

    // The patterns of real tokenizers (GPT-4, Llama 3, o200k, DeepSeek) are none of these.
    for pattern in [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[!-/:-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ] {
        let tokenizer = changed(|f| f["pre_tokenizer"] = split(pattern));
        let text = "Der schnelle Fuchs, 12345 Mal!\n\n".repeat(1000);
        let _ = verdict.accepted(pattern, text.len() as u64, || tokenizer.encode(&text, 100_000));
    }
    verdict.check();

    // A pattern that gives up on a whole text is fine where a step before it made words of the text.
    let split_first = changed(|f| {
        f["pre_tokenizer"] =
            json!({"type": "Sequence", "pretokenizers": [split(" "), split("(a+)+(?=b)"), byte_level()]});
    });
    assert!(split_first.encode("aa aab aa", 32).is_ok());
}

/// Item 63.
#[test]
fn added_tokens() {
    refuse(&[
        ("id 2^32-1", "4294967295", |f| add(f, added(u32::MAX, "x1"))),
        ("id 2^32", "added_tokens: invalid value: integer `4294967296`", |f| {
            let mut token = added(0, "x1");
            token["id"] = (1u64 << 32).into();
            add(f, token);
        }),
        ("a negative id", "added_tokens: invalid value: integer `-1`", |f| {
            let mut token = added(0, "x1");
            token["id"] = (-1).into();
            add(f, token);
        }),
        ("a gap", "no token has id 300", |f| add(f, added(301, "x1"))),
        ("two ids for one text", "added_tokens: \"x1\" is given twice", |f| {
            add(f, added(300, "x1"));
            add(f, added(301, "x1"));
        }),
        ("one id for two texts", "added_tokens: id 300 is given to both", |f| {
            add(f, added(300, "x1"));
            add(f, added(300, "x2"));
        }),
        ("the id of another token", "added_tokens: id 65 is given to both", |f| add(f, added(65, "x1"))),
        ("a token of the vocabulary by another id", "added_tokens: \"a\" has id 300 here", |f| {
            add(f, added(300, "a"));
        }),
        ("a megabyte", "added_tokens: the token with id 300 is longer", |f| {
            add(f, added(300, &"x".repeat(1 << 20)));
        }),
        ("an unknown flag", "added_tokens: unknown field `stem`", |f| {
            let mut token = added(300, "x1");
            token["stem"] = true.into();
            add(f, token);
        }),
    ]);
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let tokens = |n: u32| {
        let mut text = valid().to_string();
        let at = text.find("\"added_tokens\":[").unwrap() + 16;
        let list: Vec<String> =
            (300..300 + n).map(|id| format!(r#"{{"id":{id},"content":"<{id}>"}}"#)).collect();
        text.insert_str(at, &format!("{},", list.join(",")));
        text
    };
    let text = tokens(1_000_000);
    let path = folder.write(text.as_bytes());
    verdict.refused(
        "a million",
        text.len() as u64,
        "added_tokens: 1000001 entries are more than 65536",
        || Tokenizer::from_json(&path),
    );
    let text = tokens(20_000);
    let path = folder.write(text.as_bytes());
    if let Some(many) = verdict.accepted("20 000", text.len() as u64, || Tokenizer::from_json(&path)) {
        assert_eq!(many.encode("<20299>", 32).unwrap(), [20_299]);
    }
    verdict.check();
}

/// Item 64.
#[test]
fn vocabularies_and_merges() {
    refuse(&[
        ("empty", "model.vocab: 0 entries", |f| {
            f["added_tokens"] = json!([]);
            f["model"]["merges"] = json!([]);
            vocab(f).clear();
        }),
        ("a gap", "model.vocab: ", |f| {
            vocab(f).insert("zz".into(), 301.into());
        }),
        ("a hole", "model.vocab: no token has id 20", |f| {
            vocab(f).shift_remove("4");
        }),
        ("an id twice", "model.vocab: id 65 is given to both", |f| {
            vocab(f).insert("zz".into(), 65.into());
        }),
        ("a negative id", "model: invalid value: integer `-1`", |f| {
            vocab(f).insert("zz".into(), (-1).into());
        }),
        ("id 2^32-1", "model.vocab: id 4294967295", |f| {
            vocab(f).insert("zz".into(), u32::MAX.into());
        }),
        ("id 2^32", "model: invalid value: integer `4294967296`", |f| {
            vocab(f).insert("zz".into(), (1u64 << 32).into());
        }),
        ("id 1.5", "model: invalid type: floating point `1.5`", |f| {
            vocab(f).insert("zz".into(), 1.5.into());
        }),
        ("id as text", "model: invalid type: string", |f| {
            vocab(f).insert("zz".into(), "300".into());
        }),
        ("a token of a megabyte", "model.vocab: the token with id 300 is longer", |f| {
            vocab(f).insert("z".repeat(1 << 20), 300.into());
        }),
        ("the vocabulary a list", "model: invalid type: sequence", |f| f["model"]["vocab"] = json!(["a"])),
        ("a merge of absent tokens", "model.merges: \"q\" + \"zzz\" needs \"zzz\"", |f| {
            f["model"]["merges"] = json!([["q", "zzz"]]);
        }),
        ("a merge of one", "model.merges: \"ab\" is not two tokens", |f| {
            f["model"]["merges"] = json!(["ab"]);
        }),
        ("a merge of three", "model.merges: ", |f| f["model"]["merges"] = json!([["a", "b", "c"]])),
        ("merges in a circle", "model.merges: \"\"", |f| {
            vocab(f).insert("zz".into(), 300.into());
            f["model"]["merges"] = json!([["", "zz"], ["zz", ""]]);
        }),
        ("a merge twice", "is given twice", |f| {
            let first = f["model"]["merges"][0].clone();
            f["model"]["merges"].as_array_mut().unwrap().push(first);
        }),
    ]);
    let folder = Folder::new();
    let mut verdict = Verdict::new();
    let mut refused = |name: &str, field: &str, text: String| {
        let path = folder.write(text.as_bytes());
        verdict.refused(name, text.len() as u64, field, || Tokenizer::from_json(&path));
    };
    let many: String = (0..1_000_000).map(|id| format!("\"t{id}\":{id},")).collect();
    let text = format!("{{\"model\":{{\"type\":\"BPE\",\"vocab\":{{{many}\"a\":0}},\"merges\":[]}}}}");
    drop(many);
    refused("a million tokens", "model: a vocabulary of more than 524288", text);
    let merges = "\"a b\",".repeat(1_200_000);
    let text = format!(
        "{{\"model\":{{\"type\":\"BPE\",\"vocab\":{{\"a\":0,\"b\":1,\"ab\":2}},\"merges\":[{merges}\"a b\"]}}}}"
    );
    drop(merges);
    refused("1.2 million merges", "model.merges: 1200001 entries are more than 1048576", text);
    let text = format!(
        "{{\"model\":{{\"type\":\"BPE\",\"vocab\":{{\"a\":0,\"b\":1,\"ab\":2}},\"merges\":[{}\"a b\"]}}}}",
        "\"a b\",".repeat(400_000)
    );
    refused("400 000 times the same merge", "model.merges: \"a\" + \"b\" is given twice", text);
    verdict.check();
}

/// `<0x..>` is a byte only with two digits: `from_str_radix` would also take a sign.
#[test]
fn byte_tokens_have_two_digits() {
    let folder = Folder::new();
    let text = json!({
        "model": {"type": "BPE", "byte_fallback": true, "merges": [], "vocab": {
            "<0x41>": 0, "<0x+1>": 1, "<0x-1>": 2, "<0xZZ>": 3, "<0x041>": 4, "<0x>": 5, "▁": 6}},
    });
    let tokenizer = Tokenizer::from_json(&folder.write(text.to_string().as_bytes())).unwrap();
    let texts: Vec<String> = (0..7).map(|id| tokenizer.token(id)).collect();
    assert_eq!(texts, ["A", "<0x+1>", "<0x-1>", "<0xZZ>", "<0x041>", "<0x>", " "]);
}

/// The metadata of a SentencePiece tokenizer that loads: three special tokens, all bytes, some pieces.
struct Pieces {
    tokens: Vec<String>,
    scores: Vec<f64>,
    kinds: Vec<i64>,
    others: Vec<(&'static str, Metadata)>,
}

/// The first id after the bytes.
const FIRST: usize = 259;

impl Pieces {
    fn valid() -> Self {
        let mut valid =
            Self { tokens: Vec::new(), scores: Vec::new(), kinds: Vec::new(), others: Vec::new() };
        for (token, kind) in [("<unk>", 2), ("<s>", 3), ("</s>", 3)] {
            valid.push(token, 0.0, kind);
        }
        for byte in 0..=255u8 {
            valid.push(&format!("<0x{byte:02X}>"), 0.0, 6);
        }
        for (token, score) in [("▁", -9.0), ("a", -8.0), ("b", -7.0), ("ab", -1.0), ("▁ab", -2.0)] {
            valid.push(token, score, 1);
        }
        valid
    }

    fn push(&mut self, token: &str, score: f64, kind: i64) {
        self.tokens.push(token.into());
        self.scores.push(score);
        self.kinds.push(kind);
    }

    fn metadata(self) -> Vec<(String, Metadata)> {
        let mut keys = vec![
            ("model", Metadata::Text("llama".into())),
            ("pre", Metadata::Text("default".into())),
            ("tokens", Metadata::Texts(self.tokens)),
            ("scores", Metadata::Floats(self.scores)),
            ("token_type", Metadata::Integers(self.kinds)),
        ];
        for (key, value) in self.others {
            keys.retain(|(known, _)| *known != key);
            keys.push((key, value));
        }
        keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect()
    }
}

fn sentencepiece(metadata: &[(String, Metadata)]) -> causalcone_model::Result<Tokenizer> {
    Tokenizer::from_gguf(Path::new("a.gguf"), metadata).map(Option::unwrap)
}

/// Item 36, and bytes that are none.
#[test]
fn pieces_and_scores() {
    type Case = (&'static str, &'static str, fn(&mut Pieces));
    let cases: &[Case] = &[
        ("a score of NaN", "ggml.scores: that of id 260 is NaN", |p| p.scores[FIRST + 1] = f64::NAN),
        ("a score of inf", "ggml.scores: that of id 0 is inf", |p| p.scores[0] = f64::INFINITY),
        ("a score missing", "ggml.scores: is not one number", |p| p.scores.truncate(9)),
        ("scores as u8[]", "ggml.scores: is not one number", |p| {
            p.others.push(("scores", Metadata::Integers(vec![200; p.tokens.len()])));
        }),
        ("scores as texts", "ggml.scores: is not one number", |p| {
            p.others.push(("scores", Metadata::Texts(vec!["1".into(); p.tokens.len()])));
        }),
        ("types as texts", "ggml.token_type: is not one number", |p| {
            p.others.push(("token_type", Metadata::Texts(vec!["1".into(); p.tokens.len()])));
        }),
        ("type 0", "ggml.token_type: 0 is no kind", |p| p.kinds[FIRST] = 0),
        ("type 2^63-1", "ggml.token_type: 9223372036854775807", |p| p.kinds[FIRST] = i64::MAX),
        ("type -2^63", "ggml.token_type: -9223372036854775808", |p| p.kinds[FIRST] = i64::MIN),
        ("<0x-1> as a byte", "ggml.tokens: \"<0x-1>\" is a byte by its type", |p| p.push("<0x-1>", 0.0, 6)),
        ("<0xZZ> as a byte", "ggml.tokens: \"<0xZZ>\" is a byte by its type", |p| p.push("<0xZZ>", 0.0, 6)),
        ("<0x0a> as a byte", "ggml.tokens: \"<0x0a>\" is a byte by its type", |p| {
            p.tokens[13] = "<0x0a>".into();
        }),
        ("a byte missing", "ggml.tokens: has 255 of the 256 bytes", |p| {
            p.tokens[13] = "x".into();
            p.kinds[13] = 1;
        }),
        ("a token twice", "ggml.tokens: ids 260 and 264 are both \"a\"", |p| p.push("a", 0.0, 1)),
        ("the same once spaces are written out", "ggml.tokens: ids 259 and 264 are both", |p| {
            p.push(" ", 0.0, 4);
        }),
        ("a million times the same", "ggml.tokens: 1000264 are more than 524288", |p| {
            (0..1_000_000).for_each(|_| p.push("word", 0.0, 1));
        }),
        ("half a million times the same", "ggml.tokens: ids 264 and 265 are both", |p| {
            (0..500_000).for_each(|_| p.push("word", 0.0, 1));
        }),
        ("a million tokens", "ggml.tokens: 1000264 are more than 524288", |p| {
            (0..1_000_000).for_each(|id| p.push(&format!("t{id}"), 0.0, 1));
        }),
        ("spaces within a word", "ggml.tokens: \"a b\" is user-defined", |p| p.push("a b", 0.0, 4)),
        ("an empty special token", "the token with id 264 is empty", |p| p.push("", 0.0, 3)),
        ("a token of a megabyte", "ggml.tokens: they are too long", |p| p.push(&"x".repeat(1 << 20), 0.0, 1)),
        ("a token of two kilobytes", "is longer than", |p| p.push(&"x".repeat(2000), 0.0, 1)),
        ("merges in far too many ways", "ggml.tokens: they can be made of each other", |p| {
            (2..550).for_each(|n| p.push(&"a".repeat(n), 0.0, 1));
        }),
        ("half a million long tokens", "ggml.tokens: they are too long", |p| {
            (0..500_000).for_each(|id| p.push(&format!("{id:060}"), 0.0, 1));
        }),
        ("an unknown token past the end", "ggml.unknown_token_id: id 264 is outside", |p| {
            p.others.push(("unknown_token_id", Metadata::Unsigned(264, 4)));
        }),
        ("an unknown token as text", "ggml.unknown_token_id: \"<unk>\" is not a 32-bit id", |p| {
            p.others.push(("unknown_token_id", Metadata::Text("<unk>".into())));
        }),
        ("bos past the end", "bos: id 264 is outside", |p| {
            p.others.push(("bos_token_id", Metadata::Unsigned(264, 4)));
        }),
        ("bos -1", "ggml.bos_token_id: -1 is not a 32-bit id", |p| {
            p.others.push(("bos_token_id", Metadata::Signed(-1, 4)));
        }),
        ("a space prefix of 1", "ggml.add_space_prefix: 1 is not true or false", |p| {
            p.others.push(("add_space_prefix", Metadata::Unsigned(1, 4)));
        }),
        ("extra spaces removed", "ggml.remove_extra_whitespaces: true is not supported", |p| {
            p.others.push(("remove_extra_whitespaces", Metadata::Bool(true)));
        }),
        ("an end of text added", "ggml.add_eos_token: true is not supported", |p| {
            p.others.push(("add_eos_token", Metadata::Bool(true)));
        }),
        ("a split of another kind", "\"llama-bpe\"", |p| {
            p.others.push(("pre", Metadata::Text("llama-bpe".into())));
        }),
        ("merges of absent tokens", "needs \"q\"", |p| {
            p.others.push(("merges", Metadata::Texts(vec!["q a".into()])));
        }),
        ("merges as numbers", "ggml.merges: is not a list", |p| {
            p.others.push(("merges", Metadata::Integers(vec![1])));
        }),
        ("an unknown key", "ggml.mystery", |p| p.others.push(("mystery", Metadata::Bool(true)))),
        ("a precompiled map", "ggml.precompiled_charsmap", |p| {
            p.others.push(("precompiled_charsmap", Metadata::Integers(vec![1; 1000])));
        }),
    ];
    let mut verdict = Verdict::new();
    for (name, field, change) in cases {
        let mut pieces = Pieces::valid();
        change(&mut pieces);
        let bytes = pieces.tokens.iter().map(|token| token.len() as u64 + 16).sum();
        let metadata = pieces.metadata();
        verdict.refused(name, bytes, field, || sentencepiece(&metadata));
    }
    for missing in ["scores", "token_type", "tokens", "model"] {
        let mut metadata = Pieces::valid().metadata();
        metadata.retain(|(key, _)| key.rsplit('.').next() != Some(missing));
        verdict.refused(missing, 5000, missing, || sentencepiece(&metadata));
    }
    // `<0x-1>` and `<0xZZ>` may be ordinary pieces.
    let mut pieces = Pieces::valid();
    pieces.push("<0x-1>", -3.0, 1);
    pieces.push("<0xZZ>", -3.0, 1);
    let tokenizer = verdict.accepted("valid", 8000, || sentencepiece(&pieces_of(&pieces))).unwrap();
    verdict.check();
    assert_eq!(tokenizer.encode("ab", 10).unwrap(), [263]);
    assert_eq!(tokenizer.encode("b\n", 10).unwrap(), [259, 261, 13]);
    assert_eq!((tokenizer.token(264), tokenizer.token(13)), ("<0x-1>".into(), "\n".into()));
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), true));
}

fn pieces_of(pieces: &Pieces) -> Vec<(String, Metadata)> {
    let (tokens, scores) = (pieces.tokens.clone(), pieces.scores.clone());
    Pieces { tokens, scores, kinds: pieces.kinds.clone(), others: Vec::new() }.metadata()
}

/// A number as protobuf writes it: 7 bits a byte, the lowest first.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let part = u8::try_from(number & 0x7F).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(part);
            return bytes;
        }
        bytes.push(part | 0x80);
    }
}

/// A field whose value is a number.
fn number_field(number: u64, value: u64) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

/// A field whose value is a text or a message.
fn bytes_field(number: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn piece_field(text: &[u8], score: f32, kind: u64) -> Vec<u8> {
    let score = [varint(2 << 3 | 5), score.to_le_bytes().to_vec()].concat();
    bytes_field(1, &[bytes_field(1, text), score, number_field(3, kind)].concat())
}

/// A tokenizer.model that loads: BPE, all bytes, a space before each text.
fn model() -> Vec<u8> {
    [pieces_fields(), trainer_field(2, 1), normalizer_field(&[(3, 1), (4, 0), (5, 1)])].concat()
}

fn pieces_fields() -> Vec<u8> {
    let Pieces { tokens, scores, kinds, .. } = Pieces::valid();
    let pieces = tokens.iter().zip(scores).zip(kinds);
    let fields = pieces.map(|((text, score), kind)| {
        piece_field(text.as_bytes(), score as f32, u64::try_from(kind).unwrap())
    });
    fields.collect::<Vec<_>>().concat()
}

fn trainer_field(model_type: u64, byte_fallback: u64) -> Vec<u8> {
    bytes_field(2, &[number_field(3, model_type), number_field(35, byte_fallback)].concat())
}

fn normalizer_field(flags: &[(u64, u64)]) -> Vec<u8> {
    let flags = flags.iter().map(|(number, flag)| number_field(*number, *flag)).collect::<Vec<_>>().concat();
    bytes_field(3, &[bytes_field(1, b"identity"), flags].concat())
}

/// A folder of a Llama with one file more.
fn llama_with(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "llama", "vocab_size": 264}"#)
        .unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// tokenizer.model, as bytes.
#[test]
fn sentencepiece_files() {
    let (folder, path) = llama_with("tokenizer.model", &model());
    let mut verdict = Verdict::new();
    let read = || Tokenizer::from_sentencepiece(&path);
    let tokenizer = verdict.accepted("valid", 5000, read).unwrap();
    assert_eq!(tokenizer.encode("ab", 10).unwrap(), [263]);
    assert_eq!(tokenizer.encode("b\n", 10).unwrap(), [259, 261, 13]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.adds_bos()), (Some(1), Some(2), true));
    let mut refused = |name: &str, field: &str, bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        verdict.refused(name, bytes.len() as u64, field, read);
    };
    let broken =
        |problem: &str| format!("tokenizer.model: document: is broken, or no SentencePiece model: {problem}");
    let then = |more: &[u8]| [&model(), more].concat();
    refused("empty", &broken("it has no pieces"), b"");
    refused("one byte", &broken("byte 1: it ends within a field"), b"x");
    refused("a text", &broken("byte "), b"version https://git-lfs.github.com/spec/v1\n");
    refused("zeros", &broken("byte 0: 0 is not a field's number"), &[0; 64]);
    refused("a zip archive", &broken("byte "), b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    refused("JSON", &broken("byte "), b"{\"model\": {}}");
    refused("tiktoken", "vocabulary format \"tiktoken\" is not supported", b"IQ== 0\nIg== 1\n");
    // Lengths and numbers.
    for length in [u64::MAX, 1 << 63, 1 << 32, 1 << 31, 1] {
        let bytes = [varint(1 << 3 | 2), varint(length)].concat();
        let problem = format!("byte 0: field 1 is {length} bytes long, and 0 are left");
        refused("a long field", &broken(&problem), &bytes);
    }
    let nested = bytes_field(1, &[varint(1 << 3 | 2), varint(1 << 40)].concat());
    refused("a piece longer than its message", &broken("piece 0: byte 2: field 1 is 1099511627776"), &nested);
    refused("a number of 11 bytes", &broken("byte "), &then(&[&[0x78][..], &[0x80; 10], &[1]].concat()));
    refused("a number past 64 bits", &broken("byte "), &then(&[&[0x78][..], &[0xFF; 9], &[2]].concat()));
    refused("a number without end", &broken("byte "), &[0xFF; 1 << 20]);
    for wire in [3, 4, 6, 7] {
        let problem = format!("field 9 has the unknown wire type {wire}");
        refused("a wire type", &problem, &then(&varint(9 << 3 | wire)));
    }
    refused("field 0", "0 is not a field's number", &then(&number_field(0, 1)));
    refused("field 2^29", "536870912 is not a field's number", &then(&number_field(1 << 29, 1)));
    refused("pieces as a number", "pieces is not written as bytes", &then(&number_field(1, 1)));
    refused(
        "a type as text",
        "type is not written as a varint",
        &then(&bytes_field(1, &bytes_field(3, b"1"))),
    );
    refused(
        "a score as a number",
        "score is not written as 4 bytes",
        &then(&bytes_field(1, &number_field(2, 1))),
    );
    // Pieces.
    let piece = |text: &[u8], score: f32, kind: u64| then(&piece_field(text, score, kind));
    refused("a score of NaN", "piece 264: its score is NaN", &piece(b"ba", f32::NAN, 1));
    refused("a score of inf", "piece 264: its score is inf", &piece(b"ba", f32::INFINITY, 1));
    refused("no text", "piece 264: it has no text", &piece(b"", 0.0, 1));
    refused("no UTF-8", "piece is not UTF-8", &piece(b"\xff", 0.0, 1));
    for kind in [0, 7, u64::MAX, 1 << 63] {
        refused("a kind", "piece 264: type ", &piece(b"ba", 0.0, kind));
    }
    refused("a piece twice", "pieces: ids 260 and 264 are both \"a\"", &piece(b"a", 0.0, 1));
    refused("<0xZZ> as a byte", "pieces: \"<0xZZ>\" is a byte by its type", &piece(b"<0xZZ>", 0.0, 6));
    refused("no bytes by the trainer", "pieces: byte_fallback is false", &then(&trainer_field(2, 0)));
    refused("two unknown pieces", "pieces: not exactly one is the unknown", &piece(b"<unk2>", 0.0, 2));
    let known = [piece_field(b"a", 0.0, 1), trainer_field(2, 0), normalizer_field(&[(4, 0)])].concat();
    refused("no unknown piece", "pieces: not exactly one is the unknown", &known);
    refused("an unused piece of two", "pieces: \"ba\" is marked as unused", &piece(b"ba", 0.0, 5));
    refused("a piece of a megabyte", "pieces: they are too long", &piece(&[b'x'; 1 << 20], 0.0, 1));
    refused("a piece of two kilobytes", "is longer than", &piece(&[b'x'; 2000], 0.0, 1));
    let runs = (2..550).map(|n| piece_field(&vec![b'a'; n], 0.0, 1)).collect::<Vec<_>>().concat();
    refused("merges in far too many ways", "pieces: they can be made of each other", &then(&runs));
    let empty = piece_field(b"w", 0.0, 1).repeat(1_000_000);
    refused("a million pieces", &broken("it has more than 524288 pieces"), &empty);
    refused(
        "half a million times the same",
        "pieces: ids 264 and 265",
        &then(&piece_field(b"w", 0.0, 1).repeat(500_000)),
    );
    let many =
        (0..500_000).map(|id| piece_field(format!("t{id}").as_bytes(), 0.0, 1)).collect::<Vec<_>>().concat();
    refused(
        "the last of many twice",
        "pieces: ids 499264 and 500264",
        &[then(&many), piece_field(b"t499000", 0.0, 1)].concat(),
    );
    drop(many);
    // Settings.
    for (number, name) in [(1, "unigram"), (3, "word"), (4, "char"), (77, "77"), (u64::MAX, "-1")] {
        let problem = format!("SentencePiece model type \"{name}\" is not supported; supported: bpe");
        refused(name, &problem, &then(&trainer_field(number, 1)));
    }
    refused("without settings", "SentencePiece model type \"unigram\"", &pieces_fields());
    let map = bytes_field(3, &[bytes_field(1, b"nmt_nfkc"), bytes_field(2, b"AAAA")].concat());
    refused("a map of characters", "SentencePiece normalizer \"nmt_nfkc\" is not supported", &then(&map));
    refused("spaces removed", "\"remove_extra_whitespaces = true\"", &then(&normalizer_field(&[(4, 1)])));
    refused("spaces as they are", "\"escape_whitespaces = false\"", &then(&normalizer_field(&[(5, 0)])));
    let suffix = bytes_field(2, &number_field(24, 1));
    refused("spaces after words", "\"treat_whitespace_as_suffix = true\"", &then(&suffix));
    // A message that is skipped may hold anything.
    let mut deep = Vec::new();
    for _ in 0..1000 {
        deep = bytes_field(9, &deep);
    }
    for (name, more) in [
        ("nested 1000 deep where nobody looks", deep),
        ("an extension", bytes_field(200, &[0xFF; 100])),
        ("a test of the file", bytes_field(4, b"\xff\xff")),
        ("8 bytes", [varint(9 << 3 | 1), vec![7; 8]].concat()),
        ("settings twice", trainer_field(2, 1)),
        ("an unused piece of one character", piece_field("é".as_bytes(), 0.0, 5)),
    ] {
        std::fs::write(&path, then(&more)).unwrap();
        verdict.accepted(name, 10_000, read);
    }
    verdict.check();
    drop(folder);
}

/// A file cut off anywhere is an error that names it.
#[test]
fn a_sentencepiece_file_cut_off_anywhere() {
    let bytes = model();
    let (_folder, path) = llama_with("tokenizer.model", &bytes);
    let file = File::options().write(true).open(&path).unwrap();
    let mut verdict = Verdict::new();
    for length in (0..bytes.len() as u64).rev() {
        file.set_len(length).unwrap();
        verdict.refused(&format!("{length} bytes"), 5000, "tokenizer.model: ", || {
            Tokenizer::from_sentencepiece(&path)
        });
    }
    verdict.check();
    // Larger than any real one.
    File::options().write(true).open(&path).unwrap().set_len((16 << 20) + 1).unwrap();
    let mut verdict = Verdict::new();
    verdict.refused("17 MB", 0, "tokenizer.model: size: ", || Tokenizer::from_sentencepiece(&path));
    verdict.check();
}

/// The small files beside a tokenizer.model.
#[test]
fn files_beside_a_vocabulary() {
    let (folder, path) = llama_with("tokenizer.model", &model());
    let mut verdict = Verdict::new();
    let read = || Tokenizer::from_sentencepiece(&path);
    let mut refused = |name: &str, field: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let shown: String = text.chars().take(60).collect();
        verdict.refused(&shown, text.len() as u64, &format!("{name}: {field}"), read);
        std::fs::remove_file(&file).unwrap();
    };
    for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
        refused(name, "document: ", "");
        refused(name, "document: is not an object", "[]");
        refused(name, "document: ", "{\"a\": ");
        refused(name, "document: duplicate key", r#"{"a": 0, "a": 1}"#);
        refused(name, "document: recursion limit", &"[".repeat(100_000));
        refused(name, "document: more than", &format!("{{\"x\":[0{}]}}", ",0".repeat(2_000_000)));
    }
    let config = "tokenizer_config.json";
    refused(config, "tokenizer_class: is neither", r#"{"tokenizer_class": 7}"#);
    for key in ["add_bos_token", "add_prefix_space", "legacy", "add_eos_token", "split_special_tokens"] {
        refused(config, &format!("{key}: \"x\" is not true or false"), &format!("{{\"{key}\": \"x\"}}"));
    }
    for key in ["bos_token", "pad_token", "mask_token"] {
        for wrong in ["7", "true", "[\"a\"]", "{}", "{\"content\": 7}"] {
            refused(config, &format!("{key}: "), &format!("{{\"{key}\": {wrong}}}"));
        }
        refused(
            config,
            &format!("{key}: lstrip: 1"),
            &format!(r#"{{"{key}": {{"content": "a", "lstrip": 1}}}}"#),
        );
        refused(config, &format!("{key}: a token is empty"), &format!(r#"{{"{key}": ""}}"#));
    }
    refused(config, "additional_special_tokens: is not a list", r#"{"additional_special_tokens": "x"}"#);
    refused(config, "added_tokens_decoder: is not an object", r#"{"added_tokens_decoder": [1]}"#);
    for (id, problem) in [
        ("x", "x: is not an id"),
        ("-1", "-1: is not an id"),
        ("4294967296", "4294967296: is not an id"),
        ("1.5", "1.5: is not an id"),
    ] {
        let text = format!(r#"{{"added_tokens_decoder": {{"{id}": {{"content": "<x>"}}}}}}"#);
        refused(config, &format!("added_tokens_decoder: {problem}"), &text);
    }
    refused(
        config,
        "added_tokens_decoder: 264: is not a token",
        r#"{"added_tokens_decoder": {"264": "<x>"}}"#,
    );
    refused(
        config,
        "added_tokens_decoder: 0264: is given twice",
        r#"{"added_tokens_decoder": {"264": {"content": "<x>"}, "0264": {"content": "<y>"}}}"#,
    );
    refused(
        config,
        "added tokens: \"a\" has id 264 here and 260",
        r#"{"added_tokens_decoder": {"264": {"content": "a"}}}"#,
    );
    let added = "added_tokens.json";
    refused(added, "<x>: -1 is not an id", r#"{"<x>": -1}"#);
    refused(added, "<x>: 4294967296 is not an id", r#"{"<x>": 4294967296}"#);
    refused(added, "<y>: has id 264, and so has \"<x>\"", r#"{"<x>": 264, "<y>": 264}"#);
    refused(added, "added tokens: a token is empty", r#"{"": 264}"#);
    let many: Vec<String> = (264..70_000).map(|id| format!("\"<{id}>\":{id}")).collect();
    refused(added, "tokens: 69736 are more than 65536", &format!("{{{}}}", many.join(",")));
    // What the vocabulary itself has to say to them.
    let model = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let said = read().map(|_| ()).map_err(|e| e.to_string());
        std::fs::remove_file(&file).unwrap();
        said
    };
    for (name, text, words) in [
        (added, r#"{"<x>": 300}"#, "id 300 leaves smaller ones without a token"),
        (added, r#"{"<x>": 4294967295}"#, "id 4294967295"),
        (added, r#"{"<x>": 70}"#, "id 70 is given to both"),
        (added, r#"{"a": 261}"#, "\"a\" has id 261 here and 260 in the vocabulary"),
    ] {
        let said = model(name, text).unwrap_err();
        assert!(said.contains(words), "{text}: {said}");
    }
    assert_eq!(model(added, r#"{"<x>": 265, "<y>": 264}"#), Ok(()));
    std::fs::write(folder.path().join(config), "{}").unwrap();
    File::options().write(true).open(folder.path().join(config)).unwrap().set_len((8 << 20) + 1).unwrap();
    verdict.refused("9 MB", 0, "tokenizer_config.json: size: ", read);
    std::fs::remove_file(folder.path().join(config)).unwrap();
    std::fs::create_dir(folder.path().join(config)).unwrap();
    verdict.refused("a folder", 0, "tokenizer_config.json is not a regular file", read);
    std::fs::remove_dir(folder.path().join(config)).unwrap();
    for name in ["tokenizer.model", "special_tokens_map.json"] {
        let elsewhere = Folder::new();
        let link = folder.path().join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(elsewhere.write(b"{}"), &link).unwrap();
        let field = format!("{name}: path: leads out of its folder");
        verdict.refused(name, 0, &field, || Tokenizer::from_directory(folder.path()));
        std::fs::remove_file(&link).unwrap();
        std::fs::write(folder.path().join("tokenizer.model"), b"x").unwrap();
    }
    verdict.check();
}

/// vocab.json and merges.txt.
#[test]
fn vocabularies_with_merges_beside_them() {
    let (folder, path) = llama_with("vocab.json", b"");
    let merges = folder.path().join("merges.txt");
    let mut verdict = Verdict::new();
    let read = || Tokenizer::from_vocab_and_merges(&path);
    let (tokens, pairs) = (r#"{"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4}"#, "#version: 0.2\na b\nĠ ab\n");
    for (name, pairs) in [
        ("valid", pairs.to_owned()),
        ("no last line end", pairs.trim_end().to_owned()),
        ("lines that end as in Windows", pairs.replace('\n', "\r\n")),
        ("no version", pairs.replacen("#version: 0.2\n", "", 1)),
        ("empty lines", pairs.replace('\n', "\n\n")),
    ] {
        std::fs::write(&path, tokens).unwrap();
        std::fs::write(&merges, pairs).unwrap();
        let tokenizer = verdict.accepted(name, 100, read).unwrap();
        assert_eq!(tokenizer.encode("ab ab", 10).unwrap(), [2, 4], "{name}");
    }
    let mut refused = |name: &str, field: &str, tokens: &[u8], pairs: &[u8]| {
        std::fs::write(&path, tokens).unwrap();
        std::fs::write(&merges, pairs).unwrap();
        verdict.refused(name, (tokens.len() + pairs.len()) as u64, field, read);
    };
    let mut vocabulary = |name: &str, field: &str, tokens: &str| {
        refused(name, &format!("vocab.json: {field}"), tokens.as_bytes(), b"#version: 0.2\n");
    };
    vocabulary("empty", "document: ", "");
    vocabulary("torn", "document: ", r#"{"a": 0, "b"#);
    vocabulary("BOM", "document: ", "\u{feff}{\"a\": 0}");
    vocabulary("a list", "document: ", "[\"a\"]");
    vocabulary("no tokens", "tokenizer: model.vocab: 0 entries", "{}");
    vocabulary("a token twice", "document: token \"a\" is given twice", r#"{"a": 0, "a": 1}"#);
    vocabulary("a gap", "tokenizer: model.vocab: id 2 leaves", r#"{"a": 0, "b": 2}"#);
    vocabulary("an id twice", "tokenizer: model.vocab: id 0 is given to both", r#"{"a": 0, "b": 0}"#);
    vocabulary("a negative id", "document: invalid value", r#"{"a": -1}"#);
    vocabulary("id 2^32", "document: invalid value", r#"{"a": 4294967296}"#);
    vocabulary("id 2^32-1", "tokenizer: model.vocab: id 4294967295", r#"{"a": 4294967295}"#);
    vocabulary("id 1.5", "document: invalid type", r#"{"a": 1.5}"#);
    vocabulary("id as a text", "document: invalid type", r#"{"a": "0"}"#);
    vocabulary("nested 10^5 deep", "document: ", &"{\"a\":".repeat(100_000));
    vocabulary(
        "a token of a megabyte",
        "tokenizer: model.vocab: the token",
        &format!("{{\"{}\": 0}}", "x".repeat(1 << 20)),
    );
    let many: String = (0..600_000).map(|id| format!("\"t{id}\":{id},")).collect();
    vocabulary("600 000 tokens", "document: a vocabulary of more than", &format!("{{{many}\"a\":600000}}"));
    drop(many);
    let mut lines = |name: &str, field: &str, pairs: &[u8]| refused(name, field, tokens.as_bytes(), pairs);
    lines("no UTF-8", "merges.txt: text: ", b"#version: 0.2\n\xff b\n");
    lines("one token", "merges.txt: line 2: \"ab\" is not two tokens", b"#version: 0.2\nab\n");
    lines("three tokens", "merges.txt: line 1: \"a b ab\" is not two tokens", b"a b ab\n");
    lines("two spaces", "merges.txt: line 1: ", b"a  b\n");
    lines("a space at the end", "merges.txt: line 1: ", b"a b \n");
    lines("absent tokens", "vocab.json: tokenizer: model.merges: \"q\" + \"a\" needs \"q\"", b"q a\n");
    lines("a merge into an absent token", "needs \"ba\"", b"b a\n");
    lines("a merge twice", "is given twice", b"a b\na b\n");
    lines(
        "1.2 million merges",
        "merges.txt: merges: 1200000 are more than 1048576",
        &b"a b\n".repeat(1_200_000),
    );
    lines("400 000 times the same merge", "is given twice", &b"a b\n".repeat(400_000));
    lines(
        "a million merges of signs",
        "class: no file says how texts are split, and there are too many",
        &b". .\n".repeat(1_000_000),
    );
    lines("a line of ten megabytes", "merges.txt: line 1: ", &vec![b'a'; 10 << 20]);
    lines("zeros", "merges.txt: line 1: ", &[0; 1000]);
    std::fs::write(&path, tokens).unwrap();
    File::options().write(true).open(&merges).unwrap().set_len((16 << 20) + 1).unwrap();
    verdict.refused("17 MB of merges", 0, "merges.txt: size: ", read);
    std::fs::remove_file(&merges).unwrap();
    verdict.refused("no merges", 0, "merges.txt", read);
    File::options().write(true).open(&path).unwrap().set_len((16 << 20) + 1).unwrap();
    verdict.refused("17 MB of tokens", 0, "vocab.json: size: ", read);
    verdict.check();
}

/// Any byte of a tokenizer.model may be anything.
#[test]
fn random_bytes_of_a_sentencepiece_file() {
    let bytes = model();
    let (_folder, path) = llama_with("tokenizer.model", &bytes);
    let file = File::options().write(true).open(&path).unwrap();
    let mut random = Random(0x5EED_4321);
    let mut verdict = Verdict::new();
    let mut loaded = 0;
    for round in 0..1500 {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            // The settings at the end matter as much as the pieces.
            let start = if round % 2 == 0 { bytes.len() - 120 } else { 0 };
            let at = start + random.below(bytes.len() - start);
            changed[at] = match random.below(2) {
                0 => changed[at] ^ (1 << random.below(8)),
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        // In place, since writing a file anew takes milliseconds.
        file.write_all_at(&changed, 0).unwrap();
        let read = || Tokenizer::from_sentencepiece(&path);
        if let Some(tokenizer) = verdict.survived(&format!("round {round}"), bytes.len() as u64, read) {
            loaded += 1;
            let _ = verdict.survived("a text", 1000, || tokenizer.encode("ab <s> b\u{301}\n", 100));
        }
    }
    println!("{loaded} of 1500 loaded");
    assert!((1..1400).contains(&loaded), "{loaded} loaded");
    verdict.check();
}

/// As many pieces as Gemma has, each of which can be made in several ways.
#[test]
fn a_vocabulary_as_large_as_the_largest() {
    let mut pieces = Pieces::valid();
    (b'c'..=b'p').for_each(|letter| pieces.push(char::from(letter).encode_utf8(&mut [0; 4]), 0.0, 1));
    let left = 262_144 - u32::try_from(pieces.tokens.len()).unwrap();
    for id in 0..left {
        let word: String = (0..5).map(|place| char::from(b'a' + (id >> (4 * place) & 15) as u8)).collect();
        pieces.push(word.trim_end_matches('a'), -f64::from(id), 1);
        if pieces.tokens.last().is_some_and(|last| last.len() < 3) {
            // Short ones come again when padded, and are there already.
            let last = pieces.tokens.len() - 1;
            pieces.tokens[last] = format!("{word}a{id}");
        }
    }
    let metadata = pieces.metadata();
    let start = std::time::Instant::now();
    let tokenizer = sentencepiece(&metadata).unwrap();
    println!("{} tokens in {:.1?}", tokenizer.len(), start.elapsed());
    assert_eq!(tokenizer.len(), 262_144);
    assert!(start.elapsed().as_secs() < 10);
}

/// tokenizer_config.json beside a tokenizer.json that is in order.
#[test]
fn configurations() {
    let folder = Folder::new();
    let tokenizer = folder.write(valid().to_string().as_bytes());
    let path = folder.0.path().join("tokenizer_config.json");
    let mut verdict = Verdict::new();
    let mut refused = |name: &str, field: &str, text: &[u8]| {
        common::overwrite(&path, text);
        let field = format!("tokenizer_config.json: {field}");
        verdict.refused(name, text.len() as u64, &field, || Tokenizer::from_json(&tokenizer));
    };
    refused("empty", "document: ", b"");
    refused("a list", "document: is not an object", b"[]");
    refused("a text", "document: is not an object", b"\"<s>\"");
    refused("torn", "document: ", b"{\"bos_token\": \"<s");
    refused("BOM", "document: ", "\u{feff}{}".as_bytes());
    refused("no UTF-8", "document: ", b"{\"bos_token\": \"\xff\"}");
    refused("a key twice", "document: duplicate key", br#"{"bos_token": "a", "bos_token": "b"}"#);
    refused("nested 10^5 deep", "document: recursion limit", "[".repeat(100_000).as_bytes());
    let deep = format!("{{\"x\":{}1{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    refused("an object nested 10^5 deep", "document: recursion limit", deep.as_bytes());
    refused(
        "2 million numbers",
        "document: more than",
        format!("{{\"x\":[0{}]}}", ",0".repeat(2_000_000)).as_bytes(),
    );
    for key in ["bos_token", "eos_token"] {
        for wrong in ["7", "true", "[\"a\"]", "{}", "{\"content\": 7}"] {
            let text = format!("{{\"{key}\": {wrong}}}");
            refused(&text, &format!("{key}: is neither a text"), text.as_bytes());
        }
        let text = format!("{{\"{key}\": \"<none>\"}}");
        refused(&text, &format!("{key}: \"<none>\" is not a token"), text.as_bytes());
        let text = format!("{{\"{key}\": \"{}\"}}", "x".repeat(1 << 20));
        refused("a name of a megabyte", key, text.as_bytes());
    }
    for key in ["add_bos_token", "add_eos_token"] {
        for wrong in ["7", "\"true\"", "[]", "{}"] {
            let text = format!("{{\"{key}\": {wrong}}}");
            refused(&text, &format!("{key}: {wrong} is not true or false"), text.as_bytes());
        }
    }
    refused("a class of 7", "tokenizer_class: is neither", br#"{"tokenizer_class": 7}"#);
    refused("an end of text added", "add_eos_token: only a token before", br#"{"add_eos_token": true}"#);
    refused("no token to add", "add_bos_token: is true, but", br#"{"add_bos_token": true}"#);
    refused(
        "no token to add by default",
        "add_bos_token: is true, but",
        br#"{"tokenizer_class": "LlamaTokenizer", "bos_token": null}"#,
    );
    File::options().write(true).open(&path).unwrap().set_len((8 << 20) + 1).unwrap();
    verdict.refused("9 MB", 0, "tokenizer_config.json: size: ", || Tokenizer::from_json(&tokenizer));
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    verdict.refused("a folder", 0, "tokenizer_config.json is not a regular file", || {
        Tokenizer::from_json(&tokenizer)
    });
    verdict.check();
}

/// A tokenizer that does not fit its model, found by the model.
#[test]
fn more_tokens_than_rows() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("tiny-llama-tied")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let mut file = valid();
    add(&mut file, added(300, "<|extra|>"));
    common::overwrite(folder.path().join("tokenizer.json"), file.to_string());
    let mut verdict = Verdict::new();
    verdict.refused(
        "one more",
        200_000,
        "vocabulary: has 301 tokens, but the model's embedding only 300",
        || load(folder.path()),
    );
    common::overwrite(folder.path().join("tokenizer.json"), "{");
    verdict.refused("broken", 200_000, "tokenizer.json: document: ", || load(folder.path()));
    common::overwrite(folder.path().join("tokenizer.json"), valid().to_string());
    let elsewhere = Folder::new();
    std::os::unix::fs::symlink(elsewhere.write(b"{}"), folder.path().join("tokenizer_config.json")).unwrap();
    verdict.refused(
        "a configuration from elsewhere",
        200_000,
        "tokenizer_config.json: path: leads out",
        || load(folder.path()),
    );
    verdict.check();
}

/// Item 65: texts.
#[test]
fn texts() {
    let model: Model = load(&fixture("tiny-llama-tied")).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let mut verdict = Verdict::new();
    for (name, text) in [
        ("10^7 times a", "a".repeat(10_000_000)),
        ("10^6 combining marks", "\u{301}".repeat(1_000_000)),
        ("10^6 spaces", " ".repeat(1_000_000)),
        ("10^6 special tokens", "<|endoftext|>".repeat(1_000_000)),
    ] {
        let bytes = text.len() as u64;
        let field = format!("the text has {bytes} bytes, which cannot fit the 32 tokens");
        verdict.refused(name, bytes, &field, || model.prompt(&text, None));
    }
    // What may be long enough to be split first.
    let text = "a".repeat(200);
    verdict.refused("200 times a", 200, "tokens, and this model's context holds 32", || {
        model.prompt(&text, None)
    });
    verdict.refused("nothing", 0, "the prompt is empty", || model.prompt("", None));
    // A long context: nothing may take more than linear time.
    for (name, text) in [
        ("10^5 times a", "a".repeat(100_000)),
        ("10^5 combining marks", "e".to_owned() + &"\u{301}".repeat(100_000)),
        ("10^5 digits", "1".repeat(100_000)),
        ("10^5 new lines", "\n".repeat(100_000)),
        ("10^5 apostrophes", "'".repeat(100_000)),
    ] {
        let ids = verdict.accepted(name, text.len() as u64, || tokenizer.encode(&text, 10_000_000));
        assert!(ids.is_none_or(|ids| tokenizer.decode(&ids) == text), "{name}");
    }
    // Every byte comes back.
    for text in [
        "\u{feff}a",
        "a\u{feff}",
        "\0",
        "a\0b",
        "\u{202e}abc\u{202c} \u{5d0}\u{5d1}",
        "\u{85}",
        "a\u{85}b",
        "\u{2028}\u{2029}",
        "e\u{301}\u{301}\u{301}",
        "\u{fffd}\u{ffff}\u{10ffff}",
        "\r\n\t\u{b}\u{c}",
        "{{ }} {% x %} <bos> <s> <|im_end|",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    ] {
        let ids = verdict.accepted(&format!("{text:?}"), 100, || tokenizer.encode(text, 1000)).unwrap();
        assert_eq!(tokenizer.decode(&ids), text, "{text:?}");
        let _ = verdict.survived("one token", 100, || tokenizer.one_token(text));
    }
    // JSON cannot bring half a character in.
    assert!(serde_json::from_str::<String>(r#""\ud800""#).is_err());
    // The text of an unknown id, and of many.
    assert_eq!(tokenizer.token(u32::MAX), "[4294967295]");
    assert_eq!(tokenizer.decode(&[u32::MAX, 65]), "a");
    verdict.check();
}

/// Any byte of the file may be anything. What the library still panics on is caught at its border,
/// and must come out as an error.
#[test]
fn random_bytes() {
    let folder = Folder::new();
    let bytes = valid().to_string().into_bytes();
    let model = bytes.windows(8).position(|w| w == b"\"model\":").unwrap();
    let path = folder.write(&bytes);
    let file = File::options().write(true).open(&path).unwrap();
    let mut random = Random(0x7070_1234);
    let mut verdict = Verdict::new();
    let mut loaded = 0;
    for round in 0..3000 {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            // The small parts matter as much as the long lists.
            let at = if round % 2 == 0 { random.below(model + 200) } else { random.below(bytes.len()) };
            changed[at] = match random.below(3) {
                0 => changed[at] ^ (1 << random.below(8)),
                1 => b"0123456789{}[],:\"-e."[random.below(20)],
                _ => u8::try_from(random.below(256)).unwrap(),
            };
        }
        // In place, since writing a file anew takes milliseconds.
        file.write_all_at(&changed, 0).unwrap();
        let name = format!("round {round}");
        if let Some(tokenizer) = verdict.survived(&name, bytes.len() as u64, || Tokenizer::from_json(&path)) {
            loaded += 1;
            let _ = verdict
                .survived(&name, 1000, || tokenizer.encode("The capital of\u{301} 123 <|endoftext|>", 100));
        }
    }
    println!("{loaded} of 3000 loaded");
    assert!((1..2500).contains(&loaded), "{loaded} loaded");
    verdict.check();
}
