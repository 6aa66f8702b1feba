//! SentencePiece's BPE, `tokenizer.ggml.model = "llama"`.
//!
//! Such a file has pieces with scores; of two neighbours that are a piece together, those with the
//! best score are joined first. Hugging Face makes a BPE with merges of it, and the merges are what
//! decides where scores are equal; so the same is done here. A space is `▁` in pieces, and what no
//! piece spells is spelled in bytes, `<0x0A>`.

use super::{Ends, Keys, Kind};
use crate::Result;
use crate::file::gguf::Value;
use crate::tokenizer::recipe::{Flags, MAX_MERGES};
use crate::tokenizer::{Added, Recipe, Spelling};
use serde_json::json;
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use tokenizers::AddedToken;

/// The space as pieces have it.
const SPACE: &str = "▁";
/// Looking a piece's parts up takes the square of its length. The largest vocabulary in use,
/// Gemma's, takes about a third of this.
const MAX_SQUARES: usize = 1 << 26;
/// Text of all merges together; Gemma's has some 5 MB.
const MAX_MERGE_TEXT: usize = 24 << 20;
/// What llama.cpp takes where the file is silent.
const DEFAULTS: Ends = Ends { bos: Some(1), eos: Some(2), adds_bos: true };

/// What the tokenizer consists of.
pub(super) fn recipe(keys: &mut Keys<'_>) -> Result<Recipe> {
    if let Some(other) = keys.text("ggml.pre")?.filter(|pre| *pre != "default") {
        return Err(keys.unsupported("pre-tokenizer (tokenizer.ggml.pre)", other, "default"));
    }
    let tokens = keys.tokens()?;
    let scores = scores(keys, &tokens)?;
    let pieces = tokens.iter().map(|(text, kind)| piece(keys, text, *kind)).collect::<Result<Vec<_>>>()?;
    let vocab = keys.vocabulary(pieces.iter().map(AsRef::as_ref))?;
    check_bytes(keys, &tokens, &vocab)?;
    let unknown = match keys.id("ggml.unknown_token_id")? {
        Some(id) => Some(pieces.get(id as usize).ok_or_else(|| {
            let problem = format!("id {id} is outside the vocabulary of {} tokens", pieces.len());
            keys.bad("ggml.unknown_token_id", problem)
        })?),
        None => tokens.iter().position(|(_, kind)| *kind == Kind::Unknown).map(|id| &pieces[id]),
    };
    let flags = Flags {
        unknown: unknown.map(|text| text.clone().into_owned()),
        fuse_unknown: true,
        byte_fallback: true,
        ignore_merges: false,
    };
    let merges = match keys.merges()? {
        // Some converters copy those of tokenizer.json.
        Some(merges) => merges,
        None => {
            merges(&pieces, &tokens, &scores, &vocab).map_err(|problem| keys.bad("ggml.tokens", problem))?
        }
    };
    let added = (0u32..).zip(pieces.iter().zip(&tokens)).filter_map(|(id, (text, (_, kind)))| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            _ => return None,
        };
        let token = AddedToken::from(text.as_ref(), special).normalized(false);
        Some(Added { id, token: token.rstrip(keys.architecture == "phi3" && takes_spaces(text)) })
    });
    let added = added.collect();
    // A prefix makes a text's first word like any other: Rome and " Rome" are the same piece.
    let prefix = keys.flag("ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let normalizer = if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    };
    let ends = keys.ends(DEFAULTS)?;
    Ok(Recipe {
        spelling: Spelling::Metaspace,
        vocab,
        merges,
        added,
        normalizer,
        // Gemma's tokenizer.json splits at spaces, but when it does there are none left.
        pre_tokenizer: serde_json::Value::Null,
        flags,
        bos: ends.bos,
        eos: ends.eos,
        adds_bos: ends.adds_bos,
    })
}

/// Whether a special token of Phi-3 swallows the white space after it, which no key says.
fn takes_spaces(token: &str) -> bool {
    !["<unk>", "<s>", "<|endoftext|>"].contains(&token)
}

/// A token as tokenizer.json writes it: in GGUF, user-defined ones have plain spaces.
fn piece<'a>(keys: &Keys<'_>, text: &'a str, kind: Kind) -> Result<Cow<'a, str>> {
    let spaces = text.matches(' ').count();
    if kind != Kind::UserDefined || spaces == 0 {
        return Ok(text.into());
    }
    if spaces < text.len() {
        // Gemma's are nothing but spaces; of others nobody knows which space was meant.
        let problem =
            format!("{text:?} is user-defined and has spaces within, which may stand for \"▁\" or not");
        return Err(keys.bad("ggml.tokens", problem));
    }
    Ok(SPACE.repeat(spaces).into())
}

/// The scores of the pieces. Only normal pieces have one of their own: to the others SentencePiece
/// gives 0, and llama.cpp's converter a large negative number.
fn scores(keys: &mut Keys<'_>, tokens: &[(&str, Kind)]) -> Result<Vec<f64>> {
    const KEY: &str = "ggml.scores";
    let scores = match keys.take(KEY) {
        Some(Value::Floats(scores)) if scores.len() == tokens.len() => scores,
        Some(_) => return Err(keys.bad(KEY, "is not one number with a fraction a token")),
        None => return Err(keys.bad(KEY, "is missing; without it the order of merges is unknown")),
    };
    if let Some((id, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
        return Err(keys.bad(KEY, format!("that of id {id} is {score}")));
    }
    let score = |(score, (_, kind)): (&f64, &(&str, Kind))| if *kind == Kind::Normal { *score } else { 0.0 };
    Ok(scores.iter().zip(tokens).map(score).collect())
}

/// A character no piece spells becomes bytes, so all of them must be there, or none.
fn check_bytes(keys: &Keys<'_>, tokens: &[(&str, Kind)], vocab: &HashMap<String, u32>) -> Result<()> {
    let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut typed = tokens.iter().filter(|(_, kind)| *kind == Kind::Byte).map(|(text, _)| text);
    if let Some(odd) = typed.find(|text| !bytes.iter().any(|byte| byte == *text)) {
        return Err(keys
            .bad("ggml.tokens", format!("{odd:?} is a byte by its type, but not \"<0x00>\" to \"<0xFF>\"")));
    }
    match bytes.iter().filter(|byte| vocab.contains_key(*byte)).count() {
        0 | 256 => Ok(()),
        some => Err(keys.bad("ggml.tokens", format!("has {some} of the 256 bytes"))),
    }
}

/// A piece and where it is cut in two.
struct Cut {
    piece: usize,
    left: u32,
    right: u32,
    /// Characters on both sides.
    lengths: (usize, usize),
    /// Bytes on the left.
    at: usize,
}

/// All ways to make a piece of two others, in the order of transformers 4.57: by score, the best
/// first; then the longer left part first, the longer right part; then by the ids of the piece and
/// of its parts.
fn merges(
    pieces: &[Cow<'_, str>],
    tokens: &[(&str, Kind)],
    scores: &[f64],
    vocab: &HashMap<String, u32>,
) -> Result<Vec<(String, String)>, String> {
    // What fills a vocabulary up to a round size is no piece.
    let real = || pieces.iter().enumerate().filter(|(id, _)| tokens[*id].1 != Kind::Unused);
    if real().map(|(_, piece)| piece.len().saturating_pow(2)).fold(0, usize::saturating_add) > MAX_SQUARES {
        return Err("they are too long to look for merges".into());
    }
    let (mut cuts, mut text) = (Vec::new(), 0usize);
    for (id, piece) in real() {
        let length = piece.chars().count();
        for (count, (at, _)) in piece.char_indices().enumerate().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&left), Some(&right)) = (vocab.get(left), vocab.get(right)) {
                cuts.push(Cut { piece: id, left, right, lengths: (count, length - count), at });
                text += piece.len();
            }
        }
        if cuts.len() > MAX_MERGES || text > MAX_MERGE_TEXT {
            return Err("they can be made of each other in too many ways".into());
        }
    }
    cuts.sort_by(|a, b| {
        let order = |cut: &Cut| (Reverse(cut.lengths), cut.piece, cut.left, cut.right);
        // Scores are finite, so adding zero makes the two zeros one.
        let score = |cut: &Cut| scores[cut.piece] + 0.0;
        score(b).total_cmp(&score(a)).then_with(|| order(a).cmp(&order(b)))
    });
    let halves = |cut: Cut| {
        let (left, right) = pieces[cut.piece].split_at(cut.at);
        (left.to_owned(), right.to_owned())
    };
    Ok(cuts.into_iter().map(halves).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{DataFile, gguf};
    use std::path::Path;

    /// Ids alone would not tell: the order among equal scores matters in few words of one letter.
    #[test]
    fn merges_are_those_of_transformers_in_its_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizers");
        for name in ["llama-2", "llama-2-unprefixed", "gemma", "phi-3"] {
            let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let mut expected: Vec<(String, String)> =
                serde_json::from_value(json["model"]["merges"].clone()).unwrap();
            // Gemma's converter takes the tab for a piece, for the sake of runs that are added tokens anyway.
            expected.retain(|(left, _)| left != "\t");
            let path = folder.join(format!("{name}.gguf"));
            let header = gguf::read(&DataFile::open(&path).unwrap()).unwrap();
            let recipe = recipe(&mut Keys::new(&path, &header.metadata)).unwrap();
            assert!(expected.len() > 200, "{name}: {}", expected.len());
            let differ = recipe.merges.iter().zip(&expected).position(|(found, expected)| found != expected);
            assert_eq!((recipe.merges.len(), differ), (expected.len(), None), "{name}");
        }
    }
}
