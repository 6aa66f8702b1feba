//! Conversations whose chat template asks for the date.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use serde_json::Value;
use std::path::Path;

/// A model whose template writes the date, and a file that sweeps a conversation with it.
fn dated(place: &Place, more: &str) -> &'static str {
    let folder = place.path("model");
    if !folder.exists() {
        std::fs::create_dir(&folder).unwrap();
        for file in
            std::fs::read_dir(Path::new(FIXTURES).join("tiny-llama-tied")).unwrap().map(Result::unwrap)
        {
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        let template = "{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}{%- else %}\
                        {%- set day = '01 Jan 2000' %}{%- endif %}Date: {{ day }}{% for m in messages %} {{ m.content }}{% endfor %}";
        std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
    }
    let text = format!(
        "model = 'model'\n{more}\n[runs.base]\nmessages = [{{ role = 'user', content = 'hi' }}]\n[[edit]]\n\
         site = 'mlp_output'\nlayers = 'all'\nop = 'zero'\n[read]\ntokens = [7]\n[sweep]\nlayers = 'each'\n"
    );
    std::fs::write(place.path("x.toml"), text).unwrap();
    "x.toml"
}

fn prompt(explained: &Value) -> String {
    let tokens = explained["runs"][0]["tokens"].as_array().unwrap();
    tokens.iter().map(|token| token.as_str().unwrap()).collect()
}

#[test]
fn a_template_sees_the_date_of_the_file_and_the_output_says_which() {
    let place = Place::new();
    let file = dated(&place, "date = '2026-02-09'");
    let explained = place.json(&["explain", file]);
    assert_eq!(
        (prompt(&explained).as_str(), &explained["date"]),
        ("Date: 09 Feb 2026 hi", &"2026-02-09".into())
    );
    let said = String::from_utf8(place.run(&["explain", file]).stdout).unwrap();
    assert!(said.contains("date           2026-02-09"), "{said}");
    assert_eq!(place.json(&["run", file])["date"], "2026-02-09");
    // As a date of TOML, too.
    let file = dated(&place, "date = 2026-02-09T10:20:30");
    assert_eq!(place.json(&["explain", file])["date"], "2026-02-09T10:20:30");
    let file = dated(&place, "date = '9 Feb 2026'");
    assert!(place.refused(&["explain", file]).contains("YYYY-MM-DD"));

    // Without one it is today's. What the output says makes the same prompt again.
    let file = dated(&place, "");
    let today = place.json(&["explain", file]);
    let date = today["date"].as_str().unwrap();
    assert!(prompt(&today).contains(&date[..4]) && !prompt(&today).contains("2000"), "{}", prompt(&today));
    let file = dated(&place, &format!("date = '{date}'"));
    assert_eq!(place.json(&["explain", file])["runs"], today["runs"]);
    let top = place.json(&["top", "-m", "model", "--chat", "hi"]);
    assert!(top["date"].is_string());
    assert_eq!(place.json(&["top", "-m", "model", "hi"]).get("date"), None, "no template asked");
}

#[test]
fn a_sweep_resumes_with_the_date_it_began_with() {
    let place = Place::new();
    let record = || -> Value {
        serde_json::from_slice(&std::fs::read(place.path("out/experiment.json")).unwrap()).unwrap()
    };
    let sweep = |more: &[&str]| place.run(&[&["sweep", "x.toml", "--out", "out"], more].concat());
    dated(&place, "date = '2001-02-03'");
    assert!(sweep(&[]).status.success());
    assert_eq!(record()["identity"]["date"], "2001-02-03");
    std::fs::remove_file(place.path("out/experiment.json")).unwrap();

    dated(&place, "");
    let resumed = sweep(&["--resume"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(prompt(&record()["plan"]), "Date: 03 Feb 2001 hi");

    dated(&place, "date = '2001-02-04'");
    let said = place.refused(&["sweep", "x.toml", "--out", "out", "--resume"]);
    assert!(said.contains("date differs: 2001-02-03 there, 2001-02-04 now"), "{said}");
    dated(&place, "");
    assert!(sweep(&["--force"]).status.success());
    assert_ne!(record()["identity"]["date"], "2001-02-03");
}

/// What is fitted to conversations is fitted at the date of the experiment.
#[test]
fn fitted_values_see_the_same_date() {
    let place = Place::new();
    let lines: String = ["hi", "you", "me"]
        .iter()
        .map(|text| {
            format!("{{\"base\": {{\"messages\": [{{\"role\": \"user\", \"content\": \"{text}\"}}]}}}}\n")
        })
        .collect();
    std::fs::write(place.path("chat.jsonl"), lines).unwrap();
    let run = |date: &str| {
        dated(&place, date);
        let text = format!(
            "model = 'model'\n{date}\n[runs.base]\nids = [1, 2, 3]\n[[edit]]\nsite = 'block_output'\nlayers = 0\n\
             op = 'add'\nvalue = {{ mean = 'base', examples = 'chat.jsonl' }}\n[read]\nrun = 'base'\n"
        );
        std::fs::write(place.path("fit.toml"), text).unwrap();
        place.json(&["run", "fit.toml"])
    };
    let (old, older) = (run("date = '2001-02-03'"), run("date = '1987-10-26'"));
    assert_eq!((&old["date"], &older["date"]), (&"2001-02-03".into(), &"1987-10-26".into()));
    assert_eq!(old["original"], older["original"]);
    assert_ne!(old["counterfactual"], older["counterfactual"]);
    assert!(run("")["date"].is_string(), "a template has asked for the date");
}
