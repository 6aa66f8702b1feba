//! The floors of the code: which modules import which, and that no import runs upwards or in a circle.
//!
//! A module is a file. It depends on another one if it names something that is *defined* there: paths are followed through
//! re-exports, so that a `mod.rs` which only collects what its children define is on no floor of its own. Tests are left
//! out as far as they are marked as such. Python modules depend on what they import, wherever in the file, unless it is for
//! type checkers only. What a method call leads to is not followed: the import of its type is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// The crates, and the Python package, below the root.
const CRATES: [&str; 11] = [
    "crates/ops/src",
    "crates/files/src",
    "crates/model/src",
    "crates/engine/src",
    "crates/report/src",
    "crates/jobs/src",
    "crates/causalcone/src",
    "crates/cli/src",
    "bindings/python/src",
    "fuzz/src",
    "xtask/src",
];
const PYTHON: &str = "bindings/python/py_src/causalcone";

/// The floors of the engine, lowest first: a module imports from its own floor and from those below.
const ENGINE: &[&[&str]] = &[
    // Errors, numbers of parts, and what is measured.
    &["error", "ids", "bounds", "labels", "reading", "metric"],
    // What edits do.
    &["op"],
    // What is asked: data only.
    &["experiment"],
    // The same resolved: pure data.
    &["plan"],
    // From an experiment to its plan.
    &["compile"],
    // What the cone executor will compute, without weights.
    &["cone"],
    // What computes it.
    &["execute"],
    // What users run.
    &["run"],
    // Experiments in writing.
    &["schema"],
    // Files of other kinds.
    &["formats"],
    // From what is written to experiments.
    &["load"],
];

/// A module by the names that lead to it.
type Name = Vec<String>;

/// Which modules each module depends on, and by which paths.
type Arrows = BTreeMap<Name, BTreeMap<Name, BTreeSet<String>>>;

/// Checks all crates and the Python package.
///
/// # Errors
/// Every circle and every import that runs upwards, one a line.
pub fn check(root: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    for of in CRATES {
        let arrows = rust(&root.join(of))?;
        problems.extend(circles(&arrows).into_iter().map(|circle| format!("{of}: {circle}")));
        if of == "crates/engine/src" {
            problems.extend(upwards(&arrows, ENGINE).into_iter().map(|arrow| format!("{of}: {arrow}")));
        }
    }
    problems.extend(
        circles(&python(&root.join(PYTHON))?).into_iter().map(|circle| format!("{PYTHON}: {circle}")),
    );
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The modules that import each other, directly or through others, with one path for each arrow between them.
fn circles(arrows: &Arrows) -> Vec<String> {
    let reach: BTreeMap<&Name, BTreeSet<&Name>> =
        arrows.keys().map(|module| (module, reached(module, arrows))).collect();
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for module in arrows.keys().filter(|module| reach[*module].contains(*module)) {
        if told.contains(module) {
            continue;
        }
        let is_in = |other: &&Name| {
            reach[module].contains(*other) && reach.get(*other).is_some_and(|all| all.contains(module))
        };
        let members: Vec<&Name> = arrows.keys().filter(is_in).collect();
        let mut text = format!("a circle of {} modules", members.len());
        for member in &members {
            for (to, paths) in arrows[*member].iter().filter(|(to, _)| members.contains(to)) {
                let paths: Vec<&str> = paths.iter().map(String::as_str).take(4).collect();
                text += &format!("\n    {} → {}: {}", shown(member), shown(to), paths.join(", "));
            }
        }
        told.extend(members);
        found.push(text);
    }
    found
}

/// Imports of one of these floors from a higher one; a module that is on no floor is a problem too.
fn upwards(arrows: &Arrows, floors: &[&[&str]]) -> Vec<String> {
    let floor = |module: &Name| {
        let top = module.first()?;
        floors.iter().position(|floor| floor.contains(&top.as_str()))
    };
    let mut found = Vec::new();
    for (module, imports) in arrows.iter().filter(|(module, _)| !module.is_empty()) {
        let Some(own) = floor(module) else {
            found.push(format!("{} is on no floor", shown(module)));
            continue;
        };
        for (to, paths) in imports.iter().filter(|(to, _)| floor(to).is_some_and(|other| other > own)) {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            found.push(format!("{} imports upwards from {}: {}", shown(module), shown(to), paths.join(", ")));
        }
    }
    found
}

/// What can be reached from a module.
fn reached<'a>(module: &'a Name, arrows: &'a Arrows) -> BTreeSet<&'a Name> {
    let mut open: Vec<&Name> = vec![module];
    let mut found = BTreeSet::new();
    while let Some(next) = open.pop() {
        for to in arrows.get(next).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(to) {
                open.push(to);
            }
        }
    }
    found
}

fn shown(module: &Name) -> String {
    if module.is_empty() { "the root".into() } else { module.join("/") }
}

/// What a module says.
#[derive(Debug, Default)]
struct Module {
    /// The file that it is in: inline modules are part of theirs.
    file: Name,
    /// What its `use` items name, and under which name it is known here.
    uses: Vec<(Vec<String>, String)>,
    /// The other paths in it.
    paths: Vec<Vec<String>>,
}

/// The arrows of a crate.
fn rust(source: &Path) -> Result<Arrows, String> {
    let mut modules = BTreeMap::new();
    let is_library = source.join("lib.rs").exists();
    // The program beside a library is a crate of its own, which imports this one.
    let is_part = |file: &PathBuf| !(is_library && *file == source.join("main.rs"));
    for file in files(source, "rs")?.into_iter().filter(is_part) {
        let text =
            std::fs::read_to_string(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let parsed = syn::parse_file(&text).map_err(|e| format!("cannot parse {}: {e}", file.display()))?;
        let name = name(source, &file, &["mod", "lib", "main"]);
        collect(&parsed.items, &name, &name, &mut modules);
    }
    let mut arrows: Arrows = modules.values().map(|module| (module.file.clone(), BTreeMap::new())).collect();
    for (name, module) in &modules {
        let uses = module.uses.iter().map(|(path, _)| path);
        for path in uses.chain(&module.paths) {
            let to = resolve(&modules, name, path, 0).map(|to| modules[&to].file.clone());
            if let Some(to) = to.filter(|to| *to != module.file) {
                arrows.entry(module.file.clone()).or_default().entry(to).or_default().insert(path.join("::"));
            }
        }
    }
    Ok(arrows)
}

/// Notes a module and those that are written in it.
fn collect(items: &[syn::Item], name: &Name, file: &Name, modules: &mut BTreeMap<Name, Module>) {
    let mut module = Module { file: file.clone(), ..Module::default() };
    for item in items.iter().filter(|item| !is_test(item)) {
        match item {
            syn::Item::Use(item) => tree(&item.tree, &mut Vec::new(), &mut module.uses),
            syn::Item::Mod(syn::ItemMod { content: Some((_, items)), ident, .. }) => {
                let inner = [name.as_slice(), &[ident.to_string()]].concat();
                collect(items, &inner, file, modules);
            }
            other => Paths(&mut module).visit_item(other),
        }
    }
    modules.insert(name.clone(), module);
}

/// Whether an item is compiled for tests only.
fn is_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// The paths of a `use` item.
fn tree(tree_: &syn::UseTree, before: &mut Vec<String>, uses: &mut Vec<(Vec<String>, String)>) {
    let whole = |last: &syn::Ident| [before.as_slice(), &[last.to_string()]].concat();
    match tree_ {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            tree(&path.tree, before, uses);
            before.pop();
        }
        syn::UseTree::Name(name) if name.ident == "self" => {
            uses.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        syn::UseTree::Name(name) => uses.push((whole(&name.ident), name.ident.to_string())),
        syn::UseTree::Rename(rename) => uses.push((whole(&rename.ident), rename.rename.to_string())),
        syn::UseTree::Glob(_) => uses.push((before.clone(), "*".into())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| tree(item, before, uses)),
    }
}

/// Collects the paths of items.
struct Paths<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        tree(&item.tree, &mut Vec::new(), &mut self.0.uses);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.0.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    /// `pub(crate)` names no module.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    /// Of what a macro is given only the words are known: those that two colons join are a path.
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let text = mac.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        for word in words.filter(|word| word.contains("::")) {
            self.0.paths.push(word.trim_matches(':').split("::").map(String::from).collect());
        }
        visit::visit_macro(self, mac);
    }
}

/// The module in which what a path names is defined.
fn resolve(modules: &BTreeMap<Name, Module>, from: &Name, path: &[String], depth: usize) -> Option<Name> {
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
            // What is imported is an arrow of its own; only modules are named without.
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
            // What is defined in another crate is no module of this one.
            let whole = |other: &[String]| [other, others].concat();
            return reexported.find_map(|(other, _)| resolve(modules, &at, &whole(other), depth + 1));
        }
        return Some(at);
    }
    Some(at)
}

/// The arrows of the Python package.
fn python(source: &Path) -> Result<Arrows, String> {
    let all = files(source, "py")?;
    let named = |file: &PathBuf| name(source, file, &["__init__"]);
    let names: BTreeSet<Name> = all.iter().map(named).collect();
    // A compiled module has a stub in place of a file, and imports nothing of the package.
    let stubs: BTreeSet<Name> = files(source, "pyi")?.iter().map(named).collect();
    let mut arrows = Arrows::new();
    for file in &all {
        let text =
            std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let module = name(source, file, &["__init__"]);
        let is_package = file.file_stem().is_some_and(|stem| stem == "__init__");
        let mut imports: BTreeMap<Name, BTreeSet<String>> = BTreeMap::new();
        for (path, what) in python_imports(&text, &module, is_package) {
            // `from .folder import module` names a module; of anything else the folder is meant.
            let inner = [path.as_slice(), std::slice::from_ref(&what)].concat();
            let is_compiled = stubs.contains(&inner) && !names.contains(&inner);
            let to = if names.contains(&inner) { inner } else { path };
            if !is_compiled && names.contains(&to) && to != module {
                imports.entry(to).or_default().insert(what);
            }
        }
        arrows.insert(module, imports);
    }
    Ok(arrows)
}

/// What a Python file imports of its own package: from which module, and which name.
fn python_imports(text: &str, module: &Name, is_package: bool) -> Vec<(Name, String)> {
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

/// Puts what stands in parentheses behind `import` on one line.
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

/// All files with an ending below a folder.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let list =
            std::fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
        for entry in list {
            let path = entry.map_err(|e| format!("cannot read {}: {e}", folder.display()))?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The name of the module in a file.
fn name(source: &Path, file: &Path, roots: &[&str]) -> Name {
    let below = file.strip_prefix(source).unwrap_or(file).with_extension("");
    let mut name: Name = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if name.last().is_some_and(|last| roots.contains(&last.as_str())) {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arrows of a crate with these files.
    fn planted(files: &[(&str, &str)]) -> Arrows {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        if files[0].0.ends_with(".py") {
            python(folder.path()).unwrap()
        } else {
            rust(folder.path()).unwrap()
        }
    }

    #[test]
    fn the_project_has_neither_circles_nor_arrows_upwards() {
        check(&crate::step::root()).unwrap();
    }

    #[test]
    fn a_planted_circle_is_found() {
        let lib = ("lib.rs", "mod a; mod b; pub use a::A;");
        let straight = [lib, ("a.rs", "pub struct A;"), ("b.rs", "use crate::A; fn f(_: A) {}")];
        assert_eq!(circles(&planted(&straight)), Vec::<String>::new());
        let circle = [lib, ("a.rs", "pub struct A; fn g() { crate::b::f(A) }"), straight[2]];
        let found = circles(&planted(&circle));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("a → b: crate::b::f") && found[0].contains("b → a: crate::A"), "{found:?}");
        // In a macro, and between a folder and its child.
        let folder = [
            ("lib.rs", "mod f;"),
            ("f/mod.rs", "mod c; pub struct F; fn g() { vec![c::h()]; }"),
            ("f/c.rs", "pub fn h() {} fn k(_: super::F) {}"),
        ];
        assert_eq!(circles(&planted(&folder)).len(), 1);
        // A facade that only collects is in no circle, and tests are not looked at.
        let facade = [
            ("lib.rs", "mod f;"),
            ("f/mod.rs", "mod c; mod d; pub use c::C; pub use d::D;"),
            ("f/c.rs", "pub struct C; #[cfg(test)] mod tests { use super::super::D; }"),
            ("f/d.rs", "use super::C; pub struct D(C);"),
        ];
        assert_eq!(circles(&planted(&facade)), Vec::<String>::new());
    }

    #[test]
    fn a_program_and_other_crates_are_none_of_the_library() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A; pub use other::Foreign;"),
            ("main.rs", "fn main() { library::run() }"),
            ("a.rs", "use crate::Foreign; pub struct A(Foreign); fn f() { crate::b::g() }"),
            ("b.rs", "pub fn g() { let _: crate::A; }"),
        ];
        let found = circles(&planted(&files));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("a circle of 2 modules"), "{found:?}");
    }

    #[test]
    fn a_planted_arrow_upwards_is_found() {
        let files = [
            ("lib.rs", "mod low; mod high;"),
            ("low.rs", "use crate::high::H;"),
            ("high.rs", "pub struct H;"),
        ];
        let arrows = planted(&files);
        assert_eq!(upwards(&arrows, &[&["high"], &["low"]]), Vec::<String>::new());
        assert_eq!(
            upwards(&arrows, &[&["low"], &["high"]]),
            ["low imports upwards from high: crate::high::H"]
        );
        assert_eq!(upwards(&arrows, &[&["low"]]), ["high is on no floor"]);
    }

    #[test]
    fn a_planted_circle_of_python_is_found() {
        let a = ("a.py", "from .b import (\n    f,  # a comment\n    g,\n)\n");
        let checked = ("b.py", "if TYPE_CHECKING:\n    from .a import x\ndef f(): ...\n");
        assert_eq!(circles(&planted(&[a, checked])), Vec::<String>::new());
        let noted = ("b.py", "from .a import x  # noqa: F401\n");
        assert_eq!(circles(&planted(&[a, noted])).len(), 1);
        let whole = ("b.py", "import causalcone.a\n");
        assert_eq!(circles(&planted(&[a, whole])).len(), 1);
        let late = ("b.py", "def f():\n    from causalcone.a import x\n");
        assert_eq!(circles(&planted(&[a, late])).len(), 1);
        // The package imports a module that takes the compiled one from it; a name of its own would be another matter.
        let package = ("__init__.py", "from .c import f\n");
        let compiled = [package, ("c.py", "from . import _native\n"), ("_native.pyi", "def f(): ...\n")];
        assert_eq!(circles(&planted(&compiled)), Vec::<String>::new());
        assert_eq!(circles(&planted(&[package, ("c.py", "from . import _helper\n")])).len(), 1);
    }
}
