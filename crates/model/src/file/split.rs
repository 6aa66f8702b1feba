//! GGUF models in several files, as llama.cpp's `llama-gguf-split` writes them.
//!
//! The parts are called `NAME-00001-of-00003.gguf` and so on, and lie in one folder. Each has three keys: `split.no` (from
//! 0), `split.count`, and `split.tensors.count`, the number of tensors of all parts. The first part holds the metadata of
//! the model. Parts are found by these names alone, so that a part cannot refer to a file elsewhere or to itself.

use super::data_file::DataFile;
use super::entry::Entry;
use super::gguf::{self, Value};
use crate::paths::is_there;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
/// Each part may have an alignment of its own.
const ALIGNMENT: &str = "general.alignment";

/// The largest published models have some fifty parts.
const MAX_PARTS: u64 = 1000;
/// As many as one file may have.
const MAX_TENSORS: u64 = 1 << 17;

/// A model whose headers were read, in one GGUF file or in several.
#[derive(Debug)]
pub struct Parts {
    /// The metadata of the model, without the keys of the split; keys are unique.
    pub metadata: Vec<(String, Value)>,
    /// The files in order, with their tensors. Names are unique within a file.
    pub files: Vec<(DataFile, Vec<Entry>)>,
}

impl Parts {
    /// The paths of the files in order; the metadata is in the first.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|(file, _)| file.path().into()).collect()
    }
}

/// What one part says about the split.
struct Split {
    /// From 0.
    number: u64,
    count: u64,
    tensors: u64,
}

/// Reads and checks the headers of a GGUF model. `path` is its only file, or any part of a split one.
///
/// # Errors
/// When a header is malformed; when a part is missing, is not called what it must be, or contradicts the others.
pub fn read(path: &Path) -> Result<Parts> {
    let file = DataFile::open(path)?;
    let header = gguf::read(&file)?;
    let Some(split) = Split::of(path, &header.metadata)? else {
        let metadata = header.metadata.into_iter().filter(|(key, _)| !is_of_split(key)).collect();
        return Ok(Parts { metadata, files: vec![(file, header.tensors)] });
    };
    let paths = names(path, &split)?;
    let mut given = Some((file, header));
    let mut metadata: Vec<(String, Value)> = Vec::new();
    // By key, the place in the metadata of the first part.
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut files = Vec::new();
    let mut tensors = 0;
    for (number, part) in (0..).zip(&paths) {
        let (file, header) = match given.take_if(|_| number == split.number) {
            Some(given) => given,
            None => {
                let file = DataFile::open(part)?;
                let header = gguf::read(&file)?;
                (file, header)
            }
        };
        split.check(part, number, &header.metadata)?;
        tensors += header.tensors.len() as u64;
        if tensors > split.tensors {
            let problem =
                format!("is {}, but the first {} parts have {tensors} tensors", split.tensors, number + 1);
            return Err(Error::file(part, TENSORS, problem));
        }
        let of_model = header.metadata.into_iter().filter(|(key, _)| !is_of_split(key));
        if number == 0 {
            metadata = of_model.collect();
            places = metadata.iter().zip(0..).map(|((key, _), at)| (key.clone(), at)).collect();
        } else {
            for (key, value) in of_model.filter(|(key, _)| key != ALIGNMENT) {
                let of_first = places.get(&key).and_then(|at| metadata.get(*at));
                if of_first.is_none_or(|(_, first)| *first != value) {
                    let problem = "is not what the first part says; a model's metadata is in that part";
                    return Err(Error::file(part, key, problem));
                }
            }
        }
        files.push((file, header.tensors));
    }
    if tensors != split.tensors {
        let problem = format!("is {}, but all parts together have {tensors} tensors", split.tensors);
        return Err(Error::file(path, TENSORS, problem));
    }
    Ok(Parts { metadata, files })
}

fn is_of_split(key: &str) -> bool {
    [NUMBER, COUNT, TENSORS].contains(&key)
}

impl Split {
    /// What the metadata of a part says; none where the file is whole. A file that was merged keeps the keys, with a count
    /// of 0 or 1.
    fn of(path: &Path, metadata: &[(String, Value)]) -> Result<Option<Self>> {
        let bad = |name: &str, problem: String| Error::file(path, name, problem);
        let number = |name: &str| {
            let Some((_, value)) = metadata.iter().find(|(key, _)| key == name) else { return Ok(None) };
            let whole = match value {
                Value::Unsigned(number, _) => Some(*number),
                Value::Signed(number, _) => u64::try_from(*number).ok(),
                _ => None,
            };
            whole.map(Some).ok_or_else(|| bad(name, "is not a whole number from 0".into()))
        };
        let missing = "is missing, and every part of a split file has it";
        let required = |name: &str| number(name)?.ok_or_else(|| bad(name, missing.into()));
        let count = match number(COUNT)? {
            None | Some(0 | 1) => return Ok(None),
            Some(count) => count,
        };
        if count > MAX_PARTS {
            return Err(bad(COUNT, format!("{count} parts are more than the {MAX_PARTS} supported")));
        }
        let (number, tensors) = (required(NUMBER)?, required(TENSORS)?);
        if number >= count {
            return Err(bad(NUMBER, format!("{number} is not below split.count, which is {count}")));
        }
        if tensors > MAX_TENSORS {
            return Err(bad(TENSORS, format!("{tensors} tensors are more than the {MAX_TENSORS} supported")));
        }
        Ok(Some(Self { number, count, tensors }))
    }

    /// Checks that another part, which must have that number, is of the same split.
    fn check(&self, path: &Path, number: u64, metadata: &[(String, Value)]) -> Result<()> {
        let Some(other) = Self::of(path, metadata)? else {
            let count = self.count;
            let problem =
                format!("does not say that this file is one of {count} parts, as its name and the others do");
            return Err(Error::file(path, COUNT, problem));
        };
        for (key, given, fits) in [
            (NUMBER, other.number, number),
            (COUNT, other.count, self.count),
            (TENSORS, other.tensors, self.tensors),
        ] {
            if given != fits {
                let problem = format!("is {given}, where {fits} fits part {} of {}", number + 1, self.count);
                return Err(Error::file(path, key, problem));
            }
        }
        Ok(())
    }
}

/// The paths of all parts in order, by the name of one.
fn names(path: &Path, split: &Split) -> Result<Vec<PathBuf>> {
    let Split { number, count, .. } = *split;
    let of = format!("part {} of {count} of a split file", number + 1);
    let bad = |problem: String| Err(Error::file(path, NUMBER, problem));
    let join = "or join the parts with `llama-gguf-split --merge`";
    let ending = |number: u64| format!("-{:05}-of-{count:05}.gguf", number + 1);
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(&ending(number))) else {
        return bad(format!(
            "is {of}, and parts are found by their names: rename it to NAME{} and put the others beside it, {join}",
            ending(number)
        ));
    };
    let names = (0..count).map(|number| format!("{stem}{}", ending(number)));
    let missing: Vec<String> = names.clone().filter(|name| !is_there(&path.with_file_name(name))).collect();
    if let [first, rest @ ..] = missing.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        return bad(format!(
            "is {of}, and {first}{more} is missing beside it: put all parts in one folder, {join}"
        ));
    }
    // Links must not leave the folder: those of the Hugging Face cache all lead to its folder of blobs.
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::io(path, "open", source));
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let (given, folder) = (real(path)?, real(folder)?);
    let paths: Vec<PathBuf> = names.map(|name| path.with_file_name(name)).collect();
    for part in &paths {
        let real = real(part)?;
        if real.parent() != given.parent() && real.parent() != Some(folder.as_path()) {
            return Err(Error::file(part, "path", format!("leads out of its folder, to {}", real.display())));
        }
    }
    Ok(paths)
}
