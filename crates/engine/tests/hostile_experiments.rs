//! Experiment files and journals that lie: refused with an error that names what is wrong, in a
//! second, in little memory, before any work, and without a file being harmed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a test that cannot go on has failed"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;

use causalcone_engine::{Experiment, ExperimentFile, Journal, PreparedSweep, Result};
use causalcone_model::Model;
use common::folder::Safetensors;
use common::{Random, Verdict, fixture, load};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;

fn model() -> Model {
    load(&fixture("tiny-llama-tied")).unwrap()
}

/// An experiment that works: two runs, a patch, a sweep.
fn valid() -> Value {
    json!({
        "runs": {"base": {"ids": [1, 2, 3, 4, 5]}, "other": {"ids": [5, 4, 3, 2, 1]}},
        "edit": [{"name": "patch", "run": "base", "site": "block_output", "layers": "all",
                  "positions": [1, 2], "op": "swap", "value": {"run": "other"}}],
        "read": {"run": "base", "top": 3, "tokens": [7, 8]},
        "sweep": {"edit": "patch", "layers": "each", "positions": "each", "metrics": ["prob"]},
    })
}

/// From the text to the plan of the sweep: everything that happens before any work.
fn prepared(text: &str, model: &Model) -> Result<usize> {
    let file = ExperimentFile::from_json(text)?;
    let experiment = file.experiment(model)?;
    let prepared = PreparedSweep::new(&experiment)?;
    Ok(prepared.cells())
}

/// A name, part of the message, and what is changed.
type Case = (&'static str, &'static str, fn(&mut Value));

fn refuse(cases: &[Case]) {
    let model = model();
    let mut verdict = Verdict::new();
    for (name, field, change) in cases {
        let mut file = valid();
        change(&mut file);
        let text = file.to_string();
        drop(file);
        verdict.refused(name, text.len() as u64, field, || prepared(&text, &model));
    }
    verdict.check();
}

#[test]
fn the_unchanged_experiment_runs() {
    let model = model();
    let mut verdict = Verdict::new();
    let cells = verdict.accepted("valid", 1000, || prepared(&valid().to_string(), &model));
    assert_eq!(cells, Some(4));
    verdict.check();
}

/// Item 68: the texts.
#[test]
fn documents() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    let valid = valid().to_string();
    let mut refused = |name: &str, field: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        verdict.refused(name, text.len() as u64, field, || ExperimentFile::load(&path));
    };
    refused("torn.json", "EOF", &valid.as_bytes()[..valid.len() / 2]);
    refused("empty.json", "EOF", b"");
    refused("not UTF-8.json", "is not UTF-8", b"{\"model\": \"\xFF\"}");
    refused("not UTF-8.toml", "is not UTF-8", b"model = '\xFF'");
    refused("UTF-16.toml", "is not UTF-8", b"\xFF\xFEm\0o\0");
    refused("NUL.toml", "line 1, column 11", b"model = 'a\0'");
    refused("lists nested.json", "recursion limit", "[".repeat(100_000).as_bytes());
    refused("maps nested.json", "recursion limit", "{\"runs\":".repeat(100_000).as_bytes());
    for (depth, field) in [(60_000, "max recursion depth met"), (100_000, "lines and values are more than")] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        refused("lists nested.toml", field, format!("model = {open}").as_bytes());
        refused("closed lists nested.toml", field, format!("model = {open}{close}").as_bytes());
        refused("maps nested.toml", field, format!("model = {}", "{a=".repeat(depth / 2 + 1000)).as_bytes());
    }
    refused("dotted keys.toml", "recursion limit", format!("runs{} = 1", ".a".repeat(100_000)).as_bytes());
    refused("dotted tables.toml", "recursion limit", format!("[runs{}]", ".a".repeat(100_000)).as_bytes());
    refused("a key twice.json", "duplicate key \"model\"", b"{\"model\": \"a\", \"model\": \"b\"}");
    refused(
        "a run twice.json",
        "duplicate key \"base\"",
        b"{\"runs\": {\"base\": {\"ids\": [1]}, \"base\": {\"ids\": [2]}}}",
    );
    refused(
        "a run twice, once in escapes.json",
        "duplicate key \"base\"",
        br#"{"runs": {"base": {"ids": [1]}, "bas\u0065": {"ids": [2]}}}"#,
    );
    refused("a key twice.toml", "duplicate key", b"model = 'a'\nmodel = 'b'");
    refused("a run twice.toml", "duplicate key", b"[runs.base]\nids = [1]\n[runs.base]\nids = [2]");
    refused("NaN.json", "expected value", b"{\"edit\": [{\"scale\": NaN}]}");
    refused("1e999.json", "number out of range", b"{\"edit\": [{\"scale\": 1e999}]}");
    refused("half a character.json", "hex escape at line 1 column 18", br#"{"model": "\ud800"}"#);
    refused("2^64.json", "line 1 column 37", b"{\"read\": {\"top\": 18446744073709551616}}");
    refused("2^64.toml", "top = 18446744073709551616", b"[read]\ntop = 18446744073709551616");
    refused(
        "-0.json",
        "floating point `-0.0`",
        b"{\"edit\": [{\"site\": \"x\", \"op\": \"zero\", \"layers\": -0}]}",
    );
    refused("-1.json", "invalid value: integer `-1`", b"{\"read\": {\"top\": -1}}");
    refused("-1.toml", "invalid value: integer `-1`", b"[read]\ntop = -1");
    refused("id 2^32.toml", "ids", b"[runs.base]\nids = [4294967296]");
    refused("id -1.toml", "ids", b"[runs.base]\nids = [-1]");
    refused("id 1.5.toml", "ids", b"[runs.base]\nids = [1.5]");
    refused(
        "index 2^63.json",
        "index 9223372036854775808 is too large",
        b"{\"edit\": [{\"site\": \"x\", \"op\": \"zero\", \"layers\": 9223372036854775808}]}",
    );
    refused(
        "a long list.json",
        "more than 262144 values",
        &[&b"{\"edit\":[{\"value\":{\"values\":[0"[..], &b",0".repeat(2_000_000), b"]}}]}"].concat(),
    );
    refused(
        "a long list.toml",
        "lines and values are more than",
        &[&b"[[edit]]\nvalue.values = [0"[..], &b",0".repeat(2_000_000), b"]"].concat(),
    );
    refused("many tables.toml", "lines and values are more than", b"[[edit]]\n".repeat(400_000).as_slice());
    refused(
        "many keys.toml",
        "lines and values are more than",
        (0..300_000).map(|i| format!("a{i}=1\n")).collect::<String>().as_bytes(),
    );
    refused(
        "many runs.toml",
        "lines and values are more than",
        (0..200_000).map(|i| format!("runs.a{i}.ids=[1]\n")).collect::<String>().as_bytes(),
    );
    let close = |text: String| text + "\n[unknown]";
    refused(
        "a list just short enough.toml",
        "unknown field `unknown`",
        close("[[edit]]\nsite='x'\nop='x'\nvalue.values = [0".to_owned() + &",0".repeat(65_000) + "]")
            .as_bytes(),
    );
    refused(
        "runs just few enough.toml",
        "unknown field `unknown`",
        close((0..16_000).map(|i| format!("runs.a{i}.ids=[1]\n")).collect()).as_bytes(),
    );
    refused("tables just few enough.toml", "missing field `op`", "[[edit]]\n".repeat(21_000).as_bytes());
    refused(
        "values just few enough.json",
        "unknown field `unknown`",
        format!(
            "{{\"edit\":[{{\"site\":\"x\",\"op\":\"x\",\"value\":{{\"values\":[[0{}]]}}}}],\"unknown\":1}}",
            ",0".repeat(262_000)
        )
        .as_bytes(),
    );
    refused("a long text.json", "EOF", &[&b"{\"model\":\""[..], &b"a".repeat(8 << 20), b"\""].concat());
    refused(
        "a long text.toml",
        "TOML parse error at line 1: ",
        &[&b"model='"[..], &b"a".repeat(8 << 20)].concat(),
    );
    verdict.check();

    // Texts that mean what they say.
    let mut verdict = Verdict::new();
    for (name, text) in [
        ("BOM.toml", &b"\xEF\xBB\xBFmodel = 'a'\n"[..]),
        ("BOM.json", b"\xEF\xBB\xBF{\"model\": \"a\"}"),
        ("CRLF.toml", b"model = 'a'\r\n\r\n[read]\r\ntop = 1\r\n"),
        ("CRLF.json", b"{\r\n\"model\": \"a\"\r\n}\r\n"),
        (
            "negative zero.toml",
            b"model = 'a'\n[[edit]]\nsite = 'x'\nop = 'scale'\nscale = -0.0\nlayers = -0\n",
        ),
        (
            "negative zero.json",
            b"{\"model\": \"a\", \"edit\": [{\"site\": \"x\", \"op\": \"scale\", \"scale\": -0.0}]}",
        ),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let file = verdict.accepted(name, text.len() as u64, || ExperimentFile::load(&path));
        assert_eq!(file.unwrap().model.as_deref(), Some("a"), "{name}");
    }
    // One past the largest file, in holes.
    let path = folder.path().join("huge.toml");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    verdict.refused("1 GB", 0, "size: 1073741824 bytes are more than", || ExperimentFile::load(&path));
    verdict.check();
}

/// Item 69: fields and types.
#[test]
fn fields() {
    refuse(&[
        ("an unknown part", "unknown field `sweeps`", |f| f["sweeps"] = json!({})),
        ("an unknown field of a run", "unknown field `promt`", |f| f["runs"]["base"]["promt"] = "a".into()),
        ("an unknown field of an edit", "unknown field `layer`", |f| f["edit"][0]["layer"] = 0.into()),
        ("an unknown field of a value", "unknown field `token`", |f| {
            f["edit"][0]["value"]["token"] = 0.into();
        }),
        ("an unknown field of read", "unknown field `tokns`", |f| f["read"]["tokns"] = 0.into()),
        ("an unknown field of sweep", "unknown field `layres`", |f| f["sweep"]["layres"] = 0.into()),
        ("an unknown field of an axis", "unknown field `widow`", |f| {
            f["sweep"]["layers"] = json!({"widow": 1});
        }),
        ("an unknown field of a position", "unknown field `toke`", |f| {
            f["edit"][0]["positions"] = json!({"toke": "a"});
        }),
        ("a name of a megabyte", "xxxx", |f| f[&"x".repeat(1 << 20)] = 1.into()),
        ("a run with a name of a megabyte", "runs.xxxx", |f| {
            f["runs"]["x".repeat(1 << 20)] = json!({"promt": "a"});
        }),
        ("runs a list", "invalid type: sequence", |f| f["runs"] = json!([])),
        ("edits a map", "missing field `op`", |f| f["edit"] = json!({})),
        ("a site as a number", "invalid type: integer `3`", |f| f["edit"][0]["site"] = 3.into()),
        ("a scale as text", "invalid type: string", |f| f["edit"][0]["scale"] = "1".into()),
        ("no site", "needs a site", |f| {
            f["edit"][0].as_object_mut().unwrap().shift_remove("site");
        }),
        ("layers as a map", "only positions can be named", |f| {
            f["edit"][0]["layers"] = json!({"token": "a"});
        }),
        ("layers 1.5", "invalid type: floating point `1.5`", |f| f["edit"][0]["layers"] = 1.5.into()),
        ("values as text", "a number, a list of numbers", |f| f["edit"][0]["value"] = json!({"values": "1"})),
        ("values nested three deep", "a number, a list of numbers", |f| {
            f["edit"][0]["value"] = json!({"values": [[[1.0]]]});
        }),
        ("an axis that is no axis", "\"each\", \"cumulative\"", |f| f["sweep"]["layers"] = "every".into()),
        ("a negative window", "integer `-1`", |f| f["sweep"]["layers"] = json!({"window": -1})),
        ("an empty sweep of scales", "sweep: scales = [] leaves nothing", |f| {
            f["sweep"]["scales"] = json!([]);
        }),
        ("an empty sweep of sites", "sweep: sites = [] leaves nothing", |f| f["sweep"]["sites"] = json!([])),
        ("an empty list of metrics", "sweep: metrics = [] leaves nothing", |f| {
            f["sweep"]["metrics"] = json!([]);
        }),
        ("an empty list of edits", "sweep: edit = [] names no edit", |f| f["sweep"]["edit"] = json!([])),
        ("no edit to sweep", "sweep: ", |f| {
            f["edit"] = json!([]);
            f["sweep"] = json!({"layers": "each"});
        }),
        ("no sweep", "sweep: this experiment has no [sweep]", |f| {
            f.as_object_mut().unwrap().shift_remove("sweep");
        }),
        ("an edit that is none", "sweep: there is no edit \"path\"", |f| f["sweep"]["edit"] = "path".into()),
        ("edit 2^63", "sweep: there is no edit 9223372036854775808", |f| {
            f["sweep"]["edit"] = (1u64 << 63).into();
        }),
        ("a metric that is none", "\"probs\" is not a metric", |f| f["sweep"]["metrics"] = json!(["probs"])),
        ("a window of 0", "sweep: a window of 0", |f| f["sweep"]["layers"] = json!({"window": 0})),
        ("a window of 2^62", "sweep: a window of 4611686018427387904", |f| {
            f["sweep"]["layers"] = json!({"window": 1u64 << 62});
        }),
        ("heads of a site without", "sweep: heads", |f| f["sweep"]["heads"] = "each".into()),
        ("a scale twice", "sweep: scales lists 0 twice", |f| {
            scalable(f);
            f["sweep"]["scales"] = json!([0.0, 1.0, -0.0]);
        }),
        ("a metric twice", "sweep: metrics lists \"prob\" twice", |f| {
            f["sweep"]["metrics"] = json!(["prob", "prob"]);
        }),
        ("a million scales that are one", "sweep: scales lists", |f| {
            scalable(f);
            f["sweep"]["scales"] = vec![1.5; 200_000].into();
        }),
        ("200 000 scales", "sweep: has 76800000 cells, which is past the", |f| cells(f, 200_000)),
        ("more cells than any sweep may have", "sweep: has 7680000 cells, which is past the", |f| {
            cells(f, 20_000);
        }),
        ("more cells by sites", "sweep: has 6144000 cells, which is past the", |f| {
            cells(f, 8_000);
            f["sweep"]["sites"] = json!(["head_query_output", "head_attention_value_output"]);
        }),
    ]);
}

/// An edit with a scale.
fn scalable(file: &mut Value) {
    file["edit"][0]["op"] = "add".into();
    file["edit"][0]["value"] = json!({"values": 1.0});
}

/// Layers × heads × positions × scales of a model with 2, 6 and 32 of them.
fn cells(file: &mut Value, scales: u32) {
    file["runs"]["base"] = json!({"ids": vec![1; 32]});
    file["edit"][0] = json!({"name": "patch", "run": "base", "site": "head_query_output", "layers": "all",
        "heads": "all", "positions": "all", "op": "add", "value": {"values": 1.0}});
    file["sweep"] = json!({"layers": "each", "heads": "each", "positions": "each",
        "scales": (0..scales).map(|i| f64::from(i) / 4.0).collect::<Vec<_>>()});
}

/// Item 70: addresses.
#[test]
fn addresses() {
    refuse(&[
        ("layer 2 of 2", "edit \"patch\": layer 2 is out of range: there are 2", |f| {
            f["edit"][0]["layers"] = 2.into();
        }),
        ("layer -3 of 2", "edit \"patch\": layer -3 is out of range", |f| {
            f["edit"][0]["layers"] = (-3).into();
        }),
        ("layer -2^63", "edit \"patch\": layer -9223372036854775808", |f| {
            f["edit"][0]["layers"] = i64::MIN.into();
        }),
        ("layers to 3", "edit \"patch\": layer 3", |f| f["edit"][0]["layers"] = "0..3".into()),
        ("layers to 2^63", "is neither \"all\" nor a range", |f| {
            f["edit"][0]["layers"] = "0..9223372036854775808".into();
        }),
        ("layers to and with 2^63-1", "is neither \"all\" nor a range", |f| {
            f["edit"][0]["layers"] = "0..=9223372036854775807".into();
        }),
        ("no layer", "edit \"patch\": layer [] names nothing", |f| f["edit"][0]["layers"] = json!([])),
        ("no layers given", "edit \"patch\": site block_output is in every block, so it needs layers", |f| {
            f["edit"][0].as_object_mut().unwrap().shift_remove("layers");
        }),
        ("a layer twice", "edit \"patch\": layer 1 is given twice", |f| {
            f["edit"][0]["layers"] = json!([1, -1]);
        }),
        ("layers outside the blocks", "edit \"patch\": site embedding is outside the blocks", |f| {
            f["edit"][0]["site"] = "embedding".into();
        }),
        ("position 5 of 5", "edit \"patch\": position 5 is out of range: there are 5", |f| {
            f["edit"][0]["positions"] = 5.into();
        }),
        ("position -6 of 5", "edit \"patch\": position -6", |f| f["edit"][0]["positions"] = (-6).into()),
        ("position 2^53", "edit \"patch\": position 9007199254740992", |f| {
            f["edit"][0]["positions"] = (1u64 << 53).into();
        }),
        ("no position", "edit \"patch\": position [] names nothing", |f| {
            f["edit"][0]["positions"] = json!([]);
        }),
        ("an empty range", "edit \"patch\": position 3..3 names nothing", |f| {
            f["edit"][0]["positions"] = "3..3".into();
        }),
        ("a range backwards", "edit \"patch\": position 3..1 names nothing", |f| {
            f["edit"][0]["positions"] = "3..1".into();
        }),
        ("a position of a shorter run", "edit \"patch\": position 2 is not in run \"other\"", |f| {
            f["runs"]["other"] = json!({"ids": [1, 2]});
        }),
        (
            "past the one token of a run that is only BOS",
            "edit \"patch\": position 1 is out of range: there are 1",
            |f| {
                f["runs"]["base"] = json!({"ids": [0]});
            },
        ),
        ("a token that is not there", "edit \"patch\": token \"zebra\" is not in run \"base\"", |f| {
            f["edit"][0]["positions"] = json!({"token": "zebra"});
        }),
        ("no token", "edit \"patch\": token \"\" is not in run", |f| {
            f["edit"][0]["positions"] = json!({"token": ""});
        }),
        ("a token of a megabyte", "edit \"patch\": ", |f| {
            f["edit"][0]["positions"] = json!({"token": "x".repeat(1 << 20)});
        }),
        ("head 6 of 6", "edit \"patch\": head 6 is out of range: there are 6", |f| {
            f["edit"][0]["site"] = "head_query_output".into();
            f["edit"][0]["heads"] = 6.into();
        }),
        ("head 3 of 3", "edit \"patch\": head 3 is out of range: there are 3", |f| {
            f["edit"][0]["site"] = "head_key_output".into();
            f["edit"][0]["heads"] = 3.into();
        }),
        ("heads of a site without", "edit \"patch\": site block_output has no heads apart", |f| {
            f["edit"][0]["heads"] = 0.into();
        }),
        ("dimension 32 of 32", "edit \"patch\": dimension 32 is out of range", |f| {
            f["edit"][0]["dims"] = 32.into();
        }),
        ("a million dimensions", "edit \"patch\": dimension ", |f| {
            f["edit"][0]["dims"] = (0..200_000).collect::<Vec<u32>>().into();
        }),
        ("a million times dimension 0", "edit \"patch\": dimension 0 is given twice", |f| {
            f["edit"][0]["dims"] = vec![0; 200_000].into();
        }),
        ("a site that is none", "edit \"patch\": site", |f| f["edit"][0]["site"] = "block_ouput".into()),
        ("a site of a megabyte", "edit \"patch\": site", |f| {
            f["edit"][0]["site"] = "x".repeat(1 << 20).into();
        }),
        ("a TransformerLens name of layer 2^64", "edit \"patch\": ", |f| {
            f["edit"][0]["site"] = "blocks.18446744073709551616.hook_resid_post".into();
        }),
        ("an op that is none", "edit \"patch\": op \"swop\" is not an op", |f| {
            f["edit"][0]["op"] = "swop".into();
        }),
        ("scale 1e39, which f32 has not", "edit \"patch\": ", |f| {
            scalable(f);
            f["edit"][0]["scale"] = 1e39.into();
        }),
        ("value 1e39, which f32 has not", "edit \"patch\": the value holds inf", |f| {
            scalable(f);
            f["edit"][0]["value"] = json!({"values": 1e39});
        }),
        ("rows of different lengths", "edit \"patch\": the rows of values", |f| {
            scalable(f);
            f["edit"][0]["value"] = json!({"values": [[1.0], [1.0, 2.0]]});
        }),
        ("an empty row", "edit \"patch\": the value is 0 wide", |f| {
            scalable(f);
            f["edit"][0]["value"] = json!({"values": []});
        }),
        ("a row too wide", "edit \"patch\": the value is 33 wide", |f| {
            scalable(f);
            f["edit"][0]["value"] = json!({"values": vec![1.0; 33]});
        }),
        ("a run that is none", "edit \"patch\": there is no run \"bse\"", |f| {
            f["edit"][0]["run"] = "bse".into();
        }),
        ("its own run", "edit \"patch\": takes its value from the run it edits", |f| {
            f["edit"][0]["value"]["run"] = "base".into();
        }),
        ("a circle", "edits: the runs base, other take values from each other", |f| {
            let mut back = f["edit"][0].clone();
            (back["name"], back["run"], back["value"]["run"]) =
                ("back".into(), "other".into(), "base".into());
            f["edit"].as_array_mut().unwrap().push(back);
        }),
        ("a name twice", "edit \"patch\": another edit has the same name", |f| {
            let again = f["edit"][0].clone();
            f["edit"].as_array_mut().unwrap().push(again);
        }),
        ("an id past the vocabulary", "run \"base\": token id 300", |f| {
            f["runs"]["base"] = json!({"ids": [300]});
        }),
        ("no ids", "run \"base\": the prompt is empty", |f| f["runs"]["base"] = json!({"ids": []})),
        ("ids past the context", "run \"base\": the prompt has 33 tokens", |f| {
            f["runs"]["base"] = json!({"ids": vec![1; 33]});
        }),
        ("100 000 ids", "run \"base\": the prompt has 100000 tokens", |f| {
            f["runs"]["base"] = json!({"ids": vec![1; 100_000]});
        }),
        ("neither prompt nor ids", "run \"base\": needs one of prompt, ids and messages", |f| {
            f["runs"]["base"] = json!({});
        }),
        ("both prompt and ids", "run \"base\": needs one of prompt, ids and messages", |f| {
            f["runs"]["base"] = json!({"ids": [1], "prompt": "a"});
        }),
        ("a prompt of a megabyte", "run \"base\": the text has 1048576 bytes", |f| {
            f["runs"]["base"] = json!({"prompt": "a".repeat(1 << 20)});
        }),
        ("BOS where there is none", "run \"base\": bos = true asks", |f| {
            f["runs"]["base"] = json!({"prompt": "a", "bos": true});
        }),
        ("no runs", "there is no run", |f| f["runs"] = json!({})),
        ("a token to read past the vocabulary", "read: token id 300", |f| f["read"]["tokens"] = json!([300])),
        ("a token to read that is two", "read: \"ab!\" is", |f| f["read"]["tokens"] = json!(["ab!"])),
        ("a run to read that is none", "read: there is no run \"bas\"", |f| f["read"]["run"] = "bas".into()),
    ]);
}

/// Turns the patch into a swap of two directions of the 32.
fn low_rank(file: &mut Value) -> &mut Value {
    let mut rows = vec![vec![0.0; 2]; 32];
    (rows[0][0], rows[1][1]) = (1.0, 1.0);
    let edit = &mut file["edit"][0];
    edit["op"] = "low_rank_swap".into();
    edit["parameters"] = json!({"rotation": rows});
    edit
}

#[test]
fn parameters_and_partitions() {
    refuse(&[
        ("rank above the width", "rotation", |f| {
            let row = |i: usize| (0..40).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<f64>>();
            low_rank(f)["parameters"]["rotation"] = json!((0..32).map(row).collect::<Vec<_>>());
        }),
        ("a rotation of the wrong width", "rotation", |f| {
            low_rank(f)["parameters"]["rotation"] = json!(vec![[1.0], [0.0]]);
        }),
        ("no rotation", "is no rotation", |f| low_rank(f)["parameters"]["rotation"][0][0] = 2.0.into()),
        ("a rotation that is a number", "rotation", |f| {
            low_rank(f)["parameters"]["rotation"] = 1.into();
        }),
        ("a rotation with NaN", "parameters by name", |f| {
            low_rank(f)["parameters"]["rotation"][0][0] = "NaN".into();
        }),
        ("no parameters", "rotation", |f| {
            low_rank(f).as_object_mut().unwrap().remove("parameters");
        }),
        ("another parameter", "rotatoin", |f| low_rank(f)["parameters"]["rotatoin"] = json!([1.0])),
        ("a parameter of an op with none", "scale", |f| f["edit"][0]["parameters"] = json!({"scale": 1.0})),
        ("a parameter from nowhere", "no/where", |f| {
            low_rank(f)["parameters"] = "no/where.safetensors".into();
        }),
        ("dims above the rank", "2", |f| low_rank(f)["dims"] = json!([0, 2])),
        ("a part that is none", "its partition has a", |f| {
            let edit = low_rank(f);
            edit["partition"] = json!({"a": [0]});
            edit["dims"] = "b".into();
        }),
        ("overlapping parts", "overlap: both have dimension 1", |f| {
            low_rank(f)["partition"] = json!({"a": [0, 1], "b": "1..2"});
        }),
        ("a dimension twice", "names dimension 0 twice", |f| {
            low_rank(f)["partition"] = json!({"a": [0, 0]});
        }),
        ("a part without end", "range with both ends", |f| {
            low_rank(f)["partition"] = json!({"a": "0.."});
        }),
        ("a part of 2^40", "1048576", |f| low_rank(f)["partition"] = json!({"a": "0..1099511627776"})),
        ("many large parts", "more than 1048576 dimensions", |f| {
            let parts = (0..1000).map(|i| (format!("p{i}"), "0..1048576".into()));
            low_rank(f)["partition"] = Value::Object(parts.collect());
        }),
        ("joint over nothing", "unknown variant", |f| low_rank(f)["joint"] = "layers".into()),
        ("an activation that is none", "activation", |f| low_rank(f)["activation"] = "reul".into()),
        ("a link to nothing", "no edit before it", |f| f["edit"][0]["op"] = json!({"link": "x"})),
        ("a link to itself", "no edit before it", |f| f["edit"][0]["op"] = json!({"link": "patch"})),
        ("a folder that is none", "no/where", |f| f["edit"][0]["op"] = json!({"load": "no/where"})),
        ("a device as a folder", "/dev/zero", |f| f["edit"][0]["op"] = json!({"load": "/dev/zero"})),
        ("a mean over a device", "/dev/zero", |f| {
            f["edit"][0]["value"] = json!({"mean": "base", "examples": "/dev/zero"});
        }),
        ("a control vector of a device", "", |f| {
            f["edit"][0]["value"] = json!({"file": "/dev/zero.gguf"});
        }),
    ]);
}

/// Names of runs and edits are looked up in each other: many of them must not take forever.
#[test]
fn many_runs_and_edits() {
    let model = model();
    let mut verdict = Verdict::new();
    let runs: serde_json::Map<String, Value> =
        (0..80_000).map(|i| (format!("r{i}"), json!({"ids": [1]}))).collect();
    let text = json!({"runs": runs}).to_string();
    verdict
        .refused("80 000 runs", text.len() as u64, "runs: 80000 are more than", || prepared(&text, &model));
    let edits: Vec<Value> =
        (0..50_000).map(|i| json!({"name": format!("e{i}"), "site": "embedding", "op": "zero"})).collect();
    let text = json!({"runs": {"base": {"ids": [1]}}, "edit": edits}).to_string();
    verdict
        .refused("50 000 edits", text.len() as u64, "edit: 50000 are more than", || prepared(&text, &model));
    // As many as anyone has use for.
    let edits: Vec<Value> = (0..1000)
        .map(|i| json!({"name": format!("e{i}"), "site": "mlp_output", "layers": 0, "op": "zero"}))
        .collect();
    let text = json!({"runs": {"base": {"ids": [1]}}, "edit": edits, "read": {"tokens": [1]},
        "sweep": {"layers": "each"}})
    .to_string();
    let _ = verdict.accepted("1000 edits", text.len() as u64, || prepared(&text, &model));
    let text = json!({"runs": {"base": {"ids": [1]}}, "read": {"top": 1 << 24}}).to_string();
    let _ = verdict.accepted("the 2^24 likeliest tokens", text.len() as u64, || {
        let file = ExperimentFile::from_json(&text)?;
        file.experiment(&model)?.execute().map(|outcome| outcome.collected().len())
    });
    verdict.check();
}

/// Values from files: what is refused of a safetensors file, and paths that are none.
#[test]
fn value_files() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let mut verdict = Verdict::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let experiment = |value: Value| -> ExperimentFile {
        let mut file = valid();
        file["edit"][0]["op"] = "add".into();
        file["edit"][0]["value"] = value;
        let path = folder.path().join("experiment.json");
        std::fs::write(&path, file.to_string()).unwrap();
        ExperimentFile::load(&path).unwrap()
    };
    fn tried<'m>(file: &ExperimentFile, model: &'m Model) -> Result<Experiment<'m>> {
        file.experiment(model)
    }
    let good = Safetensors::of(&[("direction", &[32])]);
    write("good.safetensors", &good.bytes());
    let _ =
        verdict.accepted("good", 1000, || tried(&experiment(json!({"file": "good.safetensors"})), &model));
    let mut nan = good.clone();
    nan.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write("nan.safetensors", &nan.bytes());
    write("torn.safetensors", &good.bytes()[..100]);
    write("two.safetensors", &Safetensors::of(&[("a", &[32]), ("b", &[32])]).bytes());
    write("narrow.safetensors", &Safetensors::of(&[("a", &[31])]).bytes());
    write("cube.safetensors", &Safetensors::of(&[("a", &[2, 4, 4])]).bytes());
    let names: Vec<String> = (0..20_000).map(|i| format!("tensor.{i:05}")).collect();
    let many: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[1usize][..])).collect();
    write("many.safetensors", &Safetensors::of(&many).bytes());
    for (name, value, field) in [
        ("NaN", json!({"file": "nan.safetensors"}), "direction: holds NaN"),
        ("torn", json!({"file": "torn.safetensors"}), "torn.safetensors: header length"),
        ("two tensors", json!({"file": "two.safetensors"}), "no tensor is named; two.safetensors holds a, b"),
        ("no such tensor", json!({"file": "two.safetensors", "tensor": "c"}), "there is no tensor \"c\""),
        ("20 000 tensors", json!({"file": "many.safetensors"}), "no tensor is named"),
        ("another width", json!({"file": "narrow.safetensors"}), "the value is 31 wide"),
        ("three axes", json!({"file": "cube.safetensors"}), "the value has shape [2, 4, 4]"),
        ("nothing", json!({"file": "nothing.safetensors"}), "cannot open"),
        ("a folder", json!({"file": "."}), "is not a regular file"),
        ("no name", json!({"file": ""}), "is not a regular file"),
        ("a NUL", json!({"file": "a\0b"}), "cannot open"),
        ("/dev/zero", json!({"file": "/dev/zero"}), "is not a regular file"),
        ("the experiment", json!({"file": "experiment.json"}), "header length"),
        ("nothing at all", json!({}), "value needs exactly one of"),
        ("two kinds", json!({"file": "a", "values": 1.0}), "value needs exactly one of"),
        ("a tensor without a file", json!({"values": 1.0, "tensor": "a"}), "tensor needs value = { file"),
    ] {
        let file = experiment(value);
        verdict.refused(name, 2_000_000, field, || {
            tried(&file, &model).inspect_err(|e| {
                assert!(e.to_string().starts_with("edit \"patch\": "), "{e}");
            })
        });
    }
    verdict.check();
}

/// Paths of experiments (item 73's, which hold for every file we read).
#[cfg(unix)]
#[test]
fn paths() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut verdict = Verdict::new();
    let mut refused =
        |name: &str, field: &str, path: &Path| verdict.refused(name, 0, field, || ExperimentFile::load(path));
    assert!(std::process::Command::new("mkfifo").arg(at("fifo.toml")).status().unwrap().success());
    symlink("loop.toml", at("loop.toml")).unwrap();
    refused("nothing", "cannot open", &at("nothing.toml"));
    refused("a folder", "is not a regular file", folder.path());
    refused("FIFO", "is not a regular file", &at("fifo.toml"));
    refused("/dev/zero", "is not a regular file", Path::new("/dev/zero"));
    refused("a circle of links", "cannot open", &at("loop.toml"));
    verdict.check();
}

const CELLS: usize = 5;
const VALUES: usize = 2;

/// A journal of three cells, as text.
fn journal(folder: &Path) -> String {
    let path = folder.join("written.jsonl");
    let (mut journal, _) = Journal::open(&path, "x", CELLS, VALUES).unwrap();
    for cell in 0..3 {
        journal.append([(cell, vec![Some(0.5), None])]).unwrap();
    }
    drop(journal);
    std::fs::read_to_string(path).unwrap()
}

/// Item 72: every case is refused, and what it refused is as it was.
#[test]
fn journals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let whole = journal(folder.path());
    let lines: Vec<&str> = whole.lines().collect();
    let mut verdict = Verdict::new();
    let long = "x".repeat(20 << 20);
    for (name, field, text) in [
        ("blank lines", "line 2 is not a line of a journal", format!("{}\n\n{}\n", lines[0], lines[1])),
        ("a blank line", "line 1 is not a line of a journal", "\n".into()),
        ("BOM", "line 1 is not a line of a journal", format!("\u{feff}{whole}")),
        ("another schema", "line 1 is not a line of a journal", "{\"event\": \"start\"}\n".into()),
        (
            "a second schema",
            "line 2 is not a line of a journal",
            format!("{}\n{{\"event\": 1}}\n{}\n", lines[0], lines[1]),
        ),
        (
            "a field more",
            "line 1 is not a line of a journal",
            whole.replacen("\"cell\"", "\"more\":1,\"cell\"", 1),
        ),
        (
            "a field twice",
            "line 1 is not a line of a journal",
            whole.replacen("\"cell\"", "\"cell\":0,\"cell\"", 1),
        ),
        ("a changed number", "line 1 is damaged", whole.replacen("0.5", "0.25", 1)),
        ("a number too many", "line 1 is damaged", whole.replacen("null", "null,null", 1)),
        (
            "cell 2^64-1",
            "line 1 is damaged",
            whole.replacen("\"cell\":0", "\"cell\":18446744073709551615", 1),
        ),
        ("cell -1", "line 1 is not a line", whole.replacen("\"cell\":0", "\"cell\":-1", 1)),
        ("a cell twice", "line 2 has cell 0 a second time", format!("{}\n{}\n", lines[0], lines[0])),
        ("nested 10^5 deep", "line 1 is", format!("{}\n", "[".repeat(100_000))),
        ("a line of 20 MB", "line 1 is longer than any line of a journal", format!("{long}\n")),
        ("20 MB without an end", "line 1 is longer than any line of a journal", long.clone()),
        (
            "20 MB of values",
            "line 1 is longer than any line",
            format!("{{\"cell\":0,\"values\":[{}1],\"sum\":\"\"}}\n", "1,".repeat(10 << 20)),
        ),
        // None of these is a journal, whole or torn: a wrong --out must not cost anyone a file.
        ("a text of one line", "line 1 is not a line", "the only copy of something".into()),
        ("a text of two lines", "line 1 is not a line", "the only copy\nof something".into()),
        ("a journal with a note", "line 4 is not a line", format!("{whole}note to self")),
        ("a picture", "line 1 is not a line", "\u{7f}PNG\0\0\0\n\0\0".into()),
        ("a picture without lines", "is not a line", "\u{7f}PNG\0\0\0\0\0".into()),
        ("a JSON document", "line 1 is not a line", "{\"weights\": [1, 2".into()),
        ("NULs and then text", "line 1 is not a line", format!("\0\0\0\0text\n{}\n", lines[0])),
        ("2 MB of NULs", "line 1 is", "\0".repeat(2 << 20)),
    ] {
        std::fs::write(&path, &text).unwrap();
        verdict.refused(name, text.len() as u64, field, || Journal::open(&path, "x", CELLS, VALUES));
        assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes(), "{name}: the file is as it was");
    }
    for (name, experiment, cells, values) in [
        ("another experiment", "y", CELLS, VALUES),
        ("fewer cells", "x", 2, VALUES),
        ("other values", "x", CELLS, 3),
    ] {
        std::fs::write(&path, &whole).unwrap();
        let field = if cells == 2 {
            "line 3 is damaged or of another experiment"
        } else {
            "line 1 is damaged or of another"
        };
        verdict.refused(name, 1000, field, || Journal::open(&path, experiment, cells, values));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "{name}: the file is as it was");
    }
    verdict.check();
}

/// Item 72: what a crash leaves is cut off, and only that.
#[test]
fn torn_journals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let whole = journal(folder.path());
    let last = whole.lines().last().unwrap();
    let mut verdict = Verdict::new();
    for n in 0..last.len() {
        for tail in ["", "\0", &"\0".repeat(4096)] {
            std::fs::write(&path, format!("{whole}{}{tail}", &last[..n])).unwrap();
            let name = format!("{n} bytes of a line, {} NULs", tail.len());
            let opened = verdict.accepted(&name, 5000, || Journal::open(&path, "x", CELLS, VALUES));
            assert_eq!(opened.map(|(_, done)| done.len()), Some(3), "{name}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole, "{name}");
        }
    }
    // A block that was not written, and one after it that was.
    let lines: Vec<&str> = whole.lines().collect();
    std::fs::write(&path, format!("{}\n\0\0\0\0ll],\"sum\":\"0\"}}\n{}\n", lines[0], lines[1])).unwrap();
    let opened = verdict.accepted("NULs between lines", 500, || Journal::open(&path, "x", CELLS, VALUES));
    assert_eq!(opened.map(|(_, done)| done.len()), Some(1));
    for text in ["", "\0\0\0\0"] {
        std::fs::write(&path, text).unwrap();
        let opened = verdict.accepted("nothing", 10, || Journal::open(&path, "x", CELLS, VALUES));
        assert_eq!(opened.map(|(_, done)| done.len()), Some(0));
    }
    verdict.check();
}

/// Items 71 and 73, for the journal: it is a regular file or is refused.
#[cfg(unix)]
#[test]
fn journal_paths() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("precious"), "precious").unwrap();
    symlink(at("precious"), at("link")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink(at("new"), at("dangling")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let mut verdict = Verdict::new();
    for (name, field) in [
        ("link", "is not a regular file"),
        ("loop", "is not a regular file"),
        ("dangling", "is not a regular file"),
        ("fifo", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("/dev/full", "is not a regular file"),
        (".", "is not a regular file"),
        ("missing/journal.jsonl", "cannot open"),
        (&"x".repeat(256), "cannot examine"),
    ] {
        verdict.refused(name, 0, field, || Journal::open(&at(name), "x", CELLS, VALUES));
    }
    verdict.check();
    assert_eq!(std::fs::read_to_string(at("precious")).unwrap(), "precious");
    assert!(!at("new").exists() && !at("missing").exists(), "nothing is created behind a link");
}

/// Any byte of an experiment may be anything.
#[test]
fn random_bytes() {
    let model = model();
    let bytes = valid().to_string().into_bytes();
    let mut random = Random(0x00EE_2217);
    let mut verdict = Verdict::new();
    let (mut compiled, rounds) = (0, 4000);
    for round in 0..rounds {
        let mut changed = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len());
            changed[at] = match random.below(3) {
                0 => changed[at] ^ (1 << random.below(8)),
                1 => b"0123456789{}[],:\"-e."[random.below(20)],
                _ => u8::try_from(32 + random.below(95)).unwrap(),
            };
        }
        let text = String::from_utf8_lossy(&changed).into_owned();
        let name = format!("round {round}: {text}");
        compiled += usize::from(verdict.survived(&name, 1000, || prepared(&text, &model)).is_some());
        let toml = format!("model = {text}\n[runs.base]\n{text}");
        let _ = verdict.survived(&name, 1000, || ExperimentFile::from_toml(&toml));
    }
    println!("{compiled} of {rounds} compiled");
    assert!((1..rounds).contains(&compiled));
    verdict.check();
}
