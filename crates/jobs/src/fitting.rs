//! The fits of a training, step by step: the one loop behind every training. In a folder, steps are logged and
//! checkpointed, so that a training that is killed can be resumed; without one, everything stays in memory.

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::identity::Identity;
use crate::observer::Observer;
use crate::results::{INTERVENTION, UNFINISHED};
use causalcone_engine::train::{Checkpoint, Evaluation, Fit, Score, Step, Trainer, Training};
use causalcone_engine::{Error as EngineError, Journal, Runtime, Saved, Values};
use causalcone_files::{Appended, IfExists, PlaceKind, open_regular, replace_folder};
use causalcone_model::{Progress, Unit};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};

/// The state of a fit that can be resumed.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Its steps, as they are made.
const LOG: &str = "steps.jsonl";
/// The longest line of it that is read, in bytes.
const LONGEST_STEP: u64 = 4096;

/// One step of one fit: a line of `steps.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Logged {
    /// Which choice of the axes the fit is of.
    pub fit: usize,
    /// What the step did.
    #[serde(flatten)]
    pub step: Step,
}

/// A training on its way.
pub(crate) struct Fitting<'w, 'm> {
    pub(crate) training: &'w Training<'m>,
    trainer: &'w Trainer<'w, 'm>,
    /// By fit, its first cell; and the number of all.
    first: Vec<usize>,
    /// The scores of finished fits, by the number of the cell.
    done: BTreeMap<usize, Values>,
    /// The steps so far.
    pub(crate) log: Vec<Logged>,
    /// Where the fit at hand is resumed.
    checkpoint: Option<Checkpoint>,
    store: Option<Store<'w>>,
    /// The best fit so far, where it is in no folder.
    best: Option<Fit<'w, 'w, 'm>>,
}

/// The folder of a training, with the files in it that grow.
struct Store<'w> {
    folder: &'w Folder,
    journal: Journal,
    log: Appended,
    /// Updates between two checkpoints.
    every: usize,
    /// How the intervention was made, for people.
    how: &'w str,
}

impl<'w, 'm> Fitting<'w, 'm> {
    /// A training that is held in memory.
    pub(crate) fn new(training: &'w Training<'m>, trainer: &'w Trainer<'w, 'm>) -> Self {
        let mut first = vec![0];
        for fit in 0..training.len() {
            first.push(first[fit] + training.judged_cells(fit));
        }
        let (done, log, checkpoint, store, best) = (BTreeMap::new(), Vec::new(), None, None, None);
        Self { training, trainer, first, done, log, checkpoint, store, best }
    }

    /// The same in a folder: takes up what is there, with a checkpoint after `every` steps. `how` says for people how the
    /// intervention was made.
    pub(crate) fn in_folder(
        mut self,
        folder: &'w Folder,
        identity: &Identity,
        (every, how): (usize, &'w str),
        observer: &dyn Observer,
    ) -> Result<Self> {
        let cells = self.first[self.training.len()];
        let (journal, done) = folder.journal(identity, (cells, 2), observer)?;
        self.done = done;
        let path = folder.file(CHECKPOINT);
        if PlaceKind::at(&path)?.is_some() {
            self.checkpoint = Some(Checkpoint::read(&path)?);
        }
        self.log = self.logged(folder)?;
        // Rewritten without what a kill left behind the checkpoint.
        let log = rewritten(folder, &self.log)?;
        self.store = Some(Store { folder, journal, log, every, how });
        Ok(self)
    }

    /// The best fit, if it is in no folder.
    pub(crate) fn best(&self) -> Option<&Fit<'w, 'w, 'm>> {
        self.best.as_ref()
    }

    /// The steps of finished fits, and of the one at hand as far as its checkpoint.
    fn logged(&self, folder: &Folder) -> Result<Vec<Logged>> {
        let path = folder.file(LOG);
        if PlaceKind::at(&path)?.is_none() {
            return Ok(Vec::new());
        }
        let (file, _) = open_regular(&path)?;
        let mut reader = BufReader::new(file);
        let mut logged = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LONGEST_STEP).read_until(b'\n', &mut line);
            read.map_err(|e| Error::failed(format!("cannot read {}: {e}", path.display())))?;
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
    pub(crate) fn run(&mut self, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<()> {
        let done = self.complete(runtime, observer);
        observer.finished();
        done
    }

    fn complete(&mut self, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<()> {
        let trainer = self.trainer;
        for point in 0..self.training.len() {
            if self.is_done(point) {
                continue;
            }
            let mut fit = match self.checkpoint.as_ref().filter(|checkpoint| checkpoint.point() == point) {
                Some(checkpoint) => trainer.resume(checkpoint)?,
                None => trainer.fit(point)?,
            };
            self.fit(&mut fit, runtime)?;
            let scores = match fit.scores_with(runtime.progress) {
                Err(EngineError::Interrupted) => return Err(self.interrupted(&fit)),
                scores => scores?,
            };
            let cells: Vec<(usize, Values)> =
                (self.first[point]..).zip(scores.iter().map(Score::values)).collect();
            let is_best = best_of(&self.scores_with(point, &scores)) == Some(point);
            match &mut self.store {
                Some(store) => {
                    // What was learned is kept before the fit counts as finished.
                    if is_best {
                        store.keep(&fit, runtime, observer)?;
                    }
                    store.sync()?;
                    store.journal.append(cells.iter().cloned())?;
                }
                None if is_best || self.best.is_none() => self.best = Some(fit),
                None => {}
            }
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
    fn fit(&mut self, fit: &mut Fit<'w, 'w, 'm>, runtime: &Runtime<'_>) -> Result<()> {
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
            if (runtime.progress)(Progress { what: &what, done, total, unit: Unit::Steps }).is_break() {
                return Err(self.interrupted(fit));
            }
            let step = match fit.step() {
                Ok(Some(step)) => step,
                Ok(None) => return Ok(()),
                Err(error @ EngineError::Diverged { .. }) => {
                    // The numbers are those before the step that failed.
                    self.save(fit)?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            last = step.evaluation.or(last);
            let logged = Logged { fit: point, step };
            if let Some(store) = &mut self.store {
                store.append(&logged)?;
            }
            self.log.push(logged);
            if self.store.as_ref().is_some_and(|store| fit.done().is_multiple_of(store.every)) {
                self.save(fit)?;
            }
        }
    }

    fn save(&self, fit: &Fit<'w, 'w, 'm>) -> Result<()> {
        self.store.as_ref().map_or(Ok(()), |store| store.save(fit))
    }

    /// Saves a fit that is interrupted; returns what to tell of it.
    fn interrupted(&self, fit: &Fit<'w, 'w, 'm>) -> Error {
        let kept = if self.store.is_some() { "; the last step is in the checkpoint" } else { "" };
        self.save(fit).err().unwrap_or(Error::Interrupted { kept })
    }
}

impl Store<'_> {
    /// Writes a checkpoint, after the log that leads to it.
    fn save(&self, fit: &Fit<'_, '_, '_>) -> Result<()> {
        self.sync()?;
        let bytes = fit.checkpoint()?.to_bytes()?;
        self.folder.write(CHECKPOINT, |w| w.write_all(&bytes))
    }

    /// Saves what a fit has learned, in place of what is there.
    fn keep(&self, fit: &Fit<'_, '_, '_>, runtime: &Runtime<'_>, observer: &dyn Observer) -> Result<()> {
        match fit.experiment() {
            Ok(experiment) => Ok(Saved::of(&experiment, self.how, runtime)?
                .write(&self.folder.file(UNFINISHED), IfExists::Replace)?),
            // A place in lists that differ from example to example has a score, and no name.
            Err(error) => {
                observer.note(&format!("no {INTERVENTION}: {error}"));
                self.folder.remove(UNFINISHED)
            }
        }
    }

    fn append(&mut self, logged: &Logged) -> Result<()> {
        let mut line = serde_json::to_vec(logged).map_err(Error::failed)?;
        line.push(b'\n');
        Ok(self.log.append(&line)?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.log.sync()?)
    }
}

/// Writes the log with these steps, and opens it for more.
fn rewritten(folder: &Folder, log: &[Logged]) -> Result<Appended> {
    let lines = log.iter().map(|logged| serde_json::to_string(logged).map(|line| line + "\n"));
    let text: String = lines.collect::<Result<_, _>>().map_err(Error::failed)?;
    folder.write(LOG, |w| w.write_all(text.as_bytes()))?;
    Ok(Appended::open(&folder.file(LOG))?)
}

/// Gives what the best of all fits has learned its final name; returns whether there is something of that name.
pub(crate) fn place(folder: &Folder) -> Result<bool> {
    let (unfinished, intervention) = (folder.file(UNFINISHED), folder.file(INTERVENTION));
    // It may have its name already: then this training was finished before.
    if PlaceKind::at(&unfinished)?.is_some() {
        replace_folder(&unfinished, &intervention, Saved::has_file)?;
    }
    Ok(PlaceKind::at(&intervention)?.is_some())
}

/// The fit of the highest accuracy, of those the one of the lowest loss.
pub(crate) fn best_of(scores: &[Vec<Score>]) -> Option<usize> {
    let means = scores.iter().enumerate().filter(|(_, scores)| !scores.is_empty());
    let means = means.map(|(fit, scores)| (fit, Score::mean(scores)));
    means.reduce(|best, other| if other.1.beats(&best.1) { other } else { best }).map(|(fit, _)| fit)
}
