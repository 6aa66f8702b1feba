//! The oracle ladder of every family: each site of a tiny random model against transformers' in f64
//! (`fixtures/make_families.py`), from Hugging Face directories and from GGUF files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "common/oracle.rs"]
mod oracle;

use causalcone_model::{Error, Model, Precision, Site, decoder::Unedited};
use oracle::{Cases, Record, distance, fixtures, load, with_config, with_key, with_tensor};
use serde_json::{Value, json};

/// Names of the models of `fixtures/families`, with their cases.
fn cases() -> Cases {
    oracle::json("families/cases.json")
}

/// Those that have a Hugging Face directory.
fn directories() -> Vec<String> {
    let is_directory = |name: &String| path(name).is_dir();
    cases().into_keys().filter(is_directory).collect()
}

/// Those that have a GGUF file.
fn gguf_files() -> Vec<String> {
    cases().into_keys().filter(|name| path(&format!("{name}.gguf")).exists()).collect()
}

fn path(name: &str) -> std::path::PathBuf {
    fixtures().join("families").join(name)
}

fn worst(model: &Model, name: &str) -> (f64, String) {
    oracle::worst(model, &format!("families/{name}"), &cases()[name])
}

fn check(model: &Model, name: &str) {
    let (distance, site) = worst(model, name);
    println!("{name}: worst {distance:.3} of the tolerance, at {site}");
    assert!(distance <= 1.0, "{name}: {site} is {distance} tolerances off");
}

#[test]
fn every_site_of_every_family_is_what_transformers_computes() {
    let names = directories();
    assert!(names.len() >= 13, "{names:?}");
    for name in names {
        check(&load(&format!("families/{name}")), &name);
    }
}

#[test]
fn gguf_files_are_the_same_models() {
    let names = gguf_files();
    assert!(names.len() >= 11, "{names:?}");
    for name in names {
        check(&load(&format!("families/{name}.gguf")), &name);
    }
}

/// T2: the first k rows do not depend on what follows them, but where a longer prompt turns them by other angles.
#[test]
fn a_prefix_gives_the_same_rows() {
    for name in directories() {
        let model = load(&format!("families/{name}"));
        let all = cases();
        let ids = all[&name].values().max_by_key(|ids| ids.len()).unwrap();
        let run = |ids: &[u32]| model.decoder().unwrap().forward(ids, &mut Record::default()).unwrap();
        for whole in [Some(ids.len()), model.config().longest_original()].into_iter().flatten() {
            let first =
                model.config().longest_original().filter(|most| *most < whole).map_or(1, |most| most + 1);
            let all = run(&ids[..whole]);
            for n in first..=whole {
                let apart = distance(&run(&ids[..n]), &all.narrow(0, 0, n).unwrap());
                assert!(apart <= 1.0, "{name}, first {n} of {whole}: {apart}");
            }
        }
    }
}

/// A loader that dropped any tensor would be caught: with ones for a plain norm's weight, and zeros for all else.
#[test]
fn dropping_any_tensor_is_seen() {
    for name in directories() {
        let file = path(&name).join("model.safetensors");
        for tensor in candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap().keys() {
            let is_norm = tensor.contains("norm") && tensor.ends_with("weight") && !name.starts_with("gemma");
            let folder = with_tensor(&format!("families/{name}"), tensor, |x| {
                Some(if is_norm { x.ones_like() } else { x.zeros_like() }.unwrap())
            });
            let model = Model::load(folder.path().to_str().unwrap()).unwrap();
            let (distance, _) = worst(&model, &name);
            assert!(distance > 100.0, "{name}: dropping {tensor} goes unnoticed ({distance})");
        }
    }
}

/// T4: every setting that matters moves a number, or is refused; nothing stands in for one that is missing.
#[test]
fn every_setting_matters_or_is_refused() {
    let other = [
        ("neox", "layer_norm_eps", json!(1e-6)),
        ("neox", "hidden_act", json!("gelu_new")),
        ("llama3", "rope_theta", json!(10_000.0)),
        ("llama3", "rope_scaling", json!(null)),
        ("mistral", "sliding_window", json!(5)),
        ("mistral", "sliding_window", json!(null)),
        ("qwen2", "sliding_window", json!(4)),
        ("qwen3", "rms_norm_eps", json!(1e-6)),
        ("gemma", "hidden_act", json!("silu")),
        ("gemma2", "attn_logit_softcapping", json!(null)),
        ("gemma2", "final_logit_softcapping", json!(4.0)),
        ("gemma2", "query_pre_attn_scalar", json!(6.0)),
        ("gemma2", "sliding_window", json!(5)),
        ("gemma3", "rope_local_base_freq", json!(3000.0)),
        ("gemma3", "rope_theta", json!(200.0)),
        ("gemma3", "rope_scaling", json!(null)),
        ("olmo", "clip_qkv", json!(null)),
        ("olmo2", "rms_norm_eps", json!(1e-6)),
        ("phi3", "sliding_window", json!(5)),
        ("phi3", "rope_theta", json!(10_000.0)),
    ];
    for (name, key, value) in other {
        // Null is written: to some it is not the same as nothing.
        let folder = with_config(&format!("families/{name}"), |config| {
            config.insert(key.into(), value.clone());
        });
        let (distance, _) = worst(&Model::load(folder.path().to_str().unwrap()).unwrap(), name);
        assert!(distance > 10.0, "{name}: {key} = {value} goes unnoticed ({distance})");
    }
    // One that changes which sites there are.
    let folder = with_key("families/neox", "use_parallel_residual", json!(false));
    let model = Model::load(folder.path().to_str().unwrap()).unwrap();
    let logits =
        model.decoder().unwrap().forward(&cases()["neox"]["length_12"], &mut Record::default()).unwrap();
    assert!(distance(&logits, &oracle::expected("families/neox")["length_12/logits"]) > 10.0);
    // A share of a head that two keys have.
    let folder = with_config("families/neox", |config| {
        config.insert("rotary_pct".into(), json!(1.0));
        config.remove("partial_rotary_factor");
    });
    assert!(worst(&Model::load(folder.path().to_str().unwrap()).unwrap(), "neox").0 > 10.0);
    // What would hardly be meant by leaving a key out.
    for (name, key) in [
        ("mistral", "sliding_window"),
        ("qwen2", "sliding_window"),
        ("qwen2", "num_key_value_heads"),
        ("qwen3", "num_key_value_heads"),
        ("gemma2", "num_key_value_heads"),
        ("gemma2", "query_pre_attn_scalar"),
        ("llama3", "hidden_size"),
        ("llama3", "num_attention_heads"),
    ] {
        let folder = with_config(&format!("families/{name}"), |config| {
            config.remove(key);
        });
        let said = Model::load(folder.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(said.contains(key) && said.contains("is missing"), "{name}: {said}");
    }
    // The classes have numbers of their own for these.
    for (name, key, default) in [
        ("gemma2", "attn_logit_softcapping", json!(50.0)),
        ("gemma2", "final_logit_softcapping", json!(30.0)),
        ("gemma3", "rope_local_base_freq", json!(10_000.0)),
        ("neox", "rotary_emb_base", json!(10_000.0)),
        ("mistral", "rope_theta", json!(10_000.0)),
    ] {
        let of = |written: Option<&Value>| {
            let folder = with_config(&format!("families/{name}"), |config| {
                // NeoX has two names for the base.
                config
                    .remove("rope_theta")
                    .filter(|_| name != "neox")
                    .map(|theta| config.insert("rope_theta".into(), theta));
                config.remove(key);
                config.extend(written.map(|value| (key.to_owned(), value.clone())));
            });
            let model = Model::load(folder.path().to_str().unwrap()).unwrap();
            let defaulted =
                model.key_report().defaulted.iter().any(|one| written.is_none() && one.value == default);
            (
                model
                    .decoder()
                    .unwrap()
                    .forward(&[1, 2, 3, 4], &mut Unedited)
                    .unwrap()
                    .to_vec2::<f32>()
                    .unwrap(),
                defaulted,
            )
        };
        let ((left_out, defaulted), (written, _)) = (of(None), of(Some(&default)));
        assert!(left_out == written && defaulted, "{name}: {key}");
    }
    let llama3 = |key: &str, value: Value| {
        let mut scaling = json!({"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 0.5, "high_freq_factor": 2.0,
            "original_max_position_embeddings": 16});
        scaling[key] = value;
        scaling
    };
    let longrope = |short: usize, long: usize| json!({"type": "longrope", "short_factor": vec![1.5; short], "long_factor": vec![2.5; long]});
    let refused = [
        ("gemma3", "attn_logit_softcapping", json!(2.0), "attn_logit_softcapping"),
        ("gemma2", "sliding_window_size", json!(5), "sliding_window_size"),
        ("qwen2", "use_mrope", json!(true), "use_mrope"),
        ("phi3", "full_attn_mod", json!(2), "full_attn_mod"),
        ("phi3", "mlp_bias", json!(true), "mlp_bias"),
        ("neox", "rotary_pct", json!(0.9), "partial_rotary_factor"),
        ("neox", "rope_theta", json!(17.0), "rope_theta"),
        ("neox", "partial_rotary_factor", json!(0.3), "partial_rotary_factor"),
        ("llama3", "rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), "rope_scaling.rope_type"),
        ("llama3", "rope_scaling", llama3("type", json!("linear")), "rope_scaling.rope_type"),
        ("llama3", "rope_scaling", llama3("mystery", json!(1)), "rope_scaling.mystery"),
        ("llama3", "rope_scaling", llama3("factor", json!(0)), "rope_scaling.factor"),
        ("llama3", "rope_scaling", llama3("low_freq_factor", json!(2.0)), "rope_scaling.low_freq_factor"),
        ("llama3", "rope_scaling", json!("linear"), "rope_scaling"),
        (
            "llama3",
            "rope_parameters",
            json!({"rope_theta": 300.0, "rope_type": "default"}),
            "rope_parameters",
        ),
        ("mistral", "sliding_window", json!(0), "sliding_window"),
        ("qwen2", "layer_types", json!(["full_attention"]), "layer_types"),
        (
            "qwen2",
            "layer_types",
            json!(["full_attention", "chunked_attention", "full_attention"]),
            "layer_types",
        ),
        ("qwen2", "use_sliding_window", json!(false), "layer_types"),
        ("qwen3", "head_dim", json!(null), "odd"),
        ("gemma2", "query_pre_attn_scalar", json!(null), "query_pre_attn_scalar"),
        ("gemma2", "sliding_window", json!(null), "sliding_window"),
        ("gemma3", "use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("gemma3", "rope_local_base_freq", json!(null), "rope_local_base_freq"),
        ("olmo", "clip_qkv", json!(-1.0), "clip_qkv"),
        ("olmo2", "attention_bias", json!(true), "bias"),
        ("phi3", "rope_scaling", longrope(3, 4), "rope_scaling.short_factor"),
        ("phi3", "rope_scaling", longrope(4, 5), "rope_scaling.long_factor"),
        ("phi3", "original_max_position_embeddings", json!(null), "original_max_position_embeddings"),
        ("phi3", "partial_rotary_factor", json!(0.45), "rope_scaling.short_factor"),
        ("phi3", "model_type", json!("phi4"), "supported"),
        ("mistral", "architectures", json!(["MistralForSequenceClassification"]), "MistralForCausalLM"),
    ];
    for (name, key, value, says) in refused {
        // Null is written, too: it is not the same as leaving a key out.
        let folder = with_config(&format!("families/{name}"), |config| {
            config.insert(key.into(), value.clone());
        });
        let Err(error) = Model::load(folder.path().to_str().unwrap()) else {
            panic!("{name}: {key} = {value} is accepted");
        };
        assert!(error.to_string().contains(says), "{name}: {key} = {value}: {error}");
    }
}

/// Newer versions of transformers write what these files say in other words.
/// What transformers would take one way, and a reader another.
#[test]
fn keys_that_contradict_each_other_are_refused() {
    let longrope = |original: u64| {
        json!({"type": "longrope", "long_factor": [1.25, 2.5, 4.0, 7.5], "short_factor": [1.0, 1.125, 1.5, 2.0],
            "original_max_position_embeddings": original})
    };
    let part = json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5});
    let whole = json!({"rope_type": "default", "partial_rotary_factor": 1.0});
    let parameters = json!({"rope_type": "default", "rope_theta": 301.0});
    for (name, key, value, words) in [
        ("neox", "rope_parameters", parameters, "rope_parameters.rope_theta = 301"),
        ("llama3", "rope_scaling", part.clone(), "all of a head turns"),
        ("gemma3", "rope_scaling", part.clone(), "all of a head turns"),
        ("phi3", "rope_scaling", longrope(13), "12 is not 13"),
        (
            "neox",
            "rope_scaling",
            part,
            "is 0.7, but the file also has rope_scaling.partial_rotary_factor = 0.5",
        ),
        ("gemma", "hidden_act", json!("silu"), "another activation than hidden_act"),
    ] {
        let folder = with_config(&format!("families/{name}"), |config| {
            config.insert(key.into(), value);
            if name == "gemma" {
                config.insert("hidden_activation".into(), json!("gelu_pytorch_tanh"));
            }
        });
        let said = Model::load(folder.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(said.contains(words), "{name}: {said}");
    }
    // What agrees is taken.
    for (name, key, value) in [
        ("phi3", "rope_scaling", longrope(12)),
        ("gemma", "hidden_act", json!("gelu")),
        ("qwen3", "rope_scaling", whole),
    ] {
        let folder = with_config(&format!("families/{name}"), |config| {
            config.insert(key.into(), value);
            if name == "gemma" {
                config.insert("hidden_activation".into(), json!("gelu_pytorch_tanh"));
            }
        });
        check(&Model::load(folder.path().to_str().unwrap()).unwrap(), name);
    }
}

#[test]
fn the_newer_way_of_writing_rotation_is_the_same_model() {
    let rewritten = |name: &str, change: fn(&mut serde_json::Map<String, Value>)| {
        let folder = with_config(&format!("families/{name}"), change);
        check(&Model::load(folder.path().to_str().unwrap()).unwrap(), name);
    };
    fn parameters(config: &mut serde_json::Map<String, Value>) {
        let mut parameters = config.remove("rope_scaling").filter(|old| !old.is_null()).unwrap_or(json!({}));
        if parameters.get("type").is_none() && parameters.get("rope_type").is_none() {
            parameters["rope_type"] = json!("default");
        }
        parameters["rope_theta"] = config.remove("rope_theta").unwrap();
        config.insert("rope_parameters".into(), parameters);
    }
    for name in ["llama3", "mistral", "qwen2", "olmo2", "phi3"] {
        rewritten(name, parameters);
    }
    rewritten("neox", |config| {
        config.remove("rotary_emb_base");
        let share = config.remove("rotary_pct").unwrap();
        config.remove("partial_rotary_factor");
        parameters(config);
        config["rope_parameters"]["partial_rotary_factor"] = share;
    });
    rewritten("gemma3", |config| {
        let local = config.remove("rope_local_base_freq").unwrap();
        parameters(config);
        let global = config.remove("rope_parameters").unwrap();
        let both = json!({"full_attention": global, "sliding_attention": {"rope_type": "default", "rope_theta": local}});
        config.insert("rope_parameters".into(), both);
    });
    // Before there were lists of layer types.
    rewritten("qwen2", |config| drop(config.remove("layer_types")));
    rewritten("gemma2", |config| drop(config.remove("layer_types")));
}

/// What a family lacks has no tensor; everything else it has.
#[test]
fn sites_are_those_of_the_family() {
    let lacking = |name: &str| -> Vec<Site> {
        let model = load(&format!("families/{name}"));
        Site::all().filter(|site| model.config().lacks(*site).is_some()).collect()
    };
    assert_eq!(lacking("neox"), [Site::BlockMiddle]);
    assert_eq!(lacking("olmo2"), [Site::AttentionInput, Site::MlpInput]);
    for name in ["neox-sequential", "llama3", "gemma2", "gemma3", "olmo", "phi3"] {
        assert_eq!(lacking(name), [], "{name}");
    }
}

/// TransformerLens means what comes after the second norm, where there is one.
#[test]
fn a_lens_name_that_means_something_else_is_refused() -> Result<(), Error> {
    for (name, is_refused) in [("gemma3", true), ("olmo2", true), ("qwen3", false), ("gemma", false)] {
        let model = load(&format!("families/{name}"));
        for hook in
            ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out", "hook_attn_out", "attn_out", "mlp_out"]
        {
            let parsed = Site::parse_for(hook, model.config());
            assert_eq!(parsed.is_err(), is_refused, "{name}: {hook}");
        }
        Site::parse_for("attention_output", model.config())?;
        Site::parse_for("blocks.1.hook_resid_pre", model.config())?;
    }
    Ok(())
}

/// Weights in 16 bits that stay so give the numbers of the same weights widened, to the bit, in every family.
#[test]
fn half_is_the_same_model_in_half_the_memory() {
    use candle_core::{DType, Device};
    for name in directories() {
        let folder = tempfile::tempdir().unwrap();
        let source = path(&name);
        std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
        let tensors = candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu).unwrap();
        let narrow = tensors.into_iter().map(|(key, x)| (key, x.to_dtype(DType::BF16).unwrap()));
        let narrow: std::collections::HashMap<_, _> = narrow.collect();
        candle_core::safetensors::save(&narrow, folder.path().join("model.safetensors")).unwrap();
        let name_of = folder.path().to_str().unwrap();
        let logits = |precision| {
            let model = Model::load_as(name_of, precision, &causalcone_model::silent).unwrap();
            let logits = model
                .decoder()
                .unwrap()
                .forward(&cases()[&name]["length_5"], &mut Record::default())
                .unwrap();
            logits.to_vec2::<f32>().unwrap()
        };
        assert_eq!(logits(Precision::Half), logits(Precision::Full), "{name}");
    }
    // Of numbers in 32 bits half would be lost.
    let error = Model::load_as(path("llama3").to_str().unwrap(), Precision::Half, &causalcone_model::silent);
    assert!(error.unwrap_err().to_string().contains("stored in 16 bits"));
}
