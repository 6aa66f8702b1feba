//! The vocabulary that mutators write: words of a format's own, and scalars that readers often get wrong.

use super::Random;
use super::node::Node;
use std::collections::BTreeSet;

/// The longest word that is kept.
const LONGEST: usize = 60;

/// Numbers and other literals, as text formats write them.
const LITERALS: [&str; 40] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "4",
    "7",
    "31",
    "32",
    "33",
    "64",
    "255",
    "256",
    "1000",
    "65535",
    "65536",
    "1000000",
    "50000000",
    "2147483647",
    "2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "-0.0",
    "1e-320",
    "1e308",
    "1e999",
    "3.0",
    "nan",
    "-inf",
    "NaN",
    "true",
    "false",
    "null",
];

/// Texts that are unusual in some way: empty, control characters, paths, ranges, templates, bytes.
const TEXTS: [&str; 26] = [
    "",
    " ",
    "\0",
    "\u{feff}",
    "\u{85}",
    "\r\n",
    "\u{301}\u{301}",
    "\u{202e}x",
    "𝕏",
    "é",
    "../../etc/passwd",
    "/dev/zero",
    "/dev/null",
    ".",
    "..",
    "0-",
    "-1",
    ":",
    "1:0",
    "<0xZZ>",
    "<0xFF>",
    "{{ x }}",
    "{% for",
    "}}",
    "\\",
    "\"",
];

/// Words and subtrees of the seeds of a target, and words of its documentation.
#[derive(Debug, Default)]
pub struct Words {
    words: Vec<String>,
    donors: Vec<Node>,
}

impl Words {
    /// Collects the words of `texts`, and the parts of `trees`, which are later put into other trees.
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = &'a [u8]>, trees: Vec<Node>) -> Self {
        let mut words = BTreeSet::new();
        for text in texts {
            let is_inside = |b: &u8| b.is_ascii_alphanumeric() || b"_.-<>|@/".contains(b);
            for word in text.split(|b| !is_inside(b)) {
                if let (1..=LONGEST, Ok(word)) = (word.len(), std::str::from_utf8(word)) {
                    words.insert(word.to_owned());
                }
            }
        }
        Self { words: words.into_iter().collect(), donors: trees }
    }

    /// A word of the format, or now and then an unusual text.
    pub(super) fn text(&self, random: &mut Random) -> String {
        match random.below(10) {
            0 => random.pick(&TEXTS).map_or(String::new(), ToString::to_string),
            1 => {
                const UNITS: [&str; 8] = ["a", "\u{301}", "[", " ", "é", "0", "\0", "a "];
                let unit = UNITS[random.below(UNITS.len())];
                let most = if random.one_in(10) { 100_000 } else { 300 };
                unit.repeat(random.size(most))
            }
            _ => self.word(random),
        }
    }

    /// A word of the format.
    pub(super) fn word(&self, random: &mut Random) -> String {
        random.pick(&self.words).cloned().unwrap_or_else(|| "a".into())
    }

    /// A number, or another literal.
    pub(super) fn literal(&self, random: &mut Random) -> String {
        random.pick(&LITERALS).map_or(String::new(), ToString::to_string)
    }

    /// A scalar, or a part of another seed.
    pub(super) fn node(&self, random: &mut Random) -> Node {
        match random.below(6) {
            0 | 1 => Node::Literal(self.literal(random)),
            2 | 3 => Node::Text(self.text(random)),
            4 => random.pick(&self.donors).map_or(Node::List(Vec::new()), |tree| tree.part(random).clone()),
            _ => [Node::List(Vec::new()), Node::Map(Vec::new())][random.below(2)].clone(),
        }
    }
}

/// Changes a text a little: characters are removed, repeated or inserted.
pub(super) fn change_text(text: &mut String, words: &Words, random: &mut Random) {
    let mut letters: Vec<char> = text.chars().collect();
    let at = random.below(letters.len() + 1);
    match random.below(5) {
        0 if at < letters.len() => drop(letters.remove(at)),
        1 if at < letters.len() => {
            let part = letters[at..].iter().take(random.size(20)).copied().collect::<Vec<_>>();
            letters.splice(at..at, part.iter().copied().cycle().take(part.len() * random.size(40)));
        }
        2 => letters.truncate(at),
        3 => drop(letters.splice(at..at, words.text(random).chars())),
        _ => letters = words.text(random).chars().collect(),
    }
    *text = letters.into_iter().collect();
}
