//! Steps: programs that are run in the workspace's folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A step: what it is called, the program, its arguments, extra environment.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl Step {
    pub(crate) fn new(name: &'static str, program: impl Into<PathBuf>, args: &[&str]) -> Self {
        Self {
            name,
            program: program.into(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
        }
    }

    /// The same with one more variable in its environment.
    pub(crate) fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.env.push((variable, value.into()));
        self
    }

    /// Runs it in the root.
    pub(crate) fn run(&self) -> Result<(), String> {
        let shown = format!("{} {}", self.program.display(), self.args.join(" "));
        println!("── {}: {shown}", self.name);
        let status = Command::new(&self.program)
            .args(&self.args)
            // What incremental builds prepare for the next change takes nearly as long again as compiling.
            .env("CARGO_INCREMENTAL", "0")
            .envs(self.env.iter().map(|(variable, value)| (variable, value)))
            .current_dir(root())
            .status()
            .map_err(|e| format!("cannot run {}: {e}", self.program.display()))?;
        if status.success() { Ok(()) } else { Err(format!("{} failed: {shown}", self.name)) }
    }
}

/// The workspace's folder, wherever the task is started.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
