//! The cache: where fetched models are kept, and what is remembered of files.

use std::path::PathBuf;

/// The folder causalcone keeps fetched models in: `$CAUSALCONE_CACHE`, or the user's cache folder.
pub fn cache_dir() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("CAUSALCONE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("causalcone")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache").join("causalcone")))
        .unwrap_or_else(|| std::env::temp_dir().join("causalcone"))
}

/// Files in the cache are named by their own hash.
pub(super) fn blob(sha256: &str) -> PathBuf {
    cache_dir().join("blobs").join(format!("{sha256}.gguf"))
}
