//! `generate --out`: the texts of a data set as lines of a file, some prompts at a time.

use super::failure::Failure;
use super::folder::{Folder, Identity, Results, Summary};
use super::generate::{is_cut, most_tokens, options, pairs};
use super::sweep::ModelRecord;
use super::terminal::Terminal;
use super::{GenerateArgs, Loaded};
use crate::generate::Generation;
use crate::{ExperimentFile, Progress, Refused, Unit};
use serde::Serialize;
use std::path::Path;

/// About how many texts of each version are generated, and then kept, at a time.
const TOGETHER: usize = 64;
const TEXTS: &str = "texts.jsonl";

/// What made the texts, for whoever wants to make them again.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a ExperimentFile,
    generate: &'a Generation,
    identity: &'a Identity,
    model: ModelRecord<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// `causalcone generate FILE --out DIR`.
pub(super) fn texts(args: &GenerateArgs, out: &Path, terminal: &mut Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(out, args.again, Results::Texts)?;
    let loaded = Loaded::new(&args.file.file, args.file.model.as_deref(), terminal)?;
    let options = options(args, &loaded)?;
    let (experiment, left_out) = loaded.growing(terminal)?;
    let examples = experiment.example_count().unwrap_or(1);
    let written = serde_json::to_string(&options).map_err(|e| Failure::run(e.to_string()))?;
    let identity = loaded.identity()?.with(&format!("{written} {}", args.table));
    folder.open(&identity)?;
    let together = TOGETHER.div_ceil(options.samples);
    let starts: Vec<usize> = (0..examples).step_by(together).collect();
    let part = |start: usize| format!("texts-{start:07}.jsonl");
    let is_finished = folder.file(TEXTS).exists();
    let mut resumed = 0;
    for start in starts.iter().copied() {
        let end = examples.min(start + together);
        // A part is there whole or not at all.
        if is_finished || folder.file(&part(start)).exists() {
            resumed += end - start;
            continue;
        }
        let each = most_tokens(&options, loaded.model.config());
        let mut done = start as u64 * each;
        let made = experiment.generate_examples(start..end, &options, &mut |_| {
            done += 1;
            let total = examples as u64 * each;
            terminal.progress(Progress { what: "generating", done, total, unit: Unit::Tokens })
        });
        terminal.clear();
        let made = made?;
        if is_cut(&made) {
            let again =
                format!("causalcone generate {} --out {} --resume", args.file.file.display(), out.display());
            let failure = Failure::run("interrupted; finished texts are kept");
            return Err(failure.hint(format!("go on with: {again}, and the same options")));
        }
        let mut lines = Vec::new();
        for one in pairs(&experiment, &made, args)? {
            serde_json::to_writer(&mut lines, &one).map_err(|e| Failure::run(e.to_string()))?;
            lines.push(b'\n');
        }
        folder.write(&part(start), |w| w.write_all(&lines))?;
    }
    if !is_finished {
        folder.write(TEXTS, |w| {
            starts.iter().try_for_each(|start| {
                std::io::copy(&mut std::fs::File::open(folder.file(&part(*start)))?, w).map(|_| ())
            })
        })?;
    }
    for start in starts {
        // What is left behind is of no use, and does no harm.
        let _ = std::fs::remove_file(folder.file(&part(start)));
    }
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        generate: &options,
        identity: &identity,
        model: ModelRecord::of(&loaded.model)?,
        errors: left_out.errors(),
    };
    folder.write("generate.json", |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    let summary = Summary {
        model: loaded.model.name().into(),
        out: out.into(),
        examples,
        resumed,
        files: [TEXTS, "generate.json"].map(|name| folder.file(name)).into(),
        errors: left_out.errors(),
    };
    terminal.result(&summary, |summary| {
        let (examples, again) = (summary.examples, summary.before());
        format!("the texts of {examples} prompts{again}\n  {}\n", summary.files[0].display())
    })?;
    left_out.into_result()
}
