//! The journal of a sweep: finished cells, one line each, so that work cut short can go on.
//!
//! A line is `{"cell": 3, "values": [0.25, null], "sum": "…"}`; the sum is the start of a SHA-256
//! over the experiment's own hash, the cell and its values, so lines of another experiment, torn or
//! changed ones are told apart. A cell is reported as finished only after its line is on disk.

use crate::{Error, Result};
use causalcone_files::Appended;
use causalcone_model::store::sha256_of;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// How every line starts.
const START: &[u8] = b"{\"cell\":";
/// What a crash may leave behind the last whole line.
const MAX_NULS: u64 = 1 << 20;

/// The numbers of one cell, in the order of its metrics and tokens; `None` where not finite.
pub type Values = Vec<Option<f64>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    cell: usize,
    values: Values,
    sum: String,
}

/// An open journal.
///
/// ```
/// use causalcone_engine::Journal;
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("journal.jsonl");
/// let (mut journal, done) = Journal::open(&path, "hash of the experiment", 2, 1)?;
/// assert!(done.is_empty());
/// journal.append([(1, vec![Some(0.5)])])?;
/// drop(journal);
/// let (_, done) = Journal::open(&path, "hash of the experiment", 2, 1)?;
/// assert_eq!(done[&1], [Some(0.5)]);
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    file: Appended,
    experiment: String,
}

impl Journal {
    /// Opens a journal for an experiment of so many cells of so many values, creating it if there
    /// is none, and gives the cells it holds. A torn last line is cut off; the journal is locked
    /// against other processes until it is dropped.
    ///
    /// # Errors
    /// When it cannot be opened, another process has it, or a whole line is not of this experiment.
    pub fn open(
        path: &Path,
        experiment: &str,
        cells: usize,
        values: usize,
    ) -> Result<(Self, BTreeMap<usize, Values>)> {
        let io = |doing| move |source| Error::io(path, doing, source);
        let file = Appended::open(path)?;
        // File systems without locks leave it to the lock of the folder.
        if matches!(file.file().try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(bad(
                path,
                "another process is writing to it".into(),
                Some("wait until it has finished, or choose another --out"),
            ));
        }
        let journal = Self { file, experiment: experiment.into() };
        let mut done = BTreeMap::new();
        let mut whole = 0u64;
        let mut reader = BufReader::new(journal.file.file());
        // A number takes at most 25 bytes with its comma, the rest of a line less than 100.
        let longest = 100 + 32 * values as u64;
        for number in 1usize.. {
            let mut line = Vec::new();
            let n = reader.by_ref().take(longest).read_until(b'\n', &mut line).map_err(io("read"))?;
            if n == 0 || is_torn(&line, longest, !done.is_empty(), &mut reader).map_err(io("read"))? {
                break;
            }
            if n as u64 == longest {
                return Err(bad(path, format!("line {number} is longer than any line of a journal"), None));
            }
            let (cell, numbers) = journal.parse(&line, cells, values).map_err(|problem| {
                bad(
                    path,
                    format!("line {number} {problem}"),
                    Some("remove the journal, or start over with --force"),
                )
            })?;
            if done.insert(cell, numbers).is_some() {
                return Err(bad(
                    path,
                    format!("line {number} has cell {cell} a second time"),
                    Some("start over with --force"),
                ));
            }
            whole += n as u64;
        }
        // What follows the last whole line was never reported as finished.
        journal.file.truncate(whole)?;
        Ok((journal, done))
    }

    fn parse(&self, line: &[u8], cells: usize, values: usize) -> Result<(usize, Values), String> {
        let Line { cell, values: numbers, sum } =
            serde_json::from_slice(line).map_err(|_| "is not a line of a journal".to_string())?;
        if cell >= cells || numbers.len() != values || sum != self.sum(cell, &numbers) {
            return Err("is damaged or of another experiment".into());
        }
        Ok((cell, numbers))
    }

    fn sum(&self, cell: usize, values: &Values) -> String {
        let values: Vec<String> =
            values.iter().map(|v| v.map_or("-".into(), |v| format!("{:016x}", v.to_bits()))).collect();
        let mut sum = sha256_of(format!("{} {cell} {}", self.experiment, values.join(" ")));
        sum.truncate(16);
        sum
    }

    /// Writes finished cells and waits until they are on disk.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be written.
    pub fn append(&mut self, cells: impl IntoIterator<Item = (usize, Values)>) -> Result<()> {
        let mut text = Vec::new();
        for (cell, values) in cells {
            let sum = self.sum(cell, &values);
            let line = serde_json::to_string(&Line { cell, values, sum });
            // Numbers and texts are always JSON.
            text.extend_from_slice(line.unwrap_or_default().as_bytes());
            text.push(b'\n');
        }
        self.file.append(&text)?;
        Ok(self.file.sync()?)
    }
}

/// Whether a line is what a crash leaves of one: its beginning, or NULs where its blocks were not
/// written. A file that has no whole line of ours must hold nothing else: it may be another file.
fn is_torn(line: &[u8], longest: u64, is_ours: bool, rest: &mut impl BufRead) -> std::io::Result<bool> {
    let text = line.split(|b| *b == 0).next().unwrap_or_default();
    let begins = text.starts_with(START) || START.starts_with(text);
    if text.len() == line.len() {
        return Ok(begins && line.last() != Some(&b'\n') && (line.len() as u64) < longest);
    }
    if is_ours {
        return Ok(true);
    }
    let mut tail = Vec::new();
    let n = rest.take(MAX_NULS).read_to_end(&mut tail)? as u64;
    let nuls = line[text.len()..].iter().chain(&tail).all(|b| *b == 0);
    Ok(begins && nuls && n < MAX_NULS)
}

fn bad(path: &Path, problem: String, hint: Option<&str>) -> Error {
    Error::Journal { path: path.into(), problem, hint: hint.map(Into::into) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const CELLS: [(usize, f64); 3] = [(0, 0.1), (2, -1e-300), (1, 5e17)];

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path, "x", 5, 2).unwrap();
        for (cell, value) in CELLS {
            journal.append([(cell, vec![Some(value), None])]).unwrap();
        }
        (folder, path)
    }

    fn reopen(path: &Path) -> Result<BTreeMap<usize, Values>> {
        Journal::open(path, "x", 5, 2).map(|(_, done)| done)
    }

    #[test]
    fn gives_back_what_was_written() {
        let (_folder, path) = written();
        let done = reopen(&path).unwrap();
        assert_eq!(done.len(), 3);
        for (cell, value) in CELLS {
            assert_eq!(done[&cell], [Some(value), None]);
        }
    }

    #[test]
    fn cut_anywhere_it_keeps_the_whole_lines() {
        let (_folder, path) = written();
        let whole = std::fs::read(&path).unwrap();
        for n in 0..whole.len() {
            std::fs::write(&path, &whole[..n]).unwrap();
            let lines = whole[..n].iter().filter(|b| **b == b'\n').count();
            assert_eq!(reopen(&path).unwrap().len(), lines);
            assert_eq!(std::fs::read(&path).unwrap().iter().filter(|b| **b == b'\n').count(), lines);
        }
        std::fs::write(&path, [&whole[..], &[0; 512]].concat()).unwrap();
        assert_eq!(reopen(&path).unwrap().len(), 3);
    }

    #[test]
    fn refuses_damage_repetition_and_other_experiments() {
        let (_folder, path) = written();
        let whole = std::fs::read_to_string(&path).unwrap();
        let first = whole.lines().next().unwrap();
        for text in [
            whole.replace("0.1", "0.2"),
            format!("{first}\n{first}\n"),
            "\n".into(),
            "{\"cell\":0,\"values\":[]}\n".into(),
            "hello\n".into(),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(reopen(&path).is_err());
        }
        std::fs::write(&path, &whole).unwrap();
        assert!(Journal::open(&path, "y", 5, 2).is_err());
        assert!(Journal::open(&path, "x", 2, 2).is_err());
    }

    #[test]
    fn a_second_writer_is_refused() {
        let (_folder, path) = written();
        let (_first, _) = Journal::open(&path, "x", 5, 2).unwrap();
        assert!(matches!(reopen(&path), Err(Error::Journal { .. })));
    }
}
