//! The `causalcone` command: arguments in, library calls, and everything a user sees.
//!
//! The library never prints; this module does. Results go to stdout, messages and progress to
//! stderr. Exit codes: 0 done, 1 the run failed, 2 bad usage or bad input, 128 plus the number of a signal
//! that interrupted it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod answers;
mod args;
mod check;
mod collect;
mod command;
mod data;
mod failure;
mod generate;
mod given;
mod interrupt;
mod lens;
mod loaded;
mod model_check;
mod models;
mod one_line;
mod options;
mod patch;
mod saved;
mod signals;
mod sweep;
mod terminal;
mod texts;
mod threads;
mod tour;
mod train;

fn main() -> std::process::ExitCode {
    command::run()
}
