//! What the command's tests share: a folder of their own, the command, and what it says.
#![allow(dead_code, reason = "no test file uses all of it")]

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

/// A folder of its own for one test, with a cache of its own.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The command, to be run in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_causalcone"));
        command.current_dir(self.0.path()).env("CAUSALCONE_CACHE", self.path("cache")).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed and gives its one JSON document.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[args, &["--json"]].concat());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stderr.is_empty(), "nothing is said where stderr is no terminal");
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Runs a command that must be refused, and gives what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(out.stdout.is_empty(), "{args:?} prints to stdout");
        assert!(!said.contains("panicked"), "{said}");
        said
    }

    /// Runs a command on a disk that is full, as a limit on the size of files makes it.
    #[cfg(unix)]
    pub fn run_on_full_disk(&self, args: &str) -> Output {
        let command = env!("CARGO_BIN_EXE_causalcone");
        let limited = format!("ulimit -f 0; exec '{command}' {args}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &limited]).current_dir(self.0.path()).env("CAUSALCONE_CACHE", self.path("cache"));
        shell.output().unwrap()
    }

    /// Writes an experiment file on a tiny model.
    pub fn experiment(&self, name: &str, rest: &str) -> String {
        let base = "[runs.base]\nids = [3, 1, 4, 1, 5]\n[runs.source]\nids = [2, 7, 1, 8, 2]\n";
        let text = format!("model = '{FIXTURES}/tiny-llama'\n{base}{rest}");
        std::fs::write(self.path(name), text).unwrap();
        name.into()
    }
}

/// Sends a signal to a command that runs.
#[cfg(unix)]
pub fn signal(child: &std::process::Child, name: &str) {
    assert!(
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success()
    );
}
