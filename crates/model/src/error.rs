//! What can go wrong below the engine, as types: what was given, what would fit, and a hint.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model, a file, a prompt or an address was refused.
///
/// ```
/// use causalcone_model::{Error, Model};
/// let error = Model::load("no/such.gguf").unwrap_err();
/// assert!(matches!(error, Error::ModelNotFound { .. }));
/// assert!(error.hint().is_some());
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is broken, contradictory, or not what it should be.
    #[error("{}: {field}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Which key, tensor or part of it.
        field: String,
        /// What is wrong, and what would fit.
        problem: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done: "read", "create" …
        doing: &'static str,
        /// Its reason.
        source: std::io::Error,
    },
    /// A file or folder is not of the right kind, or could not be written.
    #[error(transparent)]
    Write(#[from] causalcone_files::Error),
    /// A file is whole, but says something this version cannot do exactly.
    #[error("{}: {what} \"{given}\" is not supported; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What kind of thing: "architecture", "pre-tokenizer" …
        what: &'static str,
        /// What the file asks for.
        given: String,
        /// What would work.
        supported: String,
    },
    /// A configuration has keys that this version does not know and that may change what the model computes.
    #[error("{}: unknown configuration keys that may change the answers: {}", path.display(), first_few(keys, 24))]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// All of them, as `name = value`.
        keys: Vec<String>,
    },
    /// A file or folder is something else than a model that can be loaded.
    #[error("{}: this is {what}", path.display())]
    Recognised {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do.
        hint: String,
    },
    /// No model of that name was found.
    #[error("no model \"{given}\": {tried}")]
    ModelNotFound {
        /// The name or path given.
        given: String,
        /// Where was looked.
        tried: String,
        /// What to do.
        hint: String,
    },
    /// A model could not be fetched.
    #[error("cannot fetch {what}: {problem}")]
    Fetch {
        /// The model.
        what: String,
        /// What went wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A text that must be one token is not.
    #[error("{:?} is {} tokens, not one: {}", shortened(text, 120), pieces.len(), quoted(pieces))]
    NotOneToken {
        /// The text.
        text: String,
        /// The tokens it splits into.
        pieces: Vec<String>,
    },
    /// Text was given to a model that came without a tokenizer.
    #[error("{}, so {:?} cannot be turned into token ids", why.as_deref().unwrap_or("this model has no tokenizer"), shortened(given, 120))]
    NoTokenizer {
        /// The text.
        given: String,
        /// Why the tokenizer that is there cannot be used.
        why: Option<String>,
    },
    /// A part of a model that only some commands need cannot be used.
    #[error("{problem}")]
    Part {
        /// Which part, and what is wrong with it.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer cannot handle {:?}: {problem}", shortened(given, 120))]
    Tokenize {
        /// The start of the text.
        given: String,
        /// Why.
        problem: String,
    },
    /// A chat template that is broken, refuses a conversation, or exceeds its bounds; or a model without one.
    #[error(transparent)]
    Template(#[from] causalcone_chat::Error),
    /// A prompt the model cannot run.
    #[error("{problem}")]
    Prompt {
        /// What is wrong and what would fit.
        problem: String,
    },
    /// A site, layer, head, position or dimension the model does not have.
    #[error("{what} {given} {problem}")]
    Address {
        /// "site", "layer", "head", "position", "dimension".
        what: &'static str,
        /// What was given.
        given: String,
        /// What is wrong and what would fit.
        problem: String,
        /// A likely intention.
        hint: Option<String>,
    },
    /// Weights that do not fit in the memory that is free, or a size of memory that is none.
    #[error("{problem}")]
    Memory {
        /// What was needed and what is free.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// Something that must be true of this library itself is not.
    #[error("internal error: {problem}; please report this")]
    Internal {
        /// What was found.
        problem: String,
    },
    /// The caller's progress callback asked to stop.
    #[error("interrupted")]
    Cancelled,
    /// A tensor operation failed.
    #[error("the computation failed: {0}")]
    Kernel(#[from] candle_core::Error),
}

impl Error {
    /// What the user could do about it, if there is something to say beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ModelNotFound { hint, .. }
            | Self::Fetch { hint, .. }
            | Self::Memory { hint, .. }
            | Self::Recognised { hint, .. } => Some(hint.clone()),
            Self::UnknownKeys { keys, .. } => {
                let name = |key: &String| key.split(" = ").next().unwrap_or(key).to_owned();
                let names: Vec<String> = keys.iter().map(name).collect();
                let flags: Vec<String> = names.iter().map(|name| format!("--ignore-key {name}")).collect();
                Some(format!(
                    "if you know that they change nothing: {} (in an experiment file: model_options = {{ ignore_keys = {names:?} }})",
                    flags.join(" ")
                ))
            }
            Self::Part { hint, .. } => Some(hint.clone()),
            Self::Write(source) => source.hint(),
            Self::Address { hint, .. } => hint.clone(),
            Self::NotOneToken { text, .. } if !text.starts_with(' ') => {
                let spaced = format!(" {}", shortened(text, 120));
                Some(format!("words inside a text usually start with a space: {spaced:?}"))
            }
            Self::NoTokenizer { .. } => {
                Some("token ids work without one: ids = [1, 2, 3], or --ids 1,2,3".into())
            }
            _ => None,
        }
    }

    /// Whether the input was at fault (true) or the run failed (false).
    pub fn is_bad_input(&self) -> bool {
        match self {
            Self::Write(source) => source.is_bad_input(),
            Self::File { .. }
            | Self::Io { .. }
            | Self::Unsupported { .. }
            | Self::UnknownKeys { .. }
            | Self::Recognised { .. }
            | Self::ModelNotFound { .. }
            | Self::Fetch { .. }
            | Self::NotOneToken { .. }
            | Self::NoTokenizer { .. }
            | Self::Part { .. }
            | Self::Tokenize { .. }
            | Self::Template(_)
            | Self::Prompt { .. }
            | Self::Address { .. }
            | Self::Memory { .. } => true,
            Self::Internal { .. } | Self::Kernel(_) | Self::Cancelled => false,
        }
    }

    /// Whether the library itself is at fault.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Internal { .. })
    }

    pub(crate) fn file(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            field: printable(&field.into(), 120),
            problem: printable(&problem.into(), 600),
        }
    }

    pub(crate) fn unsupported(
        path: &Path,
        what: &'static str,
        given: &str,
        supported: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            path: path.into(),
            what,
            given: printable(given, 120),
            supported: supported.into(),
        }
    }

    pub(crate) fn recognised(path: &Path, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Recognised {
            path: path.into(),
            what: printable(&what.into(), 600),
            hint: printable(&hint.into(), 600),
        }
    }

    pub(crate) fn io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), doing, source }
    }

    pub(crate) fn address(what: &'static str, given: &impl ToString, problem: impl Into<String>) -> Self {
        Self::Address {
            what,
            given: printable(&given.to_string(), 120),
            problem: printable(&problem.into(), 600),
            hint: None,
        }
    }
}

/// The start of a text from a file, without characters that would steer a terminal.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n == most => {
                out.push('…');
                break;
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// The most characters of a message. What is quoted in one comes from files and may have any length.
pub const LONGEST_MESSAGE: usize = 2000;

/// A text of at most about so many characters: of a longer one the beginning and the end, with the number of characters
/// between them that are left out.
///
/// ```
/// use causalcone_model::shortened;
/// assert_eq!(shortened("short", 10), "short");
/// assert_eq!(shortened(&"long ".repeat(8), 20), "long long … [20 characters left out] … long long ");
/// ```
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    // A text has at least as many bytes as characters.
    let count = if text.len() <= most { 0 } else { text.chars().count() };
    if count <= most {
        return Cow::Borrowed(text);
    }
    let half = most / 2;
    let at = |character: usize| text.char_indices().nth(character).map_or(text.len(), |(byte, _)| byte);
    let (start, end) = (&text[..at(half)], &text[at(count - half)..]);
    Cow::Owned(format!("{start}… [{} characters left out] … {end}", count - 2 * half))
}

/// The first few of some texts, with the number of the others.
pub(crate) fn first_few(texts: &[String], most: usize) -> String {
    let shown = texts.get(..most).unwrap_or(texts);
    let more = if texts.len() > most { format!(" and {} more", texts.len() - most) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// `"a", "b"`: the pieces of a text, quoted so that spaces show.
fn quoted(pieces: &[String]) -> String {
    let shown: Vec<String> = pieces.iter().map(|piece| format!("{:?}", shortened(piece, 40))).collect();
    first_few(&shown, 24)
}

/// The known word nearest to `given`, if one is near enough to be meant.
///
/// ```
/// assert_eq!(causalcone_model::nearest("mlp_ouput", ["mlp_input", "mlp_output"]), Some("mlp_output"));
/// assert_eq!(causalcone_model::nearest("zebra", ["mlp_input", "mlp_output"]), None);
/// ```
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(given, word), word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
