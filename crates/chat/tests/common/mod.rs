//! The watch that is kept over whoever reads hostile input.
#![allow(dead_code, reason = "each test binary uses its own part")]

use peak_alloc::PeakAlloc;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What may be allocated on top of twice the file.
const MOST_MEMORY: u64 = 64 << 20;
/// How long a refusal may take.
const MOST_TIME: Duration = Duration::from_secs(1);

/// Panics so far, caught ones included, of every thread.
static PANICS: AtomicUsize = AtomicUsize::new(0);
/// One test at a time: memory and panics are counted for the whole process.
static WATCH: Mutex<()> = Mutex::new(());

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// What happened while something was tried.
struct Seen<T> {
    /// The error as its message.
    pub outcome: Result<T, String>,
    /// What else was wrong: a panic, too long, too much memory.
    pub faults: Vec<String>,
}

/// The time that all threads of this process have computed in, without what the system did for them; `None` where it does
/// not tell.
fn user_time() -> Option<std::time::Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name; the 14th is in hundredths of a second.
    let ticks: u64 = text.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()?;
    Some(std::time::Duration::from_millis(ticks * 10))
}

/// Does `work`, which reads `bytes` bytes of input, and watches what it costs.
fn watch<T, E: Display>(bytes: u64, work: impl Fn() -> Result<T, E>) -> Seen<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            usual(info);
        }));
    });
    let mut faults = Vec::new();
    // A busy machine may make anything slow once, but not three times.
    for attempt in 1..=3 {
        faults.clear();
        let (panics, before) = (PANICS.load(Ordering::SeqCst), MEMORY.current_usage());
        MEMORY.reset_peak_usage();
        let (start, computed) = (Instant::now(), user_time());
        let outcome = catch_unwind(AssertUnwindSafe(|| work().map_err(|e| e.to_string())));
        // What the code computes, not how long the machine takes to find memory for it.
        let took = match (computed, user_time()) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => start.elapsed(),
        };
        let (took, peak) = (took, MEMORY.peak_usage().saturating_sub(before) as u64);
        let panics = PANICS.load(Ordering::SeqCst) - panics;
        if panics > 0 {
            faults.push(format!("panicked {panics} times"));
        }
        if peak > MOST_MEMORY + 2 * bytes {
            faults.push(format!("took {} MB for a file of {} bytes", peak >> 20, bytes));
        }
        if took > MOST_TIME {
            faults.push(format!("took {took:.1?}"));
            if attempt < 3 {
                continue;
            }
        }
        let outcome = outcome.unwrap_or_else(|_| Err("(panicked)".into()));
        return Seen { outcome, faults };
    }
    unreachable!("the last attempt returns")
}

/// Collects what went wrong over a table of cases, so that one run shows all of it.
pub struct Verdict {
    faults: Vec<String>,
    cases: usize,
    _one: MutexGuard<'static, ()>,
}

impl Verdict {
    /// Waits until no other test is watching.
    pub fn new() -> Self {
        let _one = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
        Self { faults: Vec::new(), cases: 0, _one }
    }

    /// `work` must be refused with a message that holds `field`.
    pub fn refused<T, E: Display>(
        &mut self,
        name: &str,
        bytes: u64,
        field: &str,
        work: impl Fn() -> Result<T, E>,
    ) {
        self.cases += 1;
        let seen = watch(bytes, work);
        let mut faults = seen.faults;
        match seen.outcome {
            Ok(_) => faults.push("was accepted".into()),
            Err(message) if !message.contains(field) => {
                faults.push(format!("says {message:?}, not {field:?}"));
            }
            Err(message) if message.len() > 2000 => {
                faults.push(format!("has a message of {} bytes", message.len()));
            }
            Err(_) => {}
        }
        self.faults.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }

    /// `work` must succeed, within the same bounds.
    pub fn accepted<T, E: Display>(
        &mut self,
        name: &str,
        bytes: u64,
        work: impl Fn() -> Result<T, E>,
    ) -> Option<T> {
        self.cases += 1;
        let seen = watch(bytes, work);
        let mut faults = seen.faults;
        let value = seen.outcome.map_err(|message| faults.push(format!("refused: {message}"))).ok();
        self.faults.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
        value
    }

    /// `work` may do either, within the same bounds.
    pub fn survived<T, E: Display>(
        &mut self,
        name: &str,
        bytes: u64,
        work: impl Fn() -> Result<T, E>,
    ) -> Option<T> {
        self.cases += 1;
        let seen = watch(bytes, work);
        self.faults.extend(seen.faults.into_iter().map(|fault| format!("{name}: {fault}")));
        seen.outcome.ok()
    }

    /// Fails the test if anything went wrong.
    pub fn check(self) {
        // The guard lives on: a failing assertion is a panic too.
        let Self { faults, cases, _one } = self;
        println!("{cases} cases");
        assert!(faults.is_empty(), "{} faults in {cases} cases:\n{}", faults.len(), faults.join("\n"));
    }
}

/// Numbers that look random and are the same every time.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("48 bits") % n
    }
}
