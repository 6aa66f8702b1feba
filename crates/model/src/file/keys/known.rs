//! What is known of configuration keys that no family reads: which cannot matter, and which names speak of computation.
//!
//! The lists come from some 200 published configurations, from transformers' own classes, and from what training and
//! conversion tools write. docs/models.md explains the policy.

use serde_json::Value as Json;

/// Keys of config.json that cannot change what a causal language model computes from given token ids, in any family:
/// transformers' generic keys, settings of training, generation, classification heads and tools.
const INERT: &[&str] = &[
    // transformers' generic keys.
    "architecture",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "name",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "transformers_weights",
    "type_vocab_size",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    // Training: dropout does nothing when a model is run.
    "gradient_checkpointing",
    "group_size_ratio",
    "initializer_factor",
    "initializer_range",
    "loss_type",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "selective_checkpoint_enabled",
    "sequence_parallel_enabled",
    "shift_labels",
    "use_deepspeed_checkpointing",
    // Products cut in slices have the same sums; versions since 4.48 do not read this.
    "pretraining_tp",
    // Names of the context length that nothing computes with, and what was once planned for GPT and never read.
    "context_window_size",
    "max_len",
    "max_model_len",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "model_max_length",
    "n_ctx",
    "n_special",
    "original_max_position_embeddings",
    "predict_special_tokens",
    "seq_length",
    // Change the rounding of 16-bit arithmetic only.
    "bf16",
    "fp16",
    "fp32",
    "head_dtype",
    "params_dtype",
    "reorder_and_upcast_attn",
    // Heads of other tasks.
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    // Where a model comes from.
    "base_model",
    "base_model_name_or_path",
    "datasets",
    "finetuned",
    "git_hash",
    "global_step",
    "license",
    "num_parameters",
    "tags",
    "task_names",
    // What tools write: which kernels, how it is split over machines, how it was exported.
    "attention_sink_size",
    "attn_implementation",
    "custom_pipelines",
    "do_normalize",
    "experts_implementation",
    "export_model_type",
    "fuse_sequence_parallel_allreduce",
    "internal_version",
    "is_llama_config",
    "kv_cache_dtype",
    "kv_shared_group_size",
    "move_model_to_device",
    "neuron",
    "normalized_config",
    "onnx",
    "paddlenlp_version",
    "prefill_chunk_size",
    "recompute",
    "tensor_parallel_degree",
    "tensor_parallel_shards",
    "torch_compile",
    "unsloth_fixed",
    "unsloth_version",
    "use_flash_attention",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_fused_rms_norm",
    "use_fused_rope",
    "use_parallel_embedding",
    "use_recompute",
    "use_sdpa",
    "virtual_pp_degree",
    // Settings of images, in text models cut out of larger ones.
    "freeze_mm_mlp_adapter",
    "image_aspect_ratio",
    "tune_mm_mlp_adapter",
    "vision_tower",
];

/// How names end that are of training, storage or kernels, whatever else they are called.
const INERT_ENDS: &[&str] = &[
    "_coef",
    "_degree",
    "_dropout",
    "_dropout_prob",
    "_dtype",
    "_implementation",
    "_loss",
    "_pdrop",
    "_token_id",
    "_token_index",
    "_version",
];

/// How names begin that are of other towers, of training or of tokenizers.
const INERT_STARTS: &[&str] =
    &["audio_", "image_", "initializer_", "mm_", "summary_", "tokenizer_", "video_", "vision_"];

/// Parts of names that speak of computation: a key with one of these that no family reads may change the answers.
const COMPUTATION: &[&str] = &[
    "4bit", "8bit", "act", "bias", "bits", "cap", "dim", "emb", "eps", "ff", "global", "glu", "head",
    "heads", "inner", "inter", "kv", "local", "mtp", "mult", "pct", "pos", "pre", "prefix", "rank", "rms",
    "soft", "ssm", "state", "states", "tie", "tied", "token", "v", "yarn",
];

/// How parts of names begin that speak of computation.
const COMPUTATION_STARTS: &[&str] = &[
    "activation",
    "adapter",
    "alibi",
    "attention",
    "attn",
    "bidirectional",
    "block",
    "causal",
    "channel",
    "chunk",
    "clamp",
    "clip",
    "compress",
    "conv",
    "dense",
    "depth",
    "dflash",
    "draft",
    "eagle",
    "embd",
    "embed",
    "epsilon",
    "expert",
    "factor",
    "ffn",
    "freq",
    "fuse",
    "gate",
    "gating",
    "gelu",
    "hidden",
    "hqq",
    "intermediate",
    "latent",
    "layer",
    "logit",
    "logn",
    "lookahead",
    "loop",
    "lora",
    "mamba",
    "mask",
    "medusa",
    "memory",
    "mlp",
    "moe",
    "mrope",
    "mup",
    "nextn",
    "norm",
    "ntk",
    "position",
    "prun",
    "qk",
    "quant",
    "query",
    "recur",
    "residual",
    "rope",
    "rotary",
    "rout",
    "scal",
    "shared",
    "silu",
    "sink",
    "sliding",
    "softcap",
    "softmax",
    "spars",
    "steering",
    "swiglu",
    "temperature",
    "theta",
    "tying",
    "virtual",
    "weight",
    "width",
    "window",
    "xpos",
];

/// Parts of names of numbers that multiply or divide something, and that do nothing when they are 1.
const FACTORS: &[&str] =
    &["factor", "factors", "mod", "mul", "multiplier", "pct", "ratio", "scale", "scaling"];

/// Whether a key cannot matter, whatever it is set to.
pub(super) fn is_inert(key: &str) -> bool {
    key.starts_with('_')
        || INERT.contains(&key)
        || INERT_ENDS.iter().any(|end| key.ends_with(end))
        || INERT_STARTS.iter().any(|start| key.starts_with(start))
}

/// Whether the name of a key speaks of computation.
pub(super) fn speaks_of_computation(key: &str) -> bool {
    let speaks = |part: &str| COMPUTATION_STARTS.iter().any(|start| part.starts_with(start));
    parts(key).any(|part| COMPUTATION.contains(&part) || speaks(part))
}

/// Whether the value of a key means that something is absent, or is an identity: null, false, an empty text, list or
/// object; a factor of 1; 0 for anything but a factor; layers that are all of the usual kind; attention that is causal.
pub(super) fn is_absence(key: &str, value: &Json) -> bool {
    if ["is_causal", "causal", "causal_attention"].contains(&key.rsplit('.').next().unwrap_or(key)) {
        // These decoders are causal: here true is the usual, and false another model.
        return matches!(value, Json::Null | Json::Bool(true));
    }
    let is_factor = parts(key).any(|part| FACTORS.contains(&part));
    match value {
        Json::Null | Json::Bool(false) => true,
        Json::Bool(true) => false,
        Json::Number(number) => number.as_f64() == Some(if is_factor { 1.0 } else { 0.0 }),
        Json::String(text) => text.is_empty() || text == "none" || text == "default",
        Json::Array(items) if key == "layer_types" => items.iter().all(|item| item == "full_attention"),
        Json::Array(items) => items.is_empty(),
        Json::Object(object) => object.is_empty(),
    }
}

/// The parts of a name, in lower case only as far as names are: "rope_scaling.type" has rope, scaling and type.
fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split(['_', '.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_values_are_told_apart() {
        for key in
            ["_num_labels", "unsloth_fixed", "hidden_dropout_prob", "image_token_id", "router_aux_loss_coef"]
        {
            assert!(is_inert(key), "{key}");
        }
        for key in [
            "qk_layernorm",
            "residual_multiplier",
            "num_local_experts",
            "alibi",
            "attn_scale",
            "logits_scaling",
        ] {
            assert!(!is_inert(key) && speaks_of_computation(key), "{key}");
        }
        for key in ["internal_build", "wandb_run", "mystery", "comment"] {
            assert!(!is_inert(key) && !speaks_of_computation(key), "{key}");
        }
        for (key, value, is) in [
            ("expert_count", json!(0), true),
            ("expert_count", json!(1), false),
            ("residual_multiplier", json!(1.0), true),
            ("residual_multiplier", json!(0), false),
            ("qk_layernorm", json!(false), true),
            ("qk_layernorm", json!(true), false),
            ("layer_types", json!(["full_attention", "full_attention"]), true),
            ("layer_types", json!(["full_attention", "linear_attention"]), false),
            ("pruned_heads", json!({}), true),
        ] {
            assert_eq!(is_absence(key, &value), is, "{key} = {value}");
        }
    }
}
