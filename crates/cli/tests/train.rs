//! `train`: what it leaves, what it takes up again, and what it refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const EDIT: &str = "[[edit]]\nname = 'it'\nrun = 'base'\nsite = 'block_output'\nlayers = [0, 1]\npositions = [-2, -1]\n\
    op = 'low_rank_swap'\nparameters = { random = 0, rank = 3 }\nvalue = { run = 'source' }\n";

/// A training on a tiny model, in a file of that name.
fn training(place: &Place, name: &str, rest: &str) -> String {
    let line = |i: u32| {
        let ids = |k: u32, n: u32| (0..n).map(|j| (i * k + j * 7) % 50).collect::<Vec<_>>();
        json!({"base": ids(3, 3 + i % 3), "source": ids(11, 2 + i % 4), "label": i * 13 % 50}).to_string()
    };
    let lines: Vec<String> = (0..18).map(line).collect();
    fs::write(place.path("pairs.jsonl"), lines.join("\n")).unwrap();
    let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = 'pairs.jsonl'\n{rest}");
    fs::write(place.path(name), text).unwrap();
    name.into()
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("intervention/weights.safetensors")).unwrap()
}

#[test]
fn a_training_leaves_what_it_learned_and_how() {
    let place = Place::new();
    let file = training(
        &place,
        "das.toml",
        &format!("{EDIT}[train]\nsteps = 30\nbatch = 8\nlearning_rate = 0.02\nheld_out = 0.3\n"),
    );
    let done = place.json(&["train", &file, "--out", "out"]);
    assert_eq!((&done["fits"], &done["steps"], &done["examples"]), (&json!(1), &json!(30), &json!(13)));
    let judged = &done["judged"];
    assert_eq!((&judged["examples"], &judged["held_out"]), (&json!(5), &json!(true)));
    assert!(judged["trained"]["loss"].as_f64().unwrap() < judged["original"]["loss"].as_f64().unwrap());
    for name in ["log.csv", "cells.csv", "means.csv", "loss.svg", "loss.png", "train.json", "intervention"] {
        assert!(place.path("out").join(name).exists(), "{name}");
    }
    let log: Vec<csv::StringRecord> =
        csv::Reader::from_path(place.path("out/log.csv")).unwrap().records().map(Result::unwrap).collect();
    assert_eq!(log.len(), 30);
    let loss = |row: usize| log[row][3].parse::<f64>().unwrap();
    assert!(loss(29) < loss(0));
    // What was learned answers as it did here, and is loaded by an edit.
    assert_eq!(place.json(&["info", "out/intervention"])["tested"]["passed"], true);
    let load = "[[edit]]\nrun = 'base'\nop = { load = 'out/intervention' }\nvalue = { run = 'source' }\n\
                [sweep]\nmetrics = ['accuracy', 'loss']\n";
    let again = training(&place, "again.toml", load);
    place.json(&["sweep", &again, "--out", "swept"]);
    let said = place.refused(&["train", &file, "--out", "out"]);
    assert!(said.contains("already holds results"), "{said}");
    let record: Value = serde_json::from_slice(&fs::read(place.path("out/train.json")).unwrap()).unwrap();
    assert_eq!(record["experiment"]["train"]["steps"], 30);
    // One that goes out of bounds before it has learned anything leaves nothing of an earlier one.
    let wild = format!("{EDIT}[train]\nsteps = 30\nbatch = 8\nlearning_rate = 1e30\nheld_out = 0.3\n");
    let wild = training(&place, "wild.toml", &wild);
    let out = place.run(&["train", &wild, "--out", "out", "--force"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("not finite at step"), "{said}");
    assert!(!place.path("out/intervention").exists());
}

const SEARCH: &str = "[sweep]\nlayers = 'each'\npositions = 'each'\n\
    [train]\nsteps = 25\nbatch = 4\nlearning_rate = 0.02\nheld_out = 0.3\ncheckpoint = 4\nevaluate = 10\n";

/// Killed at many moments, a search ends with the bytes of one that was not.
#[test]
#[cfg(unix)]
fn a_killed_training_goes_on_bit_by_bit() {
    let place = Place::new();
    let file = training(&place, "search.toml", &format!("{EDIT}{SEARCH}"));
    let started = std::time::Instant::now();
    let whole = place.json(&["train", &file, "--out", "whole"]);
    assert_eq!((&whole["fits"], &whole["steps"]), (&json!(4), &json!(100)));
    assert!(place.path("whole/heatmap.svg").exists());
    let longest = started.elapsed().as_millis() as u64;
    let args = ["train", &file, "--out", "cut", "--resume"];
    let mut kills = 0;
    while !place.path("cut/train.json").exists() && kills < 40 {
        let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(longest * (1 + kills % 7) / 8));
        signal(&child, "KILL");
        child.wait().unwrap();
        kills += 1;
    }
    if !place.path("cut/train.json").exists() {
        place.json(&args);
    }
    let same = |name: &str| {
        let read = |folder: &str| fs::read(place.path(folder).join(name)).unwrap();
        assert_eq!(read("cut"), read("whole"), "{name}");
    };
    ["log.csv", "cells.csv", "means.csv", "steps.jsonl"].into_iter().for_each(same);
    assert_eq!(weights(&place.path("cut")), weights(&place.path("whole")));
    println!("{kills} kills");
}

#[test]
#[cfg(unix)]
fn an_interrupted_training_says_how_to_go_on() {
    let place = Place::new();
    let text = format!("{EDIT}[train]\nsteps = 100000\n");
    let file = training(&place, "long.toml", &text);
    let args = ["train", &file, "--out", "out"];
    let child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::metadata(place.path("out/steps.jsonl")).map_or(0, |found| found.len()) < 1000 {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "INT");
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(130), "{said}");
    assert!(said.contains("resume with: causalcone train long.toml --out out --resume"), "{said}");
    assert!(place.path("out/checkpoint.safetensors").exists() && !place.path("out/train.json").exists());
    // Another file is another training.
    training(&place, "long.toml", &text.replace("100000", "90000"));
    let said = place.refused(&["train", &file, "--out", "out", "--resume"]);
    assert!(said.contains("file differs"), "{said}");
}

/// What was there stays.
#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_checkpoint() {
    let place = Place::new();
    let file = training(&place, "long.toml", &format!("{EDIT}[train]\nsteps = 100000\ncheckpoint = 5\n"));
    let args = ["train", &file, "--out", "out"];
    let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("out/checkpoint.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    let before = fs::read(place.path("out/checkpoint.safetensors")).unwrap();
    let out = place.run_on_full_disk(&format!("train {file} --out out --resume"));
    assert!(!out.status.success());
    assert_eq!(fs::read(place.path("out/checkpoint.safetensors")).unwrap(), before);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let place = Place::new();
    let refused = |rest: &str, words: &[&str]| {
        let file = training(&place, "bad.toml", rest);
        let said = place.refused(&["train", &file, "--out", "bad"]);
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
        assert!(!place.path("bad/train.json").exists());
    };
    refused(EDIT, &["no [train]"]);
    refused(&format!("{EDIT}[train]\nstep = 3\n"), &["unknown field `step`", "did you mean `steps`?"]);
    refused(&format!("{EDIT}[train]\nsteps = 3\nepochs = 1\n"), &["epochs and steps"]);
    refused(&format!("{EDIT}[train]\nobjective = 'cross'\n"), &["objective \"cross\"", "cross_entropy"]);
    refused(&format!("{EDIT}[train]\nobjective = {{ kl = 'other' }}\n"), &["\"other\""]);
    refused(&format!("{EDIT}[train]\nedits = ['them']\n"), &["no edit \"them\"", "it"]);
    refused(&format!("{EDIT}[train]\nheld_out = 'none.jsonl'\n"), &["none.jsonl"]);
    refused(&format!("{EDIT}[train]\nrotations = 'cayly'\n"), &["did you mean \"cayley\"?"]);
    refused(&EDIT.replace("random = 0, rank = 3", "random = 0"), &["needs a rank"]);
    refused(&EDIT.replace("rank = 3", "rank = 1000"), &["rank 1000", "width"]);

    // A line whose label is none: told by its number, and the others train.
    let file = training(&place, "one.toml", &format!("{EDIT}[train]\nsteps = 2\n"));
    let mut lines = fs::read_to_string(place.path("pairs.jsonl")).unwrap();
    lines += "\n{\"base\": [1, 2], \"source\": [3], \"label\": [1]}\n{\"base\": [1, 2], \"source\": [3], \"label\": 999}\n";
    fs::write(place.path("pairs.jsonl"), lines).unwrap();
    let out = place.run(&["train", &file, "--out", "most"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("line 19") && said.contains("line 20") && said.contains("2 of 20"), "{said}");
    assert!(place.path("most/train.json").exists());
}
