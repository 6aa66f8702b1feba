//! `train`: parameters fitted, step by step, into a folder that a killed training goes on from.

use crate::args::TrainArgs;
use crate::examples::sifted;
use crate::failure::Failure;
use crate::fitting::{Logged, Work, best_of};
use crate::folder::{Folder, INTERVENTION, Identity, Results};
use crate::loaded::Loaded;
use crate::sweep::{ModelRecord, titled};
use crate::terminal::Terminal;
use causalcone::train::{Score, Step, Training};
use causalcone::{Refused, heat_map, means_table, table};
use causalcone_files::PlaceKind;
use causalcone_report::{Cell, Chart, ColumnKind, Format, HeatMap, Panel, Series, Span, Table};
use serde::Serialize;
use std::time::Instant;

/// Updates between two checkpoints where the file does not say.
const CHECKPOINT_EVERY: usize = 50;

#[derive(Debug, Clone, Copy, Serialize)]
struct Seconds {
    load: f64,
    /// Unedited rows, and what the objective compares with.
    prepare: f64,
    train: f64,
}

/// What was found of the examples that judge it.
#[derive(Debug, Clone, Copy, Serialize)]
struct Judged {
    /// How many there are.
    examples: usize,
    /// Whether they were held out.
    held_out: bool,
    /// Without edits.
    original: Score,
    /// With what was learned, in the best of all fits.
    trained: Score,
}

impl Judged {
    fn of(training: &Training<'_>, originals: &[Score], best: &[Score]) -> Self {
        Self {
            examples: originals.len(),
            held_out: training.held_out() > 0,
            original: Score::mean(originals),
            trained: Score::mean(best),
        }
    }
}

/// What the examples that judge a training are called.
fn judges(held_out: bool) -> &'static str {
    if held_out { "examples held out" } else { "examples" }
}

/// `train --json`.
#[derive(Serialize)]
struct Summary {
    model: String,
    out: String,
    fits: usize,
    /// Which fit is best.
    best: usize,
    /// Updates made now, and those that were there from before.
    steps: usize,
    resumed: usize,
    examples: usize,
    judged: Judged,
    files: Vec<String>,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// What ran, for whoever wants to run it again.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a causalcone::ExperimentFile,
    identity: &'a Identity,
    model: ModelRecord<'a>,
    options: String,
    fits: usize,
    best: usize,
    examples: usize,
    judged: Judged,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// `causalcone train`.
pub(crate) fn train(args: &TrainArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, args.again, Results::Training)?;
    let started = Instant::now();
    let loaded = Loaded::new(&args.file, terminal)?.at_date_of(&folder)?;
    let load = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let mut experiment = loaded.built(&runtime, terminal)?;
    let (options, held_out, refused) = loaded.file.training(&experiment)?;
    options.prepare(&mut experiment)?;
    let (experiment, mut left_out) = sifted(experiment, terminal)?;
    left_out.add(refused, terminal);
    let every =
        loaded.file.train.as_ref().map(causalcone::schema::TrainFile::checkpoint_every).transpose()?;
    let every = every.flatten().unwrap_or(CHECKPOINT_EVERY);
    let how = format!("{options:?}");
    let training = Training::new(&experiment, held_out, options)?;
    let trainer = training.trainer(&runtime)?;
    let originals = trainer.originals()?;
    let identity = loaded.identity(&experiment)?;
    let prepare = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let mut work = Work::open(&training, &trainer, &folder, &identity, every)?;
    let resumed = work.log.len();
    let name = args.file.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    work.run(&runtime, &format!("causalcone train {name}"), terminal)?;
    let seconds = Seconds { load, prepare, train: started.elapsed().as_secs_f64() };

    let scores = work.scores();
    let best = best_of(&scores).unwrap_or(0);
    let judged = Judged::of(&training, &originals, &scores[best]);
    let mut files = write_tables(&work, &scores, &originals, args.format)?;
    let (drawn, shown) = draw_map(&work, &scores, &originals, &loaded, terminal)?;
    files.extend(drawn);
    files.extend(draw_losses(&work, best, loaded.model.name(), terminal)?);
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        identity: &identity,
        model: ModelRecord::of(&loaded.model)?,
        options: how,
        fits: training.len(),
        best,
        examples: training.trained(),
        judged,
        seconds,
        errors: left_out.errors(),
    };
    work.place()?;
    folder.write(Results::Training.last(), |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    if PlaceKind::at(&folder.file(INTERVENTION))?.is_some() {
        files.push(INTERVENTION.into());
    }
    files.push(Results::Training.last().into());
    let summary = Summary {
        model: loaded.model.name().into(),
        out: folder.shown(""),
        fits: training.len(),
        best,
        steps: work.log.len() - resumed,
        resumed,
        examples: training.trained(),
        judged,
        files: files.iter().map(|name| folder.shown(name)).collect(),
        seconds,
        errors: left_out.errors(),
    };
    terminal.result(&summary, |summary| in_words(summary, &shown))?;
    left_out.into_result()
}

/// What was done, for people; `shown` is the heat map.
fn in_words(summary: &Summary, shown: &str) -> String {
    let Judged { examples, held_out, original, trained } = summary.judged;
    let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
    let (fits, steps, judges) = (summary.fits, summary.steps, judges(held_out));
    let search =
        if fits > 1 { format!("the best of {fits} fits, number {}: ", summary.best) } else { String::new() };
    format!(
        "{shown}{search}accuracy {:.3} (without edits {:.3}), loss {:.4} ({:.4}) on {examples} {judges}\n\
         {steps} steps in {:.1} s, after {:.1} s for unedited rows\n{files}",
        trained.accuracy,
        original.accuracy,
        trained.loss,
        original.loss,
        summary.seconds.train,
        summary.seconds.prepare
    )
}

/// The steps as a table, and the scores of every example at every choice of the axes, with their means.
fn write_tables(
    work: &Work<'_, '_>,
    scores: &[Vec<Score>],
    originals: &[Score],
    format: Format,
) -> Result<Vec<String>, Failure> {
    let columns = [
        ("fit", ColumnKind::Integer),
        ("step", ColumnKind::Integer),
        ("epoch", ColumnKind::Integer),
        ("loss", ColumnKind::Number),
        ("accuracy", ColumnKind::Number),
        ("penalty", ColumnKind::Number),
        ("learning_rate", ColumnKind::Number),
        ("temperature", ColumnKind::Number),
        ("judged_loss", ColumnKind::Number),
        ("judged_accuracy", ColumnKind::Number),
    ];
    let mut log = Table::new(columns)?;
    for Logged { fit, step } in &work.log {
        let row: [Cell; 10] = [
            (*fit).into(),
            step.step.into(),
            step.epoch.into(),
            step.loss.into(),
            step.accuracy.into(),
            step.penalty.into(),
            step.learning_rate.into(),
            step.temperature.into(),
            step.evaluation.map(|found| found.loss).into(),
            step.evaluation.map(|found| found.accuracy).into(),
        ];
        log.push(row)?;
    }
    let model = work.training.model();
    let result = work.training.results(scores, originals)?;
    let tables = [("log", log), ("cells", table(&result, model)?), ("means", means_table(&result, model)?)];
    let mut names = Vec::new();
    for (name, table) in tables {
        let name = format!("{name}.{}", format.name());
        work.folder.write(&name, |w| table.write(format, w))?;
        names.push(name);
    }
    Ok(names)
}

/// The scores of all fits as a heat map, where there are several: the names of its files, and what a terminal shows.
fn draw_map(
    work: &Work<'_, '_>,
    scores: &[Vec<Score>],
    originals: &[Score],
    loaded: &Loaded,
    terminal: &Terminal,
) -> Result<(Vec<String>, String), Failure> {
    let (model, examples, training) = (&loaded.model, originals.len(), work.training);
    if training.len() <= 1 {
        return Ok((Vec::new(), String::new()));
    }
    let judges = judges(training.held_out() > 0);
    let subtitle = format!("{}: mean of {examples} {judges}, after training", model.name());
    let map = heat_map(&training.results(scores, originals)?, model, "");
    let map = HeatMap { subtitle: Some(subtitle), ..titled(map, loaded, Some(examples)) };
    let files = work.folder.draw("heatmap", map.to_svg(), terminal)?;
    Ok((files, causalcone_report::terminal::render(&map, &terminal.style()).unwrap_or_default()))
}

/// The losses and accuracies of the best fit, step by step.
fn draw_losses(
    work: &Work<'_, '_>,
    best: usize,
    model: &str,
    terminal: &Terminal,
) -> Result<Vec<String>, Failure> {
    let steps: Vec<&Step> =
        work.log.iter().filter(|logged| logged.fit == best).map(|logged| &logged.step).collect();
    let of = |f: fn(&Step) -> Option<f64>| -> Vec<(f64, f64)> {
        steps.iter().filter_map(|step| Some((step.step as f64, f(step)?))).collect()
    };
    let judged = if work.training.held_out() > 0 { "held out" } else { "all" };
    let panel = |label: &str, batch: fn(&Step) -> Option<f64>, all: fn(&Step) -> Option<f64>| Panel {
        y_label: label.into(),
        span: Span::FromZero,
        series: vec![
            Series { name: "batch".into(), points: of(batch) },
            Series { name: judged.into(), points: of(all) },
        ],
    };
    let chart = Chart {
        title: format!("training on {} examples", work.training.trained()),
        subtitle: Some(match work.training.len() {
            1 => model.into(),
            fits => format!("{model}, the best of {fits} fits"),
        }),
        x_label: "step".into(),
        panels: vec![
            panel("loss", |step| Some(step.loss), |step| step.evaluation.map(|found| found.loss)),
            panel("accuracy", |step| Some(step.accuracy), |step| step.evaluation.map(|found| found.accuracy)),
        ],
    };
    work.folder.draw("loss", chart.to_svg(), terminal)
}
