//! The keys of a GGUF file that describe its tokenizer, as far as both kinds of tokenizer have them.

use crate::file::gguf::Value;
use crate::tokenizer::from_json::split_merge;
use crate::tokenizer::pieces::{self, PieceKind};
use crate::tokenizer::recipe::{Ends, MAX_VOCABULARY};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Keys that say nothing about how a text is split: templates, and the ids of tokens for padding, for the ends of texts, and
/// for filling gaps in code.
const INERT: [&str; 21] = [
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
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.ggml.token_type_count",
    "tokenizer.huggingface.json",
];

/// How the keys of templates other than the default one begin; a name follows.
const NAMED_TEMPLATE: &str = "tokenizer.chat_template.";

/// The keys below `tokenizer.`; each is taken once, and what nobody took is an error.
pub(super) struct Keys<'a> {
    path: &'a Path,
    left: HashMap<&'a str, &'a Value>,
    pub(super) architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(path: &'a Path, metadata: &'a [(String, Value)]) -> Self {
        let left = metadata.iter().filter_map(|(key, value)| Some((key.strip_prefix("tokenizer.")?, value)));
        let architecture = metadata.iter().find_map(|(key, value)| match value {
            Value::Text(name) if key == "general.architecture" => Some(name.as_str()),
            _ => None,
        });
        Self { path, left: left.collect(), architecture: architecture.unwrap_or_default() }
    }

    pub(super) fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(self.path, format!("tokenizer.{key}"), problem)
    }

    pub(super) fn unsupported(&self, what: &'static str, given: &str, known: &str) -> Error {
        Error::unsupported(self.path, what, given, known)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.left.remove(key)
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<&'a str>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.bad(key, format!("{other} is not a text"))),
        }
    }

    pub(super) fn needs_text(&mut self, key: &str) -> Result<&'a str> {
        let problem = "is missing; without it the split into words would be a guess";
        self.text(key)?.ok_or_else(|| self.bad(key, problem))
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.bad(key, format!("{other} is not true or false"))),
        }
    }

    pub(super) fn id(&mut self, key: &str) -> Result<Option<u32>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Unsigned(id, 4)) => Ok(u32::try_from(*id).ok()),
            Some(other) => Err(self.bad(key, format!("{other} is not a 32-bit id"))),
        }
    }

    /// `tokenizer.ggml.merges` as pairs.
    pub(super) fn merges(&mut self) -> Result<Option<Vec<(String, String)>>> {
        const KEY: &str = "ggml.merges";
        let Some(value) = self.take(KEY) else { return Ok(None) };
        let Value::Texts(merges) = value else { return Err(self.bad(KEY, "is not a list of texts")) };
        let pair = |text: &String| {
            split_merge(text).ok_or_else(|| self.bad(KEY, format!("{text:?} is not two tokens")))
        };
        merges.iter().map(pair).collect::<Result<_>>().map(Some)
    }

    /// Every token with its kind, by id.
    pub(super) fn tokens(&mut self) -> Result<Vec<(&'a str, PieceKind)>> {
        let Some(Value::Texts(tokens)) = self.take("ggml.tokens") else {
            return Err(self.bad("ggml.tokens", "is not a list of texts"));
        };
        if tokens.len() > MAX_VOCABULARY {
            let problem = format!("{} are more than {MAX_VOCABULARY}", tokens.len());
            return Err(self.bad("ggml.tokens", problem));
        }
        const KINDS: &str = "ggml.token_type";
        let kinds = match self.take(KINDS) {
            Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => kinds,
            Some(_) => return Err(self.bad(KINDS, "is not one number a token")),
            None => return Err(self.bad(KINDS, "is missing; without it special tokens are unknown")),
        };
        let known = tokens.iter().zip(kinds).map(|(token, kind)| {
            let kind = PieceKind::from_number(*kind).ok_or_else(|| {
                self.bad(KINDS, format!("{kind} is no kind of token; they go from 1 to {}", PieceKind::COUNT))
            })?;
            Ok((token.as_str(), kind))
        });
        known.collect()
    }

    /// Token to id, where no token may stand twice.
    pub(super) fn vocabulary<'t>(
        &self,
        tokens: impl Iterator<Item = &'t str>,
    ) -> Result<HashMap<String, u32>> {
        pieces::vocabulary(tokens).map_err(|problem| self.bad("ggml.tokens", problem))
    }

    /// The start-of-text token, the end-of-text token and whether the first is added: the file's
    /// word, or llama.cpp's for this kind of tokenizer.
    pub(super) fn ends(&mut self, default: Ends) -> Result<Ends> {
        let bos = self.id("ggml.bos_token_id")?.or(default.bos);
        let eos = self.id("ggml.eos_token_id")?.or(default.eos);
        let adds_bos = match self.flag("ggml.add_bos_token")? {
            Some(true) if bos.is_none() => {
                return Err(self.bad("ggml.add_bos_token", "is true, but there is no bos_token_id"));
            }
            Some(adds_bos) => adds_bos,
            None => default.adds_bos && bos.is_some(),
        };
        Ok(Ends { bos, eos, adds_bos })
    }

    /// Refuses a key that may matter and that nobody took.
    pub(super) fn refuse_others(&self) -> Result<()> {
        let full = self.left.keys().map(|key| format!("tokenizer.{key}"));
        let is_inert = |key: &str| INERT.contains(&key) || key.starts_with(NAMED_TEMPLATE);
        let Some(key) = full.into_iter().find(|key| !is_inert(key)) else { return Ok(()) };
        let problem = "this version does not know this key, and it may change how texts are split";
        Err(Error::file(self.path, key, problem))
    }
}
