//! The arguments of the command: what `--help` says, and what is read of the command line.

use crate::one_line::{HeadsArgs, PatchArgs};
use crate::options::{Again, DEFAULT_MODEL, Memory, Size, Weights, formats, verify};
use causalcone::jobs::sweep::Verify;
use causalcone_report::Format;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

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
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where to compute: cpu is the only one this build has
    #[arg(long, global = true, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: String,
    /// Ignore this unknown key of the model's configuration; can be given several times
    ///
    /// A key whose name speaks of computation and that this version does not know is an error, since the answers could be
    /// wrong without it. Ignore it only if you know that it changes nothing. Results record what was ignored.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) ignore_key: Vec<String>,
    /// Refuse a model whose configuration has any unknown key, instead of warning of it
    #[arg(long, global = true)]
    pub(crate) strict: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The activation-addition tutorial, end to end, on a real model
    ///
    /// Prints the model's answers, edits it, sweeps every layer and position, and draws the heat
    /// maps. Each step is an experiment file, which is written beside its results so that you can
    /// change it and run it again.
    Tour(TourArgs),
    /// The likeliest next tokens of a prompt
    #[command(after_help = "Example: causalcone top -m smollm2 \"The capital of Spain is\" -n 5")]
    Top(TopArgs),
    /// Find which activations carry the difference between two prompts (activation patching)
    ///
    /// Copies one activation at a time from the run of the --from prompt into the run of PROMPT, and records what the
    /// model then answers: a heat map over layers and positions, and the strongest cells. The two prompts should differ in
    /// what the answer depends on, and have the same number of tokens.
    #[command(
        after_help = "Example: causalcone patch \"When Mary and John went to the store, Mary gave a drink to\" --from \"When Mary and John went to the store, John gave a drink to\" --answers \" Mary\" \" John\""
    )]
    Patch(PatchArgs),
    /// Rank the attention heads by how much they move the answer (patching by head)
    ///
    /// Copies the output of one head at a time, at the last position, from the run of the --from prompt into the run of
    /// PROMPT.
    #[command(
        after_help = "Example: causalcone heads \"When Mary and John went to the store, Mary gave a drink to\" --from \"When Mary and John went to the store, John gave a drink to\" --answers \" Mary\" \" John\""
    )]
    Heads(HeadsArgs),
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
    /// Logit lens and direct logit attribution
    ///
    /// The logit lens applies the last norm and the unembedding to the residual stream after each layer, at each position.
    /// Direct logit attribution is what the embedding, each head and each MLP adds to the logits of the last position. Both
    /// are computed for a prompt, or for an experiment file's run without and with its edits. With --out, DIR gets both
    /// as tables and figures, and lens.json.
    #[command(
        after_help = "Examples: causalcone lens \"The capital of Spain is\" --token \" Madrid\"\n          causalcone lens examples/swap.toml --out lens"
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
pub(crate) struct TourArgs {
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// Folder for experiment files, tables and heat maps
    #[arg(long, value_name = "DIR", default_value = "causalcone-tour")]
    pub(crate) out: PathBuf,
    /// Compare every number with the published ones and fail if one is off
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) again: Again,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The prompt, or a .txt file that holds it; - reads it from standard input
    #[arg(required_unless_present = "ids")]
    pub(crate) prompt: Option<String>,
    /// Token ids instead of a prompt, such as 504,3575,282
    #[arg(long, value_delimiter = ',', conflicts_with = "prompt")]
    pub(crate) ids: Option<Vec<u32>>,
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// How many tokens
    #[arg(short, default_value_t = 10)]
    pub(crate) n: usize,
    /// Whether a start-of-text token comes first [default: as the model was trained]
    #[arg(long, conflicts_with = "ids")]
    pub(crate) bos: Option<bool>,
    /// Ask it: the prompt is what a user says, as the model's chat template writes it
    #[arg(long, conflicts_with = "ids")]
    pub(crate) chat: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The experiment file (TOML, or JSON if its name ends in .json)
    pub(crate) file: PathBuf,
    /// Another model than the file names
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) weights: Weights,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// The most new tokens, in place of the file's
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// The seed of what is drawn, in place of the file's
    #[arg(long, value_name = "SEED")]
    pub(crate) seed: Option<u64>,
    /// Also what each version makes of the tokens of either text: a table; in a folder with figures and a page
    ///
    /// A sweep over scales has them anyway.
    #[arg(long)]
    pub(crate) table: bool,
    /// Folder for the texts, a line of JSON each
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Format of the table in a folder [default: csv]
    #[arg(long, value_parser = formats())]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) again: Again,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    #[command(flatten)]
    pub(crate) memory: Memory,
}

#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Format of the table
    #[arg(long, default_value = "csv", value_parser = formats())]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// Compute cells again with the slow reference executor: all, or N spread over the sweep
    ///
    /// Exits with 1 if a probability is off by more than 1e-4, or a logit x by 1e-4 * max(1, |x|).
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "all", value_parser = verify)]
    pub(crate) verify: Option<Verify>,
    #[command(flatten)]
    pub(crate) again: Again,
}

#[derive(Debug, Args)]
pub(crate) struct CollectArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Folder for the shards
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// About how large a shard is, and what is held of it in memory
    #[arg(long, value_name = "SIZE", default_value = "64MB")]
    pub(crate) shard: Size,
    /// Format of the index
    #[arg(long, default_value = "csv", value_parser = formats())]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) again: Again,
}

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The file of the causal model (TOML)
    pub(crate) file: PathBuf,
    /// Another language model than the file names
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// File for the examples
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// File for the held-out examples, where the causal model's file asks for some
    #[arg(long, value_name = "FILE")]
    pub(crate) held_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// Replace files that are already there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LensArgs {
    /// A prompt, or an experiment file (TOML, or JSON if its name ends in .json); - reads a prompt from standard input
    #[arg(value_name = "PROMPT|FILE", required_unless_present = "prompt")]
    pub(crate) given: Option<String>,
    /// A prompt, also if it looks like the name of a file
    #[arg(long, conflicts_with = "given")]
    pub(crate) prompt: Option<String>,
    /// Of a prompt: a token to follow; can be given several times [default: the likeliest answer]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Vec<String>,
    /// Another model than the file names; of a prompt smollm2 if left out
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// Folder for tables and figures
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// How many of the likeliest tokens the table has at each place
    #[arg(short, default_value_t = 5)]
    pub(crate) n: usize,
    /// Format of the tables
    #[arg(long, default_value = "csv", value_parser = formats())]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) memory: Memory,
    /// Replace the results that are already in the folder
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Format of the tables
    #[arg(long, default_value = "csv", value_parser = formats())]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) again: Again,
}

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Folder for the intervention, or file for a control vector (.gguf)
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace an intervention that is already there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The folder of a saved intervention
    pub(crate) folder: PathBuf,
    /// The model to test it on [default: the one it was saved with]
    #[arg(short, long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// Only describe it
    #[arg(long)]
    pub(crate) no_test: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsAction {
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
