//! Threads, where the system may refuse them: containers and login sessions limit how many there are.

use crate::terminal::Terminal;
use causalcone::jobs::Observer;
use causalcone::threads;

/// How many threads elementwise operations of the tensor library use. It panics where it cannot start them.
const TENSORS: &str = "CANDLE_NUM_THREADS";

/// How many threads are left for what else needs one: ending on a signal, chat templates, pip.
const SPARE: usize = 2;

/// Starts the threads that compute; with fewer than there are processors if the system refuses some.
pub(crate) fn start(terminal: &Terminal) {
    let started = threads::start();
    if started.are_fewer() && std::env::var_os(TENSORS).is_none() {
        restart(started.made.saturating_sub(SPARE).max(1));
    }
    if let Ok(made) = std::env::var(REDUCED) {
        terminal.note(&format!("the system allows few threads: computing on {made}"));
    }
}

/// Marks a process that was restarted, with how many threads it has.
const REDUCED: &str = "CAUSALCONE_REDUCED_THREADS";

/// Runs the same command in place of this process, on so many threads. The tensor library reads its number from the
/// environment, which a process cannot change for itself without `unsafe`.
#[cfg(unix)]
fn restart(threads: usize) {
    use std::os::unix::process::CommandExt;
    let Ok(command) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(command);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments).env(TENSORS, "1").env(REDUCED, threads.to_string());
    // exec only returns if it fails; the command then continues in this process.
    let _ = again.env("RAYON_NUM_THREADS", threads.to_string()).exec();
}

#[cfg(not(unix))]
fn restart(_threads: usize) {}
