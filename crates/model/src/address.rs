//! Addresses: which layers, heads, positions and dimensions of a site are meant.
//!
//! An address is written before any prompt is known ([`Target`]); [`Indices::resolve`] and the
//! engine turn it into plain indices, each checked against what the model and the run have.
//!
//! ```
//! use causalcone_model::{Last, Site, Target};
//!
//! let target: Target = Site::MlpOutput.layers(3..=5).at(Last);
//! assert_eq!(target.layers.as_ref().unwrap().resolve("layer", 12)?, [3, 4, 5]);
//! # Ok::<(), causalcone_model::Error>(())
//! ```

mod written;

use crate::site::Site;
use crate::{Error, Result};
use std::fmt;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive};

/// Which of a number of things: layers, heads, dimensions. Negative numbers count from the end.
///
/// In experiment files: `"all"`, `3`, `[0, 3]`, `"0..5"`, `"0..=5"`, `"2.."`, `-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Indices {
    /// All of them.
    All,
    /// These, in this order.
    List(Vec<i64>),
    /// From the first number up to but not including the second, or to the end.
    Range(i64, Option<i64>),
}

impl Indices {
    /// The indices this means among `len` things called `what`.
    ///
    /// ```
    /// use causalcone_model::Indices;
    /// assert_eq!(Indices::from(-1).resolve("layer", 12)?, [11]);
    /// let error = Indices::from(12).resolve("layer", 12).unwrap_err();
    /// assert_eq!(error.to_string(), "layer 12 is out of range: there are 12, numbered 0 to 11");
    /// # Ok::<(), causalcone_model::Error>(())
    /// ```
    ///
    /// # Errors
    /// When one is out of range or given twice, or none is left.
    pub fn resolve(&self, what: &'static str, len: usize) -> Result<Vec<usize>> {
        let found = self.resolve_any(what, len)?;
        let mut seen = std::collections::HashSet::with_capacity(found.len());
        match found.iter().find(|i| !seen.insert(**i)) {
            Some(twice) => Err(Error::address(what, twice, "is given twice")),
            None => Ok(found),
        }
    }

    /// [`Indices::resolve`] where one may be meant several times: what values are taken from.
    ///
    /// # Errors
    /// When one is out of range, or none is left.
    pub fn resolve_any(&self, what: &'static str, len: usize) -> Result<Vec<usize>> {
        let signed_len = i64::try_from(len).unwrap_or(i64::MAX);
        let found: Vec<i64> = match self {
            Self::All => (0..signed_len).collect(),
            Self::List(list) => list.iter().map(|&i| index(what, i, signed_len)).collect::<Result<_>>()?,
            Self::Range(start, end) => {
                let start = bound(what, *start, signed_len)?;
                let end = end.map_or(Ok(signed_len), |end| bound(what, end, signed_len))?;
                (start..end).collect()
            }
        };
        if found.is_empty() {
            return Err(Error::address(what, self, "names nothing: it is empty"));
        }
        Ok(found.into_iter().filter_map(|i| usize::try_from(i).ok()).collect())
    }

    /// Whether it counts from the end, so that it means another index in a run of another length.
    pub fn counts_from_end(&self) -> bool {
        match self {
            Self::All => false,
            Self::List(list) => list.iter().any(|i| *i < 0),
            Self::Range(start, end) => *start < 0 || end.is_some_and(|end| end < 0),
        }
    }
}

/// An index from either end.
fn index(what: &'static str, given: i64, len: i64) -> Result<i64> {
    let from_start = if given < 0 { given.saturating_add(len) } else { given };
    if (0..len).contains(&from_start) {
        return Ok(from_start);
    }
    let last = len - 1;
    Err(Error::address(what, &given, format!("is out of range: there are {len}, numbered 0 to {last}")))
}

/// The bound of a range, which may also be one past the last index.
fn bound(what: &'static str, given: i64, len: i64) -> Result<i64> {
    if given == len { Ok(len) } else { index(what, given, len) }
}

impl fmt::Display for Indices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::List(list) => match list.as_slice() {
                [one] => write!(f, "{one}"),
                _ => write!(f, "{list:?}"),
            },
            Self::Range(start, Some(end)) => write!(f, "{start}..{end}"),
            Self::Range(start, None) => write!(f, "{start}.."),
        }
    }
}

impl std::str::FromStr for Indices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = |t: &str| t.trim().parse::<i64>().ok();
        let parsed = || {
            let (start, end) = text.split_once("..")?;
            let start = if start.trim().is_empty() { 0 } else { number(start)? };
            let end = match end.strip_prefix('=') {
                // An inclusive range up to the last thing has no exclusive bound among negative numbers.
                Some(last) => match number(last)? {
                    -1 => None,
                    last => Some(last.checked_add(1)?),
                },
                None if end.trim().is_empty() => None,
                None => Some(number(end)?),
            };
            Some(Self::Range(start, end))
        };
        parsed().ok_or_else(|| unreadable(text, ""))
    }
}

/// That a text names no indices, nor anything else that fits, and what to write instead.
fn unreadable(text: &str, else_fits: &str) -> String {
    let problem = format!("{text:?} is neither \"all\" nor a range like \"0..5\" or \"0..=5\"{else_fits}");
    match meant(text) {
        Some(meant) => format!("{problem}; {meant}"),
        None => problem,
    }
}

/// What to write instead of what people write by habit.
fn meant(text: &str) -> Option<String> {
    let between = |(start, end): (&str, &str)| {
        let (start, end): (u32, u32) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
        Some(format!("write \"{start}..={end}\" for {start} to {end}"))
    };
    match text {
        "each" => Some("write \"all\" here, and \"each\" in [sweep]".into()),
        "end" | "final" => Some("write -1 for the last one".into()),
        "first" => Some("write 0 for the first".into()),
        _ => text.split_once('-').or_else(|| text.split_once(':')).and_then(between),
    }
}

impl From<RangeFull> for Indices {
    fn from(_: RangeFull) -> Self {
        Self::All
    }
}

macro_rules! indices_from {
    ($($int:ty),*) => {$(
        impl From<$int> for Indices {
            fn from(i: $int) -> Self {
                Self::List(vec![i64::try_from(i).unwrap_or(i64::MAX)])
            }
        }
    )*};
}
indices_from!(i32, i64, usize);

impl From<Vec<usize>> for Indices {
    fn from(list: Vec<usize>) -> Self {
        Self::List(list.into_iter().map(|i| i64::try_from(i).unwrap_or(i64::MAX)).collect())
    }
}

impl<const N: usize> From<[i64; N]> for Indices {
    fn from(list: [i64; N]) -> Self {
        Self::List(list.to_vec())
    }
}

impl From<Range<i64>> for Indices {
    fn from(range: Range<i64>) -> Self {
        Self::Range(range.start, Some(range.end))
    }
}

impl From<RangeInclusive<i64>> for Indices {
    fn from(range: RangeInclusive<i64>) -> Self {
        match *range.end() {
            -1 => Self::Range(*range.start(), None),
            end => Self::Range(*range.start(), Some(end.saturating_add(1))),
        }
    }
}

impl From<RangeFrom<i64>> for Indices {
    fn from(range: RangeFrom<i64>) -> Self {
        Self::Range(range.start, None)
    }
}

/// Which positions of a run.
///
/// In experiment files: `"all"`, `"last"`, an index, a list, a range, `{ token = " Spain" }`
/// with an optional `which = "first"` or `"last"`, or `{ name = "subject" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// The last one.
    Last,
    /// By number.
    Indices(Indices),
    /// The tokens a text consists of, which must stand once in the run.
    Token {
        /// The text.
        text: String,
        /// All of its tokens, or one end of it.
        which: Which,
    },
    /// Those that each example of a data set gives under this name.
    Name(String),
}

impl Positions {
    /// Those that each example of a data set gives under a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Name(name.into())
    }
}

/// Which tokens of a text that is several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// The first.
    First,
    /// The last.
    Last,
}

impl<T: Into<Indices>> From<T> for Positions {
    fn from(indices: T) -> Self {
        Self::Indices(indices.into())
    }
}

/// A site with the layers, positions, heads and dimensions that are meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The site.
    pub site: Site,
    /// Which blocks; `None` for sites outside the blocks.
    pub layers: Option<Indices>,
    /// Which positions; query rows where the site is an attention matrix.
    pub positions: Positions,
    /// Which heads, on sites that have them; `None` is all.
    pub heads: Option<Indices>,
    /// Which numbers of each vector (key columns of an attention matrix); `None` is all.
    pub dims: Option<Indices>,
}

impl From<Site> for Target {
    fn from(site: Site) -> Self {
        Self { site, layers: None, positions: Positions::Indices(Indices::All), heads: None, dims: None }
    }
}

impl Target {
    /// The same in these layers.
    #[must_use]
    pub fn layers(mut self, layers: impl Into<Indices>) -> Self {
        self.layers = Some(layers.into());
        self
    }

    /// The same at these positions.
    #[must_use]
    pub fn at(mut self, positions: impl Into<Positions>) -> Self {
        self.positions = positions.into();
        self
    }

    /// The same for these heads.
    #[must_use]
    pub fn heads(mut self, heads: impl Into<Indices>) -> Self {
        self.heads = Some(heads.into());
        self
    }

    /// The same for these dimensions.
    #[must_use]
    pub fn dims(mut self, dims: impl Into<Indices>) -> Self {
        self.dims = Some(dims.into());
        self
    }
}

impl Site {
    /// This site in these layers, at all positions.
    pub fn layers(self, layers: impl Into<Indices>) -> Target {
        Target::from(self).layers(layers)
    }

    /// This site at these positions; for sites outside the blocks.
    pub fn at(self, positions: impl Into<Positions>) -> Target {
        Target::from(self).at(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Positions {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_written_form_means_what_it_says() {
        for (json, len, expected) in [
            (r#""all""#, 3, vec![0, 1, 2]),
            ("2", 3, vec![2]),
            ("-1", 3, vec![2]),
            ("[2, 0, -2]", 3, vec![2, 0, 1]),
            (r#""0..2""#, 3, vec![0, 1]),
            (r#""0..=2""#, 3, vec![0, 1, 2]),
            (r#""1..""#, 3, vec![1, 2]),
            (r#""..2""#, 3, vec![0, 1]),
            (r#""-2..=-1""#, 3, vec![1, 2]),
            (r#""-3..-1""#, 3, vec![0, 1]),
        ] {
            let Positions::Indices(indices) = written(json) else { panic!("{json}") };
            assert_eq!(indices.resolve("position", len).unwrap(), expected, "{json}");
            let again: Indices = serde_json::from_str(&serde_json::to_string(&indices).unwrap()).unwrap();
            assert_eq!(again, indices, "{json}");
        }
    }

    #[test]
    fn a_name_stays_a_name() {
        let name = written(r#"{"name": "subject"}"#);
        assert_eq!(name, Positions::named("subject"));
        assert_eq!(serde_json::to_string(&name).unwrap(), r#"{"name":"subject"}"#);
        assert!(serde_json::from_str::<Indices>(r#"{"name": "subject"}"#).is_err());
    }

    #[test]
    fn out_of_range_empty_and_repeated_are_refused() {
        for json in ["3", "-4", "[]", "[1, 1]", "[1, -2]", r#""2..1""#, r#""0..4""#, r#""3..3""#] {
            let Positions::Indices(indices) = written(json) else { panic!("{json}") };
            assert!(indices.resolve("position", 3).is_err(), "{json}");
        }
        for json in [
            r#""first""#,
            "1.5",
            r#"{"tokens": "a"}"#,
            r#"{"token": "a", "which": "middle"}"#,
            r#"{"token": "a", "name": "b"}"#,
            r#"{"name": "b", "which": "last"}"#,
            r#"{"which": "last"}"#,
            "{}",
            "18446744073709551615",
        ] {
            assert!(serde_json::from_str::<Positions>(json).is_err(), "{json}");
        }
        assert!(serde_json::from_str::<Indices>(r#""last""#).is_err());
    }
}
