//! Reading and writing the folder.

use super::format::Description;
use super::{DESCRIPTION, Saved, WEIGHTS, card, pyvene};
use crate::file::LAYER;
use crate::{Error, Result};
use causalcone_model::file::{DataFile, Weights};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A description is longer than this only by mistake: its numbers are in the weights.
const MAX_DESCRIPTION: u64 = 16 << 20;

pub(super) fn open(path: &Path) -> Result<Saved> {
    let name = path.join(DESCRIPTION);
    if name.symlink_metadata().is_err() && path.join(pyvene::CONFIG).is_file() {
        let description = pyvene::open(path)?;
        return Ok(Saved { description, tensors: BTreeMap::new(), folder: path.into() });
    }
    let refuse = |problem: String| Error::File { path: name.clone(), problem, hint: None };
    let bytes = DataFile::open(&name)?.read_all(MAX_DESCRIPTION)?;
    let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text".into()))?;
    let description = Description::parse(&text).map_err(|e| refuse(e.to_string()))?;
    description.check().map_err(refuse)?;
    check_weights(&description, path)?;
    Ok(Saved { description, tensors: BTreeMap::new(), folder: path.into() })
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

pub(super) fn write(saved: &Saved, path: &Path) -> Result<()> {
    let failed = |problem: String| Error::File { path: path.into(), problem, hint: None };
    if fs::symlink_metadata(path).is_ok() && !path.join(DESCRIPTION).is_file() && !is_empty_folder(path) {
        let problem = "is there already, and is no saved intervention".to_string();
        return Err(Error::File {
            path: path.into(),
            problem,
            hint: Some("give the name of a new folder".into()),
        });
    }
    let cannot = |doing: &str| {
        let doing = doing.to_string();
        move |e: io::Error| failed(format!("cannot {doing}: {e}"))
    };
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Everything is written beside it first, so that what is there stays until all of it is on the disk.
    let mut builder = tempfile::Builder::new();
    builder.prefix(".causalcone-");
    let new = builder.tempdir_in(parent).map_err(cannot("be made"))?;
    let description = serde_json::to_string_pretty(&saved.description)
        .map_err(|e| failed(format!("cannot be described: {e}")))?;
    put(&new.path().join(DESCRIPTION), (description + "\n").as_bytes()).map_err(cannot("be written"))?;
    put(&new.path().join("README.md"), card::card(&saved.description).as_bytes())
        .map_err(cannot("be written"))?;
    let weights = new.path().join(WEIGHTS);
    let tensors: BTreeMap<&str, _> =
        saved.tensors().iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
    let bytes =
        safetensors::serialize(tensors, None).map_err(|e| failed(format!("cannot be written: {e}")))?;
    put(&weights, &bytes).map_err(cannot("be written"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What is temporary is private; this is to be as any other folder.
        fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755)).map_err(cannot("be made"))?;
    }
    let old = builder.tempdir_in(parent).map_err(cannot("be replaced"))?;
    let aside = old.path().join("old");
    let had_one = fs::symlink_metadata(path).is_ok();
    if had_one {
        fs::rename(path, &aside).map_err(cannot("be replaced"))?;
    }
    if let Err(e) = fs::rename(new.path(), path) {
        if had_one {
            let _ = fs::rename(&aside, path);
        }
        return Err(cannot("be put in place")(e));
    }
    // It has its name now, and is no temporary folder any more.
    let _ = new.keep();
    #[cfg(unix)]
    File::open(parent).and_then(|folder| folder.sync_all()).map_err(cannot("be made to last"))?;
    Ok(())
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
