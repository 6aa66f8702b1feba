//! The threads that kernels run on.
//!
//! Rayon starts its global pool at the first parallel operation, and panics where the system refuses a thread. [`start`]
//! creates the threads first and gives rayon as many as there are.

use rayon::ThreadBuilder;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

/// How many threads compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// As many as there are processors, or as `RAYON_NUM_THREADS` says.
    pub wanted: usize,
    /// As many as the system allowed; 0 if all work is done by the thread that called [`start`].
    pub made: usize,
}

impl Threads {
    /// Whether the system refused some.
    pub fn are_fewer(self) -> bool {
        self.made < self.wanted
    }
}

/// Starts rayon's global pool, once for the process. Opening a model does so too. A pool that the program has already
/// built is left as it is.
///
/// ```
/// let threads = causalcone_model::threads::start();
/// assert_eq!(threads, causalcone_model::threads::start());
/// ```
pub fn start() -> Threads {
    static STARTED: OnceLock<Threads> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let wanted = wanted();
        let mut waiting = waiting(wanted);
        let threads = Threads { wanted, made: waiting.len() };
        let builder = rayon::ThreadPoolBuilder::new();
        // An error means that the program has built a pool of its own.
        let _ = match threads.made {
            0 => builder.num_threads(1).use_current_thread().build_global(),
            made => {
                builder.num_threads(made).spawn_handler(|worker| hand(&mut waiting, worker)).build_global()
            }
        };
        threads
    })
}

/// The number of threads that rayon would start by itself.
fn wanted() -> usize {
    let given = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let most = rayon::max_num_threads();
    given.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)).min(most)
}

/// Threads that wait for their part of the pool, up to so many.
fn waiting(wanted: usize) -> Vec<Sender<ThreadBuilder>> {
    let mut waiting = Vec::new();
    for number in 0..wanted {
        let (give, take) = channel::<ThreadBuilder>();
        let run = move || {
            if let Ok(worker) = take.recv() {
                worker.run();
            }
        };
        match std::thread::Builder::new().name(format!("causalcone-{number}")).spawn(run) {
            Ok(_) => waiting.push(give),
            Err(_) => break,
        }
    }
    waiting
}

fn hand(waiting: &mut Vec<Sender<ThreadBuilder>>, worker: ThreadBuilder) -> std::io::Result<()> {
    let gone = || std::io::Error::other("a thread has ended");
    waiting.pop().ok_or_else(gone)?.send(worker).map_err(|_| gone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_of_the_pool_run() {
        let threads = start();
        assert!(!threads.are_fewer());
        assert_eq!(rayon::current_num_threads(), threads.made);
        let names = rayon::broadcast(|_| std::thread::current().name().map(str::to_owned));
        assert_eq!(names.len(), threads.made);
        assert!(names.iter().flatten().all(|name| name.starts_with("causalcone-")), "{names:?}");
    }
}
