//! What the configuration classes of transformers mean where a key is absent.
//!
//! Every entry is what the pinned versions 4.46.3 and 5.24.0 of the class take (a class that only the second has: that
//! one); a test compares the tables with `fixtures/defaults.json`, which those classes made. Keys stay required where the
//! versions disagree, and where the class's number would hardly be meant: sizes, the key/value heads of Gemma 2 and Qwen,
//! Mistral's window. What follows from other keys (the width of a head, as many key/value heads as heads) is computed by
//! the families.

use crate::file::keys::Defaults;
use crate::file::keys::Value::{Count, Flag, Null, Number, Text};

pub(super) const GPT2: Defaults = Defaults {
    source: "transformers' GPT2Config",
    values: &[
        ("n_positions", Count(1024)),
        ("vocab_size", Count(50_257)),
        ("layer_norm_epsilon", Number(1e-5)),
        ("activation_function", Text("gelu_new")),
        ("tie_word_embeddings", Flag(true)),
        ("scale_attn_weights", Flag(true)),
        ("scale_attn_by_inverse_layer_idx", Flag(false)),
        ("n_inner", Null),
    ],
};

pub(super) const NEOX: Defaults = Defaults {
    source: "transformers' GPTNeoXConfig",
    values: &[
        ("max_position_embeddings", Count(2048)),
        ("vocab_size", Count(50_432)),
        ("layer_norm_eps", Number(1e-5)),
        ("hidden_act", Text("gelu")),
        ("rotary_pct", Number(0.25)),
        ("rotary_emb_base", Number(10_000.0)),
        ("attention_bias", Flag(true)),
        ("tie_word_embeddings", Flag(false)),
        ("use_parallel_residual", Flag(true)),
    ],
};

pub(super) const LLAMA: Defaults = Defaults {
    source: "transformers' LlamaConfig",
    values: &[
        // As many as there are heads.
        ("num_key_value_heads", Null),
        ("max_position_embeddings", Count(2048)),
        ("vocab_size", Count(32_000)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("mlp_bias", Flag(false)),
        ("tie_word_embeddings", Flag(false)),
    ],
};

pub(super) const MISTRAL: Defaults = Defaults {
    source: "transformers' MistralConfig",
    values: &[
        ("num_key_value_heads", Count(8)),
        ("max_position_embeddings", Count(131_072)),
        ("vocab_size", Count(32_000)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("tie_word_embeddings", Flag(false)),
    ],
};

pub(super) const QWEN2: Defaults = Defaults {
    source: "transformers' Qwen2Config",
    values: &[
        ("max_position_embeddings", Count(32_768)),
        ("vocab_size", Count(151_936)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("use_sliding_window", Flag(false)),
        ("max_window_layers", Count(28)),
        ("tie_word_embeddings", Flag(false)),
    ],
};

pub(super) const QWEN3: Defaults = Defaults {
    source: "transformers' Qwen3Config",
    values: &[
        ("head_dim", Count(128)),
        ("max_position_embeddings", Count(32_768)),
        ("vocab_size", Count(151_936)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("use_sliding_window", Flag(false)),
        ("max_window_layers", Count(28)),
        ("tie_word_embeddings", Flag(false)),
    ],
};

pub(super) const GEMMA: Defaults = Defaults {
    source: "transformers' GemmaConfig",
    values: &[
        ("num_key_value_heads", Count(16)),
        ("head_dim", Count(256)),
        ("max_position_embeddings", Count(8192)),
        ("vocab_size", Count(256_000)),
        ("rms_norm_eps", Number(1e-6)),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("tie_word_embeddings", Flag(true)),
    ],
};

pub(super) const GEMMA2: Defaults = Defaults {
    source: "transformers' Gemma2Config",
    values: &[
        ("head_dim", Count(256)),
        ("max_position_embeddings", Count(8192)),
        ("vocab_size", Count(256_000)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_activation", Text("gelu_pytorch_tanh")),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("sliding_window", Count(4096)),
        ("attn_logit_softcapping", Number(50.0)),
        ("final_logit_softcapping", Number(30.0)),
        ("tie_word_embeddings", Flag(true)),
    ],
};

/// Folders with a vision tower write only what differs from these in `text_config`: here even sizes are meant.
pub(super) const GEMMA3: Defaults = Defaults {
    source: "transformers' Gemma3TextConfig",
    values: &[
        ("num_attention_heads", Count(8)),
        ("num_key_value_heads", Count(4)),
        ("head_dim", Count(256)),
        ("max_position_embeddings", Count(131_072)),
        ("vocab_size", Count(262_208)),
        ("rms_norm_eps", Number(1e-6)),
        ("hidden_activation", Text("gelu_pytorch_tanh")),
        ("rope_theta", Number(1_000_000.0)),
        ("rope_local_base_freq", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("sliding_window", Count(4096)),
        ("sliding_window_pattern", Count(6)),
        ("query_pre_attn_scalar", Count(256)),
        ("attn_logit_softcapping", Null),
        ("final_logit_softcapping", Null),
        ("tie_word_embeddings", Flag(true)),
    ],
};

pub(super) const OLMO: Defaults = Defaults {
    source: "transformers' OlmoConfig",
    values: &[
        // As many as there are heads.
        ("num_key_value_heads", Null),
        ("max_position_embeddings", Count(2048)),
        ("vocab_size", Count(50_304)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("tie_word_embeddings", Flag(false)),
        ("clip_qkv", Null),
    ],
};

pub(super) const OLMO2: Defaults = Defaults {
    source: "transformers' Olmo2Config",
    values: &[
        // As many as there are heads.
        ("num_key_value_heads", Null),
        ("max_position_embeddings", Count(2048)),
        ("vocab_size", Count(50_304)),
        ("rms_norm_eps", Number(1e-5)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("attention_bias", Flag(false)),
        ("tie_word_embeddings", Flag(false)),
    ],
};

pub(super) const PHI3: Defaults = Defaults {
    source: "transformers' Phi3Config",
    values: &[
        // As many as there are heads.
        ("num_key_value_heads", Null),
        ("max_position_embeddings", Count(4096)),
        ("original_max_position_embeddings", Count(4096)),
        ("vocab_size", Count(32_064)),
        ("rms_norm_eps", Number(1e-5)),
        ("hidden_act", Text("silu")),
        ("rope_theta", Number(10_000.0)),
        ("partial_rotary_factor", Number(1.0)),
        ("sliding_window", Null),
        ("tie_word_embeddings", Flag(false)),
    ],
};

/// Defaults of llama.cpp itself, for all architectures. A missing base of the frequencies is 10000, as in files from before
/// October 2023; that of Gemma 3's full layers is another one, which every published file writes.
pub(super) const GGUF: Defaults = Defaults {
    source: "the GGUF format",
    values: &[
        ("gemma.rope.freq_base", Number(10_000.0)),
        ("gemma2.rope.freq_base", Number(10_000.0)),
        ("gemma3.attention.sliding_window_pattern", Count(6)),
        ("gemma3.rope.freq_base_swa", Number(10_000.0)),
        ("gptneox.rope.freq_base", Number(10_000.0)),
        ("llama.rope.freq_base", Number(10_000.0)),
        ("olmo.rope.freq_base", Number(10_000.0)),
        ("olmo2.rope.freq_base", Number(10_000.0)),
        ("phi3.rope.freq_base", Number(10_000.0)),
        ("qwen2.rope.freq_base", Number(10_000.0)),
        ("qwen3.rope.freq_base", Number(10_000.0)),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    /// The classes themselves are the oracle: `fixtures/make_defaults.py` asked both pinned versions.
    #[test]
    fn every_default_is_what_the_classes_take() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/defaults.json");
        let classes: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let tables = [GPT2, NEOX, LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, OLMO, OLMO2, PHI3];
        let mut compared = 0;
        for Defaults { source, values } in tables {
            let class = source.strip_prefix("transformers' ").unwrap();
            for (key, value) in values {
                let versions =
                    classes[class][key].as_object().unwrap_or_else(|| panic!("{class} has no {key}"));
                let mut known = 0;
                for (version, meaning) in versions {
                    if meaning.get("no_class").is_some() || meaning.get("unread").is_some() {
                        continue;
                    }
                    known += 1;
                    let same = match (meaning.get("literal"), Json::from(*value)) {
                        (Some(literal), value) if literal.is_number() => literal.as_f64() == value.as_f64(),
                        (Some(literal), value) => *literal == value,
                        // What follows from another key is computed by the family.
                        (None, value) => value.is_null(),
                    };
                    assert!(same, "{class}.{key}: {value:?}, where transformers {version} has {meaning}");
                }
                assert!(known > 0, "{class}.{key} is read by no version");
                compared += known;
            }
        }
        assert!(compared > 150, "only {compared} values were compared");
    }
}
