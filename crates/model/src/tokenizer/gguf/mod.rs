//! A tokenizer from the metadata of a GGUF file: byte-level BPE with its merges, or SentencePiece with its scores.

mod byte_level;
mod sentencepiece;

use super::from_json::split_merge;
use super::recipe::Flags;
use super::{Added, Recipe, Spelling, Tokenizer};
use crate::file::gguf::Value;
use crate::{Error, Result};
use byte_level::{STYLES, names};
use std::collections::HashMap;
use std::path::Path;

/// Keys that say nothing about how a text is split.
const INERT: [&str; 11] = [
    "tokenizer.chat_template",
    "tokenizer.chat_templates",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eog_token_ids",
    "tokenizer.ggml.add_sep_token",
    "tokenizer.huggingface.json",
];

/// Kinds of token in `tokenizer.ggml.token_type`, of which there are six, from 1 on.
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const LAST_KIND: i64 = 6;

impl Tokenizer {
    /// Builds the tokenizer a GGUF header describes; `None` where it describes none.
    ///
    /// # Errors
    /// When the description is broken or of a kind that is not supported.
    pub fn from_gguf(path: &Path, metadata: &[(String, Value)]) -> Result<Option<Self>> {
        let mut header = Header::new(path, metadata);
        if !header.has("ggml.tokens") && !header.has("ggml.model") {
            return Ok(None);
        }
        let recipe = match header.text("ggml.model")? {
            "gpt2" => header.byte_level()?,
            "llama" => header.sentencepiece()?,
            other => {
                let supported = "gpt2 (byte-level BPE), llama (SentencePiece)";
                return Err(Error::unsupported(path, "tokenizer model", other, supported));
            }
        };
        header.finish()?;
        Self::new(recipe).map(Some).map_err(|problem| header.bad("ggml", problem))
    }
}

/// The keys of a header, each taken once.
struct Header<'a> {
    path: &'a Path,
    keys: HashMap<&'a str, &'a Value>,
}

impl<'a> Header<'a> {
    fn new(path: &'a Path, metadata: &'a [(String, Value)]) -> Self {
        let of_tokenizer = metadata.iter().filter(|(key, _)| key.starts_with("tokenizer."));
        Self { path, keys: of_tokenizer.map(|(key, value)| (key.as_str(), value)).collect() }
    }

    fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(self.path, format!("tokenizer.{key}"), problem)
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains_key(format!("tokenizer.{key}").as_str())
    }

    fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.keys.remove(format!("tokenizer.{key}").as_str())
    }

    fn text(&mut self, key: &str) -> Result<&'a str> {
        match self.take(key) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(self.bad(key, format!("{other:?} is not a text"))),
        }
    }

    fn texts(&mut self, key: &str) -> Result<&'a [String]> {
        match self.take(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => Err(self.bad(key, "is not a list of texts")),
        }
    }

    fn id(&mut self, key: &str) -> Result<Option<u32>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Unsigned(id, 4)) => Ok(u32::try_from(*id).ok()),
            Some(other) => Err(self.bad(key, format!("{other:?} is not a 32-bit id"))),
        }
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.bad(key, format!("{other:?} is not true or false"))),
        }
    }

    /// Refuses what would put something into a text that nothing here does.
    fn must_be_off(&mut self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if self.flag(key)? == Some(true) {
                return Err(self.bad(key, "true is not supported for this kind of tokenizer"));
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        match self.keys.keys().find(|key| !INERT.contains(key)) {
            Some(key) => {
                let problem = "this version does not know this key, and it may change how texts are split";
                Err(Error::file(self.path, *key, problem))
            }
            None => Ok(()),
        }
    }

    fn byte_level(&mut self) -> Result<Recipe> {
        let Some(Value::Text(pre)) = self.take("ggml.pre") else {
            let problem = "is not a text; without it the split into words would be a guess";
            return Err(self.bad("ggml.pre", problem));
        };
        let style = STYLES.iter().find(|style| style.names.contains(&pre.as_str())).ok_or_else(|| {
            Error::unsupported(self.path, "pre-tokenizer (tokenizer.ggml.pre)", pre, names())
        })?;
        let tokens = Tokens::new(self)?;
        let merges = self.texts("ggml.merges")?.iter().map(|text| {
            let problem = || self.bad("ggml.merges", format!("{text:?} is not two tokens"));
            split_merge(text).ok_or_else(problem)
        });
        let merges = merges.collect::<Result<_>>()?;
        let (bos, eos) = (self.id("ggml.bos_token_id")?, self.id("ggml.eos_token_id")?);
        let adds_bos = self.flag("ggml.add_bos_token")?.unwrap_or(style.adds_bos);
        self.must_be_off(&["ggml.add_eos_token", "ggml.add_space_prefix", "ggml.remove_extra_whitespaces"])?;
        // They have no part in byte-level merging.
        self.take("ggml.scores");
        self.take("ggml.unknown_token_id");
        Ok(Recipe {
            spelling: Spelling::ByteLevel,
            vocab: tokens.vocab,
            merges,
            added: tokens.added,
            normalizer: (style.normalizer)(),
            pre_tokenizer: (style.pre_tokenizer)(),
            flags: Flags { ignore_merges: style.ignore_merges, ..Flags::default() },
            bos,
            eos,
            adds_bos,
        })
    }

    fn sentencepiece(&mut self) -> Result<Recipe> {
        match self.take("ggml.pre") {
            None => {}
            Some(Value::Text(pre)) if pre == "default" => {}
            Some(other) => {
                let given = format!("{other:?}");
                let what = "pre-tokenizer (tokenizer.ggml.pre) of a SentencePiece model";
                return Err(Error::unsupported(self.path, what, &given, "default"));
            }
        }
        let tokens = Tokens::new(self)?;
        let scores = match self.take("ggml.scores") {
            Some(Value::Floats(scores)) if scores.len() == tokens.texts.len() => scores.as_slice(),
            Some(_) => return Err(self.bad("ggml.scores", "is not one number a token")),
            None => return Err(self.bad("ggml.scores", "is missing; without it nothing says what is merged")),
        };
        if let Some(score) = scores.iter().find(|score| !score.is_finite()) {
            return Err(self.bad("ggml.scores", format!("{score} is no score")));
        }
        let (bos, eos) = (self.id("ggml.bos_token_id")?, self.id("ggml.eos_token_id")?);
        let unknown = match self.id("ggml.unknown_token_id")? {
            None => None,
            Some(id) => Some(tokens.texts.get(id as usize).cloned().ok_or_else(|| {
                let count = tokens.texts.len();
                self.bad("ggml.unknown_token_id", format!("{id} is outside the vocabulary of {count} tokens"))
            })?),
        };
        // Files that do not say so have a token before, and a space: the format's own defaults.
        let adds_bos = self.flag("ggml.add_bos_token")?.unwrap_or(true) && bos.is_some();
        let prefix = self.flag("ggml.add_space_prefix")?.unwrap_or(true);
        self.must_be_off(&["ggml.add_eos_token", "ggml.remove_extra_whitespaces"])?;
        // Where merges are listed too, they follow from the scores.
        self.take("ggml.merges");
        let byte_fallback = (0..=255u8).all(|byte| tokens.vocab.contains_key(&format!("<0x{byte:02X}>")));
        if !byte_fallback && unknown.is_none() {
            let problem = "have neither all 256 bytes nor an unknown token: some texts would lose characters";
            return Err(self.bad("ggml.tokens", problem));
        }
        Ok(Recipe {
            spelling: Spelling::Metaspace,
            merges: sentencepiece::merges(tokens.texts, &tokens.vocab, scores),
            vocab: tokens.vocab,
            added: tokens.added,
            normalizer: sentencepiece::normalizer(prefix),
            pre_tokenizer: serde_json::Value::Null,
            flags: Flags { unknown, fuse_unknown: true, byte_fallback, ignore_merges: false },
            bos,
            eos,
            adds_bos,
        })
    }
}

/// The tokens of a header.
struct Tokens<'a> {
    texts: &'a [String],
    vocab: HashMap<String, u32>,
    /// Those that are found in a text before it is split.
    added: Vec<Added>,
}

impl<'a> Tokens<'a> {
    fn new(header: &mut Header<'a>) -> Result<Self> {
        let texts = header.texts("ggml.tokens")?;
        let kinds = match header.take("ggml.token_type") {
            Some(Value::Integers(kinds)) if kinds.len() == texts.len() => kinds.as_slice(),
            Some(_) => return Err(header.bad("ggml.token_type", "is not one number a token")),
            None => {
                let problem = "is missing; without it special tokens are unknown";
                return Err(header.bad("ggml.token_type", problem));
            }
        };
        if let Some(kind) = kinds.iter().find(|kind| !(1..=LAST_KIND).contains(*kind)) {
            let problem = format!("{kind} is no kind of token; they go from 1 to {LAST_KIND}");
            return Err(header.bad("ggml.token_type", problem));
        }
        let mut vocab = HashMap::new();
        for (id, token) in (0u32..).zip(texts) {
            if let Some(first) = vocab.insert(token.clone(), id) {
                let problem = format!("ids {first} and {id} are both {token:?}");
                return Err(header.bad("ggml.tokens", problem));
            }
        }
        let added = (0u32..)
            .zip(texts.iter().zip(kinds))
            .filter(|(_, (_, kind))| matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED))
            .map(|(id, (text, kind))| {
                let special = *kind != USER_DEFINED;
                Added { id, token: tokenizers::AddedToken::from(text.as_str(), special).normalized(!special) }
            })
            .collect();
        Ok(Self { texts, vocab, added })
    }
}
