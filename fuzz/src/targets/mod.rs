//! The targets: which reader is given the input, and what it is asked to do with what it has read.

mod chat;
mod experiment;
mod model;
mod results;
mod target;
mod tokenizer;
mod weights;

pub use target::Target;

use crate::mutate::{Mutator, Structure};
use crate::seeds;

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// A mutator for its inputs.
    pub fn mutator(&self) -> Mutator {
        let seeds: Vec<Vec<u8>> = seeds::of(self).into_iter().map(|seed| seed.data).collect();
        Mutator::new(self.structure, &seeds, self.documentation)
    }
}

const EXPERIMENT: &str = include_str!("../../../docs/experiment-file.md");
const CAUSAL: &str = include_str!("../../../docs/causal-model.md");
const MODELS: &str = include_str!("../../../docs/models.md");

/// All targets.
pub static TARGETS: &[Target] = &[
    // A whole model in one file: it is loaded and given a prompt.
    Target::new(
        "gguf",
        Structure::Gguf,
        &[
            "fixtures/families/*.gguf",
            "fixtures/corpus/*.gguf",
            "fixtures/tokenizers/*.gguf",
            "fixtures/quants.gguf",
        ],
        model::gguf,
    )
    .at_most(1 << 17),
    // The first of three parts of a model.
    Target::new(
        "gguf_split",
        Structure::Gguf,
        &["fixtures/weight-files/split-00001-of-00003.gguf"],
        model::gguf_split,
    )
    .at_most(1 << 17),
    // A vector for each layer, as llama.cpp and repeng write it.
    Target::new(
        "control_vector",
        Structure::Gguf,
        &["fuzz/seeds/place/control.gguf"],
        results::control_vector,
    ),
    // Every tensor of the file is read.
    Target::new(
        "safetensors",
        Structure::Safetensors,
        &[
            "fixtures/weight-files/views.safetensors",
            "fixtures/corpus/distilgpt2/*.safetensors",
            "fuzz/seeds/place/*.safetensors",
        ],
        weights::safetensors,
    ),
    // Which shard has which tensor.
    Target::new(
        "safetensors_index",
        Structure::Json,
        &["fixtures/tiny-llama-tied/model.safetensors.index.json"],
        model::safetensors_index,
    ),
    Target::new(
        "torch_index",
        Structure::Json,
        &["fixtures/weight-files/tiny-llama-tied/pytorch_model.bin.index.json"],
        model::torch_index,
    ),
    // Every tensor of what torch.save has written is read: a zip archive, and the older form.
    Target::new(
        "torch",
        Structure::Torch,
        &["fixtures/weight-files/views*.bin", "fixtures/pyvene-saved/tiny-llama/*.bin"],
        weights::torch,
    ),
    Target::new(
        "numpy",
        Structure::Numpy,
        &["fixtures/sae/gemma-scope/params.npz", "fuzz/seeds/place/row.npy"],
        weights::numpy,
    ),
    // Four texts are encoded by each tokenizer that loads.
    Target::new(
        "tokenizer_json",
        Structure::Json,
        &["fixtures/tokenizers/*.json", "fixtures/tiny-llama-tied/tokenizer.json"],
        tokenizer::json,
    ),
    Target::new(
        "tokenizer_model",
        Structure::Proto,
        &["fixtures/tokenizers/*.model"],
        tokenizer::sentencepiece,
    ),
    Target::new("vocab", Structure::Json, &[], tokenizer::vocab).with(tokenizer::vocabularies),
    Target::new("merges", Structure::Lines, &[], tokenizer::merges).with(tokenizer::merge_lists),
    // The small files with special tokens, beside vocab.json and merges.txt, and beside tokenizer.model.
    Target::new("tokenizer_config", Structure::Json, &[], tokenizer::config)
        .with(|| tokenizer::beside("tokenizer_config.json")),
    Target::new("special_tokens_map", Structure::Json, &[], tokenizer::special_tokens_map)
        .with(|| tokenizer::beside("special_tokens_map.json")),
    Target::new("added_tokens", Structure::Json, &[], tokenizer::added_tokens)
        .with(|| tokenizer::beside("added_tokens.json")),
    // Two conversations are rendered.
    Target::new("chat_template", Structure::Template, &[], chat::template).with(chat::templates),
    // A configuration over weights of the same family: the model is loaded and given a prompt.
    Target::new(
        "config",
        Structure::Json,
        &["fixtures/families/*/config.json", "fixtures/corpus/*/config.json", "fixtures/tiny-*/config.json"],
        model::config,
    )
    .documented(MODELS),
    Target::new(
        "generation_config",
        Structure::Json,
        &["fixtures/tiny-*/generation_config.json"],
        model::generation_config,
    ),
    // What `explain` says of an experiment; what `train` and `generate` check before they start.
    Target::new("experiment", Structure::Toml, &["examples/*.toml"], experiment::toml).documented(EXPERIMENT),
    Target::new("experiment_json", Structure::Json, &[], experiment::json)
        .with(experiment::as_json)
        .documented(EXPERIMENT),
    Target::new("data_set", Structure::Lines, &["fuzz/seeds/place/*.jsonl"], experiment::data_set)
        .with(experiment::too_many_examples),
    // At most eight examples are drawn from the causal model.
    Target::new("causal_model", Structure::Toml, &["examples/causal/*.toml"], experiment::causal_model)
        .documented(CAUSAL),
    // The configuration of an autoencoder that SAELens has trained, in an experiment.
    Target::new("sae_config", Structure::Json, &["fixtures/sae/*/cfg.json"], experiment::sae_config),
    // Saved interventions: ours, and pyvene's.
    Target::new("saved", Structure::Json, &["fuzz/seeds/place/saved/intervention.json"], results::saved)
        .documented(EXPERIMENT),
    Target::new("pyvene", Structure::Json, &["fixtures/pyvene-saved/*/config.json"], results::pyvene),
    Target::new(
        "pyvene_weights",
        Structure::Torch,
        &["fixtures/pyvene-saved/tiny-llama/*.bin"],
        results::pyvene_weights,
    ),
    // What a command resumes from.
    Target::new("journal", Structure::Lines, &[], results::journal).with(results::journals),
    Target::new("checkpoint", Structure::Safetensors, &[], results::checkpoint),
];
