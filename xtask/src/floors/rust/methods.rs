//! Which modules a module depends on through methods.
//!
//! Only `impl` blocks outside the module of their type matter. A module that has a value of a type already depends on the
//! type's module by paths, directly or through others. A call of a method that is defined there therefore adds neither a
//! circle nor an import from a higher floor.
//!
//! `Type::function` and `self.method()` name the type. In other calls the type of the value is unknown, and only the
//! method's name and its number of arguments are compared. A call `.name(…)` is an arrow if the types that have such a
//! method, among those that the module reaches by paths, all define it in the same module. Some arrows are missed:
//!
//! - where types that the module reaches define such a method in several modules,
//! - where a trait of the crate declares such a method, or the crate implements one for a type,
//! - where std has a method of that name which is used often ([`STD`]),
//! - in macros whose arguments are not a list of expressions,
//! - for values whose type is known only from the associated type of a trait.
//!
//! A method of another crate is mistaken for one of ours if both the name and the number of arguments are equal and the
//! module reaches our type. Then our method needs another name.

use super::module::{Call, Modules};
use super::paths::{self, Definition};
use crate::floors::arrows::{Arrows, Name, add, reached};
use std::collections::{BTreeMap, BTreeSet};

/// The names of methods of std that are used often.
const STD: &str = "\
    abs all and_then any append as_bytes as_deref as_mut as_ref as_slice as_str borrow bytes chain chars \
    chunks clamp clear clone cloned cmp collect concat contains contains_key copied count dedup display \
    drain elapsed ends_with entry enumerate eq exists exp extend extension file_name fill filter filter_map \
    find find_map first flat_map flatten flush fmt fold for_each get get_mut hash insert into into_iter \
    is_empty is_none is_some iter iter_mut join keys kind last len lines load lock map map_err max min next \
    ok ok_or or or_else or_insert parent parse partition pop position pow product push read remove repeat \
    replace resize retain rev round send skip sort split split_at split_first sqrt starts_with store sum \
    swap take then to_owned to_string to_vec trim truncate union unwrap unwrap_or unzip values wait windows \
    write zip";

/// The functions of types.
#[derive(Debug, Default)]
struct Methods {
    /// The modules that define a function of a type outside the type's module: by the type's module, the type and the
    /// function.
    outside: BTreeMap<(Name, String, String), BTreeSet<Name>>,
    /// All methods by name and number of arguments: the module of the type, and the one that defines the method.
    all: BTreeMap<(String, usize), BTreeSet<(Name, Name)>>,
    /// The methods of traits, by name and number of arguments.
    of_traits: BTreeSet<(String, usize)>,
}

/// Adds the arrows by methods to those by paths.
pub fn add_methods(modules: &Modules, arrows: &mut Arrows) {
    let methods = Methods::of(modules);
    let by_paths = arrows.clone();
    for (name, module) in modules {
        let mut add_all = |to: Vec<&Name>, code: &str| {
            to.into_iter().for_each(|to| add(arrows, &module.file, to, code));
        };
        for path in &module.paths {
            add_all(methods.named(modules, name, path), &path.join("::"));
        }
        let mut reached = reached(&module.file, &by_paths);
        reached.insert(&module.file);
        for call in &module.calls {
            let to = match &call.of {
                Some(of) => {
                    methods.named(modules, name, &[of.as_slice(), std::slice::from_ref(&call.name)].concat())
                }
                None => methods.called(call, &reached).into_iter().collect(),
            };
            add_all(to, &format!(".{}()", call.name));
        }
    }
}

impl Methods {
    fn of(modules: &Modules) -> Self {
        let mut methods = Self::default();
        for (name, module) in modules {
            methods.of_traits.extend(module.trait_methods.iter().cloned());
            for function in &module.functions {
                let Some(of) = paths::of_path(modules, name, &function.of) else { continue };
                let type_file = &modules[&of.module].file;
                if let Some(arguments) = function.arguments {
                    let places = methods.all.entry((function.name.clone(), arguments)).or_default();
                    places.insert((type_file.clone(), module.file.clone()));
                }
                if *type_file != module.file {
                    let key = (of.module, of.names.concat(), function.name.clone());
                    methods.outside.entry(key).or_default().insert(module.file.clone());
                }
            }
        }
        methods
    }

    /// The modules that define what a path `Type::function` names, if they are not the type's own.
    fn named(&self, modules: &Modules, from: &Name, path: &[String]) -> Vec<&Name> {
        let Some(Definition { module, names }) = paths::of_path(modules, from, path) else {
            return Vec::new();
        };
        match <[String; 2]>::try_from(names) {
            Ok([of, function]) => self.outside.get(&(module, of, function)).into_iter().flatten().collect(),
            Err(_) => Vec::new(),
        }
    }

    /// The module that defines the method of a call, if it is the only one that can be meant and not the type's own.
    fn called(&self, call: &Call, reached: &BTreeSet<&Name>) -> Option<&Name> {
        let key = (call.name.clone(), call.arguments);
        if STD.split(' ').any(|name| name == call.name) || self.of_traits.contains(&key) {
            return None;
        }
        let mut places = self.all.get(&key)?.iter().filter(|(of, _)| reached.contains(of));
        let (of, module) = places.next()?;
        (places.all(|(_, other)| other == module) && of != module).then_some(module)
    }
}
