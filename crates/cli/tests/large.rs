//! A model in the shape of Llama 3 8B under limits of memory: what is chosen, refused and predicted, and what is then
//! really taken. Nothing is ever killed.
//!
//! Takes minutes, 5 GB of disk and 9 GB of memory, so that `cargo xtask long` runs it and the check does not.
//!
//! `CAUSALCONE_PYTHON` names an interpreter with numpy and gguf (`fixtures/make_large.py`). The files are written below
//! the target directory and removed afterwards.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const GB: u64 = 1_000_000_000;
const IDS: &str = "1,7,100000,42,9,77";

/// Files that go when they are no longer needed.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let _ = std::fs::remove_dir_all(&files.0);
        std::fs::create_dir_all(&files.0).unwrap();
        files
    }

    fn make(&self, kind: &str, name: &str, layers: usize) -> String {
        let out = self.0.join(name).to_str().unwrap().to_owned();
        let python = std::env::var("CAUSALCONE_PYTHON").unwrap_or_else(|_| "python3".into());
        let made = Command::new(python)
            .arg(Path::new(FIXTURES).join("make_large.py"))
            .args([kind, &out, "--layers", &layers.to_string()])
            .status();
        assert!(made.unwrap().success(), "set CAUSALCONE_PYTHON to an interpreter with numpy and gguf");
        out
    }
}

/// What a command did.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// The most memory it held, in bytes.
    peak: u64,
    seconds: f64,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Runs a command where so many bytes are free, and watches what it holds.
fn run(place: &Place, free: u64, args: &[&str]) -> Ran {
    let started = Instant::now();
    let output = |name: &str| std::fs::File::create(place.path(name)).unwrap();
    let mut child = place
        .command(args)
        .env("CAUSALCONE_FREE_MEMORY", free.to_string())
        .stdout(Stdio::from(output("stdout")))
        .stderr(Stdio::from(output("stderr")))
        .spawn()
        .unwrap();
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        let status = std::fs::read_to_string(&status_file).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        peak = peak.max(1024 * kilobytes.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(status.code().is_some(), "{args:?} was killed: {status}");
    Ran { code: status.code(), stdout: read("stdout"), stderr: read("stderr"), peak, seconds }
}

/// Runs all commands on a model where so many bytes are free. `form` is what should be chosen; it is computed with where
/// `runs` says that this machine can.
fn check(place: &Place, model: &str, free: u64, form: Option<&str>, runs: bool) {
    let shown = format!("{model} with {:.1} GB", free as f64 / GB as f64);
    let text = format!(
        "model = '{model}'\n[runs.base]\nids = [{IDS}]\n[runs.source]\nids = [1, 8, 3, 5, 2, 6]\n\
         [[edit]]\nsite = 'block_output'\nlayers = 'all'\nop = 'swap'\nvalue = {{ run = 'source' }}\n\
         [read]\ntokens = [7, 9]\n[sweep]\nlayers = 'each'\npositions = 'each'\n"
    );
    std::fs::write(place.path("swap.toml"), text).unwrap();
    let info = run(place, free, &["models", "info", model, "--json"]);
    let explained = run(place, free, &["explain", "swap.toml", "--json"]);
    for described in [&info, &explained] {
        // Neither reads weights, nor the gigabytes that hold them.
        assert!(described.peak < GB / 4 && described.seconds < 20.0, "{shown}: {} bytes", described.peak);
    }
    let memory = info.json()["memory"].clone();
    assert_eq!(memory, explained.json()["memory"], "{shown}");
    assert_eq!(memory["chosen"].as_str(), form, "{shown}: {memory}");
    let top = ["top", "-m", model, "--ids", IDS, "--json"];
    let lens = ["lens", "swap.toml", "--out", "lens", "--force", "--json"];
    let Some(form) = form else {
        for args in [&top[..], &lens] {
            let refused = run(place, free, args);
            assert_eq!(refused.code, Some(2), "{shown}: {}", refused.stderr);
            assert!(refused.stderr.contains("fit in memory in no form: full "), "{}", refused.stderr);
            assert!(refused.peak < GB / 4 && refused.seconds < 20.0, "{shown}: {} bytes", refused.peak);
        }
        println!("{shown}: refused, {memory}");
        return;
    };
    if !runs {
        println!("{shown}: {form}, {memory}");
        return;
    }
    for args in [&top[..], &lens] {
        let ran = run(place, free, args);
        ran.json();
        let (peak, predicted) = (ran.peak as f64, memory[form].as_f64().unwrap());
        println!(
            "{shown}: {} as {form}, {:.3} GB at most, {:.3} of the {:.3} GB predicted, in {:.1} s",
            args[0],
            peak / 1e9,
            peak / predicted,
            predicted / 1e9,
            ran.seconds
        );
        assert!((0.9..1.1).contains(&(peak / predicted)), "{shown}: {peak} bytes, not {predicted}");
        assert!(ran.peak <= free, "{shown}: {peak} bytes");
    }
}

#[test]
#[ignore = "takes minutes, 5 GB of disk and 9 GB of memory"]
fn models_of_8_billion_parameters_run_in_the_memory_there_is() {
    let files = Files::new("large");
    let place = Place::new();
    let quantised = files.make("q4_0", "q4_0.gguf", 32);
    for (free, form) in [(4, None), (8, Some("packed")), (16, Some("packed")), (40, Some("full"))] {
        check(&place, &quantised, free * GB, form, free < 20);
    }
    std::fs::remove_file(&quantised).unwrap();
    let half = files.make("bf16", "bf16", 32);
    for (free, form) in [(4, None), (8, None), (16, None), (20, Some("half")), (40, Some("full"))] {
        check(&place, &half, free * GB, form, false);
    }
    // The same shape with four layers, small enough to be run as half and as full.
    let some_layers = files.make("bf16", "bf16-4", 4);
    for (free, form) in [(5, "half"), (9, "full")] {
        check(&place, &some_layers, free * GB, Some(form), true);
    }
}
