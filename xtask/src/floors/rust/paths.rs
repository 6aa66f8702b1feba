//! Which module defines what a path names.

use super::module::Modules;
use crate::floors::arrows::Name;

/// A path that leads into the crate.
#[derive(Debug)]
pub struct Definition {
    /// The module that defines the first of `names`.
    pub module: Name,
    /// The names behind the module's: empty for a path of a module, two for `Type::function`.
    pub names: Vec<String>,
}

/// Finds what a path names, if the path starts with a module: `crate`, `self`, `super` or a child. A name that the module
/// `from` imports or defines is not looked up.
pub fn of_module_path(modules: &Modules, from: &Name, path: &[String]) -> Option<Definition> {
    resolve(modules, from, path, 0)
}

/// Finds what any path in the module `from` names.
pub fn of_path(modules: &Modules, from: &Name, path: &[String]) -> Option<Definition> {
    if let Some(found) = resolve(modules, from, path, 0) {
        return Some(found);
    }
    let (first, others) = path.split_first()?;
    let imported = modules.get(from)?.uses.iter().find(|(_, alias)| alias == first);
    match imported {
        Some((import, _)) => resolve(modules, from, &[import.as_slice(), others].concat(), 0),
        None => Some(Definition { module: from.clone(), names: path.to_vec() }),
    }
}

fn resolve(modules: &Modules, from: &Name, path: &[String], depth: usize) -> Option<Definition> {
    const DEEPEST: usize = 16;
    let (first, _) = path.split_first().filter(|_| depth < DEEPEST)?;
    let (mut at, mut rest) = match first.as_str() {
        "crate" => (Name::new(), &path[1..]),
        "self" => (from.clone(), &path[1..]),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            (from[..from.len().checked_sub(ups)?].to_vec(), &path[ups..])
        }
        _ => {
            let child = [from.as_slice(), std::slice::from_ref(first)].concat();
            let is_module = modules.contains_key(&child) && path.len() > 1;
            (is_module.then(|| from.clone())?, path)
        }
    };
    while let Some((part, others)) = rest.split_first() {
        let child = [at.as_slice(), std::slice::from_ref(part)].concat();
        if modules.contains_key(&child) {
            (at, rest) = (child, others);
            continue;
        }
        let uses = modules.get(&at).into_iter().flat_map(|module| &module.uses);
        let mut reexported =
            uses.filter(|(other, alias)| alias == part && other.as_slice() != path).peekable();
        if reexported.peek().is_some() {
            // A re-export of another crate's item resolves to no module.
            let whole = |other: &[String]| [other, others].concat();
            return reexported.find_map(|(other, _)| resolve(modules, &at, &whole(other), depth + 1));
        }
        break;
    }
    Some(Definition { module: at, names: rest.to_vec() })
}
