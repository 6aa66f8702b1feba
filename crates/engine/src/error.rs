//! What can go wrong between an experiment and its results.

use causalcone_model::{LONGEST_MESSAGE, nearest, shortened};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most characters of the name of a part.
const LONGEST_PART: usize = 200;

/// The most examples that one message lists.
const LISTED: usize = 20;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an experiment was refused, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, a prompt or an address was refused.
    #[error(transparent)]
    Model(#[from] causalcone_model::Error),
    /// An experiment file cannot be read as one.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it and where.
        problem: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// A part of an experiment does not fit the rest or the model.
    #[error("{part}: {problem}")]
    Experiment {
        /// Which part: `edit "patch"`, `run "italy"`, `sweep`.
        part: String,
        /// What is wrong, and what would fit.
        problem: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// Positions `"all"` of an edit and of the run that its value comes from, which has another length.
    #[error("{part}: {problem}")]
    Unaligned {
        /// Which edit.
        part: String,
        /// Both lengths, and the tokens of both runs side by side.
        problem: String,
        /// What to write in an experiment file.
        hint: String,
    },
    /// A part of an experiment names something the model or a run does not have.
    #[error("{part}: {source}")]
    Part {
        /// Which part: `edit "patch"`.
        part: String,
        /// What is wrong with it.
        source: causalcone_model::Error,
    },
    /// Examples of a data set do not fit.
    #[error("{}", listed(refused))]
    Examples {
        /// Which, and why.
        refused: Vec<Refused>,
        /// What is wrong with the first, by itself.
        first: Option<Box<Error>>,
    },
    /// A journal or its folder cannot be used.
    #[error("{}: {problem}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A file of an output folder cannot be read.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file or folder could not be written, or another process writes it.
    #[error(transparent)]
    Write(#[from] causalcone_files::Error),
    /// A training went out of bounds.
    #[error("{what} is not finite at step {step}")]
    Diverged {
        /// The update, counted from 1, that could not be made or gone on from.
        step: usize,
        /// What: the loss, a gradient, or a rotation.
        what: &'static str,
    },
    /// Something that must be true of this library itself is not: a fault of its own, and none of the input.
    #[error("internal error: {problem}; please report this")]
    Internal {
        /// What was found.
        problem: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A tensor operation failed.
    #[error("the computation failed: {0}")]
    Kernel(#[from] candle_core::Error),
}

impl Error {
    /// What the user could do about it, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model(source) | Self::Part { source, .. } => source.hint(),
            Self::File { hint, .. } | Self::Experiment { hint, .. } | Self::Journal { hint, .. } => {
                hint.clone()
            }
            Self::Unaligned { hint, .. } => Some(hint.clone()),
            Self::Examples { refused, .. } => match refused.as_slice() {
                [one] => one.hint.clone(),
                _ => None,
            },
            Self::Write(source) => source.hint(),
            Self::Diverged { .. } => Some(
                "a lower learning_rate, or a warmup, keeps steps small; what was learned before stays".into(),
            ),
            _ => None,
        }
    }

    /// Whether the input was at fault (true) or the run failed (false).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Model(source) | Self::Part { source, .. } => source.is_bad_input(),
            // A disk that is full is no fault of the experiment.
            Self::Write(source) => source.is_bad_input(),
            Self::Examples { first: Some(first), .. } => first.is_bad_input(),
            Self::File { .. }
            | Self::Experiment { .. }
            | Self::Unaligned { .. }
            | Self::Examples { first: None, .. }
            | Self::Journal { .. }
            | Self::Io { .. } => true,
            Self::Internal { .. } | Self::Interrupted | Self::Kernel(_) | Self::Diverged { .. } => false,
        }
    }

    /// Whether the library itself is at fault.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Model(source) | Self::Part { source, .. } => source.is_internal(),
            other => matches!(other, Self::Internal { .. }),
        }
    }

    pub(crate) fn part(part: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::hinted(part, problem, None)
    }

    pub(crate) fn internal(problem: impl Into<String>) -> Self {
        Self::Internal { problem: problem.into() }
    }

    /// What is quoted in the part and the problem is as long as the file has it: shortened here, once for all.
    pub(crate) fn hinted(part: impl Into<String>, problem: impl Into<String>, hint: Option<String>) -> Self {
        Self::Experiment {
            part: short(part.into(), LONGEST_PART),
            problem: short(problem.into(), LONGEST_MESSAGE),
            hint: hint.map(|hint| short(hint, LONGEST_MESSAGE)),
        }
    }

    /// That positions `"all"` of two runs do not pair.
    pub(crate) fn unaligned(part: &str, problem: String, hint: &str) -> Self {
        let (part, problem) = (short(part.into(), LONGEST_PART), short(problem, LONGEST_MESSAGE));
        Self::Unaligned { part, problem, hint: hint.into() }
    }

    /// That there is nothing of that name. `problem` makes the message of the names there are, one after another.
    pub(crate) fn unknown<'a>(
        part: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
        problem: impl FnOnce(&str) -> String,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let hint = nearest(name, known.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
        Self::hinted(part, problem(&known.join(", ")), hint)
    }

    /// That something does not fit in the memory that was given; says how much would do.
    pub(crate) fn memory(part: impl Into<String>, what: &str, given: u64, needed: u64) -> Self {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let problem = format!("{} MiB is too little for {what}, which needs {} MiB", mib(given), mib(needed));
        Self::hinted(part, problem, Some(format!("give at least {}MB", needed.div_ceil(1_000_000))))
    }

    /// The same error of one example. What is no fault of the input is none of the example's either.
    pub(crate) fn in_example(origin: &Origin, error: Self) -> Self {
        if !error.is_bad_input() || matches!(error, Self::Examples { .. }) {
            return error;
        }
        Self::Examples { refused: vec![origin.refuse(&error)], first: Some(Box::new(error)) }
    }

    pub(crate) fn refused(refused: Refused) -> Self {
        Self::Examples { refused: vec![refused], first: None }
    }

    pub(crate) fn bos_of_ids(part: String) -> Self {
        Self::part(part, "bos is for prompts; ids are taken as they are")
    }

    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), doing, source }
    }
}

/// A text that is shortened where it is longer than that.
fn short(text: String, most: usize) -> String {
    match shortened(&text, most) {
        Cow::Borrowed(_) => text,
        Cow::Owned(short) => short,
    }
}

/// One a line.
fn listed(refused: &[Refused]) -> String {
    match refused {
        [one] => one.to_string(),
        several => {
            let lines: String = several.iter().take(LISTED).map(|refused| format!("\n  {refused}")).collect();
            let more = several.len().saturating_sub(LISTED);
            let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            format!("no example can be used:{lines}{more}")
        }
    }
}

/// Says which part of an experiment an error is about.
pub(crate) trait Within<T> {
    fn within(self, part: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Within<T> for Result<T, causalcone_model::Error> {
    fn within(self, part: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Part { part: part(), source })
    }
}

/// Which example of which data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Origin {
    /// Counted from 0; in a file, over the lines that are not blank.
    pub(crate) number: usize,
    /// The file, and the line counted from 1.
    pub(crate) line: Option<(Arc<str>, usize)>,
}

impl Origin {
    /// Says which example an error is about.
    pub(crate) fn refuse(&self, error: &Error) -> Refused {
        let (file, line) = self.line.clone().unzip();
        let problem = shortened(&error.to_string(), LONGEST_MESSAGE).into_owned();
        Refused { example: self.number, line, file, problem, hint: error.hint() }
    }
}

/// An example that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refused {
    /// Its number, counted from 0; in a file, over the lines that are not blank.
    pub example: usize,
    /// The line of the file, counted from 1.
    pub line: Option<usize>,
    /// The file.
    #[serde(skip)]
    pub file: Option<Arc<str>>,
    /// What is wrong, and what would fit.
    pub problem: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{file} line {line}: {}", self.problem),
            _ => write!(f, "example {}: {}", self.example, self.problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_library_is_no_bad_input() {
        let origin = Origin { number: 3, line: None };
        let model = causalcone_model::Error::Internal { problem: "a stage is missing".into() };
        let within = Error::Part { part: "edit 0".into(), source: model };
        for error in [Error::internal("a row is missing"), Error::in_example(&origin, within)] {
            assert!(error.is_internal() && !error.is_bad_input(), "{error}");
            assert!(error.to_string().ends_with("please report this"), "{error}");
        }
        let input = Error::in_example(&origin, Error::part("edit 0", "does not fit"));
        assert!(input.is_bad_input() && !input.is_internal());
    }
}
