//! Signals that ask the command to stop: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that was closed.
//!
//! Work that can stop in order does so at its next step ([`interrupt::stopping`]), keeps what is finished, and the command
//! exits with 128 plus the number of the signal. At any other moment, on a second signal, and if the work does not stop
//! within [`PATIENCE`], the command removes what is not finished, says why it ends, and exits at once with the same code.

use crate::failure::Failure;
use crate::interrupt;
use std::io::{IsTerminal, Write};
#[cfg(unix)]
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long work may take to stop in order.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done when a signal arrives.
fn receive(signal: i32) {
    if !interrupt::note(signal) || !interrupt::is_asked() {
        end();
    }
    let waiting = std::thread::Builder::new().name("patience".into()).spawn(|| {
        std::thread::sleep(PATIENCE);
        // Work that knows of it may still be writing what it keeps.
        if !interrupt::is_told() {
            end();
        }
    });
    // Where there is no thread to wait, nobody would end work that does not stop.
    if waiting.is_err() {
        end();
    }
}

/// How long a message may take to be written: a pipe that nobody reads takes none.
const TO_WRITE: Duration = Duration::from_secs(1);

/// Ends the command now.
#[allow(clippy::exit, reason = "no work is there to stop, it does not stop, or the user asked twice")]
fn end() {
    causalcone_files::abandon();
    let write = || {
        // A progress bar may be on this line.
        let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}{}", Failure::interrupted("").rendered());
    };
    let (written, is_written) = std::sync::mpsc::channel();
    let told = std::thread::Builder::new().name("last words".into()).spawn(move || {
        write();
        let _ = written.send(());
    });
    match told {
        Ok(_) => drop(is_written.recv_timeout(TO_WRITE)),
        Err(_) => write(),
    }
    std::process::exit(i32::from(interrupt::code()));
}

/// Listens for signals from now on. The message says why that is not possible.
#[cfg(unix)]
pub(crate) fn listen() -> Result<(), String> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    use std::sync::Arc;
    // A file that grows past a limit is then an error of the call that writes it.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
    // nohup and its like start a command that ignores the end of its terminal.
    let hangs_up = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let handled: Vec<i32> = [SIGINT, SIGTERM].into_iter().chain(hangs_up).collect();
    let mut signals = signal_hook::iterator::Signals::new(&handled).map_err(|e| e.to_string())?;
    let listen = move || signals.forever().for_each(receive);
    let started = std::thread::Builder::new().name("signals".into()).spawn(listen);
    if started.is_err() {
        // Nobody listens: the signals end the process as if nobody had meant to.
        for signal in handled {
            let _ = signal_hook::flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)));
        }
    }
    started.map(|_| ()).map_err(|e| e.to_string())
}

/// Whether this process was started with a signal ignored; where the system does not tell, it was not.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Listens for Ctrl-C from now on. The message says why that is not possible.
#[cfg(not(unix))]
pub(crate) fn listen() -> Result<(), String> {
    ctrlc::set_handler(|| receive(2)).map_err(|e| e.to_string())
}
