//! `generate --out`: the texts of a data set into a folder.

use crate::args::GenerateArgs;
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::{Terminal, before};
use causalcone::generate::Generation;
use causalcone::jobs::strength_report::in_words;
use causalcone::jobs::texts::{Options, run};
use causalcone::jobs::{Folder, Results};
use std::path::Path;

/// `causalcone generate FILE --out DIR`.
pub(crate) fn texts(args: &GenerateArgs, out: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(out, Results::Texts, args.again.into())?;
    let loaded = Loaded::new(&args.file, terminal)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let (source, generation) = (loaded.source(), options(args, &loaded)?);
    if args.format.is_some() && !args.table && source.scales().is_none_or(<[f64]>::is_empty) {
        let failure = Failure::input("--format is of the table of tokens, and there is none");
        return Err(failure.hint("add --table"));
    }
    let options = Options { generation, table: args.table, format: args.format.unwrap_or_default() };
    let made = run(&source, &folder, &options, &runtime, terminal)?;
    terminal.result(&made.summary, |summary| {
        let moved = if made.moved.is_empty() { String::new() } else { in_words(&made.moved) };
        let (examples, again) = (summary.examples, before(summary.resumed));
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        format!("{moved}the texts of {examples} prompts{again}\n{files}")
    })?;
    all_fit(&made.left_out)
}

/// The options of the file, with those of the command line in their place.
pub(crate) fn options(args: &GenerateArgs, loaded: &Loaded) -> Result<Generation, Failure> {
    let mut options = loaded.file.generate.clone().unwrap_or_default();
    options.max_tokens = args.max_tokens.unwrap_or(options.max_tokens);
    options.seed = args.seed.unwrap_or(options.seed);
    options.check(&loaded.model)?;
    Ok(options)
}
