//! Byte-level BPE, `tokenizer.ggml.model = "gpt2"`.
//!
//! Such a file has tokens and merges, but of how a text is split into words before any merge it
//! says only a name, `tokenizer.ggml.pre`. What a name means is in [`SPLITS`], as the
//! tokenizer.json of the models that use it has it.

use super::keys::Keys;
use crate::Result;
use crate::tokenizer::pieces::{self, PieceKind};
use crate::tokenizer::recipe::{Ends, Flags, Recipe, Spelling};
use crate::tokenizer::words::{
    BY_CASE, BY_CASE_WITH_CONTRACTIONS, DEEPSEEK_CODER, ONE_DIGIT, THREE_DIGITS, Words,
};
use serde_json::{Value, json};

/// How texts are split into words, and what else goes with it.
struct Split {
    /// What `tokenizer.ggml.pre` calls it.
    names: &'static [&'static str],
    /// Whether texts are composed first: é is one character however it was typed.
    composes: bool,
    /// The words, one step after another.
    words: Words,
    /// Whether a word that is a token needs no merges.
    whole_words: bool,
    /// Whether a text begins with BOS if the file does not say.
    adds_bos: bool,
}

/// What most of them have in common.
const GPT2: Split =
    Split { names: &[], composes: false, words: Words::Gpt2, whole_words: false, adds_bos: false };

/// Every name that is known. Another one is refused: with the wrong split a model goes on, on other
/// ids than it was trained on.
const SPLITS: [Split; 9] = [
    // GPT-2, and Phi-1.5 and Phi-2, which use its vocabulary.
    Split { names: &["gpt-2", "phi-2"], ..GPT2 },
    // SmolLM, StarCoder.
    Split { names: &["smollm", "starcoder", "refact"], words: Words::DigitsThenGpt2, ..GPT2 },
    // GPT-NeoX, Pythia, OLMo.
    Split { names: &["olmo"], composes: true, ..GPT2 },
    // OLMo 2, Phi-4, DBRX; Smaug was made of Llama 3 before that had `ignore_merges`.
    Split { names: &["dbrx", "smaug-bpe"], words: Words::Pattern(THREE_DIGITS), ..GPT2 },
    // Llama 3, Falcon 3.
    Split {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        words: Words::Pattern(THREE_DIGITS),
        whole_words: true,
        adds_bos: true,
        ..GPT2
    },
    // Qwen 1.5, 2, 2.5 and 3, and the Qwen models distilled from DeepSeek R1, which only have other special tokens.
    Split { names: &["qwen2", "deepseek-r1-qwen"], composes: true, words: Words::Pattern(ONE_DIGIT), ..GPT2 },
    // Mistral NeMo.
    Split { names: &["tekken"], words: Words::Pattern(BY_CASE), whole_words: true, adds_bos: true, ..GPT2 },
    // Phi-4 mini, GPT-4o and gpt-oss, Llama 4.
    Split { names: &["gpt-4o", "llama4"], words: Words::Pattern(BY_CASE_WITH_CONTRACTIONS), ..GPT2 },
    // DeepSeek Coder.
    Split { names: &["deepseek-coder"], words: Words::PatternsThenDigits(&DEEPSEEK_CODER), ..GPT2 },
];

/// What the tokenizer consists of.
pub(super) fn recipe(keys: &mut Keys<'_>) -> Result<Recipe> {
    let pre = keys.needs_text("ggml.pre")?;
    let Some(split) = SPLITS.iter().find(|split| split.names.contains(&pre)) else {
        let known: Vec<&str> = SPLITS.iter().flat_map(|split| split.names).copied().collect();
        return Err(keys.unsupported("pre-tokenizer (tokenizer.ggml.pre)", pre, &known.join(", ")));
    };
    let tokens = keys.tokens()?;
    let Some(merges) = keys.merges()? else { return Err(keys.bad("ggml.merges", "is missing")) };
    let ends = keys.ends(Ends { bos: None, eos: None, adds_bos: split.adds_bos })?;
    // Scores are SentencePiece's, and whatever is no token's beginning is bytes.
    keys.take("ggml.scores");
    keys.take("ggml.unknown_token_id");
    if keys.flag("ggml.add_space_prefix")? == Some(true) {
        let problem = "true is not supported for a byte-level tokenizer";
        return Err(keys.bad("ggml.add_space_prefix", problem));
    }
    Ok(Recipe {
        spelling: Spelling::ByteLevel,
        vocab: keys.vocabulary(tokens.iter().map(|(text, _)| *text))?,
        merges,
        added: pieces::added(tokens.iter().copied(), &[PieceKind::Control]),
        normalizer: if split.composes { json!({"type": "NFC"}) } else { Value::Null },
        pre_tokenizer: split.words.pre_tokenizer(false),
        flags: Flags { ignore_merges: split.whole_words, ..Flags::default() },
        ends,
    })
}
