//! The `causalcone` command: arguments in, library calls, and everything a user sees.
//!
//! The library never prints; this module does. Results go to stdout, messages and progress to
//! stderr. Exit codes: 0 done, 1 the run failed, 2 bad usage or bad input, 128 plus the number of a signal
//! that interrupted it.

mod answers;
mod check;
mod collect;
mod data;
mod examples;
mod failure;
mod folder;
mod generate;
mod interrupt;
mod lens;
mod model_check;
mod models;
mod moved;
mod options;
mod saved;
mod sweep;
mod terminal;
mod texts;
mod threads;
mod tour;
mod train;

use crate::{ExperimentFile, Explanation, Footprint, KeyPolicy, LoadOptions, Model};
use causalcone_report::Format;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use failure::Failure;
use options::{Memory, Size, Verify, Weights};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use terminal::Terminal;

/// The model a command uses when none is named.
const DEFAULT_MODEL: &str = "smollm2";

/// Change what a language model computes while it runs, and see what it then says.
///
/// causalcone takes a prompt, edits activations inside the model (swaps them in from another run,
/// adds a vector, zeroes, scales …) and reads the model's answer: once, or over every layer and
/// position as a table and a heat map. Start with `causalcone tour`.
#[derive(Debug, Parser)]
#[command(
    name = "causalcone",
    version,
    after_help = "Experiment files are described in docs/experiment-file.md, causal models in docs/causal-model.md; ready ones are in examples/."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
struct Common {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    json: bool,
    /// Where to compute: cpu is the only one this build has
    #[arg(long, global = true, value_name = "DEVICE", default_value = "cpu")]
    device: String,
    /// Ignore this unknown key of the model's configuration; can be given several times
    ///
    /// A key whose name speaks of computation and that this version does not know is an error, since the answers could be
    /// wrong without it. Ignore it only if you know that it changes nothing. Results record what was ignored.
    #[arg(long, global = true, value_name = "NAME")]
    ignore_key: Vec<String>,
    /// Refuse a model whose configuration has any unknown key, instead of warning of it
    #[arg(long, global = true)]
    strict: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The activation-addition tutorial, end to end, on a real model
    ///
    /// Prints the model's answers, edits it, sweeps every layer and position, and draws the heat
    /// maps. Each step is an experiment file, which is written beside its results so that you can
    /// change it and run it again.
    Tour(TourArgs),
    /// The likeliest next tokens of a prompt
    #[command(after_help = "Example: causalcone top -m smollm2 \"The capital of Spain is\" -n 5")]
    Top(TopArgs),
    /// Run one experiment file and print the answer without and with its edits
    ///
    /// Of a file with a data set, the answers of every example.
    #[command(after_help = "Example: causalcone run examples/add.toml")]
    Run(FileArgs),
    /// Let the model go on after an experiment file's prompt, without and with its edits
    ///
    /// [generate] says how far and how: greedy unless a temperature is given. Edits have steps: in which passes they
    /// are made, the prompt's, each new token's, or some of these. With a data set, or several samples, a text for
    /// each; --json has them all. Ctrl-C ends the texts where they are.
    ///
    /// With --out DIR the texts of a data set go to texts.jsonl, a line each, and what made them to generate.json; what
    /// was cut short goes on with --resume.
    #[command(
        after_help = "Examples: causalcone generate examples/generate.toml\n          causalcone generate examples/generate.toml --out texts"
    )]
    Generate(GenerateArgs),
    /// Run an experiment file over the axes of its [sweep]: a table and a heat map
    ///
    /// Writes cells.csv, heatmap.svg, heatmap.png and experiment.json to DIR, and means.csv where
    /// there are examples or samples. Finished cells go to journal.jsonl at once: a sweep that was cut
    /// short goes on with --resume. Examples that cannot be used are named and left out, and the exit
    /// code is then 2.
    #[command(after_help = "Example: causalcone sweep examples/cumulative.toml --out cumulative")]
    Sweep(SweepArgs),
    /// Say what an experiment file would do, without doing it
    ///
    /// Nothing is computed: parameters are not drawn, and values are not fitted to data sets. What does not fit
    /// in --memory is refused as the commands refuse it.
    Explain(ExplainArgs),
    /// Write the activations that an experiment file collects over its data set
    ///
    /// DIR gets shards of tensors (safetensors), an index that says which row of which shard is what
    /// position of what example, and collection.json. The data set is computed in parts, so that memory is
    /// bounded by --shard and --memory; only the index is held whole, at about 50 bytes a row. Interrupted
    /// work is resumed with --resume.
    #[command(after_help = "Example: causalcone collect examples/collect.toml --out activations")]
    Collect(CollectArgs),
    /// Draw a data set of counterfactuals from a causal model: base, source, and the label of their interchange
    ///
    /// The file says which variables a task has and how they depend on each other, the prompt of its inputs, and
    /// whose values are interchanged (docs/causal-model.md). Writes examples as `train` and `sweep` read them; with
    /// only_right those whose prompts the language model answers as the causal model does.
    #[command(
        after_help = "Example: causalcone data examples/causal/capitals.toml --out train.jsonl --held-out test.jsonl"
    )]
    Data(DataArgs),
    /// What a model would say after every layer, and what its answer is made of
    ///
    /// The logit lens: the residual stream after each layer, at each position, through the last norm and the unembedding.
    /// And direct logit attribution: what the embedding, each head and each MLP puts into the logits of the last
    /// position. Of a prompt, or of an experiment file's run without and with its edits. DIR gets both as tables and
    /// figures, and lens.json.
    #[command(
        after_help = "Examples: causalcone lens examples/swap.toml --out lens\n          causalcone lens --prompt \"The capital of Spain is\" --token \" Madrid\" --out lens"
    )]
    Lens(LensArgs),
    /// Fit the parameters of an experiment file's edits to what its examples say should come
    ///
    /// Alignment search (DAS) and representation fine-tuning: [train] says how. With a [sweep] there is a fit for each
    /// choice of its axes. DIR gets what was learned (intervention), the steps (log.csv, loss.svg), the scores of
    /// every example (cells.csv, means.csv, heatmap.svg) and train.json. A training that was cut short goes on with
    /// --resume, to the bit as if it had not been.
    #[command(after_help = "Example: causalcone train examples/das.toml --out das")]
    Train(TrainArgs),
    /// Save the edits of an experiment file as an intervention that others can load
    ///
    /// The folder holds what the edits are, their tensors, the model they are for and a self-test. An
    /// edit of another file takes one by op = { load = "DIR", name = "…" }.
    ///
    /// Where --out ends in .gguf, vectors added to block_output are saved as a control vector, which
    /// llama.cpp and repeng read too; an edit takes one by value = { file = "FILE.gguf" }.
    #[command(after_help = "Example: causalcone save examples/add.toml --out rome")]
    Save(SaveArgs),
    /// Describe a saved intervention and run its self-test
    ///
    /// Exits with 1 if the model does not answer as it did when the intervention was saved.
    #[command(after_help = "Example: causalcone info rome")]
    Info(InfoArgs),
    /// The models that have a name of their own: list, fetch, describe
    Models {
        #[command(subcommand)]
        action: Option<ModelsAction>,
    },
    /// Print a completion script for a shell
    #[command(
        after_help = "Example: causalcone completions bash > ~/.local/share/bash-completion/completions/causalcone"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

#[derive(Debug, Args)]
struct TourArgs {
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    model: String,
    #[command(flatten)]
    weights: Weights,
    /// Folder for experiment files, tables and heat maps
    #[arg(long, value_name = "DIR", default_value = "causalcone-tour")]
    out: PathBuf,
    /// Compare every number with the published ones and fail if one is off
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    again: Again,
}

/// What to do with results that are already there.
#[derive(Debug, Clone, Copy, Args)]
struct Again {
    /// Go on with work that was cut short, from what the folder holds
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Replace the results that are already in the folder
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct TopArgs {
    /// The prompt
    #[arg(required_unless_present = "ids")]
    prompt: Option<String>,
    /// Token ids instead of a prompt, such as 504,3575,282
    #[arg(long, value_delimiter = ',', conflicts_with = "prompt")]
    ids: Option<Vec<u32>>,
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    model: String,
    #[command(flatten)]
    weights: Weights,
    /// How many tokens
    #[arg(short, default_value_t = 10)]
    n: usize,
    /// Whether a start-of-text token comes first [default: as the model was trained]
    #[arg(long, conflicts_with = "ids")]
    bos: Option<bool>,
    /// Ask it: the prompt is what a user says, as the model's chat template writes it
    #[arg(long, conflicts_with = "ids")]
    chat: bool,
}

#[derive(Debug, Args)]
struct FileArgs {
    /// The experiment file (TOML, or JSON if its name ends in .json)
    file: PathBuf,
    /// Another model than the file names
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    weights: Weights,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The most new tokens, in place of the file's
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// The seed of what is drawn, in place of the file's
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Also what each version makes of the tokens of either text: a table; in a folder with figures and a page
    ///
    /// A sweep over scales has them anyway.
    #[arg(long)]
    table: bool,
    /// Folder for the texts, a line of JSON each
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Format of the table in a folder [default: csv]
    #[arg(long, value_parser = formats())]
    format: Option<Format>,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    memory: Memory,
}

#[derive(Debug, Args)]
struct SweepArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the table
    #[arg(long, default_value = "csv", value_parser = formats())]
    format: Format,
    #[command(flatten)]
    memory: Memory,
    /// Compute cells again with the slow reference executor: all, or N spread over the sweep
    ///
    /// Exits with 1 if a probability is off by more than 1e-4, or a logit x by 1e-4 * max(1, |x|).
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    verify: Option<Verify>,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
struct CollectArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Folder for the shards
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// About how large a shard is, and what is held of it in memory
    #[arg(long, value_name = "SIZE", default_value = "64MB")]
    shard: Size,
    /// Format of the index
    #[arg(long, default_value = "csv", value_parser = formats())]
    format: Format,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
struct DataArgs {
    /// The file of the causal model (TOML)
    file: PathBuf,
    /// Another language model than the file names
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    weights: Weights,
    /// File for the examples
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File for the held-out examples, where the causal model's file asks for some
    #[arg(long, value_name = "FILE")]
    held_out: Option<PathBuf>,
    #[command(flatten)]
    memory: Memory,
    /// Replace files that are already there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct LensArgs {
    /// The experiment file (TOML, or JSON if its name ends in .json)
    #[arg(required_unless_present = "prompt")]
    file: Option<PathBuf>,
    /// A prompt instead of a file
    #[arg(long, conflicts_with = "file")]
    prompt: Option<String>,
    /// With --prompt: a token to follow; can be given several times [default: the likeliest answer]
    #[arg(long, value_name = "TOKEN", conflicts_with = "file")]
    token: Vec<String>,
    /// Another model than the file names; with --prompt smollm2 if left out
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    weights: Weights,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many of the likeliest tokens the table has at each place
    #[arg(short, default_value_t = 5)]
    n: usize,
    /// Format of the tables
    #[arg(long, default_value = "csv", value_parser = formats())]
    format: Format,
    #[command(flatten)]
    memory: Memory,
    /// Replace the results that are already in the folder
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct TrainArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Format of the tables
    #[arg(long, default_value = "csv", value_parser = formats())]
    format: Format,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    again: Again,
}

#[derive(Debug, Args)]
struct SaveArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Folder for the intervention, or file for a control vector (.gguf)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace an intervention that is already there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The folder of a saved intervention
    folder: PathBuf,
    /// The model to test it on [default: the one it was saved with]
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    weights: Weights,
    /// Only describe it
    #[arg(long)]
    no_test: bool,
}

#[derive(Debug, Subcommand)]
enum ModelsAction {
    /// The models with a name, and which are on this machine
    List,
    /// Fetch a model, check it and keep it
    ///
    /// Some have terms of use, which are shown and asked about first.
    Pull {
        /// Its alias
        name: String,
        /// Accept its terms of use, having read them, without being asked
        #[arg(long)]
        accept_terms: bool,
    },
    /// Describe a model: family, shape, tokenizer, memory, hash, what its files leave out
    ///
    /// Reads the headers of its files and no weights. `memory` has the bytes that the weights take in each form, the
    /// form that would be chosen, and the bytes that are free. `keys` has the configuration keys that are missing, with the
    /// defaults that stand in, and those that were ignored or are unknown. `sha256` is null where the files are larger than
    /// 1 GiB and their hash is not remembered from before: --hash computes it.
    Info {
        /// Alias, Hugging Face directory, .gguf file or owner/name
        model: String,
        #[command(flatten)]
        weights: Weights,
        /// Compute the SHA-256 of files larger than 1 GiB too, which reads them whole
        #[arg(long)]
        hash: bool,
    },
    /// Check that a model loads and computes what it should
    ///
    /// Loads it, reports which configuration keys were missing, ignored or unknown, and scores a paragraph of English and
    /// one of code. Bits per byte far above those of other models mean that a setting is wrong, for instance the base of
    /// the rotary positions. With --against FILE the logits are compared with those of another implementation.
    ///
    /// Exits with 1 if the text is not predicted, or if a logit x differs by more than 1e-4 + 1e-4 * |x|.
    #[command(
        after_help = "Examples: causalcone models check my-model\n          causalcone models check my-model --against golden.json"
    )]
    Check {
        /// Alias, Hugging Face directory, .gguf file or owner/name
        model: String,
        #[command(flatten)]
        weights: Weights,
        /// Logits by another implementation, as JSON: {"ids": [...], "top": [[id, logit], ...]}
        ///
        /// A document of `causalcone top --json` is accepted too.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
    },
}

/// The table formats, by name.
fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| name.parse::<Format>())
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    let listening = interrupt::listen();
    let cli = Cli::parse();
    let keys = KeyPolicy { ignore_keys: cli.common.ignore_key, strict: cli.common.strict };
    let mut terminal = Terminal::new(cli.common.json, keys);
    if let Err(problem) = listening {
        terminal.note(&format!("Ctrl-C ends the command at once: {problem}"));
    }
    threads::start(&terminal);
    let done = check_device(&cli.common.device).and_then(|()| dispatch(cli.command, &mut terminal));
    match done.and_then(|()| terminal.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command, terminal: &mut Terminal) -> Result<(), Failure> {
    match command {
        Command::Tour(args) => tour::tour(&args, terminal),
        Command::Top(args) => answers::top(&args, terminal),
        Command::Run(args) => answers::run(&args, terminal),
        Command::Generate(args) => generate::generate(&args, terminal),
        Command::Sweep(args) => sweep::command(&args, terminal),
        Command::Explain(args) => explain(&args, terminal),
        Command::Collect(args) => collect::collect(&args, terminal),
        Command::Data(args) => data::data(&args, terminal),
        Command::Lens(args) => lens::lens(&args, terminal),
        Command::Train(args) => train::train(&args, terminal),
        Command::Save(args) => saved::save(&args, terminal),
        Command::Info(args) => saved::info(&args, terminal),
        Command::Models { action } => models::models(action.unwrap_or(ModelsAction::List), terminal),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "causalcone", &mut script);
            let script = String::from_utf8_lossy(&script).into_owned();
            terminal.result(&serde_json::json!({"completions": script}), |_| script)
        }
        Command::Man => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.map_err(|e| Failure::run(format!("cannot render the man page: {e}")))?;
            let page = String::from_utf8_lossy(&page).into_owned();
            terminal.result(&serde_json::json!({"man": page}), |_| page)
        }
    }
}

/// This build has kernels for one device; naming another is no reason to compute on this one.
fn check_device(device: &str) -> Result<(), Failure> {
    if device == "cpu" {
        return Ok(());
    }
    Err(Failure::input(format!("--device {device}: this build computes on cpu only")))
}

/// An experiment file and the model it is for.
struct Loaded {
    file: ExperimentFile,
    model: Model,
}

impl Loaded {
    /// Reads the file first, so that its mistakes are told before a model is fetched for it.
    fn new(args: &FileArgs, terminal: &Terminal) -> Result<Self, Failure> {
        Self::with(args, |name, options| terminal.load_with(name, options))
    }

    /// The same, its weights not read until something is computed with them.
    fn open(args: &FileArgs, terminal: &Terminal) -> Result<Self, Failure> {
        Self::with(args, |name, options| terminal.open_with(name, options))
    }

    fn with(
        args: &FileArgs,
        load: impl FnOnce(&str, LoadOptions) -> Result<Model, Failure>,
    ) -> Result<Self, Failure> {
        let (file, model) = (ExperimentFile::load(&args.file)?, args.model.as_deref());
        if model.is_none() && file.model.is_none() {
            return Err(Failure::input(format!(
                "{}: names no model: add model = \"smollm2\" or give -m",
                args.file.display()
            )));
        }
        Self::of(file, model, args.weights, load)
    }

    /// Of a file as it was read.
    fn of(
        mut file: ExperimentFile,
        model: Option<&str>,
        weights: Weights,
        load: impl FnOnce(&str, LoadOptions) -> Result<Model, Failure>,
    ) -> Result<Self, Failure> {
        file.weights = weights.given().or(file.weights);
        if let Some(model) = model {
            file.model = Some(model.to_owned());
        }
        let name = file.model.get_or_insert_with(|| DEFAULT_MODEL.into()).clone();
        // An alias is no path, but a path may be relative to the file that names it.
        let path = file.data_path(&name);
        let name = if model.is_none() && path.exists() { path.to_string_lossy().into_owned() } else { name };
        let options = LoadOptions {
            weights: file.weights.unwrap_or_default(),
            keys: file.model_options.clone().unwrap_or_default(),
            ..LoadOptions::default()
        };
        let model = load(&name, options)?;
        Ok(Self { file, model })
    }
}

fn explain(args: &ExplainArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let loaded = Loaded::open(&args.file, terminal)?;
    let (outline, left_out) = loaded.outline(terminal)?;
    let explanation = Explanation::of_outline(&outline, &args.memory.executor(&loaded.model))?;
    let explained = Explained { explanation, memory: loaded.model.footprint() };
    terminal.result(&explained, |Explained { explanation, memory }| {
        format!("{explanation}\nmemory         {memory}\n")
    })?;
    left_out.into_result()
}

/// What `explain` prints.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    explanation: Explanation,
    memory: &'a Footprint,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
