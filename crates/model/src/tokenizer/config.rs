//! What tokenizer_config.json says beside tokenizer.json: the tokens that begin and end a text.

use super::class::{CODE_LLAMA, Class, GEMMA, LLAMA, NEOX, ROLES};
use super::object::Object;
use super::recipe::Recipe;
use crate::Result;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The classes of transformers that begin a text as `add_bos_token` says and overrule tokenizer.json. All others ignore that
/// setting.
const CLASSES: [&Class; 4] = [&LLAMA, &CODE_LLAMA, &GEMMA, &NEOX];

/// Completes the recipe of a tokenizer.json by the tokenizer_config.json beside it, if there is one.
///
/// Keys are read that say how a text begins and ends, and those by which transformers would overrule tokenizer.json: its
/// added tokens must be there alike. All others are about chats, padding and decoding; none changes an id.
pub(super) fn complete(tokenizer: &Path, recipe: &mut Recipe) -> Result<()> {
    let file = Object::read(tokenizer.with_file_name("tokenizer_config.json"))?;
    let class = file.text("tokenizer_class")?;
    let known = class.and_then(|name| CLASSES.into_iter().find(|class| class.is(name)));
    let id = |key: &str| match file.text(key)? {
        Some(name) => {
            let id = recipe.id(name).map(Some);
            id.ok_or_else(|| file.bad(key, format!("{name:?} is not a token of tokenizer.json")))
        }
        None if file.map.contains_key(key) => Ok(None),
        // Without a name of its own it has the class's, if there is such a token.
        None => Ok(known.and_then(|class| recipe.id(class.token(key)?))),
    };
    let (bos, eos) = (id("bos_token")?, id("eos_token")?);
    // Null means false here.
    let adds_bos = file.flag("add_bos_token")?;
    let adds_bos = adds_bos.or(file.map.contains_key("add_bos_token").then_some(false));
    file.check_switches()?;
    match (file.map.get("add_prefix_space"), known) {
        // Null, and the Llama class's silence, leave it to tokenizer.json.
        (Some(Value::Null), _) => {}
        (None, Some(class)) if *class == LLAMA => {}
        _ => set_space(recipe, file.flag("add_prefix_space")?.unwrap_or(false)),
    }
    check_added(&file, recipe).map_err(|problem| file.bad("added_tokens_decoder", problem))?;
    check_special(&file, recipe)?;
    recipe.ends.eos = eos.or(recipe.ends.eos);
    match (known, class, adds_bos) {
        (Some(class), ..) => recipe.ends.adds_bos = adds_bos.or(class.adds_bos).unwrap_or(false),
        (None, None, Some(adds_bos)) => recipe.ends.adds_bos = adds_bos,
        // tokenizer.json decides, and where it adds a token, that is the one.
        _ if recipe.ends.adds_bos => return Ok(()),
        _ => {}
    }
    recipe.ends.bos = bos.or(recipe.ends.bos);
    if recipe.ends.adds_bos && recipe.ends.bos.is_none() {
        return Err(file.bad("add_bos_token", "is true, but there is no bos_token"));
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
fn check_special(file: &Object, recipe: &Recipe) -> Result<()> {
    const MORE: &str = "additional_special_tokens";
    let check = |key: &str, name: &str| match recipe.added.iter().any(|added| added.token.content == name) {
        true => Ok(()),
        false => Err(file.bad(key, format!("{name:?} is no added token of tokenizer.json"))),
    };
    for role in ROLES {
        // Of those that begin and end a text, what is no text is told elsewhere; the others are no part of ids.
        file.text(role).ok().flatten().map_or(Ok(()), |name| check(role, name))?;
    }
    let more = match file.get(MORE) {
        None => return Ok(()),
        Some(Value::Array(more)) => more,
        Some(_) => return Err(file.bad(MORE, "is not a list")),
    };
    more.iter().try_for_each(|one| match one.as_str().or_else(|| one.get("content")?.as_str()) {
        Some(name) => check(MORE, name),
        None => Err(file.bad(MORE, format!("{one} is no token"))),
    })
}

/// That the added tokens are those of tokenizer.json: transformers would add others to it, and change how texts split.
fn check_added(file: &Object, recipe: &Recipe) -> Result<(), String> {
    let listed = match file.get("added_tokens_decoder") {
        None => return Ok(()),
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
        for (name, own) in [
            ("lstrip", token.lstrip),
            ("rstrip", token.rstrip),
            ("single_word", token.single_word),
            ("normalized", token.normalized),
        ] {
            if said.get(name).is_some_and(|said| *said != own) {
                return Err(format!("{id}: {name} is not {own}, as in tokenizer.json"));
            }
        }
    }
    Ok(())
}
