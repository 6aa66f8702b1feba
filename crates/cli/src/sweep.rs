//! `sweep`: a sweep into a folder, and its heat map in the terminal.

use crate::args::SweepArgs;
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::jobs::sweep::{Options, run};
use causalcone::jobs::{Folder, Results};
use causalcone::{Agreement, Verification};
use causalcone_report::terminal::render;

/// `causalcone sweep`.
pub(crate) fn sweep(args: &SweepArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, Results::Sweep, args.again.into())?;
    let loaded = Loaded::new(&args.file, terminal)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let options = Options { format: args.format, verify: args.verify };
    let swept = run(&loaded.source(), &folder, &options, &runtime, terminal)?;
    let drawn = render(&swept.map, &terminal.style()).unwrap_or_default();
    terminal.result(&swept.summary, |summary| {
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        let (cells, seconds) = (summary.cells, summary.seconds.sweep);
        let resumed = if summary.resumed > 0 {
            format!(", {} of them from the journal", summary.resumed)
        } else {
            String::new()
        };
        let verified = match &summary.verified {
            Some(Verification { cells, worst, .. }) => {
                format!("{cells} cells are the reference executor's, within {worst:.3} of what is allowed\n")
            }
            None => String::new(),
        };
        let agreement: String = summary.agreement.iter().map(in_words).collect();
        format!("{drawn}\n{cells} cells in {seconds:.1} s{resumed}\n{agreement}{verified}{files}")
    })?;
    all_fit(&swept.left_out)
}

/// How well an estimate tells the exact numbers.
fn in_words(agreement: &Agreement) -> String {
    let token = agreement.token.map(|number| format!(" of tokens[{number}]")).unwrap_or_default();
    let correlation = agreement.correlation.map_or_else(
        || "nothing to correlate".into(),
        |r| format!("correlation {r:.3} with the exact numbers"),
    );
    let (method, metric, error) = (agreement.method.name(), agreement.metric.name(), agreement.mean_error);
    format!("{method} {metric}{token}: {correlation}, mean error {error:.3e}\n")
}
