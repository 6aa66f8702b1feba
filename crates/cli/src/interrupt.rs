//! Whether a signal has asked the command to stop, whether there is work that will, and what the user is told of it.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// The signal that came first; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// Whether there is work that asks [`stopping`].
static LISTENING: AtomicBool = AtomicBool::new(false);

/// Whether the work has been told to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Whether the same command with `--resume` takes up what is finished.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// Whether work should stop; from now on it is waited for, until [`finished`].
pub(crate) fn stopping() -> bool {
    LISTENING.store(true, Ordering::SeqCst);
    let stopping = SIGNAL.load(Ordering::SeqCst) != 0;
    STOPPING.fetch_or(stopping, Ordering::SeqCst);
    stopping
}

/// Notes that a signal has come; says whether it is the first.
pub(crate) fn note(signal: i32) -> bool {
    SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Whether there is work that asks [`stopping`].
pub(crate) fn is_asked() -> bool {
    LISTENING.load(Ordering::SeqCst)
}

/// Whether the work has been told to stop.
pub(crate) fn is_told() -> bool {
    STOPPING.load(Ordering::SeqCst)
}

/// There is no work now that asks [`stopping`].
pub(crate) fn finished() {
    LISTENING.store(false, Ordering::SeqCst);
}

/// From now on the same command with `--resume` takes up what is finished.
pub(crate) fn can_resume() {
    RESUMABLE.store(true, Ordering::SeqCst);
}

/// The exit code of an interrupted command.
pub(crate) fn code() -> u8 {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => 1,
        signal => u8::try_from(128 + signal).unwrap_or(1),
    }
}

/// By which signal the command was interrupted, as its message says it.
pub(crate) fn by() -> String {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => String::new(),
        signal => format!(" by {}", name(signal)),
    }
}

/// How to take up what is finished, where that can be done.
pub(crate) fn how_to_resume() -> Option<String> {
    RESUMABLE.load(Ordering::SeqCst).then(|| format!("resume with: {}", resume_command()))
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
