//! Labels of tokens that tell tokens of the same text apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Labels of the tokens that one figure or list shows: their texts, followed by the id where two tokens have the same
/// text. Tokens that are parts of one character have.
///
/// ```
/// use causalcone_engine::TokenLabels;
///
/// let labels = TokenLabels::new([7, 162, 120], |id| if id == 7 { "a".into() } else { "\u{fffd}".into() });
/// assert_eq!([7, 162, 120].map(|id| labels.get(id)), ["a", "\u{fffd} #162", "\u{fffd} #120"]);
/// assert_eq!(labels.get(3), "");
/// ```
#[derive(Debug, Clone, Default)]
pub struct TokenLabels(HashMap<u32, String>);

impl TokenLabels {
    /// Labels of these tokens; `text` gives the text of each, as it is shown.
    pub fn new(ids: impl IntoIterator<Item = u32>, text: impl Fn(u32) -> String) -> Self {
        let ids: BTreeSet<u32> = ids.into_iter().collect();
        Self::of_texts(&ids.into_iter().map(|id| (id, text(id))).collect())
    }

    pub(crate) fn of_texts(texts: &BTreeMap<u32, String>) -> Self {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for text in texts.values() {
            *counts.entry(text).or_default() += 1;
        }
        let label = |id: &u32, text: &String| match counts.get(text.as_str()) {
            Some(2..) => format!("{text} #{id}"),
            _ => text.clone(),
        };
        Self(texts.iter().map(|(id, text)| (*id, label(id, text))).collect())
    }

    /// The label of a token; empty for a token that the labels were not made for.
    pub fn get(&self, id: u32) -> &str {
        self.0.get(&id).map_or("", String::as_str)
    }
}

/// A token's text with a leading space as `_` and nothing a terminal would obey.
///
/// ```
/// assert_eq!(causalcone_engine::visible(" Madrid"), "_Madrid");
/// assert_eq!(causalcone_engine::visible("\u{1b}[2J"), "\\u{1b}[2J");
/// ```
pub fn visible(token: &str) -> String {
    let (mark, rest) = match token.strip_prefix(' ') {
        Some(rest) => ("_", rest),
        None => ("", token),
    };
    let shown =
        rest.chars().map(|c| if is_invisible(c) { c.escape_unicode().to_string() } else { c.to_string() });
    format!("{mark}{}", shown.collect::<String>())
}

/// Control characters, and those that are invisible or turn the direction of what follows.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
