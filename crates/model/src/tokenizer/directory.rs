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
    format: Format,
    /// The vocabulary first.
    paths: Vec<PathBuf>,
}

/// What describes a tokenizer.
#[derive(Debug, Clone, Copy)]
enum Format {
    /// tokenizer.json.
    Json,
    /// tokenizer.model.
    SentencePiece,
    /// vocab.json and merges.txt.
    VocabAndMerges,
}

/// In the order in which they are looked for.
const FORMATS: [(Format, &[&str]); 3] = [
    (Format::Json, &["tokenizer.json"]),
    (Format::SentencePiece, &["tokenizer.model"]),
    (Format::VocabAndMerges, &["vocab.json", "merges.txt"]),
];

impl TokenizerFiles {
    /// Finds the tokenizer of a folder in Hugging Face's layout: tokenizer.json, else tokenizer.model, else vocab.json with
    /// merges.txt. `None` where there is none of them.
    ///
    /// # Errors
    /// When a file is a link that leads out of the folder, or nowhere.
    pub fn find(folder: &Path) -> Result<Option<Self>> {
        let found = FORMATS.into_iter().find(|(_, names)| is_there(&folder.join(names[0])));
        let Some((format, names)) = found else { return Ok(None) };
        // tokenizer.json has all tokens itself, so only the first of the others says more.
        let others = if matches!(format, Format::Json) { &beside::FILES[..1] } else { &beside::FILES[..] };
        let paths = names.iter().chain(others).map(|name| folder.join(name));
        let paths: Vec<PathBuf> = paths.filter(|path| is_there(path)).collect();
        paths.iter().try_for_each(|path| inside(folder, path))?;
        Ok(Some(Self { format, paths }))
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
        let vocabulary = self.paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        match self.format {
            Format::Json => Tokenizer::from_json(vocabulary),
            Format::SentencePiece => Tokenizer::from_sentencepiece(vocabulary),
            Format::VocabAndMerges => Tokenizer::from_vocab_and_merges(vocabulary),
        }
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
