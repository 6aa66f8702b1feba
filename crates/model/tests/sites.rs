//! The oracle ladder: every site of tiny random models against tensors hooked out of transformers,
//! computed in f64 (`fixtures/make_fixtures.py`), and every loader against the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "common/oracle.rs"]
mod oracle;

use candle_core::{Device, Tensor};
use causalcone_model::decoder::Tap;
use causalcone_model::{Error, Model, Site};
use oracle::{Cases, Record, distance, expected, fixtures, load, with_key, with_tensor};

fn cases() -> Cases {
    oracle::json("sites.json")
}

/// The worst distance over all cases and sites of a model.
fn worst(model: &Model, name: &str) -> (f64, String) {
    oracle::worst(model, name, &cases()[name])
}

#[test]
fn every_site_of_every_model_is_what_transformers_computes() {
    for name in cases().keys() {
        let (distance, site) = worst(&load(name), name);
        println!("{name}: worst {distance:.3} of the tolerance, at {site}");
        assert!(distance <= 1.0, "{name}: {site} is {distance} tolerances off");
    }
}

#[test]
fn gguf_and_safetensors_are_the_same_model() {
    let (distance, site) = worst(&load("tiny-llama-tied.gguf"), "tiny-llama-tied");
    assert!(distance <= 1.0, "{site} is {distance} tolerances off");
}

/// T2: the first k rows do not depend on what follows them.
#[test]
fn a_prefix_gives_the_same_rows() {
    for (name, cases) in cases() {
        let model = load(&name);
        let ids = cases.values().max_by_key(|ids| ids.len()).unwrap();
        let whole = model.decoder().unwrap().forward(ids, &mut Record::default()).unwrap();
        for n in 1..=ids.len() {
            let part = model.decoder().unwrap().forward(&ids[..n], &mut Record::default()).unwrap();
            assert!(distance(&part, &whole.narrow(0, 0, n).unwrap()) <= 1.0, "{name}, first {n}");
        }
    }
}

/// The fixtures are not blind: a loader that dropped any tensor (ones for a norm's weight, zeros
/// for anything else) would be caught.
#[test]
fn dropping_any_tensor_is_seen() {
    for name in ["tiny-gpt2", "tiny-llama"] {
        let path = fixtures().join(name).join("model.safetensors");
        for tensor in candle_core::safetensors::load(path, &Device::Cpu).unwrap().keys() {
            let is_norm = (tensor.contains("norm") || tensor.contains("ln_")) && tensor.ends_with("weight");
            let neutral = |x: &Tensor| Some(if is_norm { x.ones_like() } else { x.zeros_like() }.unwrap());
            let folder = with_tensor(name, tensor, neutral);
            let model = Model::load(folder.path().to_str().unwrap()).unwrap();
            let (distance, _) = worst(&model, name);
            assert!(distance > 100.0, "{name}: dropping {tensor} goes unnoticed ({distance})");
        }
    }
}

#[test]
fn a_missing_tensor_and_an_unknown_one_are_refused_by_name() {
    let missing = with_tensor("tiny-llama", "model.layers.1.mlp.up_proj.bias", |_| None);
    let error = Model::load(missing.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("model.layers.1.mlp.up_proj.bias: the tensor is missing"), "{error}");

    let folder = with_tensor("tiny-llama", "model.norm.weight", |x| Some(x.clone()));
    let path = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    tensors.insert("model.layers.0.self_attn.q_norm.weight".into(), tensors["model.norm.weight"].clone());
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let error = Model::load(folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("q_norm.weight") && error.contains("no such tensor"), "{error}");
}

/// T4 and the mutation half of T1: every key that matters changes the answer or is refused.
#[test]
fn every_key_matters_or_is_refused() {
    use serde_json::json;
    // A wrong RoPE base, norm epsilon, activation or attention scale is seen in the numbers.
    for (name, key, value) in [
        ("tiny-llama", "rope_theta", json!(10_000.0)),
        // Removed: the class's defaults take their place.
        ("tiny-llama", "rope_theta", json!(null)),
        ("tiny-llama", "rms_norm_eps", json!(null)),
        ("tiny-gpt2", "layer_norm_epsilon", json!(null)),
        ("tiny-llama", "rms_norm_eps", json!(1e-6)),
        ("tiny-llama", "hidden_act", json!("gelu")),
        ("tiny-gpt2", "layer_norm_epsilon", json!(1e-5)),
        ("tiny-gpt2", "activation_function", json!("gelu")),
        ("tiny-gpt2", "scale_attn_by_inverse_layer_idx", json!(false)),
        ("tiny-gpt2", "scale_attn_weights", json!(false)),
    ] {
        let folder = with_key(name, key, value.clone());
        let (distance, _) = worst(&Model::load(folder.path().to_str().unwrap()).unwrap(), name);
        assert!(distance > 10.0, "{name}: {key} = {value} goes unnoticed ({distance})");
    }
    // What cannot be meant is refused, and so is an unknown key that speaks of computation.
    for (name, key, value) in [
        ("tiny-llama", "num_key_value_heads", json!(null)),
        ("tiny-llama", "num_key_value_heads", json!(3)),
        ("tiny-llama", "rope_scaling", json!({"rope_type": "llama3", "factor": 8.0})),
        ("tiny-llama", "tie_word_embeddings", json!(true)),
        ("tiny-llama", "attention_bias", json!(false)),
        ("tiny-llama", "sliding_window", json!(4)),
        ("tiny-llama", "model_type", json!("mistral")),
        ("tiny-llama", "hidden_size", json!(21)),
        ("tiny-llama", "rms_norm_eps", json!(-1.0)),
        ("tiny-gpt2", "n_head", json!(5)),
        ("tiny-gpt2", "activation_function", json!("mish")),
    ] {
        let folder = with_key(name, key, value.clone());
        let error = Model::load(folder.path().to_str().unwrap());
        assert!(error.is_err(), "{name}: {key} = {value} is accepted");
    }
}

#[test]
fn quantised_types_widen_as_the_format_defines() {
    use causalcone_model::file::{DataFile, Weights, gguf};
    let file = DataFile::open(&fixtures().join("quants.gguf")).unwrap();
    let header = gguf::read(&file).unwrap();
    let weights = Weights::from_gguf(file, &header).unwrap();
    let expected =
        candle_core::safetensors::load(fixtures().join("quants.safetensors"), &Device::Cpu).unwrap();
    for entry in &header.tensors {
        let ours = weights.take(&entry.name, &entry.shape).unwrap();
        let theirs = &expected[&entry.name];
        // The same few multiplications in f32, in another order: 1e-6 of the largest value.
        let scale = theirs.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let apart = (&ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart <= 1e-6 * scale, "{}: {apart} of {scale}", entry.name);
    }
    assert_eq!(header.tensors.len(), expected.len());
    weights.finish(|_| false).unwrap();
}

#[test]
fn token_ids_are_those_of_the_tokenizers_library_from_both_formats() {
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(fixtures().join("tokens.json")).unwrap()).unwrap();
    assert!(cases.len() > 30);
    for name in ["tiny-llama-tied", "tiny-llama-tied.gguf"] {
        let model = load(name);
        let tokenizer = model.tokenizer().unwrap();
        for Case { text, ids } in &cases {
            assert_eq!(tokenizer.encode(text, 1000).unwrap(), *ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(ids), *text, "{name}");
        }
    }
}

/// Q8_1 and Q8_K are read by candle but not by the gguf Python package, so candle itself is the
/// oracle: a file it writes widens here to what it widens it to.
#[test]
fn the_two_types_only_candle_reads_widen_as_candle_does() {
    use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
    use causalcone_model::file::{DataFile, Weights, gguf};
    let x = Tensor::arange(0f32, 512.0, &Device::Cpu).unwrap();
    let x = ((x * 0.37).unwrap().sin().unwrap() * 3.0).unwrap().reshape((2, 256)).unwrap();
    for dtype in [GgmlDType::Q8_1, GgmlDType::Q8K] {
        let quantised = QTensor::quantize(&x, dtype).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        let mut out = std::fs::File::create(&path).unwrap();
        let architecture = gguf_file::Value::String("x".into());
        let metadata = [("general.architecture", &architecture)];
        gguf_file::write(&mut out, &metadata, &[("x", &quantised)]).unwrap();
        let file = DataFile::open(&path).unwrap();
        let header = gguf::read(&file).unwrap();
        let ours = Weights::from_gguf(file, &header).unwrap().take("x", &[2, 256]).unwrap();
        let theirs = quantised.dequantize(&Device::Cpu).unwrap();
        assert_eq!(ours.to_vec2::<f32>().unwrap(), theirs.to_vec2::<f32>().unwrap(), "{dtype:?}");
        let apart = (ours - &x).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 0.03, "{dtype:?}: 8 bits of a range of 6 are off by at most 0.024, this by {apart}");
    }
}

/// A decoder that forgot something in its attention: scores come out otherwise in every layer.
struct Forgets {
    record: Record,
    query_and_key: Vec<Tensor>,
    what: Forgotten,
    model: &'static Model,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Forgotten {
    Nothing,
    Scale,
    Rope,
}

impl Tap for Forgets {
    type Error = Error;

    fn at(&mut self, site: Site, layer: Option<usize>, x: Tensor) -> Result<Tensor, Error> {
        let config = self.model.config();
        if matches!(site, Site::QueryOutput | Site::KeyOutput) {
            self.query_and_key.push(x.clone());
        }
        let x = match (site, self.what) {
            (Site::AttentionScore, Forgotten::Scale) => (x / config.score_scale(layer.unwrap()))?,
            (Site::AttentionScore, Forgotten::Rope) => {
                let (key, query) = (self.query_and_key.pop().unwrap(), self.query_and_key.pop().unwrap());
                let rows = query.dim(0)?;
                let heads = |x: Tensor| x.reshape((rows, (), config.head_dim))?.transpose(0, 1)?.contiguous();
                let (query, key) = (heads(query)?, heads(key)?);
                let group = config.heads / config.kv_heads;
                let shared: Vec<u32> = (0..config.heads).map(|h| u32::try_from(h / group).unwrap()).collect();
                let key = key.index_select(&Tensor::new(shared, &Device::Cpu)?, 0)?;
                let scores = (query.matmul(&key.t()?)? * config.score_scale(layer.unwrap()))?;
                let hidden = x.eq(f32::NEG_INFINITY)?;
                hidden.where_cond(&x, &scores)?
            }
            _ => x,
        };
        self.record.at(site, layer, x)
    }
}

#[test]
fn forgetting_the_attention_scale_or_rope_is_seen() {
    for name in ["tiny-gpt2", "tiny-llama"] {
        let model: &'static Model = Box::leak(Box::new(load(name)));
        let expected = expected(name);
        let ids = &cases()[name]["length_5"];
        let off = |what: Forgotten| {
            let record = Record::default();
            let mut tap = Forgets { record, query_and_key: Vec::new(), what, model };
            let logits = model.decoder().unwrap().forward(ids, &mut tap).unwrap();
            distance(&logits, &expected["length_5/logits"])
        };
        assert!(off(Forgotten::Nothing) <= 1.0);
        assert!(off(Forgotten::Scale) > 100.0, "{name}: no scale goes unnoticed");
        // GPT-2 has no RoPE to forget: there the recomputed scores are the same.
        let without_rope = off(Forgotten::Rope);
        assert!(
            if name == "tiny-gpt2" { without_rope <= 1.0 } else { without_rope > 100.0 },
            "{without_rope}"
        );
    }
}
