//! What the command may write to, and what it must leave alone: folders that others write to, files that it did not write,
//! pipes and links.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::*;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const EDIT: &str = "[[edit]]\nname = 'e'\nrun = 'base'\nsite = 'block_output'\nlayers = [0, 1]\n";

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Experiment files for the commands that write folders, of a data set.
fn of_examples(place: &Place) {
    let examples = |rest: &str| -> String {
        (0..40).map(|i| format!("{{\"base\":[{i},2,3]{rest},\"label\":{}}}\n", i % 4 + 5)).collect()
    };
    fs::write(place.path("d.jsonl"), examples("")).unwrap();
    fs::write(place.path("pairs.jsonl"), examples(",\"source\":[4,5,6]")).unwrap();
    let files = [
        ("sweep.toml", "op = 'zero'\n[read]\ntokens = [7]\n[sweep]\nlayers = 'each'\n"),
        ("collect.toml", "op = 'collect'\n"),
        ("generate.toml", "op = 'scale'\nscale = 1.5\n[generate]\nmax_tokens = 200\neos = false\n"),
        ("lens.toml", "op = 'zero'\n[read]\ntokens = [7]\n"),
        (
            "train.toml",
            "positions = [-2, -1]\nop = 'low_rank_swap'\nparameters = { random = 0, rank = 2 }\nvalue = { run = 'source' }\n\
             [train]\nbatch = 4\nlearning_rate = 1e-2\nseed = 1\nsteps = 100000\n",
        ),
    ];
    for (name, rest) in files {
        let data = if name == "train.toml" { "pairs.jsonl" } else { "d.jsonl" };
        let text = format!("model = '{FIXTURES}/tiny-llama'\nexamples = '{data}'\n{EDIT}{rest}");
        fs::write(place.path(name), text).unwrap();
    }
}

/// Every command that writes a folder locks it before it touches anything in it, --force and --resume or not.
#[test]
fn a_folder_has_one_writer() {
    let place = Place::new();
    of_examples(&place);
    let args = ["train", "train.toml", "--out", "out"];
    let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while fs::metadata(place.path("out/steps.jsonl")).map_or(0, |found| found.len()) < 1000 {
        std::thread::sleep(Duration::from_millis(10));
    }
    for command in ["sweep", "collect", "generate", "lens", "train"] {
        for more in ["", "--force", "--resume"] {
            if command == "lens" && more == "--resume" {
                continue;
            }
            let file = format!("{command}.toml");
            let args: Vec<&str> =
                [command, &file, "--out", "out", more].into_iter().filter(|word| !word.is_empty()).collect();
            let said = place.refused(&args);
            let expected = format!("another process is writing to out (process {} of causalcone", child.id());
            assert!(said.contains(&expected), "{args:?}: {said}");
        }
    }
    assert!(fs::metadata(place.path("out/steps.jsonl")).unwrap().len() >= 1000);
    signal(&child, "KILL");
    child.wait().unwrap();
    // A dead process holds nothing.
    assert!(place.run(&["sweep", "sweep.toml", "--out", "out", "--force"]).status.success());
    assert!(!names(&place.path("out")).iter().any(|name| name.starts_with(".causalcone-")));
}

#[test]
fn of_two_that_write_the_same_new_file_one_fails() {
    let place = Place::new();
    let file = place.experiment("save.toml", &format!("{EDIT}op = 'zero'\n"));
    let vector =
        "[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = [1]\nop = 'add'\nvalue = { values = 0.5 }\n";
    let vector = place.experiment("vector.toml", vector);
    for (file, out) in [(&file, "saved"), (&vector, "saved.gguf")] {
        let start = || {
            place
                .command(&["save", file, "--out", out])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let children = [start(), start(), start()];
        let mut codes: Vec<i32> =
            children.map(|child| child.wait_with_output().unwrap().status.code().unwrap()).to_vec();
        codes.sort_unstable();
        assert_eq!(codes, [0, 2, 2], "{out}");
        assert!(place.refused(&["save", file, "--out", out]).contains("already exists"));
        assert!(place.run(&["save", file, "--out", out, "--force"]).status.success());
    }
}

#[test]
fn save_replaces_only_what_it_wrote() {
    let place = Place::new();
    let file = place.experiment("save.toml", &format!("{EDIT}op = 'zero'\n"));
    let args = ["save", &file, "--out", "d", "--force"];
    assert!(place.run(&args).status.success());
    fs::create_dir(place.path("d/.git")).unwrap();
    fs::write(place.path("d/notes.txt"), "mine").unwrap();
    let said = place.refused(&args);
    assert!(said.contains("did not write: \".git\", \"notes.txt\""), "{said}");
    assert_eq!(fs::read(place.path("d/notes.txt")).unwrap(), b"mine");
    assert_eq!(names(&place.path("d")).len(), 5);
    fs::create_dir(place.path("other")).unwrap();
    fs::write(place.path("other/README.md"), "mine").unwrap();
    let said = place.refused(&["save", &file, "--out", "other", "--force"]);
    assert!(said.contains("not a saved intervention"), "{said}");
}

#[test]
fn train_removes_no_intervention_that_it_did_not_learn() {
    let place = Place::new();
    of_examples(&place);
    let text = fs::read_to_string(place.path("train.toml")).unwrap().replace("steps = 100000", "steps = 3");
    fs::write(place.path("train.toml"), text).unwrap();
    let file = place.experiment("save.toml", &format!("{EDIT}op = 'zero'\n"));
    fs::create_dir(place.path("d")).unwrap();
    assert!(place.run(&["save", &file, "--out", "d/intervention"]).status.success());
    let train = ["train", "train.toml", "--out", "d"];
    let said = place.refused(&train);
    assert!(said.contains("d already holds results: intervention"), "{said}");
    fs::write(place.path("d/intervention/notes.txt"), "mine").unwrap();
    let force = ["train", "train.toml", "--out", "d", "--force"];
    let said = place.refused(&force);
    assert!(said.contains("did not write: \"notes.txt\""), "{said}");
    assert_eq!(names(&place.path("d")), ["intervention"]);
    fs::remove_file(place.path("d/intervention/notes.txt")).unwrap();
    let before = fs::read(place.path("d/intervention/intervention.json")).unwrap();
    assert!(place.run(&force).status.success());
    assert_ne!(fs::read(place.path("d/intervention/intervention.json")).unwrap(), before);
    // What is no folder at all is found before any work, too.
    fs::remove_dir_all(place.path("d")).unwrap();
    fs::create_dir(place.path("d")).unwrap();
    fs::write(place.path("d/intervention"), "mine").unwrap();
    let said = place.refused(&force);
    assert!(said.contains("is not a folder that causalcone wrote"), "{said}");
    assert_eq!(fs::read(place.path("d/intervention")).unwrap(), b"mine");
}

/// While a search runs, what was learned so far does not have the final name.
#[test]
fn an_unfinished_search_has_no_intervention() {
    let place = Place::new();
    of_examples(&place);
    let text = fs::read_to_string(place.path("train.toml")).unwrap();
    let text = text
        .replace("[train]", "[sweep]\npositions = 'each'\n[train]")
        .replace("steps = 100000", "steps = 2000");
    fs::write(place.path("train.toml"), text).unwrap();
    let args = ["train", "train.toml", "--out", "d"];
    let mut child = place.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !place.path("d/intervention.unfinished").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the search has ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(!place.path("d/intervention").exists() && !place.path("d/train.json").exists());
    assert!(place.run(&["train", "train.toml", "--out", "d", "--resume"]).status.success());
    let left = names(&place.path("d"));
    assert!(
        left.contains(&"intervention".to_owned()) && !left.contains(&"intervention.unfinished".to_owned())
    );
}

#[test]
fn special_files_are_no_outputs() {
    let place = Place::new();
    let vector =
        "[[edit]]\nrun = 'base'\nsite = 'block_output'\nlayers = [1]\nop = 'add'\nvalue = { values = 0.5 }\n";
    let vector = place.experiment("vector.toml", vector);
    fs::write(place.path("precious"), "precious").unwrap();
    fifo(&place.path("pipe.gguf"));
    std::os::unix::fs::symlink("precious", place.path("link.gguf")).unwrap();
    for (out, kind) in [("pipe.gguf", "a named pipe"), ("link.gguf", "a symbolic link")] {
        for more in [None, Some("--force")] {
            let said = place.refused(&[&["save", &vector, "--out", out][..], more.as_slice()].concat());
            assert!(said.contains(&format!("{out} is not a regular file but {kind}")), "{said}");
        }
    }
    assert_eq!(fs::read(place.path("precious")).unwrap(), b"precious");
    // A name that is taken is found before a model is loaded.
    let said = place.refused(&["save", &vector, "--out", "precious"]);
    assert!(said.contains("precious already exists"), "{said}");
    let said = place.refused(&["save", &vector, "--out", "precious", "--force"]);
    assert!(said.contains("precious is not a folder") && !said.contains("--force"), "{said}");
}

#[test]
fn data_writes_two_different_regular_files() {
    let place = Place::new();
    let text = format!(
        "model = '{FIXTURES}/tiny-llama-tied'\nprompt = 'hello {{country}} is'\nlabel = '{{capital}}'\nheld_out = 0.4\n\
         held_out_examples = 2\nexamples = 5\n[interchange]\nsource = ['capital']\n\
         [variables.country]\nvalues = ['a','b','c','d','e']\n\
         [variables.capital]\nparents = ['country']\ntable = [['a','f'],['b','g'],['c','h'],['d','i'],['e','j']]\n"
    );
    fs::write(place.path("c.toml"), text).unwrap();
    fs::create_dir(place.path("d")).unwrap();
    std::os::unix::fs::symlink(place.path("d"), place.path("other")).unwrap();
    let run = |out: &str, held_out: &str| {
        place.refused(&["data", "c.toml", "--out", out, "--held-out", held_out, "--force"])
    };
    for (out, held_out) in [("x", "d/../x"), ("x", "./x"), ("d/x", "other/x")] {
        let said = run(out, held_out);
        assert!(said.contains("--out and --held-out are the same file"), "{out} {held_out}: {said}");
    }
    fifo(&place.path("pipe"));
    assert!(run("pipe", "y").contains("pipe is not a regular file but a named pipe"));
    assert!(run("y", "pipe").contains("pipe is not a regular file but a named pipe"));
    assert!(run("y", "missing/z").contains("cannot create missing/z"));
    assert_eq!(names(place.0.path()), ["c.toml", "d", "other", "pipe"]);
    let done = ["data", "c.toml", "--out", "y", "--held-out", "d/z"];
    assert!(place.run(&done).status.success());
    assert!(place.refused(&done).contains("y already exists"));
}

/// What a folder says of itself is read as any other input.
#[test]
fn special_files_in_a_folder_are_refused() {
    let place = Place::new();
    of_examples(&place);
    for (name, files) in
        [("resume.json", &["resume.json"][..]), ("steps.jsonl", &["steps.jsonl", "resume.json"])]
    {
        let file = if name == "steps.jsonl" { "train.toml" } else { "sweep.toml" };
        for zero in [false, true] {
            let out = format!("{name}-{zero}");
            fs::create_dir(place.path(&out)).unwrap();
            for file in files {
                let path = place.path(&out).join(file);
                if zero { std::os::unix::fs::symlink("/dev/zero", path).unwrap() } else { fifo(&path) }
            }
            let said = place.refused(&[file.split('.').next().unwrap(), file, "--out", &out, "--resume"]);
            assert!(said.contains("is not a regular file but"), "{said}");
        }
    }
}

#[test]
fn a_refused_command_leaves_nothing() {
    let place = Place::new();
    let bad =
        place.experiment("bad.toml", "[[edit]]\nsite = 'nowhere'\nop = 'zero'\n[sweep]\nlayers = 'each'\n");
    let before = names(place.0.path());
    for command in ["sweep", "collect", "generate", "lens", "train", "save"] {
        place.refused(&[command, &bad, "--out", "new/folder"]);
        assert_eq!(names(place.0.path()), before, "{command}");
    }
    // What is found only when the work is planned: a run that generates collects nothing, and memory that is too small.
    let collect = place.experiment("collect.toml", &format!("{EDIT}positions = 'all'\nop = 'collect'\n"));
    place.refused(&["generate", &collect, "--out", "new"]);
    assert!(!place.path("new").exists());
    place.refused(&["collect", &collect, "--out", "new", "--memory", "1KB"]);
    assert!(!place.path("new").exists());
    // A lens that cannot be written whole leaves no part of it.
    let file = place.experiment("lens.toml", &format!("{EDIT}op = 'zero'\n[read]\ntokens = [7]\n"));
    let out = place.run_on_full_disk(&format!("lens {file} --out new"));
    assert!(!out.status.success());
    assert!(!place.path("new").exists());
    assert!(place.run(&["lens", &file, "--out", "new"]).status.success());
}

/// A path that is no text is shown as far as it can be, in results too.
#[test]
fn a_path_that_is_no_text_is_written_to() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::new();
    let file = place.experiment("save.toml", &format!("{EDIT}op = 'zero'\n"));
    let mut command = place.command(&["save", &file, "--json", "--out"]);
    let out = command.arg(std::ffi::OsStr::from_bytes(b"n\xffn")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(result["out"], "n\u{fffd}n");
}

/// nohup starts a command that ignores SIGHUP.
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let place = Place::new();
    of_examples(&place);
    let mut shell = std::process::Command::new("sh");
    let command =
        format!("trap '' HUP; exec '{}' train train.toml --out out", env!("CARGO_BIN_EXE_causalcone"));
    shell.args(["-c", &command]).current_dir(place.0.path()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().unwrap();
    while fs::metadata(place.path("out/steps.jsonl")).map_or(0, |found| found.len()) < 100 {
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&child, "HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
