//! What people point at that is no model: each is named, with the next thing to do, before anything is parsed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use causalcone_model::Model;
use std::path::Path;

const LFS: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 98362432\n";
const PAGE: &[u8] = b"<!DOCTYPE html><html><head><title>401</title></head></html>";

/// What a refusal must say, in its message or its hint.
fn refused(path: &Path, words: &[&str]) {
    let error = Model::load(path.to_str().unwrap()).unwrap_err();
    let said = format!("{error}\n{}", error.hint().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "{}: no {word:?} in {said}", path.display());
    }
}

/// A folder of such files; a name with a slash makes a folder.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// The configuration of a model that loads.
fn config() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus/llama-2/config.json"))
        .unwrap()
}

/// A safetensors file of tensors of one number each.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let entry = |(i, name): (usize, &&str)| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[{},{}]}}", 4 * i, 4 * i + 4)
    };
    let header = format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","));
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; 4 * names.len()]].concat()
}

#[test]
fn files_that_are_no_models_are_named() {
    for (name, bytes, words) in [
        ("a.gguf", LFS, &["Git LFS pointer", "git lfs pull"][..]),
        ("a.gguf", PAGE, &["web page", "download the file itself"]),
        ("a.gguf", b"\n  <html>", &["web page"]),
        ("a.gguf", b"", &["empty file", "again"]),
        ("a.gguf", b"PK\x03\x04....", &["archive", "unpack"]),
        ("a.tar.gz", b"\x1f\x8b\x08\x00", &["archive"]),
        ("model.bin", b"PK\x03\x04....", &["part of a model directory"]),
        ("a.gguf", b"tjgg\x03\x00\x00\x00", &["GGML", "before GGUF"]),
        ("a.gguf", b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":", &["safetensors file", "model.safetensors"]),
    ] {
        let place = folder(&[(name, bytes)]);
        refused(&place.path().join(name), words);
    }
}

#[test]
fn folders_that_are_no_models_are_named() {
    let config = config();
    let adapter: &[u8] = br#"{"base_model_name_or_path": "someone/base", "peft_type": "LORA"}"#;
    for (files, words) in [
        (&[("adapter_config.json", adapter)][..], &["PEFT adapter", "someone/base", "merge"][..]),
        (
            &[("adapter_config.json", adapter), ("config.json", &config)],
            &["beside its weights", "someone/base"],
        ),
        (&[("a.Q4_0.gguf", b"GGUF"), ("README.md", b"#")], &["GGUF files: a.Q4_0.gguf", "name the file"]),
        (&[("model_index.json", b"{}"), ("unet/config.json", b"{}")], &["diffusers"]),
        (
            &[
                ("modules.json", b"[]"),
                ("config_sentence_transformers.json", b"{}"),
                ("config.json", &config),
            ],
            &["sentence-transformers"],
        ),
        (&[("one/config.json", &config), ("two/config.json", &config)], &["a folder of models: one, two"]),
        (&[("params.json", b"{}"), ("consolidated.00.pth", b"")], &["authors' own layout", "convert"]),
        (&[("notes.txt", b"hello")], &["without config.json"]),
        (&[], &["empty folder"]),
        (&[("config.json", LFS)], &["config.json", "Git LFS pointer"]),
        (&[("config.json", &config), ("model.safetensors", LFS)], &["model.safetensors", "git lfs pull"]),
        (&[("config.json", &config), ("pytorch_model.bin", PAGE)], &["pytorch_model.bin", "web page"]),
        (&[("config.json", &config), ("model.safetensors", b"GGUF....")], &["GGUF file", "rename"]),
    ] {
        refused(folder(files).path(), words);
    }
}

#[test]
fn wrapped_and_packed_checkpoints_are_named() {
    let config = config();
    for (names, words) in [
        (&["module.model.norm.weight"][..], &["DistributedDataParallel", "\"module.…\""][..]),
        (&["_orig_mod.model.norm.weight"], &["torch.compile", "_orig_mod"]),
        (&["base_model.model.model.norm.weight"], &["peft", "merge_and_unload"]),
        (
            &["pretrained_model.model.norm.weight", "v_head.summary.weight"],
            &["value head", "pretrained_model"],
        ),
        (&["model.layers.0.mlp.up_proj.qweight"], &["quantised", "gptq or awq"]),
        (&["model.layers.0.mlp.up_proj.weight.absmax"], &["quantised", "bitsandbytes"]),
        (&["model.layers.0.mlp.up_proj.weight_scale_inv"], &["quantised", "fp8"]),
    ] {
        let weights = safetensors(names);
        refused(folder(&[("config.json", &config), ("model.safetensors", &weights)]).path(), words);
    }
}

#[test]
fn tensors_that_cannot_touch_the_answers_are_set_aside() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/corpus/llama-2");
    let shard = safetensors(&[
        "v_head.summary.weight",
        "score.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ]);
    // The two files as shards of one model: the index says which tensor is where.
    let whole = std::fs::read(from.join("model.safetensors")).unwrap();
    let length = usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let index = |more: &[&str]| {
        let own = header.as_object().unwrap().keys().filter(|key| *key != "__metadata__");
        let map = own.map(|key| (key.clone(), "a.safetensors".into()));
        let map = map.chain(more.iter().map(|key| ((*key).to_owned(), "b.safetensors".into())));
        serde_json::json!({"weight_map": map.collect::<serde_json::Map<String, serde_json::Value>>()})
            .to_string()
    };
    let load = |shard: &[u8], more: &[&str]| {
        let index = index(more);
        let place = folder(&[
            ("config.json", &config()),
            ("a.safetensors", &whole),
            ("b.safetensors", shard),
            ("model.safetensors.index.json", index.as_bytes()),
        ]);
        Model::load(place.path().to_str().unwrap()).map(|model| model.config().layers)
    };
    let aside = ["v_head.summary.weight", "score.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"];
    load(&shard, &aside).unwrap();
    let other = ["model.layers.0.mlp.router.weight"];
    let error = load(&safetensors(&other), &other).unwrap_err().to_string();
    assert!(error.contains("router.weight") && error.contains("no such tensor"), "{error}");
}
