//! Which modules of a Rust crate depend on each other.

mod methods;
mod module;
mod paths;

use crate::floors::arrows::{Arrows, add};
use module::Modules;
use std::collections::BTreeMap;
use std::path::Path;

/// The arrows of a crate.
#[derive(Debug)]
pub struct CrateArrows {
    /// Those by paths: to the module that defines what a path names.
    pub by_paths: Arrows,
    /// Those by paths and by methods: also to the module with the `impl` block that defines a method.
    pub with_methods: Arrows,
}

/// Finds the arrows of the crate in a folder.
///
/// # Errors
/// A file that cannot be read or parsed.
pub fn arrows(source: &Path) -> Result<CrateArrows, String> {
    let modules = module::modules(source)?;
    let by_paths = by_paths(&modules);
    let mut with_methods = by_paths.clone();
    methods::add_methods(&modules, &mut with_methods);
    Ok(CrateArrows { by_paths, with_methods })
}

fn by_paths(modules: &Modules) -> Arrows {
    let mut arrows: Arrows = modules.values().map(|module| (module.file.clone(), BTreeMap::new())).collect();
    for (name, module) in modules {
        let uses = module.uses.iter().map(|(path, _)| path);
        for path in uses.chain(&module.paths) {
            if let Some(to) = paths::of_module_path(modules, name, path) {
                add(&mut arrows, &module.file, &modules[&to.module].file, &path.join("::"));
            }
        }
    }
    arrows
}
