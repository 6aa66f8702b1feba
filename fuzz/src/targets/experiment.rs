//! Experiments and what they read: data sets, causal models, autoencoders.

use super::target::any;
use crate::Scene;
use crate::mutate::Node;
use crate::seeds::matching;
use causalcone_engine::causal::CausalFile;
use causalcone_engine::train::Training;
use causalcone_engine::{Experiment, ExperimentFile, Explanation, Runtime};
use std::path::Path;

/// The files that experiments of the seeds name.
const PLACE: &str = "fuzz/seeds/place";
/// The bytes an experiment may plan to use.
const MEMORY: u64 = 16 << 20;

/// What `explain` does, and what `train` and `generate` do before they compute.
fn explain(scene: &Scene, path: &Path, model: &str) -> Option<()> {
    let file = ExperimentFile::load(path).ok()?;
    let model = scene.model(model)?;
    let experiment = file.experiment(model).ok()?;
    let _ = sifted(&experiment).map(|experiment| {
        Explanation::new(&experiment, &Runtime::within(Some(MEMORY))).map(|plan| plan.to_string())
    });
    if let Some(generation) = &file.generate {
        let _ = generation.check(model);
        let mut growing = experiment.clone();
        let _ = growing.sift_growing();
    }
    if file.train.is_some() {
        let (options, held_out, _) = file.training(&experiment).ok()?;
        let training = Training::new(&sifted(&experiment)?, held_out, options).ok()?;
        let _ = (training.steps(), training.len());
    }
    Some(())
}

/// The experiment without the examples that cannot be used.
fn sifted<'m>(experiment: &Experiment<'m>) -> Option<Experiment<'m>> {
    let mut experiment = experiment.clone();
    experiment.sift().ok()?;
    Some(experiment)
}

pub(super) fn toml(scene: &Scene, data: &[u8]) -> Option<()> {
    explain(scene, &scene.stage(PLACE, "e.toml", data)?.join("e.toml"), "tiny-llama-tied")
}

pub(super) fn json(scene: &Scene, data: &[u8]) -> Option<()> {
    explain(scene, &scene.stage(PLACE, "e.json", data)?.join("e.json"), "tiny-llama-tied")
}

/// The seeds in TOML, as JSON.
pub(super) fn as_json() -> Vec<Vec<u8>> {
    let seeds = matching("fuzz/seeds/experiment/*.toml").into_iter();
    seeds.filter_map(|seed| Node::from_toml(&seed.data)).map(|tree| tree.to_json()).collect()
}

pub(super) fn data_set(scene: &Scene, data: &[u8]) -> Option<()> {
    let folder = scene.stage(PLACE, "examples.jsonl", data)?;
    let swap = "value = { run = 'source' }";
    let edits = [
        "op = 'zero'".into(),
        format!("op = 'swap'\n{swap}"),
        format!("op = 'low_rank_swap'\nparameters = {{ random = 0, rank = 2 }}\n{swap}"),
    ];
    any(edits.map(|edit: String| {
        let train = if edit.contains("parameters") { "[train]\nsteps = 1\n" } else { "" };
        let text = format!(
            "examples = 'examples.jsonl'\n[[edit]]\nsite = 'mlp_output'\nlayers = 'all'\nrun = 'base'\n{edit}\n\
            [read]\nrun = 'base'\n[sweep]\nlayers = 'each'\nmetrics = ['accuracy']\n{train}"
        );
        std::fs::write(folder.join("sweep.toml"), text).ok()?;
        explain(scene, &folder.join("sweep.toml"), "tiny-llama-tied")
    }))
}

/// A data set of more examples than one may have. It once took more memory to count them than a file of that size may take.
pub(super) fn too_many_examples() -> Vec<Vec<u8>> {
    let line = br#"{"base":[1,2,3],"source":[4,5,6],"label":5,"tokens":[1,2]}"#;
    vec![[&line[..], b"\n"].concat().repeat(70_000)]
}

pub(super) fn causal_model(scene: &Scene, data: &[u8]) -> Option<()> {
    let mut file = CausalFile::load(&scene.write("causal.toml", data)?).ok()?;
    let causal = file.causal_model().ok()?;
    let first = causal.settings().ok()?.into_iter().next()?;
    let _ = (file.prompt(&causal, &first), file.label(&causal, &first));
    // A number that is far too large is left alone: it must be refused.
    for examples in [&mut file.examples, &mut file.held_out_examples] {
        *examples = examples.map_or(Some(8), |n| Some(if n > 65_536 { n } else { n.min(8) }));
    }
    file.draw(scene.model("tiny-llama-tied")?, &Runtime::within(Some(MEMORY))).ok().map(drop)
}

/// The input as the configuration of each of the two kinds of autoencoder.
pub(super) fn sae_config(scene: &Scene, data: &[u8]) -> Option<()> {
    any([("standard", "autoencoder_swap"), ("jumprelu", "jumprelu_autoencoder")].map(|(kind, op)| {
        let folder = scene.stage(&format!("fixtures/sae/{kind}"), "cfg.json", data)?;
        let text = format!(
            "[runs.base]\nids = [1, 2, 3]\n[runs.other]\nids = [1, 2, 4]\n[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = 0\n\
            op = '{op}'\nparameters = '{}'\nvalue = {{ run = 'other' }}\n[read]\nrun = 'base'\n",
            folder.display()
        );
        explain(scene, &scene.write("sae.toml", text.as_bytes())?, "tiny-gpt2")
    }))
}
