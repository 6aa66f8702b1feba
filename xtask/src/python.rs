//! The Python package: built as people build it, tested where there is only NumPy, and where there is more.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Prints a Python's version if the package runs on it.
const VERSION: &str = "import sys; sys.version_info >= (3, 10) and print('%d.%d' % sys.version_info[:2])";

/// Whether there is a Python to test with; says so if there is none.
pub(crate) fn is_there() -> bool {
    let found = Command::new("python3").args(["-c", VERSION]).output();
    let is_there = found.is_ok_and(|output| output.status.success() && !output.stdout.is_empty());
    if !is_there {
        println!("── python: skipped, there is no python3 of version 3.10 or later");
    }
    is_there
}

/// What runs in turn: a name, a program, its arguments.
pub(crate) fn steps(root: &Path) -> Result<Vec<(&'static str, PathBuf, Vec<String>)>, String> {
    let folder = root.join("target/python");
    let wheels = folder.join("wheels");
    if wheels.exists() {
        // One of another version would be installed as well.
        std::fs::remove_dir_all(&wheels).map_err(|e| format!("cannot empty {}: {e}", wheels.display()))?;
    }
    let python = |environment: &str| folder.join(environment).join("bin/python");
    let (wheels, folder_of) = (wheels.display().to_string(), |name: &str| folder.join(name).display().to_string());
    let tests = "bindings/python/tests";
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<String>>();
    let install = |what: &str| words(&["-m", "pip", "install", "--quiet", "--find-links", &wheels, what]);
    Ok(vec![
        (
            "python wheel",
            "python3".into(),
            words(&["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", &wheels, "./bindings/python"]),
        ),
        ("bare environment", "python3".into(), words(&["-m", "venv", "--clear", &folder_of("bare")])),
        ("bare environment", python("bare"), install("causalcone")),
        ("python with NumPy alone", python("bare"), words(&[&format!("{tests}/only_numpy.py")])),
        ("full environment", "python3".into(), words(&["-m", "venv", "--clear", &folder_of("full")])),
        ("full environment", python("full"), install("causalcone[test,notebook]")),
        ("python tests", python("full"), words(&["-m", "pytest", "-q", "-n", "2", "-rs", tests])),
        (
            "python examples",
            python("full"),
            words(&["-m", "pytest", "-q", "--doctest-modules", "-c", "bindings/python/pyproject.toml", "--rootdir", ".", "--pyargs", "causalcone"]),
        ),
    ])
}
