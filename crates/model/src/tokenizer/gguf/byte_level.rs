//! How the texts of each `tokenizer.ggml.pre` are split into words: what their models' tokenizer.json says.

use serde_json::{Value, json};

/// One way of splitting texts.
pub(super) struct Style {
    /// What files call it.
    pub(super) names: &'static [&'static str],
    /// What is done to a text first.
    pub(super) normalizer: fn() -> Value,
    /// The split into words.
    pub(super) pre_tokenizer: fn() -> Value,
    /// Whether a word that is a token needs no merges.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with a start-of-text token where the file does not say.
    pub(super) adds_bos: bool,
}

/// The styles that are known. Another one would be a guess.
pub(super) const STYLES: [Style; 6] = [
    Style { names: &["gpt-2", "phi-2"], ..PLAIN },
    Style {
        names: &["smollm", "starcoder", "refact"],
        pre_tokenizer: || {
            let digits = json!({"type": "Digits", "individual_digits": true});
            json!({"type": "Sequence", "pretokenizers": [digits, words(true)]})
        },
        ..PLAIN
    },
    // OLMo 1 took over GPT-NeoX's, and Pythia has it too.
    Style { names: &["olmo", "gpt-neox"], normalizer: nfc, ..PLAIN },
    Style {
        names: &["llama-bpe", "llama3", "llama-v3"],
        pre_tokenizer: || split(&threes()),
        ignore_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    // OLMo 2 splits as DBRX does.
    Style { names: &["dbrx"], pre_tokenizer: || split(&threes()), ..PLAIN },
    Style { names: &["qwen2"], normalizer: nfc, pre_tokenizer: || split(&words_of(r"\p{N}")), ..PLAIN },
];

const PLAIN: Style = Style {
    names: &[],
    normalizer: || Value::Null,
    pre_tokenizer: || words(true),
    ignore_merges: false,
    adds_bos: false,
};

/// The names of all styles.
pub(super) fn names() -> String {
    STYLES.iter().flat_map(|style| style.names).copied().collect::<Vec<_>>().join(", ")
}

fn nfc() -> Value {
    json!({"type": "NFC"})
}

/// Bytes spelled as characters, after GPT-2's split where it is asked for.
fn words(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn split(pattern: &str) -> Value {
    let split =
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    json!({"type": "Sequence", "pretokenizers": [split, words(false)]})
}

/// Up to three digits are a word.
fn threes() -> String {
    words_of(r"\p{N}{1,3}")
}

/// GPT-4's split: contractions; letters, with what stands right before them; digits; signs, with the line's end; ends of
/// lines; spaces, of which the last one goes to the word.
fn words_of(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}
