//! Coverage-guided fuzzing of one target, by LLVM's libFuzzer. `cargo xtask fuzz` builds and runs it.
//!
//! Everything in the environment: `CAUSALCONE_FUZZ_TARGET` names the target. With the name `list` the program prints all
//! targets, each with the longest input it should get. `CAUSALCONE_FUZZ_CORPUS` names a folder that gets the seeds.
#![no_main]
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit, reason = "a program of its own")]

use causalcone_fuzz::mutate::{Mutator, Random};
use causalcone_fuzz::{Scene, TARGETS, Target, guarded, seeds, watch_panics};
use std::path::PathBuf;
use std::sync::OnceLock;

/// What stays the same in all runs.
struct Shared {
    target: &'static Target,
    scene: Scene,
    mutator: Mutator,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Ends the program with a message about how it was started.
fn stop(problem: &str) -> ! {
    eprintln!("{problem}");
    std::process::exit(2)
}

fn shared() -> &'static Shared {
    SHARED.get_or_init(|| {
        let name = std::env::var("CAUSALCONE_FUZZ_TARGET").unwrap_or_default();
        if name == "list" {
            TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.most));
            std::process::exit(0);
        }
        let target = Target::named(&name);
        let target =
            target.unwrap_or_else(|| stop(&format!("CAUSALCONE_FUZZ_TARGET: no target is named {name:?}")));
        let scene = Scene::new().unwrap_or_else(|e| stop(&format!("cannot make a temporary folder: {e}")));
        Shared { target, scene, mutator: target.mutator() }
    })
}

/// Prepares the target, and writes its seeds where the corpus is read from.
fn prepare() {
    watch_panics();
    let target = shared().target;
    let Some(corpus) = std::env::var_os("CAUSALCONE_FUZZ_CORPUS").map(PathBuf::from) else { return };
    let seeds = seeds::of(target).into_iter().filter(|seed| seed.data.len() <= target.most);
    for (number, seed) in seeds.enumerate() {
        if let Err(e) = std::fs::write(corpus.join(format!("seed-{number:03}")), seed.data) {
            stop(&format!("cannot write a seed into {}: {e}", corpus.display()));
        }
    }
}

libfuzzer_sys::fuzz_target!(init: prepare(), |data: &[u8]| {
    let Shared { target, scene, .. } = shared();
    let outcome = guarded(data.len(), || {
        (target.run)(scene, data);
    });
    if let Err(fault) = outcome {
        eprintln!("\ntarget {}: {fault}", target.name);
        std::process::abort();
    }
});

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = Random::new(u64::from(seed));
    if random.one_in(3) {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let changed = shared().mutator.mutate(&data[..size], &mut random);
    let length = changed.len().min(max_size);
    data[..length].copy_from_slice(&changed[..length]);
    length
});
