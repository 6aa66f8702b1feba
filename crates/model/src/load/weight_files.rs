//! The weight files of a model directory: which of them are read, and that an index and its shards agree.

use super::recognise;
use crate::file::{DataFile, Entry, Weights, json, safetensors, torch};
use crate::paths::is_there;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A way to store tensors.
struct Form {
    /// The file that holds all tensors.
    whole: &'static str,
    /// The file that says which shard holds which tensor.
    index: &'static str,
    /// Reads the header of a file.
    entries: fn(&DataFile) -> Result<Vec<Entry>>,
    /// Checks the checksums of a file, where the format has them; this reads the whole file.
    check_sums: fn(&DataFile) -> Result<()>,
}

/// The first of these files that is there is read: safetensors, since they need no check of a pickle, then what torch.save
/// wrote.
const FORMS: [Form; 2] = [
    Form {
        whole: "model.safetensors",
        index: "model.safetensors.index.json",
        entries: safetensors::entries,
        check_sums: |_| Ok(()),
    },
    Form {
        whole: "pytorch_model.bin",
        index: "pytorch_model.bin.index.json",
        entries: torch::entries,
        check_sums: torch::check_sums,
    },
];

/// Reads the headers of a directory's weight files; gives the tensors, and the paths of the files.
///
/// # Errors
/// When there are no weights, a file is malformed or leads out of the folder, or an index and its shards disagree.
pub(super) fn read(folder: &Path) -> Result<(Weights, Vec<PathBuf>)> {
    for Form { whole, index, entries, check_sums } in FORMS {
        let whole = folder.join(whole);
        let index = folder.join(index);
        let files = if is_there(&whole) {
            let file = recognise::open(folder, &whole)?;
            let entries = entries(&file)?;
            vec![(file, entries)]
        } else if is_there(&index) {
            shards(folder, &index, entries)?
        } else {
            continue;
        };
        let paths = files.iter().map(|(file, _)| file.path().into()).collect();
        return Ok((Weights::from_parts(files)?.with_sums(check_sums), paths));
    }
    let [first, second] = &FORMS;
    let problem = format!("is missing, and so are {}, {} and {}", first.index, second.whole, second.index);
    Err(Error::file(&folder.join(first.whole), "file", problem))
}

/// The shards that an index lists, each with exactly the tensors that the index puts there.
fn shards(
    folder: &Path,
    index_path: &Path,
    entries: fn(&DataFile) -> Result<Vec<Entry>>,
) -> Result<Vec<(DataFile, Vec<Entry>)>> {
    let bad = |field: &str, problem: &str| Error::file(index_path, field, problem);
    let index = json::parse(&recognise::open(folder, index_path)?.read_all(32 << 20)?);
    let index = index.map_err(|e| bad("document", &e.to_string()))?;
    let map: &Map<String, Value> = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("weight_map", "is missing or no map"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let is_plain = |f: &&str| !f.is_empty() && !f.contains(['/', '\\', '\0']) && !f.starts_with('.');
        let Some(name) = file.as_str().filter(is_plain) else {
            return Err(bad(tensor, &format!("{file} is not the plain name of a file in this folder")));
        };
        names.insert(name);
    }
    let mut shards = Vec::new();
    for name in names {
        let shard = folder.join(name);
        if !is_there(&shard) {
            return Err(bad("weight_map", &format!("names {name}, which is missing")));
        }
        let file = recognise::open(folder, &shard)?;
        let entries = entries(&file)?;
        let held: BTreeSet<&String> = entries.iter().map(|entry| &entry.name).collect();
        let listed = map.iter().filter(|(_, file)| file.as_str() == Some(name)).map(|(tensor, _)| tensor);
        let listed: BTreeSet<&String> = listed.collect();
        if let Some(tensor) = listed.difference(&held).next() {
            return Err(bad(tensor, &format!("should be in {name}, which does not hold it")));
        }
        if let Some(extra) = held.difference(&listed).next() {
            return Err(bad(extra, &format!("is in {name}, where the index does not put it")));
        }
        shards.push((file, entries));
    }
    if shards.is_empty() {
        return Err(bad("weight_map", "is empty"));
    }
    Ok(shards)
}
