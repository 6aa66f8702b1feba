//! `train`: parameters fitted into a folder.

use crate::args::TrainArgs;
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::jobs::train::{Judged, Options, Outcome, run};
use causalcone::jobs::{Folder, Results};
use causalcone_report::terminal::render;

/// `causalcone train`.
pub(crate) fn train(args: &TrainArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, Results::Training, args.again.into())?;
    let loaded = Loaded::new(&args.file, terminal)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let name = args.file.file.file_name().unwrap_or_default().to_string_lossy();
    let how = Some(format!("causalcone train {name}"));
    let options = Options { format: args.format, how, ..Options::default() };
    let trained = run(&loaded.source(), &folder, &options, &runtime, terminal)?;
    let drawn = trained.map.as_ref().and_then(|map| render(map, &terminal.style()).ok()).unwrap_or_default();
    terminal.result(&trained.summary, |_| in_words(&trained, &drawn))?;
    all_fit(&trained.left_out)
}

/// What was done, for people; `drawn` is the heat map.
fn in_words(Outcome { summary, fitted, .. }: &Outcome, drawn: &str) -> String {
    let Judged { examples, original, trained, .. } = summary.judged;
    let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
    let (fits, steps, judges) = (summary.fits, summary.steps, fitted.judges());
    let search =
        if fits > 1 { format!("the best of {fits} fits, number {}: ", summary.best) } else { String::new() };
    format!(
        "{drawn}{search}accuracy {:.3} (without edits {:.3}), loss {:.4} ({:.4}) on {examples} {judges}\n\
         {steps} steps in {:.1} s, after {:.1} s for unedited rows\n{files}",
        trained.accuracy,
        original.accuracy,
        trained.loss,
        original.loss,
        summary.seconds.train,
        summary.seconds.prepare
    )
}
