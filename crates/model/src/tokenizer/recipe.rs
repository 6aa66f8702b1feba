//! A tokenizer's parts, checked before the library sees them.

use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// Real vocabularies stay below 300 000 entries, and merge lists below 600 000.
pub(super) const MAX_VOCABULARY: usize = 1 << 19;
pub(super) const MAX_MERGES: usize = 1 << 20;
pub(super) const MAX_ADDED: usize = 1 << 16;
/// The longest in use are runs of 128 spaces.
const MAX_TOKEN: usize = 1024;
const MAX_PATTERN: usize = 4096;
/// Compiled, a pattern that counts far becomes much longer than written.
const MAX_COMPILED: usize = 1 << 20;
/// Steps of a normalizer or pre-tokenizer; the longest in use have five.
const MAX_PARTS: usize = 16;
/// How much longer a normalizer may make a text: Llama's makes three bytes of a space.
const MAX_GROWTH: usize = 64;

/// How a vocabulary writes the bytes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// GPT-2's alphabet: every byte is a printable character, a space is `Ġ`.
    ByteLevel,
    /// SentencePiece's: a space is `▁`, a lone byte `<0x0A>`.
    Metaspace,
}

/// A token matched before the text is split.
#[derive(Debug, Clone)]
pub struct Added {
    /// Its id.
    pub id: u32,
    /// The library's description of it, spelled out.
    pub token: tokenizers::AddedToken,
}

/// Everything a byte-pair tokenizer consists of.
#[derive(Debug)]
pub struct Recipe {
    /// How tokens are written in `vocab`.
    pub spelling: Spelling,
    /// Token to id.
    pub vocab: HashMap<String, u32>,
    /// Pairs to merge, most frequent first.
    pub merges: Vec<(String, String)>,
    /// Special and user-defined tokens.
    pub added: Vec<Added>,
    /// What is done to a text before it is split, as tokenizer.json writes it.
    pub normalizer: Value,
    /// How a text is split into words, as tokenizer.json writes it.
    pub pre_tokenizer: Value,
    /// Unknown token, unknown bytes and whole words: the model's flags.
    pub flags: Flags,
    /// How a text begins and ends.
    pub ends: Ends,
}

/// The tokens around a text.
#[derive(Debug, Default, Clone, Copy)]
pub struct Ends {
    /// Start of text.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// Whether a text gets a start-of-text token when nothing else is said.
    pub adds_bos: bool,
}

/// The byte-pair model's switches.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    /// The token for what the vocabulary cannot spell.
    pub unknown: Option<String>,
    /// Whether neighbouring unknowns become one.
    pub fuse_unknown: bool,
    /// Whether unknown characters are spelled as bytes.
    pub byte_fallback: bool,
    /// Whether a word that is a token needs no merges.
    pub ignore_merges: bool,
}

impl Recipe {
    /// The id of a token by its text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let added = self.added.iter().find(|added| added.token.content == text).map(|added| added.id);
        added.or_else(|| self.vocab.get(text).copied())
    }

    /// Checks the parts against each other and gives, by id, the bytes of every token and whether
    /// it is special.
    ///
    /// # Errors
    /// A text naming the part that is wrong.
    pub fn check(&self) -> Result<Vec<(Vec<u8>, bool)>, String> {
        if self.vocab.is_empty() || self.vocab.len() > MAX_VOCABULARY {
            return Err(format!(
                "model.vocab: {} entries are not between 1 and {MAX_VOCABULARY}",
                self.vocab.len()
            ));
        }
        if self.added.len() > MAX_ADDED {
            return Err(format!("added_tokens: {} are more than {MAX_ADDED}", self.added.len()));
        }
        if self.merges.len() > MAX_MERGES {
            return Err(format!("model.merges: {} are more than {MAX_MERGES}", self.merges.len()));
        }
        let tokens = self.tokens()?;
        self.check_merges()?;
        for (name, id) in [("bos", self.ends.bos), ("eos", self.ends.eos)] {
            if let Some(id) = id.filter(|id| *id as usize >= tokens.len()) {
                return Err(format!("{name}: id {id} is outside the vocabulary of {} tokens", tokens.len()));
            }
        }
        if let Some(unknown) = self.flags.unknown.as_ref().filter(|u| !self.vocab.contains_key(*u)) {
            return Err(format!("model.unk_token: {unknown:?} is not in the vocabulary"));
        }
        let known = ["NFC", "NFKC", "NFD", "NFKD", "Lowercase", "Prepend", "Replace"];
        check_growth(&parts("normalizer", &self.normalizer, "normalizers", &known)?)?;
        self.pre_tokenizer_parts()?;
        Ok(tokens)
    }

    /// The steps that split a text into words, in order.
    fn pre_tokenizer_parts(&self) -> Result<Vec<&Value>, String> {
        let known = ["ByteLevel", "Digits", "Split", "Metaspace", "Punctuation"];
        parts("pre_tokenizer", &self.pre_tokenizer, "pretokenizers", &known)
    }

    /// Every merge is of two tokens into a third, and stands once.
    fn check_merges(&self) -> Result<(), String> {
        let mut pairs = Vec::with_capacity(self.merges.len());
        for (left, right) in &self.merges {
            let id = |part: &str| {
                self.vocab.get(part).copied().ok_or_else(|| {
                    format!(
                        "model.merges: {left:?} + {right:?} needs {part:?}, which is not in the vocabulary"
                    )
                })
            };
            pairs.push((id(left)?, id(right)?));
            id(&format!("{left}{right}"))?;
        }
        pairs.sort_unstable();
        let Some(twice) = pairs.array_windows().find(|[a, b]| a == b) else { return Ok(()) };
        let name = |id: u32| self.vocab.iter().find(|(_, known)| **known == id).map_or("", |(text, _)| text);
        Err(format!("model.merges: {:?} + {:?} is given twice", name(twice[0].0), name(twice[0].1)))
    }

    /// The bytes that no token of a byte-level vocabulary spells. Without an unknown token, the library leaves them out of a
    /// text without a word.
    pub(super) fn missing_bytes(&self) -> Vec<u8> {
        if self.spelling != Spelling::ByteLevel || self.flags.unknown.is_some() {
            return Vec::new();
        }
        // All characters of the alphabet are among these.
        let lacked = ('\0'..'\u{200}').filter(|c| !self.vocab.contains_key(&c.to_string()));
        lacked.filter_map(byte_of).collect()
    }

    /// The bytes of every token by id: each id below the number of tokens exactly once.
    fn tokens(&self) -> Result<Vec<(Vec<u8>, bool)>, String> {
        // Text, whether it is added, whether it is special.
        let mut by_id: Vec<Option<(&str, bool, bool)>> = vec![None; self.vocab.len() + self.added.len()];
        let vocab = self.vocab.iter().map(|(text, id)| ("model.vocab", *id, (&**text, false, false)));
        let added = self
            .added
            .iter()
            .map(|Added { id, token }| ("added_tokens", *id, (&*token.content, true, token.special)));
        let mut contents = HashSet::new();
        for (part, id, token @ (text, is_added, _)) in vocab.chain(added) {
            if is_added && text.is_empty() {
                return Err(format!("{part}: the token with id {id} is empty"));
            }
            if text.len() > MAX_TOKEN {
                return Err(format!("{part}: the token with id {id} is longer than {MAX_TOKEN} bytes"));
            }
            if is_added && !contents.insert(text) {
                return Err(format!("{part}: {text:?} is given twice"));
            }
            let place = by_id.get_mut(id as usize);
            let place =
                place.ok_or_else(|| format!("model.vocab: id {id} leaves smaller ones without a token"))?;
            if let Some((other, ..)) = place.replace(token).filter(|(other, ..)| *other != text) {
                return Err(format!("{part}: id {id} is given to both {other:?} and {text:?}"));
            }
            if is_added && self.vocab.get(text).is_some_and(|known| *known != id) {
                return Err(format!("{part}: {text:?} has id {id} here and another one in the vocabulary"));
            }
        }
        // Added tokens may stand in the vocabulary too, so there may be fewer ids than entries.
        let count = by_id.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let token = |(id, token): (usize, &Option<(&str, bool, bool)>)| {
            let (text, added, special) = token.ok_or_else(|| format!("model.vocab: no token has id {id}"))?;
            // SentencePiece's runs of spaces are added tokens too, and a space is "▁" there as well.
            let plain = added && self.spelling == Spelling::ByteLevel;
            Ok((if plain { text.as_bytes().to_vec() } else { self.spelling.bytes(text) }, special))
        };
        by_id[..count].iter().enumerate().map(token).collect()
    }

    /// The steps that split a text into words, in order, each with the regular expression it runs
    /// if it runs one of the file's.
    ///
    /// # Errors
    /// When one cannot be built.
    pub fn stages(&self) -> Result<Vec<Stage>, String> {
        let bad = |problem: String| format!("pre_tokenizer: {problem}");
        let stage = |part: &Value| {
            let pattern = match part.pointer("/pattern/Regex").and_then(Value::as_str) {
                None => None,
                Some(text) if text.len() > MAX_PATTERN => {
                    let length = text.len();
                    return Err(bad(format!("a pattern of {length} bytes is longer than {MAX_PATTERN}")));
                }
                Some(text) => Some(
                    fancy_regex::RegexBuilder::new(text)
                        .delegate_size_limit(MAX_COMPILED)
                        .build()
                        .map_err(|e| bad(format!("pattern {text:?}: {e}")))?,
                ),
            };
            let step = serde_json::from_value(part.clone()).map_err(|e| bad(e.to_string()))?;
            Ok(Stage { pattern, step })
        };
        self.pre_tokenizer_parts()?.into_iter().map(stage).collect()
    }

    /// Hands the checked parts to the library.
    ///
    /// # Errors
    /// Whatever it still finds.
    pub fn build(self) -> Result<tokenizers::Tokenizer, String> {
        let vocab: Vocab = self.vocab.into_iter().collect();
        let mut model = BPE::builder()
            .vocab_and_merges(vocab, self.merges)
            .fuse_unk(self.flags.fuse_unknown)
            .byte_fallback(self.flags.byte_fallback)
            .ignore_merges(self.flags.ignore_merges);
        if let Some(unknown) = self.flags.unknown {
            model = model.unk_token(unknown);
        }
        let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(|e| format!("model: {e}"))?);
        let normalizer: Option<NormalizerWrapper> =
            serde_json::from_value(self.normalizer).map_err(|e| format!("normalizer: {e}"))?;
        tokenizer.with_normalizer(normalizer).map_err(|e| format!("normalizer: {e}"))?;
        let pre_tokenizer: Option<PreTokenizerWrapper> =
            serde_json::from_value(self.pre_tokenizer).map_err(|e| format!("pre_tokenizer: {e}"))?;
        tokenizer.with_pre_tokenizer(pre_tokenizer);
        // In order of id, since the library numbers what its vocabulary lacks as they come.
        let mut added = self.added;
        added.sort_by_key(|a| a.id);
        // All at once: the library builds its matcher anew each time.
        let tokens: Vec<_> = added.iter().map(|a| a.token.clone()).collect();
        tokenizer.add_tokens(tokens).map_err(|e| format!("added_tokens: {e}"))?;
        for Added { id, token } in added {
            if tokenizer.token_to_id(&token.content) != Some(id) {
                return Err(format!("added_tokens: {:?} cannot have id {id}", token.content));
            }
        }
        Ok(tokenizer)
    }
}

/// One step of splitting a text into words.
#[derive(Debug)]
pub struct Stage {
    /// The file's own pattern it splits by.
    pub pattern: Option<fancy_regex::Regex>,
    /// The library's step.
    pub step: PreTokenizerWrapper,
}

impl Spelling {
    /// The bytes a vocabulary entry stands for.
    pub(super) fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                text.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| text.as_bytes().to_vec())
            }
            Self::Metaspace => {
                let hex = text.strip_prefix("<0x").and_then(|text| text.strip_suffix('>'));
                // from_str_radix would take a sign.
                let hex = hex.filter(|hex| hex.len() == 2 && !hex.starts_with('+'));
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => vec![byte],
                    None => text.replace('▁', " ").into_bytes(),
                }
            }
        }
    }
}

/// The byte a character of GPT-2's alphabet stands for: printable Latin-1 is itself, the other 68
/// bytes in order are the characters from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) if printable(byte) => Some(byte),
        _ => (0..=255u8).filter(|b| !printable(*b)).nth(usize::try_from(code.checked_sub(0x100)?).ok()?),
    }
}

/// The steps of a pipeline in order: a sequence's parts, or itself. Only known ones may be in it.
fn parts<'a>(what: &str, whole: &'a Value, list: &str, known: &[&str]) -> Result<Vec<&'a Value>, String> {
    let kind = |part: &'a Value| {
        part.get("type").and_then(Value::as_str).ok_or_else(|| format!("{what}: has no type"))
    };
    let mut found = Vec::new();
    let mut left = if whole.is_null() { Vec::new() } else { vec![whole] };
    while let Some(part) = left.pop() {
        match kind(part)? {
            "Sequence" => {
                let inner = part.get(list).and_then(Value::as_array);
                let inner = inner.ok_or_else(|| format!("{what}: a sequence has no list {list:?}"))?;
                left.extend(inner.iter().rev());
            }
            kind if known.contains(&kind) => found.push(part),
            other => {
                let known = known.join(", ");
                return Err(format!("{what}: {other:?} is not supported; supported: Sequence, {known}"));
            }
        }
        if found.len() + left.len() > MAX_PARTS {
            return Err(format!("{what}: has more than {MAX_PARTS} parts"));
        }
    }
    Ok(found)
}

/// Checks that no text becomes much longer: a few replacements could multiply it without end.
fn check_growth(normalizer: &[&Value]) -> Result<(), String> {
    let mut growth = 1usize;
    for part in normalizer {
        let text = |at: &str| part.pointer(at).and_then(Value::as_str);
        match part.get("type").and_then(Value::as_str) {
            Some("Replace") => {
                // The library takes a pattern that gives up for one that matches nothing.
                let Some(pattern) = text("/pattern/String").filter(|pattern| !pattern.is_empty()) else {
                    return Err(
                        "normalizer: only Replace with a text is supported, not with a pattern".into()
                    );
                };
                let longer = text("/content").map_or(0, str::len).div_ceil(pattern.len());
                growth = growth.saturating_mul(longer.max(1));
            }
            Some("Prepend") => growth = growth.saturating_mul(1 + text("/prepend").map_or(0, str::len) / 8),
            _ => {}
        }
    }
    if growth > MAX_GROWTH {
        return Err(format!("normalizer: it can make a text {growth} times as long, past {MAX_GROWTH}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of('Ġ'), Some(b' '));
        assert_eq!(byte_of('Ċ'), Some(b'\n'));
    }
}
