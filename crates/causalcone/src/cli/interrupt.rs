//! Signals that ask the command to stop: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a terminal that was closed.
//!
//! Work that can stop in order does so at its next step ([`stopping`]), keeps what is finished, and the command exits with
//! 128 plus the number of the signal. At any other moment, on a second signal, and if the work does not stop within
//! [`PATIENCE`], the command removes what is not finished, says why it ends, and exits at once with the same code.

use super::failure::Failure;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

/// The signal that came first; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether there is work that asks [`stopping`].
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Whether the work has been told to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Whether the same command with `--resume` takes up what is finished.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// How long work may take to stop in order.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether work should stop; from now on it is waited for, until [`finished`].
pub(super) fn stopping() -> bool {
    LISTENING.store(true, Ordering::SeqCst);
    let stopping = SIGNAL.load(Ordering::SeqCst) != 0;
    STOPPING.fetch_or(stopping, Ordering::SeqCst);
    stopping
}

/// There is no work now that asks [`stopping`].
pub(super) fn finished() {
    LISTENING.store(false, Ordering::SeqCst);
}

/// From now on the same command with `--resume` takes up what is finished.
pub(super) fn can_resume() {
    RESUMABLE.store(true, Ordering::SeqCst);
}

/// The exit code of an interrupted command.
pub(super) fn code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 1,
        signal => u8::try_from(128 + signal).unwrap_or(1),
    }
}

/// The failure of interrupted work. `kept` says what is left of it.
pub(super) fn failure(kept: &str) -> Failure {
    let by = match SIGNAL.load(Ordering::SeqCst) {
        0 => String::new(),
        signal => format!(" by {}", name(signal)),
    };
    let failure = Failure::interrupted(format!("interrupted{by}{kept}"));
    match RESUMABLE.load(Ordering::SeqCst) {
        true => failure.hint(format!("resume with: {}", resume_command())),
        false => failure,
    }
}

fn name(signal: i32) -> String {
    match signal {
        1 => "SIGHUP".into(),
        2 => "SIGINT".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    }
}

/// This command, as one would type it to resume it.
fn resume_command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words: Vec<String> = words.filter(|word| word != "--force" && word != "--resume").collect();
    let words = words.iter().map(|word| quoted(word));
    ["causalcone".into()]
        .into_iter()
        .chain(words)
        .chain(["--resume".into()])
        .collect::<Vec<String>>()
        .join(" ")
}

/// A word for the shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What is done when a signal arrives.
fn receive(signal: i32) {
    let is_first = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    if !is_first || !LISTENING.load(Ordering::SeqCst) {
        end();
    }
    let waiting = std::thread::Builder::new().name("patience".into()).spawn(|| {
        std::thread::sleep(PATIENCE);
        // Work that knows of it may still be writing what it keeps.
        if !STOPPING.load(Ordering::SeqCst) {
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
        let _ = writeln!(std::io::stderr(), "{clear}{}", failure("").rendered());
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
    std::process::exit(i32::from(code()));
}

/// Listens for signals from now on. The message says why that is not possible.
#[cfg(unix)]
pub(super) fn listen() -> Result<(), String> {
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
pub(super) fn listen() -> Result<(), String> {
    ctrlc::set_handler(|| receive(2)).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quoted("out/a.toml"), "out/a.toml");
        assert_eq!(quoted("two words"), "'two words'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
