//! Saved interventions: what is written is what is read, whatever the op; and what does not fit is
//! refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::op::{OPS, OpInfo, OpKind, Setting, Takes};
use causalcone_engine::{Error, Runtime, Saved};
use causalcone_files::IfExists;
use causalcone_model::Model;
use common::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// An edit with an op that has all an op can have.
fn edit_with(op: &OpInfo, model: &Model) -> Value {
    let width = model.config().width;
    let mut edit = json!({"name": "it", "run": "base", "site": "block_output", "layers": [0, 1],
                          "positions": "last", "op": op.name});
    if op.value == Takes::Must {
        edit["value"] = json!({"values": random(1, 1, width, 0.3)[0]});
    }
    if !op.parameters.is_empty() {
        edit["parameters"] = parameters(op, 3, width, 4);
    }
    if op.takes_scale {
        edit[if op.kind == OpKind::Noise { "level" } else { "scale" }] = json!(0.37);
    }
    for setting in op.settings {
        match setting {
            Setting::Activation => edit["activation"] = json!("gelu_new"),
            Setting::Bounds => edit["min"] = json!(-0.25),
            Setting::AddError => edit["error"] = json!(true),
            Setting::Centre => edit["centre"] = json!(false),
        }
    }
    edit
}

fn written(edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": [49, 28, 31, 17, 5]}, "other": {"ids": [7, 28, 31, 17]}},
           "edit": edits, "read": {"run": "base"}})
}

fn save(model: &Model, edits: &Value, path: &Path) -> Result<Saved, Error> {
    let saved = Saved::of(&experiment(model, &written(edits))?, "a test", &Runtime::default())?;
    saved.write(path, IfExists::Replace)?;
    Ok(saved)
}

/// The answer of an experiment of these edits, as logits of everything.
fn answers(model: &Model, edits: &Value) -> Rows {
    logits(model, &written(edits), "base")
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn every_op_is_loaded_as_it_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-gpt2", "tiny-llama"] {
        let model = model(name);
        for op in OPS.iter().filter(|op| !matches!(op.kind, OpKind::Custom | OpKind::Collect)) {
            let path = folder.path().join(format!("{name}-{}", op.name));
            let edits = json!([edit_with(op, model)]);
            let saved = save(model, &edits, &path).unwrap();
            assert_eq!(Saved::open(&path).unwrap().description, saved.description, "{}", op.name);
            assert!(
                Saved::open(&path).unwrap().test(model, &Runtime::reference()).unwrap().passed(),
                "{}",
                op.name
            );

            // The same numbers to the bit, and saved once more the same bytes.
            let load =
                json!([{"name": "it", "run": "base", "op": {"load": path.to_str().unwrap(), "name": "it"}}]);
            assert_eq!(answers(model, &edits), answers(model, &load), "{}", op.name);
            let again = folder.path().join("again");
            save(model, &load, &again).unwrap();
            assert_eq!(files(&path), files(&again), "{}", op.name);
        }
        let unedited = answers(model, &json!([]));
        assert_ne!(unedited, answers(model, &json!([edit_with(OpKind::Loreft.info(), model)])));
    }
}

#[test]
fn edits_stay_linked_and_take_their_values_from_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two");
    let model = model("tiny-llama");
    let mut first = edit_with(OpKind::LowRankSwap.info(), model);
    first["value"] = json!({"run": "other", "positions": -2});
    first["partition"] = json!({"a": [0, 1], "b": "2..4"});
    first["dims"] = json!("b");
    let second = json!({"name": "also", "run": "base", "site": "mlp_output", "layers": 2, "op": {"link": "it"},
                        "positions": [1, 2], "value": {"values": random(2, 2, 20, 0.4)}});
    let edits = json!([first, second]);
    let saved = save(model, &edits, &path).unwrap();
    let weights = fs::read(path.join("weights.safetensors")).unwrap();
    // The rotation is there once: 20 × 4 numbers, beside 2 × 20 of the value.
    assert!(weights.len() < 4 * (80 + 40) + 400, "{}", weights.len());
    let load = |name: &str| json!({"load": path.to_str().unwrap(), "name": name});
    let both = json!([{"run": "base", "op": load("it")}, {"run": "base", "op": load("also")}]);
    assert_eq!(answers(model, &edits), answers(model, &both));

    // What the edit says itself goes before what was saved; a part of the partition has its name still.
    let mut elsewhere = edits[0].clone();
    elsewhere["layers"] = json!(2);
    elsewhere["dims"] = json!("a");
    let mut own = json!({"run": "base", "op": load("it"), "layers": 2, "dims": "a"});
    assert_eq!(answers(model, &json!([elsewhere])), answers(model, &json!([own])));
    own["parameters"] = json!({});
    let said = experiment(model, &written(&json!([own]))).unwrap_err().to_string();
    assert!(said.contains("has its own parameters"), "{said}");
    assert_eq!(saved.edits().len(), 2);
}

#[test]
fn a_folder_for_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it");
    let ours = model("tiny-llama");
    let edits = json!([edit_with(OpKind::Add.info(), ours)]);
    save(ours, &edits, &path).unwrap();
    let load = |model, more: &Value| {
        let edit = with(
            &json!({"run": "base", "op": with(&json!({"load": path.to_str().unwrap()}), more)}),
            &json!({}),
        );
        experiment(model, &written(&json!([edit]))).map(drop)
    };
    refused(load(model("tiny-gpt2"), &json!({})), &["family llama and not gpt2", "width 20 and not 24"]);
    refused(load(model("tiny-llama-tied"), &json!({})), &["layers 3 and not 2"]);
    refused(load(ours, &json!({"name": "ti"})), &["holds no \"ti\"", "it holds it"]);

    // Other weights of the same shapes: by hash, and then on purpose.
    let description = path.join("intervention.json");
    let text = fs::read_to_string(&description).unwrap();
    let hash = ours.sha256().unwrap();
    fs::write(&description, text.replace(hash, &hash.replace(&hash[..4], "0000"))).unwrap();
    refused(load(ours, &json!({})), &["weights 0000", "any_weights = true"]);
    load(ours, &json!({"any_weights": true})).unwrap();
}

#[test]
fn broken_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it");
    let model = model("tiny-llama");
    let edits = json!([edit_with(OpKind::LowRankSwap.info(), model)]);
    save(model, &edits, &path).unwrap();
    let description = fs::read_to_string(path.join("intervention.json")).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_str(&description).unwrap();
        change(&mut json);
        fs::write(path.join("intervention.json"), json.to_string()).unwrap();
        Saved::open(&path).and_then(|saved| saved.test(model, &Runtime::reference()).map(drop))
    };
    refused(changed(&|json| json["version"] = json!(2)), &["version 2", "1 fits"]);
    refused(changed(&|json| json["edit"] = json!([])), &["no edit"]);
    refused(
        changed(&|json| json["edit"][0]["nmae"] = json!(1)),
        &["nmae", "json: edit[0]", "did you mean `name`?"],
    );
    refused(changed(&|json| json["edit"][0]["name"] = Value::Null), &["has no name"]);
    refused(
        changed(&|json| json["edit"][0]["parameters"]["rotation"]["file"] = json!("../../etc/passwd")),
        &["../../etc/passwd", "weights.safetensors fits"],
    );
    refused(
        changed(&|json| json["edit"][0]["parameters"]["rotation"]["tensor"] = json!("other")),
        &["\"it.rotation\", which no edit names"],
    );
    refused(changed(&|json| json["edit"][0]["op"] = json!({"load": "x"})), &["loads another folder"]);
    refused(changed(&|json| json["edit"][0]["op"] = json!("rotated_swap")), &["rotation", "[20, 20] fits"]);
    changed(&|_| {}).unwrap();
    let weights = fs::read(path.join("weights.safetensors")).unwrap();
    for end in 0..weights.len() {
        fs::write(path.join("weights.safetensors"), &weights[..end]).unwrap();
        assert!(Saved::open(&path).is_err(), "cut at {end}");
    }
    fs::remove_file(path.join("weights.safetensors")).unwrap();
    refused(Saved::open(&path), &["weights.safetensors"]);
    refused(Saved::open(&folder.path().join("none")), &["intervention.json"]);
}

#[test]
fn what_is_there_stays_unless_all_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let model = model("tiny-llama");
    let edits = json!([edit_with(OpKind::Add.info(), model)]);
    let others = folder.path().join("somebody's");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("precious"), "numbers").unwrap();
    refused(save(model, &edits, &others), &["already exists and is not a saved intervention"]);
    fs::write(folder.path().join("file"), "numbers").unwrap();
    refused(save(model, &edits, &folder.path().join("file")), &["already exists"]);
    refused(save(model, &edits, &folder.path().join("no/such/folder")), &["cannot create"]);
    assert_eq!(fs::read_to_string(others.join("precious")).unwrap(), "numbers");

    let path = folder.path().join("it");
    save(model, &edits, &path).unwrap();
    save(model, &json!([edit_with(OpKind::Zero.info(), model)]), &path).unwrap();
    assert_eq!(Saved::open(&path).unwrap().edits()[0].op.name(), Some("zero"));
    let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "it", "somebody's"]);
}

/// What pyvene saved is loaded as what pyvene computed with it.
#[test]
fn folders_of_pyvene_give_its_answers() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pyvene-saved");
    for name in ["tiny-gpt2", "tiny-llama"] {
        let model = model(name);
        let expected: Value =
            serde_json::from_slice(&fs::read(fixtures.join(format!("{name}.json"))).unwrap()).unwrap();
        let tensors = candle_core::safetensors::load(
            fixtures.join(format!("{name}.safetensors")),
            &candle_core::Device::Cpu,
        )
        .unwrap();
        let folder = fixtures.join(name);
        let mut edits = Vec::new();
        for edit in expected["edit"].as_array().unwrap() {
            let mut loaded = json!({"run": "base", "positions": edit["positions"],
                                    "op": {"load": folder.to_str().unwrap(), "name": edit["key"]}});
            for key in ["value", "dims"] {
                if !edit[key].is_null() {
                    loaded[key] = edit[key].clone();
                }
            }
            edits.push(loaded);
        }
        let written =
            |edits: &[Value]| json!({"runs": expected["runs"], "edit": edits, "read": {"run": "base"}});
        let theirs = tensors["logits"].to_vec2::<f32>().unwrap();
        for executor in EXECUTORS {
            let ours = collected(executor, model, &written(&edits), &["base"]).unwrap().remove(0);
            for (ours, theirs) in ours[&Moment::of(causalcone_model::Site::Logits, None)].iter().zip(&theirs)
            {
                for (a, b) in ours.iter().zip(theirs) {
                    assert!((a - b).abs() <= 1e-5 + 1e-5 * b.abs(), "{name}: {a} is not {b}");
                }
            }
        }
        // Each of them matters.
        let distance = |edits: &[Value]| {
            let ours = logits(model, &written(edits), "base");
            ours.iter().zip(&theirs).map(|(a, b)| distance(a, b)).fold(0.0, f32::max)
        };
        for left_out in 0..edits.len() {
            let mut some = edits.clone();
            some.remove(left_out);
            assert!(distance(&some) > 1e-3, "{name}: edit {left_out} changes nothing");
        }

        // And saved again as one of ours, without the bases of its rotations.
        let own = tempfile::tempdir().unwrap();
        let path = own.path().join("ours");
        for (index, edit) in edits.iter_mut().enumerate() {
            edit["name"] = json!(format!("e{index}"));
        }
        Saved::of(&experiment(model, &written(&edits)).unwrap(), "pyvene", &Runtime::default())
            .unwrap()
            .write(&path, IfExists::Replace)
            .unwrap();
        let again: Vec<Value> = (0..edits.len())
            .map(|index| json!({"run": "base", "op": {"load": path.to_str().unwrap(), "name": format!("e{index}")}}))
            .collect();
        assert_eq!(logits(model, &written(&again), "base"), logits(model, &written(&edits), "base"));
    }
}

#[test]
fn broken_folders_of_pyvene_are_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/pyvene-saved/tiny-gpt2");
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    Saved::open(folder.path()).unwrap();
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let with = |from: &str, to: &str| {
        fs::write(folder.path().join("config.json"), config.replace(from, to)).unwrap();
        Saved::open(folder.path())
    };
    refused(
        with("LowRankRotatedSpaceIntervention", "os.system"),
        &["is a \"system\"", "VanillaIntervention"],
    );
    refused(with("LowRankRotatedSpaceIntervention", "PCARotatedSpaceIntervention"), &["PCARotated"]);
    refused(with("LowRankRotatedSpaceIntervention", "SigmoidMaskIntervention"), &["lacks \"mask\""]);
    refused(with("\"block_output\"", "\"block_outptu\""), &["is no site"]);
    refused(with("\"representations\"", "\"representation\""), &["no list \"representations\""]);
    refused(with("\"pos\"", "\"t\""), &["units \"t\""]);
    with("nothing", "").unwrap();
    let bin = folder.path().join("intkey_layer_0_comp_block_output_unit_pos_nunit_1#0.bin");
    let bytes = fs::read(&bin).unwrap();
    for end in (0..bytes.len()).step_by(7) {
        fs::write(&bin, &bytes[..end]).unwrap();
        assert!(Saved::open(folder.path()).is_err(), "cut at {end}");
    }
    fs::remove_file(&bin).unwrap();
    refused(Saved::open(folder.path()), &["lacks \"rotate_layer.parametrizations.weight.original\""]);
}

/// Autoencoders as SAELens and Gemma Scope lay them out give the numbers of their formulas.
#[test]
fn autoencoders_are_read_from_their_files() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sae");
    let expected =
        candle_core::safetensors::load(fixtures.join("expected.safetensors"), &candle_core::Device::Cpu)
            .unwrap();
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(fixtures.join("expected.json")).unwrap()).unwrap();
    let model = model("tiny-gpt2");
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let of = |what: &str| &expected[&format!("{name}/{what}")];
        let op = if case["architecture"] == "standard" { "autoencoder_swap" } else { "jumprelu_autoencoder" };
        let file = if name == "gemma-scope" { "gemma-scope/params.npz".into() } else { name.to_owned() };
        // The rows of a base and a source, put in place of a site and read again.
        let rows = |what: &str| json!({"values": of(what).to_vec2::<f32>().unwrap()});
        let n = of("base").dims()[0];
        let ids: Vec<usize> = (1..=n).collect();
        for (swapped, error, value) in
            [("reconstructed", false, false), ("swapped", false, true), ("swapped_with_error", true, true)]
        {
            let mut edit = json!({"run": "base", "site": "block_output", "layers": 2, "op": op, "error": error,
                                  "parameters": fixtures.join(&file).to_str().unwrap()});
            if value {
                edit["value"] = rows("source");
                edit["dims"] = case["dims"].clone();
            }
            let put = json!({"run": "base", "site": "block_output", "layers": 2, "op": "swap", "value": rows("base")});
            let read = json!({"run": "base", "site": "block_output", "layers": 2, "op": "collect"});
            let written =
                json!({"runs": {"base": {"ids": ids}}, "edit": [put, edit, read], "read": {"run": "base"}});
            let outcome = experiment(model, &written).unwrap().execute().unwrap();
            let ours = outcome.collected()[0].tensor.to_vec2::<f32>().unwrap();
            for (ours, theirs) in ours.iter().zip(of(swapped).to_vec2::<f32>().unwrap()) {
                for (a, b) in ours.iter().zip(theirs) {
                    assert!((a - b).abs() <= 1e-5 + 1e-5 * b.abs(), "{name} {swapped}: {a} is not {b}");
                }
            }
        }
    }
}

#[test]
fn autoencoders_that_do_not_fit_are_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sae");
    let folder = tempfile::tempdir().unwrap();
    for name in ["cfg.json", "sae_weights.safetensors"] {
        fs::copy(fixtures.join("standard").join(name), folder.path().join(name)).unwrap();
    }
    let model = model("tiny-gpt2");
    let with = |op: &str, site: &str, path: &Path| {
        let edits = json!([{"run": "base", "site": site, "layers": 1, "op": op,
                            "parameters": path.to_str().unwrap()}]);
        experiment(model, &written(&edits)).and_then(|experiment| experiment.execute())
    };
    let as_standard = |path: &Path| with("autoencoder_swap", "block_output", path);
    as_standard(folder.path()).unwrap();
    refused(
        with("jumprelu_autoencoder", "block_output", folder.path()),
        &["op \"autoencoder_swap\"", "op = \"autoencoder_swap\""],
    );
    refused(with("swap", "block_output", folder.path()), &["given to op \"swap\""]);
    // Of a width that the site does not have.
    refused(with("autoencoder_swap", "mlp_activation", folder.path()), &["W_enc", "24"]);

    let config = fs::read_to_string(folder.path().join("cfg.json")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(config.contains(from), "{from}");
        fs::write(folder.path().join("cfg.json"), config.replace(from, to)).unwrap();
        as_standard(folder.path())
    };
    refused(changed("\"standard\"", "\"gated\""), &["architecture is gated", "standard or jumprelu"]);
    refused(changed("\"standard\"", "\"topk\""), &["architecture is topk"]);
    refused(changed("\"none\"", "\"layer_norm\""), &["normalize_activations is layer_norm"]);
    refused(changed("\"relu\"", "\"topk\""), &["activation_fn_str is topk"]);
    refused(changed("scaling_factor\": false", "scaling_factor\": true"), &["finetuning_scaling_factor"]);
    refused(changed("_input\": true", "_input\": 1"), &["apply_b_dec_to_input is 1"]);
    refused(changed("\"architecture\"", "\"d_in\""), &["cfg.json", "d_in"]);
    refused(changed("{", "{{"), &["cfg.json"]);
    changed("\"hook_layer\": 1", "\"hook_layer\": 2").unwrap();

    let weights = candle_core::safetensors::load(
        fixtures.join("standard/sae_weights.safetensors"),
        &candle_core::Device::Cpu,
    )
    .unwrap();
    fs::write(folder.path().join("cfg.json"), &config).unwrap();
    let replaced = |name: &str, tensor: Option<candle_core::Tensor>| {
        let mut weights = weights.clone();
        let _ = match tensor {
            Some(tensor) => weights.insert(name.into(), tensor),
            None => weights.remove(name),
        };
        candle_core::safetensors::save(&weights, folder.path().join("sae_weights.safetensors")).unwrap();
        as_standard(folder.path())
    };
    let turned = weights["W_enc"].t().unwrap().contiguous().unwrap();
    refused(replaced("W_enc", Some(turned)), &["W_enc"]);
    refused(replaced("b_enc", None), &["b_enc"]);
    refused(
        replaced("scaling_factor", Some(weights["b_enc"].clone())),
        &["\"scaling_factor\", which is no parameter"],
    );
    let nan = (weights["b_enc"].zeros_like().unwrap() / 0.0).unwrap();
    refused(replaced("b_enc", Some(nan)), &["b_enc", "NaN"]);
    fs::remove_file(folder.path().join("cfg.json")).unwrap();
    refused(as_standard(folder.path()), &["cfg.json"]);
}
