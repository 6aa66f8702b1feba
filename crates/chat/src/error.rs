//! What can go wrong with a chat template.

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a conversation cannot be written by a template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A template is broken, refuses a conversation, or exceeds its bounds; or there is none.
    #[error("chat template{}: {problem}", line.map_or_else(String::new, |line| format!(", line {line}")))]
    Template {
        /// The line of the template, counted from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong.
        problem: String,
    },
    /// This build cannot render templates.
    #[error("this build has no chat templates: build with the feature \"chat\"")]
    NotBuilt,
}

impl Error {
    pub(crate) fn template(line: Option<usize>, problem: impl Into<String>) -> Self {
        Self::Template { line, problem: problem.into() }
    }
}
