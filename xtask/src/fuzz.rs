//! Coverage-guided fuzzing: builds `fuzz/tests/libfuzzer.rs` with coverage, and runs its targets.
//!
//! The code of the workspace is compiled with counters; dependencies are not, and are not compiled again. Stable Rust has
//! no option for that, so that this program stands between cargo and rustc: cargo calls it as the wrapper of rustc for
//! the crates of the workspace, and it adds the options of LLVM.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

/// Set where this program is called as the wrapper of rustc.
const WRAPPER: &str = "CAUSALCONE_XTASK_WRAPS_RUSTC";

/// Counters at each edge, and traces of comparisons, as libFuzzer reads them.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Says how many targets run at the same time; as many as there are processors where it is not set.
const WORKERS: &str = "CAUSALCONE_FUZZ_WORKERS";
/// Lines of a target's output that are shown if it fails.
const SHOWN: usize = 30;

/// Compiles a crate with coverage, if cargo has called this program for that.
pub(crate) fn wrap() -> Option<ExitCode> {
    std::env::var_os(WRAPPER)?;
    let mut arguments = std::env::args_os().skip(1);
    let rustc = arguments.next()?;
    let mut command = Command::new(rustc);
    command.args(arguments).args(COVERAGE);
    let status = command.status().ok().and_then(|status| status.code());
    Some(ExitCode::from(status.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Runs a target, or all of them, for so many seconds each.
pub(crate) fn run(target: &str, seconds: &str, root: &Path) -> Result<(), String> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if Command::new(&compiler).arg("--version").output().is_err() {
        println!(
            "── fuzz: SKIPPED: libFuzzer needs a C++ compiler, and {} cannot be run",
            compiler.display()
        );
        return Ok(());
    }
    seconds.parse::<u64>().map_err(|_| format!("\"{seconds}\" is not a number of seconds"))?;
    let program = build(root)?;
    let targets: Vec<(String, String)> =
        targets(&program)?.into_iter().filter(|(name, _)| target == "all" || name == target).collect();
    if targets.is_empty() {
        return Err(format!("no target is named \"{target}\""));
    }
    let seed = std::env::var("CAUSALCONE_FUZZ_SEED").unwrap_or_else(|_| {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
        (now & 0x7fff_ffff).max(1).to_string()
    });
    println!("── fuzz: {} targets, {seconds} s each, CAUSALCONE_FUZZ_SEED={seed}", targets.len());
    let memory = Path::new("/dev/shm");
    let temporary = if memory.is_dir() { memory.to_owned() } else { root.join("target/fuzz") };
    let temporary = temporary.join(format!("causalcone-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&temporary).map_err(|e| format!("cannot make {}: {e}", temporary.display()))?;
    let workers = std::env::var(WORKERS).ok().and_then(|workers| workers.parse().ok());
    let workers =
        workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let one = Run { program, seconds, seed: &seed, temporary: &temporary, root };
    let (open, failed) = (Mutex::new(VecDeque::from(targets)), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let next = || open.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((name, longest)) = next() {
                    if let Err(problem) = one.target(&name, &longest) {
                        println!("{problem}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(name);
                    }
                }
            });
        }
    });
    let _ = std::fs::remove_dir_all(&temporary);
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(format!("fuzz failed: {}", failed.join(", "))) }
}

/// Builds the driver and returns its path.
fn build(root: &Path) -> Result<PathBuf, String> {
    let here = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let build = "test --workspace --test libfuzzer --no-run --locked --features causalcone-fuzz/libfuzzer";
    let output = Command::new("cargo")
        .args(build.split(' '))
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTC_WORKSPACE_WRAPPER", here)
        .env(WRAPPER, "1")
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter(|line| line.contains(r#""name":"libfuzzer""#));
    let path = built.filter_map(|line| line.split_once(r#""executable":""#)?.1.split('"').next()).next_back();
    match path {
        Some(path) if output.status.success() => Ok(path.into()),
        _ => Err(format!("cannot build the driver: cargo {build}")),
    }
}

/// The names of the targets, each with the length of its longest input.
fn targets(program: &Path) -> Result<Vec<(String, String)>, String> {
    let output = Command::new(program).env("CAUSALCONE_FUZZ_TARGET", "list").output();
    let output = output.map_err(|e| format!("cannot run {}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| line.split_once(' ').map(|(name, longest)| (name.to_owned(), longest.to_owned()));
    Ok(text.lines().filter_map(line).collect())
}

/// What all targets have in common.
struct Run<'a> {
    program: PathBuf,
    seconds: &'a str,
    seed: &'a str,
    temporary: &'a Path,
    root: &'a Path,
}

impl Run<'_> {
    /// Runs a target and prints its counts, or returns what it found.
    fn target(&self, name: &str, longest: &str) -> Result<(), String> {
        let folder = self.root.join("target/fuzz").join(name);
        let corpus = folder.join("corpus");
        let io = |e| format!("cannot prepare {}: {e}", folder.display());
        std::fs::create_dir_all(&corpus).map_err(io)?;
        let log = folder.join("log.txt");
        let output = std::fs::File::create(&log).map_err(io)?;
        let mut command = Command::new(&self.program);
        command
            .arg(&corpus)
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-seed={}", self.seed))
            .arg(format!("-max_len={longest}"))
            .arg(format!("-artifact_prefix={}/found-", folder.display()))
            .args(["-timeout=60", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"])
            .env("CAUSALCONE_FUZZ_TARGET", name)
            .env("CAUSALCONE_FUZZ_CORPUS", &corpus)
            .env("CAUSALCONE_FUZZ_TMP", self.temporary)
            .stdout(output.try_clone().map_err(io)?)
            .stderr(output);
        let status = command.status().map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        let text = String::from_utf8_lossy(&std::fs::read(&log).map_err(io)?).into_owned();
        if status.success() {
            println!("   {name}: {}", counts(&text));
            return Ok(());
        }
        let lines: Vec<&str> = text.lines().collect();
        let found = lines.iter().filter_map(|line| line.split_once("Test unit written to ")).next_back();
        let input = found.map_or("INPUT", |(_, path)| path);
        println!("{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
        Err(format!(
            "── fuzz: target {name} failed; the whole output is in {}\n   reproduce: CAUSALCONE_FUZZ_TARGET={name} {} {input}",
            log.display(),
            self.program.display()
        ))
    }
}

/// Runs, edges at the start and at the end, new inputs.
fn counts(log: &str) -> String {
    let after = |line: &str, key: &str| {
        line.split_once(key).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    let line = |key: &str| log.lines().rfind(|line| line.contains(key)).unwrap_or_default();
    let runs = after(line("stat::number_of_executed_units:"), "units:");
    let (first, last) = (after(line("INITED"), "cov: "), after(line(" cov: "), "cov: "));
    let peak = after(line("stat::peak_rss_mb:"), "mb:");
    format!("{runs} runs, edges {first} → {last}, {peak} MB")
}
