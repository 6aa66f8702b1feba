//! `generate --out`: the texts of a data set as lines of a file, some prompts at a time.

use crate::args::GenerateArgs;
use crate::failure::Failure;
use crate::folder::{Folder, Identity, Results, Summary, shown};
use crate::loaded::Loaded;
use crate::pairs::{Made, Numbered, is_cut, most_tokens, options, pairs, scales};
use crate::strength_report::{MOST_STEPS, Movement, about, summary};
use crate::terminal::Terminal;
use causalcone::generate::Generation;
use causalcone::{Experiment, ExperimentFile, Progress, Refused, Runtime, Unit};
use causalcone_files::open_regular;
use causalcone_report::Format;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::Path;

/// About how many texts of each version are generated, and then kept, at a time.
const TOGETHER: usize = 64;
const TEXTS: &str = "texts.jsonl";

/// What made the texts, for whoever wants to make them again.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    made: Made<'a>,
    experiment: &'a ExperimentFile,
    identity: &'a Identity,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// `causalcone generate FILE --out DIR`.
pub(crate) fn texts(args: &GenerateArgs, out: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(out, args.again, Results::Texts)?;
    let loaded = Loaded::new(&args.file, terminal)?.at_date_of(&folder)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let options = options(args, &loaded)?;
    let (experiment, left_out) = loaded.growing(&runtime, terminal)?;
    let examples = experiment.example_count().unwrap_or(1);
    let scales = scales(&loaded).map_or(0, <[f64]>::len);
    // A sweep is there to see how far texts move.
    let has_tables = args.table || scales > 0;
    if has_tables {
        check_steps(examples, &options, &loaded)?;
    } else if args.format.is_some() {
        let failure = Failure::input("--format is of the table of tokens, and there is none");
        return Err(failure.hint("add --table"));
    }
    let written = serde_json::to_string(&options).map_err(|e| Failure::run(e.to_string()))?;
    let identity = loaded.identity(&experiment)?.with(&format!("{written} {}", args.table));
    let together = TOGETHER.div_ceil(options.samples.saturating_mul(scales.max(1)));
    experiment.check_generation(0..together, &options)?;
    folder.open(&identity)?;
    let parts = Parts {
        folder: &folder,
        experiment: &experiment,
        options: &options,
        runtime: &runtime,
        has_tables,
        each: most_tokens(&options, &loaded),
        examples,
        together,
    };
    let resumed = parts.write(terminal)?;
    let mut files = vec![TEXTS.to_owned()];
    let mut told = String::new();
    if has_tables {
        let movement = movement(&folder, &experiment)?;
        told = summary(&movement.moved());
        let about = about(&loaded.model, examples.saturating_mul(options.samples));
        files.extend(movement.write(&folder, args.format.unwrap_or(Format::Csv), &about, terminal)?);
    }
    let errors = left_out.errors();
    let record = Record {
        made: Made::new(&options, &experiment)?,
        experiment: &loaded.file,
        identity: &identity,
        errors: errors.clone(),
    };
    folder.write("generate.json", |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    files.push("generate.json".into());
    let summary = Summary {
        model: loaded.model.name().into(),
        out: shown(out),
        examples,
        resumed,
        files: files.iter().map(|name| folder.shown(name)).collect(),
        errors,
    };
    terminal.result(&summary, |summary| {
        let (examples, again) = (summary.examples, summary.before());
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        format!("{told}the texts of {examples} prompts{again}\n{files}")
    })?;
    left_out.into_result()
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
    fn write(&self, terminal: &Terminal) -> Result<usize, Failure> {
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
            let lines = self.lines(start..end, terminal)?;
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
    fn lines(&self, examples: Range<usize>, terminal: &Terminal) -> Result<Vec<u8>, Failure> {
        let mut done = (examples.start as u64).saturating_mul(self.each);
        let made = self.experiment.generate_examples(examples, self.options, self.runtime, &mut |_| {
            done += 1;
            let total = (self.examples as u64).saturating_mul(self.each);
            terminal.progress(Progress { what: "generating", done, total, unit: Unit::Tokens })
        });
        terminal.clear();
        let made = made?;
        if is_cut(&made) {
            return Err(Failure::interrupted("; finished texts are kept"));
        }
        let mut lines = Vec::new();
        for one in pairs(self.experiment, &made, self.has_tables.then_some(self.runtime))? {
            serde_json::to_writer(&mut lines, &one).map_err(|e| Failure::run(e.to_string()))?;
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// Refuses more tokens than a table may have rows.
fn check_steps(examples: usize, options: &Generation, loaded: &Loaded) -> Result<(), Failure> {
    let (context, scales) = (loaded.model.config().context, scales(loaded).map_or(1, <[f64]>::len));
    let each = options.max_tokens.min(context).saturating_mul(options.samples).saturating_mul(2 * scales);
    match each.saturating_mul(examples) {
        0..=MOST_STEPS => Ok(()),
        rows => {
            let message =
                format!("the table may have {rows} rows, which is past the {MOST_STEPS} one may have");
            Err(Failure::input(message).hint("take fewer examples, samples, scales or tokens, or no table"))
        }
    }
}

/// What the texts in the folder did, read back line by line: whoever made them, this run or one before.
fn movement<'m>(folder: &Folder, experiment: &Experiment<'m>) -> Result<Movement<'m>, Failure> {
    let path = folder.file(TEXTS);
    let bad = |e: String| Failure::run(format!("{}: {e}", path.display()));
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
            let text = experiment.model().text(next.ids(next.reading_run()?));
            prompt = Some((next.example(), text));
        }
        movement.add(&one, prompt.as_ref().map_or("", |(_, text)| text))?;
    }
    Ok(movement)
}
