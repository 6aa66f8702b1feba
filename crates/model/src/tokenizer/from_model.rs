//! A tokenizer from a tokenizer.model, SentencePiece's own file, without a tokenizer.json.
//!
//! The pieces become merges as in [`pieces`]. What transformers' class does besides is done as its release 4.57 does:
//! `LlamaTokenizer` (a space before each text, `legacy`) and `GemmaTokenizer`. Where SentencePiece and transformers would
//! give other ids from the same file, it is refused by name.

use super::beside::Beside;
use super::class::{Class, GEMMA, LLAMA};
use super::encode::Tokenizer;
use super::pieces::{self, PieceKind, SPACE};
use super::proto::Proto;
use super::recipe::Recipe;
use crate::file::DataFile;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// The largest in use, Gemma's, have 5 MB.
const MAX_FILE: u64 = 16 << 20;
/// `trainer_spec.model_type` of BPE.
const BPE: i64 = 2;
/// The classes of transformers that read such a file, by their names.
const CLASSES: [&Class; 2] = [&LLAMA, &GEMMA];
/// Those of `model_type` in config.json whose class is Llama's or Gemma's if no file names one.
const MODEL_TYPES: [(&str, &Class); 7] = [
    ("llama", &LLAMA),
    ("mistral", &LLAMA),
    ("phi3", &LLAMA),
    ("gemma", &GEMMA),
    ("gemma2", &GEMMA),
    ("gemma3", &GEMMA),
    ("gemma3_text", &GEMMA),
];
/// Special to Gemma's class, whatever kind of piece they are.
const GEMMA_TURNS: [&str; 2] = ["<start_of_turn>", "<end_of_turn>"];

impl Tokenizer {
    /// Reads a tokenizer.model (SentencePiece, BPE), and what tokenizer_config.json, special_tokens_map.json and
    /// added_tokens.json in the same folder say besides.
    ///
    /// # Errors
    /// When a file is broken, or describes a kind of tokenizer that is not supported.
    pub fn from_sentencepiece(path: &Path) -> Result<Self> {
        let file = DataFile::open(path)?.read_all(MAX_FILE)?;
        let broken = |problem: String| {
            Error::file(path, "document", format!("is broken, or no SentencePiece model: {problem}"))
        };
        if is_tiktoken(&file) {
            let known = "SentencePiece; or a tokenizer.json beside it";
            return Err(Error::unsupported(path, "vocabulary format", "tiktoken", known));
        }
        let proto = Proto::read(&file).map_err(broken)?;
        if proto.pieces.is_empty() {
            return Err(broken("it has no pieces".into()));
        }
        check_supported(path, &proto)?;
        let beside = Beside::read(path)?;
        let class = beside.class("tokenizer_class for a tokenizer.model", &CLASSES, &MODEL_TYPES)?;
        let class = class.ok_or_else(|| {
            let known = CLASSES.map(|class| class.name).join(", ");
            let problem = format!(
                "no file says which class reads it: tokenizer_class in tokenizer_config.json may be {known}"
            );
            Error::file(path, "class", problem)
        })?;
        let mut recipe = recipe(path, &proto, class, &beside)?;
        beside.complete(&mut recipe, class)?;
        drop(proto);
        drop(file);
        Tokenizer::new(recipe).map_err(|problem| Error::file(path, "tokenizer", problem))
    }
}

/// Whether it is a vocabulary as tiktoken writes it, which Llama 3's own tokenizer.model is: a token in base64 and its id
/// on each line.
fn is_tiktoken(file: &[u8]) -> bool {
    let line = file.iter().take(1024).position(|byte| *byte == b'\n').and_then(|end| file.get(..end));
    let Some((token, id)) = line.and_then(|line| std::str::from_utf8(line).ok()?.split_once(' ')) else {
        return false;
    };
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    !token.is_empty() && token.chars().all(base64) && id.parse::<u32>().is_ok()
}

/// Refuses what a recipe of merges cannot do exactly.
fn check_supported(path: &Path, proto: &Proto<'_>) -> Result<()> {
    let unsupported = |what, given: &str, known| Err(Error::unsupported(path, what, given, known));
    if proto.model_type != BPE {
        let names = ["unigram", "bpe", "word", "char"];
        let place = usize::try_from(proto.model_type).ok().and_then(|n| n.checked_sub(1));
        let number = proto.model_type.to_string();
        let name = place.and_then(|place| names.get(place)).copied().unwrap_or(&number);
        return unsupported("SentencePiece model type", name, "bpe");
    }
    if !proto.charsmap.is_empty() {
        let name = if proto.normalizer.is_empty() { "user_defined" } else { proto.normalizer };
        return unsupported("SentencePiece normalizer", name, "identity");
    }
    for (set, what) in [
        (proto.removes_spaces, "remove_extra_whitespaces = true"),
        (!proto.escapes_spaces, "escape_whitespaces = false"),
        (proto.space_is_suffix, "treat_whitespace_as_suffix = true"),
    ] {
        if set {
            return unsupported("SentencePiece setting", what, "its opposite");
        }
    }
    Ok(())
}

/// The tokenizer without what the files beside it say of special tokens.
fn recipe(path: &Path, proto: &Proto<'_>, class: &Class, beside: &Beside) -> Result<Recipe> {
    let bad = |problem: String| Error::file(path, "pieces", problem);
    let vocab = pieces::vocabulary(proto.pieces.iter().map(|piece| piece.text.as_ref())).map_err(bad)?;
    let has_bytes = pieces::check_bytes(&proto.pieces, &vocab).map_err(bad)?;
    let byte = proto.pieces.iter().any(|piece| piece.kind == PieceKind::Byte);
    if proto.byte_fallback != byte || byte && !has_bytes {
        let problem = format!("byte_fallback is {}, but the byte pieces say otherwise", proto.byte_fallback);
        return Err(bad(problem));
    }
    let mut unknowns = proto.pieces.iter().filter(|piece| piece.kind == PieceKind::Unknown);
    let (Some(unknown), None) = (unknowns.next(), unknowns.next()) else {
        return Err(bad("not exactly one is the unknown piece".into()));
    };
    if let Some(unused) = pieces::unused_but_made(&proto.pieces, &vocab).map_err(bad)? {
        let problem = format!("{unused:?} is marked as unused, but two other pieces make it");
        return Err(bad(problem));
    }
    let (normalizer, pre_tokenizer) = spaces(path, proto, class, beside)?;
    let merges = pieces::merges(&proto.pieces, &vocab).map_err(bad)?;
    let mut recipe = pieces::recipe(&proto.pieces, vocab, merges, Some(unknown), &[PieceKind::Control]);
    if *class == GEMMA {
        let turns = recipe.added.iter_mut().filter(|one| GEMMA_TURNS.contains(&&*one.token.content));
        turns.for_each(|one| one.token.special = true);
    }
    Ok(Recipe { normalizer, pre_tokenizer, ..recipe })
}

/// What becomes of spaces: a normalizer and a step of splitting, of which one is null.
fn spaces(path: &Path, proto: &Proto<'_>, class: &Class, beside: &Beside) -> Result<(Value, Value)> {
    let differs = |by_class: bool| {
        let problem = format!(
            "is {}, but transformers' {} takes {by_class} where the configuration is silent, and both change ids; \
             set add_prefix_space in tokenizer_config.json",
            proto.prefix, class.name
        );
        Err(Error::file(path, "add_dummy_prefix", problem))
    };
    if *class == GEMMA {
        return if proto.prefix { differs(false) } else { Ok((pieces::normalizer(false), Value::Null)) };
    }
    let prefix = match beside.flag("add_prefix_space")? {
        Some(prefix) => prefix,
        None if proto.prefix => true,
        None => return differs(true),
    };
    if beside.flag("legacy")? == Some(false) {
        // Only the beginning of a text gets a space, not what follows a special token.
        let scheme = if prefix { "first" } else { "never" };
        let step =
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false});
        return Ok((Value::Null, step));
    }
    Ok((pieces::normalizer(prefix), Value::Null))
}
