//! `lens`: what every layer says, into a folder, and the last position in the terminal.

use crate::args::{DEFAULT_MODEL, FileArgs, LensArgs};
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::jobs::lens::{Options, run, views};
use causalcone::jobs::{Again, Folder, Results};
use causalcone::schema::{ReadFile, RunFile, TokenFile};
use causalcone::{ExperimentFile, Lens, Model, TokenLabels, visible};
use causalcone_report::text;

/// `causalcone lens`.
pub(crate) fn lens(args: &LensArgs, terminal: &Terminal) -> Result<(), Failure> {
    let again = if args.force { Again::Replace } else { Again::Refuse };
    let folder = Folder::claim(&args.out, Results::Lens, again)?;
    let loaded = match (&args.file, &args.prompt) {
        (Some(file), _) => {
            let (file, model) = (file.clone(), args.model.clone());
            Loaded::new(&FileArgs { file, model, weights: args.weights }, terminal)?
        }
        (None, prompt) => {
            let file = prompted(args, prompt.clone().unwrap_or_default());
            Loaded::of(file, None, args.weights, |name, options| terminal.load_with(name, options))?
        }
    };
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let options = Options { top: args.n, format: args.format };
    let seen = run(&loaded.source(), &folder, &options, &runtime, terminal)?;
    terminal.result(&seen.summary, |summary| {
        let first = seen.lenses.first().map(|lens| human(lens, &loaded.model)).unwrap_or_default();
        let more = match summary.examples {
            0 | 1 => String::new(),
            n => format!("the first of {n} examples; the others are in the tables\n"),
        };
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        format!("{first}{more}\n{files}")
    })?;
    all_fit(&seen.left_out)
}

/// The experiment of a prompt given on the command line.
fn prompted(args: &LensArgs, prompt: String) -> ExperimentFile {
    let run = RunFile { prompt: Some(prompt), ..RunFile::default() };
    let tokens = args.token.iter().cloned().map(TokenFile::Text).collect();
    ExperimentFile {
        model: Some(args.model.clone().unwrap_or_else(|| DEFAULT_MODEL.into())),
        runs: [("base".to_owned(), run)].into(),
        read: Some(ReadFile { tokens, ..ReadFile::default() }),
        ..ExperimentFile::default()
    }
}

/// The last position, layer by layer: the likeliest token and those asked for; then the largest contributions.
fn human(lens: &Lens, model: &Model) -> String {
    let mut text = String::new();
    let labels = TokenLabels::new(lens.tokens.iter().copied(), |id| visible(&model.token_text(id)));
    for (version, view) in views(lens) {
        text += &format!("{version}, at the last position\n{:<12} {:<26}", "after", "likeliest");
        for token in &lens.tokens {
            text += &format!(" {:>12}", text::shorten(labels.get(*token), 12));
        }
        text += "\n";
        for depth in &view.depths {
            let Some(sight) = depth.positions.last() else { continue };
            let after = depth.layer.map_or_else(|| "embeddings".into(), |layer| format!("layer {layer}"));
            let best = sight.top.first().map_or_else(String::new, |seen| {
                format!("{:<16} {:.6}", text::shorten(&visible(&model.token_text(seen.token)), 16), seen.prob)
            });
            text += &format!("{after:<12} {best:<26}");
            for seen in &sight.tokens {
                text += &format!(" {:>12.6}", seen.prob);
            }
            text += "\n";
        }
        text += "\n";
    }
    text
}
