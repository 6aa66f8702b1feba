//! Files that ask for more than there is: refused in words before any work, within seconds and little memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::*;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An experiment on a tiny model with a tokenizer.
fn tied(place: &Place, name: &str, rest: &str) -> String {
    let text = format!("model = '{FIXTURES}/tiny-llama-tied'\n{rest}");
    std::fs::write(place.path(name), text).unwrap();
    name.into()
}

const NOISE: &str = "[runs.base]\nids = [1, 2, 3]\n[[edit]]\nsite = 'block_output'\nlayers = 'all'\nop = 'noise'\n\
    level = 1.0\n[read]\ntokens = [1]\n[sweep]\nlayers = 'each'\n";

/// The most memory a command takes, in bytes, with what it says; `None` where the system does not tell.
fn measured(mut command: Command) -> (Output, Option<u64>) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let wait = std::thread::spawn(move || child.wait_with_output().unwrap());
    let mut peak = None;
    while !wait.is_finished() {
        peak = high_water(id).or(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    (wait.join().unwrap(), peak)
}

fn high_water(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[test]
fn parameters_are_drawn_only_once_they_are_known_to_fit() {
    let place = Place::new();
    let edit = |op: &str, rank: &str| {
        format!(
            "[runs.base]\nids = [1, 2, 3]\n[runs.other]\nids = [3, 2, 1]\n[[edit]]\nrun = 'base'\n\
             site = 'block_output'\nlayers = 0\nop = '{op}'\nparameters = {{ random = 0, rank = {rank} }}\n"
        )
    };
    for (op, value) in [
        ("autoencoder_swap", "value = { run = 'other' }\n"),
        ("jumprelu_autoencoder", "value = { run = 'other' }\n"),
        ("noreft", ""),
        ("nodireft", ""),
    ] {
        for rank in ["4000000000", "500000000", "9223372036854775807", "16777217"] {
            let file = tied(&place, "e.toml", &format!("{}{value}", edit(op, rank)));
            for command in ["run", "explain"] {
                let start = Instant::now();
                let said = place.refused(&[command, &file]);
                assert!(said.contains("rank` must be from 1 to 16777216"), "{op} {rank}: {said}");
                assert!(start.elapsed() < Duration::from_secs(5));
            }
        }
        // Each of these would be 1 GiB and more.
        let file = tied(&place, "e.toml", &format!("{}{value}", edit(op, "16777216")));
        assert!(place.refused(&["explain", &file]).contains("numbers that are drawn"), "{op}");
        // What fits the limits counts against the memory, before it is drawn.
        let file = tied(&place, "e.toml", &format!("{}{value}", edit(op, "1000000")));
        let (out, peak) = measured(place.command(&["explain", &file, "--memory", "20MB", "--json"]));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(said.contains("is too little") && said.contains("give at least"), "{op}: {said}");
        assert!(peak.is_none_or(|peak| peak < 100 << 20), "{op}: {peak:?}");
        let out = place.json(&["explain", &file, "--memory", "2GB"]);
        assert!(out["peak_bytes"].as_u64().unwrap() > 128_000_000, "{op}: {out}");
    }
}

/// Where the weights fit in no memory, nothing can be computed: what is explained is known without.
#[test]
fn explain_fits_and_draws_nothing() {
    let place = Place::new();
    let lines = "{\"base\": [1, 2, 3], \"other\": [3, 2, 1]}\n{\"base\": [4, 5], \"other\": [5, 4]}\n";
    std::fs::write(place.path("pairs.jsonl"), lines).unwrap();
    let edit = "[runs.base]\nids = [1, 2, 3]\n[read]\ntokens = [1]\n[sweep]\nlayers = 'each'\n[[edit]]\n\
        site = 'block_output'\n";
    let cases = [
        "layers = 'all'\nop = 'add'\nvalue = { mean = 'base', minus = 'other', examples = 'pairs.jsonl' }\n",
        "layers = 'all'\nop = 'project_out'\nvalue = { pca = 'base', examples = 'pairs.jsonl' }\n",
        "layers = 'all'\nop = 'add'\nvalue = { pca = 'base', minus = 'other', examples = 'pairs.jsonl', norm = 2.0 }\n",
        "layers = 0\nop = 'pca_swap'\nvalue = { values = 0.5 }\n\
            parameters = { pca = 'base', examples = 'pairs.jsonl', rank = 2 }\n",
        "layers = 0\nop = 'noreft'\nparameters = { random = 0, rank = 2 }\n",
    ];
    for case in cases {
        let file = tied(&place, "e.toml", &format!("{edit}{case}"));
        let plain = place.json(&["explain", &file]);
        let mut command = place.command(&["explain", &file, "--json"]);
        let out = command.env("CAUSALCONE_FREE_MEMORY", "1000").output().unwrap();
        assert!(out.status.success(), "{case}: {}", String::from_utf8_lossy(&out.stderr));
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        for key in ["cells", "rows_computed", "rows_naive", "flops", "sites"] {
            assert_eq!(found[key], plain[key], "{case}: {key}");
        }
        // It is the plan of what is then run.
        place.json(&["sweep", &file, "--out", "out", "--force"]);
        let record = std::fs::read(place.path("out/experiment.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["plan"]["rows_computed"], found["rows_computed"], "{case}");
    }
    let file = tied(&place, "e.toml", &format!("{edit}{}", cases[3].replace("rank = 2", "rank = 6")));
    assert!(place.refused(&["explain", &file]).contains("6 components cannot be fitted to 5 rows"));
}

#[test]
fn a_sweep_of_millions_of_cells_is_explained_in_seconds() {
    let place = Place::new();
    let file = tied(&place, "e.toml", &format!("{NOISE}samples = 1999999\n"));
    let start = Instant::now();
    let (out, peak) = measured(place.command(&["explain", &file, "--memory", "100GB", "--json"]));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(peak.is_none_or(|peak| peak < 150 << 20), "{peak:?}");
    let explained: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(explained["cells"], 3_999_998);
    // Each sample: its noise in layer 0 goes through the last row of layer 1 alone … as in a sweep of few samples.
    let few = place.json(&["explain", &tied(&place, "f.toml", &format!("{NOISE}samples = 2048\n"))]);
    let rows = |of: &serde_json::Value, key: &str| of[key].as_u64().unwrap();
    let (all, one) = (rows(&explained, "rows_computed"), rows(&few, "rows_computed"));
    // So many whole stretches, and one of 703 samples.
    assert!(all > one * 976 && all < one * 977, "{all} {one}");
    let said = place.refused(&["explain", &file, "--memory", "20MB"]);
    assert!(said.contains("the record of 3999998 cells") && said.contains("give at least"), "{said}");
    let said = place.refused(&["sweep", &file, "--memory", "20MB", "--out", "out"]);
    assert!(said.contains("the record of 3999998 cells"), "{said}");
}

/// What a sweep may take is what it takes: counted before, measured after.
#[test]
fn the_record_of_cells_is_counted() {
    let place = Place::new();
    let small = tied(&place, "s.toml", &format!("{NOISE}samples = 10\n"));
    let large = tied(&place, "l.toml", &format!("{NOISE}samples = 10000\n"));
    let told = place.json(&["explain", &large])["peak_bytes"].as_u64().unwrap();
    let memory = format!("{}MB", told.div_ceil(1_000_000) + 4);
    let run =
        |file: &str, out: &str| measured(place.command(&["sweep", file, "--out", out, "--memory", &memory]));
    let ((first, before), (second, after)) = (run(&small, "small"), run(&large, "large"));
    assert!(first.status.success() && second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let (Some(before), Some(after)) = (before, after) else {
        eprintln!("SKIPPED: this system does not tell how much memory a process took");
        return;
    };
    let took = after.saturating_sub(before);
    assert!(took < told + (16 << 20), "{took} bytes more than a small sweep, where {told} were told");
    assert!(took * 4 > told, "{took} bytes are far less than the {told} that were told");
}

#[test]
fn memory_does_not_grow_with_the_lines_of_a_data_set() {
    let place = Place::new();
    let lines = |count: usize| -> String {
        let line = |i: usize| {
            let ids: Vec<String> = (0..6).map(|j| ((i * 7 + j) % 250).to_string()).collect();
            format!("{{\"base\": [{}]}}\n", ids.join(", "))
        };
        (0..count).map(line).collect()
    };
    std::fs::write(place.path("few.jsonl"), lines(100)).unwrap();
    std::fs::write(place.path("many.jsonl"), lines(20_000)).unwrap();
    let collect = |name: &str, data: &str| {
        let rest = "[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = [0, 1]\nop = 'collect'\n";
        tied(&place, name, &format!("examples = '{data}'\n{rest}"))
    };
    let (few, many) = (collect("few.toml", "few.jsonl"), collect("many.toml", "many.jsonl"));
    let peak = |args: &[&str]| {
        let (out, peak) = measured(place.command(args));
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        peak
    };
    let shard = ["--shard", "1MB", "--memory", "20MB"];
    let pairs = [
        (peak(&["explain", &few, "--json"]), peak(&["explain", &many, "--json"])),
        (
            peak(&[&["collect", &few, "--out", "few"][..], &shard].concat()),
            peak(&[&["collect", &many, "--out", "many"][..], &shard].concat()),
        ),
    ];
    for (few, many) in pairs {
        let (Some(few), Some(many)) = (few, many) else {
            eprintln!("SKIPPED: this system does not tell how much memory a process took");
            return;
        };
        // Before: 3.6 to 7 KB for each of 20,000 examples.
        assert!(many.saturating_sub(few) < 40 << 20, "{few} {many}");
    }
}

#[test]
fn a_data_set_of_too_many_lines_is_refused_while_they_are_counted() {
    let place = Place::new();
    let file = tied(
        &place,
        "e.toml",
        "examples = 'lines.jsonl'\n[[edit]]\nsite = 'block_output'\nlayers = 0\nop = 'zero'\n",
    );
    std::fs::write(
        place.path("lines.jsonl"),
        "{\"base\": [1, 2, 3], \"label\": 5, \"tokens\": [1]}\n".repeat(65_537),
    )
    .unwrap();
    let (out, peak) = measured(place.command(&["explain", &file]));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("more than the 65536 examples"), "{said}");
    assert!(peak.is_none_or(|peak| peak < 40 << 20), "{peak:?}");
}

#[test]
fn numbers_of_train_and_sweep_are_refused_in_words() {
    let place = Place::new();
    std::fs::write(
        place.path("pairs.jsonl"),
        "{\"base\": [1, 2, 3], \"other\": [3, 2, 1], \"label\": 4}\n{\"base\": [4, 5], \"other\": [5, 4], \"label\": 6}\n",
    )
    .unwrap();
    let edit = "examples = 'pairs.jsonl'\n[runs.base]\n[runs.other]\n[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = 0\n\
        positions = 'last'\nop = 'low_rank_swap'\nvalue = { run = 'other' }\nparameters = { random = 0, rank = 2 }\n\
        [read]\nrun = 'base'\n[train]\n";
    for key in ["steps", "epochs", "warmup", "evaluate", "patience", "checkpoint", "batch", "accumulate"] {
        for number in ["9223372036854775807", "100000001"] {
            let file = tied(&place, "t.toml", &format!("{edit}{key} = {number}\n"));
            let said = place.refused(&["train", &file, "--out", "out", "--force"]);
            assert!(said.contains(&format!("train: `{key}` must be from ")), "{said}");
            assert!(said.contains(&format!("got {number}")), "{said}");
        }
    }
    let sweep = "[runs.base]\nids = [1, 2]\n[runs.other]\nids = [2, 1]\n[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = 'all'\n\
        op = 'swap'\nvalue = { run = 'other' }\n[read]\nrun = 'base'\ntokens = [1]\n[sweep]\nlayers = 'each'\nmethods = ['integrated']\n";
    let file = tied(&place, "s.toml", &format!("{sweep}steps = 4294967296\n"));
    for command in [&["explain", &file][..], &["sweep", &file, "--out", "swept"]] {
        let said = place.refused(command);
        assert!(said.contains("sweep: `steps` must be from 1 to 10000, got 4294967296"), "{said}");
    }
}

#[test]
fn messages_are_no_longer_than_a_screen() {
    let place = Place::new();
    let name = "\u{301}x".repeat(30_000);
    let lines = [
        format!("{{\"base\": [1, 2], \"{name}\": 3}}"),
        format!("{{\"{name}\": [1, 2]}}"),
        format!("{{\"base\": [1, 2], \"positions\": {{\"{name}\": \"x\"}}}}"),
        format!("{{\"base\": [1, 2], \"tokens\": [\"{name}\"]}}"),
        format!("{{\"base\": \"{name}\", \"label\": \"{name}\"}}"),
        format!("{{\"base\": [1, 2], \"label\": \"{name}\"}}"),
    ];
    std::fs::write(place.path("lines.jsonl"), lines.join("\n")).unwrap();
    let rest = "[[edit]]\nsite = 'block_output'\nlayers = 0\nop = 'zero'\n[read]\ntokens = [1]\n[sweep]\nmetrics = ['loss']\n";
    let file = tied(&place, "e.toml", &format!("examples = 'lines.jsonl'\n{rest}"));
    let toml = [
        format!(
            "[runs.base]\nids = [1]\n[runs.\"{name}\"]\nids = [1]\n[[edit]]\nrun = 'none'\nsite = 'block_output'\nlayers = 0\nop = 'zero'\n"
        ),
        format!(
            "[runs.base]\nids = [1]\n[[edit]]\nname = \"{name}\"\nsite = 'block_output'\nlayers = 9\nop = 'zero'\n"
        ),
        format!("[runs.base]\nids = [1]\n[[edit]]\nsite = 'block_output'\nlayers = 0\nop = \"{name}\"\n"),
        format!("[runs.base]\nids = [1]\n[[edit]]\nsite = \"{name}\"\nop = 'zero'\n"),
        format!("[runs.base]\nids = [1]\n[read]\ntokens = [\"{name}\"]\n"),
    ];
    let files: Vec<String> =
        toml.iter().enumerate().map(|(i, rest)| tied(&place, &format!("{i}.toml"), rest)).collect();
    for file in files.iter().chain([&file]) {
        let said = place.refused(&["explain", file]);
        for message in said.split("error: ").skip(1) {
            assert!(
                message.chars().count() < 5000,
                "{file}: {} characters: {message}",
                message.chars().count()
            );
        }
        assert!(said.contains("error: "), "{said}");
    }
}

/// A child whose standard error is no terminal, that a test may interrupt.
fn spawned(place: &Place, args: &[&str]) -> Child {
    place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
#[cfg(unix)]
fn drawing_ends_at_one_interrupt() {
    let place = Place::new();
    // 20 settings have 400 pairs: of 65,536 examples no more can be found, in 13 million draws.
    let values: Vec<String> = (0..20).map(|i| format!("'{i}'")).collect();
    let text = format!(
        "model = '{FIXTURES}/tiny-llama-tied'\nprompt = 'The {{n}} is'\nlabel = '{{letter}}'\nexamples = 65536\n\
         only_right = true\n\
         [interchange]\nsource = ['letter']\n[variables.n]\nvalues = [{}]\n[variables.letter]\nparents = ['n']\n\
         table = [{}]\n",
        values.join(", "),
        (0..20)
            .map(|i| format!("['{i}', '{}']", if i % 2 == 0 { "S" } else { "I" }))
            .collect::<Vec<_>>()
            .join(", "),
    );
    std::fs::write(place.path("c.toml"), &text).unwrap();
    let mut child = spawned(&place, &["data", "c.toml", "--out", "x"]);
    std::thread::sleep(Duration::from_millis(700));
    let start = Instant::now();
    if child.try_wait().unwrap().is_none() {
        signal(&child, "TERM");
    }
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "it goes on after SIGTERM");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!place.path("x").exists());
    let file = text.replace("examples = 65536", "examples = 1000000000000");
    std::fs::write(place.path("c.toml"), file).unwrap();
    let said = place.refused(&["data", "c.toml", "--out", "x"]);
    assert!(said.contains("`examples` must be from 1 to 65536, got 1000000000000"), "{said}");
}

/// Where threads are refused, the command computes on those it has. Only root can become somebody else, whose processes a
/// limit counts.
#[test]
#[cfg(target_os = "linux")]
fn where_threads_are_refused_one_is_enough() {
    let place = Place::new();
    let file = tied(&place, "e.toml", &format!("{NOISE}samples = 2\n"));
    let plain =
        place.json(&["run", &tied(&place, "r.toml", "[runs.base]\nids = [1, 2, 3]\n[read]\ntokens = [1]\n")]);
    let limited = |threads: &str, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65531", "--regid", "65531", "--clear-groups", "prlimit"]);
        command.arg(format!("--nproc={threads}")).arg(env!("CARGO_BIN_EXE_causalcone")).args(args);
        command.current_dir(place.0.path()).env("CAUSALCONE_CACHE", "none").output()
    };
    std::fs::set_permissions(place.0.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    match limited("100", &["--version"]) {
        Ok(out) if out.status.success() => {}
        other => {
            eprintln!("SKIPPED: processes of another user need root, setpriv and prlimit: {other:?}");
            return;
        }
    }
    for threads in ["1", "2", "3"] {
        let out = limited(threads, &["explain", &file, "--json"]).unwrap();
        assert!(out.status.success(), "{threads}: {}", String::from_utf8_lossy(&out.stderr));
        let out = limited(threads, &["run", "r.toml", "--json"]).unwrap();
        assert!(out.status.success(), "{threads}: {}", String::from_utf8_lossy(&out.stderr));
        let found: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(found["original"], plain["original"], "{threads} threads");
    }
}
