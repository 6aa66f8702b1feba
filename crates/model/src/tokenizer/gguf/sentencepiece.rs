//! SentencePiece's BPE, `tokenizer.ggml.model = "llama"`.
//!
//! Such a file has the pieces, scores and kinds of a tokenizer.model, as llama.cpp's converter writes them:
//! [`pieces`](crate::tokenizer::pieces) makes merges of them.

use super::keys::Keys;
use crate::Result;
use crate::file::gguf::Value;
use crate::tokenizer::pieces::{self, Piece, PieceKind, SPACE};
use crate::tokenizer::recipe::{Ends, Recipe};
use std::borrow::Cow;

/// What llama.cpp takes where the file is silent.
const DEFAULTS: Ends = Ends { bos: Some(1), eos: Some(2), adds_bos: true };

/// What the tokenizer consists of.
pub(super) fn recipe(keys: &mut Keys<'_>) -> Result<Recipe> {
    if let Some(other) = keys.text("ggml.pre")?.filter(|pre| *pre != "default") {
        return Err(keys.unsupported("pre-tokenizer (tokenizer.ggml.pre)", other, "default"));
    }
    let tokens = keys.tokens()?;
    let scores = scores(keys, &tokens)?;
    let pieces = tokens
        .iter()
        .zip(scores)
        .map(|((text, kind), score)| Ok(Piece { text: piece(keys, text, *kind)?, kind: *kind, score }));
    let pieces = pieces.collect::<Result<Vec<_>>>()?;
    let vocab = keys.vocabulary(pieces.iter().map(|piece| piece.text.as_ref()))?;
    let bad = |keys: &Keys<'_>, problem: String| keys.bad("ggml.tokens", problem);
    pieces::check_bytes(&pieces, &vocab).map_err(|problem| bad(keys, problem))?;
    let unknown = match keys.id("ggml.unknown_token_id")? {
        Some(id) => Some(pieces.get(id as usize).ok_or_else(|| {
            let problem = format!("id {id} is outside the vocabulary of {} tokens", pieces.len());
            keys.bad("ggml.unknown_token_id", problem)
        })?),
        None => pieces.iter().find(|piece| piece.kind == PieceKind::Unknown),
    };
    let merges = match keys.merges()? {
        // Some converters copy those of tokenizer.json.
        Some(merges) => merges,
        None => pieces::merges(&pieces, &vocab).map_err(|problem| bad(keys, problem))?,
    };
    let mut recipe =
        pieces::recipe(&pieces, vocab, merges, unknown, &[PieceKind::Control, PieceKind::Unknown]);
    if keys.architecture == "phi3" {
        recipe.added.iter_mut().for_each(|one| one.token.rstrip = takes_spaces(&one.token.content));
    }
    // A prefix makes a text's first word like any other: Rome and " Rome" are the same piece. Gemma's tokenizer.json splits
    // at spaces, but when it does there are none left.
    recipe.normalizer = pieces::normalizer(keys.flag("ggml.add_space_prefix")?.unwrap_or(true));
    recipe.ends = keys.ends(DEFAULTS)?;
    Ok(recipe)
}

/// Whether a special token of Phi-3 swallows the white space after it, which no key says.
fn takes_spaces(token: &str) -> bool {
    !["<unk>", "<s>", "<|endoftext|>"].contains(&token)
}

/// A token as tokenizer.json writes it: in GGUF, user-defined ones have plain spaces.
fn piece<'a>(keys: &Keys<'_>, text: &'a str, kind: PieceKind) -> Result<Cow<'a, str>> {
    let spaces = text.matches(' ').count();
    if kind != PieceKind::UserDefined || spaces == 0 {
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
fn scores(keys: &mut Keys<'_>, tokens: &[(&str, PieceKind)]) -> Result<Vec<f64>> {
    const KEY: &str = "ggml.scores";
    let scores = match keys.take(KEY) {
        Some(Value::Floats(scores)) if scores.len() == tokens.len() => scores,
        Some(_) => return Err(keys.bad(KEY, "is not one number with a fraction a token")),
        None => return Err(keys.bad(KEY, "is missing; without it the order of merges is unknown")),
    };
    if let Some((id, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
        return Err(keys.bad(KEY, format!("that of id {id} is {score}")));
    }
    let score = |(score, (_, kind)): (&f64, &(&str, PieceKind))| {
        if *kind == PieceKind::Normal { *score } else { 0.0 }
    };
    Ok(scores.iter().zip(tokens).map(score).collect())
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
