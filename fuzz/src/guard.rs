//! What no input may cause: a panic, a long wait, much memory.

use peak_alloc::PeakAlloc;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Counts all memory of a process that uses this crate.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How long a run may take.
pub const MOST_TIME: Duration = Duration::from_secs(10);
/// How much a run may allocate besides three times its input.
pub const MOST_MEMORY: usize = 64 << 20;

/// What the last panic was, caught or not.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

thread_local! {
    /// Whether this thread runs a target, whose panics are reported otherwise.
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// Makes panics of targets silent, and remembers the last one.
///
/// The library catches panics of the tokenizer library and makes errors of them. Such a panic is no fault, so that the
/// hook must not end the process; whether a panic is caught is known only later.
pub fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
            if !RUNS.get() {
                usual(panic);
            }
        }));
    });
}

/// Runs `work`, which reads `bytes` bytes of input. What takes too long runs a second time, since a busy machine may have
/// kept it waiting.
///
/// # Errors
/// What it did that no input may cause.
pub fn guarded(bytes: usize, mut work: impl FnMut()) -> Result<(), String> {
    let mut took = once(bytes, &mut work)?;
    if took > MOST_TIME {
        took = once(bytes, &mut work)?;
    }
    if took > MOST_TIME { Err(format!("it took {took:.1?}, more than {MOST_TIME:?}")) } else { Ok(()) }
}

/// Runs it once, and says how long it took.
fn once(bytes: usize, work: &mut impl FnMut()) -> Result<Duration, String> {
    watch_panics();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    RUNS.set(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    RUNS.set(false);
    let (took, peak) = (start.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    if ended.is_err() {
        return Err(LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone());
    }
    if peak > MOST_MEMORY + 3 * bytes {
        return Err(format!("it allocated {} MiB for {bytes} bytes of input", peak >> 20));
    }
    Ok(took)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
    use super::*;

    /// The only test of its program: memory is counted for the whole process.
    #[test]
    fn notices_what_no_input_may_cause() {
        assert_eq!(guarded(10, || ()), Ok(()));
        let panicked = guarded(10, || panic!("a fault")).unwrap_err();
        assert!(panicked.contains("a fault") && panicked.contains("guard.rs"), "{panicked}");
        let much = guarded(10, || drop(std::hint::black_box(vec![0u8; 65 << 20]))).unwrap_err();
        assert!(much.contains("allocated 65 MiB"), "{much}");
        assert_eq!(guarded(1 << 20, || drop(std::hint::black_box(vec![0u8; 65 << 20]))), Ok(()));
    }
}
