//! Development tasks. `cargo xtask test` is the project's whole check: formatting, lints, every
//! test, the documentation, the tour on the real model with its numbers compared, and the Python package.

mod python;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// A step: what it is called, the program, its arguments, extra environment.
struct Step {
    name: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

const fn cargo(name: &'static str, args: &'static [&'static str]) -> Step {
    Step { name, program: "cargo", args, env: &[] }
}

const STEPS: [Step; 8] = [
    cargo("format", &["fmt", "--all", "--check"]),
    cargo("lints", &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]),
    cargo("optional features", &["check", "--package", "causalcone", "--features", "hub", "--locked"]),
    // The real model is fetched once, before many tests want it at the same time.
    cargo("model", &["run", "--locked", "--package", "causalcone", "--", "models", "pull", "smollm2"]),
    cargo("tests", &["test", "--workspace", "--all-targets", "--locked"]),
    cargo("doc tests", &["test", "--workspace", "--doc", "--locked"]),
    Step {
        name: "documentation",
        program: "cargo",
        args: &["doc", "--workspace", "--no-deps", "--locked"],
        env: &[("RUSTDOCFLAGS", "--deny warnings")],
    },
    cargo(
        "tour",
        &[
            "run",
            "--locked",
            "--package",
            "causalcone",
            "--",
            "tour",
            "--check",
            "--force",
            "--out",
            "target/tour",
        ],
    ),
];

const USAGE: &str = "usage: cargo xtask test    check everything: format, lints, tests, docs, the tour";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => test(),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<(), String> {
    let started = Instant::now();
    for step in &STEPS {
        let args: Vec<String> = step.args.iter().map(ToString::to_string).collect();
        run(step.name, Path::new(step.program), &args, step.env)?;
    }
    let mut count = STEPS.len();
    if python::is_there() {
        let steps = python::steps(&root())?;
        count += steps.len();
        for (name, program, args) in steps {
            run(name, &program, &args, &[])?;
        }
    }
    println!("── all {count} steps passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a step, in the root.
fn run(name: &str, program: &Path, args: &[String], env: &[(&str, &str)]) -> Result<(), String> {
    let shown = format!("{} {}", program.display(), args.join(" "));
    println!("── {name}: {shown}");
    let status = Command::new(program)
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root())
        .status()
        .map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed: {shown}")) }
}

/// The workspace's folder, wherever the task is started.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
