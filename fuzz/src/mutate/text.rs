//! Text formats without a tree: lines, and templates as tokens.

use super::change::change_list;
use super::words::{Words, change_text};
use super::{Node, Random};

/// Changes one line, or which lines there are. A line of JSON is changed as a tree.
pub(super) fn change_lines(data: &[u8], words: &Words, random: &mut Random) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = data.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.below(lines.len());
    match (random.below(4), Node::from_json(&lines[at])) {
        (0, _) => change_list(&mut lines, words, random, |words, random| words.text(random).into_bytes()),
        (_, Some(mut tree)) => {
            tree.change(words, random);
            lines[at] = tree.to_json();
        }
        (_, None) => {
            let mut line = String::from_utf8_lossy(&lines[at]).into_owned();
            change_text(&mut line, words, random);
            lines[at] = line.into_bytes();
        }
    }
    lines.join(&b'\n')
}

/// What templates are made of.
const PARTS: [&str; 40] = [
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-",
    "~",
    "+",
    "*",
    "**",
    "/",
    "//",
    "%",
    "|",
    ".",
    "[",
    "]",
    "(",
    ")",
    "for x in messages",
    "endfor",
    "if",
    "elif",
    "else",
    "endif",
    "set x =",
    "macro m(a)",
    "endmacro",
    "range(99999999)",
    "|replace('', x)",
    "|indent(99999)",
    "|tojson",
    "namespace(a=1)",
    "loop.index",
    "messages[-1]['content']",
    "\"%s\"|format(x)",
    "raise_exception('a')",
    "is defined",
    "x[::-1]",
];

/// Changes which tokens a template has.
pub(super) fn change_template(data: &[u8], words: &Words, random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(data);
    let mut tokens: Vec<String> = Vec::new();
    let mut last = None;
    for c in text.chars() {
        // Letters join, and so do the two characters that open and close.
        let kind = match c {
            c if c.is_alphanumeric() || c == '_' => 0,
            c if c.is_whitespace() => 1,
            '{' => 2,
            '}' => 3,
            _ => 4,
        };
        match tokens.last_mut() {
            Some(token) if last == Some(kind) && kind < 4 => token.push(c),
            _ => tokens.push(c.into()),
        }
        last = Some(kind);
    }
    let at = random.below(tokens.len());
    if !tokens.is_empty() && random.one_in(4) {
        change_text(&mut tokens[at], words, random);
    } else {
        change_list(&mut tokens, words, random, |words, random| match random.below(3) {
            0 => words.word(random),
            1 => words.literal(random),
            _ => random.pick(&PARTS).map_or(String::new(), ToString::to_string),
        });
    }
    tokens.concat().into_bytes()
}
