//! Development tasks.
//!
//! `cargo xtask test` is the project's whole check: formatting, lints, every test, the documentation, the tour on the real
//! model with its numbers compared, ten seconds of fuzzing for each reader, and the Python package. It prints how long each
//! step takes. `cargo xtask long` runs what takes too long for it.
//!
//! The steps are chosen so that each dependency is compiled twice and no more: checked for the lints and the documentation,
//! built for everything that runs. All steps therefore select the whole workspace, since cargo gives a dependency other
//! features when it builds one package alone, and compiles it again.

#[cfg(test)]
mod dependencies;
mod floors;
mod fuzz;
mod python;
mod step;

use std::process::ExitCode;
use std::time::Instant;
use step::{Step, root};

fn cargo(name: &'static str, args: &str) -> Step {
    Step::new(name, "cargo", &args.split(' ').collect::<Vec<_>>())
}

/// The command, as the tests' build has left it beside this program.
fn command(name: &'static str, args: &str) -> Result<Step, String> {
    let here = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let program = here.with_file_name(format!("causalcone{}", std::env::consts::EXE_SUFFIX));
    Ok(Step::new(name, program, &args.split(' ').collect::<Vec<_>>()))
}

/// This program once more, with other arguments.
fn itself(name: &'static str, args: &[&str]) -> Result<Step, String> {
    let here = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    Ok(Step::new(name, here, args))
}

fn steps() -> Result<Vec<Step>, String> {
    let mut steps = vec![
        cargo("format", "fmt --all --check"),
        // With the optional features, which are thereby compiled too; the tests are built without them.
        cargo(
            "lints",
            "clippy --workspace --all-targets --features causalcone/hub --locked -- --deny warnings",
        ),
        // The only crate that differs in builds without debug assertions.
        cargo("release build", "check --release --package causalcone-files --locked"),
        // The only crate that differs in builds without the feature `chat`.
        cargo("without chat", "check --package causalcone-chat --no-default-features --locked"),
        cargo("documentation", "doc --workspace --no-deps --features causalcone/hub --locked")
            .with("RUSTDOCFLAGS", "--deny warnings"),
        cargo("build", "test --workspace --all-targets --locked --no-run"),
        // The real model is fetched once, before many tests want it at the same time.
        command("model", "models pull smollm2")?,
        cargo("tests", "test --workspace --all-targets --locked"),
        cargo("doc tests", "test --workspace --doc --locked"),
        command("tour", "tour --check --force --out target/tour")?,
        // From the same seed each time: what a longer run finds becomes a seed of its target.
        itself("fuzz", &["fuzz", "all", "10"])?.with("CAUSALCONE_FUZZ_SEED", "1"),
    ];
    if python::is_there() {
        steps.extend(python::steps(&root())?);
    }
    Ok(steps)
}

/// What takes too long for the check: the tests that are marked as ignored, which say why. They make large models with a
/// Python of their own; about 10 GB of memory and of disk.
fn long() -> Vec<Step> {
    let ([made, installed], python) =
        python::environment("python-long", &["numpy==2.4.6", "gguf==0.19.0"], &root());
    let tests = "test --workspace --all-targets --locked -- --ignored --nocapture --skip hostile_files";
    let tests = cargo("long tests", tests).with("CAUSALCONE_PYTHON", python.display().to_string());
    vec![made, installed, tests]
}

/// A long fuzzing run: one target or all of them, then the command on hostile files.
fn long_fuzz(target: &str, seconds: &str) -> Result<Vec<Step>, String> {
    let mut steps = vec![itself("fuzz", &["fuzz", target, seconds])?];
    if target == "all" {
        let driver = "test --workspace --all-targets --locked -- --ignored --nocapture hostile_files";
        steps.push(cargo("command on hostile files", driver));
    }
    Ok(steps)
}

const USAGE: &str =
    "usage: cargo xtask test    check everything: format, lints, tests, docs, the tour, fuzzing for seconds, Python
       cargo xtask long    run what takes too long for that: large models
       cargo xtask long fuzz [TARGET] [SECONDS]    fuzz each target for 600 s, then the command
       cargo xtask fuzz TARGET|all SECONDS    run the fuzz targets only
       cargo xtask floors    which modules import each other in circles, or upwards; a test of xtask checks it";

fn main() -> ExitCode {
    if let Some(status) = fuzz::wrap() {
        return status;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test"] => steps().and_then(|steps| run(&steps)),
        ["floors"] => floors::check(&root()),
        ["long"] => run(&long()),
        ["long", "fuzz"] => long_fuzz("all", "600").and_then(|steps| run(&steps)),
        ["long", "fuzz", target] => long_fuzz(target, "600").and_then(|steps| run(&steps)),
        ["long", "fuzz", target, seconds] => long_fuzz(target, seconds).and_then(|steps| run(&steps)),
        ["fuzz", target, seconds] => fuzz::run(target, seconds, &root()),
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

/// Runs steps until one fails, and prints how long each took.
fn run(steps: &[Step]) -> Result<(), String> {
    let started = Instant::now();
    let mut times = Vec::new();
    let outcome = steps.iter().try_for_each(|step| {
        let started = Instant::now();
        let outcome = step.run();
        times.push((step.name, started.elapsed().as_secs_f64()));
        outcome
    });
    println!("── seconds");
    times.iter().for_each(|(name, seconds)| println!("{seconds:8.1}  {name}"));
    let (passed, total) = (times.len(), started.elapsed().as_secs_f64());
    outcome.inspect(|()| println!("── all {passed} steps passed in {total:.0} s"))
}
