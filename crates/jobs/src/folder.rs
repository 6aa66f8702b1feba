//! The folder that a job writes to: never mixed with other results, never half-written.
//!
//! ```
//! use causalcone_jobs::{Again, Folder, Results};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = tempfile::tempdir()?;
//! let out = place.path().join("sweep");
//! let folder = Folder::claim(&out, Results::Sweep, Again::Refuse)?;
//! assert_eq!(folder.file("cells.csv"), out.join("cells.csv"));
//! drop(folder); // nothing was written: the folder goes too
//! assert!(!out.exists());
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, FolderError, Result};
use crate::identity::Identity;
use crate::observer::Observer;
use crate::results::{IDENTITY, INTERVENTION, JOURNAL, Results, UNFINISHED};
use causalcone_engine::{Journal, Saved, Values};
use causalcone_files::{FolderLock, PlaceKind, check_folder, remove_file, remove_folder, write_whole};
use causalcone_model::chat::Date;
use causalcone_model::file::DataFile;
use causalcone_report::picture;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An identity is longer than this only by mistake.
const MOST_OF_IDENTITY: u64 = 1 << 20;

/// What to do with results that are already there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Again {
    /// Refuse the folder.
    #[default]
    Refuse,
    /// Continue the work that left them, from what the folder holds.
    Resume,
    /// Replace them.
    Replace,
}

/// A path as results show it: what is no text in it becomes a replacement character.
#[must_use]
pub fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

/// A folder that this process alone writes to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    again: Again,
    results: Results,
    /// Held until the work is over; what was created for work that is refused goes with it.
    _lock: FolderLock,
}

impl Folder {
    /// Checks, before any work, that results can go to this folder, and takes it for this process. Nothing in it is changed
    /// yet.
    ///
    /// # Errors
    /// When another process writes to it, it cannot be written to, or it holds results that are neither to be resumed nor
    /// to be replaced.
    pub fn claim(path: &Path, results: Results, again: Again) -> Result<Self> {
        // Whatever the reason, it is this folder that cannot be written to.
        let lock = FolderLock::take(path).map_err(FolderError::Locked)?;
        let folder = || path.to_owned();
        let held = held(path, results);
        if !held.is_empty() && again == Again::Refuse {
            let is_unfinished = has(&held, IDENTITY) && !has(&held, results.last());
            return Err(FolderError::Occupied { folder: folder(), held, is_unfinished }.into());
        }
        let lost = !held.is_empty() && !has(&held, IDENTITY);
        if again == Again::Resume && lost {
            return Err(FolderError::NotResumable { folder: folder(), held }.into());
        }
        let folder = Self { path: path.into(), again, results, _lock: lock };
        // Of what is itself a folder, more may be lost than a file of that name.
        for name in [INTERVENTION, UNFINISHED].into_iter().filter(|name| has(&held, name)) {
            let path = folder.file(name);
            if PlaceKind::at(&path)? != Some(PlaceKind::Folder) {
                return Err(FolderError::Foreign { path }.into());
            }
            check_folder(&path, Saved::has_file)?;
        }
        Ok(folder)
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of this folder is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where a file of this folder is, as results show it.
    pub(crate) fn shown(&self, name: &str) -> String {
        shown(self.file(name))
    }

    /// Refuses to write results of another kind than the folder was claimed for.
    pub(crate) fn must_be_for(&self, results: Results) -> Result<()> {
        if self.results == results {
            return Ok(());
        }
        let (claimed, wanted) = (self.results.described(), results.described());
        Err(FolderError::Kind { folder: self.path.clone(), claimed, wanted }.into())
    }

    /// Begins to write. Results that are to be replaced go now: the work has been checked whole.
    pub(crate) fn make(&self) -> Result<()> {
        if self.again == Again::Replace {
            for name in held(&self.path, self.results) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Removes a file of ours, or a saved intervention.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.file(name);
        match PlaceKind::at(&path)? {
            None => Ok(()),
            Some(PlaceKind::Folder) => {
                check_folder(&path, Saved::has_file)?;
                Ok(remove_folder(&path)?)
            }
            Some(_) => Ok(remove_file(&path)?),
        }
    }

    /// Removes all results of this kind: those of work that failed, where no part of them is of use.
    pub(crate) fn discard(&self) {
        for name in held(&self.path, self.results) {
            let _ = self.remove(&name);
        }
    }

    /// Makes the folder that of this work; results that are to be resumed must be of the same.
    pub(crate) fn open(&self, identity: &Identity, observer: &dyn Observer) -> Result<()> {
        self.make()?;
        if let Some(earlier) = self.earlier()? {
            if let Some(difference) = identity.difference(&earlier) {
                let (field, earlier, now) = (difference.field, difference.earlier, difference.now);
                return Err(FolderError::Different { folder: self.path.clone(), field, earlier, now }.into());
            }
        } else {
            write_whole(self.file(IDENTITY), |w| Ok(serde_json::to_writer_pretty(w, identity)?))?;
        }
        observer.resumable();
        Ok(())
    }

    /// What the work is that left unfinished or finished results here, unless they are to be replaced.
    fn earlier(&self) -> Result<Option<Identity>> {
        let path = self.file(IDENTITY);
        if self.again == Again::Replace || PlaceKind::at(&path)?.is_none() {
            return Ok(None);
        }
        let text = DataFile::open(&path)?.read_all(MOST_OF_IDENTITY)?;
        let earlier = serde_json::from_slice(&text);
        Ok(Some(earlier.map_err(|e| FolderError::Identity { path, problem: e.to_string() })?))
    }

    /// The date that chat templates saw when the work began that is to be resumed.
    pub(crate) fn earlier_date(&self) -> Result<Option<Date>> {
        Ok(self.earlier()?.and_then(|earlier| earlier.date))
    }

    /// Opens the folder and its journal, and gives back the cells that it holds already.
    pub(crate) fn journal(
        &self,
        identity: &Identity,
        (cells, values): (usize, usize),
        observer: &dyn Observer,
    ) -> Result<(Journal, BTreeMap<usize, Values>)> {
        self.open(identity, observer)?;
        Ok(Journal::open(&self.file(JOURNAL), &identity.hash(), cells, values)?)
    }

    /// Writes a file whole or not at all.
    pub(crate) fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>,
    ) -> Result<()> {
        // That the folder can be written to was checked before any work: what fails now is the run.
        let written = write_whole(self.file(name), fill);
        written.map_err(|error| Error::Failed { message: error.to_string(), hint: error.hint() })
    }

    /// Writes a file that is one JSON document.
    pub(crate) fn write_json(&self, name: &str, document: &impl Serialize) -> Result<()> {
        self.write(name, |w| Ok(serde_json::to_writer_pretty(w, document)?))
    }

    /// Writes a figure, as far as there is room for it; returns the names of its files. What is too large to draw is no
    /// reason to lose a table.
    pub(crate) fn draw(
        &self,
        stem: &str,
        svg: Result<String, causalcone_report::Error>,
        observer: &dyn Observer,
    ) -> Result<Vec<String>> {
        let (svg_name, png_name) = (format!("{stem}.svg"), format!("{stem}.png"));
        let svg = match svg {
            Ok(svg) => svg,
            Err(e) => {
                observer.note(&format!("no {svg_name}: {e}"));
                return Ok(Vec::new());
            }
        };
        self.write(&svg_name, |w| w.write_all(svg.as_bytes()))?;
        let mut drawn = vec![svg_name];
        match PNG_SCALES.iter().find_map(|scale| picture(&svg, *scale).ok()) {
            Some(png) => {
                self.write(&png_name, |w| w.write_all(&png))?;
                drawn.push(png_name);
            }
            None => observer.note(&format!("no {png_name}: the figure is too large for a picture")),
        }
        Ok(drawn)
    }
}

/// PNG figures are drawn at twice the size of the SVG, for screens that show it so; large ones smaller.
const PNG_SCALES: [f32; 3] = [2.0, 1.0, 0.5];

/// The files of a folder that such work has left.
fn held(path: &Path, results: Results) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut held: Vec<String> = names.filter(|name| results.has(name)).collect();
    held.sort();
    held
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}
