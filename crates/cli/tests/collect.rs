//! `collect`, `save` and `info` as other programs see them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use candle_core::{Device, Tensor};
use common::*;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const EDITS: &str = "[[edit]]\nname = 'resid'\nsite = 'block_output'\nlayers = [0, 2]\nop = 'collect'\n\
    [[edit]]\nsite = 'head_value_output'\nlayers = 1\npositions = 'last'\nheads = [1, 0]\ndims = [2, 3, 4]\nop = 'collect'\n\
    [[edit]]\nname = 'seen'\nsite = 'attention_weight'\nlayers = 2\nheads = 1\nop = 'collect'\n\
    [[edit]]\nsite = 'mlp_output'\nlayers = 0\nop = 'scale'\nscale = 2.0\n";

/// A data set of prompts of several lengths, and an experiment that collects from it.
fn data_set(place: &Place, examples: usize) -> String {
    let line = |i: usize| {
        let ids: Vec<String> = (0..2 + i % 4).map(|k| ((7 * i + 11 * k) % 60).to_string()).collect();
        format!("{{\"base\": [{}]}}", ids.join(", "))
    };
    let lines: Vec<String> = (0..examples).map(line).collect();
    fs::write(place.path("prompts.jsonl"), lines.join("\n")).unwrap();
    let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = 'prompts.jsonl'\n{EDITS}");
    fs::write(place.path("collect.toml"), text).unwrap();
    "collect.toml".into()
}

fn shard(folder: &Path, name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder.join(name), &Device::Cpu).unwrap()
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|e| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())).collect()
}

/// Every number of the shards is where the index says, and is what `run` collects of that example.
#[test]
fn shards_hold_what_run_collects() {
    let place = Place::new();
    let file = data_set(&place, 9);
    let printed = place.json(&["collect", &file, "--out", "out", "--shard", "2KB"]);
    assert_eq!((printed["examples"].as_u64(), printed["resumed"].as_u64()), (Some(9), Some(0)));
    let out = place.path("out");
    let record: Value = serde_json::from_slice(&fs::read(out.join("collection.json")).unwrap()).unwrap();
    let shards = record["shards"].as_array().unwrap();
    assert!(shards.len() > 2 && shards.len() < 9, "{shards:?}");
    let names: Vec<&str> =
        record["tensors"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["resid", "head_value_output", "seen"]);

    let ran = place.json(&["run", &file]);
    let mut index: BTreeMap<(String, usize, usize), (String, usize)> = BTreeMap::new();
    for row in csv::Reader::from_path(out.join("index.csv")).unwrap().deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        let number = |key: &str| row[key].parse::<usize>().unwrap();
        let name = row["name"].split('.').next().unwrap().to_owned();
        let found = (row["shard"].clone(), number("row"));
        assert!(index.insert((name, number("example"), number("position")), found).is_none());
    }
    let mut compared = 0;
    for one in ran["examples"].as_array().unwrap() {
        let example = one["example"].as_u64().unwrap() as usize;
        for collected in one["collected"].as_array().unwrap() {
            let (site, layer) = (collected["site"].as_str().unwrap(), &collected["layer"]);
            let name = match site {
                "block_output" => "resid",
                "attention_weight" => "seen",
                other => other,
            };
            let is_matrix = name == "seen";
            let positions = collected["positions"].as_array().unwrap();
            let values: Vec<&Value> = if is_matrix {
                // Heads come first.
                collected["values"][0].as_array().unwrap().iter().collect()
            } else {
                collected["values"].as_array().unwrap().iter().collect()
            };
            for (position, theirs) in positions.iter().zip(values) {
                let position = position.as_u64().unwrap() as usize;
                let (file, row) = &index[&(name.to_owned(), example, position)];
                let tensors = shard(&out, file);
                let ours = if is_matrix {
                    tensors[&format!("{name}.{layer}.{example}")].get(0).unwrap().get(*row).unwrap()
                } else {
                    tensors[&format!("{name}.{layer}")].get(*row).unwrap()
                };
                let ours = ours.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let flat = |value: &Value| match value {
                    Value::Array(items) => items.clone(),
                    other => vec![other.clone()],
                };
                let theirs: Vec<f32> =
                    flat(theirs).iter().flat_map(flat).map(|x| x.as_f64().unwrap() as f32).collect();
                assert_eq!(ours.len(), theirs.len());
                for (a, b) in ours.iter().zip(&theirs) {
                    // Other rows in the same products: rounding.
                    assert!((a - b).abs() <= 1e-5 + 1e-5 * b.abs(), "{name}.{layer} of {example}: {a}, {b}");
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, index.len() + index.keys().filter(|(name, ..)| name == "resid").count());
}

#[test]
#[cfg(unix)]
fn a_killed_collection_goes_on_where_it_was() {
    let place = Place::new();
    let file = data_set(&place, 300);
    let args = |out| ["collect", &file, "--out", out, "--shard", "3KB"].map(str::to_owned);
    let whole = args("whole");
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let started = std::time::Instant::now();
    place.json(&whole);
    let longest = started.elapsed().as_millis() as u64;
    let cut = args("cut");
    let resumed: Vec<&str> = cut.iter().map(String::as_str).chain(["--resume"]).collect();
    let mut kills = 0;
    while !place.path("cut/collection.json").exists() && kills < 40 {
        let mut child = place.command(&resumed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(longest * (1 + kills % 7) / 8));
        signal(&child, "KILL");
        child.wait().unwrap();
        kills += 1;
        // Whatever has its name is whole.
        let shards = contents(&place.path("cut")).into_keys().filter(|name| name.starts_with("shard-"));
        shards.for_each(|name| drop(shard(&place.path("cut"), &name)));
    }
    place.json(&resumed);
    let ours = |folder: &str| {
        let mut all = contents(&place.path(folder));
        all.retain(|name, _| !name.starts_with(".causalcone-"));
        all
    };
    assert_eq!(ours("cut"), ours("whole"));
    println!("{kills} kills");
}

#[test]
fn collections_are_not_mixed() {
    let place = Place::new();
    let file = data_set(&place, 6);
    place.json(&["collect", &file, "--out", "out", "--shard", "2KB"]);
    let said = place.refused(&["collect", &file, "--out", "out", "--shard", "2KB"]);
    assert!(said.contains("already holds results") && said.contains("--force"), "{said}");
    let said = place.refused(&["collect", &file, "--out", "out", "--shard", "3KB", "--resume"]);
    assert!(said.contains("file differs"), "{said}");
    place.json(&["collect", &file, "--out", "out", "--shard", "1MB", "--force"]);
    let names: Vec<String> = contents(&place.path("out")).into_keys().collect();
    assert_eq!(names, ["collection.json", "index.csv", "resume.json", "shard-00000.safetensors"]);
    fs::write(place.path("none.toml"), format!("model = '{FIXTURES}/tiny-llama'\n[runs.base]\nids = [1]\n"))
        .unwrap();
    let said = place.refused(&["collect", "none.toml", "--out", "other"]);
    assert!(said.contains("no edit collects") && !place.path("other").exists(), "{said}");
}

const ADD: &str = "[[edit]]\nname = 'it'\nsite = 'block_output'\nlayers = 1\nop = 'add'\nvalue = { values = [\
    1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1] }\n";

#[test]
fn what_is_saved_is_described_and_tests_itself() {
    let place = Place::new();
    let file = place.experiment("add.toml", ADD);
    let saved = place.json(&["save", &file, "--out", "it"]);
    assert_eq!(saved["edits"][0], "it");
    let info = place.json(&["info", "it"]);
    assert_eq!(info["tested"]["passed"], true);
    assert_eq!(info["edit"][0]["op"], "add");
    let of_file = place.json(&["run", &file]);
    let load = place.experiment("load.toml", "[[edit]]\nrun = 'base'\nop = { load = 'it' }\n");
    assert_eq!(place.json(&["run", &load]), of_file);
    assert!(place.refused(&["save", &file, "--out", "it"]).contains("--force"));
    place.json(&["save", &file, "--out", "it", "--force"]);

    // An answer that is not what was saved: exit code 1, and what it is now.
    let path = place.path("it/intervention.json");
    let mut description: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    description["test"]["top"][0]["prob"] = serde_json::json!(0.5);
    fs::write(&path, description.to_string()).unwrap();
    let out = place.run(&["info", "it"]);
    let (shown, said) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(shown.contains("FAILED") && said.contains("self-test failed"), "{shown}{said}");
    assert!(place.run(&["info", "it", "--no-test"]).status.success());
    assert!(place.refused(&["info", "nothing"]).contains("intervention.json"));
}

#[test]
#[cfg(unix)]
fn a_full_disk_leaves_the_old_folder() {
    let place = Place::new();
    let file = place.experiment("add.toml", ADD);
    place.json(&["save", &file, "--out", "it"]);
    let before = contents(&place.path("it"));
    let out = place.run_on_full_disk(&format!("save {file} --out it --force"));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && said.contains("cannot write it"), "{said}");
    assert_eq!(contents(&place.path("it")), before);
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".causalcone-")), "{left:?}");
}
