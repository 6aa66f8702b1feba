//! Texts as Python has them, for which templates are written.

/// A number with a fraction.
pub(super) fn float(number: f64) -> String {
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => text.to_lowercase(),
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
    }
}

/// What Python takes for space: four separators besides what Unicode says.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A text without what stands at its ends: space, or any of a set of letters.
pub(super) fn strip<'t>(text: &'t str, set: Option<&str>, left: bool, right: bool) -> &'t str {
    let is_off = |c: char| set.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(is_off) } else { text };
    if right { text.trim_end_matches(is_off) } else { text }
}

/// A text's lines, as Python's `splitlines` ends them.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let ends = |c: char| matches!(c, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let line = rest.find(ends).unwrap_or(rest.len());
        found.push(&rest[..line]);
        let behind = &rest[line..];
        rest = behind.strip_prefix("\r\n").unwrap_or_else(|| {
            let mut letters = behind.chars();
            letters.next();
            letters.as_str()
        });
    }
    found
}

/// Python's `json.dumps`.
pub(super) struct Json;

impl serde_json::ser::Formatter for Json {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
