//! What the command does with its arguments: one function for each subcommand.

use crate::args::{Cli, Command, ExplainArgs, ModelsAction};
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use crate::{
    answers, collect, data, generate, lens, models, patch, saved, signals, sweep, threads, tour, train,
};
use causalcone::jobs::Observer;
use causalcone::{Device, Explanation, Footprint, KeyPolicy};
use clap::{CommandFactory, Parser};
use serde::Serialize;
use std::process::ExitCode;

/// Runs the command with the process's arguments.
pub(crate) fn run() -> ExitCode {
    let listening = signals::listen();
    let cli = Cli::parse();
    let keys = KeyPolicy { ignore_keys: cli.common.ignore_key, strict: cli.common.strict };
    let terminal = Terminal::new(cli.common.json, keys);
    if let Err(problem) = listening {
        terminal.note(&format!("Ctrl-C ends the command at once: {problem}"));
    }
    threads::start(&terminal);
    let done = check_device(&cli.common.device).and_then(|()| dispatch(cli.command, &terminal));
    match done.and_then(|()| terminal.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            terminal.failure(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command, terminal: &Terminal) -> Result<(), Failure> {
    match command {
        Command::Tour(args) => tour::tour(&args, terminal),
        Command::Top(args) => answers::top(&args, terminal),
        Command::Patch(args) => patch::patch(&args, terminal),
        Command::Heads(args) => patch::heads(&args, terminal),
        Command::Run(args) => answers::run(&args, terminal),
        Command::Generate(args) => generate::generate(&args, terminal),
        Command::Sweep(args) => sweep::sweep(&args, terminal),
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

/// Checks that this build computes on a device.
fn check_device(device: &str) -> Result<(), Failure> {
    device.parse::<Device>().map(|_| ()).map_err(|e| Failure::input(format!("--{e}")))
}

fn explain(args: &ExplainArgs, terminal: &Terminal) -> Result<(), Failure> {
    let loaded = Loaded::open(&args.file, terminal)?;
    let (outline, left_out) = loaded.source().outline(terminal)?;
    let explanation =
        Explanation::of_outline(&outline, &args.memory.runtime(&loaded.model, &terminal.report()))?;
    let explained = Explained { explanation, memory: loaded.model.footprint() };
    terminal.result(&explained, |Explained { explanation, memory }| {
        format!("{explanation}\nmemory         {memory}\n")
    })?;
    all_fit(&left_out)
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
