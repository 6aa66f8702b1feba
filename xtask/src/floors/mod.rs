//! The floors of the code: checks that no modules import each other in a circle, and that no module of the engine imports
//! from a higher floor.
//!
//! A module is a file. It depends on the modules that *define* what it names. Paths are followed through re-exports, so a
//! `mod.rs` that only re-exports what its children define is on no floor of its own. Python modules depend on what they
//! import anywhere in the file. Code that is marked as compiled for tests only is left out, and so are Python's imports for
//! type checkers only.
//!
//! An `impl` block can be in another module than its type. The check of the floors therefore follows calls of methods too,
//! as far as it can tell which method is meant (`rust/methods.rs`). The check for circles follows paths only: blocks of the
//! same type in several modules of a floor may call each other.

mod arrows;
mod files;
mod python;
mod rust;
#[cfg(test)]
mod tests;

use arrows::{circles, upwards};
use std::path::Path;

/// The crates, and the Python package, below the root.
const CRATES: [&str; 12] = [
    "crates/ops/src",
    "crates/files/src",
    "crates/chat/src",
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
    // Errors, reading of documents, numbers of parts, and what is measured.
    &["error", "ids", "bounds", "labels", "parse", "reading", "metric"],
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

/// Checks all crates and the Python package.
///
/// # Errors
/// Every circle and every import that runs upwards, one a line.
pub fn check(root: &Path) -> Result<(), String> {
    let mut problems = Vec::new();
    for of in CRATES {
        let arrows = rust::arrows(&root.join(of))?;
        problems.extend(circles(&arrows.by_paths).into_iter().map(|circle| format!("{of}: {circle}")));
        if of == "crates/engine/src" {
            problems.extend(
                upwards(&arrows.with_methods, ENGINE).into_iter().map(|arrow| format!("{of}: {arrow}")),
            );
        }
    }
    problems.extend(
        circles(&python::arrows(&root.join(PYTHON))?).into_iter().map(|circle| format!("{PYTHON}: {circle}")),
    );
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}
