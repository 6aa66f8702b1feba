//! The command chooses how weights are kept by what memory is free, says so, and refuses what does not fit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "../../model/tests/common/wide.rs"]
mod wide;

use candle_core::quantized::GgmlDType;
use common::*;
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use wide::LLAMA;

/// A place with a model of one type, and an experiment on it.
fn place(dtype: GgmlDType) -> (Place, Value) {
    let place = Place::new();
    LLAMA.write(place.0.path(), |_, _| dtype);
    let text = "model = 'model.gguf'\n[runs.base]\nids = [3, 1, 4, 1, 5]\n[[edit]]\nsite = 'mlp_output'\n\
        layers = 'all'\nop = 'zero'\n[read]\ntokens = [7]\n[sweep]\nlayers = 'each'\n";
    std::fs::write(place.path("zero.toml"), text).unwrap();
    let memory = place.json(&["models", "info", "model.gguf"])["memory"].clone();
    assert_eq!(memory["chosen"], "full", "there is enough: {memory}");
    (place, memory)
}

/// Runs the command where so many bytes are free.
fn run(place: &Place, free: u64, args: &[&str]) -> Output {
    place.command(args).env("CAUSALCONE_FREE_MEMORY", free.to_string()).output().unwrap()
}

fn json(place: &Place, free: u64, args: &[&str]) -> Value {
    let out = run(place, free, &[args, &["--json"]].concat());
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "nothing is said where stderr is no terminal");
    serde_json::from_slice(&out.stdout).unwrap()
}

fn refused(place: &Place, free: u64, args: &[&str]) -> String {
    let out = run(place, free, args);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(out.stdout.is_empty(), "{args:?} prints to stdout");
    said
}

const TOP: [&str; 5] = ["top", "-m", "model.gguf", "--ids", "3,1,4,1,5"];
const INFO: [&str; 3] = ["models", "info", "model.gguf"];
const EXPLAIN: [&str; 2] = ["explain", "zero.toml"];

/// What `top`, `explain` and `models info` say is chosen where so many bytes are free.
fn chosen(place: &Place, free: u64) -> Value {
    let explained = json(place, free, &EXPLAIN)["memory"].clone();
    let info = json(place, free, &INFO)["memory"].clone();
    assert_eq!((&explained, &info["free"]), (&info, &free.into()));
    if info["chosen"].is_null() {
        let said = refused(place, free, &TOP);
        assert!(
            said.contains("fit in memory in no form: full ") && said.contains("hint: free memory"),
            "{said}"
        );
        assert!(said.contains("model.gguf") && said.contains("are free"), "{said}");
    } else {
        assert_eq!(json(place, free, &TOP)["weights"], info["chosen"]);
    }
    info["chosen"].clone()
}

#[test]
fn weights_are_kept_as_fits() {
    for (dtype, form) in [(GgmlDType::Q4_0, "packed"), (GgmlDType::BF16, "half")] {
        let (place, memory) = place(dtype);
        let (full, small) = (memory["full"].as_u64().unwrap(), memory[form].as_u64().unwrap());
        assert!(small < full * 6 / 10, "{memory}");
        assert_eq!(chosen(&place, 4 * full), "full");
        assert_eq!(chosen(&place, full - 1), form);
        assert_eq!(chosen(&place, small - 1), Value::Null);
        // The answers are those of the same weights.
        let logits = |free| {
            let top = json(&place, free, &TOP);
            top["top"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["logit"].as_f64().unwrap())
                .collect::<Vec<_>>()
        };
        for (a, b) in logits(4 * full).iter().zip(logits(full - 1)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn a_model_in_32_bits_is_full_or_refused() {
    let (place, memory) = place(GgmlDType::F32);
    let full = memory["full"].as_u64().unwrap();
    assert_eq!((&memory["half"], &memory["packed"]), (&Value::Null, &Value::Null));
    assert_eq!(chosen(&place, full - 1), Value::Null);
    let said = refused(&place, full - 1, &TOP);
    assert!(said.contains("stored in fewer bits") && !said.contains("packed"), "{said}");
}

#[test]
fn weights_that_are_asked_for_are_kept_so() {
    let (place, memory) = place(GgmlDType::Q4_0);
    let full = memory["full"].as_u64().unwrap();
    let with = |args: &[&str], form: &str| -> Vec<String> {
        args.iter().chain(&["--weights", form]).map(ToString::to_string).collect()
    };
    for (args, key) in [(&TOP[..], "weights"), (&["run", "zero.toml"], "weights")] {
        let args = with(args, "packed");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(json(&place, 100 * full, &args)[key], "packed");
    }
    for args in [&INFO[..], &EXPLAIN] {
        let args = with(args, "packed");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        assert_eq!(json(&place, 100 * full, &args)["memory"]["chosen"], "packed");
    }
    let lens = ["lens", "--prompt", "x", "-m", "model.gguf", "--out", "lens", "--weights", "full"];
    for args in
        [&[&TOP[..], &["--weights", "full"]].concat()[..], &lens, &["run", "zero.toml", "--weights", "full"]]
    {
        let said = refused(&place, full - 1, args);
        assert!(said.contains("do not fit in memory as \"full\"") && said.contains("\"packed\""), "{said}");
    }
    let said = refused(&place, full, &[&TOP[..], &["--weights", "quarter"]].concat());
    assert!(said.contains("[possible values: auto, full, half, packed]"), "{said}");
    let said = refused(&place, full, &[&TOP[..], &["--weights", "half"]].concat());
    assert!(said.contains("stored in 16 bits, and this model has none"), "{said}");
    // The command line goes before the file.
    let text = std::fs::read_to_string(place.path("zero.toml")).unwrap();
    std::fs::write(place.path("full.toml"), format!("weights = 'full'\n{text}")).unwrap();
    assert_eq!(json(&place, 100 * full, &["run", "full.toml"])["weights"], "full");
    assert_eq!(json(&place, 100 * full, &["run", "full.toml", "--weights", "auto"])["weights"], "full");
    assert_eq!(json(&place, full - 1, &["run", "full.toml", "--weights", "auto"])["weights"], "packed");
    refused(&place, full - 1, &["run", "full.toml"]);
}

#[test]
fn results_record_how_weights_were_kept_and_resume_with_the_same() {
    let (place, memory) = place(GgmlDType::Q4_0);
    let full = memory["full"].as_u64().unwrap();
    json(&place, full - 1, &["sweep", "zero.toml", "--out", "swept"]);
    let record: Value =
        serde_json::from_slice(&std::fs::read(place.path("swept/experiment.json")).unwrap()).unwrap();
    assert_eq!(record["model"]["weights"], "packed");
    let again = ["sweep", "zero.toml", "--out", "swept", "--resume"];
    let said = refused(&place, 100 * full, &again);
    assert!(said.contains("weights differs: packed there, full now"), "{said}");
    assert!(said.contains("--weights packed resumes it"), "{said}");
    json(&place, 100 * full, &[&again[..], &["--weights", "packed"]].concat());
    json(&place, full - 1, &again);
}

#[test]
fn people_read_sizes_in_a_line() {
    let (place, memory) = place(GgmlDType::Q4_0);
    let full = memory["full"].as_u64().unwrap();
    for args in [&INFO[..], &EXPLAIN] {
        let said = String::from_utf8(run(&place, full - 1, args).stdout).unwrap();
        let line = said.lines().find(|line| line.starts_with("memory ")).unwrap();
        for part in [" full ", " MB, packed ", "; packed is chosen: ", " are free"] {
            assert!(line.contains(part), "{line}");
        }
        let said = String::from_utf8(run(&place, 1000, args).stdout).unwrap();
        assert!(said.contains("; none fits: 1.0 KB are free"), "{said}");
    }
    for size in ["lots", "-1GB", "0"] {
        let out = place.command(&TOP).env("CAUSALCONE_FREE_MEMORY", size).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("CAUSALCONE_FREE_MEMORY={size}")), "{said}");
    }
}

/// Writes a llama of one layer whose weights are zeros that the file system does not store.
#[cfg(unix)]
fn sparse(folder: &Path, (d, m, vocab): (usize, usize, usize)) -> u64 {
    use std::io::Write;
    std::fs::create_dir(folder).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": false, "hidden_act": "silu",
        "hidden_size": d, "intermediate_size": m, "max_position_embeddings": 64, "mlp_bias": false,
        "num_attention_heads": 4, "num_hidden_layers": 1, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
        "rope_scaling": null, "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "vocab_size": vocab,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let block = |part: &str| format!("model.layers.0.{part}.weight");
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocab, d]),
        ("model.norm.weight".to_owned(), vec![d]),
        ("lm_head.weight".to_owned(), vec![vocab, d]),
        (block("input_layernorm"), vec![d]),
        (block("post_attention_layernorm"), vec![d]),
        (block("mlp.gate_proj"), vec![m, d]),
        (block("mlp.up_proj"), vec![m, d]),
        (block("mlp.down_proj"), vec![d, m]),
    ];
    tensors.extend(["q", "k", "v", "o"].map(|of| (block(&format!("self_attn.{of}_proj")), vec![d, d])));
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = serde_json::json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let size = (8 + header.len() + end) as u64;
    file.set_len(size).unwrap();
    size
}

#[test]
#[cfg(unix)]
fn files_of_more_than_a_gibibyte_are_not_read_to_describe_them() {
    let place = Place::new();
    let size = sparse(&place.path("model"), (1024, 180_000, 32));
    assert!(size > 1 << 30);
    let info = place.json(&["models", "info", "model"]);
    assert_eq!(info["sha256"], Value::Null);
    let half = info["memory"]["half"].as_u64().unwrap();
    assert!(
        half.abs_diff(size) < size / 1000,
        "16 bits take as much in memory as in the file: {half}, {size}"
    );
    let said = String::from_utf8(place.run(&["models", "info", "model"]).stdout).unwrap();
    assert!(said.contains("not computed, since the files are large: add --hash"), "{said}");
    sparse(&place.path("small"), (64, 100, 32));
    assert_eq!(place.json(&["models", "info", "small"])["sha256"].as_str().unwrap().len(), 64);
}
