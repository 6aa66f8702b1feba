//! The arguments of commands that need no experiment file.

use crate::options::{Again, DEFAULT_MODEL, Memory, Weights, formats};
use causalcone::jobs::recipes::{HeadChoice, LayerChoice, PositionChoice};
use causalcone::{Align, Metric};
use causalcone_report::Format;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;

/// What commands that need no experiment file have in common.
#[derive(Debug, Args)]
pub(crate) struct OneLine {
    /// Alias, Hugging Face directory, .gguf file or owner/name
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) weights: Weights,
    /// Print the experiment file that this command runs, and run nothing
    #[arg(long, conflicts_with = "out")]
    pub(crate) print_experiment: bool,
    /// Also write the results to a folder: table, figures and record, as `sweep` does
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Format of the table
    #[arg(long, default_value = "csv", value_parser = formats())]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) memory: Memory,
    #[command(flatten)]
    pub(crate) again: Again,
}

/// The two prompts and the answers that are compared.
#[derive(Debug, Args)]
pub(crate) struct Contrast {
    /// The prompt whose run is patched, or a .txt file that holds it; - reads it from standard input
    pub(crate) prompt: String,
    /// The prompt that activations are copied from, or a .txt file that holds it
    #[arg(long, value_name = "PROMPT")]
    pub(crate) from: String,
    /// Answers of one token each, mostly with the space before the word; logit_diff is the first minus the second, kl and
    /// entropy need none
    #[arg(long, value_name = "TOKEN", num_args = 1..)]
    pub(crate) answers: Vec<String>,
    /// What is recorded; can be given several times, the first is drawn and ranked
    #[arg(long, value_name = "METRIC", default_value = "logit_diff", value_parser = metrics())]
    pub(crate) metric: Vec<Metric>,
    /// Layers: each, cumulative, window=N, all together, or some: 3, 0..10, 3,5,7
    #[arg(long, value_name = "LAYERS", default_value = "each", allow_hyphen_values = true)]
    pub(crate) layers: LayerChoice,
}

#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    #[command(flatten)]
    pub(crate) contrast: Contrast,
    /// The site: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v or any other name of a site
    #[arg(long, value_name = "SITE", default_value = "resid_pre")]
    pub(crate) site: String,
    /// Positions: each, all together, last, or some: 3, -1, 2..5, 1,4
    #[arg(long, value_name = "POSITIONS", default_value = "each", allow_hyphen_values = true)]
    pub(crate) positions: PositionChoice,
    /// Heads, for sites with heads: each, all together, or some: 3, 0..4, 1,7
    #[arg(long, value_name = "HEADS", allow_hyphen_values = true)]
    pub(crate) heads: Option<HeadChoice>,
    /// How positions pair if the prompts have different lengths: equal tokens, or from the left or right end
    ///
    /// With tokens, a position whose token has no partner in the other prompt is not patched.
    #[arg(long, value_name = "HOW", value_parser = aligns())]
    pub(crate) align: Option<Align>,
    #[command(flatten)]
    pub(crate) one: OneLine,
}

#[derive(Debug, Args)]
pub(crate) struct HeadsArgs {
    #[command(flatten)]
    pub(crate) contrast: Contrast,
    #[command(flatten)]
    pub(crate) one: OneLine,
}

/// The metrics, by name.
fn metrics() -> impl TypedValueParser<Value = Metric> {
    let by_name = |name: String| Metric::ALL.into_iter().find(|(known, _)| *known == name);
    PossibleValuesParser::new(Metric::ALL.map(|(name, _)| name))
        .try_map(move |name| by_name(name).map(|(_, metric)| metric).ok_or("no metric"))
}

/// The ways of pairing positions, by name.
fn aligns() -> impl TypedValueParser<Value = Align> {
    const ALL: [Align; 3] = [Align::Tokens, Align::Left, Align::Right];
    PossibleValuesParser::new(ALL.map(Align::name))
        .try_map(|name| ALL.into_iter().find(|align| align.name() == name).ok_or("no way of pairing"))
}
