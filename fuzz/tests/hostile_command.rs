//! The command on hostile files: experiments, data, models, saved interventions, and what it resumes from.
//!
//! Takes hours, so that `cargo xtask long fuzz` runs it and the check does not. `CAUSALCONE_FUZZ_RUNS` says how many runs,
//! `CAUSALCONE_FUZZ_SEED` which. What failed is kept in `target/fuzz/command`, a folder each.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

use causalcone_fuzz::mutate::{Mutator, Random};
use causalcone_fuzz::{Target, copy, repository};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const RUNS: u64 = 100_000;
const WORKERS: u64 = 2;
/// The address space of the command, in bytes.
const MEMORY: &str = "--as=6000000000";
const TIME: Duration = Duration::from_secs(60);
/// So many faults are kept and told. More of them show nothing else.
const MOST_FAULTS: usize = 100;
/// The longest that the command may write to stderr, in bytes.
const MESSAGE: usize = 4096;

/// A file, and the target that knows what it is made of.
type File = (&'static str, &'static str);

/// What an experiment reads, itself included.
const EXPERIMENT: &[File] = &[
    ("e.toml", "experiment"),
    ("e.toml", "experiment"),
    ("e.toml", "experiment"),
    ("e.toml", "experiment"),
    ("e.json", "experiment_json"),
    ("d.jsonl", "data_set"),
    ("plain.jsonl", "data_set"),
    ("values.safetensors", "safetensors"),
    ("row.npy", "numpy"),
    ("control.gguf", "control_vector"),
    ("saved/intervention.json", "saved"),
    ("saved/weights.safetensors", "safetensors"),
];

/// The files of the models.
const MODEL: &[File] = &[
    ("model/config.json", "config"),
    ("model/tokenizer.json", "tokenizer_json"),
    ("model/tokenizer_config.json", "tokenizer_config"),
    ("model/chat_template.jinja", "chat_template"),
    ("model/generation_config.json", "generation_config"),
    ("model/model.safetensors.index.json", "safetensors_index"),
    ("model/model-00003-of-00003.safetensors", "safetensors"),
    ("model.gguf", "gguf"),
    ("pickled/pytorch_model.bin.index.json", "torch_index"),
    ("pickled/pytorch_model-00003-of-00003.bin", "torch"),
];

/// Each command with the experiment it needs, if it needs a certain one, and the files that may be changed. `EXPERIMENT`
/// and `MODEL` stand for one that is chosen at random.
const JOBS: &[(&str, &str, &[&[File]])] = &[
    ("explain EXPERIMENT", "", &[EXPERIMENT, MODEL]),
    ("run EXPERIMENT", "", &[EXPERIMENT, MODEL]),
    ("sweep EXPERIMENT --out out", "", &[EXPERIMENT, MODEL]),
    ("sweep EXPERIMENT --out out --verify --format parquet", "", &[EXPERIMENT]),
    ("collect EXPERIMENT --out out", "collect", &[EXPERIMENT, MODEL]),
    ("generate EXPERIMENT --max-tokens 5", "", &[EXPERIMENT, MODEL]),
    ("generate EXPERIMENT --out out --table", "generate", &[EXPERIMENT]),
    ("train EXPERIMENT --out out", "train", &[EXPERIMENT, MODEL]),
    ("train EXPERIMENT --out out", "reft", &[EXPERIMENT]),
    ("lens EXPERIMENT --out out", "", &[EXPERIMENT, MODEL]),
    ("lens --prompt hello -m MODEL --out out", "", &[MODEL]),
    ("save EXPERIMENT --out out", "values", &[EXPERIMENT]),
    ("save EXPERIMENT --out out.gguf", "steering", &[EXPERIMENT]),
    ("data causal.toml --out drawn.jsonl", "", &[&[("causal.toml", "causal_model")], MODEL]),
    (
        "info saved -m model",
        "",
        &[&[("saved/intervention.json", "saved"), ("saved/weights.safetensors", "safetensors")]],
    ),
    ("models info MODEL", "", &[MODEL]),
    ("models info MODEL --hash --strict", "", &[MODEL]),
    ("top -m MODEL --ids 1,2,3", "", &[MODEL]),
    ("top -m MODEL hello", "", &[MODEL]),
    ("top -m model --chat hello", "", &[MODEL]),
    (
        "sweep swap.toml --out done/sweep --resume",
        "",
        &[&[
            ("done/sweep/resume.json", "saved"),
            ("done/sweep/journal.jsonl", "journal"),
            ("swap.toml", "experiment"),
        ]],
    ),
    // A shard that is there is whole, so that it is not read again.
    ("collect collect.toml --out done/collect --resume", "", &[&[("done/collect/resume.json", "saved")]]),
    (
        "generate generate.toml --out done/generate --table --resume",
        "",
        &[&[("done/generate/resume.json", "saved"), ("done/generate/texts.jsonl", "journal")]],
    ),
    (
        "train train.toml --out done/train --resume",
        "",
        &[&[
            ("done/train/resume.json", "saved"),
            ("done/train/journal.jsonl", "journal"),
            ("done/train/checkpoint.safetensors", "checkpoint"),
            ("done/train/steps.jsonl", "journal"),
        ]],
    ),
];

/// The command, as the tests' build has left it beside this program's folder.
fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.parent().and_then(Path::parent).unwrap().join("causalcone");
    assert!(program.exists(), "{} is not built: cargo test --workspace --no-run", program.display());
    program
}

/// The command in a folder, far from the network and from what the user has in caches.
fn command(folder: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new("prlimit");
    command.arg(MEMORY).arg(program()).args(arguments).current_dir(folder);
    let home = folder.join("home");
    for variable in ["CAUSALCONE_CACHE", "HOME", "HF_HOME", "HF_HUB_CACHE"] {
        command.env(variable, &home);
    }
    command
        .env("PIP_NO_INDEX", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null());
    command
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Runs the command in a folder. `None` if it had to be killed.
fn run(folder: &Path, arguments: &[String], output: &Path) -> Option<ExitStatus> {
    let errors = fs::File::create(output).unwrap();
    let mut child = command(folder, arguments).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
    let started = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return Some(status),
            None if started.elapsed() > TIME => {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Makes the folder that every run starts from: models, experiments and what they read, and work that was cut short.
fn prepare(base: &Path) {
    copy(&repository("fuzz/seeds/place"), base).unwrap();
    copy(&repository("fixtures/tiny-llama-tied"), &base.join("model")).unwrap();
    copy(&repository("fixtures/weight-files/tiny-llama-tied"), &base.join("pickled")).unwrap();
    let file = |from: &str, to: &str| {
        fs::copy(repository(from), base.join(to)).unwrap();
    };
    file("fixtures/tiny-llama-tied/config.json", "pickled/config.json");
    file("fixtures/tiny-llama-tied.gguf", "model.gguf");
    let causal = fs::read_to_string(repository("fuzz/seeds/causal_model/equality.toml")).unwrap();
    fs::write(base.join("causal.toml"), of_model(&causal, "model")).unwrap();
    fs::write(
        base.join("model/tokenizer_config.json"),
        r#"{"bos_token": "<|endoftext|>", "add_bos_token": false}"#,
    )
    .unwrap();
    let template =
        "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}";
    fs::write(base.join("model/chat_template.jinja"), template).unwrap();
    for name in ["swap", "collect", "generate", "train"] {
        fs::write(base.join(format!("{name}.toml")), experiment(name, "model")).unwrap();
    }
    let log = base.join("log.txt");
    for line in ["sweep swap.toml", "collect collect.toml", "generate generate.toml --table"] {
        let command = line.split(' ').next().unwrap();
        let ran = run(base, &words(&format!("{line} --out done/{command}")), &log);
        assert!(ran.is_some_and(|ran| ran.success()), "{line}: {}", fs::read_to_string(&log).unwrap());
    }
    // What is finished becomes what was cut short.
    let journal = base.join("done/sweep/journal.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, &text[..text.len() - 10]).unwrap();
    for file in
        ["sweep/cells.csv", "sweep/experiment.json", "collect/collection.json", "generate/generate.json"]
    {
        fs::remove_file(base.join("done").join(file)).unwrap();
    }
    // A training is killed after its first checkpoint, and its length is then one that ends soon.
    let train = base.join("train.toml");
    let text = fs::read_to_string(&train).unwrap().replace("steps = 3", "steps = 400\ncheckpoint = 2");
    fs::write(&train, text).unwrap();
    let mut child = command(base, &words("train train.toml --out done/train"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !base.join("done/train/checkpoint.safetensors").exists() && started.elapsed() < TIME {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        base.join("done/train/checkpoint.safetensors").exists(),
        "the training ended before it was killed"
    );
    // What the killed training left behind must not be counted as left by the runs that follow.
    while let Some(left) = left_over(base) {
        if left.is_dir() { fs::remove_dir_all(left).unwrap() } else { fs::remove_file(left).unwrap() }
    }
    fs::remove_file(log).unwrap();
}

/// Every job must succeed on files that nobody has changed: otherwise it is about nothing.
fn check_jobs(base: &Path, folder: &Path) {
    for (line, certain, _) in JOBS {
        // Of those that take any experiment, some are not for that command.
        let name = match (*certain, line.split(' ').next().unwrap()) {
            ("", "sweep" | "lens" | "explain" | "run") => "swap",
            ("", "generate") => "generate",
            (certain, _) => certain,
        };
        copy(base, folder).unwrap();
        if line.contains("EXPERIMENT") {
            fs::write(folder.join("e.toml"), experiment(name, "model")).unwrap();
        }
        let line = line.replace("EXPERIMENT", "e.toml").replace("MODEL", "model");
        let errors = folder.join("home-stderr.txt");
        let status = run(folder, &words(&line), &errors);
        assert!(
            status.is_some_and(|status| status.success()),
            "{line}: {}",
            fs::read_to_string(errors).unwrap()
        );
        fs::remove_dir_all(folder).unwrap();
    }
}

/// An experiment of the seeds, for another model.
fn experiment(name: &str, model: &str) -> String {
    of_model(&fs::read_to_string(repository(&format!("fuzz/seeds/experiment/{name}.toml"))).unwrap(), model)
}

fn of_model(text: &str, model: &str) -> String {
    text.replace("\"tiny-llama-tied\"", &format!("\"{model}\""))
}

/// Whether the run reads a file: one of its model, or one that the experiment or the command line names.
fn is_read(file: &str, model: &str, experiment: &str, line: &str) -> bool {
    let first = file.split('/').next().unwrap_or_default();
    match first {
        "model" | "model.gguf" | "pickled" => first == model,
        "e.toml" | "e.json" => true,
        _ => experiment.contains(first) || line.contains(first),
    }
}

/// The names of the experiments that were never a fault.
fn experiments() -> Vec<String> {
    let files = fs::read_dir(repository("fuzz/seeds/experiment")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".toml").map(str::to_owned)).collect();
    names.retain(|name| !name.starts_with("fault"));
    names.sort();
    names
}

/// What the drivers of all workers share.
struct Driver {
    base: PathBuf,
    experiments: Vec<String>,
    mutators: BTreeMap<&'static str, Mutator>,
    seed: u64,
    runs: u64,
    next: AtomicU64,
    counts: Mutex<BTreeMap<(String, String), u64>>,
    faults: Mutex<Vec<String>>,
}

impl Driver {
    /// Prepares one run, does it, and keeps what is wrong.
    fn one(&self, number: u64, folder: &Path) {
        let _ = fs::remove_dir_all(folder);
        copy(&self.base, folder).unwrap();
        let mut random = Random::new(self.seed.wrapping_mul(1 << 32).wrapping_add(number));
        let (line, certain, files) = random.pick(JOBS).unwrap();
        let has_any = line.contains("EXPERIMENT") || line.contains("MODEL");
        let model = if has_any {
            *random.pick(&["model", "model", "model.gguf", "pickled"]).unwrap()
        } else {
            "model"
        };
        let any = random.pick(&self.experiments).unwrap().as_str();
        let name = if certain.is_empty() || random.one_in(10) { any } else { certain };
        let text = if line.contains("EXPERIMENT") { experiment(name, model) } else { String::new() };
        if !text.is_empty() {
            fs::write(folder.join("e.toml"), &text).unwrap();
            let tree = causalcone_fuzz::mutate::Node::from_toml(text.as_bytes()).unwrap();
            fs::write(folder.join("e.json"), tree.to_json()).unwrap();
        }
        let mut changed = Vec::new();
        for _ in 0..if random.one_in(8) { 2 } else { 1 } {
            let group: Vec<&File> = random
                .pick(files)
                .unwrap()
                .iter()
                .filter(|(file, _)| is_read(file, model, &text, line))
                .collect();
            let Some((file, target)) = random.pick(&group) else { continue };
            let path = folder.join(file);
            let data = fs::read(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
            fs::write(&path, self.mutators[target].mutate(&data, &mut random)).unwrap();
            changed.push(*file);
        }
        let file = if changed.contains(&"e.json") { "e.json" } else { "e.toml" };
        let line = line.replace("EXPERIMENT", file).replace("MODEL", model);
        let errors = folder.join("home-stderr.txt");
        let started = Instant::now();
        let status = run(folder, &words(&line), &errors);
        let said = String::from_utf8_lossy(&fs::read(&errors).unwrap()).into_owned();
        let mut wrong = Vec::new();
        let code = match status.map(|status| status.code()) {
            None => "killed".into(),
            Some(None) => "signal".into(),
            Some(Some(code)) => code.to_string(),
        };
        if !["0", "1", "2"].contains(&code.as_str()) {
            wrong.push(format!("exit code: {code} after {:.1?}", started.elapsed()));
        }
        if said.contains("panicked") {
            wrong.push("it panicked".into());
        }
        if said.len() >= MESSAGE {
            wrong.push(format!("{} bytes on stderr", said.len()));
        }
        if code != "killed"
            && let Some(file) = left_over(folder)
        {
            wrong.push(format!("left {}", file.display()));
        }
        let command =
            line.split(' ').take(if line.starts_with("models") { 2 } else { 1 }).collect::<Vec<_>>();
        *self.counts.lock().unwrap().entry((command.join(" "), code)).or_default() += 1;
        if !wrong.is_empty() && self.faults.lock().unwrap().len() < MOST_FAULTS {
            let kept = repository("target/fuzz/command").join(format!("{}-{number}", self.seed));
            let _ = fs::remove_dir_all(&kept);
            copy(folder, &kept).unwrap();
            let fault = format!(
                "run {number}: causalcone {line}\n  in {} (changed: {changed:?})\n  {}\n  {}",
                kept.display(),
                wrong.join("; "),
                said.chars().take(300).collect::<String>().replace('\n', "\n  ")
            );
            println!("{fault}");
            self.faults.lock().unwrap().push(fault);
        }
    }
}

/// A temporary file of the command that is still there.
fn left_over(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        if name.starts_with(".causalcone-") {
            return Some(path);
        }
        path.is_dir().then(|| left_over(&path))?
    })
}

#[test]
#[ignore = "takes hours; cargo xtask long fuzz runs it"]
fn hostile_files_do_not_break_the_command() {
    let number = |variable| std::env::var(variable).ok().and_then(|text| text.parse::<u64>().ok());
    let runs = number("CAUSALCONE_FUZZ_RUNS").unwrap_or(RUNS);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() & 0xffff_ffff;
    let seed = number("CAUSALCONE_FUZZ_SEED").unwrap_or(now);
    println!("CAUSALCONE_FUZZ_SEED={seed} CAUSALCONE_FUZZ_RUNS={runs}");
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let place = tempfile::Builder::new().prefix("causalcone-fuzz-").tempdir_in(parent).unwrap();
    let base = place.path().join("base");
    prepare(&base);
    check_jobs(&base, &place.path().join("unchanged"));
    let files = JOBS.iter().flat_map(|(_, _, files)| files.iter().copied().flatten());
    let mutators = files.map(|(_, target)| (*target, Target::named(target).unwrap().mutator())).collect();
    let driver = Driver {
        base,
        experiments: experiments(),
        mutators,
        seed,
        runs,
        next: AtomicU64::new(0),
        counts: Mutex::default(),
        faults: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (driver, folder) = (&driver, place.path().join(format!("worker-{worker}")));
            scope.spawn(move || {
                loop {
                    let number = driver.next.fetch_add(1, Ordering::Relaxed);
                    if number >= driver.runs {
                        break;
                    }
                    driver.one(number, &folder);
                }
            });
        }
    });
    for ((command, code), count) in driver.counts.lock().unwrap().iter() {
        println!("{count:8} × exit {code:6} {command}");
    }
    let faults = driver.faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {runs} runs failed; seed {seed}", faults.len());
}
