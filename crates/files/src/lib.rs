//! Files and folders that appear whole or not at all, and folders that one process writes at a time.
//!
//! The results of the command and of the Rust library are written by this crate:
//!
//! - [`write_whole`] and [`write_new`]: a file under its final name only once all of it is on the disk;
//! - [`NewFolder`] and [`replace_folder`]: the same for a folder;
//! - [`FolderLock`]: at most one process writes results to a folder;
//! - names of files and folders that are not finished: they tell the process that writes them, so that a later process
//!   removes what a dead one left;
//! - [`abandon`]: removes what is not finished when a signal ends this process;
//! - [`Appended`]: a file that grows by whole records, such as a journal;
//! - [`PlaceKind`], [`open_regular`] and [`is_same_place`]: what a path leads to, whatever its name.
//!
//! ```
//! use causalcone_files::{FolderLock, write_whole};
//!
//! let directory = tempfile::tempdir()?;
//! let results = directory.path().join("results");
//! let lock = FolderLock::take(&results)?; // creates the folder
//! assert!(FolderLock::take(&results).is_err()); // somebody writes to it already
//! write_whole(results.join("cells.csv"), |w| w.write_all(b"layer,value\n0,0.5\n"))?;
//! drop(lock);
//! let names: Vec<_> = std::fs::read_dir(&results)?.map(|entry| entry.unwrap().file_name()).collect();
//! assert_eq!(names, ["cells.csv"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In builds with debug assertions each call that writes a result can be made to fail, so that tests can show what is
//! left then: see the module `fault` and its variable `CAUSALCONE_FAULT`.

mod append;
mod disk;
mod error;
#[doc(hidden)]
pub mod fault;
mod folder;
mod lock;
mod path;
mod place;
mod process;
mod temporary;
mod unfinished;
mod whole;

pub use append::Appended;
pub use disk::{create_folders, remove_file, remove_folder};
pub use error::{Error, Result};
pub use folder::{NewFolder, check_folder, replace_folder};
pub use lock::{FolderLock, LOCK_NAME};
pub use path::{IfExists, PlaceKind};
pub use place::{check_output, free_space, is_same_place, open_regular, stamp};
pub use unfinished::abandon;
pub use whole::{write_new, write_whole};
