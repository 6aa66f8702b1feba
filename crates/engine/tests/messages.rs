//! Runs that are conversations: in a file and in a data set, by a template that comes with the model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::Model;
use common::*;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}{% if add_generation_prompt %}answer:{% endif %}";

/// A copy of a fixture with other files beside it.
fn with(files: &[(&str, String)]) -> (tempfile::TempDir, Model) {
    let fixture: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama-tied");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let model = Model::load(folder.path().to_str().unwrap()).unwrap();
    (folder, model)
}

fn ids(model: &Model, run: &Value) -> Result<Vec<u32>, String> {
    let exp = experiment(model, &json!({"runs": {"base": run}})).map_err(|e| e.to_string())?;
    let base = exp.find_run("base", "test").unwrap();
    Ok(exp.ids(base).to_vec())
}

#[test]
fn a_run_may_be_a_conversation() {
    let in_config = json!({"chat_template": TEMPLATE}).to_string();
    let by_name = json!({"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]});
    for files in [
        vec![("chat_template.jinja", TEMPLATE.to_owned())],
        vec![("tokenizer_config.json", in_config)],
        vec![("tokenizer_config.json", by_name.to_string())],
    ] {
        let (_folder, model) = with(&files);
        let messages = json!([{"role": "user", "content": " The capital "}]);
        let asked = ids(&model, &json!({"messages": messages})).unwrap();
        assert_eq!(asked, model.prompt("user: The capital\nanswer:", None).unwrap());
        let told = ids(&model, &json!({"messages": messages, "generation_prompt": false})).unwrap();
        assert_eq!(told, model.prompt("user: The capital\n", None).unwrap());

        let lines = tempfile::tempdir().unwrap();
        let file = lines.path().join("examples.jsonl");
        std::fs::write(&file, format!("{}\n", json!({"base": {"messages": messages}}))).unwrap();
        let exp = experiment(&model, &json!({"examples": file})).unwrap();
        let one = exp.by_example().next().unwrap().unwrap();
        assert_eq!(*one.ids(one.find_run("base", "test").unwrap()), asked[..]);
    }
}

#[test]
fn what_is_no_conversation_is_refused() {
    let (_folder, model) = with(&[(
        "chat_template.jinja",
        "{% for m in messages %}{{ raise_exception('no ' + m.role) }}{% endfor %}".into(),
    )]);
    let says = |model: &Model, run: Value, expected: &str| {
        let error = ids(model, &run).unwrap_err();
        assert!(error.contains(expected), "{error} has no {expected:?}");
    };
    let messages = json!([{"role": "user", "content": "x"}]);
    says(&model, json!({"messages": messages}), "run \"base\": chat template, line 1");
    says(&model, json!({"messages": messages}), "no user");
    says(&model, json!({"messages": messages, "prompt": "x"}), "needs one of prompt, ids and messages");
    says(&model, json!({"prompt": "x", "generation_prompt": true}), "generation_prompt is for messages");
    says(&model, json!({"messages": [{"role": "user"}]}), "content");
    says(&model, json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}), "name");
    says(common::model("tiny-llama-tied"), json!({"messages": messages}), "came without one");
}
