//! A tokenizer that was built: the ids of a text, and the text of ids.

use super::recipe::{Ends, Recipe, Spelling, Stage};
use crate::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// Splitting a prompt takes milliseconds; a pattern made to be slow may take this long.
const MOST_TIME: Duration = Duration::from_millis(300);

/// A tokenizer.
///
/// ```
/// # use causalcone_model::Model;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;
/// let tokenizer = model.tokenizer().expect("this model has one");
/// let ids = tokenizer.encode("The capital", 32)?;
/// assert_eq!(tokenizer.decode(&ids), "The capital");
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    spelling: Spelling,
    /// The steps of splitting where one has a pattern: if that gives up it is an error here, where
    /// the library goes on.
    stages: Vec<Stage>,
    /// By id: the bytes of every token, and whether it is special.
    tokens: Vec<(Vec<u8>, bool)>,
    /// The bytes that no token spells, where the library would leave them out of a text.
    missing: Vec<u8>,
    ends: Ends,
    longest: usize,
}

impl Tokenizer {
    /// Builds a tokenizer from a checked recipe.
    ///
    /// # Errors
    /// A text that says which part of the recipe is wrong.
    pub fn new(recipe: Recipe) -> Result<Self, String> {
        let tokens = recipe.check()?;
        let mut stages = guarded(|| recipe.stages())?;
        if stages.iter().all(|stage| stage.pattern.is_none()) {
            stages.clear();
        }
        let missing = recipe.missing_bytes();
        let (spelling, ends) = (recipe.spelling, recipe.ends);
        let inner = guarded(|| recipe.build())?;
        let longest = tokens.iter().map(|(bytes, _)| bytes.len()).max().unwrap_or(1).max(1);
        Ok(Self { inner, spelling, stages, tokens, missing, ends, longest })
    }

    /// Number of tokens, added ones included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token at all; never true of a tokenizer that could be built.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The start-of-text token, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.ends.bos
    }

    /// The end-of-text token, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.ends.eos
    }

    /// Whether the model was trained with a start-of-text token before every text.
    pub fn adds_bos(&self) -> bool {
        self.ends.adds_bos
    }

    /// The ids of a text, without a start-of-text token. Special tokens spelled out in the text
    /// become themselves. A text too long for `most` tokens is refused before it is split.
    ///
    /// # Errors
    /// When the text is too long, or one of the tokenizer's patterns gives up on it.
    pub fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        if text.len() / self.longest > most {
            let bytes = text.len();
            let problem = format!(
                "the text has {bytes} bytes, which cannot fit the {most} tokens of this model's context"
            );
            return Err(Error::Prompt { problem });
        }
        let failed = |problem: String| Error::Tokenize { given: text.chars().take(40).collect(), problem };
        let encoding = guarded(|| {
            self.try_patterns(text)?;
            let encoding = self.inner.encode_fast(text, false).map_err(|e| e.to_string())?;
            self.check_complete(text, encoding.get_ids())?;
            Ok(encoding)
        });
        Ok(encoding.map_err(failed)?.get_ids().to_vec())
    }

    /// Refuses a text of which the ids leave something out, since the vocabulary has no token for it.
    fn check_complete(&self, text: &str, ids: &[u32]) -> Result<(), String> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let split = self.normalized(text);
        let (mut expected, mut lacks) = (Vec::new(), None);
        for (piece, _, tokens) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            match tokens {
                Some(tokens) => expected.extend(self.bytes(tokens.iter().map(|token| token.id))),
                None => {
                    expected.extend(piece.bytes());
                    let lacked = |c: &char| c.to_string().bytes().any(|byte| self.missing.contains(&byte));
                    lacks = lacks.or_else(|| piece.chars().find(lacked));
                }
            }
        }
        let found = self.bytes(ids.iter().copied());
        match lacks {
            // A whole word may be a token of which no single byte is one, and a space may have been put before the text.
            Some(c) if found != expected && found.strip_prefix(b" ") != Some(&expected[..]) => {
                Err(format!("its vocabulary has no token for {c:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The bytes of some tokens; none for an id that the tokenizer does not know.
    fn bytes(&self, ids: impl Iterator<Item = u32>) -> Vec<u8> {
        ids.filter_map(|id| self.tokens.get(id as usize)).flat_map(|(bytes, _)| bytes).copied().collect()
    }

    /// A text as the library has it before it splits it into words: added tokens are found, and the rest is normalized.
    fn normalized(&self, text: &str) -> PreTokenizedString {
        self.inner.get_added_vocabulary().extract_and_normalize(self.inner.get_normalizer(), text)
    }

    /// Splits a text as the library is about to, and runs each pattern on just what it will see.
    fn try_patterns(&self, text: &str) -> Result<(), String> {
        if self.stages.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let mut split = self.normalized(text);
        for Stage { pattern, step } in &self.stages {
            if let Some(pattern) = pattern {
                let pieces = split.get_splits(OffsetReferential::Normalized, OffsetType::None);
                let texts = pieces.iter().filter(|(.., tokens)| tokens.is_none());
                for found in texts.flat_map(|(text, ..)| pattern.find_iter(text)) {
                    let given_up = match found {
                        Err(e) => e.to_string(),
                        Ok(_) if start.elapsed() > MOST_TIME => "it takes too long".into(),
                        Ok(_) => continue,
                    };
                    return Err(format!("its pattern {:?} gives up: {given_up}", pattern.as_str()));
                }
            }
            step.pre_tokenize(&mut split).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// The ids of a text as it stands inside another one. Tokenizers that put a space before every
    /// text (Llama 2's) would put a second one before `" Rome"`; here they do not.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_inside(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        let rest = match text.strip_prefix(' ') {
            Some(rest) if self.adds_space()? => rest,
            _ => return self.encode(text, most),
        };
        let ids = self.encode(rest, most)?;
        if self.decode(&ids) == text {
            return Ok(ids);
        }
        // Some put a space before a text only where it has none.
        let whole = self.encode(text, most)?;
        Ok(if self.decode(&whole) == text { whole } else { ids })
    }

    /// The ids of a text that goes on behind another one, without a space before it unless it begins with one: as
    /// [`encode_inside`](Self::encode_inside), which gives a text without one the tokens of a text's beginning.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; when the text's tokens depend on what stands before it.
    pub fn encode_behind(&self, text: &str, most: usize) -> Result<Vec<u32>> {
        // What no merge goes across: in these vocabularies it is spelled as a byte.
        const BEFORE: &str = "\n";
        if text.starts_with(' ') || text.is_empty() || !self.adds_space()? {
            return self.encode_inside(text, most);
        }
        let before = self.encode(BEFORE, 16)?;
        let ids = self.encode(&format!("{BEFORE}{text}"), most.saturating_add(before.len()))?;
        match ids.strip_prefix(before.as_slice()) {
            Some(ids) if self.decode(ids) == text => Ok(ids.to_vec()),
            _ => {
                let problem =
                    format!("{text:?} has no tokens of its own behind another text: begin it with a space");
                Err(Error::Prompt { problem })
            }
        }
    }

    /// Whether the first token of a text without a leading space has one.
    fn adds_space(&self) -> Result<bool> {
        let first = self.encode("a", 16)?.first().map(|&id| self.token(id));
        Ok(first.is_some_and(|text| text.starts_with(' ')))
    }

    /// The ids of a prompt. `bos` says whether a start-of-text token comes first; `None` does as the
    /// model was trained. A text that already starts with it does not get a second one.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; when a start-of-text token is asked for and there is none.
    pub fn prompt(&self, text: &str, bos: Option<bool>, most: usize) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, most)?;
        if bos.unwrap_or(self.ends.adds_bos) {
            let Some(bos) = self.ends.bos else {
                let problem = "bos = true asks for a start-of-text token, and this model has none".into();
                return Err(Error::Prompt { problem });
            };
            if ids.first() != Some(&bos) {
                ids.insert(0, bos);
            }
        }
        Ok(ids)
    }

    /// The text of one token as it stands in running text, its leading space included.
    ///
    /// Bytes that are no whole character become U+FFFD; an id the tokenizer does not know becomes
    /// its number in brackets.
    pub fn token(&self, id: u32) -> String {
        match self.tokens.get(id as usize) {
            Some((bytes, _)) => String::from_utf8_lossy(bytes).into_owned(),
            None => format!("[{id}]"),
        }
    }

    /// A token as its vocabulary spells it: `" The"` is `"ĠThe"` or `"▁The"`. `None` for an id that the tokenizer does not
    /// know.
    pub fn piece(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of a sequence of tokens; characters cut across tokens come out whole.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.bytes(ids.iter().copied())).into_owned()
    }

    /// Whether a token is special (start of text, end of text, roles of a chat …).
    pub fn is_special(&self, id: u32) -> bool {
        self.tokens.get(id as usize).is_some_and(|(_, special)| *special)
    }

    /// The id of a text that is exactly one token.
    ///
    /// # Errors
    /// [`Error::NotOneToken`] with the pieces otherwise.
    pub fn one_token(&self, text: &str) -> Result<u32> {
        let ids = self.encode_inside(text, 4096)?;
        match ids.as_slice() {
            [id] => Ok(*id),
            _ => Err(Error::NotOneToken {
                text: text.into(),
                pieces: ids.iter().map(|&id| self.token(id)).collect(),
            }),
        }
    }

    /// How this tokenizer's vocabulary spells bytes and spaces.
    pub fn spelling(&self) -> Spelling {
        self.spelling
    }
}

/// Runs library code that may panic on input nobody foresaw, and makes that an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("the tokenizer library failed on it".into()))
}
