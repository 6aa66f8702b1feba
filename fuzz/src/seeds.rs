//! Seeds: valid files of the fixtures, and inputs that once were faults.

use crate::Target;
use crate::scene::repository;
use std::fs;

/// A seed.
pub struct Seed {
    /// Its file, relative to the repository, or what it was made from.
    pub name: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// The longest file of the fixtures that is a seed, and the longest seed that mutants are made of: long ones are slow and
/// show nothing else.
pub const LONGEST: usize = 70_000;

/// The files of the repository that match a pattern, in order. `*` stands for any part of a name.
pub fn matching(pattern: &str) -> Vec<Seed> {
    let mut found = vec![String::new()];
    for part in pattern.split('/') {
        let expand = |folder: String| {
            let path =
                |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if !part.contains('*') {
                return vec![path(part)];
            }
            let entries = fs::read_dir(repository(&folder)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let mut matches: Vec<String> =
                names.filter(|name| fits(name, part)).map(|name| path(&name)).collect();
            matches.sort();
            matches
        };
        found = found.into_iter().flat_map(expand).collect();
    }
    let read = |name: String| Some(Seed { data: fs::read(repository(&name)).ok()?, name });
    found.into_iter().filter_map(read).collect()
}

/// Whether a name is of a pattern with `*`.
fn fits(name: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return name == pattern };
    let Some(rest) = name.strip_prefix(before) else { return false };
    (0..=rest.len()).filter_map(|at| rest.get(at..)).any(|rest| fits(rest, after))
}

/// The seeds of a target.
pub fn of(target: &Target) -> Vec<Seed> {
    let files =
        target.seeds.iter().flat_map(|pattern| matching(pattern)).filter(|seed| seed.data.len() < LONGEST);
    let parts = (target.parts)().into_iter().enumerate();
    let parts = parts.map(|(n, data)| Seed { name: format!("{} part {n}", target.name), data });
    files.chain(matching(&format!("fuzz/seeds/{}/*", target.name))).chain(parts).collect()
}
