//! SentencePiece's BPE as merges: what tokenizer.model and GGUF files have in common.
//!
//! SentencePiece has pieces with scores: of two neighbours that are a piece together, it joins those with the best score
//! first. Hugging Face makes a BPE with merges of it, and the order of the merges decides where scores are equal. The same
//! is done here. A space is `▁` in pieces, and what no piece spells is spelled in bytes, `<0x0A>`.

use super::recipe::{Added, Ends, Flags, MAX_MERGES, Recipe, Spelling};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use tokenizers::AddedToken;

/// The space as pieces have it.
pub(super) const SPACE: &str = "▁";
/// Looking a piece's parts up takes the square of its length. The largest vocabulary in use,
/// Gemma's, takes about a third of this.
const MAX_SQUARES: usize = 1 << 26;
/// Text of all merges together; Gemma's has some 5 MB.
const MAX_MERGE_TEXT: usize = 24 << 20;

/// What kind of token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// In the order of their numbers, in SentencePiece and in `tokenizer.ggml.token_type` alike, from 1 on.
const KINDS: [PieceKind; 6] = {
    use PieceKind::{Byte, Control, Normal, Unknown, Unused, UserDefined};
    [Normal, Unknown, Control, UserDefined, Unused, Byte]
};

impl PieceKind {
    /// Number of kinds; they are numbered from 1 to this.
    pub(super) const COUNT: usize = KINDS.len();

    pub(super) fn from_number(number: i64) -> Option<Self> {
        KINDS.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }
}

/// One piece of a vocabulary; its id is its place.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) kind: PieceKind,
    /// Finite.
    pub(super) score: f64,
}

/// The added tokens of a vocabulary: those of some kinds, which are special, and user-defined ones, which are not.
pub(super) fn added<'t>(
    tokens: impl Iterator<Item = (&'t str, PieceKind)>,
    special: &[PieceKind],
) -> Vec<Added> {
    let added = |(id, (text, kind)): (u32, (&str, PieceKind))| {
        let special = special.contains(&kind);
        let is_added = special || kind == PieceKind::UserDefined;
        is_added.then(|| Added { id, token: AddedToken::from(text, special).normalized(false) })
    };
    (0..).zip(tokens).filter_map(added).collect()
}

/// The tokenizer of some pieces, without what a file says of spaces and of the ends of a text.
pub(super) fn recipe(
    pieces: &[Piece<'_>],
    vocab: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    unknown: Option<&Piece<'_>>,
    special: &[PieceKind],
) -> Recipe {
    Recipe {
        spelling: Spelling::Metaspace,
        vocab,
        merges,
        added: added(pieces.iter().map(|piece| (piece.text.as_ref(), piece.kind)), special),
        normalizer: Value::Null,
        pre_tokenizer: Value::Null,
        flags: Flags {
            unknown: unknown.map(|piece| piece.text.clone().into_owned()),
            fuse_unknown: true,
            byte_fallback: true,
            ignore_merges: false,
        },
        ends: Ends::default(),
    }
}

/// Token to id, where no token may stand twice.
pub(super) fn vocabulary<'t>(tokens: impl Iterator<Item = &'t str>) -> Result<HashMap<String, u32>, String> {
    let mut vocabulary = HashMap::with_capacity(tokens.size_hint().0);
    for (id, token) in (0u32..).zip(tokens) {
        if let Some(first) = vocabulary.get(token) {
            return Err(format!("ids {first} and {id} are both {token:?}"));
        }
        vocabulary.insert(token.to_owned(), id);
    }
    Ok(vocabulary)
}

/// A character no piece spells becomes bytes, so all of them must be there, or none. Returns whether they are.
pub(super) fn check_bytes(pieces: &[Piece<'_>], vocab: &HashMap<String, u32>) -> Result<bool, String> {
    let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut typed = pieces.iter().filter(|piece| piece.kind == PieceKind::Byte).map(|piece| &piece.text);
    if let Some(odd) = typed.find(|text| !bytes.iter().any(|byte| byte == text.as_ref())) {
        return Err(format!("{odd:?} is a byte by its type, but not \"<0x00>\" to \"<0xFF>\""));
    }
    match bytes.iter().filter(|byte| vocab.contains_key(*byte)).count() {
        0 => Ok(false),
        256 => Ok(true),
        some => Err(format!("has {some} of the 256 bytes")),
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
///
/// Unused pieces are not made: they fill a vocabulary up to a round size.
pub(super) fn merges(
    pieces: &[Piece<'_>],
    vocab: &HashMap<String, u32>,
) -> Result<Vec<(String, String)>, String> {
    let mut cuts = cuts(pieces, vocab, |kind| kind != PieceKind::Unused)?;
    cuts.sort_by(|a, b| {
        let order = |cut: &Cut| (Reverse(cut.lengths), cut.piece, cut.left, cut.right);
        // Scores are finite, so adding zero makes the two zeros one.
        let score = |cut: &Cut| pieces[cut.piece].score + 0.0;
        score(b).total_cmp(&score(a)).then_with(|| order(a).cmp(&order(b)))
    });
    let halves = |cut: Cut| {
        let (left, right) = pieces[cut.piece].text.split_at(cut.at);
        (left.to_owned(), right.to_owned())
    };
    Ok(cuts.into_iter().map(halves).collect())
}

/// A piece that is marked as unused and yet is two other pieces joined. SentencePiece would make it and take it apart again,
/// which merges cannot do.
pub(super) fn unused_but_made<'p>(
    pieces: &'p [Piece<'_>],
    vocab: &HashMap<String, u32>,
) -> Result<Option<&'p str>, String> {
    let cuts = cuts(pieces, vocab, |kind| kind == PieceKind::Unused)?;
    Ok(cuts.first().and_then(|cut| pieces.get(cut.piece)).map(|piece| piece.text.as_ref()))
}

/// All ways to make the pieces of some kinds of two others, by id.
fn cuts(
    pieces: &[Piece<'_>],
    vocab: &HashMap<String, u32>,
    wanted: impl Fn(PieceKind) -> bool,
) -> Result<Vec<Cut>, String> {
    let wanted = || pieces.iter().enumerate().filter(|(_, piece)| wanted(piece.kind));
    let squares = wanted().map(|(_, piece)| piece.text.len().saturating_pow(2));
    if squares.fold(0, usize::saturating_add) > MAX_SQUARES {
        return Err("they are too long to look for merges".into());
    }
    let (mut cuts, mut text) = (Vec::new(), 0usize);
    for (id, piece) in wanted() {
        let length = piece.text.chars().count();
        for (count, (at, _)) in piece.text.char_indices().enumerate().skip(1) {
            let (left, right) = piece.text.split_at(at);
            if let (Some(&left), Some(&right)) = (vocab.get(left), vocab.get(right)) {
                cuts.push(Cut { piece: id, left, right, lengths: (count, length - count), at });
                text += piece.text.len();
            }
        }
        if cuts.len() > MAX_MERGES || text > MAX_MERGE_TEXT {
            return Err("they can be made of each other in too many ways".into());
        }
    }
    Ok(cuts)
}

/// What a SentencePiece tokenizer does to a text before it is split into pieces, as tokenizer.json writes it: each space
/// becomes `▁`, and with a prefix each text begins with one.
pub(super) fn normalizer(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    }
}
