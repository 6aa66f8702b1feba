//! Merges of a SentencePiece vocabulary: what its scores say in the order of which pairs become one.
//!
//! SentencePiece always merges the pair whose whole has the highest score. As a list of merges, which Hugging Face's
//! libraries make of such a model, that is every way in which a token is two others, by the score of the whole.

use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::HashMap;

/// Every pair of tokens that together are one, the best first: by the score of the whole, then longer halves first.
pub(super) fn merges(
    tokens: &[String],
    vocab: &HashMap<String, u32>,
    scores: &[f64],
) -> Vec<(String, String)> {
    // Whole, and how many bytes of it are the left half.
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let first = found.len();
        found.extend(token.char_indices().skip(1).map(|(at, _)| (id, at)).filter(|(_, at)| {
            let (left, right) = token.split_at(*at);
            vocab.contains_key(left) && vocab.contains_key(right)
        }));
        let ids = |(_, at): &(usize, usize)| {
            let (left, right) = token.split_at(*at);
            (vocab.get(left).copied(), vocab.get(right).copied())
        };
        found[first..].sort_by_key(ids);
    }
    let halves = |(id, at): (usize, usize)| tokens[id].split_at(at);
    found.sort_by(|a, b| {
        let lengths = |pair| {
            let (left, right) = halves(pair);
            Reverse((left.chars().count(), right.chars().count()))
        };
        scores[b.0].total_cmp(&scores[a.0]).then_with(|| lengths(*a).cmp(&lengths(*b)))
    });
    found.into_iter().map(halves).map(|(left, right)| (left.to_owned(), right.to_owned())).collect()
}

/// Spaces become `▁`, one more of which stands before each text where `prefix` says so.
pub(super) fn normalizer(prefix: bool) -> Value {
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    if !prefix {
        return spaces;
    }
    json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, spaces]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_with_the_highest_score_is_merged_first() {
        let tokens = ["a", "b", "ab", "aba", "ba"].map(String::from);
        let vocab = tokens.iter().cloned().zip(0..).collect();
        let found = merges(&tokens, &vocab, &[0.0, 0.0, -3.0, -1.0, -2.0]);
        // Of the two halves of "aba" the longer left one comes first.
        let expected = [("ab", "a"), ("a", "ba"), ("b", "a"), ("a", "b")];
        assert_eq!(found, expected.map(|(left, right)| (left.to_owned(), right.to_owned())));
    }
}
