//! What tokenizer_config.json says beside tokenizer.json: the tokens that begin and end a text.

use super::recipe::Recipe;
use crate::file::{DataFile, json};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;

/// Those in use stay below 2 MB, most of it added tokens that tokenizer.json has too.
const MAX_FILE: u64 = 8 << 20;

/// A class of transformers that begins a text as `add_bos_token` says and overrules tokenizer.json.
/// All others ignore that setting.
struct Class {
    name: &'static str,
    bos: &'static str,
    eos: &'static str,
    adds_bos: bool,
}

/// With what each takes where the file is silent.
const CLASSES: [Class; 4] = [
    Class { name: "LlamaTokenizer", bos: "<s>", eos: "</s>", adds_bos: true },
    Class { name: "CodeLlamaTokenizer", bos: "<s>", eos: "</s>", adds_bos: true },
    Class { name: "GemmaTokenizer", bos: "<bos>", eos: "<eos>", adds_bos: true },
    Class { name: "GPTNeoXTokenizer", bos: "<|endoftext|>", eos: "<|endoftext|>", adds_bos: false },
];

/// Completes the recipe of a tokenizer.json by the tokenizer_config.json beside it, if there is one.
///
/// Keys are read that say how a text begins and ends, and those by which transformers would overrule tokenizer.json: its
/// added tokens must be there alike. All others are about chats, padding and decoding; none changes an id.
pub(super) fn complete(tokenizer: &Path, recipe: &mut Recipe) -> Result<()> {
    let path = tokenizer.with_file_name("tokenizer_config.json");
    if matches!(std::fs::symlink_metadata(&path), Err(e) if e.kind() == ErrorKind::NotFound) {
        set_space(recipe, false);
        return Ok(());
    }
    let text = DataFile::open(&path)?.read_all(MAX_FILE)?;
    let bad = |field: &str, problem: String| Error::file(&path, field, problem);
    let Value::Object(file) = json::parse(&text).map_err(|e| bad("document", e.to_string()))? else {
        return Err(bad("document", "is not an object".into()));
    };
    let class =
        text_at(&file, "tokenizer_class").map_err(|problem| bad("tokenizer_class", problem))?.flatten();
    let known = class.and_then(|name| {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        CLASSES.iter().find(|class| class.name == name)
    });
    let id = |key: &str, default: Option<&str>| {
        let said = text_at(&file, key).map_err(|problem| bad(key, problem))?;
        let named = match said {
            // Without a name of its own it has the class's, if there is such a token.
            None => return Ok(default.and_then(|name| id_of(recipe, name))),
            Some(None) => return Ok(None),
            Some(Some(name)) => name,
        };
        id_of(recipe, named)
            .map(Some)
            .ok_or_else(|| bad(key, format!("{named:?} is not a token of tokenizer.json")))
    };
    let bos = id("bos_token", known.map(|class| class.bos))?;
    let eos = id("eos_token", known.map(|class| class.eos))?;
    let flag = |key: &str| match file.get(key) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(false)),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(other) => Err(bad(key, format!("{other} is not true or false"))),
    };
    let adds_bos = flag("add_bos_token")?;
    if flag("add_eos_token")? == Some(true) {
        return Err(bad("add_eos_token", "only a token before the text is supported".into()));
    }
    if flag("split_special_tokens")? == Some(true) {
        let problem = "true, which splits special tokens like other texts, is not supported";
        return Err(bad("split_special_tokens", problem.into()));
    }
    match (file.get("add_prefix_space"), known) {
        // Null, and the Llama class's silence, leave it to tokenizer.json.
        (Some(Value::Null), _) => {}
        (None, Some(class)) if class.name == "LlamaTokenizer" => {}
        _ => set_space(recipe, flag("add_prefix_space")?.unwrap_or(false)),
    }
    check_added(&file, recipe).map_err(|problem| bad("added_tokens_decoder", problem))?;
    check_special(&file, recipe).map_err(|(key, problem)| bad(key, problem))?;
    recipe.eos = eos.or(recipe.eos);
    match (known, class, adds_bos) {
        (Some(class), ..) => recipe.adds_bos = adds_bos.unwrap_or(class.adds_bos),
        (None, None, Some(adds_bos)) => recipe.adds_bos = adds_bos,
        // tokenizer.json decides, and where it adds a token, that is the one.
        _ if recipe.adds_bos => return Ok(()),
        _ => {}
    }
    recipe.bos = bos.or(recipe.bos);
    if recipe.adds_bos && recipe.bos.is_none() {
        return Err(bad("add_bos_token", "is true, but there is no bos_token".into()));
    }
    Ok(())
}

/// Whether a text gets a space before it. transformers sets it so wherever that is the outermost step, whatever
/// tokenizer.json says.
fn set_space(recipe: &mut Recipe, adds: bool) {
    let step = &mut recipe.pre_tokenizer;
    if step["type"] == "ByteLevel" && step["add_prefix_space"] != adds {
        step["add_prefix_space"] = Value::Bool(adds);
    }
}

/// That tokens of a role are added ones: transformers would add others, and change how texts split.
fn check_special<'a>(file: &Map<String, Value>, recipe: &Recipe) -> Result<(), (&'a str, String)> {
    const KEYS: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    const MORE: &str = "additional_special_tokens";
    let is_added = |name: &str| recipe.added.iter().any(|added| added.token.content == name);
    let check = |key: &'static str, name: Option<&str>| match name {
        Some(name) if !is_added(name) => Err((key, format!("{name:?} is no added token of tokenizer.json"))),
        _ => Ok(()),
    };
    for key in KEYS {
        // Of those that begin and end a text, what is no text is told elsewhere; the others are no part of ids.
        check(key, text_at(file, key).ok().flatten().flatten())?;
    }
    let more = match file.get(MORE) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(more)) => more,
        Some(_) => return Err((MORE, "is not a list".into())),
    };
    for one in more {
        let name = one.as_str().or_else(|| one.get("content")?.as_str());
        let Some(name) = name else { return Err((MORE, format!("{one} is no token"))) };
        check(MORE, Some(name))?;
    }
    Ok(())
}

/// That the added tokens are those of tokenizer.json: transformers would add others to it, and change how texts split.
fn check_added(file: &Map<String, Value>, recipe: &Recipe) -> Result<(), String> {
    let listed = match file.get("added_tokens_decoder") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Object(listed)) => listed,
        Some(_) => return Err("is not an object".into()),
    };
    let own: HashMap<u32, _> = recipe.added.iter().map(|added| (added.id, &added.token)).collect();
    for (id, said) in listed {
        let Some(token) = id.parse().ok().and_then(|id: u32| own.get(&id)) else {
            return Err(format!("{id} is no added token of tokenizer.json"));
        };
        if said.get("content").and_then(Value::as_str) != Some(token.content.as_str()) {
            return Err(format!("{id} is not {:?}, as in tokenizer.json", token.content));
        }
        let flags = [
            ("lstrip", token.lstrip),
            ("rstrip", token.rstrip),
            ("single_word", token.single_word),
            ("normalized", token.normalized),
        ];
        for (name, own) in flags {
            if said.get(name).is_some_and(|said| said != own) {
                return Err(format!("{id}: {name} is not {own}, as in tokenizer.json"));
            }
        }
    }
    Ok(())
}

fn id_of(recipe: &Recipe, token: &str) -> Option<u32> {
    let added = recipe.added.iter().find(|added| added.token.content == token).map(|added| added.id);
    added.or_else(|| recipe.vocab.get(token).copied())
}

/// A text, or a token described in an object: `None` where nothing is said, `Some(None)` for null.
pub(super) fn text_at<'a>(
    file: &'a Map<String, Value>,
    key: &str,
) -> Result<Option<Option<&'a str>>, String> {
    match file.get(key) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(Value::String(text)) => Ok(Some(Some(text))),
        Some(other) => match other.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(Some(text))),
            None => Err("is neither a text nor a token with its content".into()),
        },
    }
}
