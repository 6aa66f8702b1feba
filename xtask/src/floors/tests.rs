use super::arrows::{Arrows, circles, upwards};
use super::{check, python, rust};
use tempfile::TempDir;

/// Makes a folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// The arrows by paths in a crate or package with these files.
fn planted(files: &[(&str, &str)]) -> Arrows {
    let folder = folder(files);
    if files[0].0.ends_with(".py") {
        python::arrows(folder.path()).unwrap()
    } else {
        rust::arrows(folder.path()).unwrap().by_paths
    }
}

/// What `low` imports upwards, methods included, where `middle` and `high` are the floors above it.
fn upwards_of_low(low: &str, middle: &str, high: &str) -> Vec<String> {
    let files = [
        ("lib.rs", "mod low; mod middle; mod high;"),
        ("low.rs", low),
        ("middle.rs", middle),
        ("high.rs", high),
    ];
    let arrows = rust::arrows(folder(&files).path()).unwrap().with_methods;
    upwards(&arrows, &[&["low"], &["middle"], &["high"]])
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
    let files =
        [("lib.rs", "mod low; mod high;"), ("low.rs", "use crate::high::H;"), ("high.rs", "pub struct H;")];
    let arrows = planted(&files);
    assert_eq!(upwards(&arrows, &[&["high"], &["low"]]), Vec::<String>::new());
    assert_eq!(upwards(&arrows, &[&["low"], &["high"]]), ["low imports upwards from high: crate::high::H"]);
    assert_eq!(upwards(&arrows, &[&["low"]]), ["high is on no floor"]);
}

#[test]
fn a_call_of_a_method_from_a_higher_floor_is_found() {
    let found = |low: &str, high: &str| upwards_of_low(low, "", high);
    let high = "impl crate::low::T { pub fn expand(&self, _: u8) {} pub fn make() -> Self { Self } }";
    let expected = ["low imports upwards from high: .expand()"];
    assert_eq!(found("pub struct T; fn f(t: &T) { t.expand(1) }", high), expected);
    // In a macro, and where the `impl` block has the type under another name.
    assert_eq!(found("pub struct T; fn f(t: &T) { format!(\"{}\", t.expand(1)); }", high), expected);
    let renamed = "use crate::low::T as U; impl U { pub fn expand(&self, _: u8) {} }";
    assert_eq!(found("pub struct T; fn f(t: &T) { t.expand(1) }", renamed), expected);
    // The type is known: names that several types have, and functions without `self`, are found too.
    let own = "pub struct T; struct U; impl U { fn expand(&self, _: u8) {} fn f(&self) { self.expand(1) } }";
    assert_eq!(found(&format!("{own} fn f(t: &T) {{ t.expand(1) }}"), high), Vec::<String>::new());
    assert_eq!(found(&format!("{own} impl T {{ fn f(&self) {{ self.expand(1) }} }}"), high), expected);
    assert_eq!(
        found("pub struct T; impl T { fn f() { Self::make() } }", high),
        ["low imports upwards from high: T::make"]
    );
}

#[test]
fn a_call_of_another_method_of_the_same_name_is_not_reported() {
    let none = Vec::<String>::new();
    let low = "pub struct T; fn f(list: &[u8]) { list.first(); list.narrow(1, 2); list.compute(); }";
    let high = |methods: &str| format!("impl crate::low::T {{ {methods} }}");
    // A method of std, one with another number of arguments, and one for tests.
    assert_eq!(upwards_of_low(low, "", &high("pub fn first(&self) {}")), none);
    assert_eq!(upwards_of_low(low, "", &high("pub fn narrow(&self, _: u8) {}")), none);
    assert_eq!(upwards_of_low(low, "", &high("#[cfg(test)] pub fn compute(&self) {}")), none);
    assert_eq!(upwards_of_low(low, "", &high("pub fn compute(&self) {}")).len(), 1);
    // A method of a trait, and one of a type that the module cannot have.
    let with_trait = high("pub fn compute(&self) {}") + "trait Compute { fn compute(&self); }";
    assert_eq!(upwards_of_low(low, "", &with_trait), none);
    let of_middle = "impl crate::middle::M { pub fn compute(&self) {} }";
    assert_eq!(upwards_of_low(low, "pub struct M;", of_middle), none);
    // A method from a lower floor is no import upwards, and tests are not looked at.
    let middle = "impl crate::low::T { pub fn compute(&self) {} }";
    assert_eq!(upwards_of_low("pub struct T;", middle, "fn f(t: &crate::low::T) { t.compute() }"), none);
    let test = "pub struct T; #[cfg(test)] mod tests { fn f(t: &super::T) { t.compute() } }";
    assert_eq!(upwards_of_low(test, "", &high("pub fn compute(&self) {}")), none);
}

#[test]
fn files_of_tests_are_not_looked_at() {
    let files = [
        ("lib.rs", "mod low; mod high;"),
        ("low.rs", "#[cfg(test)] mod tests;"),
        ("low/tests.rs", "use crate::high::H;"),
        ("high.rs", "pub struct H;"),
    ];
    assert_eq!(upwards(&planted(&files), &[&["low"], &["high"]]), Vec::<String>::new());
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
