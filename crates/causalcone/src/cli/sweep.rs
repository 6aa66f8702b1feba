//! `sweep`: every cell, a table, a heat map, and a record of what ran.

use super::failure::Failure;
use super::folder::{Folder, Identity};
use super::terminal::Terminal;
use super::{Loaded, SweepArgs};
use crate::{Error, Explanation, PreparedSweep, Reference, SweepResult, heat_map, store, table};
use causalcone_report::{Format, HeatMap, text};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// PNG figures are drawn at twice the size of the SVG, for screens that show it so.
const PNG_SCALE: f32 = 2.0;

/// Seconds each part took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Seconds {
    load: f64,
    /// Everything after loading until the table is written.
    pub(super) sweep: f64,
    figure: f64,
}

/// What was done, as `sweep --json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    model: String,
    out: PathBuf,
    pub(super) cells: usize,
    resumed: usize,
    files: Vec<PathBuf>,
    pub(super) seconds: Seconds,
}

/// What ran, for whoever wants to run it again.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a crate::ExperimentFile,
    identity: &'a Identity,
    model: ModelRecord<'a>,
    plan: &'a Explanation,
    seconds: Seconds,
}

#[derive(Serialize)]
struct ModelRecord<'a> {
    name: &'a str,
    family: &'a str,
    sha256: &'a str,
}

/// What a sweep left behind.
pub(super) struct Swept {
    pub(super) summary: Summary,
    pub(super) result: SweepResult,
    pub(super) map: HeatMap,
}

/// `causalcone sweep`.
pub(super) fn command(args: &SweepArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, args.again)?;
    let started = Instant::now();
    let loaded = Loaded::new(&args.file.file, args.file.model.as_deref(), terminal)?;
    let load = started.elapsed().as_secs_f64();
    let again =
        format!("causalcone sweep {} --out {} --resume", args.file.file.display(), args.out.display());
    let swept = sweep(&loaded, &folder, args.format, load, &again, terminal)?;
    let drawn = causalcone_report::terminal::render(&swept.map, &terminal.style())?;
    terminal.result(&swept.summary, |summary| {
        let files: String = summary.files.iter().map(|file| format!("  {}\n", file.display())).collect();
        let (cells, seconds) = (summary.cells, summary.seconds.sweep);
        let resumed = if summary.resumed > 0 {
            format!(", {} of them from the journal", summary.resumed)
        } else {
            String::new()
        };
        format!("{drawn}\n{cells} cells in {seconds:.1} s{resumed}\n{files}")
    })
}

/// Runs a sweep into a folder. `go_on` is the command that resumes it.
pub(super) fn sweep(
    loaded: &Loaded,
    folder: &Folder,
    format: Format,
    load: f64,
    go_on: &str,
    terminal: &Terminal,
) -> Result<Swept, Failure> {
    let started = Instant::now();
    let model = &loaded.model;
    let experiment = loaded.experiment()?;
    let prepared = PreparedSweep::new(&experiment)?;
    let plan = Explanation::new(&experiment, &Reference)?;
    let identity = identity(loaded)?;
    let cells = prepared.plan().cells.len();
    let (mut journal, done) = folder.journal(&identity, cells, prepared.columns().len())?;
    let resumed = done.len();
    let result = prepared.resume(&Reference, done, &|progress| terminal.progress(progress), |finished| {
        journal.append(finished.iter().cloned())
    });
    terminal.clear();
    let result = result.map_err(|e| match e {
        Error::Interrupted => Failure::run("interrupted; finished cells are in the journal")
            .hint(format!("go on with: {go_on}")),
        other => other.into(),
    })?;

    let name = format!("cells.{}", format.name());
    let cells_table = table(&result, model)?;
    folder.write(&name, |w| cells_table.write(format, w))?;
    let sweep = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let map = titled(heat_map(&result, model, ""), loaded);
    let svg = map.to_svg()?;
    folder.write("heatmap.svg", |w| w.write_all(svg.as_bytes()))?;
    let png = map.to_png(PNG_SCALE)?;
    folder.write("heatmap.png", |w| w.write_all(&png))?;
    let seconds = Seconds { load, sweep, figure: started.elapsed().as_secs_f64() };

    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        identity: &identity,
        model: ModelRecord { name: model.name(), family: model.config().family, sha256: model.sha256()? },
        plan: &plan,
        seconds,
    };
    folder.write("experiment.json", |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    let files = [name.as_str(), "heatmap.svg", "heatmap.png", "experiment.json"]
        .map(|name| folder.file(name))
        .to_vec();
    let out = folder.file("");
    let summary = Summary { model: model.name().into(), out, cells, resumed, files, seconds };
    Ok(Swept { summary, result, map })
}

/// What this sweep is, for a later --resume to compare.
fn identity(loaded: &Loaded) -> Result<Identity, Failure> {
    let mut content = serde_json::to_string(&loaded.file).map_err(|e| Failure::run(e.to_string()))?;
    for file in loaded.file.edit.iter().filter_map(|edit| edit.value.as_ref()?.file.as_ref()) {
        let beside = loaded.file.folder.join(file);
        let path = if beside.exists() { beside.as_path() } else { Path::new(file) };
        content += &store::cached_sha256(path)?;
    }
    Ok(Identity {
        file: Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect(),
        model: loaded.model.sha256()?.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        seed: None,
    })
}

/// Says on the figure what was done to what.
fn titled(mut map: HeatMap, loaded: &Loaded) -> HeatMap {
    let file = &loaded.file;
    let swept = match file.sweep.as_ref().and_then(|sweep| sweep.edit.as_ref()) {
        Some(causalcone_engine::file::EditsFile::One(causalcone_engine::file::EditRefFile::Name(name))) => {
            file.edit.iter().find(|edit| edit.name.as_ref() == Some(name))
        }
        Some(causalcone_engine::file::EditsFile::One(causalcone_engine::file::EditRefFile::Index(i))) => {
            file.edit.get(*i)
        }
        _ => file.edit.first(),
    };
    if let Some(edit) = swept {
        let value = edit.value.as_ref().map_or(String::new(), |value| {
            use causalcone_engine::file::TokenFile;
            match (&value.embedding, &value.run, &value.file) {
                (Some(TokenFile::Text(text)), ..) => format!(" embedding of {}", text::token(text)),
                (Some(TokenFile::Id(id)), ..) => format!(" embedding of token {id}"),
                (_, Some(run), _) => format!(" from run {}", text::prose(run)),
                (.., Some(file)) => format!(" {}", text::prose(file)),
                _ => " constant".into(),
            }
        });
        map.title = format!("{}{value}", edit.op);
    }
    let run = file.runs.get("base").or_else(|| file.runs.values().next());
    let prompt = run.and_then(|run| run.prompt.as_deref()).unwrap_or_default();
    map.subtitle = Some(text::shorten(&format!("{}: {}", loaded.model.name(), text::prose(prompt)), 90));
    map
}
