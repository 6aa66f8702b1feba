//! Who hears what a job has to say while it works.
//!
//! A job never prints. How far it is goes to the progress of its [`Runtime`](causalcone_engine::Runtime), which can also
//! stop it; everything else goes to an [`Observer`].
//!
//! ```
//! use causalcone_jobs::Observer;
//! use std::sync::Mutex;
//!
//! #[derive(Default)]
//! struct Log(Mutex<Vec<String>>);
//!
//! impl Observer for Log {
//!     fn note(&self, text: &str) {
//!         self.0.lock().unwrap().push(text.to_owned());
//!     }
//! }
//!
//! let log = Log::default();
//! log.note("no heatmap.png");
//! assert_eq!(log.0.into_inner().unwrap(), ["no heatmap.png"]);
//! ```

use causalcone_engine::{MissingSpace, Refused};

/// Hears what a job has to say while it works. Each method does nothing unless it is implemented.
pub trait Observer: Sync {
    /// A piece of work whose progress was reported has ended: a progress bar can be removed, and nobody asks now
    /// whether to stop.
    fn finished(&self) {}

    /// Something that a person who watches may want to know. Results do not depend on it.
    fn note(&self, text: &str) {
        let _ = text;
    }

    /// An example of the data set does not fit, and is left out.
    fn refused(&self, example: &Refused) {
        let _ = example;
    }

    /// Tokens that probably lack a leading space.
    fn missing_spaces(&self, missing: &[MissingSpace]) {
        let _ = missing;
    }

    /// From now on the same job with [`Again::Resume`](crate::Again::Resume) continues what is interrupted.
    fn resumable(&self) {}
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
