//! Labels that show what is there: spaces in tokens, control and invisible characters, long texts cut short.
//!
//! What comes out is safe to print in a terminal and to put into XML: no escape sequence in a token survives.
//!
//! ```
//! use causalcone_report::text;
//!
//! assert_eq!(text::token(" new York\n"), "_new·York⏎");
//! assert_eq!(text::prose("a label\u{1b}[31m"), "a label\\x1b[31m");
//! assert_eq!(text::shorten("internationalisation", 12), "internation…");
//! ```

/// The text of a token: as [`prose`], and a leading space is `_`, other spaces are `·`.
#[must_use]
pub fn token(raw: &str) -> String {
    let mut shown = String::with_capacity(raw.len());
    for (index, c) in raw.char_indices() {
        match c {
            ' ' if index == 0 => shown.push('_'),
            ' ' => shown.push('·'),
            other => push_visible(&mut shown, other),
        }
    }
    shown
}

/// Ordinary text on one line: newline is `⏎`, tab `⇥`, other control and invisible characters are written as Rust
/// escapes.
#[must_use]
pub fn prose(raw: &str) -> String {
    let mut shown = String::with_capacity(raw.len());
    for c in raw.chars() {
        push_visible(&mut shown, c);
    }
    shown
}

/// The text if it has at most `most` characters, otherwise its beginning and an ellipsis, `most` characters together.
#[must_use]
pub fn shorten(text: &str, most: usize) -> String {
    cut(text, most as f64, |_| 1.0)
}

/// As [`shorten`], but counts columns of a terminal.
pub(crate) fn shorten_columns(text: &str, most: usize) -> String {
    cut(text, most as f64, |c| terminal_width(c) as f64)
}

/// As [`shorten`], but `most` is in pixels for a font of `size` pixels.
pub(crate) fn shorten_pixels(text: &str, most: f64, size: f64) -> String {
    cut(text, most, |c| advance(c) * size)
}

/// The text, or as much of its beginning as is `most` wide with an ellipsis; nothing if even that is too wide.
fn cut(text: &str, most: f64, width: impl Fn(char) -> f64) -> String {
    if text.chars().map(&width).sum::<f64>() <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = most - width('…');
    if left < 0.0 {
        return short;
    }
    for c in text.chars() {
        left -= width(c);
        if left < 0.0 {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// How many columns of a terminal a text takes.
pub(crate) fn terminal_columns(text: &str) -> usize {
    text.chars().map(terminal_width).sum()
}

/// How wide DejaVu Sans of `size` pixels draws a text: exact for ASCII, no more than this for the rest.
pub(crate) fn pixels(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

/// A value with four significant digits, for tooltips and legends.
pub(crate) fn number(value: f64) -> String {
    let scientific = format!("{value:.3e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..6) => {
            let decimals = usize::try_from(3 - exponent).unwrap_or(0);
            without_zeros(&format!("{value:.decimals$}")).to_owned()
        }
        _ => format!("{}e{exponent}", without_zeros(mantissa)),
    }
}

/// A decimal number without the zeros that end its fraction.
fn without_zeros(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

fn push_visible(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push('⏎'),
        '\t' => shown.push('⇥'),
        '\r' => shown.push_str("\\r"),
        c if c.is_control() => shown.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if is_invisible(c) => shown.extend(c.escape_unicode()),
        c => shown.push(c),
    }
}

/// Spaces that look like an ordinary one or like nothing, marks that reorder text, and what XML forbids.
fn is_invisible(c: char) -> bool {
    (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// How many columns of a terminal a character takes.
fn terminal_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{483}'..='\u{489}'
        | '\u{591}'..='\u{5bd}'
        | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{fe20}'..='\u{fe2f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{231a}'..='\u{231b}'
        | '\u{23e9}'..='\u{23f3}'
        | '\u{2614}'..='\u{2615}'
        | '\u{2648}'..='\u{2653}'
        | '\u{26a1}'
        | '\u{2705}'
        | '\u{2728}'
        | '\u{274c}'
        | '\u{2753}'..='\u{2757}'
        | '\u{2795}'..='\u{2797}'
        | '\u{2b50}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff01}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The advance width of a character of DejaVu Sans, in font sizes; beyond ASCII the widest of its kind.
fn advance(c: char) -> f64 {
    let code = usize::try_from(u32::from(c)).unwrap_or(0);
    match code.checked_sub(32).and_then(|index| ASCII_THOUSANDTHS.get(index)) {
        Some(width) => f64::from(*width) / 1000.0,
        // No more than these: labels must never run into each other, and room to spare does no harm.
        None => match code {
            _ if terminal_width(c) == 0 => 0.61, // a mark that the font lacks is drawn as a box
            0xb7 => 0.32,                        // · for a space
            0x2026 => 1.0,                       // … where a label is cut
            0x1c4..=0x1f3 => 1.43,               // letters that are two, such as Ǆ
            0..0x600 => 1.19,                    // Latin, Greek, Cyrillic
            _ => 1.74,
        },
    }
}

#[rustfmt::skip]
const ASCII_THOUSANDTHS: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636, 636, 636,
    636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863,
    748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838, 500, 500, 613, 635, 550, 635,
    615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634, 592, 818, 592, 592, 525, 636,
    337, 636, 838,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_show_their_spaces() {
        for (raw, shown) in [
            ("", ""),
            (" ", "_"),
            ("  ", "_·"),
            (" Rome", "_Rome"),
            ("New York ", "New·York·"),
            ("\n\n", "⏎⏎"),
            ("\t\r", "⇥\\r"),
            ("\0\u{1b}\u{7f}\u{9b}", "\\x00\\x1b\\x7f\\x9b"),
            ("a\u{202e}b\u{200b}\u{a0}\u{ffff}", "a\\u{202e}b\\u{200b}\\u{a0}\\u{ffff}"),
            ("é漢🙂", "é漢🙂"),
        ] {
            assert_eq!(token(raw), shown, "{raw:?}");
        }
    }

    #[test]
    fn prose_keeps_its_spaces() {
        assert_eq!(prose(" two words\n"), " two words⏎");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shorten("twelve chars", 12), "twelve chars");
        assert_eq!(shorten("thirteen char", 12), "thirteen ch…");
        assert_eq!(shorten("ab", 1), "…");
        assert_eq!(shorten("ab", 0), "");
        assert_eq!(shorten_columns("漢字漢字", 6), "漢字…");
        assert_eq!(shorten_pixels("iiiiiiiiii", 28.0, 10.0), "iiiiiiiiii");
        assert_eq!(shorten_pixels("WWWWWWWWWW", 28.0, 10.0), "W…");
    }

    #[test]
    fn numbers_have_four_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (0.123_456, "0.1235"),
            (-12.3456, "-12.35"),
            (99_999.9, "100000"),
            (123_456.7, "123457"),
            (1e6, "1e6"),
            (1.2345e-9, "1.235e-9"),
            (0.000_123_456, "0.0001235"),
            (1.0, "1"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_shown_moves_the_cursor(raw in any::<String>()) {
            for shown in [token(&raw), prose(&raw)] {
                prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)), "{shown:?}");
            }
        }

        #[test]
        fn what_is_cut_fits(raw in any::<String>(), most in 1..30_usize) {
            prop_assert!(shorten(&raw, most).chars().count() <= most);
            prop_assert!(terminal_columns(&shorten_columns(&raw, most)) <= most);
            prop_assert!(pixels(&shorten_pixels(&raw, most as f64, 10.0), 10.0) <= most as f64);
        }
    }
}
