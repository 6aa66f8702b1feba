//! The place where a target runs: a temporary folder, and two small models.

use causalcone_engine::ExperimentFile;
use causalcone_model::{Model, Precision, silent};
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A name of a folder where the temporary folder of a process is made, for drivers that end without cleaning up.
pub const TEMPORARY: &str = "CAUSALCONE_FUZZ_TMP";

/// A temporary folder with the files that targets read, and models to run experiments on.
pub struct Scene {
    folder: tempfile::TempDir,
    staged: Mutex<HashSet<String>>,
    models: [OnceLock<Model>; 2],
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A fixture, as JSON.
pub(crate) fn fixture(name: &str) -> Value {
    let text = fs::read(repository("fixtures").join(name)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

impl Scene {
    /// A new folder, in memory where the machine has such a file system.
    ///
    /// # Errors
    /// When there is no room for one.
    pub fn new() -> std::io::Result<Self> {
        let parents = [std::env::var_os(TEMPORARY).map(PathBuf::from), Some("/dev/shm".into())];
        let parent = parents.into_iter().flatten().find(|parent| parent.is_dir());
        let folder = tempfile::Builder::new()
            .prefix("causalcone-fuzz-")
            .tempdir_in(parent.unwrap_or_else(std::env::temp_dir))?;
        let scene = Self { folder, staged: Mutex::default(), models: [OnceLock::new(), OnceLock::new()] };
        scene.warm_up();
        Ok(scene)
    }

    /// Draws an orthonormal matrix. The library that factors it reserves a buffer for each thread, of a size that depends on
    /// the caches of the processor alone: twice the last one, which is a gigabyte on some. It is never filled, and no
    /// input is to blame for it.
    fn warm_up(&self) {
        const DRAWN: &str = r#"{"runs": {"base": {"ids": [1]}}, "edit": [{"site": "block_output", "layers": 0, "op": "loreft",
            "parameters": {"random": 0, "rank": 31}}], "read": {"run": "base"}}"#;
        let Some(model) = self.model("tiny-llama-tied") else { return };
        let _ = ExperimentFile::from_json(DRAWN).and_then(|file| file.experiment(model).map(drop));
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The models of the fixtures `tiny-llama-tied` and `tiny-gpt2`. `None` if it cannot be loaded.
    pub fn model(&self, name: &str) -> Option<&Model> {
        let slot = &self.models[usize::from(name == "tiny-gpt2")];
        if slot.get().is_none() {
            let path = repository("fixtures").join(name);
            let model = Model::load_as(path.to_str()?, Precision::Full, &silent).ok()?;
            let _ = slot.set(model);
        }
        slot.get()
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, data: &[u8]) -> Option<PathBuf> {
        let path = self.folder().join(name);
        // Removing a file first is much faster than truncating it, if it is on a disk.
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent()?).ok()?;
        fs::write(&path, data).ok()?;
        Some(path)
    }

    /// A copy of a folder of the repository, in which one file has other content. The copy is made once.
    pub fn stage(&self, base: &str, file: &str, data: &[u8]) -> Option<PathBuf> {
        // A name for each file, since another target may change another one.
        let name = format!("{base}/{file}").replace('/', "-");
        let folder = self.folder().join(&name);
        let mut staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if staged.insert(name.clone()) {
            copy(&repository(base), &folder).ok()?;
        }
        self.write(&format!("{name}/{file}"), data)?;
        Some(folder)
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
