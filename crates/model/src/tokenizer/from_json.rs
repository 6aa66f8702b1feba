//! A tokenizer from Hugging Face's tokenizer.json.

use super::config;
use super::encode::Tokenizer;
use super::recipe::{Added, Ends, Flags, MAX_ADDED, MAX_MERGES, MAX_VOCABULARY, Recipe, Spelling};
use crate::file::{DataFile, json};
use crate::{Error, Result};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::path::Path;

/// The largest in use (Gemma's) has 33 MB.
const MAX_FILE: u64 = 128 << 20;

impl Tokenizer {
    /// Reads a tokenizer.json, and the tokenizer_config.json beside it if there is one.
    ///
    /// # Errors
    /// When a file is broken, or describes a kind of tokenizer that is not supported.
    pub fn from_json(path: &Path) -> Result<Self> {
        let text = DataFile::open(path)?.read_all(MAX_FILE)?;
        let file: File<'_> =
            serde_json::from_slice(&text).map_err(|e| Error::file(path, "document", e.to_string()))?;
        let recipe = file.recipe();
        drop(text);
        let bad = |problem: String| Error::file(path, "tokenizer", problem);
        let mut recipe = recipe.map_err(bad)?;
        config::complete(path, &mut recipe)?;
        Tokenizer::new(recipe).map_err(bad)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(rename = "truncation")]
    _truncation: Option<IgnoredAny>,
    #[serde(rename = "padding")]
    _padding: Option<IgnoredAny>,
    #[serde(borrow)]
    added_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// What kind of model it is; the others have fields of their own.
#[derive(Deserialize)]
struct TokenizerKind {
    r#type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Vocabulary,
    #[serde(borrow)]
    merges: Option<&'a RawValue>,
}

/// The entries of a list, which are counted before any is kept.
fn list<T: DeserializeOwned>(what: &str, part: Option<&RawValue>, most: usize) -> Result<Vec<T>, String> {
    let Some(part) = part else { return Ok(Vec::new()) };
    let bad = |e: serde_json::Error| format!("{what}: {e}");
    let text = || serde_json::Deserializer::from_str(part.get());
    // Ignored entries take no memory.
    let count = text().deserialize_seq(Entries(Vec::<IgnoredAny>::new())).map_err(bad)?.len();
    if count > most {
        return Err(format!("{what}: {count} entries are more than {most}"));
    }
    text().deserialize_seq(Entries(Vec::with_capacity(count))).map_err(bad)
}

/// Collects the entries of a list.
struct Entries<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Vec<T>, A::Error> {
        while let Some(item) = seq.next_element()? {
            self.0.push(item);
        }
        Ok(self.0)
    }
}

/// A vocabulary in which no token stands twice.
pub(super) struct Vocabulary(pub(super) HashMap<String, u32>);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from token to id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut entries = HashMap::new();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    if let Some(_earlier) = entries.insert(token.clone(), id) {
                        return Err(A::Error::custom(format!("token {token:?} is given twice")));
                    }
                    if entries.len() > MAX_VOCABULARY {
                        let problem = format!("a vocabulary of more than {MAX_VOCABULARY} tokens");
                        return Err(A::Error::custom(problem));
                    }
                }
                Ok(Vocabulary(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// "a b" in older files, ["a", "b"] in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Spaced(String),
    Pair(String, String),
}

impl File<'_> {
    fn recipe(self) -> Result<Recipe, String> {
        let model = self.model.get();
        let kind: TokenizerKind = serde_json::from_str(model).map_err(|e| format!("model.type: {e}"))?;
        if let Some(kind) = kind.r#type.filter(|kind| kind != "BPE") {
            return Err(format!("model.type: {kind:?} is not supported; supported: BPE"));
        }
        let model: Model<'_> = serde_json::from_str(model).map_err(|e| format!("model: {e}"))?;
        let parsed = |what: &str, part: Option<&RawValue>| {
            let part = part.map(|part| json::parse(part.get().as_bytes())).transpose();
            part.map(Option::unwrap_or_default).map_err(|e| format!("{what}: {e}"))
        };
        let normalizer = parsed("normalizer", self.normalizer)?;
        let pre_tokenizer = parsed("pre_tokenizer", self.pre_tokenizer)?;
        let post_processor = parsed("post_processor", self.post_processor)?;
        let decoder = parsed("decoder", self.decoder)?;
        let affix = [model.continuing_subword_prefix, model.end_of_word_suffix];
        if affix.into_iter().flatten().any(|text| !text.is_empty()) {
            return Err("model: subword prefixes and suffixes are not supported".into());
        }
        if model.dropout.is_some_and(|p| p != 0.0) {
            return Err("model.dropout: a tokenizer that splits by chance is not supported".into());
        }
        let merges = list("model.merges", model.merges, MAX_MERGES)?.into_iter().map(|merge| match merge {
            Merge::Pair(left, right) => Ok((left, right)),
            Merge::Spaced(text) => {
                split_merge(&text).ok_or_else(|| format!("model.merges: {text:?} is not two tokens"))
            }
        });
        let byte_level = mentions(&pre_tokenizer, "ByteLevel") || mentions(&decoder, "ByteLevel");
        let added: Vec<AddedToken> = list("added_tokens", self.added_tokens, MAX_ADDED)?;
        let mut recipe = Recipe {
            spelling: if byte_level { Spelling::ByteLevel } else { Spelling::Metaspace },
            vocab: model.vocab.0,
            merges: Vec::new(),
            added: added.into_iter().map(Added::from).collect(),
            normalizer,
            pre_tokenizer,
            flags: Flags {
                unknown: model.unk_token,
                fuse_unknown: model.fuse_unk,
                byte_fallback: model.byte_fallback,
                ignore_merges: model.ignore_merges,
            },
            ends: Ends::default(),
        };
        if let Some((text, ids)) = leading_token(&post_processor)? {
            let id = recipe.id(text).ok_or_else(|| format!("post_processor: {text:?} is not a token"))?;
            // The template has ids of its own, and they are what transformers would add.
            if ids.is_some_and(|ids| *ids != serde_json::json!([id])) {
                return Err(format!("post_processor: {text:?} has id {id}, but another one here"));
            }
            recipe.ends = Ends { bos: Some(id), eos: None, adds_bos: true };
        }
        recipe.merges = merges.collect::<Result<_, _>>()?;
        Ok(recipe)
    }
}

impl From<AddedToken> for Added {
    fn from(token: AddedToken) -> Self {
        let AddedToken { id, content, single_word, lstrip, rstrip, normalized, special } = token;
        let token = tokenizers::AddedToken { content, single_word, lstrip, rstrip, normalized, special };
        Self { id, token }
    }
}

/// "a b" as a pair: exactly one space, with something on both sides.
pub(super) fn split_merge(text: &str) -> Option<(String, String)> {
    let (left, right) = text.split_once(' ')?;
    let whole = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    whole.then(|| (left.into(), right.into()))
}

/// Whether a pipeline has a part of that type.
fn mentions(part: &Value, kind: &str) -> bool {
    match part {
        Value::Object(map) => {
            map.get("type").is_some_and(|t| t == kind) || map.values().any(|v| mentions(v, kind))
        }
        Value::Array(items) => items.iter().any(|item| mentions(item, kind)),
        _ => false,
    }
}

/// The special token a post-processor puts before a text, which is how tokenizer.json says BOS, and
/// the list of ids it gives for it.
fn leading_token(part: &Value) -> Result<Option<(&str, Option<&Value>)>, String> {
    let list = |key: &str| part.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    match part.get("type").and_then(Value::as_str) {
        None | Some("ByteLevel") => Ok(None),
        Some("Sequence") => list("processors")
            .iter()
            .take(16)
            .try_fold(None, |found, part| Ok(found.or(leading_token(part)?))),
        Some("TemplateProcessing") => match list("single") {
            [text] if text.get("Sequence").is_some() => Ok(None),
            [first, text] if text.get("Sequence").is_some() => {
                let token = first.pointer("/SpecialToken/id").and_then(Value::as_str);
                let ids = |token| part.get("special_tokens")?.get(token)?.get("ids");
                Ok(token.map(|token| (token, ids(token))))
            }
            _ => Err("post_processor: only a token before the text is supported".into()),
        },
        Some(other) => Err(format!(
            "post_processor: {other:?} is not supported; supported: ByteLevel, TemplateProcessing"
        )),
    }
}
