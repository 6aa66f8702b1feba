//! Changes to trees and lists.

use super::Random;
use super::node::Node;
use super::words::{Words, change_text};

impl Node {
    fn part_mut(&mut self, random: &mut Random) -> &mut Self {
        let count = match self {
            Self::List(list) => list.len(),
            Self::Map(entries) => entries.len(),
            _ => 0,
        };
        if count == 0 || random.one_in(5) {
            return self;
        }
        let at = random.below(count);
        match self {
            Self::List(list) => list[at].part_mut(random),
            Self::Map(entries) => entries[at].1.part_mut(random),
            other => other,
        }
    }

    /// Changes one part.
    pub fn change(&mut self, words: &Words, random: &mut Random) {
        let part = self.part_mut(random);
        match random.below(10) {
            0 | 1 => *part = words.node(random),
            2 => *part = Self::List(vec![part.clone()]),
            3 => *part = Self::Map(vec![(words.word(random), part.clone())]),
            4 if random.one_in(8) => *part = nested(random),
            _ => part.change_here(words, random),
        }
    }

    fn change_here(&mut self, words: &Words, random: &mut Random) {
        match self {
            Self::Literal(literal) => change_literal(literal, words, random),
            Self::Text(text) => change_text(text, words, random),
            Self::List(list) => change_list(list, words, random, Words::node),
            Self::Map(entries) => {
                let at = random.below(entries.len());
                match random.below(3) {
                    0 if !entries.is_empty() => entries[at].0 = words.text(random),
                    1 if !entries.is_empty() => change_text(&mut entries[at].0, words, random),
                    _ => change_list(entries, words, random, |words, random| {
                        (words.word(random), words.node(random))
                    }),
                }
            }
        }
    }
}

/// Removes, repeats, swaps or inserts elements.
pub(super) fn change_list<T: Clone>(
    list: &mut Vec<T>,
    words: &Words,
    random: &mut Random,
    new: impl FnOnce(&Words, &mut Random) -> T,
) {
    let at = random.below(list.len() + 1);
    let other = random.below(list.len());
    match random.below(7) {
        0 | 1 if at < list.len() => drop(list.remove(at)),
        2 if at < list.len() => list.insert(other, list[at].clone()),
        3 if at < list.len() => list.swap(at, other),
        4 if at < list.len() => {
            // As much as fits into a file of some size.
            let most = if random.one_in(10) { 3000 } else { 20 };
            let copies = vec![list[at].clone(); random.size(most)];
            list.splice(at..at, copies);
        }
        5 => list.truncate(at),
        _ => list.insert(at, new(words, random)),
    }
}

/// Another number, near the old one or far away.
fn change_literal(literal: &mut String, words: &Words, random: &mut Random) {
    let number = literal.parse::<i128>().ok();
    *literal = match (number, random.below(8)) {
        (Some(n), 0) => (n + 1).to_string(),
        (Some(n), 1) => (n - 1).to_string(),
        (Some(n), 2) => (-n).to_string(),
        (Some(n), 3) => n.saturating_mul(2).to_string(),
        (Some(n), 4) => format!("{n}.0"),
        (None, 0 | 1) => format!("-{literal}"),
        (None, 2) => format!("{literal}e9"),
        _ => words.literal(random),
    };
}

/// Lists or maps in each other, deeper than any reader should follow.
fn nested(random: &mut Random) -> Node {
    let depth = random.size(20_000);
    let (open, close) = [("[", "]"), ("{\"a\":", "}")][random.below(2)];
    Node::Literal(format!("{}1{}", open.repeat(depth), close.repeat(depth)))
}
