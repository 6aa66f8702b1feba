//! `train`: parameters fitted, step by step, into a folder that a killed training goes on from.

use super::args::TrainArgs;
use super::examples::sifted;
use super::failure::Failure;
use super::folder::{Folder, INTERVENTION, Identity, Results, UNFINISHED};
use super::loaded::Loaded;
use super::sweep::{ModelRecord, titled};
use super::terminal::Terminal;
use crate::train::{Checkpoint, Evaluation, Fit, Score, Step, Trainer, Training};
use crate::{Cone, Error, Journal, Progress, Refused, Saved, Unit, Values, heat_map, means_table, table};
use causalcone_files::{Appended, PlaceKind, open_regular, replace_folder};
use causalcone_report::{Cell, Chart, Format, Kind, Panel, Series, Span, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

/// Where a fit can be gone on from.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Its steps, as they are made.
const LOG: &str = "steps.jsonl";
/// The longest line of it that is read, in bytes.
const LONGEST_STEP: u64 = 4096;
/// Updates between two checkpoints where the file does not say.
const CHECKPOINT_EVERY: usize = 50;

/// One line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Logged {
    /// Which choice of the axes.
    fit: usize,
    #[serde(flatten)]
    step: Step,
}

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
    experiment: &'a crate::ExperimentFile,
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
pub(super) fn train(args: &TrainArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, args.again, Results::Training)?;
    let started = Instant::now();
    let loaded = Loaded::new(&args.file, terminal)?.at_date_of(&folder)?;
    let load = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let executor = args.memory.executor(&loaded.model);
    let mut experiment = loaded.built(&executor, terminal)?;
    let (options, held_out, refused) = loaded.file.training(&experiment)?;
    options.prepare(&mut experiment)?;
    let (experiment, mut left_out) = sifted(experiment, terminal)?;
    left_out.add(refused, terminal);
    let every = loaded.file.train.as_ref().map(crate::file::TrainFile::checkpoint_every).transpose()?;
    let every = every.flatten().unwrap_or(CHECKPOINT_EVERY);
    let how = format!("{options:?}");
    let training = Training::new(&experiment, held_out, options)?;
    let trainer = training.trainer(&executor)?;
    let originals = trainer.originals()?;
    let identity = loaded.identity(&experiment)?;
    let prepare = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let mut work = Work::open(&training, &trainer, &folder, &identity, every)?;
    let resumed = work.log.len();
    let name = args.file.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let done = work.run(&executor, &format!("causalcone train {name}"), terminal);
    terminal.clear();
    done.map_err(|failure| match failure {
        Stopped::Interrupted => Failure::interrupted("; the last step is in the checkpoint"),
        Stopped::Failed(failure) => failure,
    })?;
    let seconds = Seconds { load, prepare, train: started.elapsed().as_secs_f64() };

    let scores = work.scores();
    let best = best_of(&scores).unwrap_or(0);
    let judged = Judged {
        examples: originals.len(),
        held_out: training.held_out() > 0,
        original: Score::mean(&originals),
        trained: Score::mean(&scores[best]),
    };
    let mut files = write_tables(&work, &scores, &originals, args.format)?;
    let map = heat_map(&training.results(&scores, &originals)?, &loaded.model, "");
    let judges = if training.held_out() > 0 { "examples held out" } else { "examples" };
    let map = titled(map, &loaded, Some(originals.len()));
    let subtitle = format!("{}: mean of {} {judges}, after training", loaded.model.name(), originals.len());
    let map = causalcone_report::HeatMap { subtitle: Some(subtitle), ..map };
    let mut shown = String::new();
    if training.len() > 1 {
        files.extend(folder.draw("heatmap", map.to_svg(), terminal)?);
        shown = causalcone_report::terminal::render(&map, &terminal.style()).unwrap_or_default();
    }
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
    terminal.result(&summary, |summary| {
        let Judged { examples, original, trained, .. } = summary.judged;
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        let (fits, steps) = (summary.fits, summary.steps);
        let search = if fits > 1 {
            format!("the best of {fits} fits, number {}: ", summary.best)
        } else {
            String::new()
        };
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
    })?;
    left_out.into_result()
}

/// Why a training does not go on.
enum Stopped {
    Interrupted,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A training on its way.
struct Work<'w, 'm> {
    training: &'w Training<'m>,
    trainer: &'w Trainer<'w, 'm>,
    folder: &'w Folder,
    journal: Journal,
    /// The scores of finished fits, by the number of the cell.
    done: BTreeMap<usize, Values>,
    /// By fit, its first cell; and the number of all.
    first: Vec<usize>,
    /// Steps that are in the log, up to the checkpoint.
    log: Vec<Logged>,
    every: usize,
    checkpoint: Option<Checkpoint>,
}

impl<'w, 'm> Work<'w, 'm> {
    /// Opens the folder, and takes up what is in it.
    fn open(
        training: &'w Training<'m>,
        trainer: &'w Trainer<'w, 'm>,
        folder: &'w Folder,
        identity: &Identity,
        every: usize,
    ) -> Result<Self, Failure> {
        let mut first = vec![0];
        for fit in 0..training.len() {
            first.push(first[fit] + training.judged_cells(fit));
        }
        let (journal, done) = folder.journal(identity, first[training.len()], 2)?;
        let path = folder.file(CHECKPOINT);
        let has_one = PlaceKind::at(&path)?.is_some();
        let checkpoint = if has_one { Some(Checkpoint::read(&path)?) } else { None };
        let mut work =
            Self { training, trainer, folder, journal, done, first, log: Vec::new(), every, checkpoint };
        work.log = work.logged()?;
        Ok(work)
    }

    /// Gives what the best of all fits has learned its final name.
    fn place(&self) -> Result<(), Failure> {
        let unfinished = self.folder.file(UNFINISHED);
        // It may have its name already: then this training was finished before.
        if PlaceKind::at(&unfinished)?.is_some() {
            replace_folder(&unfinished, &self.folder.file(INTERVENTION), Saved::has_file)?;
        }
        Ok(())
    }

    /// The steps of finished fits, and of the one at hand as far as its checkpoint.
    fn logged(&self) -> Result<Vec<Logged>, Failure> {
        let path = self.folder.file(LOG);
        if PlaceKind::at(&path)?.is_none() {
            return Ok(Vec::new());
        }
        let (file, _) = open_regular(&path)?;
        let mut reader = BufReader::new(file);
        let mut logged = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LONGEST_STEP).read_until(b'\n', &mut line);
            read.map_err(|e| Failure::run(format!("cannot read {}: {e}", path.display())))?;
            // What a kill tore off was after the checkpoint.
            if line.last() != Some(&b'\n') {
                return Ok(logged);
            }
            logged.extend(serde_json::from_slice::<Logged>(&line).ok().filter(|one| self.is_kept(one)));
        }
    }

    fn is_kept(&self, logged: &Logged) -> bool {
        let at_hand = self.checkpoint.as_ref();
        self.is_done(logged.fit)
            || at_hand.is_some_and(|c| c.point() == logged.fit && logged.step.step <= c.done())
    }

    /// Whether all scores of a fit are there.
    fn is_done(&self, fit: usize) -> bool {
        fit < self.training.len()
            && (self.first[fit]..self.first[fit + 1]).all(|cell| self.done.contains_key(&cell))
    }

    /// The scores of finished fits.
    fn scores(&self) -> Vec<Vec<Score>> {
        let number = |x: Option<Option<f64>>| x.flatten().unwrap_or(f64::NAN);
        let score = |cell: usize| {
            let values = self.done.get(&cell).cloned().unwrap_or_default();
            Score { accuracy: number(values.first().copied()), loss: number(values.get(1).copied()) }
        };
        (0..self.training.len())
            .map(|fit| (self.first[fit]..self.first[fit + 1]).map(score).collect())
            .collect()
    }

    /// Goes through the fits that are missing.
    fn run(&mut self, executor: &Cone, how: &str, terminal: &Terminal) -> Result<(), Stopped> {
        // Rewritten without what a kill left behind the checkpoint.
        let mut log = self.rewrite_log()?;
        for point in 0..self.training.len() {
            if self.is_done(point) {
                continue;
            }
            let mut fit = match self.checkpoint.as_ref().filter(|checkpoint| checkpoint.point() == point) {
                Some(checkpoint) => self.trainer.resume(checkpoint)?,
                None => self.trainer.fit(point)?,
            };
            self.fit(&mut fit, &mut log, terminal)?;
            let scores = match fit.scores_with(&|progress| terminal.progress(progress)) {
                Err(Error::Interrupted) => {
                    self.save(&fit, &log)?;
                    return Err(Stopped::Interrupted);
                }
                scores => scores?,
            };
            let cells = (self.first[point]..).zip(scores.iter().map(Score::values));
            let cells: Vec<(usize, Values)> = cells.collect();
            // What was learned is kept before the fit counts as finished.
            if best_of(&self.scores_with(point, &scores)) == Some(point) {
                self.keep(&fit, executor, how, terminal)?;
            }
            log.sync()?;
            self.journal.append(cells.iter().cloned())?;
            self.done.extend(cells);
        }
        Ok(())
    }

    /// The scores as they are once a fit is finished; of fits that are not, none.
    fn scores_with(&self, point: usize, scores: &[Score]) -> Vec<Vec<Score>> {
        let mut all = self.scores();
        for (fit, own) in all.iter_mut().enumerate() {
            if fit == point {
                *own = scores.to_vec();
            } else if !self.is_done(fit) {
                own.clear();
            }
        }
        all
    }

    /// Takes a fit to its end.
    fn fit(
        &mut self,
        fit: &mut Fit<'_, '_, 'm>,
        log: &mut Appended,
        terminal: &Terminal,
    ) -> Result<(), Stopped> {
        let fits = self.training.len();
        let (point, total) = (fit.point(), fit.total());
        let mut last: Option<Evaluation> = None;
        loop {
            let before = self.log.last().filter(|logged| logged.fit == point);
            let loss = before.map(|logged| format!("  loss {:.4}", logged.step.loss)).unwrap_or_default();
            let accuracy = last.map(|found| format!("  accuracy {:.3}", found.accuracy)).unwrap_or_default();
            let of = if fits > 1 { format!(" fit {} of {fits}", point + 1) } else { String::new() };
            let what = format!("training{of}{loss}{accuracy}");
            let (done, total) = ((point * total + fit.done()) as u64, (fits * total) as u64);
            if terminal.progress(Progress { what: &what, done, total, unit: Unit::Steps }).is_break() {
                self.save(fit, log)?;
                return Err(Stopped::Interrupted);
            }
            let step = match fit.step() {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(error @ Error::Diverged { .. }) => {
                    // The numbers are those before the step that failed.
                    self.save(fit, log)?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            last = step.evaluation.or(last);
            let logged = Logged { fit: point, step };
            let mut line = serde_json::to_vec(&logged).map_err(|e| Failure::run(e.to_string()))?;
            line.push(b'\n');
            log.append(&line)?;
            self.log.push(logged);
            if fit.done().is_multiple_of(self.every) {
                self.save(fit, log)?;
            }
        }
    }

    /// Writes a checkpoint, after the log that leads to it.
    fn save(&mut self, fit: &Fit<'_, '_, 'm>, log: &Appended) -> Result<(), Failure> {
        log.sync()?;
        let checkpoint = fit.checkpoint()?;
        let bytes = checkpoint.to_bytes()?;
        self.folder.write(CHECKPOINT, |w| w.write_all(&bytes))?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// Saves what a fit has learned, in place of what is there.
    fn keep(
        &self,
        fit: &Fit<'_, '_, 'm>,
        executor: &Cone,
        how: &str,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        match fit.experiment() {
            Ok(experiment) => {
                Ok(Saved::of(&experiment, how, executor)?.write(&self.folder.file(UNFINISHED), true)?)
            }
            // A place in lists that differ from example to example has a score, and no name.
            Err(error) => {
                terminal.note(&format!("no {INTERVENTION}: {error}"));
                self.folder.remove(UNFINISHED)
            }
        }
    }

    fn rewrite_log(&self) -> Result<Appended, Failure> {
        let lines = self.log.iter().map(|logged| serde_json::to_string(logged).map(|line| line + "\n"));
        let text: String = lines.collect::<Result<_, _>>().map_err(|e| Failure::run(e.to_string()))?;
        self.folder.write(LOG, |w| w.write_all(text.as_bytes()))?;
        Ok(Appended::open(&self.folder.file(LOG))?)
    }
}

/// The fit of the highest accuracy, of those the one of the lowest loss.
fn best_of(scores: &[Vec<Score>]) -> Option<usize> {
    let means = scores.iter().enumerate().filter(|(_, scores)| !scores.is_empty());
    let means = means.map(|(fit, scores)| (fit, Score::mean(scores)));
    means.reduce(|best, other| if other.1.beats(&best.1) { other } else { best }).map(|(fit, _)| fit)
}

/// The steps as a table, and the scores of every example at every choice of the axes, with their means.
fn write_tables(
    work: &Work<'_, '_>,
    scores: &[Vec<Score>],
    originals: &[Score],
    format: Format,
) -> Result<Vec<String>, Failure> {
    let columns = [
        ("fit", Kind::Integer),
        ("step", Kind::Integer),
        ("epoch", Kind::Integer),
        ("loss", Kind::Number),
        ("accuracy", Kind::Number),
        ("penalty", Kind::Number),
        ("learning_rate", Kind::Number),
        ("temperature", Kind::Number),
        ("judged_loss", Kind::Number),
        ("judged_accuracy", Kind::Number),
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
