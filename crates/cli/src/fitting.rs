//! A training on its way: its fits, step by step, logged and checkpointed so that a killed one goes on.

use crate::failure::Failure;
use crate::folder::{Folder, INTERVENTION, Identity, UNFINISHED};
use crate::terminal::Terminal;
use causalcone::train::{Checkpoint, Evaluation, Fit, Score, Step, Trainer, Training};
use causalcone::{Error, Journal, Progress, Runtime, Saved, Unit, Values};
use causalcone_files::{Appended, PlaceKind, open_regular, replace_folder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

/// Where a fit can be gone on from.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Its steps, as they are made.
const LOG: &str = "steps.jsonl";
/// The longest line of it that is read, in bytes.
const LONGEST_STEP: u64 = 4096;

/// One line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Logged {
    /// Which choice of the axes.
    pub(crate) fit: usize,
    #[serde(flatten)]
    pub(crate) step: Step,
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
pub(crate) struct Work<'w, 'm> {
    pub(crate) training: &'w Training<'m>,
    trainer: &'w Trainer<'w, 'm>,
    pub(crate) folder: &'w Folder,
    journal: Journal,
    /// The scores of finished fits, by the number of the cell.
    done: BTreeMap<usize, Values>,
    /// By fit, its first cell; and the number of all.
    first: Vec<usize>,
    /// Steps that are in the log, up to the checkpoint.
    pub(crate) log: Vec<Logged>,
    every: usize,
    checkpoint: Option<Checkpoint>,
}

impl<'w, 'm> Work<'w, 'm> {
    /// Opens the folder, and takes up what is in it.
    pub(crate) fn open(
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
    pub(crate) fn place(&self) -> Result<(), Failure> {
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
    pub(crate) fn scores(&self) -> Vec<Vec<Score>> {
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
    pub(crate) fn run(
        &mut self,
        runtime: &Runtime<'_>,
        how: &str,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        let done = self.go_on(runtime, how, terminal);
        terminal.clear();
        done.map_err(|failure| match failure {
            Stopped::Interrupted => Failure::interrupted("; the last step is in the checkpoint"),
            Stopped::Failed(failure) => failure,
        })
    }

    /// The same, up to what stops it.
    fn go_on(&mut self, runtime: &Runtime<'_>, how: &str, terminal: &Terminal) -> Result<(), Stopped> {
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
                self.keep(&fit, runtime, how, terminal)?;
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
        runtime: &Runtime<'_>,
        how: &str,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        match fit.experiment() {
            Ok(experiment) => {
                Ok(Saved::of(&experiment, how, runtime)?.write(&self.folder.file(UNFINISHED), true)?)
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
pub(crate) fn best_of(scores: &[Vec<Score>]) -> Option<usize> {
    let means = scores.iter().enumerate().filter(|(_, scores)| !scores.is_empty());
    let means = means.map(|(fit, scores)| (fit, Score::mean(scores)));
    means.reduce(|best, other| if other.1.beats(&best.1) { other } else { best }).map(|(fit, _)| fit)
}
