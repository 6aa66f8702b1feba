//! The small files that belong to a tokenizer.model or to vocab.json and merges.txt: tokenizer_config.json,
//! special_tokens_map.json and added_tokens.json.
//!
//! Such a vocabulary leaves it to them, and to a class of transformers, which tokens are special and how a text begins.
//! The rules are those of transformers 4.57, when it makes a fast tokenizer of a slow one:
//! - `added_tokens_decoder` in tokenizer_config.json lists added tokens by id, and then the two other files say nothing.
//! - Otherwise special_tokens_map.json overrules the tokens that tokenizer_config.json names, and added_tokens.json lists
//!   added tokens with their ids.
//! - A token that is named (`bos_token`, `additional_special_tokens`, …) is special, and added where it is not there yet,
//!   under the next free id.
//! - What SentencePiece itself knows as a special piece is looked for in the text as it is given, whatever a file says of
//!   `normalized`: transformers 4.57 and 5 both do so, in different ways.

use super::config::text_at;
use super::recipe::{Added, MAX_ADDED, Recipe};
use crate::file::{DataFile, json};
use crate::paths::is_there;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::AddedToken;

/// Those in use stay below 2 MB.
const MAX_FILE: u64 = 8 << 20;

/// The names of the files, in the order in which they belong to a model.
pub(super) const FILES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// The keys that name one token, in the order in which transformers adds tokens that are new.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The keys that name several, as a list or as an object of named ones.
const MORE: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// What a class of transformers takes where the files are silent.
#[derive(Debug)]
pub(super) struct Class {
    /// Its name, without `Fast`.
    pub(super) name: &'static str,
    /// The tokens of `ROLES` it has.
    roles: &'static [(&'static str, &'static str)],
    /// Whether a text begins with the start-of-text token. `None`: releases of transformers disagree on whether the class
    /// heeds `add_bos_token`.
    adds_bos: Option<bool>,
    /// Whether a token that is named by its text alone replaces an added token of that text, flags and all; and if so,
    /// whether it is looked for after a text is normalized.
    replaces: Option<bool>,
}
/// The roles in which it does.
const REPLACING: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

pub(super) static LLAMA: Class = Class {
    name: "LlamaTokenizer",
    roles: &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
    adds_bos: Some(true),
    replaces: Some(false),
};
pub(super) static GEMMA: Class = Class {
    name: "GemmaTokenizer",
    roles: &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    adds_bos: Some(true),
    replaces: Some(false),
};
const END: &str = "<|endoftext|>";
const GPT2_ROLES: &[(&str, &str)] = &[("bos_token", END), ("eos_token", END), ("unk_token", END)];
pub(super) static GPT2: Class =
    Class { name: "GPT2Tokenizer", roles: GPT2_ROLES, adds_bos: Some(false), replaces: Some(true) };
pub(super) static QWEN2: Class = Class {
    name: "Qwen2Tokenizer",
    roles: &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
    adds_bos: None,
    replaces: Some(false),
};
pub(super) static NEOX: Class =
    Class { name: "GPTNeoXTokenizer", roles: GPT2_ROLES, adds_bos: Some(false), replaces: None };
/// Where no file names a class: GPT-2's tokens, as far as they are there.
pub(super) static NO_CLASS: Class =
    Class { name: "no class", roles: GPT2_ROLES, adds_bos: Some(false), replaces: None };

impl Class {
    /// Whether a file's `tokenizer_class` means this class.
    pub(super) fn is(&self, name: &str) -> bool {
        name.strip_suffix("Fast").unwrap_or(name) == self.name
    }
}

/// A JSON object and the file it is from.
#[derive(Debug, Default)]
struct Object {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Object {
    /// The object in a file of that folder; empty where there is no such file.
    fn read(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        if !is_there(&path) {
            return Ok(Self { path, map: Map::new() });
        }
        let bytes = DataFile::open(&path)?.read_all(MAX_FILE)?;
        match json::parse(&bytes).map_err(|e| Error::file(&path, "document", e.to_string()))? {
            Value::Object(map) => Ok(Self { path, map }),
            _ => Err(Error::file(&path, "document", "is not an object")),
        }
    }

    fn bad(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path, key, problem)
    }

    /// The value of a key, unless it is null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        text_at(&self.map, key).map(Option::flatten).map_err(|problem| self.bad(key, problem))
    }
}

/// The files beside a vocabulary, and the model's config.json.
#[derive(Debug)]
pub(super) struct TokenScore {
    config: Object,
    special: Object,
    added: Object,
    model: Object,
}

impl TokenScore {
    /// Reads the files in the folder of a vocabulary; each may be missing.
    pub(super) fn read(vocabulary: &Path) -> Result<Self> {
        let folder = vocabulary.parent().unwrap_or(Path::new(""));
        let [config, special, added] = FILES.map(|name| Object::read(folder, name));
        Ok(Self {
            config: config?,
            special: special?,
            added: added?,
            model: Object::read(folder, "config.json")?,
        })
    }

    /// The `tokenizer_class` that tokenizer_config.json or else config.json names, and the file that does.
    pub(super) fn class_name(&self) -> Result<Option<(PathBuf, String)>> {
        for object in [&self.config, &self.model] {
            if let Some(name) = object.text("tokenizer_class")? {
                return Ok(Some((object.path.clone(), name.to_owned())));
            }
        }
        Ok(None)
    }

    /// The `model_type` of config.json.
    pub(super) fn model_type(&self) -> Option<&str> {
        self.model.get("model_type")?.as_str()
    }

    /// A switch of tokenizer_config.json; `None` where it says nothing, or null.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.config.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.config.bad(key, format!("{other} is not true or false"))),
        }
    }

    /// Adds the tokens that the files name to a recipe, and says how a text begins and ends.
    pub(super) fn complete(&self, recipe: &mut Recipe, class: &Class) -> Result<()> {
        self.check_switches()?;
        let named = self.named()?;
        let mut tokens = Tokens::new(recipe);
        let is_said = !std::ptr::eq(class, &NO_CLASS);
        for (object, id, mut token) in self.listed(&named)? {
            token.special |= named.has(&token.content);
            tokens.set(Some(id), token).map_err(|problem| object.bad("added tokens", problem))?;
        }
        for role in ROLES {
            let default = class.roles.iter().find(|(name, _)| *name == role).map(|(_, text)| *text);
            let replaces = class.replaces.filter(|_| REPLACING.contains(&role));
            let plain = |text: &str| AddedToken::from(text, true).normalized(replaces.unwrap_or(false));
            let (mut token, is_plain) = match (named.roles.get(role), default) {
                (Some(Some(Token { flags: Some(token), .. })), _) => (token.clone(), false),
                (Some(Some(token)), _) => (plain(&token.text), true),
                // Where the files are silent, a token of the class that the model has no row for is not there.
                (None, Some(text)) if tokens.knows(text) || is_said && tokens.next_id() < self.rows() => {
                    (plain(text), true)
                }
                _ => continue,
            };
            if is_plain && replaces.is_none() && tokens.is_added(&token.content) {
                continue;
            }
            token.special = true;
            tokens.set(None, token).map_err(|problem| self.config.bad(role, problem))?;
        }
        for token in &named.more {
            let flags = token.flags.clone();
            if flags.is_none() && tokens.is_added(&token.text) {
                continue;
            }
            let mut added = flags.unwrap_or_else(|| AddedToken::from(&*token.text, true));
            added.special = true;
            tokens.set(None, added).map_err(|problem| self.config.bad(MORE[0], problem))?;
        }
        let id = |role: &str| {
            let default = class.roles.iter().find(|(name, _)| *name == role).map(|(_, text)| *text);
            match named.roles.get(role) {
                None => default.and_then(|text| tokens.id(text)),
                Some(token) => token.as_ref().and_then(|token| tokens.id(&token.text)),
            }
        };
        let (bos, eos) = (id("bos_token"), id("eos_token"));
        recipe.added = tokens.finish();
        (recipe.bos, recipe.eos) = (bos, eos);
        recipe.adds_bos = match (self.flag("add_bos_token")?, class.adds_bos) {
            (Some(true), None) => {
                let problem = format!("true is not supported for {}", class.name);
                return Err(self.config.bad("add_bos_token", problem));
            }
            (said, default) => said.or(default).unwrap_or(false),
        };
        if recipe.adds_bos && recipe.bos.is_none() {
            return Err(self.config.bad("add_bos_token", "is true, but there is no bos_token"));
        }
        Ok(())
    }

    /// Refuses switches that change ids in a way that is not supported.
    fn check_switches(&self) -> Result<()> {
        for (key, problem) in [
            ("add_eos_token", "only a token before the text is supported"),
            ("split_special_tokens", "true, which splits special tokens like other texts, is not supported"),
        ] {
            if self.flag(key)? == Some(true) {
                return Err(self.config.bad(key, problem));
            }
        }
        match self.config.get("sp_model_kwargs") {
            None => Ok(()),
            Some(Value::Object(settings)) if settings.is_empty() => Ok(()),
            Some(_) => Err(self.config.bad("sp_model_kwargs", "settings of SentencePiece are not supported")),
        }
    }

    /// Whether special_tokens_map.json and added_tokens.json count.
    fn is_legacy(&self) -> bool {
        self.config.get("added_tokens_decoder").is_none()
    }

    /// The tokens that have a role.
    fn named(&self) -> Result<Named> {
        let mut named = Named::default();
        let maps = [(&self.config, false), (&self.special, true)];
        for (object, special) in maps.into_iter().take(if self.is_legacy() { 2 } else { 1 }) {
            for role in ROLES {
                match object.map.get(role) {
                    None => {}
                    // Null in special_tokens_map.json, too, takes the token away.
                    Some(Value::Null) => {
                        named.roles.insert(role, None);
                    }
                    Some(value) => {
                        let token = Token::of(value, special).map_err(|problem| object.bad(role, problem))?;
                        named.roles.insert(role, Some(token));
                    }
                }
            }
            for key in MORE {
                let values: Vec<&Value> = match object.get(key) {
                    None => continue,
                    Some(Value::Array(values)) => values.iter().collect(),
                    Some(Value::Object(values)) if key == MORE[1] => values.values().collect(),
                    Some(_) => return Err(object.bad(key, "is not a list of tokens")),
                };
                if values.len() > MAX_ADDED {
                    return Err(object.bad(key, format!("{} tokens are more than {MAX_ADDED}", values.len())));
                }
                for value in values {
                    let token = Token::of(value, special).map_err(|problem| object.bad(key, problem))?;
                    named.more.push(token);
                }
            }
        }
        let of_more = named.more.iter().map(|token| token.text.clone());
        let of_roles = named.roles.values().flatten().map(|token| token.text.clone());
        named.texts = of_more.chain(of_roles).collect();
        // What tokenizer_config.json lists by id has its flags there, however it is named.
        if let Some(Value::Object(listed)) = self.config.get("added_tokens_decoder") {
            let listed = listed.values().filter_map(|value| Token::of(value, false).ok());
            let listed: HashMap<String, Option<AddedToken>> =
                listed.map(|token| (token.text, token.flags)).collect();
            for token in named.roles.values_mut().flatten() {
                if let Some(flags) = listed.get(&token.text) {
                    token.flags.clone_from(flags);
                }
            }
        }
        Ok(named)
    }

    /// The added tokens that are listed with ids, by id, each with the file it is from.
    fn listed(&self, named: &Named) -> Result<Vec<(&Object, u32, AddedToken)>> {
        const KEY: &str = "added_tokens_decoder";
        let mut listed = BTreeMap::new();
        if let Some(value) = self.config.get(KEY) {
            let Value::Object(tokens) = value else { return Err(self.config.bad(KEY, "is not an object")) };
            if tokens.len() > MAX_ADDED {
                let problem = format!("{} tokens are more than {MAX_ADDED}", tokens.len());
                return Err(self.config.bad(KEY, problem));
            }
            for (id, value) in tokens {
                let bad = |problem: String| self.config.bad(KEY, format!("{id}: {problem}"));
                let number: u32 = id.parse().map_err(|_| bad("is not an id".into()))?;
                let token = Token::of(value, false).map_err(bad)?;
                let Some(flags) = token.flags else {
                    return Err(bad("is not a token with its content".into()));
                };
                if listed.insert(number, (&self.config, flags)).is_some() {
                    return Err(bad("is given twice".into()));
                }
            }
        } else {
            if self.added.map.len() > MAX_ADDED {
                let problem = format!("{} are more than {MAX_ADDED}", self.added.map.len());
                return Err(self.added.bad("tokens", problem));
            }
            for (text, id) in &self.added.map {
                let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let number = number.ok_or_else(|| self.added.bad(text, format!("{id} is not an id")))?;
                let token = AddedToken::from(text.as_str(), named.has(text));
                if let Some((_, other)) = listed.insert(number, (&self.added, token)) {
                    let problem = format!("has id {number}, and so has {:?}", other.content);
                    return Err(self.added.bad(text, problem));
                }
            }
        }
        Ok(listed.into_iter().map(|(id, (object, token))| (object, id, token)).collect())
    }

    /// Rows of the model's embedding, if config.json says.
    fn rows(&self) -> u32 {
        let rows = self.model.get("vocab_size").and_then(Value::as_u64);
        rows.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(0)
    }
}

/// A token as a file names it: by its text alone, or spelled out.
#[derive(Debug)]
struct Token {
    text: String,
    flags: Option<AddedToken>,
}

impl Token {
    /// Reads a text, or an object with `content` and the flags of an added token. `special` is what a missing `special`
    /// means.
    fn of(value: &Value, special: bool) -> Result<Self, String> {
        let map = match value {
            Value::String(text) => return Ok(Self { text: text.clone(), flags: None }),
            Value::Object(map) => map,
            other => return Err(format!("{other} is neither a text nor a token with its content")),
        };
        let Some(text) = map.get("content").and_then(Value::as_str) else {
            return Err("is neither a text nor a token with its content".into());
        };
        let flag = |key: &str| match map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("{key}: {other} is not true or false")),
        };
        let special = flag("special")?.unwrap_or(special);
        let flags = AddedToken::from(text, special)
            .lstrip(flag("lstrip")?.unwrap_or(false))
            .rstrip(flag("rstrip")?.unwrap_or(false))
            .single_word(flag("single_word")?.unwrap_or(false))
            .normalized(flag("normalized")?.unwrap_or(!special));
        Ok(Self { text: text.to_owned(), flags: Some(flags) })
    }
}

/// The tokens that have a role, and which role.
#[derive(Debug, Default)]
struct Named {
    /// `None`: the role is there, and it is null.
    roles: HashMap<&'static str, Option<Token>>,
    more: Vec<Token>,
    /// The texts of all of them.
    texts: HashSet<String>,
}

impl Named {
    fn has(&self, text: &str) -> bool {
        self.texts.contains(text)
    }
}

/// The added tokens of a recipe while more are added.
struct Tokens<'r> {
    vocab: &'r HashMap<String, u32>,
    added: Vec<Added>,
    /// Those that are never looked for in a normalized text.
    raw: HashSet<String>,
    /// Their places in `added`, by text.
    places: HashMap<String, usize>,
    /// How many are not in the vocabulary.
    new: usize,
}

impl<'r> Tokens<'r> {
    fn new(recipe: &'r mut Recipe) -> Self {
        let added = std::mem::take(&mut recipe.added);
        let places =
            added.iter().enumerate().map(|(place, one)| (one.token.content.clone(), place)).collect();
        let new = added.iter().filter(|one| !recipe.vocab.contains_key(&one.token.content)).count();
        let raw = added.iter().map(|one| &one.token.content).chain(&recipe.flags.unknown).cloned().collect();
        Self { vocab: &recipe.vocab, added, raw, places, new }
    }

    fn is_added(&self, text: &str) -> bool {
        self.places.contains_key(text)
    }

    fn id(&self, text: &str) -> Option<u32> {
        let added = self.places.get(text).and_then(|place| self.added.get(*place)).map(|one| one.id);
        added.or_else(|| self.vocab.get(text).copied())
    }

    fn knows(&self, text: &str) -> bool {
        self.id(text).is_some()
    }

    /// The id of the next token that the vocabulary does not have.
    fn next_id(&self) -> u32 {
        u32::try_from(self.vocab.len() + self.new).unwrap_or(u32::MAX)
    }

    /// Adds a token, or gives one that is there other flags.
    fn set(&mut self, id: Option<u32>, mut token: AddedToken) -> Result<(), String> {
        if token.content.is_empty() {
            return Err("a token is empty".into());
        }
        if self.raw.contains(&token.content) {
            token.normalized = false;
        }
        let known = self.id(&token.content);
        if let (Some(id), Some(known)) = (id, known)
            && id != known
        {
            return Err(format!("{:?} has id {id} here and {known} in the vocabulary", token.content));
        }
        if let Some(one) = self.places.get(&token.content).and_then(|place| self.added.get_mut(*place)) {
            one.token = token;
            return Ok(());
        }
        if known.is_none() {
            self.new += 1;
        }
        let id = match known.or(id) {
            Some(id) => id,
            None => self.next_id().saturating_sub(1),
        };
        self.places.insert(token.content.clone(), self.added.len());
        self.added.push(Added { id, token });
        Ok(())
    }

    fn finish(self) -> Vec<Added> {
        self.added
    }
}
