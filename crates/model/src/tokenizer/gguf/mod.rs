//! A tokenizer from the metadata of a GGUF file.
//!
//! `tokenizer.ggml.model` says of which kind it is: [`byte_level`] (`gpt2`) or [`sentencepiece`]
//! (`llama`). [`keys`] reads what both have, and refuses keys that neither knows.

mod byte_level;
mod keys;
mod sentencepiece;

use super::encode::Tokenizer;
use crate::Result;
use crate::file::gguf::Value;
use keys::Keys;
use std::path::Path;

impl Tokenizer {
    /// Builds the tokenizer a GGUF header describes; `None` where it describes none.
    ///
    /// # Errors
    /// When the description is broken or of a kind that is not supported.
    pub fn from_gguf(path: &Path, metadata: &[(String, Value)]) -> Result<Option<Self>> {
        let mut keys = Keys::new(path, metadata);
        if !keys.has("ggml.tokens") && !keys.has("ggml.model") {
            return Ok(None);
        }
        let recipe = match keys.needs_text("ggml.model")? {
            "gpt2" => byte_level::recipe,
            "llama" => sentencepiece::recipe,
            other => {
                let known = "gpt2 (byte-level BPE), llama (SentencePiece)";
                return Err(keys.unsupported("tokenizer model", other, known));
            }
        };
        let recipe = recipe(&mut keys)?;
        for key in ["ggml.add_eos_token", "ggml.remove_extra_whitespaces"] {
            if keys.flag(key)? == Some(true) {
                return Err(keys.bad(key, "true is not supported"));
            }
        }
        keys.refuse_others()?;
        Tokenizer::new(recipe).map(Some).map_err(|problem| keys.bad("ggml", problem))
    }
}
