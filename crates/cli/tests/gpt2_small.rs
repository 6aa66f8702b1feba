//! GPT-2 small's own shape in the layout `save_pretrained` writes, with numbers of no meaning: the
//! directory loads, takes the memory it should, and runs on token ids.
#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor};
use causalcone::{Experiment, Last, Model, Op, Site};
use std::collections::HashMap;

/// config.json of `GPT2LMHeadModel(GPT2Config()).save_pretrained(…)`, transformers 4.46.3.
const CONFIG: &str = r#"{
  "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
  "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
  "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_inner": null,
  "n_layer": 12, "n_positions": 1024, "reorder_and_upcast_attn": false, "resid_pdrop": 0.1,
  "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true, "summary_activation": null,
  "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
  "summary_use_proj": true, "torch_dtype": "float32", "transformers_version": "4.46.3", "use_cache": true,
  "vocab_size": 50257
}"#;

/// Every tensor of the file, by name and shape.
fn layout() -> Vec<(String, Vec<usize>)> {
    let d = 768;
    let mut all = vec![
        ("wte.weight".to_owned(), vec![50257, d]),
        ("wpe.weight".to_owned(), vec![1024, d]),
        ("ln_f.weight".to_owned(), vec![d]),
        ("ln_f.bias".to_owned(), vec![d]),
    ];
    for layer in 0..12 {
        for (name, shape) in [
            ("ln_1.weight", vec![d]),
            ("ln_1.bias", vec![d]),
            ("attn.c_attn.weight", vec![d, 3 * d]),
            ("attn.c_attn.bias", vec![3 * d]),
            ("attn.c_proj.weight", vec![d, d]),
            ("attn.c_proj.bias", vec![d]),
            ("ln_2.weight", vec![d]),
            ("ln_2.bias", vec![d]),
            ("mlp.c_fc.weight", vec![d, 4 * d]),
            ("mlp.c_fc.bias", vec![4 * d]),
            ("mlp.c_proj.weight", vec![4 * d, d]),
            ("mlp.c_proj.bias", vec![d]),
        ] {
            all.push((format!("h.{layer}.{name}"), shape));
        }
    }
    all.into_iter().map(|(name, shape)| (format!("transformer.{name}"), shape)).collect()
}

#[test]
fn a_directory_of_gpt2_smalls_shape_loads_and_runs_by_ids() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
    // Numbers between −0.02 and 0.02 that repeat after a prime many.
    let tensor = |shape: Vec<usize>| {
        let n = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|i| (i % 1009) as f32 / 1009.0 * 0.04 - 0.02).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let tensors: HashMap<String, Tensor> =
        layout().into_iter().map(|(name, shape)| (name, tensor(shape))).collect();
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    drop(tensors);

    let model = Model::load(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(model.config().parameters(), 124_439_808);
    let mut exp = Experiment::new(&model);
    let run = exp.run_ids("base", vec![464, 3139, 286, 8602, 318]).unwrap();
    exp.edit(run, Site::MlpOutput.layers(..).at(Last), Op::add(model.embedding_of(10598).unwrap())).unwrap();
    let outcome = exp.execute().unwrap();
    let sum: f64 = (0..50257).map(|id| outcome.original(run).distribution.prob(id)).sum();
    assert!((sum - 1.0).abs() < 1e-9, "probabilities sum to {sum}");
    assert!(outcome.original(run).distribution.kl(outcome.counterfactual(run).distribution) > 1e-6);
}
