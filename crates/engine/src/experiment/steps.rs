//! When an edit is made while a run grows.

use causalcone_model::{Indices, Positions};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::ops::RangeInclusive;

/// In which passes of a growing run an edit is made: the pass of the prompt, and decode steps, of which step k takes
/// in generated token k, counted from 0.
///
/// In experiment files: `"all"`, `"prompt"`, `"decode"`, `3`, `"3..10"`, `"3..=9"`, `"3.."`, `"..3"`.
///
/// ```
/// use causalcone_engine::generate::Steps;
/// let steps: Steps = serde_json::from_str("\"3..10\"")?;
/// assert!(steps.decode(3) && steps.decode(9) && !steps.decode(10) && !steps.prompt());
/// assert!(Steps::from(2..=4).decode(4));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steps {
    /// All of them.
    #[default]
    All,
    /// The prompt's alone.
    Prompt,
    /// All decode steps.
    Decode,
    /// Decode steps from the first number up to but not including the second, or to the end.
    Range(usize, Option<usize>),
}

impl Steps {
    /// Whether the pass of the prompt is among them.
    pub fn prompt(self) -> bool {
        matches!(self, Self::All | Self::Prompt)
    }

    /// Whether decode step k is among them.
    pub fn decode(self, k: usize) -> bool {
        match self {
            Self::All | Self::Decode => true,
            Self::Prompt => false,
            Self::Range(start, end) => start <= k && end.is_none_or(|end| k < end),
        }
    }

    /// Whether any decode step is.
    pub fn decodes(self) -> bool {
        self != Self::Prompt
    }
}

impl From<RangeInclusive<usize>> for Steps {
    fn from(range: RangeInclusive<usize>) -> Self {
        Self::Range(*range.start(), Some(range.end().saturating_add(1)))
    }
}

impl From<usize> for Steps {
    fn from(step: usize) -> Self {
        Self::from(step..=step)
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Prompt => f.write_str("prompt"),
            Self::Decode => f.write_str("decode"),
            Self::Range(start, Some(end)) => write!(f, "{start}..{end}"),
            Self::Range(start, None) => write!(f, "{start}.."),
        }
    }
}

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = Steps;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#""all", "prompt", "decode", a decode step or a range of them like "3..10""#)
            }
            fn visit_u64<E: de::Error>(self, step: u64) -> Result<Steps, E> {
                let step = usize::try_from(step).ok().filter(|step| *step < usize::MAX);
                let wrong = || E::invalid_value(de::Unexpected::Other("so large a step"), &self);
                step.map(Steps::from).ok_or_else(wrong)
            }
            fn visit_i64<E: de::Error>(self, step: i64) -> Result<Steps, E> {
                let why = || format!("step {step}: decode steps count from 0, and their end is not known");
                self.visit_u64(u64::try_from(step).map_err(|_| E::custom(why()))?)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Steps, E> {
                match text {
                    "all" => return Ok(Steps::All),
                    "prompt" => return Ok(Steps::Prompt),
                    "decode" => return Ok(Steps::Decode),
                    _ => {}
                }
                let range = || match text.parse::<Indices>().ok()? {
                    Indices::Range(start, end) => {
                        let end = end.map(usize::try_from).transpose().ok()?;
                        let start = usize::try_from(start).ok()?;
                        end.is_none_or(|end| start < end).then_some(Steps::Range(start, end))
                    }
                    Indices::All | Indices::List(_) => None,
                };
                range().ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// Whether positions written so are also those that a run grows by: a decode step sees its one position alone.
pub(crate) fn grows(positions: &Positions) -> bool {
    match positions {
        Positions::Last => true,
        Positions::Indices(Indices::All | Indices::Range(_, None)) => true,
        Positions::Indices(Indices::List(list)) => list.contains(&-1),
        Positions::Indices(Indices::Range(..)) | Positions::Token { .. } | Positions::Name(_) => false,
    }
}
