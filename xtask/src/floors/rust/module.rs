//! What a Rust module contains, as far as it makes one module depend on another.

use crate::floors::arrows::Name;
use crate::floors::files::{files, module_name, read};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};

/// The modules of a crate by their names.
pub type Modules = BTreeMap<Name, Module>;

/// What a module contains, without the modules inside it.
#[derive(Debug, Default)]
pub struct Module {
    /// The module of its file: the module itself, or for an inline module the one around it.
    pub file: Name,
    /// The paths of `use` items, and the names they have here.
    pub uses: Vec<(Vec<String>, String)>,
    /// All other paths. `Self` is replaced by the type of the `impl` block.
    pub paths: BTreeSet<Vec<String>>,
    /// What the `impl Type` blocks define.
    pub functions: Vec<Function>,
    /// The methods that traits declare and `impl Trait for Type` blocks define, with their numbers of arguments besides
    /// `self`.
    pub trait_methods: BTreeSet<(String, usize)>,
    /// The calls of methods.
    pub calls: BTreeSet<Call>,
}

/// A function in an `impl Type` block.
#[derive(Debug)]
pub struct Function {
    /// The path of the type.
    pub of: Vec<String>,
    /// Its own name.
    pub name: String,
    /// The number of arguments of a method besides `self`. None for functions without `self`.
    pub arguments: Option<usize>,
}

/// A method call.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The name of the method.
    pub name: String,
    /// The number of arguments besides `self`.
    pub arguments: usize,
    /// The path of the type, known where the method is called on `self`.
    pub of: Option<Vec<String>>,
}

/// Reads all modules of a crate, without those that are compiled for tests only.
///
/// # Errors
/// A file that cannot be read or parsed.
pub fn modules(source: &Path) -> Result<Modules, String> {
    let mut crate_ = Crate::default();
    let is_library = source.join("lib.rs").exists();
    // The program beside a library is a crate of its own, which imports this one.
    let is_part = |file: &PathBuf| !(is_library && *file == source.join("main.rs"));
    for file in files(source, "rs")?.into_iter().filter(is_part) {
        let parsed =
            syn::parse_file(&read(&file)?).map_err(|e| format!("cannot parse {}: {e}", file.display()))?;
        let name = module_name(source, &file, &["mod", "lib", "main"]);
        crate_.add(&parsed.items, &name, &name);
    }
    let Crate { mut modules, tests } = crate_;
    modules.retain(|name, _| !tests.iter().any(|test| name.starts_with(test)));
    Ok(modules)
}

#[derive(Debug, Default)]
struct Crate {
    modules: Modules,
    /// The modules that are compiled for tests only.
    tests: Vec<Name>,
}

impl Crate {
    /// Adds a module and those written inside it.
    fn add(&mut self, items: &[syn::Item], name: &Name, file: &Name) {
        let mut module = Module { file: file.clone(), ..Module::default() };
        for item in items {
            match item {
                syn::Item::Mod(item) => {
                    let inner = [name.as_slice(), &[item.ident.to_string()]].concat();
                    if is_test(&item.attrs) {
                        self.tests.push(inner);
                    } else if let Some((_, items)) = &item.content {
                        self.add(items, &inner, file);
                    }
                }
                other => Reader { module: &mut module, of: None }.visit_item(other),
            }
        }
        self.modules.insert(name.clone(), module);
    }
}

/// Whether an item with these attributes is compiled for tests only.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// Collects what a module contains.
struct Reader<'a> {
    module: &'a mut Module,
    /// The path of the type whose `impl` block is being read.
    of: Option<Vec<String>>,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[_] = match item {
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        use_paths(&item.tree, &mut Vec::new(), &mut self.module.uses);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let syn::Type::Path(of) = &*item.self_ty else { return visit::visit_item_impl(self, item) };
        let of = names(&of.path);
        let functions = item.items.iter().filter_map(|item| match item {
            syn::ImplItem::Fn(function) if !is_test(&function.attrs) => Some(&function.sig),
            _ => None,
        });
        if item.trait_.is_some() {
            self.module.trait_methods.extend(functions.filter_map(method));
        } else {
            self.module.functions.extend(functions.map(|function| Function {
                of: of.clone(),
                name: function.ident.to_string(),
                arguments: arguments(function),
            }));
        }
        let outer = self.of.replace(of);
        visit::visit_item_impl(self, item);
        self.of = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let functions = item.items.iter().filter_map(|item| match item {
            syn::TraitItem::Fn(function) => Some(&function.sig),
            _ => None,
        });
        self.module.trait_methods.extend(functions.filter_map(method));
        let outer = self.of.take();
        visit::visit_item_trait(self, item);
        self.of = outer;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = names(path);
        let path_ = match (&self.of, names.split_first()) {
            (Some(of), Some((first, others))) if first == "Self" => [of, others].concat(),
            _ => names,
        };
        self.module.paths.insert(path_);
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let on_self = matches!(&*call.receiver, syn::Expr::Path(path) if path.path.is_ident("self"));
        self.module.calls.insert(Call {
            name: call.method.to_string(),
            arguments: call.args.len(),
            of: self.of.clone().filter(|_| on_self),
        });
        visit::visit_expr_method_call(self, call);
    }

    /// `pub(crate)` names no module.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    /// The arguments of most macros are expressions. Of those of others, words joined by `::` are paths.
    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.visit_path(&mac.path);
        if let Ok(arguments) = mac.parse_body_with(Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated)
        {
            return arguments.iter().for_each(|argument| Visit::visit_expr(self, argument));
        }
        let text = mac.tokens.to_string().replace(" :: ", "::");
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        for word in words.filter(|word| word.contains("::")) {
            self.module.paths.insert(word.trim_matches(':').split("::").map(String::from).collect());
        }
    }
}

/// The number of arguments of a method besides `self`.
fn arguments(function: &syn::Signature) -> Option<usize> {
    function.receiver().map(|_| function.inputs.len() - 1)
}

/// The name of a method and its number of arguments, unless it is a function without `self`.
fn method(function: &syn::Signature) -> Option<(String, usize)> {
    arguments(function).map(|arguments| (function.ident.to_string(), arguments))
}

fn names(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// The paths of a `use` item, and the names they have in its module.
fn use_paths(tree: &syn::UseTree, before: &mut Vec<String>, uses: &mut Vec<(Vec<String>, String)>) {
    let whole = |last: &syn::Ident| [before.as_slice(), &[last.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => {
            before.push(path.ident.to_string());
            use_paths(&path.tree, before, uses);
            before.pop();
        }
        syn::UseTree::Name(name) if name.ident == "self" => {
            uses.push((before.clone(), before.last().cloned().unwrap_or_default()));
        }
        syn::UseTree::Name(name) => uses.push((whole(&name.ident), name.ident.to_string())),
        syn::UseTree::Rename(rename) => uses.push((whole(&rename.ident), rename.rename.to_string())),
        syn::UseTree::Glob(_) => uses.push((before.clone(), "*".into())),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| use_paths(item, before, uses)),
    }
}
