//! A byte-level BPE tokenizer from the metadata of a GGUF file.

use super::from_json::split_merge;
use super::recipe::Flags;
use super::{Added, Recipe, Spelling, Tokenizer};
use crate::file::gguf::Value;
use crate::{Error, Result};
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;

/// Makes a pre-tokenizer as tokenizer.json writes it.
type Pipeline = fn() -> serde_json::Value;

/// How the texts of each `tokenizer.ggml.pre` are split into words.
const PRE_TOKENIZERS: [(&str, Pipeline); 2] = [
    ("gpt-2", byte_level),
    ("smollm", || {
        let digits = json!({"type": "Digits", "individual_digits": true});
        json!({"type": "Sequence", "pretokenizers": [digits, byte_level()]})
    }),
];

fn byte_level() -> serde_json::Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

/// Keys that say nothing about how a text is split.
const INERT: [&str; 12] = [
    "tokenizer.chat_template",
    "tokenizer.chat_templates",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.eog_token_ids",
    "tokenizer.huggingface.json",
];

/// Kinds of token in `tokenizer.ggml.token_type`, of which there are six, from 1 on.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const LAST_KIND: i64 = 6;

impl Tokenizer {
    /// Builds the tokenizer a GGUF header describes; `None` where it describes none.
    ///
    /// # Errors
    /// When the description is broken or of a kind that is not supported.
    pub fn from_gguf(path: &Path, metadata: &[(String, Value)]) -> Result<Option<Self>> {
        let mut keys: HashMap<&str, &Value> = metadata
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."))
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        if !keys.contains_key("tokenizer.ggml.tokens") && !keys.contains_key("tokenizer.ggml.model") {
            return Ok(None);
        }
        let bad = |key: &str, problem: String| Error::file(path, format!("tokenizer.{key}"), problem);
        let unsupported =
            |what, given: &str, supported: &str| Error::unsupported(path, what, given, supported);
        let mut take = |key: &str| keys.remove(format!("tokenizer.{key}").as_str());

        match take("ggml.model") {
            Some(Value::Text(model)) if model == "gpt2" => {}
            Some(Value::Text(model)) => {
                return Err(unsupported("tokenizer model", model, "gpt2 (byte-level BPE)"));
            }
            other => return Err(bad("ggml.model", format!("{other:?} is not a text"))),
        }
        let pre_tokenizer = match take("ggml.pre") {
            Some(Value::Text(pre)) => {
                PRE_TOKENIZERS.iter().find(|(name, _)| name == pre).ok_or_else(|| {
                    let known = PRE_TOKENIZERS.map(|(name, _)| name).join(", ");
                    unsupported("pre-tokenizer (tokenizer.ggml.pre)", pre, &known)
                })?
            }
            other => {
                return Err(bad(
                    "ggml.pre",
                    format!("{other:?} is not a text; without it the split into words would be a guess"),
                ));
            }
        };
        let Some(Value::Texts(tokens)) = take("ggml.tokens") else {
            return Err(bad("ggml.tokens", "is not a list of texts".into()));
        };
        let kinds = match take("ggml.token_type") {
            Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => kinds.as_slice(),
            Some(_) => return Err(bad("ggml.token_type", "is not one number a token".into())),
            None => {
                return Err(bad(
                    "ggml.token_type",
                    "is missing; without it special tokens are unknown".into(),
                ));
            }
        };
        if let Some(kind) = kinds.iter().find(|kind| !(1..=LAST_KIND).contains(*kind)) {
            let problem = format!("{kind} is no kind of token; they go from 1 to {LAST_KIND}");
            return Err(bad("ggml.token_type", problem));
        }
        let Some(Value::Texts(merges)) = take("ggml.merges") else {
            return Err(bad("ggml.merges", "is not a list of texts".into()));
        };
        let mut id = |key: &str| match take(key) {
            None => Ok(None),
            Some(Value::Unsigned(id, 4)) => Ok(u32::try_from(*id).ok()),
            Some(other) => Err(bad(key, format!("{other:?} is not a 32-bit id"))),
        };
        let (bos, eos) = (id("ggml.bos_token_id")?, id("ggml.eos_token_id")?);
        let mut flag = |key: &str| match take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(bad(key, format!("{other:?} is not true or false"))),
        };
        let adds_bos = flag("ggml.add_bos_token")?.unwrap_or(false);
        for key in ["ggml.add_eos_token", "ggml.add_space_prefix", "ggml.remove_extra_whitespaces"] {
            if flag(key)? == Some(true) {
                return Err(bad(key, "true is not supported for a byte-level tokenizer".into()));
            }
        }
        if let Some(key) = keys.keys().find(|key| !INERT.contains(key)) {
            return Err(Error::file(
                path,
                *key,
                "this version does not know this key, and it may change how texts are split",
            ));
        }

        let mut vocab = HashMap::new();
        for (id, token) in (0u32..).zip(tokens) {
            if let Some(first) = vocab.insert(token.clone(), id) {
                return Err(bad("ggml.tokens", format!("ids {first} and {id} are both {token:?}")));
            }
        }
        let merges = merges
            .iter()
            .map(|text| {
                split_merge(text).ok_or_else(|| bad("ggml.merges", format!("{text:?} is not two tokens")))
            })
            .collect::<Result<_>>()?;
        let added = (0u32..)
            .zip(tokens.iter().zip(kinds))
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(id, (text, kind))| {
                let special = *kind == CONTROL;
                Added { id, token: tokenizers::AddedToken::from(text.as_str(), special).normalized(!special) }
            })
            .collect();
        let recipe = Recipe {
            spelling: Spelling::ByteLevel,
            vocab,
            merges,
            added,
            normalizer: serde_json::Value::Null,
            pre_tokenizer: (pre_tokenizer.1)(),
            flags: Flags::default(),
            bos,
            eos,
            adds_bos,
        };
        Tokenizer::new(recipe).map(Some).map_err(|problem| bad("ggml", problem))
    }
}
