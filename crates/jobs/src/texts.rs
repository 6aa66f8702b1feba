//! Texts: what a model generates after each prompt of a data set, without and with the edits, as lines of a file.
//!
//! ```
//! use causalcone_engine::generate::Generation;
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Again, Folder, Results, Silent, Source, texts};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! # let place = tempfile::tempdir()?;
//! let model = Model::load(path)?;
//! let file = ExperimentFile::from_toml("
//!     [runs.base]
//!     prompt = 'The capital of Spain is'
//!     [[edit]]
//!     site = 'mlp_output'
//!     layers = 0
//!     op = 'zero'
//! ")?;
//! let folder = Folder::claim(&place.path().join("out"), Results::Texts, Again::Refuse)?;
//! let generation = Generation { max_tokens: 4, eos: false, ..Generation::default() };
//! let options = texts::Options { generation, table: true, ..texts::Options::default() };
//! let written = texts::run(&Source::new(&model, file), &folder, &options, &Runtime::default(), &Silent)?;
//! assert_eq!(written.moved[0].texts, 1);
//! assert_eq!(std::fs::read_to_string(folder.file("texts.jsonl"))?.lines().count(), 1);
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::folder::{Folder, shown};
use crate::identity::Identity;
use crate::observer::Observer;
use crate::pairs::{Made, Numbered, is_cut, most_tokens, pairs};
use crate::record::Summary;
use crate::results::Results;
use crate::source::{LeftOut, Source};
use crate::strength_report::{MOST_STEPS, Movement, StrengthReport, about};
use causalcone_engine::generate::Generation;
use causalcone_engine::{Experiment, ExperimentFile, Refused, Runtime};
use causalcone_files::open_regular;
use causalcone_model::{Progress, Unit};
use causalcone_report::Format;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::ops::Range;

/// About how many texts of each version are generated, and then kept, at a time.
const TOGETHER: usize = 64;
const TEXTS: &str = "texts.jsonl";

/// How texts are made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How they are generated. The experiment file's own options do not count.
    pub generation: Generation,
    /// Whether both versions also score the tokens of each text: a table, figures and a page. Experiments with a sweep over
    /// scales have them anyway.
    pub table: bool,
    /// The format of the table.
    pub format: Format,
}

/// Finished texts.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: Summary,
    /// How far the texts moved at each strength; empty without a table.
    pub moved: Vec<StrengthReport>,
    /// The examples that were left out.
    pub left_out: LeftOut,
}

/// What made the texts, for whoever wants to make them again: `generate.json`.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    made: Made<'a>,
    experiment: &'a ExperimentFile,
    identity: &'a Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// Generates texts into a folder that was claimed for them.
///
/// # Errors
/// When the experiment or the folder is refused, the work fails, or the caller asks to stop; finished texts are then in the
/// folder.
pub fn run(
    source: &Source<'_>,
    folder: &Folder,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    folder.must_be_for(Results::Texts)?;
    let source = source.at_date_of(folder)?;
    let generation = &options.generation;
    generation.check(source.model)?;
    let (experiment, left_out) = source.growing(runtime, observer)?;
    let examples = experiment.example_count().unwrap_or(1);
    let scales = source.scales().map_or(0, <[f64]>::len);
    // A sweep is there to see how far texts move.
    let has_tables = options.table || scales > 0;
    if has_tables {
        check_steps(examples, generation, &source)?;
    }
    let written = serde_json::to_string(generation).map_err(Error::failed)?;
    let identity = source.identity(&experiment)?.with(&format!("{written} {}", options.table));
    let together = TOGETHER.div_ceil(generation.samples.saturating_mul(scales.max(1)));
    experiment.check_generation(0..together, generation)?;
    folder.open(&identity, observer)?;
    let parts = Parts {
        folder,
        experiment: &experiment,
        options: generation,
        runtime,
        has_tables,
        each: most_tokens(generation, &source),
        examples,
        together,
    };
    let resumed = parts.write(observer)?;
    let mut files = vec![TEXTS.to_owned()];
    let mut moved = Vec::new();
    if has_tables {
        let movement = movement(folder, &experiment)?;
        moved = movement.moved();
        let about = about(source.model, examples.saturating_mul(generation.samples));
        files.extend(movement.write(folder, options.format, &about, observer)?);
    }
    let record = Record {
        made: Made::new(generation, &experiment)?,
        experiment: &source.file,
        identity: &identity,
        errors: left_out.errors(),
    };
    folder.write_json(Results::Texts.last(), &record)?;
    files.push(Results::Texts.last().into());
    let summary = Summary {
        model: source.model.name().into(),
        out: shown(folder.path()),
        examples,
        resumed,
        files: files.iter().map(|name| folder.shown(name)).collect(),
        errors: left_out.errors(),
    };
    Ok(Outcome { summary, moved, left_out })
}

/// The texts as they are made: a part for some examples at a time, so that one that is killed goes on, and all in one
/// file at the end.
struct Parts<'p, 'm> {
    folder: &'p Folder,
    experiment: &'p Experiment<'m>,
    options: &'p Generation,
    runtime: &'p Runtime<'p>,
    /// Whether the texts come with the tables of their tokens.
    has_tables: bool,
    /// The most tokens of an example's texts.
    each: u64,
    examples: usize,
    /// Examples of a part.
    together: usize,
}

impl Parts<'_, '_> {
    /// Generates what is not there yet; says of how many examples the texts were there.
    fn write(&self, observer: &dyn Observer) -> Result<usize> {
        let starts: Vec<usize> = (0..self.examples).step_by(self.together).collect();
        let part = |start: usize| format!("texts-{start:07}.jsonl");
        let is_finished = self.folder.file(TEXTS).exists();
        let mut resumed = 0;
        for start in starts.iter().copied() {
            let end = self.examples.min(start + self.together);
            // A part is there whole or not at all.
            if is_finished || self.folder.file(&part(start)).exists() {
                resumed += end - start;
                continue;
            }
            let lines = self.lines(start..end, observer)?;
            self.folder.write(&part(start), |w| w.write_all(&lines))?;
        }
        if !is_finished {
            self.folder.write(TEXTS, |w| {
                starts.iter().try_for_each(|start| {
                    let (mut part, _) =
                        open_regular(&self.folder.file(&part(*start))).map_err(std::io::Error::other)?;
                    std::io::copy(&mut part, w).map(|_| ())
                })
            })?;
        }
        for start in starts {
            // What is left behind is of no use, and does no harm.
            let _ = self.folder.remove(&part(start));
        }
        Ok(resumed)
    }

    /// The texts of some examples, one a line.
    fn lines(&self, examples: Range<usize>, observer: &dyn Observer) -> Result<Vec<u8>> {
        let mut done = (examples.start as u64).saturating_mul(self.each);
        let made = self.experiment.generate_examples(examples, self.options, self.runtime, &mut |_| {
            done += 1;
            let total = (self.examples as u64).saturating_mul(self.each);
            (self.runtime.progress)(Progress { what: "generating", done, total, unit: Unit::Tokens })
        });
        observer.finished();
        let made = made?;
        if is_cut(&made) {
            return Err(Error::Interrupted { kept: "; finished texts are kept" });
        }
        let mut lines = Vec::new();
        for one in pairs(self.experiment, &made, self.has_tables.then_some(self.runtime))? {
            serde_json::to_writer(&mut lines, &one).map_err(Error::failed)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// Refuses more tokens than a table may have rows.
fn check_steps(examples: usize, options: &Generation, source: &Source<'_>) -> Result<()> {
    let (context, scales) = (source.model.config().context, source.scales().map_or(1, <[f64]>::len));
    let each = options.max_tokens.min(context).saturating_mul(options.samples).saturating_mul(2 * scales);
    match each.saturating_mul(examples) {
        0..=MOST_STEPS => Ok(()),
        rows => {
            let message =
                format!("the table may have {rows} rows, which is past the {MOST_STEPS} one may have");
            Err(Error::refused(message, "take fewer examples, samples, scales or tokens, or no table"))
        }
    }
}

/// What the texts in the folder did, read back line by line: whoever made them, this run or one before.
fn movement<'m>(folder: &Folder, experiment: &Experiment<'m>) -> Result<Movement<'m>> {
    let path = folder.file(TEXTS);
    let bad = |e: String| Error::failed(format!("{}: {e}", path.display()));
    let lines = BufReader::new(open_regular(&path)?.0).lines();
    let mut movement = Movement::new(experiment.model())?;
    let mut examples = experiment.by_example();
    let mut prompt: Option<(Option<usize>, String)> = None;
    for line in lines {
        let line = line.map_err(|e| bad(e.to_string()))?;
        let one: Numbered = serde_json::from_str(&line).map_err(|e| bad(e.to_string()))?;
        // Lines are in the order of examples.
        while prompt.as_ref().is_none_or(|(example, _)| *example != one.example) {
            let Some(next) = examples.next().transpose()? else {
                return Err(bad("holds a text of no example of this experiment".into()));
            };
            let text = experiment.model().text(next.ids(next.read_run()?));
            prompt = Some((next.example(), text));
        }
        movement.add(&one, prompt.as_ref().map_or("", |(_, text)| text))?;
    }
    Ok(movement)
}
