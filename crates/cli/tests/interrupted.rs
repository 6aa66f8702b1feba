//! Work that is cut short, at each call to the operating system that changes the disk: by an error, by SIGKILL, by a signal
//! that asks it to stop. Nothing half-written may be left under a final name, the next run must remove what is
//! unfinished, and must end with the bytes of a run that was not cut short.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::{Place, signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

/// A command, and how it is run again.
struct Job {
    /// Without `--out`.
    args: Vec<&'static str>,
    /// What takes up, or replaces, what is there.
    again: &'static str,
}

fn job(args: &[&'static str], again: &'static str) -> Job {
    Job { args: args.to_vec(), again }
}

const EDIT: &str = "[[edit]]\nname = 'e'\nrun = 'base'\nsite = 'block_output'\nlayers = [0, 1]\n";

/// A folder with experiment files for all commands that write.
fn place() -> Place {
    let place = Place::new();
    let of_source = format!("{EDIT}op = 'swap'\nvalue = {{ run = 'source' }}\n[read]\nrun = 'base'\n");
    place.experiment(
        "sweep.toml",
        &format!("{of_source}tokens = [7]\n[sweep]\nlayers = 'each'\npositions = 'each'\n"),
    );
    place.experiment("lens.toml", &format!("{of_source}tokens = [7]\n"));
    place.experiment("save.toml", &format!("{EDIT}op = 'zero'\n"));
    place.experiment(
        "vector.toml",
        "[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = [1]\nop = 'add'\nvalue = { values = 0.5 }\n",
    );
    let examples = |rest: &str| -> String {
        (0..12).map(|i| format!("{{\"base\":[{i},2,3]{rest},\"label\":{}}}\n", i % 4 + 5)).collect()
    };
    fs::write(place.path("d.jsonl"), examples("")).unwrap();
    fs::write(place.path("pairs.jsonl"), examples(",\"source\":[4,5,6]")).unwrap();
    let of_examples = |name: &str, rest: &str| {
        let data = if name == "train.toml" { "pairs.jsonl" } else { "d.jsonl" };
        let text = format!("model = '{}/tiny-llama'\nexamples = '{data}'\n{rest}", common::FIXTURES);
        fs::write(place.path(name), text).unwrap();
    };
    let train = "positions = [-2, -1]\nop = 'low_rank_swap'\nparameters = { random = 0, rank = 2 }\n\
        value = { run = 'source' }\n[sweep]\npositions = 'each'\n\
        [train]\nbatch = 4\nlearning_rate = 1e-2\nheld_out = 0.3\nseed = 1\nsteps = 4\ncheckpoint = 2\n";
    of_examples("train.toml", &format!("{EDIT}{train}"));
    of_examples("collect.toml", &format!("{EDIT}op = 'collect'\n"));
    let generate = "op = 'scale'\nscale = 1.5\n[generate]\nmax_tokens = 3\nsamples = 8\ntemperature = 0.9\neos = false\n";
    of_examples("generate.toml", &format!("{EDIT}{generate}"));
    place
}

fn jobs() -> Vec<Job> {
    vec![
        job(&["sweep", "sweep.toml"], "--resume"),
        job(&["train", "train.toml"], "--resume"),
        job(&["collect", "collect.toml", "--shard", "1KB"], "--resume"),
        job(&["generate", "generate.toml", "--table"], "--resume"),
        job(&["lens", "lens.toml"], "--force"),
        job(&["save", "save.toml"], "--force"),
        job(&["save", "vector.toml"], "--force"),
    ]
}

impl Job {
    /// What its results are called.
    fn out(&self, name: &str) -> String {
        if self.args.contains(&"vector.toml") { format!("{name}.gguf") } else { name.to_owned() }
    }

    fn run(&self, place: &Place, name: &str, more: &[&str], fault: Option<&str>) -> Output {
        let out = self.out(name);
        let args = [&self.args[..], &["--out", &out], more].concat();
        let mut command = place.command(&args);
        if let Some(fault) = fault {
            command
                .env("CAUSALCONE_FAULT", fault)
                .env("CAUSALCONE_FAULT_LOG", place.path(&format!("{name}.log")));
        }
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn found(&self, place: &Place, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        gather(&place.path(&self.out(name)), "", &mut found);
        found
    }
}

/// All files below a path, by their names in it; a file itself has none.
fn gather(path: &Path, name: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let inner = entry.file_name().into_string().unwrap();
            gather(
                &entry.path(),
                &if name.is_empty() { inner.clone() } else { format!("{name}/{inner}") },
                found,
            );
        }
    } else if path.exists() {
        found.insert(name.into(), fs::read(path).unwrap());
    }
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).or_else(|_| fs::remove_file(path)).unwrap();
}

/// What of a file does not depend on how long work took and how often it was cut short.
fn lasting(name: &str, bytes: &[u8]) -> Vec<u8> {
    let record =
        ["experiment.json", "train.json", "lens.json", "generate.json", "collection.json"].contains(&name);
    if record || name.ends_with("intervention.json") {
        let mut value: Value =
            serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{name} is torn: {e}"));
        for key in ["seconds", "plan", "done", "made"] {
            value.as_object_mut().unwrap().remove(key);
        }
        return value.to_string().into_bytes();
    }
    if name == "journal.jsonl" {
        let mut lines: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        lines.sort_unstable();
        return lines.concat();
    }
    bytes.into()
}

/// Names of what is not finished: of the folder itself, and beside it.
fn unfinished(place: &Place, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let hidden = |name: &str| name.rsplit('/').next().unwrap().starts_with(".causalcone-");
    let beside =
        fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let within = found.keys().flat_map(|name| name.split('/').map(ToOwned::to_owned));
    beside.chain(within).filter(|name| hidden(name)).collect()
}

/// Runs every job, cut short at each call by what `faults` gives for its number.
fn cut_short(faults: impl Fn(usize) -> Vec<&'static str> + Sync) {
    std::thread::scope(|scope| {
        for job in jobs() {
            let faults = &faults;
            scope.spawn(move || {
                let place = place();
                let shown = job.args.join(" ");
                let out = job.run(&place, "whole", &[], None);
                assert!(out.status.success(), "{shown}: {}", String::from_utf8_lossy(&out.stderr));
                let whole = job.found(&place, "whole");
                let numbered =
                    (1..).flat_map(|number| faults(number).into_iter().map(move |fault| (number, fault)));
                let calls =
                    numbered.take_while(|(number, fault)| one(&place, &job, &whole, *number, fault)).count();
                println!("{shown}: cut short {calls} times");
            });
        }
    });
}

/// Cuts a job short once; false if it makes fewer calls.
fn one(place: &Place, job: &Job, whole: &BTreeMap<String, Vec<u8>>, number: usize, fault: &str) -> bool {
    let name = format!("cut-{number}-{fault}");
    let out = job.run(place, &name, &[], Some(&format!("{number}:{fault}")));
    let log = fs::read_to_string(place.path(&format!("{name}.log"))).unwrap_or_default();
    let _ = fs::remove_file(place.path(&format!("{name}.log")));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    let shown =
        format!("{} with {fault} at call {}: {:?}: {said}", job.args.join(" "), log.trim(), out.status);
    if log.is_empty() {
        assert!(out.status.success(), "{shown}");
        remove(&place.path(&job.out(&name)));
        return false;
    }
    assert!(!said.contains("panicked"), "{shown}");
    let found = job.found(place, &name);
    match fault {
        "EINTR" | "SHORT" => assert!(out.status.success(), "{shown}"),
        "KILL" => assert_eq!(out.status.signal(), Some(9), "{shown}"),
        "INT" | "TERM" | "HUP" => {
            let code = 128
                + match fault {
                    "HUP" => 1,
                    "INT" => 2,
                    _ => 15,
                };
            // A signal that comes once all is written changes nothing.
            assert!(out.status.success() || out.status.code() == Some(code), "{shown}");
            assert!(out.status.success() || said.contains("interrupted by SIG"), "{shown}");
        }
        // What only tidies up may fail.
        _ => assert!(
            out.status.success() || (matches!(out.status.code(), Some(1 | 2)) && !said.is_empty()),
            "{shown}"
        ),
    }
    // What cannot be removed stays until the next run.
    if fault != "KILL" && !log.contains(" remove ") {
        assert_eq!(unfinished(place, &found), Vec::<String>::new(), "{shown}");
    }
    // What has its final name is whole.
    for (file, bytes) in &found {
        let grows = ["journal.jsonl", "steps.jsonl", "checkpoint.safetensors"].contains(&file.as_str());
        let passes = file.starts_with("texts-")
            || file.starts_with("intervention.unfinished")
            || file.contains(".causalcone-");
        if !grows && !passes {
            let expected = whole.get(file).unwrap_or_else(|| panic!("{file} is of no run: {shown}"));
            assert!(lasting(file, bytes) == lasting(file, expected), "{file} differs: {shown}");
        }
    }
    if out.status.success() && !log.contains(" remove ") {
        same(&found, whole, &shown);
        remove(&place.path(&job.out(&name)));
        return true;
    }
    let again = job.run(place, &name, &[job.again], None);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success(), "{} again after {shown}: {said}", job.again);
    let found = job.found(place, &name);
    same(&found, whole, &format!("after {shown}"));
    assert_eq!(unfinished(place, &found), Vec::<String>::new(), "after {shown}");
    remove(&place.path(&job.out(&name)));
    true
}

/// Whether all results are there, and are those of a run that was not cut short.
fn same(found: &BTreeMap<String, Vec<u8>>, whole: &BTreeMap<String, Vec<u8>>, shown: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{shown}");
    for (file, bytes) in found {
        assert!(lasting(file, bytes) == lasting(file, &whole[file]), "{file} differs {shown}");
    }
}

const FAULTS: [&str; 8] = ["ENOSPC", "KILL", "EIO", "TERM", "EINTR", "INT", "SHORT", "HUP"];

/// Each call once, by one fault after another.
#[test]
fn work_cut_short_at_any_call_is_taken_up() {
    cut_short(|number| vec![FAULTS[number % FAULTS.len()]]);
}

/// Each call by each fault.
#[test]
#[ignore = "thousands of runs, about half an hour: cargo xtask long"]
fn work_cut_short_at_any_call_in_any_way_is_taken_up() {
    cut_short(|_| FAULTS.to_vec());
}

/// A signal at any moment ends with a message, or with the work done.
#[test]
fn no_signal_is_silent() {
    std::thread::scope(|scope| {
        for job in jobs() {
            scope.spawn(move || signalled(&job));
        }
    });
}

/// Waits until a process handles signals: until then the system itself ends it on one.
fn wait_until_it_listens(child: &std::process::Child) {
    let listens = |mask: &str| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> 14 & 1 == 1);
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        // Without /proc, or once the process has ended, there is nothing to wait for.
        if mask.is_none_or(listens) || status.contains("State:\tZ") {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signalled(job: &Job) {
    let place = place();
    let shown = job.args.join(" ");
    let started = std::time::Instant::now();
    assert!(job.run(&place, "whole", &[], None).status.success());
    let whole = job.found(&place, "whole");
    let longest = started.elapsed();
    for (number, (name, code)) in
        [("TERM", 143), ("INT", 130), ("HUP", 129)].iter().cycle().take(6).enumerate()
    {
        let out = job.out("cut");
        let args = [&job.args[..], &["--out", &out]].concat();
        let child = place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_it_listens(&child);
        std::thread::sleep(longest * number as u32 / 6);
        signal(&child, name);
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        let shown = format!("{shown} on SIG{name}: {:?}: {said}", done.status);
        assert!(done.status.success() || done.status.code() == Some(*code), "{shown}");
        assert!(done.status.success() || said.contains(&format!("interrupted by SIG{name}")), "{shown}");
        assert_eq!(unfinished(&place, &job.found(&place, "cut")), Vec::<String>::new(), "{shown}");
        let again = job.run(&place, "cut", &[job.again], None);
        assert!(again.status.success(), "after {shown}: {}", String::from_utf8_lossy(&again.stderr));
        let found = job.found(&place, "cut");
        for (file, bytes) in &whole {
            assert!(lasting(file, bytes) == lasting(file, &found[file]), "{file} differs after {shown}");
        }
        remove(&place.path(&out));
    }
}
