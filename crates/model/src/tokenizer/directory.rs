//! Which of the files in a model's folder are its tokenizer.

use super::beside;
use super::encode::Tokenizer;
use crate::Result;
use crate::paths::{inside, is_there};
use std::path::{Path, PathBuf};

/// The files of a folder that make up its tokenizer, found but not read.
///
/// ```
/// # use causalcone_model::TokenizerFiles;
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let files = TokenizerFiles::find(folder.as_ref())?.expect("this model has a tokenizer");
/// assert!(files.paths()[0].ends_with("tokenizer.json"));
/// assert_eq!(files.read()?.len(), 300);
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenizerFiles {
    read: Reader,
    /// The vocabulary first.
    paths: Vec<PathBuf>,
}

/// Reads a vocabulary, and the small files in its folder.
type Reader = fn(&Path) -> Result<Tokenizer>;

/// In the order in which they are looked for, each with how many of the small files say more: tokenizer.json has all tokens
/// itself.
const FORMATS: [(Reader, &[&str], usize); 3] = [
    (Tokenizer::from_json, &["tokenizer.json"], 1),
    (Tokenizer::from_sentencepiece, &["tokenizer.model"], beside::FILES.len()),
    (Tokenizer::from_vocab_and_merges, &["vocab.json", "merges.txt"], beside::FILES.len()),
];

impl TokenizerFiles {
    /// Finds the tokenizer of a folder in Hugging Face's layout: tokenizer.json, else tokenizer.model, else vocab.json with
    /// merges.txt. `None` where there is none of them.
    ///
    /// # Errors
    /// When a file is a link that leads out of the folder, or nowhere.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let found = FORMATS.into_iter().find(|(_, names, _)| is_there(&folder.join(names[0])));
        let Some((read, names, others)) = found else { return Ok(None) };
        let names = names.iter().chain(&beside::FILES[..others]);
        let paths: Vec<PathBuf> = names.map(|name| folder.join(name)).filter(|path| is_there(path)).collect();
        paths.iter().try_for_each(|path| inside(folder, path))?;
        Ok(Some(Self { read, paths }))
    }

    /// The files, the vocabulary first. config.json may be read besides.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the tokenizer.
    ///
    /// # Errors
    /// When a file is broken, or describes a kind of tokenizer that is not supported.
    pub fn read(&self) -> Result<Tokenizer> {
        (self.read)(self.paths.first().map_or(Path::new(""), PathBuf::as_path))
    }
}

impl Tokenizer {
    /// Reads the tokenizer of a folder in Hugging Face's layout, and returns it with its files, as [`TokenizerFiles`] finds
    /// them. `None` where the folder has none.
    ///
    /// # Errors
    /// As [`TokenizerFiles::find`] and [`TokenizerFiles::read`].
    pub fn from_directory(folder: &Path) -> Result<Option<(Self, Vec<PathBuf>)>> {
        let files = TokenizerFiles::find(folder)?;
        files.map(|files| Ok((files.read()?, files.paths))).transpose()
    }
}
