//! How byte-level tokenizers split a text into words before any merge.
//!
//! GGUF files and the classes of transformers only name a split. This is the one table of what those splits are, as the
//! tokenizer.json files of the models that use them write them.

use serde_json::{Value, json};

/// The steps that split a text into words.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words {
    /// GPT-2's pattern.
    Gpt2,
    /// Each digit by itself, then GPT-2's pattern.
    DigitsThenGpt2,
    /// One pattern of the model's own.
    Pattern(&'static str),
    /// Several patterns, each applied to what the one before it left, then each digit by itself.
    PatternsThenDigits(&'static [&'static str]),
}

/// Letters with one character before them, up to three digits, and lines kept apart.
pub(super) const THREE_DIGITS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same, each digit by itself.
pub(super) const ONE_DIGIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// A word ends where capitals begin, and no contraction is a word.
pub(super) const BY_CASE: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// A word ends where capitals begin, a contraction belongs to the word before it, and digits come in threes.
pub(super) const BY_CASE_WITH_CONTRACTIONS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// DeepSeek Coder's: lines, letters, punctuation, and Chinese, Japanese and Korean characters.
pub(super) const DEEPSEEK_CODER: [&str; 4] =
    ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+"];

impl Words {
    /// The steps as tokenizer.json writes them. `spaced` says whether a text gets a space before it.
    pub(super) fn pre_tokenizer(self, spaced: bool) -> Value {
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": spaced, "trim_offsets": true, "use_regex": use_regex});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let digits = || json!({"type": "Digits", "individual_digits": true});
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
        match self {
            Self::Gpt2 => byte_level(true),
            Self::DigitsThenGpt2 => sequence(vec![digits(), byte_level(true)]),
            Self::Pattern(pattern) => sequence(vec![split(pattern), byte_level(false)]),
            Self::PatternsThenDigits(patterns) => {
                let patterns = patterns.iter().map(|pattern| split(pattern));
                sequence(patterns.chain([digits(), byte_level(false)]).collect())
            }
        }
    }
}
