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

use super::class::{Class, NO_CLASS, ROLES};
use super::object::Object;
use super::recipe::{Added, Ends, MAX_ADDED, Recipe};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use tokenizers::AddedToken;

/// The names of the files, in the order in which they belong to a model.
pub(super) const FILES: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// The keys that name several tokens, as a list or as an object of named ones.
const MORE: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// The added tokens by id.
const DECODER: &str = "added_tokens_decoder";

/// The files beside a vocabulary, and the model's config.json.
#[derive(Debug)]
pub(super) struct Beside {
    config: Object,
    special: Object,
    added: Object,
    model: Object,
}

impl Beside {
    /// Reads the files in the folder of a vocabulary; each may be missing.
    pub(super) fn read(vocabulary: &Path) -> Result<Self> {
        let [config, special, added] = FILES.map(|name| Object::read(vocabulary.with_file_name(name)));
        let model = Object::read(vocabulary.with_file_name("config.json"));
        Ok(Self { config: config?, special: special?, added: added?, model: model? })
    }

    /// Which of the classes reads the vocabulary: the one that tokenizer_config.json or else config.json names, else the one
    /// of config.json's `model_type`, if there is one.
    pub(super) fn class(
        &self,
        what: &'static str,
        classes: &[&'static Class],
        model_types: &[(&str, &'static Class)],
    ) -> Result<Option<&'static Class>> {
        for object in [&self.config, &self.model] {
            if let Some(name) = object.text("tokenizer_class")? {
                let found = classes.iter().find(|class| class.is(name)).copied();
                return found.map(Some).ok_or_else(|| {
                    let known: Vec<&str> = classes.iter().map(|class| class.name).collect();
                    Error::unsupported(&object.path, what, name, known.join(", "))
                });
            }
        }
        let given = self.model.get("model_type").and_then(Value::as_str);
        Ok(model_types.iter().find(|(name, _)| Some(*name) == given).map(|(_, class)| *class))
    }

    /// A switch of tokenizer_config.json; `None` where it says nothing, or null.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.config.flag(key)
    }

    /// Adds the tokens that the files name to a recipe, and says how a text begins and ends.
    pub(super) fn complete(&self, recipe: &mut Recipe, class: &Class) -> Result<()> {
        self.config.check_switches()?;
        if self.config.get("sp_model_kwargs").is_some_and(|settings| *settings != json!({})) {
            let problem = "settings of SentencePiece are not supported";
            return Err(self.config.bad("sp_model_kwargs", problem));
        }
        let named = self.named()?;
        let mut tokens = Tokens::new(recipe);
        for (object, id, mut token) in self.listed(&named)? {
            token.special |= named.texts.contains(&token.content);
            tokens.set(Some(id), token).map_err(|problem| object.bad("added tokens", problem))?;
        }
        for role in ROLES {
            let token = match named.roles.get(role) {
                Some(token) => token.clone(),
                // Where the files are silent, a token of the class that the model has no row for is not there.
                None => class.token(role).map(Token::plain).filter(|Token { added, .. }| {
                    let has_row = *class != NO_CLASS && tokens.next_id() < self.rows();
                    has_row || tokens.id(&added.content).is_some()
                }),
            };
            let Some(token) = token else { continue };
            let added = tokens.name(token, class.replaces(role));
            added.map_err(|problem| self.config.bad(role, problem))?;
        }
        for token in &named.more {
            let added = tokens.name(token.clone(), None);
            added.map_err(|problem| self.config.bad(MORE[0], problem))?;
        }
        let id = |role: &str| match named.roles.get(role) {
            None => class.token(role).and_then(|text| tokens.id(text)),
            Some(token) => token.as_ref().and_then(|token| tokens.id(&token.added.content)),
        };
        let (bos, eos) = (id("bos_token"), id("eos_token"));
        recipe.added = tokens.added;
        let adds_bos = match (self.flag("add_bos_token")?, class.adds_bos) {
            (Some(true), None) => {
                let problem = format!("true is not supported for {}", class.name);
                return Err(self.config.bad("add_bos_token", problem));
            }
            (said, default) => said.or(default).unwrap_or(false),
        };
        if adds_bos && bos.is_none() {
            return Err(self.config.bad("add_bos_token", "is true, but there is no bos_token"));
        }
        recipe.ends = Ends { bos, eos, adds_bos };
        Ok(())
    }

    /// The tokens that have a role.
    fn named(&self) -> Result<Named> {
        let mut named = Named::default();
        let decoder = self.config.get(DECODER);
        // The tokens of special_tokens_map.json are special, and do not count where all are listed by id.
        let files = [(&self.config, false), (&self.special, true)];
        for (object, special) in files.into_iter().take(if decoder.is_none() { 2 } else { 1 }) {
            let token = |key: &str, value: &Value| {
                Token::of(value, special).map_err(|problem| object.bad(key, problem))
            };
            for role in ROLES {
                let Some(value) = object.map.get(role) else { continue };
                // Null in special_tokens_map.json, too, takes the token away.
                let token = if value.is_null() { None } else { Some(token(role, value)?) };
                named.roles.insert(role, token);
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
                    named.more.push(token(key, value)?);
                }
            }
        }
        let all = named.more.iter().chain(named.roles.values().flatten());
        named.texts = all.map(|token| token.added.content.clone()).collect();
        // What tokenizer_config.json lists by id has its flags there, however it is named.
        let listed = decoder.and_then(Value::as_object).into_iter().flat_map(Map::values);
        let listed = listed.filter_map(|value| Token::of(value, false).ok());
        let listed: HashMap<String, Token> =
            listed.map(|token| (token.added.content.clone(), token)).collect();
        for token in named.roles.values_mut().flatten() {
            if let Some(listed) = listed.get(&token.added.content) {
                token.clone_from(listed);
            }
        }
        Ok(named)
    }

    /// The added tokens that are listed with ids, by id, each with the file it is from.
    fn listed(&self, named: &Named) -> Result<Vec<(&Object, u32, AddedToken)>> {
        let mut listed = BTreeMap::new();
        if let Some(value) = self.config.get(DECODER) {
            let Value::Object(tokens) = value else {
                return Err(self.config.bad(DECODER, "is not an object"));
            };
            if tokens.len() > MAX_ADDED {
                let problem = format!("{} tokens are more than {MAX_ADDED}", tokens.len());
                return Err(self.config.bad(DECODER, problem));
            }
            for (id, value) in tokens {
                let bad = |problem: String| self.config.bad(DECODER, format!("{id}: {problem}"));
                let number: u32 = id.parse().map_err(|_| bad("is not an id".into()))?;
                let token = Token::of(value, false).map_err(bad)?;
                if token.is_plain {
                    return Err(bad("is not a token with its content".into()));
                }
                if listed.insert(number, (&self.config, token.added)).is_some() {
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
                let token = AddedToken::from(text.as_str(), named.texts.contains(text));
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

/// A token as a file names it.
#[derive(Debug, Clone)]
struct Token {
    added: AddedToken,
    /// Whether it is named by its text alone.
    is_plain: bool,
}

impl Token {
    fn plain(text: &str) -> Self {
        Self { added: AddedToken::from(text, true), is_plain: true }
    }

    /// Reads a text, or an object with `content` and the flags of an added token. `special` is what a missing `special`
    /// means.
    fn of(value: &Value, special: bool) -> Result<Self, String> {
        let map = match value {
            Value::String(text) => return Ok(Self::plain(text)),
            Value::Object(map) => map,
            other => return Err(format!("{other} is neither a text nor a token with its content")),
        };
        let Some(text) = map.get("content").and_then(Value::as_str) else {
            return Err("is neither a text nor a token with its content".into());
        };
        let flag = |key: &str, default: bool| match map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(format!("{key}: {other} is not true or false")),
        };
        let special = flag("special", special)?;
        let added = AddedToken::from(text, special)
            .lstrip(flag("lstrip", false)?)
            .rstrip(flag("rstrip", false)?)
            .single_word(flag("single_word", false)?)
            .normalized(flag("normalized", !special)?);
        Ok(Self { added, is_plain: false })
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

    fn id(&self, text: &str) -> Option<u32> {
        let added = self.places.get(text).and_then(|place| self.added.get(*place)).map(|one| one.id);
        added.or_else(|| self.vocab.get(text).copied())
    }

    /// The id of the next token that the vocabulary does not have.
    fn next_id(&self) -> u32 {
        u32::try_from(self.vocab.len() + self.new).unwrap_or(u32::MAX)
    }

    /// Adds a token that is named. One that is named by its text alone changes nothing about one that is there already,
    /// unless it [`replaces`](Class::replaces) that.
    fn name(&mut self, token: Token, replaces: Option<bool>) -> Result<(), String> {
        let mut added = token.added.special(true);
        if token.is_plain {
            if replaces.is_none() && self.places.contains_key(&added.content) {
                return Ok(());
            }
            added.normalized = replaces.unwrap_or(false);
        }
        self.set(None, added)
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
        let id = known.or(id).unwrap_or(self.next_id());
        self.new += usize::from(known.is_none());
        self.places.insert(token.content.clone(), self.added.len());
        self.added.push(Added { id, token });
        Ok(())
    }
}
