//! Models: what loads gets a prompt.

use super::tokenizer::encode;
use crate::Scene;
use causalcone_engine::Experiment;
use causalcone_model::{Model, Precision, silent};
use std::path::Path;

/// Loads a model and gives it a short prompt.
fn answer(path: &Path) -> Option<()> {
    let model = Model::open(path.to_str()?, Precision::Auto, &silent).ok()?;
    let _ = (model.problems().len(), model.eos_ids(), model.footprint());
    if let Some(tokenizer) = model.tokenizer() {
        encode(tokenizer);
    }
    let mut experiment = Experiment::new(&model);
    let run = experiment.run_ids("base", vec![0, 1, 2]).ok()?;
    experiment.execute().ok()?.counterfactual(run).top(3);
    Some(())
}

pub(super) fn gguf(scene: &Scene, data: &[u8]) -> Option<()> {
    answer(&scene.write("model.gguf", data)?)
}

pub(super) fn gguf_split(scene: &Scene, data: &[u8]) -> Option<()> {
    let first = "split-00001-of-00003.gguf";
    answer(&scene.stage("fixtures/weight-files", first, data)?.join(first))
}

pub(super) fn safetensors_index(scene: &Scene, data: &[u8]) -> Option<()> {
    answer(&scene.stage("fixtures/tiny-llama-tied", "model.safetensors.index.json", data)?)
}

pub(super) fn torch_index(scene: &Scene, data: &[u8]) -> Option<()> {
    let folder =
        scene.stage("fixtures/weight-files/tiny-llama-tied", "pytorch_model.bin.index.json", data)?;
    if !folder.join("config.json").exists() {
        let config = crate::scene::repository("fixtures/tiny-llama-tied/config.json");
        std::fs::copy(config, folder.join("config.json")).ok()?;
    }
    answer(&folder)
}

/// The weights are those of the family that the configuration names, if it still names one.
pub(super) fn config(scene: &Scene, data: &[u8]) -> Option<()> {
    const FAMILIES: [(&str, &str); 13] = [
        ("gpt_neox", "families/neox"),
        ("gpt2", "tiny-gpt2"),
        ("mistral", "families/mistral"),
        ("qwen2", "families/qwen2"),
        ("qwen3", "families/qwen3"),
        ("gemma3", "families/gemma3"),
        ("gemma2", "families/gemma2"),
        ("gemma", "families/gemma"),
        ("olmo2", "families/olmo2"),
        ("olmo", "families/olmo"),
        ("phi3", "families/phi3"),
        ("llama3", "families/llama3"),
        ("llama", "tiny-llama-tied"),
    ];
    let text = String::from_utf8_lossy(data);
    let family = FAMILIES.iter().find(|(name, _)| text.contains(&format!("\"{name}")));
    let folder = family.map_or("tiny-llama-tied", |(_, folder)| folder);
    answer(&scene.stage(&format!("fixtures/{folder}"), "config.json", data)?)
}

pub(super) fn generation_config(scene: &Scene, data: &[u8]) -> Option<()> {
    answer(&scene.stage("fixtures/tiny-llama-tied", "generation_config.json", data)?)
}
