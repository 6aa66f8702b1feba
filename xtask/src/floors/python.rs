//! Imports between the modules of the Python package.

use super::arrows::{Arrows, Name, add};
use super::files::{files, module_name, read};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The imports of all modules of the package in a folder, wherever they stand in a file. Imports for type checkers are left
/// out.
///
/// # Errors
/// A file that cannot be read.
pub fn arrows(source: &Path) -> Result<Arrows, String> {
    let all = files(source, "py")?;
    let named = |file: &PathBuf| module_name(source, file, &["__init__"]);
    let names: BTreeSet<Name> = all.iter().map(named).collect();
    // A compiled module has a stub in place of a file, and imports nothing of the package.
    let stubs: BTreeSet<Name> = files(source, "pyi")?.iter().map(named).collect();
    let mut arrows = Arrows::new();
    for file in &all {
        let module = named(file);
        let is_package = file.file_stem().is_some_and(|stem| stem == "__init__");
        arrows.entry(module.clone()).or_default();
        for (path, what) in imports(&read(file)?, &module, is_package) {
            // `from .folder import module` names a module; otherwise the import is from the folder itself.
            let inner = [path.as_slice(), std::slice::from_ref(&what)].concat();
            let is_compiled = stubs.contains(&inner) && !names.contains(&inner);
            let to = if names.contains(&inner) { inner } else { path };
            if !is_compiled && names.contains(&to) {
                add(&mut arrows, &module, &to, &what);
            }
        }
    }
    Ok(arrows)
}

/// What a file imports of its own package: the module, and the name.
fn imports(text: &str, module: &Name, is_package: bool) -> Vec<(Name, String)> {
    let mut found = Vec::new();
    let mut checking: Option<usize> = None;
    let joined = join_parentheses(text);
    for line in joined.lines() {
        let indent = line.len() - line.trim_start().len();
        let code = line.trim();
        if checking.is_some_and(|outer| indent > outer || code.is_empty()) {
            continue;
        }
        checking = code.starts_with("if TYPE_CHECKING").then_some(indent);
        if let Some(path) = code.strip_prefix("import causalcone.") {
            let path = path.split([' ', ',']).next().unwrap_or_default();
            let mut path: Name = path.split('.').map(String::from).collect();
            found.extend(path.pop().map(|last| (path, last)));
            continue;
        }
        let Some((from, names)) = code.strip_prefix("from ").and_then(|rest| rest.split_once(" import "))
        else {
            continue;
        };
        let dots = from.chars().take_while(|c| *c == '.').count();
        let base = match (dots, from.strip_prefix("causalcone")) {
            (0, Some(rest)) if rest.is_empty() || rest.starts_with('.') => Name::new(),
            (0, _) => continue,
            (dots, _) => {
                let up = dots - usize::from(is_package);
                module[..module.len().saturating_sub(up)].to_vec()
            }
        };
        let below = from.trim_start_matches("causalcone").split('.').filter(|part| !part.is_empty());
        let path: Name = base.into_iter().chain(below.map(String::from)).collect();
        for what in names.trim_matches(|c| c == '(' || c == ')').split(',') {
            let what = what.trim().split(" as ").next().unwrap_or_default();
            if !what.is_empty() {
                found.push((path.clone(), what.to_owned()));
            }
        }
    }
    found
}

/// Puts imports in parentheses on one line each.
fn join_parentheses(text: &str) -> String {
    let mut joined = String::new();
    let mut is_open = false;
    for line in text.lines() {
        let is_import = line.trim_start().starts_with("from ") || line.starts_with("import ");
        let code = line.split('#').next().unwrap_or_default();
        let line = match (is_open, is_import) {
            (true, _) => code.trim(),
            (false, true) => code.trim_end(),
            (false, false) => line,
        };
        joined += line;
        let starts = is_import && line.contains("import (");
        is_open = (is_open || starts) && !line.contains(')');
        joined.push(if is_open { ' ' } else { '\n' });
    }
    joined
}
