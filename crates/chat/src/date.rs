//! The local time that chat templates read, and how Python writes it.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

/// A date of the years 1000 to 9999 and a time of day in whole seconds, without a time zone. Written as `2026-11-30`, or
/// with a time other than midnight as `2026-11-30T08:15:00`.
///
/// ```
/// use causalcone_chat::Date;
/// let date: Date = "2026-11-30T08:15:00".parse()?;
/// assert_eq!(date.strftime("%d %b %Y, %H:%M")?, "30 Nov 2026, 08:15");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date(NaiveDateTime);

impl Date {
    /// The local time.
    pub fn now() -> Self {
        let now = chrono::Local::now().naive_local();
        Self(now.with_nanosecond(0).unwrap_or(now))
    }

    /// The text that Python's `datetime.strftime` writes in the C locale of Linux. Supports the codes of Python's
    /// documentation, those that glibc adds (`%C %D %e %F %g %G %h %k %l %n %P %r %R %t %T %u %V`), and glibc's flags
    /// (`%-d`, `%_d`, `%0e`, `%^a`, `%#p`).
    ///
    /// # Errors
    /// With a sentence that names the code, for any other code.
    pub fn strftime(&self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut rest = format;
        while let Some((before, directive)) = rest.split_once('%') {
            text.push_str(before);
            let behind = directive.trim_start_matches(['-', '_', '0', '^', '#']);
            let flags = &directive[..directive.len() - behind.len()];
            let mut letters = behind.chars();
            let Some(code) = letters.next() else {
                // Python leaves an unfinished directive as it is.
                return Ok(text + &rest[before.len()..]);
            };
            text += &self.directive(flags, code).ok_or_else(|| {
                format!("strftime_now does not support \"%{flags}{code}\"; supported are Python's codes, such as %d %b %Y")
            })?;
            rest = letters.as_str();
        }
        Ok(text + rest)
    }

    /// What a directive stands for; none where it is not supported.
    fn directive(&self, flags: &str, code: char) -> Option<String> {
        let written = |padding: &str| self.0.format(&format!("%{padding}{code}")).to_string();
        let in_case = |is_upper: bool| if is_upper { written("").to_uppercase() } else { written("") };
        Some(match code {
            'C' | 'd' | 'e' | 'g' | 'G' | 'H' | 'I' | 'j' | 'k' | 'l' | 'm' | 'M' | 'S' | 'u' | 'U' | 'V'
            | 'w' | 'W' | 'y' | 'Y' => {
                written(flags.rfind(['-', '_', '0']).map_or("", |last| &flags[last..=last]))
            }
            'a' | 'A' | 'b' | 'B' | 'h' => in_case(flags.contains(['^', '#'])),
            'c' | 'D' | 'F' | 'r' | 'R' | 'T' | 'x' | 'X' => in_case(flags.contains('^')),
            'p' if flags.contains('#') => written("").to_lowercase(),
            'n' | 'p' | 'P' | 't' | '%' => written(""),
            // Python writes microseconds and time zones itself: it knows no flags there.
            'f' if flags.is_empty() => "000000".into(),
            // As transformers' clock, this one has no time zone.
            'z' | 'Z' if flags.is_empty() => String::new(),
            _ => return None,
        })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_midnight = self.0.time() == NaiveTime::MIN;
        self.0.format(if is_midnight { "%Y-%m-%d" } else { "%Y-%m-%dT%H:%M:%S" }).fmt(f)
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(NaiveTime::MIN));
        let date = day.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S")).map(Self);
        // The parser is lenient about signs, spaces and missing zeros.
        let is_exact = |date: &Self| {
            (1000..=9999).contains(&date.0.year()) && text.starts_with(&date.0.date().to_string())
        };
        date.ok().filter(is_exact).ok_or_else(|| {
            let given: String = text.chars().take(40).collect();
            format!("\"{given}\" is not a date: write YYYY-MM-DD or YYYY-MM-DDThh:mm:ss")
        })
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

/// Where chat templates take the date from: a given one, or the local time when the first template asks. All templates
/// that share a clock see the same date. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    given: Option<Date>,
    read: Arc<OnceLock<Date>>,
}

impl Clock {
    /// A clock that stands at this date; the local time where there is none.
    pub fn new(given: Option<Date>) -> Self {
        Self { given, read: Arc::default() }
    }

    /// The date that templates have seen; none where no template has asked.
    pub fn seen(&self) -> Option<Date> {
        self.read.get().copied()
    }

    /// The date that all templates of this clock see from now on.
    pub fn read(&self) -> Date {
        *self.read.get_or_init(|| self.given.unwrap_or_else(Date::now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Python's texts, with every code and flag, on dates at the ends of years, weeks and half days.
    #[test]
    fn dates_are_written_as_python_writes_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/strftime.json");
        let all: BTreeMap<Date, BTreeMap<String, String>> =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(all.len() > 10);
        for (date, texts) in &all {
            assert_eq!(date.to_string().parse(), Ok(*date));
            for (format, expected) in texts {
                assert_eq!(date.strftime(format).as_ref(), Ok(expected), "{format} of {date}");
            }
        }
    }

    #[test]
    fn what_is_no_code_is_named() {
        let date: Date = "2026-11-30".parse().unwrap();
        for (format, named) in [
            ("%Q", "%Q"),
            ("%s", "%s"),
            ("%Ey", "%E"),
            ("%-f", "%-f"),
            ("%é", "%é"),
            ("%_+", "%_+"),
            ("%5d", "%5"),
        ] {
            let problem = date.strftime(&format!("%d {format}")).unwrap_err();
            assert!(problem.contains(&format!("\"{named}\"")), "{problem}");
        }
        assert_eq!(date.strftime("%d%"), Ok("30%".into()));
        assert_eq!(date.strftime("%d%-"), Ok("30%-".into()));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "today",
            "2026-13-01",
            "2026-1-1",
            "0999-01-01",
            "2026-11-30T24:00:00",
            "2026-11-30T10:00",
            " 2026-11-30",
            "+2026-11-30",
            "2026-11-30T10:00:00Z",
            "12026-11-30",
        ] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_clock_is_read_once() {
        let clock = Clock::default();
        assert_eq!(clock.seen(), None);
        let first = clock.clone().read();
        assert_eq!((clock.seen(), clock.read()), (Some(first), first));
        let date = "2001-02-03".parse().unwrap();
        assert_eq!(Clock::new(Some(date)).read(), date);
    }
}
