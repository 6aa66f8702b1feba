//! The source files of a crate or package.

use super::arrows::Name;
use std::path::{Path, PathBuf};

/// All files with an extension below a folder, sorted.
///
/// # Errors
/// A folder that cannot be read.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let list =
            std::fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
        for entry in list {
            let path = entry.map_err(|e| format!("cannot read {}: {e}", folder.display()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|other| other == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a source file.
///
/// # Errors
/// The file, and why it cannot be read.
pub fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))
}

/// The module in a file. A file with one of the names `roots` holds the module of its folder.
pub fn module_name(source: &Path, file: &Path, roots: &[&str]) -> Name {
    let below = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let mut name: Name = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if name.last().is_some_and(|last| roots.contains(&last.as_str())) {
        name.pop();
    }
    name
}
