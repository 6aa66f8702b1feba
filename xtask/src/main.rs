//! Development tasks. `cargo xtask test` is the project's whole check: formatting, lints, every
//! test, the documentation, the tour on the real model with its numbers compared, and the Python package.

mod python;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// A step: what it is called, the program, its arguments, extra environment.
struct Step {
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    env: &'static [(&'static str, &'static str)],
}

impl Step {
    fn new(name: &'static str, program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self { name, program: program.into(), args: args.iter().map(ToString::to_string).collect(), env: &[] }
    }

    /// Runs it in the root.
    fn run(&self) -> Result<(), String> {
        let shown = format!("{} {}", self.program.display(), self.args.join(" "));
        println!("── {}: {shown}", self.name);
        let status = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().copied())
            .current_dir(root())
            .status()
            .map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        if status.success() { Ok(()) } else { Err(format!("{} failed: {shown}", self.name)) }
    }
}

fn cargo(name: &'static str, args: &str) -> Step {
    Step::new(name, "cargo", &args.split(' ').collect::<Vec<_>>())
}

fn steps() -> Vec<Step> {
    vec![
        cargo("format", "fmt --all --check"),
        cargo("lints", "clippy --workspace --all-targets --locked -- --deny warnings"),
        cargo("optional features", "check --package causalcone --features hub --locked"),
        // The real model is fetched once, before many tests want it at the same time.
        cargo("model", "run --locked --package causalcone -- models pull smollm2"),
        cargo("tests", "test --workspace --all-targets --locked"),
        cargo("doc tests", "test --workspace --doc --locked"),
        Step {
            env: &[("RUSTDOCFLAGS", "--deny warnings")],
            ..cargo("documentation", "doc --workspace --no-deps --locked")
        },
        cargo("tour", "run --locked --package causalcone -- tour --check --force --out target/tour"),
    ]
}

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
    let mut steps = steps();
    if python::is_there() {
        steps.extend(python::steps(&root())?);
    }
    steps.iter().try_for_each(Step::run)?;
    println!("── all {} steps passed in {:.0} s", steps.len(), started.elapsed().as_secs_f64());
    Ok(())
}

/// The workspace's folder, wherever the task is started.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
