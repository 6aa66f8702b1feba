//! Tokenizers encode four texts.

use super::target::any;
use crate::Scene;
use crate::scene::{fixture, repository};
use causalcone_model::Tokenizer;
use serde_json::Value;

/// The most tokens a text may have.
const MOST: usize = 4096;

/// Encodes four texts, and decodes what they became.
pub(super) fn encode(tokenizer: &Tokenizer) {
    let letters = "a".repeat(300);
    for text in
        ["The capital of Spain is", " \u{feff}é\u{301}𝕏\0\u{85}\r\n", "<s><|im_end|>{{ x }}", &letters]
    {
        if let Ok(ids) = tokenizer.prompt(text, None, MOST) {
            tokenizer.decode(&ids);
        }
        let _ = (
            tokenizer.encode_inside(text, MOST),
            tokenizer.encode_behind(text, MOST),
            tokenizer.one_token(text),
        );
    }
    let _ = (
        tokenizer.token(0),
        tokenizer.token(u32::MAX),
        tokenizer.bos(),
        tokenizer.eos(),
        tokenizer.spelling(),
    );
}

fn encode_if(tokenizer: causalcone_model::Result<Tokenizer>) -> Option<()> {
    encode(&tokenizer.ok()?);
    Some(())
}

pub(super) fn json(scene: &Scene, data: &[u8]) -> Option<()> {
    encode_if(Tokenizer::from_json(&scene.write("tokenizer.json", data)?))
}

pub(super) fn sentencepiece(scene: &Scene, data: &[u8]) -> Option<()> {
    if !scene.folder().join("sentencepiece").is_dir() {
        // The file does not say which class of tokenizer reads it.
        scene.write("sentencepiece/tokenizer_config.json", br#"{"tokenizer_class":"LlamaTokenizer"}"#)?;
    }
    encode_if(Tokenizer::from_sentencepiece(&scene.write("sentencepiece/tokenizer.model", data)?))
}

/// The vocabularies and merges of two tokenizers, as the two files that tokenizers had before tokenizer.json.
fn files() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    ["tokenizers/gpt-2.json", "tokenizers/qwen-2.json"].into_iter().map(|name| {
        let model = &fixture(name)["model"];
        let merges = model["merges"].as_array().cloned().unwrap_or_default();
        let merges = merges.iter().map(|merge| match merge {
            Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            other => other.as_str().unwrap_or_default().to_owned(),
        });
        let merges = std::iter::once("#version: 0.2".to_owned()).chain(merges).collect::<Vec<_>>().join("\n");
        (model["vocab"].to_string().into_bytes(), merges.into_bytes())
    })
}

pub(super) fn vocabularies() -> Vec<Vec<u8>> {
    files().map(|(vocab, _)| vocab).collect()
}

pub(super) fn merge_lists() -> Vec<Vec<u8>> {
    files().map(|(_, merges)| merges).collect()
}

/// A folder with a vocabulary, merges, and one file that is the input.
fn old_folder(scene: &Scene, name: &str, data: &[u8]) -> Option<std::path::PathBuf> {
    let folder = format!("old-{name}");
    if !scene.folder().join(&folder).is_dir() {
        let (vocab, merges) = files().next()?;
        scene.write(&format!("{folder}/vocab.json"), &vocab)?;
        scene.write(&format!("{folder}/merges.txt"), &merges)?;
        scene.write(&format!("{folder}/config.json"), br#"{"model_type":"gpt2"}"#)?;
    }
    scene.write(&format!("{folder}/{name}"), data)?;
    Some(scene.folder().join(folder))
}

pub(super) fn vocab(scene: &Scene, data: &[u8]) -> Option<()> {
    encode_if(Tokenizer::from_vocab_and_merges(&old_folder(scene, "vocab.json", data)?.join("vocab.json")))
}

pub(super) fn merges(scene: &Scene, data: &[u8]) -> Option<()> {
    encode_if(Tokenizer::from_vocab_and_merges(&old_folder(scene, "merges.txt", data)?.join("vocab.json")))
}

/// What the fixtures have of a small file beside the vocabulary.
pub(super) fn beside(name: &str) -> Vec<Vec<u8>> {
    let folders = fixture("tokenizers/folders.json");
    let found = folders.as_array().into_iter().flatten().map(|folder| &folder["files"][name]);
    found.filter(|file| file.is_object()).map(|file| file.to_string().into_bytes()).collect()
}

/// The file beside both kinds of vocabulary.
fn both(scene: &Scene, name: &str, data: &[u8]) -> Option<()> {
    let old = old_folder(scene, name, data)?;
    let pieces = format!("pieces-{name}");
    if !scene.folder().join(&pieces).is_dir() {
        let model = std::fs::read(repository("fixtures/tokenizers/llama-2.model")).ok()?;
        scene.write(&format!("{pieces}/tokenizer.model"), &model)?;
        scene.write(&format!("{pieces}/config.json"), br#"{"model_type":"llama"}"#)?;
    }
    scene.write(&format!("{pieces}/{name}"), data)?;
    any([old, scene.folder().join(pieces)].map(|folder| {
        let (tokenizer, _) = Tokenizer::from_directory(&folder).ok()??;
        encode(&tokenizer);
        Some(())
    }))
}

pub(super) fn config(scene: &Scene, data: &[u8]) -> Option<()> {
    both(scene, "tokenizer_config.json", data)
}

pub(super) fn special_tokens_map(scene: &Scene, data: &[u8]) -> Option<()> {
    both(scene, "special_tokens_map.json", data)
}

pub(super) fn added_tokens(scene: &Scene, data: &[u8]) -> Option<()> {
    both(scene, "added_tokens.json", data)
}
