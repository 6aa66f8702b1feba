//! `lens`: what every layer says, into a folder, and the last position in the terminal.

use crate::args::{FileArgs, LensArgs};
use crate::failure::{Failure, all_fit};
use crate::given::Given;
use crate::loaded::Loaded;
use crate::options::DEFAULT_MODEL;
use crate::terminal::Terminal;
use causalcone::jobs::lens::{Options, in_memory, run, views};
use causalcone::jobs::{Again, Folder, Results, Warning};
use causalcone::schema::{ReadFile, RunFile, TokenFile};
use causalcone::{ExperimentFile, Lens, Model, Refused, TokenLabels, visible};
use causalcone_report::{Cell, Table, text};
use serde::Serialize;
use serde_json::Value;

/// `causalcone lens`.
pub(crate) fn lens(args: &LensArgs, terminal: &Terminal) -> Result<(), Failure> {
    let given = match (&args.given, &args.prompt) {
        (Some(argument), _) => Given::read(argument)?,
        (None, prompt) => Given::Prompt(prompt.clone().unwrap_or_default()),
    };
    if let (Given::File(path), false) = (&given, args.token.is_empty()) {
        let message = format!("--token is for a prompt, and {} is an experiment file", path.display());
        return Err(Failure::input(message).hint("name the tokens in the file: [read] tokens"));
    }
    let again = if args.force { Again::Replace } else { Again::Refuse };
    let folder = match &args.out {
        Some(out) => Some(Folder::claim(out, Results::Lens, again)?),
        None => None,
    };
    let loaded = match given {
        Given::File(file) => {
            let model = args.model.clone();
            Loaded::new(&FileArgs { file, model, weights: args.weights }, terminal)?
        }
        Given::Prompt(prompt) => {
            let file = prompted(args, prompt);
            Loaded::of(file, None, args.weights, |name, options| terminal.load_with(name, options))?
        }
    };
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let source = loaded.source();
    let Some(folder) = folder else {
        let seen = in_memory(&source, args.n, &runtime, terminal)?;
        let shown = Shown {
            model: loaded.model.name(),
            examples: seen.lenses.len(),
            lens: rows(&seen.tokens),
            contributions: rows(&seen.contributions),
            errors: seen.left_out.errors(),
            warnings: seen.warnings,
        };
        terminal.result(&shown, |_| {
            let first = first(&seen.lenses, &loaded.model, "--out writes the others");
            format!(
                "{first}--out DIR writes all positions, and direct logit attribution; --json prints both\n"
            )
        })?;
        return all_fit(&seen.left_out);
    };
    let options = Options { top: args.n, format: args.format };
    let seen = run(&source, &folder, &options, &runtime, terminal)?;
    terminal.result(&seen.summary, |summary| {
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        let first = first(&seen.lenses, &loaded.model, "the others are in the tables");
        format!("{first}\n{files}")
    })?;
    all_fit(&seen.left_out)
}

/// What is printed as JSON without a folder.
#[derive(Serialize)]
struct Shown<'a> {
    model: &'a str,
    examples: usize,
    /// The rows of `lens.csv` and `contributions.csv`.
    lens: Vec<serde_json::Map<String, Value>>,
    contributions: Vec<serde_json::Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// The rows of a table, each as an object.
fn rows(table: &Table) -> Vec<serde_json::Map<String, Value>> {
    let names = || table.columns().iter().map(|column| column.name.clone());
    let value = |cell: Cell| serde_json::to_value(cell).unwrap_or_default();
    table.rows().map(|row| names().zip(row.into_iter().map(value)).collect()).collect()
}

/// The lens of the first example; `others` says where the others are.
fn first(lenses: &[Lens], model: &Model, others: &str) -> String {
    let first = lenses.first().map(|lens| human(lens, model)).unwrap_or_default();
    match lenses.len() {
        0 | 1 => first,
        n => format!("{first}the first of {n} examples; {others}\n"),
    }
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
