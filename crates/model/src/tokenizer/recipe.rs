//! A tokenizer's parts, checked before the library sees them.

use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// Real vocabularies stay below 300 000 entries, and merge lists below 600 000.
const MAX_ENTRIES: usize = 1 << 20;
const MAX_ADDED: usize = 1 << 16;
const MAX_PATTERN: usize = 4096;

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
    /// Checks the parts against each other and gives, by id, the bytes of every token and whether
    /// it is special.
    ///
    /// # Errors
    /// A text naming the part that is wrong.
    pub fn check(&self) -> Result<Vec<(Vec<u8>, bool)>, String> {
        if self.vocab.is_empty() || self.vocab.len() > MAX_ENTRIES {
            return Err(format!(
                "model.vocab: {} entries are not between 1 and {MAX_ENTRIES}",
                self.vocab.len()
            ));
        }
        if self.added.len() > MAX_ADDED {
            return Err(format!("added_tokens: {} are more than {MAX_ADDED}", self.added.len()));
        }
        if self.merges.len() > MAX_ENTRIES {
            return Err(format!("model.merges: {} are more than {MAX_ENTRIES}", self.merges.len()));
        }
        let tokens = self.tokens()?;
        for (left, right) in &self.merges {
            let whole = format!("{left}{right}");
            let absent =
                [left, right, &whole].into_iter().find(|part| !self.vocab.contains_key(part.as_str()));
            if let Some(absent) = absent {
                return Err(format!(
                    "model.merges: {left:?} + {right:?} needs {absent:?}, which is not in the vocabulary"
                ));
            }
        }
        for (name, id) in [("bos", self.bos), ("eos", self.eos)] {
            if let Some(id) = id.filter(|id| *id as usize >= tokens.len()) {
                return Err(format!("{name}: id {id} is outside the vocabulary of {} tokens", tokens.len()));
            }
        }
        if let Some(unknown) = self.flags.unknown.as_ref().filter(|u| !self.vocab.contains_key(*u)) {
            return Err(format!("model.unk_token: {unknown:?} is not in the vocabulary"));
        }
        allowed(
            "normalizer",
            &self.normalizer,
            &["Sequence", "NFC", "NFKC", "NFD", "NFKD", "Lowercase", "Prepend", "Replace"],
            0,
        )?;
        allowed(
            "pre_tokenizer",
            &self.pre_tokenizer,
            &["Sequence", "ByteLevel", "Digits", "Split", "Metaspace"],
            0,
        )?;
        Ok(tokens)
    }

    /// The bytes of every token by id: each id below the number of tokens exactly once.
    fn tokens(&self) -> Result<Vec<(Vec<u8>, bool)>, String> {
        let mut by_id: HashMap<u32, (&str, bool, bool)> = HashMap::new();
        for (text, id) in &self.vocab {
            if let Some((other, ..)) = by_id.insert(*id, (text, false, false)) {
                return Err(format!("model.vocab: id {id} is given to both {other:?} and {text:?}"));
            }
        }
        let mut contents = HashSet::new();
        for Added { id, token } in &self.added {
            let text = token.content.as_str();
            if text.is_empty() {
                return Err(format!("added_tokens: the token with id {id} is empty"));
            }
            if !contents.insert(text) {
                return Err(format!("added_tokens: {text:?} is given twice"));
            }
            if let Some((other, ..)) =
                by_id.insert(*id, (text, true, token.special)).filter(|(other, ..)| *other != text)
            {
                return Err(format!("added_tokens: id {id} is given to both {other:?} and {text:?}"));
            }
            if self.vocab.get(text).is_some_and(|known| known != id) {
                return Err(format!(
                    "added_tokens: {text:?} has id {id} here and another one in the vocabulary"
                ));
            }
        }
        let count = u32::try_from(by_id.len()).unwrap_or(u32::MAX);
        (0..count)
            .map(|id| {
                let (text, added, special) =
                    by_id.get(&id).ok_or_else(|| format!("model.vocab: no token has id {id}"))?;
                let bytes = if *added { text.as_bytes().to_vec() } else { self.spelling.bytes(text) };
                Ok((bytes, *special))
            })
            .collect()
    }

    /// The regular expressions that splitting will run.
    ///
    /// # Errors
    /// When one does not compile.
    pub fn patterns(&self) -> Result<Vec<fancy_regex::Regex>, String> {
        let mut found = Vec::new();
        collect_patterns(&self.normalizer, &mut found);
        collect_patterns(&self.pre_tokenizer, &mut found);
        found
            .into_iter()
            .map(|text| {
                if text.len() > MAX_PATTERN {
                    return Err(format!(
                        "pre_tokenizer: a pattern of {} bytes is longer than {MAX_PATTERN}",
                        text.len()
                    ));
                }
                fancy_regex::Regex::new(text).map_err(|e| format!("pre_tokenizer: pattern {text:?}: {e}"))
            })
            .collect()
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
        for Added { id, token } in added {
            let content = token.content.clone();
            tokenizer.add_tokens([token]).map_err(|e| format!("added_tokens: {e}"))?;
            if tokenizer.token_to_id(&content) != Some(id) {
                return Err(format!("added_tokens: {content:?} cannot have id {id}"));
            }
        }
        Ok(tokenizer)
    }
}

impl Spelling {
    /// The bytes a vocabulary entry stands for.
    fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                text.chars().map(byte_of).collect::<Option<_>>().unwrap_or_else(|| text.as_bytes().to_vec())
            }
            Self::Metaspace => match text
                .strip_prefix("<0x")
                .and_then(|t| t.strip_suffix('>'))
                .map(|hex| u8::from_str_radix(hex, 16))
            {
                Some(Ok(byte)) => vec![byte],
                _ => text.replace('▁', " ").into_bytes(),
            },
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

/// Checks that a pipeline is made of known parts, not nested deeper than any real one.
fn allowed(what: &str, part: &Value, known: &[&str], depth: usize) -> Result<(), String> {
    if part.is_null() {
        return Ok(());
    }
    let kind = part.get("type").and_then(Value::as_str).ok_or_else(|| format!("{what}: has no type"))?;
    if !known.contains(&kind) {
        return Err(format!("{what}: {kind:?} is not supported; supported: {}", known.join(", ")));
    }
    let inner = ["normalizers", "pretokenizers"].iter().find_map(|key| part.get(*key)?.as_array());
    for part in inner.into_iter().flatten() {
        if depth == 4 {
            return Err(format!("{what}: is nested deeper than any real one"));
        }
        allowed(what, part, known, depth + 1)?;
    }
    Ok(())
}

fn collect_patterns<'a>(part: &'a Value, found: &mut Vec<&'a str>) {
    match part {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(pattern) if key == "Regex" => found.push(pattern),
                    other => collect_patterns(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_patterns(item, found)),
        _ => {}
    }
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
