//! `tour`: the activation-addition tutorial, end to end. Each step is an experiment file.

use crate::answers::run_once;
use crate::args::TourArgs;
use crate::check::{Check, Published};
use crate::failure::Failure;
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::jobs::sweep::{Options, Summary, run};
use causalcone::jobs::{Folder, Results, shown};
use causalcone::{Experiment, ExperimentFile, Model, Runtime, TokenRecord, Top};
use causalcone_files::{create_folders, write_whole};
use causalcone_report::terminal::render;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An experiment file of the tour, as it is shipped in examples/.
struct Shipped {
    name: &'static str,
    text: &'static str,
}

macro_rules! shipped {
    ($name:literal) => {
        Shipped { name: $name, text: include_str!(concat!("../examples/", $name, ".toml")) }
    };
}

const ADD: Shipped = shipped!("add");
const SWEEPS: [(Shipped, &str); 3] = [
    (
        shipped!("cumulative"),
        "3. The same vector added to layers 0..=i, for every layer i and every position,\n   to the MLP's output and to attention's",
    ),
    (
        shipped!("swap"),
        "4. The other half of such work: activations swapped in from the Italy run,\n   one layer and position at a time",
    ),
    (shipped!("scales"), "5. The addition of step 2 at several scales"),
];

#[derive(Serialize)]
struct TourResult {
    model: String,
    load_seconds: f64,
    base: Answer,
    source: Answer,
    add_all_mlp_last: Vec<TokenRecord>,
    sweeps: Vec<SweepStep>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
}

#[derive(Serialize)]
struct Answer {
    text: String,
    ids: Vec<u32>,
    top: Top,
}

#[derive(Serialize)]
struct SweepStep {
    name: &'static str,
    file: String,
    #[serde(flatten)]
    summary: Summary,
}

/// `causalcone tour`.
pub(crate) fn tour(args: &TourArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folders = claim(args)?;
    let published = if args.check { Some(Published::for_model(&args.model)?) } else { None };
    let started = Instant::now();
    let model = terminal.load(&args.model, args.weights.given())?;
    let load_seconds = started.elapsed().as_secs_f64();
    let config = model.config();
    let (layers, width, millions) = (config.layers, config.width, config.parameters() as f64 / 1e6);
    terminal.say(&format!(
        "{}: {layers} layers, width {width}, {millions:.0} million weights, ready in {load_seconds:.1} s\n\n",
        args.model
    ))?;

    terminal.say("1. What the model says\n\n")?;
    let add = ExperimentFile::from_toml(ADD.text)?;
    let mut loaded = Loaded { file: add, model, load_seconds };
    let base = answer(&loaded.model, "The capital of Spain is", terminal)?;
    let source = answer(&loaded.model, "The capital of Italy is", terminal)?;

    let path = ship(&args.out, &ADD, &args.model)?;
    terminal.say(&format!(
        "2. The word vector of _Rome added to the MLP's output of every layer,\n   at the last position of the Spain prompt   ({})\n\n",
        path.display()
    ))?;
    loaded.file = ExperimentFile::load(&path)?;
    let added = run_once(&loaded, terminal)?.counterfactual.top;
    terminal.say(&format!("{}\n{}\n", base.text, Top(added.clone())))?;

    let report = terminal.report();
    let runtime = Runtime { progress: &report, ..Runtime::default() };
    let mut sweeps = Vec::new();
    let mut tables = Vec::new();
    for ((shipped, about), folder) in SWEEPS.iter().zip(folders) {
        let path = ship(&args.out, shipped, &args.model)?;
        terminal.say(&format!("{about}   ({})\n\n", path.display()))?;
        loaded.file = ExperimentFile::load(&path)?;
        let swept = run(&loaded.source(), &folder, &Options::default(), &runtime, terminal)?;
        terminal.say(&format!("{}\n", render(&swept.map, &terminal.style())?))?;
        let (cells, seconds) = (swept.summary.cells, swept.summary.seconds.sweep);
        terminal.say(&format!(
            "   {cells} cells in {seconds:.1} s: {}\n\n",
            folder.file("heatmap.png").display()
        ))?;
        tables.push((shipped.name, swept.result));
        sweeps.push(SweepStep { name: shipped.name, file: shown(&path), summary: swept.summary });
    }
    terminal.say(&format!(
        "Change one of these files and run it again:\n   causalcone sweep {} --out mine\n",
        args.out.join("cumulative.toml").display()
    ))?;

    let check = published.map(|published| {
        published.check(&base.ids, &base.top.0, &source.top.0, &added, &tables, &loaded.model)
    });
    if let Some(check) = &check {
        terminal.say(&format!("\n{check}\n"))?;
    }
    let failed = check.as_ref().and_then(Check::failure);
    let result = TourResult {
        model: args.model.clone(),
        load_seconds,
        base,
        source,
        add_all_mlp_last: added,
        sweeps,
        check,
    };
    if terminal.is_json() {
        terminal.result(&result, |_| String::new())?;
    }
    failed.map_or(Ok(()), Err)
}

/// The folders of the sweeps, all of them checked before any work, as are the experiment files: one
/// that the reader has changed is not overwritten unasked.
fn claim(args: &TourArgs) -> Result<Vec<Folder>, Failure> {
    for shipped in [&ADD].into_iter().chain(SWEEPS.iter().map(|(shipped, _)| shipped)) {
        let path = shipped.path(&args.out);
        let is_changed = path.is_file()
            && std::fs::read(&path).is_ok_and(|text| text != shipped.for_model(&args.model).as_bytes());
        if is_changed && !args.again.force {
            let message = format!("{} has been changed since the tour wrote it", path.display());
            return Err(Failure::input(message).hint("--force replaces it, or choose another --out"));
        }
    }
    SWEEPS
        .iter()
        .map(|(shipped, _)| {
            Ok(Folder::claim(&args.out.join(shipped.name), Results::Sweep, args.again.into())?)
        })
        .collect()
}

/// The ten likeliest next tokens of a prompt.
fn answer(model: &Model, text: &str, terminal: &Terminal) -> Result<Answer, Failure> {
    let mut experiment = Experiment::new(model);
    let run = experiment.run(text)?;
    let top = experiment.execute()?.original(run).top(10);
    terminal.say(&format!("{text}\n{top}\n"))?;
    Ok(Answer { text: text.into(), ids: experiment.ids(run).to_vec(), top })
}

impl Shipped {
    fn path(&self, out: &Path) -> PathBuf {
        out.join(format!("{}.toml", self.name))
    }

    /// The file's text with this model in it.
    fn for_model(&self, model: &str) -> String {
        // A JSON text is a TOML text too.
        let model = serde_json::Value::from(model).to_string();
        self.text.replace("model = \"smollm2\"", &format!("model = {model}"))
    }
}

/// Writes an experiment file of the tour where the reader will find it.
fn ship(out: &Path, shipped: &Shipped, model: &str) -> Result<PathBuf, Failure> {
    let path = shipped.path(out);
    create_folders(out)?;
    write_whole(&path, |w| w.write_all(shipped.for_model(model).as_bytes()))?;
    Ok(path)
}
