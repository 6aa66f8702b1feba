//! The command on data sets: tables, means, JSON, and what a bad line gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

const GOOD: [&str; 3] = [
    r#"{"base": [3, 1, 4, 1, 5], "source": [2, 7, 1], "positions": {"subject": [1, 2]}, "tokens": [7, 9]}"#,
    r#"{"base": [2, 7, 1], "source": [9, 9], "positions": {"subject": 1}, "tokens": [8, 9]}"#,
    r#"{"base": [6, 6, 6, 6], "source": [5, 4, 3, 2], "positions": {"subject": [-2, 0]}, "tokens": [1, 9]}"#,
];

const SWEEP: &str = "[[edit]]\nsite = 'block_output'\nlayers = 'all'\npositions = { name = 'subject' }\nop = 'swap'\n\
    value = { run = 'source', positions = 0 }\n[read]\ntop = 2\n[sweep]\nlayers = 'each'\npositions = 'each'\n";

const NOISE: &str =
    "[[edit]]\nsite = 'embedding'\nop = 'noise'\nlevel = 0.3\nseed = 4\n[sweep]\nsamples = 3\n";

/// A folder with an experiment file on a tiny model, and its data set.
struct Place(tempfile::TempDir);

impl Place {
    fn new(lines: &[&str], rest: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.lines(lines);
        let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = 'pairs.jsonl'\n{rest}");
        std::fs::write(place.path("set.toml"), text).unwrap();
        place
    }

    fn lines(&self, lines: &[&str]) {
        std::fs::write(self.path("pairs.jsonl"), lines.join("\n")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causalcone"));
        command.current_dir(self.0.path()).env("CAUSALCONE_CACHE", self.path("cache"));
        command.args(args).output().unwrap()
    }

    /// The exit code, the JSON document if there is one, and what is said on stderr.
    fn json(&self, args: &[&str]) -> (Option<i32>, Value, String) {
        let out = self.run(&[args, &["--json"]].concat());
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_default(), said)
    }

    fn rows(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        rows(&self.path(name))
    }
}

fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn run_answers_for_each_example() {
    let place = Place::new(&GOOD, SWEEP);
    let (code, all, said) = place.json(&["run", "set.toml"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_eq!(all["errors"], json!([]));
    for (number, line) in GOOD.iter().enumerate() {
        let one = &all["examples"][number];
        assert_eq!(one["example"], number);
        assert_ne!(one["original"], one["counterfactual"]);
        let tokens: Vec<_> = one["original"]["tokens"].as_array().unwrap().iter().map(|t| &t["id"]).collect();
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(json!(tokens), line["tokens"]);
        // Alone it says the same.
        let text = std::fs::read_to_string(place.path("set.toml")).unwrap();
        let at = &line["positions"]["subject"];
        let text = text
            .replace(
                "examples = 'pairs.jsonl'",
                &format!("[runs.base]\nids = {}\n[runs.source]\nids = {}", line["base"], line["source"]),
            )
            .replace("{ name = 'subject' }", &at.to_string())
            .replace("top = 2", &format!("top = 2\ntokens = {}", line["tokens"]));
        std::fs::write(place.path("alone.toml"), text).unwrap();
        let (_, alone, said) = place.json(&["run", "alone.toml"]);
        assert_eq!(
            (&alone["original"], &alone["counterfactual"]),
            (&one["original"], &one["counterfactual"]),
            "{said}"
        );
    }
    let shown = String::from_utf8(place.run(&["run", "set.toml"]).stdout).unwrap();
    assert_eq!(shown.lines().count(), 1 + 3 * 3, "{shown}");
}

#[test]
fn a_sweep_has_a_table_of_means() {
    let place = Place::new(&GOOD, SWEEP);
    let (code, summary, said) = place.json(&["sweep", "set.toml", "--out", "out"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&summary["cells"], &summary["errors"]), (&json!(3 * (2 + 1 + 2)), &json!([])));
    let cells = place.rows("out/cells.csv");
    let examples: Vec<&str> = cells.iter().map(|row| row["example"].as_str()).collect();
    assert_eq!(examples, [vec!["0"; 12], vec!["1"; 6], vec!["2"; 12]].concat());
    assert_eq!((cells[0]["token"].as_str(), cells[12]["token"].as_str()), ("7", "8"));
    let means = place.rows("out/means.csv");
    assert_eq!(means.len(), 3 * 2 * 2);
    for mean in &means {
        let place = if mean["n"] == "3" { 0 } else { 1 };
        let picked: Vec<f64> = cells
            .chunks(2)
            .collect::<Vec<_>>()
            .chunk_by(|a, b| a[0]["example"] == b[0]["example"] && a[0]["layer"] == b[0]["layer"])
            .filter(|group| group[0][0]["layer"] == mean["layer"])
            .filter_map(|group| group.get(place))
            .map(|pair| pair[usize::from(mean["token"] == "9")]["value"].parse().unwrap())
            .collect();
        let n = picked.len() as f64;
        let m = picked.iter().sum::<f64>() / n;
        let error = (picked.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
        assert_eq!(mean["n"], picked.len().to_string());
        assert!((mean["mean"].parse::<f64>().unwrap() - m).abs() < 1e-12);
        assert!((mean["standard_error"].parse::<f64>().unwrap() - error).abs() < 1e-12);
        assert_eq!(mean["position"], "", "what stands there differs");
        assert!(["tokens[0]", "9"].contains(&mean["token"].as_str()), "{mean:?}");
    }
    let figure = std::fs::read_to_string(place.path("out/heatmap.svg")).unwrap();
    assert!(figure.contains("mean probability") && figure.contains("mean of 3 examples of pairs.jsonl"));
    assert!(figure.contains("place in the list"));
    for format in ["jsonl", "parquet"] {
        place.json(&["sweep", "set.toml", "--out", format, "--format", format]);
        assert!(place.path(&format!("{format}/means.{format}")).exists());
    }
}

#[test]
fn a_bad_line_costs_the_others_nothing() {
    let place = Place::new(&GOOD, SWEEP);
    place.json(&["sweep", "set.toml", "--out", "good"]);
    let missing = r#"{"base": [1, 2], "source": [3], "positions": {"sujbect": 1}, "tokens": [1, 9]}"#;
    place.lines(&[GOOD[0], "{nonsense", "", missing, GOOD[1], GOOD[2]]);
    let (code, summary, said) = place.json(&["sweep", "set.toml", "--out", "out"]);
    assert_eq!(code, Some(2), "{said}");
    for words in [
        "pairs.jsonl line 2: ",
        "pairs.jsonl line 4: edit 0: position \"subject\" is not in this example",
        "did you mean \"sujbect\"?",
        "2 of 5 examples could not be used",
    ] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
    let lines = |errors: &Value| {
        errors
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["example"].clone(), e["line"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&summary["errors"]), [(json!(1), json!(2)), (json!(2), json!(4))]);
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap();
    assert_eq!(record["errors"], summary["errors"]);
    // What is good is there whole, with the numbers of its lines.
    let (good, rest) = (place.rows("good/cells.csv"), place.rows("out/cells.csv"));
    assert_eq!(good.len(), rest.len());
    for (good, mut row) in good.into_iter().zip(rest) {
        let number = ["0", "3", "4"][good["example"].parse::<usize>().unwrap()];
        assert_eq!(row.insert("example".into(), good["example"].clone()).as_deref(), Some(number));
        assert_eq!(row, good);
    }
    assert_eq!(place.rows("good/means.csv"), place.rows("out/means.csv"));

    let (code, all, said) = place.json(&["run", "set.toml"]);
    assert_eq!((code, all["examples"].as_array().map(Vec::len)), (Some(2), Some(3)), "{said}");
    assert_eq!(all["errors"], summary["errors"]);
    let (code, explained, _) = place.json(&["explain", "set.toml"]);
    assert_eq!((code, &explained["cells"]), (Some(2), &json!(15)));
}

#[test]
fn without_a_good_line_nothing_is_written() {
    let place = Place::new(&["{nonsense", r#"{"bas": [1]}"#], SWEEP);
    for args in [&["run", "set.toml"][..], &["sweep", "set.toml", "--out", "out"], &["explain", "set.toml"]] {
        let out = place.run(args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0), "{said}");
        for words in ["line 1: ", "line 2: ", "did you mean \"base\"?", "no example can be used"] {
            assert!(said.contains(words), "no {words:?} in: {said}");
        }
        assert!(!place.path("out").exists());
    }
    // One reason for all lies in the experiment.
    let place = Place::new(&GOOD, &SWEEP.replace("'all'", "9"));
    let out = place.run(&["sweep", "set.toml", "--out", "out"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(
        said.starts_with("error: edit 0: layer 9 is out of range") && said.lines().count() == 1,
        "{said}"
    );
    for lines in [&[""][..], &["\n\n"]] {
        place.lines(lines);
        let out = place.run(&["run", "set.toml"]);
        assert_eq!(out.status.code(), Some(2));
        assert!(String::from_utf8(out.stderr).unwrap().contains("pairs.jsonl: holds no example"));
    }
}

#[test]
fn a_sweep_resumes_only_on_the_same_examples_and_seed() {
    let place = Place::new(&GOOD, &format!("{NOISE}metrics = ['kl']\n[runs.source]\n"));
    let (code, summary, said) = place.json(&["sweep", "set.toml", "--out", "out"]);
    assert_eq!((code, &summary["cells"]), (Some(0), &json!(9)), "{said}");
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap();
    assert_eq!(record["identity"]["seed"], 4);
    let samples: Vec<String> = place.rows("out/cells.csv").iter().map(|row| row["sample"].clone()).collect();
    assert_eq!(samples, ["0", "1", "2"].repeat(3));
    let means = place.rows("out/means.csv");
    assert_eq!((means.len(), means[0]["n"].as_str(), means[0]["scale"].as_str()), (1, "3", "0.3"));
    let (code, summary, _) = place.json(&["sweep", "set.toml", "--out", "out", "--resume"]);
    assert_eq!((code, &summary["resumed"]), (Some(0), &json!(9)));
    place.lines(&[GOOD[0], GOOD[2], GOOD[1]]);
    let (code, _, said) = place.json(&["sweep", "set.toml", "--out", "out", "--resume"]);
    assert!(code == Some(2) && said.contains("file differs"), "{said}");
    place.lines(&GOOD);
    let text = std::fs::read_to_string(place.path("set.toml")).unwrap();
    std::fs::write(place.path("set.toml"), text.replace("seed = 4", "seed = 5")).unwrap();
    assert!(place.json(&["sweep", "set.toml", "--out", "out", "--resume"]).2.contains("differs"));
}
