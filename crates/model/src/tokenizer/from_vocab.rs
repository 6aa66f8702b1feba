//! A tokenizer from vocab.json and merges.txt, the files of GPT-2's first tokenizer, without a tokenizer.json.
//!
//! The two hold a byte-level BPE's tokens and merges. How a text is split into words before any merge is in the code of a
//! class of transformers, so the class decides: `GPT2Tokenizer`, `Qwen2Tokenizer` (composes characters, NFC) or
//! `GPTNeoXTokenizer` (NFC). Where no file names a class and the kind of model has none of these, GPT-2's split is taken if
//! the merges could come of it, since each merge of a vocabulary lies within a word of the split it was trained with.

use super::beside::Beside;
use super::class::{Class, GPT2, NEOX, NO_CLASS, QWEN2};
use super::encode::Tokenizer;
use super::from_json::{Vocabulary, split_merge};
use super::recipe::{Ends, Flags, MAX_MERGES, Recipe, Spelling};
use super::words::{ONE_DIGIT, Words};
use crate::file::DataFile;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// The largest in use have 4 MB.
const MAX_FILE: u64 = 16 << 20;

/// How many merges are looked at one by one; GPT-2's own has some ten thousand that take it.
const MAX_LOOKED_AT: usize = 1 << 17;

/// How a class splits texts.
struct Split {
    class: &'static Class,
    words: Words,
    /// Whether texts are composed first: é is one character however it was typed.
    composes: bool,
    /// Whether `add_prefix_space` puts a space before a text.
    may_be_spaced: bool,
}

const SPLITS: [Split; 3] = [
    Split { class: &GPT2, words: Words::Gpt2, composes: false, may_be_spaced: true },
    Split { class: &QWEN2, words: Words::Pattern(ONE_DIGIT), composes: true, may_be_spaced: false },
    Split { class: &NEOX, words: Words::Gpt2, composes: true, may_be_spaced: true },
];
/// Taken where nothing is said, if the merges fit it.
const UNSAID: Split = Split { class: &NO_CLASS, words: Words::Gpt2, composes: false, may_be_spaced: true };
/// The class of a `model_type` in config.json if no file names one: that of transformers 4.57. OLMo 2 is not among them,
/// since transformers 4.57 names a class for it that splits otherwise than its own tokenizer.json.
const MODEL_TYPES: [(&str, &Class); 5] =
    [("gpt2", &GPT2), ("qwen2", &QWEN2), ("qwen3", &QWEN2), ("gpt_neox", &NEOX), ("olmo", &NEOX)];

impl Tokenizer {
    /// Reads a vocab.json and the merges.txt, tokenizer_config.json, special_tokens_map.json and added_tokens.json in the
    /// same folder.
    ///
    /// # Errors
    /// When a file is broken or merges.txt is missing, or when the files do not say how texts are split.
    pub fn from_vocab_and_merges(path: &Path) -> Result<Self> {
        let bytes = DataFile::open(path)?.read_all(MAX_FILE)?;
        let Vocabulary(vocab) =
            serde_json::from_slice(&bytes).map_err(|e| Error::file(path, "document", e.to_string()))?;
        drop(bytes);
        let merges = merges(&path.with_file_name("merges.txt"))?;
        let beside = Beside::read(path)?;
        let split = split(path, &beside, &merges)?;
        let spaced = beside.flag("add_prefix_space")?.unwrap_or(false);
        if spaced && !split.may_be_spaced {
            let config = path.with_file_name("tokenizer_config.json");
            let problem = format!("true is not supported for {}", split.class.name);
            return Err(Error::file(&config, "add_prefix_space", problem));
        }
        let mut recipe = Recipe {
            spelling: Spelling::ByteLevel,
            vocab,
            merges,
            added: Vec::new(),
            normalizer: if split.composes { json!({"type": "NFC"}) } else { Value::Null },
            pre_tokenizer: split.words.pre_tokenizer(spaced),
            flags: Flags::default(),
            ends: Ends::default(),
        };
        beside.complete(&mut recipe, split.class)?;
        Tokenizer::new(recipe).map_err(|problem| Error::file(path, "tokenizer", problem))
    }
}

/// The merges of a merges.txt: two tokens a line, below a line that says the version.
fn merges(path: &Path) -> Result<Vec<(String, String)>> {
    let bytes = DataFile::open(path)?.read_all(MAX_FILE)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| Error::file(path, "text", e.to_string()))?;
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate();
    let lines = lines.filter(|(at, line)| !(line.is_empty() || *at == 0 && line.starts_with("#version")));
    let count = lines.clone().count();
    if count > MAX_MERGES {
        return Err(Error::file(path, "merges", format!("{count} are more than {MAX_MERGES}")));
    }
    let mut merges = Vec::with_capacity(count);
    for (at, line) in lines {
        let wrong = || Error::file(path, format!("line {}", at + 1), format!("{line:?} is not two tokens"));
        merges.push(split_merge(line).ok_or_else(wrong)?);
    }
    Ok(merges)
}

/// How texts are split: as the class does that a file names, else as that of the kind of model.
fn split(path: &Path, beside: &Beside, merges: &[(String, String)]) -> Result<Split> {
    let classes = SPLITS.each_ref().map(|split| split.class);
    let what = "tokenizer_class for vocab.json and merges.txt";
    let class = beside.class(what, &classes, &MODEL_TYPES)?;
    if let Some(split) = SPLITS.into_iter().find(|split| Some(split.class) == class) {
        return Ok(split);
    }
    let Some(why) = across_words(merges) else { return Ok(UNSAID) };
    let problem = format!(
        "no file says how texts are split, and {why}; set tokenizer_class in tokenizer_config.json, or add the \
         model's tokenizer.json"
    );
    Err(Error::file(path, "class", problem))
}

/// Why the merges do not come of GPT-2's split, as far as one can tell: a merged token is more than one of its words.
fn across_words(merges: &[(String, String)]) -> Option<String> {
    let split = ByteLevel::new(false, false, true);
    // Most tokens are letters behind a space or none, which are one word. The pattern is for the others.
    let letters = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_plain =
        |left: &str, right: &str| letters(right) && letters(left.strip_prefix('Ġ').unwrap_or(left));
    let others = merges.iter().filter(|(left, right)| !is_plain(left, right)).enumerate();
    for (looked, (left, right)) in others {
        if looked == MAX_LOOKED_AT {
            return Some("there are too many merges to find out whether they come of GPT-2's split".into());
        }
        // Part of a character is not told apart.
        let bytes = Spelling::ByteLevel.bytes(&format!("{left}{right}"));
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let mut words = PreTokenizedString::from(text.as_str());
        let is_split = split.pre_tokenize(&mut words).is_ok();
        if !is_split || words.get_splits(OffsetReferential::Original, OffsetType::None).len() > 1 {
            return Some(format!("the token {text:?} does not come of GPT-2's split"));
        }
    }
    None
}
