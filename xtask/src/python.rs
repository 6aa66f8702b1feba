//! The Python package: built as people build it, tested where there is only NumPy, and where there is more.

use crate::step::Step;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints a Python's version if the package runs on it.
const VERSION: &str = "import sys; sys.version_info >= (3, 10) and print('%d.%d' % sys.version_info[:2])";

/// The wheel of the check is made of what the tests have compiled: the same profile, the same features of dependencies.
const BUILD: &str = "--profile dev --features workspace-build";

/// Whether there is a Python to test with; says so if there is none.
pub(crate) fn is_there() -> bool {
    let found = Command::new("python3").args(["-c", VERSION]).output();
    let is_there = found.is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    if !is_there {
        println!("── python: skipped, there is no python3 of version 3.10 or later");
    }
    is_there
}

/// The wheel, and what is tested with it.
pub(crate) fn steps(root: &Path) -> Result<Vec<Step>, String> {
    let folder = root.join("target/python");
    let wheels = folder.join("wheels");
    if wheels.exists() {
        // One of another version would be installed as well.
        std::fs::remove_dir_all(&wheels).map_err(|e| format!("cannot empty {}: {e}", wheels.display()))?;
    }
    let wheels = wheels.display().to_string();
    let with_wheel = |name, what: &str| environment(name, &["--find-links", &wheels, what], root);
    let build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", &wheels, "./bindings/python"];
    let (bare, bare_python) = with_wheel("python-bare", "causalcone");
    let (full, full_python) = with_wheel("python-full", "causalcone[test,notebook]");
    let tests = ["-m", "pytest", "-q", "-n", "2", "-rs", "bindings/python/tests"];
    let settings = ["-c", "bindings/python/pyproject.toml", "--rootdir", "."];
    let examples = [&["-m", "pytest", "-q", "--doctest-modules"], &settings[..], &["--pyargs", "causalcone"]];
    let mut steps = vec![Step::new("python wheel", "python3", &build).with("MATURIN_PEP517_ARGS", BUILD)];
    steps.extend(bare);
    steps.push(Step::new("python with NumPy alone", bare_python, &["bindings/python/tests/only_numpy.py"]));
    steps.extend(full);
    steps.push(Step::new("python tests", &full_python, &tests));
    steps.push(Step::new("python examples", full_python, &examples.concat()));
    Ok(steps)
}

/// The steps that make an environment of that name and install packages into it, and its Python.
pub(crate) fn environment(name: &'static str, packages: &[&str], root: &Path) -> ([Step; 2], PathBuf) {
    let folder = root.join("target/python").join(name);
    let python = folder.join("bin/python");
    let made = Step::new(name, "python3", &["-m", "venv", "--clear", &folder.display().to_string()]);
    let install = [&["-m", "pip", "install", "--quiet"], packages].concat();
    ([made, Step::new(name, &python, &install)], python)
}
