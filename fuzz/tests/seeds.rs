//! Every seed and some mutants of it, through each target: none may panic, take long or allocate much.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use causalcone_fuzz::mutate::{Mutator, Random, Structure};
use causalcone_fuzz::{Scene, TARGETS, Target, guarded, seeds};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Mutants of all seeds of a target.
const MUTANTS: usize = 300;

/// Seeds of faults that are not mended yet.
const OPEN: [&str; 0] = [];

/// Memory is counted for the whole process, so that tests run one after another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an input is kept while it runs: if the process dies, it is the last file there.
fn kept(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name))
}

/// Runs a target on an input, and returns whether it was accepted.
fn try_one(target: &Target, scene: &Scene, name: &str, data: &[u8], faults: &mut Vec<String>) -> bool {
    let file = kept(target);
    std::fs::write(&file, data).unwrap();
    let mut accepted = false;
    match guarded(data.len(), || accepted = (target.run)(scene, data).is_some()) {
        Ok(()) => drop(std::fs::remove_file(file)),
        Err(fault) => {
            let kept = file.with_extension(faults.len().to_string());
            std::fs::rename(file, &kept).unwrap();
            faults.push(format!("{} on {name}: {fault}\n  input: {}", target.name, kept.display()));
        }
    }
    accepted
}

#[test]
fn seeds_and_their_mutants_are_harmless() {
    let _alone = alone();
    let only = std::env::var("CAUSALCONE_FUZZ_TARGET").ok();
    let mut faults = Vec::new();
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let started = std::time::Instant::now();
        let scene = Scene::new().unwrap();
        let mutator = target.mutator();
        let mut seeds = seeds::of(target);
        seeds.retain(|seed| !OPEN.iter().any(|open| seed.name.contains(open)));
        assert!(!seeds.is_empty(), "target {} has no seeds", target.name);
        let mut accepted = 0;
        for seed in &seeds {
            accepted += usize::from(try_one(target, &scene, &seed.name, &seed.data, &mut faults));
        }
        assert!(accepted > 0, "target {} refuses all seeds", target.name);
        seeds.retain(|seed| seed.data.len() < seeds::LONGEST);
        let mut accepted_mutants = 0;
        for number in 0..MUTANTS {
            let seed = &seeds[number % seeds.len()];
            let data = mutator.mutate(&seed.data, &mut Random::new(number as u64));
            let name = format!("mutant {number} of {}", seed.name);
            accepted_mutants += usize::from(try_one(target, &scene, &name, &data, &mut faults));
        }
        println!(
            "{}: {accepted} of {} seeds and {accepted_mutants} of {MUTANTS} mutants are accepted, {:.1?}",
            target.name,
            seeds.len(),
            started.elapsed()
        );
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_mutant_depends_on_the_seed_alone_and_is_another_file() {
    let _alone = alone();
    for target in TARGETS {
        let (seeds, mutator) = (seeds::of(target), target.mutator());
        let mutate = |number| mutator.mutate(&seeds[0].data, &mut Random::new(number));
        let mutants: Vec<Vec<u8>> = (0..40).map(mutate).collect();
        assert_eq!(mutants, (0..40).map(mutate).collect::<Vec<_>>(), "{}", target.name);
        let same = mutants.iter().filter(|mutant| **mutant == seeds[0].data).count();
        assert!(same < 10, "{}: {same} of 40 mutants are no change", target.name);
    }
}

/// Whether a mutant is still whole where it was not changed: it parses again.
#[test]
fn mutants_keep_their_frame() {
    let _alone = alone();
    let count = |structure: Structure, data: &[u8], parses: fn(&[u8]) -> bool| {
        assert!(parses(data), "{structure:?}: the seed itself");
        let mutator = Mutator::new(structure, &[data.to_vec()], "");
        (0..100).filter(|number| parses(&mutator.mutate(data, &mut Random::new(*number)))).count()
    };
    let read = |path: &str| std::fs::read(causalcone_fuzz::repository(path)).unwrap();
    let is_json = |data: &[u8]| serde_json::from_slice::<serde_json::Value>(data).is_ok();
    let is_toml =
        |data: &[u8]| std::str::from_utf8(data).is_ok_and(|text| text.parse::<toml::Table>().is_ok());
    let has_header = |data: &[u8]| {
        let length = data.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        let header = usize::try_from(length).ok().and_then(|length| data.get(8..length.checked_add(8)?));
        header.is_some_and(|header| serde_json::from_slice::<serde_json::Value>(header).is_ok())
    };
    let is_archive = |data: &[u8]| zip::ZipArchive::new(std::io::Cursor::new(data)).is_ok();
    assert!(count(Structure::Json, &read("fixtures/tiny-gpt2/config.json"), is_json) > 60);
    assert!(count(Structure::Toml, &read("fuzz/seeds/experiment/train.toml"), is_toml) > 50);
    assert!(count(Structure::Safetensors, &read("fuzz/seeds/place/values.safetensors"), has_header) > 60);
    assert!(count(Structure::Torch, &read("fixtures/weight-files/views.bin"), is_archive) > 60);
}
