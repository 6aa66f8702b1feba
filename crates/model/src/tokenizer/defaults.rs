//! What tokenizer_config.json says of a model's own defaults: the tokens that begin and end a text, and whether one
//! begins it. Nothing else in that file has to do with how texts are split.

use super::Recipe;
use crate::file::DataFile;
use crate::file::keys::Keys;
use crate::{Error, Result};
use std::path::Path;

/// The largest in use have 60 kB, for they list the added tokens once more.
const MAX_FILE: u64 = 16 << 20;

/// Puts the defaults that stand beside a tokenizer.json into what was made of it.
pub(super) fn read_beside(tokenizer: &Path, recipe: &mut Recipe) -> Result<()> {
    let path = tokenizer.with_file_name("tokenizer_config.json");
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let keys = Keys::from_json(&path, &DataFile::open(&path)?.read_all(MAX_FILE)?)?;
    let id = |key: &str| -> Result<Option<u32>> {
        let Some(value) = keys.get(key) else { return Ok(None) };
        // A text, or an object that describes the token.
        let text = value.as_str().or_else(|| value.get("content")?.as_str());
        let text = text.ok_or_else(|| keys.bad(key, format!("{value} is no token")))?;
        let added = recipe.added.iter().find(|added| added.token.content == text).map(|added| added.id);
        let found = added.or_else(|| recipe.vocab.get(text).copied());
        found.map(Some).ok_or_else(|| keys.bad(key, format!("{text:?} is not in the vocabulary")))
    };
    let (bos, eos) = (id("bos_token")?, id("eos_token")?);
    if keys.flag("add_eos_token")? == Some(true) {
        return Err(keys.bad("add_eos_token", "true is not supported: a prompt would end with it"));
    }
    let adds_bos = keys.flag("add_bos_token")?;
    recipe.bos = recipe.bos.or(bos);
    recipe.eos = recipe.eos.or(eos);
    recipe.adds_bos = adds_bos.unwrap_or(recipe.adds_bos);
    if recipe.adds_bos && recipe.bos.is_none() {
        let problem = "is true, but neither bos_token nor tokenizer.json says which token that is";
        return Err(Error::file(&path, "add_bos_token", problem));
    }
    Ok(())
}
