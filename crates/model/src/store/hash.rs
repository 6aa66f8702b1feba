//! SHA-256 of model files, remembered by path and by what changes with a file's content: its size, its number on the disk,
//! and the times at which its content and its entry last changed ([`causalcone_files::stamp`]).

use super::cache::cache_dir;
use crate::file::{DataFile, json};
use crate::{Error, Result};
use causalcone_files::{stamp, write_whole};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let file = DataFile::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < file.len() {
        let n = usize::try_from(file.len() - at).unwrap_or(usize::MAX).min(buffer.len());
        file.read_at(&mut buffer[..n], at)?;
        hasher.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(hex(&hasher.finalize()))
}

/// The SHA-256 of a file, from the cache's list if the file has not changed since.
///
/// A list that cannot be read or written only costs time.
///
/// # Errors
/// When the file cannot be read.
pub fn cached_sha256(path: &Path) -> Result<String> {
    let Asked { path, key, stamp, known, mut list } = asked(path)?;
    if let Some(hash) = known {
        return Ok(hash);
    }
    let hash = sha256(&path)?;
    if let Some(stamp) = stamp {
        list.insert(key, serde_json::json!({"stamp": stamp, "sha256": hash}));
        let _ = write_list(&list);
    }
    Ok(hash)
}

/// The SHA-256 of a file where the cache's list has it; the file is not read.
///
/// # Errors
/// When there is no such file.
pub fn known_sha256(path: &Path) -> Result<Option<String>> {
    Ok(asked(path)?.known)
}

/// A file, and what the cache's list has of it.
struct Asked {
    path: PathBuf,
    key: String,
    /// What changes with its content, where the system tells.
    stamp: Option<String>,
    known: Option<String>,
    list: Map<String, Value>,
}

fn asked(path: &Path) -> Result<Asked> {
    let path = path.canonicalize().map_err(|source| Error::io(path, "open", source))?;
    let metadata = std::fs::metadata(&path).map_err(|source| Error::io(&path, "open", source))?;
    let stamp = stamp(&metadata);
    let key = path.to_string_lossy().into_owned();
    let list = read_list();
    let hash = |entry: &Value| {
        let same = entry.get("stamp").and_then(Value::as_str) == stamp.as_deref() && stamp.is_some();
        let hash = entry.get("sha256").and_then(Value::as_str)?;
        (same && is_hash(hash)).then(|| hash.to_owned())
    };
    let known = list.get(&key).and_then(hash);
    Ok(Asked { path, key, stamp, known, list })
}

/// 64 lower-case hexadecimal digits.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The SHA-256 of some bytes, in hexadecimal.
pub fn sha256_of(bytes: impl AsRef<[u8]>) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn read_list() -> Map<String, Value> {
    let text = DataFile::open(&cache_dir().join("hashes.json")).and_then(|file| file.read_all(1 << 20));
    match text.ok().and_then(|text| json::parse(&text).ok()) {
        Some(Value::Object(list)) => list,
        _ => Map::new(),
    }
}

fn write_list(list: &Map<String, Value>) -> Result<()> {
    let folder = cache_dir();
    std::fs::create_dir_all(&folder).map_err(|source| Error::io(&folder, "create", source))?;
    Ok(write_whole(folder.join("hashes.json"), |w| Ok(serde_json::to_writer(w, list)?))?)
}
