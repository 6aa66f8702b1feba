//! What is known of configuration keys that no family reads: which cannot matter, and which names speak of computation.
//!
//! The lists come from some 200 published configurations, from transformers' own classes, and from what training and
//! conversion tools write. docs/models.md explains the policy.

use serde_json::Value as Json;

/// Keys of config.json that cannot change what a causal language model computes from given token ids, in any family:
/// transformers' generic keys, settings of training, generation, classification heads and tools. Not those whose name
/// says so already ([`INERT_ENDS`], [`INERT_STARTS`]).
const INERT: &[&str] = &[
    // transformers' generic keys.
    "architecture",
    "architectures",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
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
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tie_encoder_decoder",
    "top_k",
    "top_p",
    "torchscript",
    "transformers.js_config",
    "transformers_weights",
    "type_vocab_size",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    // Training: dropout does nothing when a model is run.
    "gradient_checkpointing",
    "group_size_ratio",
    "loss_type",
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
    "reorder_and_upcast_attn",
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
    "custom_pipelines",
    "do_normalize",
    "export_model_type",
    "fuse_sequence_parallel_allreduce",
    "is_llama_config",
    "kv_shared_group_size",
    "move_model_to_device",
    "neuron",
    "normalized_config",
    "onnx",
    "prefill_chunk_size",
    "recompute",
    "tensor_parallel_shards",
    "torch_compile",
    "unsloth_fixed",
    "use_flash_attention",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_fused_rms_norm",
    "use_fused_rope",
    "use_parallel_embedding",
    "use_recompute",
    "use_sdpa",
    // Settings of images, in text models cut out of larger ones.
    "freeze_mm_mlp_adapter",
    "tune_mm_mlp_adapter",
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

    /// What else there is to tell apart, the keys of `fixtures/corpus` show.
    #[test]
    fn zero_is_no_absence_of_a_factor() {
        assert!(is_absence("num_local_experts", &json!(0)) && !is_absence("residual_multiplier", &json!(0)));
    }
}
