//! Where a model is on this machine.

use std::path::{Path, PathBuf};

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Located {
    /// A GGUF file.
    Gguf(PathBuf),
    /// A Hugging Face directory.
    Directory(PathBuf),
}

impl Located {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(path) | Self::Directory(path) => path,
        }
    }
}
