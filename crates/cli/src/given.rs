//! What a positional argument means: a prompt, a file, or standard input.

use crate::failure::Failure;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Extensions of files that commands read.
const FILES: [&str; 5] = ["toml", "json", "jsonl", "txt", "csv"];
/// The longest prompt that is read from a file or from standard input, in bytes.
const LONGEST: u64 = 16 << 20;

/// A prompt, or the path of a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Given {
    Prompt(String),
    File(PathBuf),
}

impl Given {
    /// An argument that ends in .toml, .json, .jsonl, .txt or .csv or names an existing file is a file; a text file holds a
    /// prompt, and so does standard input, as `-`. Any other argument is a prompt.
    pub(crate) fn read(argument: &str) -> Result<Self, Failure> {
        let path = Path::new(argument);
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let is_named = extension.as_ref().is_some_and(|extension| FILES.contains(&extension.as_str()));
        if argument == "-" {
            return prompt("standard input", std::io::stdin()).map(Self::Prompt);
        }
        if !is_named && !path.is_file() {
            return Ok(Self::Prompt(argument.into()));
        }
        if extension.as_deref() != Some("txt") {
            return Ok(Self::File(path.into()));
        }
        let (file, _) = causalcone_files::open_regular(path)?;
        prompt(argument, file).map(Self::Prompt)
    }

    /// The prompt, for a command that reads no other files.
    pub(crate) fn prompt(argument: &str) -> Result<String, Failure> {
        match Self::read(argument)? {
            Self::Prompt(prompt) => Ok(prompt),
            Self::File(path) => {
                let message = format!("{} is a file, where a prompt fits", path.display());
                Err(Failure::input(message).hint("give the text, or a .txt file that holds it; `run`, `sweep` and `generate` take experiment files"))
            }
        }
    }
}

/// The text of a file or of standard input, without the line break at its end.
fn prompt(name: &str, from: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|e| Failure::input(format!("cannot read {name}: {e}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Failure::input(format!("{name}: a prompt may have {LONGEST} bytes at most")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::input(format!("{name}: is not UTF-8 text")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_a_prompt_unless_it_names_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_string_lossy().into_owned()
        };
        let prompt = |text: &str| Given::Prompt(text.into());
        assert_eq!(Given::read("The capital of Spain is").unwrap(), prompt("The capital of Spain is"));
        assert_eq!(Given::read("Mr. Smith").unwrap(), prompt("Mr. Smith"));
        assert_eq!(Given::read("missing.toml").unwrap(), Given::File("missing.toml".into()));
        let plain = path("plain", "x");
        assert_eq!(Given::read(&plain).unwrap(), Given::File(plain.clone().into()));
        assert_eq!(Given::read(&path("a.txt", "two\nlines \r\n")).unwrap(), prompt("two\nlines "));
        assert!(Given::read("missing.txt").is_err());
        assert!(Given::prompt(&plain).is_err());
        std::fs::write(folder.path().join("b.txt"), b"\xff").unwrap();
        assert!(Given::read(&folder.path().join("b.txt").to_string_lossy()).is_err());
    }
}
