//! Reading and writing the folder.

use super::format::{DESCRIPTION, Description, WEIGHTS};
use super::intervention::Saved;
use super::{card, pyvene};
use crate::schema::LAYER;
use crate::{Error, Result, parse};
use causalcone_files::{IfExists, NewFolder};
use causalcone_model::file::{DataFile, Weights};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// What is in a folder of ours.
const FILES: [&str; 3] = [DESCRIPTION, WEIGHTS, README];
/// What people read first.
const README: &str = "README.md";
/// A description is longer than this only by mistake: its numbers are in the weights.
const MAX_DESCRIPTION: u64 = 16 << 20;

impl Saved {
    /// Writes the folder, whole or not at all. It replaces a saved intervention of that name, and nothing else.
    ///
    /// # Errors
    /// As [`Saved::write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write(path.as_ref(), IfExists::Replace)
    }

    /// Writes the folder, whole or not at all. A saved intervention that is to be replaced stays as it was if anything
    /// fails.
    ///
    /// # Errors
    /// When the name is taken by something that may not be replaced, such as a folder with files that this crate did not
    /// write; when the folder cannot be written.
    pub fn write(&self, path: &Path, if_exists: IfExists) -> Result<()> {
        let replace = if_exists == IfExists::Replace;
        let failed = |problem: String| Error::File { path: path.into(), problem, hint: None };
        if replace && path.is_dir() && !path.join(DESCRIPTION).is_file() && !is_empty_folder(path) {
            let hint = Some("give the name of a new folder".into());
            let problem = "already exists and is not a saved intervention".to_string();
            return Err(Error::File { path: path.into(), problem, hint });
        }
        // Everything is written beside it first, so that what is there stays until all of it is on the disk.
        let new = NewFolder::create(path)?;
        let description = serde_json::to_string_pretty(&self.description)
            .map_err(|e| failed(format!("cannot be described: {e}")))?;
        let tensors: BTreeMap<&str, _> =
            self.tensors.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
        let weights =
            safetensors::serialize(tensors, None).map_err(|e| failed(format!("cannot be written: {e}")))?;
        new.put(DESCRIPTION, (description + "\n").as_bytes())?;
        new.put(README, card::card(&self.description).as_bytes())?;
        new.put(WEIGHTS, &weights)?;
        if replace {
            new.replace(Self::has_file)?;
        } else {
            new.place()?;
        }
        Ok(())
    }

    /// Whether a saved intervention has a file of that name: only such files are removed where one is replaced.
    pub fn has_file(name: &str) -> bool {
        FILES.contains(&name)
    }

    /// Reads a folder: one of ours, or one that pyvene has saved.
    ///
    /// # Errors
    /// When it is not one of a saved intervention, or of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.join(DESCRIPTION);
        if name.symlink_metadata().is_err() && path.join(pyvene::CONFIG).is_file() {
            let description = pyvene::open(path)?;
            return Ok(Self { description, tensors: BTreeMap::new(), folder: path.into() });
        }
        let refuse = |problem: String| Error::File { path: name.clone(), problem, hint: None };
        let bytes = DataFile::open(&name)?.read_all(MAX_DESCRIPTION)?;
        let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".into()))?;
        let description: Description = parse::json(&text).map_err(|e| e.in_file(&name))?;
        description.check().map_err(refuse)?;
        check_weights(&description, path)?;
        Ok(Self { description, tensors: BTreeMap::new(), folder: path.into() })
    }
}

/// That the weights hold what the edits name, and nothing else.
fn check_weights(description: &Description, path: &Path) -> Result<()> {
    let weights = path.join(WEIGHTS);
    let named = description.tensors();
    let has_none = matches!(fs::symlink_metadata(&weights), Err(e) if e.kind() == io::ErrorKind::NotFound);
    if named.is_empty() && has_none {
        return Ok(());
    }
    let found = Weights::from_safetensors(&[&weights])?;
    let refuse = |problem: String| Error::File { path: weights.clone(), problem, hint: None };
    let fits = |name: &str, entry: &str| match name.split_once(LAYER) {
        None => name == entry,
        Some((before, after)) => {
            entry.strip_prefix(before).is_some_and(|rest| rest.strip_suffix(after).is_some())
        }
    };
    if let Some(extra) = found.entries().find(|entry| !named.iter().any(|name| fits(name, &entry.name))) {
        return Err(refuse(format!("holds \"{}\", which no edit names", extra.name)));
    }
    match named.iter().find(|name| !found.entries().any(|entry| fits(name, &entry.name))) {
        Some(missing) => Err(refuse(format!("lacks \"{missing}\", which an edit names"))),
        None => Ok(()),
    }
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
