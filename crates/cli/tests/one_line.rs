//! Commands that need no experiment file: each runs the file that it prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use std::fs;
use std::process::Stdio;

const SPAIN: &str = "The capital of Spain is";
const ITALY: &str = "The capital of Italy is";
/// The shape of tiny-llama-tied.
const LAYERS: usize = 2;
const HEADS: usize = 6;

/// A command on the small model with a tokenizer.
fn on_tied<'a>(model: &'a str, start: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [start, &["-m", model], rest].concat()
}

/// Each command writes the bytes that `sweep` writes of the file it prints.
#[test]
fn a_one_line_command_is_its_printed_experiment() {
    let (place, model) = (Place::new(), format!("{FIXTURES}/tiny-llama-tied"));
    let patch = ["patch", SPAIN, "--from", ITALY, "--answers", "T", "is"];
    let heads =
        ["heads", SPAIN, "--from", ITALY, "--answers", "T", "is", "--metric", "prob", "--metric", "kl"];
    let cases: [(&[&str], &[&str], usize); 8] = [
        (&patch, &[], LAYERS * place_tokens(&place, &model)),
        (&patch, &["--layers", "cumulative", "--positions", "last"], LAYERS),
        (&patch, &["--layers", "all", "--positions", "all", "--metric", "kl"], 1),
        (&patch, &["--site", "z", "--heads", "0,1", "--layers", "-1", "--positions", "1,2"], 4),
        (&patch, &["--site", "mlp_out", "--layers", "window=2"], place_tokens(&place, &model)),
        (&patch, &["--site", "embedding"], place_tokens(&place, &model)),
        (&patch, &["--site", "z", "--heads", "all", "--layers", "0", "--positions", "last"], 1),
        (&heads, &[], LAYERS * HEADS),
    ];
    for (number, (start, options, cells)) in cases.into_iter().enumerate() {
        let (one, again) = (format!("one-{number}"), format!("again-{number}"));
        let args = on_tied(&model, start, options);
        let found = place.json(&[args.as_slice(), &["--out", &one]].concat());
        assert_eq!(found["cells"], cells, "{args:?}");
        let printed = place.run(&[args.as_slice(), &["--print-experiment"]].concat());
        assert!(printed.status.success() && printed.stderr.is_empty());
        let file = format!("{number}.toml");
        fs::write(place.path(&file), &printed.stdout).unwrap();
        place.json(&["sweep", &file, "--out", &again]);
        let cells = |folder: &str| fs::read(place.path(&format!("{folder}/cells.csv"))).unwrap();
        assert_eq!(cells(&one), cells(&again), "{args:?}");
        // The same numbers without a folder.
        let alone = place.json(&args);
        assert_eq!(alone["strongest"], found["strongest"]);
        assert!(alone.get("files").is_none());
    }
}

fn place_tokens(place: &Place, model: &str) -> usize {
    place.json(&["top", SPAIN, "-m", model])["ids"].as_array().unwrap().len()
}

/// The numbers of both prompts are those of `run`, and the strongest cells are those of the table.
#[test]
fn the_strongest_cells_are_ranked() {
    let (place, model) = (Place::new(), format!("{FIXTURES}/tiny-llama-tied"));
    let args = on_tied(&model, &["patch", SPAIN, "--from", ITALY, "--answers", "T", "is"], &["--out", "out"]);
    let found = place.json(&args);
    let logit_diff = |prompt: &str| {
        let text =
            format!("model = '{model}'\n[runs.base]\nprompt = '{prompt}'\n[read]\ntokens = ['T', 'is']\n");
        fs::write(place.path("run.toml"), text).unwrap();
        let tokens = place.json(&["run", "run.toml"])["original"]["tokens"].clone();
        tokens[0]["logit"].as_f64().unwrap() - tokens[1]["logit"].as_f64().unwrap()
    };
    // Sums in products of other shapes.
    let is_near = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs().max(1.0);
    let (prompt, from) = (found["prompt"].as_f64().unwrap(), found["from"].as_f64().unwrap());
    assert!(is_near(prompt, logit_diff(SPAIN)) && is_near(from, logit_diff(ITALY)));
    let mut changes: Vec<f64> = csv::Reader::from_path(place.path("out/cells.csv"))
        .unwrap()
        .deserialize::<std::collections::BTreeMap<String, String>>()
        .map(|row| row.unwrap()["value"].parse::<f64>().unwrap() - prompt)
        .collect();
    changes.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    let strongest = found["strongest"].as_array().unwrap();
    assert_eq!(strongest.len(), 10.min(changes.len()));
    for (cell, change) in strongest.iter().zip(changes) {
        assert!((cell["change"].as_f64().unwrap().abs() - change.abs()).abs() < 1e-12);
        let value = cell["value"].as_f64().unwrap();
        let recovered = (value - prompt) / (from - prompt);
        assert!((cell["recovered"].as_f64().unwrap() - recovered).abs() < 1e-12);
    }
    let out = place.run(&on_tied(&model, &["heads", SPAIN, "--from", ITALY, "--answers", "T", "is"], &[]));
    let text = String::from_utf8(out.stdout).unwrap();
    for word in ["logit_diff, T minus is", "PROMPT", "--from", "strongest of 12 cells", "head ", "recovered"]
    {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    // The divergence of a prompt from itself leaves nothing to recover.
    let kl = place.json(&on_tied(
        &model,
        &["patch", SPAIN, "--from", ITALY, "--metric", "kl"],
        &["--layers", "window=2"],
    ));
    assert!(kl["from"].is_null() && kl["strongest"][0]["recovered"].is_null());
    assert_eq!(kl["strongest"][0]["layers"], "0..=1");
}

#[test]
fn natural_mistakes_say_what_to_type_instead() {
    let (place, model) = (Place::new(), format!("{FIXTURES}/tiny-llama-tied"));
    let patch = ["patch", SPAIN, "--from", ITALY, "--answers", "T", "is"];
    fs::write(place.path("plain.toml"), "[runs.base]\nids = [3]\n").unwrap();
    let cases: [(&[&str], &[&str]); 13] = [
        (
            &["patch", SPAIN, "--from", "The capital of Italy Italy is", "--answers", "T", "is"],
            &["has", "tokens", "base", "source", "--align tokens"],
        ),
        (
            &["patch", SPAIN, "--from", ITALY, "--answers", "T"],
            &["--metric logit_diff needs 2 --answers", "prob"],
        ),
        (&[&patch[..], &["--site", "resid_prе"]].concat(), &["is not a site", "did you mean \"resid_pre\"?"]),
        (&[&patch[..], &["--layers", "7..x"]].concat(), &["--layers", "0..10"]),
        (&[&patch[..], &["--heads", "each"]].concat(), &["heads"]),
        (&[&patch[..], &["--metric", "logitdiff"]].concat(), &["--metric", "logit_diff"]),
        (
            &["patch", "plain.toml", "--from", ITALY, "--answers", "T", "is"],
            &["plain.toml is a file", "sweep"],
        ),
        (&["patch", "missing.txt", "--from", ITALY, "--answers", "T", "is"], &["missing.txt"]),
        (&["patch", SPAIN, "--from", SPAIN, "--answers", "T", "is"], &["the same text"]),
        (
            &["patch", SPAIN, "--from", ITALY, "--answers", "T", "is", "y"],
            &["logit_diff compares 2 --answers"],
        ),
        (&[&patch[..], &["--site", "blocks.1.attn.hook_z", "--layers", "0"]].concat(), &["names layer 1"]),
        (&[&patch[..], &["--print-experiment"]].concat(), &["cannot be used with"]),
        (&["patch", "-", "--from", "-", "--answers", "T", "is"], &["standard input"]),
    ];
    for (args, words) in cases {
        let said = place.refused(&on_tied(&model, args, &["--out", "out"]));
        for word in words {
            assert!(said.contains(word), "{args:?}: no {word:?} in: {said}");
        }
        assert!(!place.path("out/cells.csv").exists());
    }
    let unsaved = place.refused(&on_tied(&model, &patch, &["--force"]));
    assert!(unsaved.contains("--out, which is not given"), "{unsaved}");
    let aligned = ["--from", "The capital of Italy Italy is", "--answers", "T", "is", "--align", "left"];
    place.json(&on_tied(&model, &["patch", SPAIN], &aligned));
}

/// A prompt may come from a text file or from standard input; `lens` tells it from an experiment file.
#[test]
fn prompts_come_from_anywhere() {
    let (place, model) = (Place::new(), format!("{FIXTURES}/tiny-llama-tied"));
    let expected = place.json(&["top", SPAIN, "-m", &model]);
    fs::write(place.path("prompt.txt"), format!("{SPAIN}\n")).unwrap();
    assert_eq!(place.json(&["top", "prompt.txt", "-m", &model]), expected);
    let mut child = place
        .command(&["top", "-", "-m", &model, "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), SPAIN.as_bytes()).unwrap();
    let piped: serde_json::Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(piped, expected);

    let seen = place.json(&["lens", SPAIN, "-m", &model]);
    assert_eq!(place.json(&["lens", "--prompt", SPAIN, "-m", &model]), seen);
    assert_eq!(seen["examples"], 1);
    let last = seen["lens"].as_array().unwrap().iter().rfind(|row| row["rank"] == 1).unwrap();
    assert_eq!(last["token"], expected["top"][0]["token"]);
    let file = place.experiment("one.toml", "");
    let of_file = place.json(&["lens", &file]);
    assert!(of_file["contributions"].as_array().unwrap().len() > 3 && of_file["lens"][0]["input_id"] == 3);
    assert!(place.refused(&["lens", "missing.toml"]).contains("missing.toml"));
    assert!(place.refused(&["lens", "missing.txt", "-m", &model]).contains("missing.txt"));
}
