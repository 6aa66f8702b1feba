//! Faults on demand, for tests: each call of this crate to the operating system can be made to fail.
//!
//! The variable `CAUSALCONE_FAULT` names a call by its number, counted from 1, and what happens at it:
//!
//! | value | effect at the 17th call that changes the disk |
//! |---|---|
//! | `17:ENOSPC`, `17:EIO`, `17:EINTR` | the call fails with this error of the operating system |
//! | `17:SHORT` | if it is a write, it writes one half of the bytes |
//! | `17:KILL`, `17:INT`, `17:TERM`, `17:HUP` | the process sends itself this signal before the call |
//! | `read:17:EIO` | the same for the 17th call that reads |
//!
//! When the fault happens, a line such as `17 rename PATH` is appended to the file that `CAUSALCONE_FAULT_LOG` names.
//! Builds without debug assertions ignore both variables.

use std::io;
use std::path::Path;

/// What a call should do, once it has not failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// What it always does.
    None,
    /// Write one half of the bytes only.
    #[cfg_attr(
        not(debug_assertions),
        expect(dead_code, reason = "faults are made in builds with debug assertions")
    )]
    Short,
}

/// A call that reads the file at `path`.
///
/// # Errors
/// The fault that was asked for, in builds with debug assertions.
pub fn before_read(path: &Path) -> io::Result<()> {
    before(FaultKind::Read, "read", path).map(|_| ())
}

/// A call that changes the disk.
pub(crate) fn before_write(call: &'static str, path: &Path) -> io::Result<Effect> {
    before(FaultKind::Write, call, path)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    Read,
    Write,
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn before(_: FaultKind, _: &'static str, _: &Path) -> io::Result<Effect> {
    Ok(Effect::None)
}

#[cfg(debug_assertions)]
use demand::before;

#[cfg(debug_assertions)]
mod demand {
    use super::{Effect, FaultKind};
    use std::io::{self, Write};
    use std::path::Path;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Fault {
        kind: FaultKind,
        number: u64,
        what: String,
    }

    fn parse(text: &str) -> Option<Fault> {
        let (kind, rest) = match text.strip_prefix("read:") {
            Some(rest) => (FaultKind::Read, rest),
            None => (FaultKind::Write, text),
        };
        let (number, what) = rest.split_once(':')?;
        Some(Fault { kind, number: number.parse().ok()?, what: what.into() })
    }

    pub(super) fn before(kind: FaultKind, call: &'static str, path: &Path) -> io::Result<Effect> {
        static FAULT: LazyLock<Option<Fault>> =
            LazyLock::new(|| std::env::var("CAUSALCONE_FAULT").ok().as_deref().and_then(parse));
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let Some(fault) = FAULT.as_ref().filter(|fault| fault.kind == kind) else { return Ok(Effect::None) };
        let number = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
        if number != fault.number {
            return Ok(Effect::None);
        }
        if let Some(log) = std::env::var_os("CAUSALCONE_FAULT_LOG") {
            let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
            writeln!(log, "{number} {call} {}", path.display())?;
        }
        make(&fault.what)
    }

    #[cfg(unix)]
    fn make(what: &str) -> io::Result<Effect> {
        use rustix::io::Errno;
        use rustix::process::{Signal, getpid, kill_process};
        let failed = |error: Errno| Err(error.into());
        let sent = |signal: Signal| {
            kill_process(getpid(), signal)?;
            // The thread that handles signals needs a moment to end the process.
            std::thread::sleep(std::time::Duration::from_millis(150));
            Ok(Effect::None)
        };
        match what {
            "ENOSPC" => failed(Errno::NOSPC),
            "EIO" => failed(Errno::IO),
            "EINTR" => failed(Errno::INTR),
            "SHORT" => Ok(Effect::Short),
            "KILL" => sent(Signal::KILL),
            "INT" => sent(Signal::INT),
            "TERM" => sent(Signal::TERM),
            "HUP" => sent(Signal::HUP),
            _ => Err(io::Error::other(format!("CAUSALCONE_FAULT names no fault: {what}"))),
        }
    }

    #[cfg(not(unix))]
    fn make(what: &str) -> io::Result<Effect> {
        Err(io::Error::other(what.to_owned()))
    }
}
